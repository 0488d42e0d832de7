#include "bundle.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <set>
#include <system_error>

#include <asap/error.hpp>

#include "document.hpp"
#include "sha256.hpp"
#include "wording.hpp"

namespace asap::detail {

namespace {

namespace fs = std::filesystem;

constexpr char kManifest[] = "manifest.json";
constexpr char kTokenizer[] = "tokenizer.json";
constexpr char kWeights[] = "weights/";
constexpr char kInlinedWhole[] = "decoder.inlined.onnx";
constexpr char kInlinedEarly[] = "decoder.early.inlined.onnx", kInlinedLate[] = "decoder.late.inlined.onnx";
constexpr char kPartial[] = ".partial-";  // in the name of a folder that is still being written

bool starts_with(std::string const& text, std::string const& start) {
    return text.compare(0, start.size(), start) == 0;
}

BundleError refused(char const* code, std::string const& name, std::string const& expected, std::string const& found) {
    return {code, name, "expected " + expected + ", found " + found + "; export or copy the bundle again"};
}

BundleError unreadable(fs::path const& folder, std::error_code const& error, fs::path const& file) {
    return {
        "unreadable", "",
        "expected readable files in " + python_path(folder) + ", found " + error.message() + ": " + python_path(file)};
}

std::string content(fs::path const& folder) {
    fs::path const path = folder / kManifest;
    std::string const place = python_path(folder);
    std::error_code error;
    auto const status = fs::status(path, error);
    if (status.type() == fs::file_type::not_found)
        throw BundleError(
            "missing_file", kManifest,
            std::string("expected ") + kManifest + " in " + place + ", found none; give the folder of a bundle");
    auto const no_text = [&](std::error_code const& why) {
        return BundleError(
            "unreadable", kManifest,
            std::string("expected a readable ") + kManifest + " in " + place + ", found: " + why.message());
    };
    if (fs::is_directory(status)) throw no_text(std::make_error_code(std::errc::is_a_directory));
    if (!error && !fs::is_regular_file(status))  // a pipe would wait for its writer
        throw no_text(std::make_error_code(std::errc::invalid_argument));
    auto const size = error ? 0 : fs::file_size(path, error);
    if (error) throw no_text(error);
    if (size > kLargestManifest)
        throw manifest_error("too_large", "$", "at most " + std::to_string(kLargestManifest) + " bytes",
                             std::to_string(size));
    errno = 0;
    std::ifstream stream(path, std::ios::binary);
    std::string text(static_cast<std::size_t>(size), '\0');
    if (!stream.read(text.data(), static_cast<std::streamsize>(size)))
        throw no_text({errno ? errno : EIO, std::generic_category()});
    return text;
}

/// The real path of `path`, links followed, whether or not its end exists.
fs::path resolved(fs::path const& path) { return fs::weakly_canonical(fs::absolute(path)); }

bool is_below(fs::path const& path, fs::path const& folder) {
    return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

void check_relative(std::string const& relative) {
    std::string slashed = relative;
    std::replace(slashed.begin(), slashed.end(), '\\', '/');
    bool outside = slashed.substr(0, slashed.find('/')).find(':') != std::string::npos;
    for (std::size_t from = 0; from <= slashed.size();) {
        std::size_t const to = std::min(slashed.find('/', from), slashed.size());
        std::string const part = slashed.substr(from, to - from);
        outside = outside || part.empty() || part == "." || part == "..";
        from = to + 1;
    }
    if (outside)
        throw BundleError(
            "outside", relative,
            "expected a path inside the bundle, found " + python_repr(relative) + "; do not trust this bundle");
}

/// Whether `target` is a blob of Hugging Face's cache and `home` models--org--name/snapshots/REVISION or below: there a
/// revision's files are links to its blobs.
bool is_blob(fs::path const& target, fs::path const& home) {
    for (fs::path place = home; place.has_relative_path(); place = place.parent_path())
        if (place.parent_path().filename() == "snapshots" &&
            target.parent_path() == place.parent_path().parent_path() / "blobs")
            return true;
    return false;
}

/// `folder / relative`, refused where that is or leads (through a link) outside `folder`.
fs::path inside(fs::path const& folder, std::string const& relative) {
    check_relative(relative);
    fs::path path = folder / relative;
    fs::path const target = resolved(path), home = resolved(folder);
    if (!is_below(target, home) && !is_blob(target, home))
        throw BundleError("outside", relative,
                          "expected " + relative + " inside the bundle, found a link to " + target.string() +
                              "; copy it with links followed");
    return path;
}

void check_listing(Manifest const& manifest) {
    std::vector<std::string> named;
    for (auto const& [name, graph] : manifest.graphs) named.push_back(graph.file);
    if (manifest.cpu_decoder) named.push_back(manifest.cpu_decoder->file);
    if (manifest.cuda_decoder) named.push_back(manifest.cuda_decoder->file);
    named.push_back(kTokenizer);
    for (auto const& engine : manifest.engines) named.push_back(engine.file);
    for (auto const& name : named)
        if (!manifest.files.count(name))
            throw refused("unlisted_file", name, name + " among the files of manifest.json", "no entry");
}

void check_size(fs::path const& folder, std::string const& name, FileInfo const& info) {
    fs::path const path = inside(folder, name);
    if (!fs::is_regular_file(path))
        throw refused("missing_file", name, name + " in " + python_path(folder), "no such file");
    auto const size = fs::file_size(path);
    if (size != static_cast<std::uintmax_t>(info.size))
        throw refused("wrong_size", name, std::to_string(info.size) + " bytes in " + name, std::to_string(size));
}

void check_hash(fs::path const& folder, std::string const& name, FileInfo const& info) {
    fs::path const path = folder / name;
    std::string digest;
    try {
        digest = sha256_of(path);
    } catch (std::system_error const& error) {
        throw unreadable(folder, error.code(), path);
    }
    if (digest != info.sha256)
        throw refused("wrong_hash", name, "sha256 " + info.sha256.substr(0, 12) + "... of " + name,
                      digest.substr(0, 12) + "...");
}

void check_files(Bundle const& bundle) {
    try {
        for (auto const& [name, info] : bundle.manifest.files) check_size(bundle.path, name, info);
    } catch (fs::filesystem_error const& error) {
        throw unreadable(bundle.path, error.code(), error.path1());
    }
    std::set<std::string> engines;
    for (auto const& engine : bundle.manifest.engines) engines.insert(engine.file);
    for (auto const& [name, info] : bundle.manifest.files)
        if (!starts_with(name, kWeights) && !engines.count(name)) check_hash(bundle.path, name, info);
}

void check_folder(fs::path const& folder) {
    std::error_code error;
    auto const status = fs::status(folder, error);
    if (!fs::is_directory(status))
        throw BundleError("no_bundle", "",
                          "expected a bundle folder at " + python_path(folder) + ", found " +
                              (fs::exists(status) ? "a file" : "nothing") + "; make one with asap-export --output");
    fs::path const real = fs::canonical(folder, error);
    if (error) throw unreadable(folder, error, folder);
    if (real.filename().string().find(kPartial) != std::string::npos)
        throw BundleError(
            "unfinished", "",
            "expected a finished bundle, found an interrupted export at " + python_path(folder) + "; export again");
}

Bundle::State state_of(fs::path const& file) {
    struct stat status{};
    if (stat(file.c_str(), &status) != 0) return {};
    return {static_cast<std::int64_t>(status.st_dev), static_cast<std::int64_t>(status.st_ino), status.st_size,
            status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
}

}  // namespace

void Bundle::check_unchanged() const {
    for (auto const& [name, state] : seen)
        if (state_of(path / name) != state)
            throw BundleError("changed", name,
                              "expected " + path.string() + " to stay as it is while it is loaded, found another " +
                                  name + "; load it again");
}

std::vector<fs::path> Bundle::inlined_decoder() const {
    std::vector<std::vector<std::string>> const forms = {{kInlinedWhole}, {kInlinedEarly, kInlinedLate}};
    for (auto const& names : forms) {
        std::vector<fs::path> found;
        for (std::string const& name : names)
            if (manifest.files.count(name)) found.push_back(file(name));
        if (found.size() == names.size()) return found;
    }
    return {};
}

std::vector<EngineInfo> Bundle::engines(std::string const& graph, std::string const& flavor) const {
    std::map<std::int64_t, EngineInfo> parts;
    std::set<std::int64_t> of;
    for (auto const& engine : manifest.engines) {
        if (engine.graph != graph || engine.flavor != flavor) continue;
        if (!engine.part) return {engine};
        parts[engine.part->number] = engine;
        of.insert(engine.part->of);
    }
    std::vector<EngineInfo> found;
    if (of != std::set<std::int64_t>{static_cast<std::int64_t>(parts.size())}) return found;
    for (auto& [number, engine] : parts) found.push_back(std::move(engine));
    return found;
}

Bundle open_bundle(std::filesystem::path const& folder) {
    check_folder(folder);
    auto const manifest = state_of(folder / kManifest);
    Bundle bundle{python_path(folder), parse_manifest(content(folder)), {{kManifest, manifest}}};
    check_listing(bundle.manifest);
    for (auto const& [name, info] : bundle.manifest.files) bundle.seen[name] = state_of(folder / name);
    check_files(bundle);
    return bundle;
}

}  // namespace asap::detail
