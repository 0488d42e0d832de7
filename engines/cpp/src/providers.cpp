#include "providers.hpp"

#include <algorithm>
#include <memory>
#include <string>
#include <variant>

#include <asap/error.hpp>

#include "cuda_devices.hpp"
#include "onnxruntime_backend.hpp"
#include "openvino_library.hpp"
#ifdef ASAP_WITH_TENSORRT
#include "tensorrt_backend.hpp"
#endif

namespace asap::detail {

namespace {

constexpr char kCapacity[] = "capacity", kUntrimmed[] = "untrimmed";  // dimensions of a decoder for the CPU

#ifdef ASAP_WITH_TENSORRT
void check_engines(Bundle const& bundle) { check_tensorrt(bundle); }
Sessions open_engines(Bundle const& bundle, LoadOptions const& options) {
    return open_tensorrt(bundle, options.cuda_stream);
}
#else
void check_engines(Bundle const&) {
    throw Error(
        "expected asap_runtime built with TensorRT, found it built without; use --provider cpu or cuda, or "
        "build it where CMake finds NvInfer.h");
}
Sessions open_engines(Bundle const& bundle, LoadOptions const&) {
    check_engines(bundle);
    return {};
}
#endif

bool has_engines(Bundle const& bundle, char const* flavor) {
    for (char const* const graph : {"vision_encoder", "embed_tokens", "decoder"})
        if (bundle.engines(graph, flavor).empty()) return false;
    return true;
}

void check_tensorrt_runs(Bundle const& bundle) {
    if (!has_engines(bundle, "tensorrt") && !has_engines(bundle, "tensorrt_rtx"))
        throw Error("expected TensorRT engines in " + bundle.path.string() +
                    ", found none; export with --engine trt, or use --provider cpu or cuda");
    check_engines(bundle);
}

void check_openvino_runs(Bundle const& bundle) {
    check_openvino();
    if (bundle.inlined_decoder().empty())
        throw Error("expected a decoder without functions in " + bundle.path.string() +
                    ", found none: an older version made it; export it again or use --provider cpu");
    if (bundle.manifest.dtype == "bf16")
        throw Error(
            "expected an fp16 or fp32 bundle for OpenVINO, found bf16; export with --dtype fp16 or fp32, and OpenVINO "
            "computes in bf16 where the CPU is fast in it");
}

OpenVinoGraphs openvino_graphs(Bundle const& bundle) {
    OpenVinoGraphs graphs{
        bundle.graph_path("vision_encoder"), bundle.graph_path("embed_tokens"), bundle.inlined_decoder(), {}};
    for (TensorInfo const& output : bundle.manifest.graphs.at("decoder").outputs)
        graphs.decoder_outputs.push_back(output.name);
    return graphs;
}

Provider best(Bundle const& bundle) {
    if (compute_capabilities().empty()) return Provider::cpu;
    try {
        check_tensorrt_runs(bundle);
        return Provider::tensorrt;
    } catch (Error const&) {
        return has_cuda_provider() ? Provider::cuda : Provider::cpu;
    }
}

/// Names of the tensors that have a dimension of this name.
std::vector<std::string> with_dimension(std::vector<TensorInfo> const& tensors, std::string const& dimension) {
    std::vector<std::string> names;
    for (TensorInfo const& tensor : tensors)
        for (auto const& size : tensor.dims)
            if (auto const* const name = std::get_if<std::string>(&size); name && *name == dimension)
                names.push_back(tensor.name);
    return names;
}

char const* name_of(Provider provider) {
    switch (provider) {
        case Provider::automatic: return "auto";
        case Provider::cpu: return "cpu";
        case Provider::openvino: return "openvino";
        case Provider::cuda: return "cuda";
        case Provider::tensorrt: return "tensorrt";
    }
    return "";
}

}  // namespace

void check_precision(LoadOptions const& options) {
    if (options.precision != Precision::automatic && options.provider != Provider::openvino)
        throw Error(std::string("expected --precision with --provider openvino, found it with ") +
                    name_of(options.provider) + "; change one of them");
}

Provider choose_provider(Bundle const& bundle, Provider provider) {
    if (provider == Provider::automatic) provider = best(bundle);
    if (provider == Provider::tensorrt) check_tensorrt_runs(bundle);
    if (provider == Provider::openvino) check_openvino_runs(bundle);
    if (provider == Provider::cpu && bundle.manifest.dtype == "bf16")
        throw Error(
            "expected an fp16 or fp32 bundle for ONNX Runtime's CPU provider, found bf16, which needs CUDA or "
            "TensorRT; use --provider cuda, or export with --dtype fp16 or fp32");
    return provider;
}

std::filesystem::path graph_file(Bundle const& bundle, std::string const& graph, Provider provider) {
    return graph == "decoder" ? bundle.decoder_path(provider == Provider::cuda) : bundle.graph_path(graph);
}

CacheForm cache_form(Bundle const& bundle, Provider provider) {
    CacheForm form;
    auto const& decoder = bundle.manifest.cpu_decoder;
    if (provider != Provider::cpu || !decoder) return form;
    std::vector<std::string> untrimmed = with_dimension(decoder->outputs, kUntrimmed);
    form.growing = with_dimension(decoder->inputs, kCapacity);
    for (TensorInfo const& input : decoder->inputs)
        if (std::find(untrimmed.begin(), untrimmed.end(), present_name(input.name)) != untrimmed.end())
            form.untrimmed.push_back(input.name);
    return form;
}

Sessions open_sessions(Ort::Env const& environment, Bundle const& bundle, Provider provider, LoadOptions const& options,
                       bool mapped) {
    if (provider == Provider::tensorrt) return open_engines(bundle, options);
    if (provider == Provider::openvino)
        return open_openvino(openvino_graphs(bundle), options.precision, options.threads);
    OnnxRuntimeOptions settings;
    settings.cuda = provider == Provider::cuda;
    settings.threads = options.threads;
    settings.mapped = mapped;
    settings.shared_arena = options.shared_arena;
    auto const open = [&](char const* graph) {
        return open_onnxruntime(environment, graph_file(bundle, graph, provider), settings);
    };
    return {open("vision_encoder"), open("embed_tokens"), open("decoder")};
}

}  // namespace asap::detail
