/// Graphs in ONNX Runtime, on its CPU or CUDA execution provider.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include <onnxruntime_cxx_api.h>

#include "backend.hpp"

namespace asap::detail {

struct OnnxRuntimeOptions {
    bool cuda = false;
    std::optional<int> threads;  // of one operator; one for each core by default
    bool mapped = false;         // weights stay in their file until a run needs them, as wide as they are
    bool shared_arena = true;    // with all such sessions of the process on the CPU, but mapped ones
};

/// Whether the ONNX Runtime that this program runs with has the CUDA provider.
bool has_cuda_provider();

/// Throws `Error` for a number of threads below 1.
void check_threads(std::optional<int> threads);

/// Opens the graph in `file`. Throws `Error` where this ONNX Runtime lacks the provider or cannot load the graph.
/// `environment` must outlive the session.
std::unique_ptr<GraphSession> open_onnxruntime(Ort::Env const& environment, std::filesystem::path const& file,
                                               OnnxRuntimeOptions const& options);

}  // namespace asap::detail
