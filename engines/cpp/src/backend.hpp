/// What runs graphs: ONNX Runtime, OpenVINO or TensorRT, behind one method.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "tensor.hpp"

namespace asap::detail {

using Names = std::set<std::string>;

/// One graph, ready to run.
class GraphSession {
public:
    virtual ~GraphSession() = default;

    /// All outputs by name but those in `into`; those in `on_host` in host memory, the others where the backend keeps
    /// them. Thread-safe.
    ///
    /// Outputs named in `into` are written into these tensors, which may be inputs of the same run where the graph
    /// allows that; only sessions of ONNX Runtime are given any.
    virtual Tensors run(Tensors const& inputs, Names const& on_host, HostTensors const& into = {}) const = 0;

    /// The largest size of an input's axis that this session takes; nothing where only memory limits it.
    virtual std::optional<std::int64_t> longest(std::string const& name, std::size_t axis) const = 0;
};

/// The three graphs that a model runs on, all in sessions of one backend.
struct Sessions {
    std::unique_ptr<GraphSession> vision_encoder, embed_tokens, decoder;
};

}  // namespace asap::detail
