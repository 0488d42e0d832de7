/// OpenVINO's backend, loaded when it is asked for.
#pragma once

#include "openvino_backend.hpp"

namespace asap::detail {

/// Throws `Error` where this build has no backend for OpenVINO, or OpenVINO itself is not found.
void check_openvino();

/// Sessions on these graphs, as `asap_open_openvino` makes them.
Sessions open_openvino(OpenVinoGraphs const& graphs, Precision precision, std::optional<int> threads);

}  // namespace asap::detail
