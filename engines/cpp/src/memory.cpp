#include "memory.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <sstream>
#include <thread>

#include <asap/error.hpp>

namespace asap::detail {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kBlock = 512;  // rows; see graphs/cpu/Blocks.onnxtxt
// Address space that a thread's stack (8 MiB) and the C library's allocator (64) set aside for it and do not fill.
constexpr std::int64_t kOfAThread = 72 << 20;
constexpr std::int64_t kToOpen = 32 << 20;  // twice what a graph of 32 layers was seen to take

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
        if (line.compare(0, name.size(), name) != 0) continue;
        std::istringstream words(line.substr(name.size()));
        std::int64_t value;
        if (words.peek() <= ' ' && words >> value) return value;
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

/// What is left of `ulimit -v`, less what threads may still set aside.
std::int64_t left_in_address_space(fs::path const& root) {
    auto const limit = entry(text(root / "proc/self/limits"), "Max address space");
    if (!limit) return kUnlimited;
    std::int64_t const used = entry(text(root / "proc/self/status"), "VmSize:").value_or(0) * 1024;
    return *limit - used - kOfAThread * std::max<std::int64_t>(1, std::thread::hardware_concurrency());
}

/// Bytes of a bundle's weights as stored, and as ONNX Runtime's CPU provider holds them: fp16 as float32.
std::pair<std::int64_t, std::int64_t> weight_memory(Manifest const& manifest) {
    std::int64_t stored = 0, packed = 0;
    for (auto const& [name, file] : manifest.files) {
        if (name.rfind("weights/", 0) != 0) continue;
        auto const size = static_cast<std::int64_t>(file.size);
        stored += size;
        for (char const* integers : {".int4.", ".int8."})
            if (name.find(integers) != std::string::npos) packed += size;
    }
    return {stored, stored + (manifest.dtype == "fp16" ? stored - packed : 0)};
}

}  // namespace

std::int64_t available_memory(fs::path const& root) {
    auto const kilobytes = entry(text(root / "proc/meminfo"), "MemAvailable:");
    std::int64_t const free = kilobytes ? *kilobytes * 1024 : kUnlimited;
    return std::max<std::int64_t>(0, std::min({free, left_in_containers(root), left_in_address_space(root)}));
}

bool room_to_open() { return available_memory() >= kToOpen; }

std::string gigabytes(double size) {
    char line[400];  // the longest double has 309 digits before the point
    std::snprintf(line, sizeof line, size >= 1e8 ? "%.1f GB" : "%.0f MB", size / (size >= 1e8 ? 1e9 : 1e6));
    return line;
}

bool weights_stay_on_disk(Bundle const& bundle, std::int64_t available) {
    auto const [stored, computed] = weight_memory(bundle.manifest);
    if (stored > available)
        throw Error("expected " + gigabytes(static_cast<double>(stored)) + " of free memory for the weights of " +
                    bundle.path.string() + ", found " + gigabytes(static_cast<double>(available)) + "; " +
                    (bundle.manifest.quantization ? "use a larger machine" : "export with --quantize int4"));
    return computed > available;
}

double memory_needed(ModelSpec const& model, std::int64_t count, std::int64_t cached, bool blocks) {
    auto const number = [](std::int64_t value) { return static_cast<double>(value); };
    double const fresh = number(count), all = number(cached) + fresh;
    double const rows = number(blocks ? std::min(count, kBlock) : count);
    double const scores = 3 * number(model.heads) * rows * all;  // products, with the mask, and as probabilities
    double const activations = 4 * (number(model.hidden_size) + number(model.intermediate_size)) * fresh;
    double const cache = 2 * 2 * number(model.layers) * number(model.kv_heads) * number(model.head_dim) * all;
    return 4 * (scores + activations + cache);  // the CPU computes in float32, whatever is stored
}

bool scores_in_blocks(Manifest const& manifest) {
    if (!manifest.cpu_decoder || manifest.dtype != "fp32") return false;
    auto const& passes = manifest.cpu_decoder->passes;
    for (char const* const pass : {"fused-attention", "blockwise-soft-mask"})
        if (std::find(passes.begin(), passes.end(), pass) == passes.end()) return false;
    auto const& pruning = manifest.pruning;
    bool const soft = pruning.method == "asap" && pruning.bidirectional;
    return !pruning.prunes() || soft || pruning.score == "last" || pruning.score == "salience";
}

void RunMemory::check(double needed, std::int64_t count) const {
    if (needed <= held_) return;
    auto const available = static_cast<double>(available_memory());
    if (needed > available)
        throw Error("expected about " + gigabytes(needed) + " of free memory for a run of " + std::to_string(count) +
                    " tokens, found " + gigabytes(available) + "; shorten the request or use a smaller image");
}

}  // namespace asap::detail
