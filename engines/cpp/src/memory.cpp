#include "memory.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <sstream>

#include <asap/error.hpp>

namespace asap::detail {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max();

std::string text(fs::path const& file) {
    std::ifstream stream(file);
    return {std::istreambuf_iterator<char>(stream), {}};
}

/// The first number in `file`; nothing where it holds another word ("max") or cannot be read.
std::optional<std::int64_t> number(fs::path const& file) {
    std::istringstream words(text(file));
    std::int64_t value;
    if (words >> value) return value;
    return std::nullopt;
}

/// The number behind `name` in lines of a name and a number.
std::optional<std::int64_t> entry(std::string const& lines, std::string const& name) {
    std::istringstream stream(lines);
    for (std::string line; std::getline(stream, line);) {
        std::istringstream words(line);
        std::string found;
        std::int64_t value;
        if (words >> found >> value && found == name) return value;
    }
    return std::nullopt;
}

/// File pages that the kernel gives back when memory is asked for.
std::int64_t page_cache(fs::path const& group) {
    std::string const entries = text(group / "memory.stat");
    // version 1 counts groups below apart
    std::string const total = entry(entries, "total_inactive_file") ? "total_" : "";
    return entry(entries, total + "active_file").value_or(0) + entry(entries, total + "inactive_file").value_or(0);
}

/// What is left of the limit of one control group.
std::int64_t left_in(fs::path const& group, bool version_1) {
    auto const limit = number(group / (version_1 ? "memory.limit_in_bytes" : "memory.max"));
    if (!limit) return kUnlimited;
    std::int64_t const used = number(group / (version_1 ? "memory.usage_in_bytes" : "memory.current")).value_or(0);
    return *limit - used + page_cache(group);
}

std::int64_t left_in_containers(fs::path const& root) {
    std::int64_t least = kUnlimited;
    std::istringstream lines(text(root / "proc/self/cgroup"));
    for (std::string line; std::getline(lines, line);) {  // "0::/group", "5:memory:/group"
        auto const first = line.find(':'), second = line.find(':', first + 1);
        if (second == std::string::npos) continue;
        std::string const controllers = line.substr(first + 1, second - first - 1);
        if (!controllers.empty() && controllers != "memory") continue;
        fs::path const top = root / "sys/fs/cgroup" / controllers;
        for (fs::path group = top / fs::path(line.substr(second + 1)).relative_path();; group = group.parent_path()) {
            least = std::min(least, left_in(group, !controllers.empty()));
            if (group == top || !group.has_relative_path() || group == group.parent_path()) break;
        }
    }
    return least;
}

/// Bytes of a bundle's weights as stored, and as ONNX Runtime's CPU provider holds them: fp16 as float32.
std::pair<std::int64_t, std::int64_t> weight_memory(Manifest const& manifest) {
    std::int64_t stored = 0, packed = 0;
    for (auto const& [name, file] : manifest.files) {
        if (name.rfind("weights/", 0) != 0) continue;
        auto const size = static_cast<std::int64_t>(file.size);
        stored += size;
        if (name.find(".int4.") != std::string::npos) packed += size;
    }
    return {stored, stored + (manifest.dtype == "fp16" ? stored - packed : 0)};
}

}  // namespace

std::int64_t available_memory(fs::path const& root) {
    auto const kilobytes = entry(text(root / "proc/meminfo"), "MemAvailable:");
    std::int64_t const free = kilobytes ? *kilobytes * 1024 : kUnlimited;
    return std::max<std::int64_t>(0, std::min(free, left_in_containers(root)));
}

std::string gigabytes(std::int64_t size) {
    char line[40];
    std::snprintf(line, sizeof line, "%.1f GB", static_cast<double>(size) / 1e9);
    return line;
}

bool weights_stay_on_disk(Bundle const& bundle) {
    auto const [stored, computed] = weight_memory(bundle.manifest);
    std::int64_t const available = available_memory();
    if (stored > available)
        throw Error("expected " + gigabytes(stored) + " of free memory for the weights of " + bundle.path.string() +
                    ", found " + gigabytes(available) + "; " +
                    (bundle.manifest.quantization ? "use a larger machine" : "export with --quantize int4"));
    return computed > available;
}

}  // namespace asap::detail
