/// Where a bundle runs: on the CPU, on CUDA through ONNX Runtime, or on its own TensorRT engines.
#pragma once

#include <onnxruntime_cxx_api.h>
#include <asap/model.hpp>

#include "backend.hpp"
#include "bundle.hpp"

namespace asap::detail {

/// The provider that `automatic` stands for here, or `provider` itself where it can run this bundle; else `Error`.
Provider choose_provider(Bundle const& bundle, Provider provider);

/// Sessions for the three graphs on a provider that `choose_provider` returned. `mapped`: weights stay in their files
/// and are read at every step, for the CPU alone.
Sessions open_sessions(Ort::Env const& environment, Bundle const& bundle, Provider provider, LoadOptions const& options,
                       bool mapped);

}  // namespace asap::detail
