/// Where a bundle runs: in ONNX Runtime on the CPU or on CUDA, in OpenVINO, or on its own TensorRT engines.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>
#include <asap/model.hpp>

#include "backend.hpp"
#include "bundle.hpp"
#include "kv_cache.hpp"

namespace asap::detail {

/// Throws `Error` where a precision is asked for that the provider would not heed.
void check_precision(LoadOptions const& options);

/// The provider that `automatic` stands for here, or `provider` itself where it can run this bundle; else `Error`.
Provider choose_provider(Bundle const& bundle, Provider provider);

/// The ONNX file that a provider of ONNX Runtime runs: on the CPU the decoder's own form for it.
std::filesystem::path graph_file(Bundle const& bundle, std::string const& graph, Provider provider);

/// What the decoder of a provider does with its caches.
CacheForm cache_form(Bundle const& bundle, Provider provider);

/// Sessions for the three graphs on a provider that `choose_provider` returned. `mapped`: weights stay in their files
/// and are read at every step, for the CPU alone.
Sessions open_sessions(Ort::Env const& environment, Bundle const& bundle, Provider provider, LoadOptions const& options,
                       bool mapped);

}  // namespace asap::detail
