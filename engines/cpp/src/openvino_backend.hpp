/// OpenVINO as a backend. It is a library of its own, which is loaded when a model asks for it: programs run without
/// OpenVINO, too.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <asap/model.hpp>

#include "backend.hpp"

namespace asap::detail {

/// What OpenVINO is given of a bundle.
struct OpenVinoGraphs {
    std::filesystem::path vision_encoder, embed_tokens;
    std::vector<std::filesystem::path> decoder;  // without functions, in the order in which its parts run
    std::vector<std::string> decoder_outputs;
};

/// Sessions on these graphs. Throws `Error` where the CPU lacks instructions for `precision`, or this OpenVINO cannot
/// run a graph.
extern "C" void asap_open_openvino(OpenVinoGraphs const& graphs, Precision precision, std::optional<int> threads,
                                   Sessions& opened);

}  // namespace asap::detail
