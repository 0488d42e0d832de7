/// A bundle that has been checked: nothing missing, nothing altered, nothing outside its folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "manifest.hpp"

namespace asap::detail {

/// Made by `open_bundle`.
struct Bundle {
    /// Which file it is, and since when: device, inode, size, and seconds and nanoseconds of its last change. Empty
    /// where there is none.
    using State = std::vector<std::int64_t>;

    std::filesystem::path path;
    Manifest manifest;
    std::map<std::string, State> seen;  ///< by file, when it was opened

    /// Throws `BundleError` where a file is another than when the bundle was opened, as after its folder was
    /// replaced: what has been read since is then of two bundles.
    void check_unchanged() const;

    /// Where a file of the manifest is.
    std::filesystem::path file(std::string const& relative) const { return path / relative; }

    /// The ONNX file of "preprocess", "vision_encoder", "embed_tokens" or "decoder".
    std::filesystem::path graph_path(std::string const& graph) const { return file(manifest.graphs.at(graph).file); }

    /// The decoder's ONNX file for ONNX Runtime's CUDA provider, or its CPU provider: its own, or decoder.onnx.
    std::filesystem::path decoder_path(bool cuda) const {
        if (cuda && manifest.cuda_decoder) return file(manifest.cuda_decoder->file);
        if (!cuda && manifest.cpu_decoder) return file(manifest.cpu_decoder->file);
        return graph_path("decoder");
    }

    /// The decoder's ONNX files for runtimes that expand no functions, in the order in which they run; none in bundles
    /// of versions that wrote none.
    std::vector<std::filesystem::path> inlined_decoder() const;

    /// The engine of a graph, or the engines of all its parts in the order in which they run. Empty where the
    /// bundle has none of this flavor, or not every part.
    std::vector<EngineInfo> engines(std::string const& graph, std::string const& flavor) const;
};

/// The bundle in a folder: all sizes are checked, and the hashes of all but weights and engines. Throws
/// `BundleError` where anything is missing, altered, outside the folder, or written by a release with
/// another manifest.
Bundle open_bundle(std::filesystem::path const& folder);

}  // namespace asap::detail
