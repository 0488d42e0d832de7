/// Graphs in TensorRT or TensorRT-RTX: the engines of the bundle. Compiled where CMake finds NvInfer.h.
#pragma once

#include "backend.hpp"
#include "bundle.hpp"

namespace asap::detail {

/// Throws `Error` where the bundle has no engines that run on this machine with this build's TensorRT.
void check_tensorrt(Bundle const& bundle);

/// Sessions on the engines of a bundle that `check_tensorrt` has let pass. They run on the CUDA device that is current
/// now, in `stream` (a cudaStream_t), or in a stream of their own where that is null. One run at a time: calls wait for
/// one another. A run is over, outputs included, when it returns.
Sessions open_tensorrt(Bundle const& bundle, void* stream);

}  // namespace asap::detail
