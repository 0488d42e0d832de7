/// Graphs in OpenVINO, on its CPU plugin.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>

#include "backend.hpp"

namespace asap::detail {

struct OpenVinoOptions {
    std::string precision;  // "f32" or "bf16", in which products are computed
    std::optional<int> threads;
};

/// The graph in `file`. Throws `Error` where this OpenVINO cannot read it.
std::shared_ptr<ov::Model> read_graph(std::filesystem::path const& file);

/// `graph` for the CPU; `file` is where it came from, `more` settings beside those of every graph. Throws `Error` where
/// this OpenVINO cannot run it.
ov::CompiledModel compiled(ov::Core& core, std::shared_ptr<ov::Model> const& graph, std::filesystem::path const& file,
                           OpenVinoOptions const& options, ov::AnyMap const& more = {});

/// All outputs of a run, of caches the places `behind` so many, copied: the next run writes over OpenVINO's own.
Tensors run_once(ov::InferRequest& request, ov::CompiledModel const& graph, Tensors const& inputs,
                 std::int64_t behind = 0);

/// Names of what a graph takes.
std::vector<std::string> input_names(ov::CompiledModel const& graph);

/// Whether this is the decoder's input for a cache.
bool is_cache(std::string const& name);

/// One ONNX file as it is.
class OpenVinoSession final : public GraphSession {
public:
    OpenVinoSession(ov::Core& core, std::filesystem::path const& file, OpenVinoOptions const& options);

    Tensors run(Tensors const& inputs, Names const& on_host, HostTensors const& into) const override;
    std::optional<std::int64_t> longest(std::string const&, std::size_t) const override { return std::nullopt; }

    /// `run`, which gives of caches the places `behind` so many alone.
    Tensors run_behind(Tensors const& inputs, std::int64_t behind) const;

    std::vector<std::string> inputs() const { return input_names(graph_); }

private:
    ov::CompiledModel graph_;
    mutable ov::InferRequest request_;
    mutable std::mutex mutex_;  // one run at a time
};

}  // namespace asap::detail
