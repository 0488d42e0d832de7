#include "onnxruntime_backend.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <utility>

#include <asap/error.hpp>

#include "memory.hpp"
#include "onnxruntime_error.hpp"
#include "shared_arena.hpp"

namespace asap::detail {

namespace {

/// An output of ONNX Runtime, where it left it; and an input lent to it, which `lender` keeps alive.
class OrtTensor final : public Tensor {
public:
    explicit OrtTensor(Ort::Value value) : value_(std::move(value)) {
        auto const info = value_.GetTensorTypeAndShapeInfo();
        shape_ = info.GetShape();
        dtype_ = dtype_of(info.GetElementType());
        auto const memory = value_.GetTensorMemoryInfo();
        on_host_ = memory.GetDeviceType() == OrtMemoryInfoDeviceType_CPU;
    }

    Dtype dtype() const override { return dtype_; }
    Shape const& shape() const override { return shape_; }
    std::byte const* host() const override {
        return on_host_ ? static_cast<std::byte const*>(value_.GetTensorRawData()) : nullptr;
    }
    Ort::Value const& value() const { return value_; }

private:
    static Dtype dtype_of(ONNXTensorElementDataType type) {
        switch (type) {
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return Dtype::fp32;
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return Dtype::fp16;
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16: return Dtype::bf16;
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: return Dtype::int64;
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: return Dtype::int32;
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL: return Dtype::boolean;
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8: return Dtype::uint8;
            default: throw Error("expected outputs of the bundle's dtypes, found another; export the bundle again");
        }
    }

    Ort::Value value_;
    Shape shape_;
    Dtype dtype_ = Dtype::fp32;
    bool on_host_ = true;
};

ONNXTensorElementDataType onnx_type(Dtype dtype) {
    switch (dtype) {
        case Dtype::fp32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
        case Dtype::fp16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
        case Dtype::bf16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
        case Dtype::int64: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
        case Dtype::int32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
        case Dtype::boolean: return ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
        case Dtype::uint8: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    }
    throw std::logic_error("a dtype that ONNX does not have");
}

class OnnxRuntimeSession final : public GraphSession {
public:
    OnnxRuntimeSession(std::unique_ptr<SharedArena const> arena, Ort::Session session, bool cuda, std::string name)
        : arena_(std::move(arena)),
          session_(std::move(session)),
          name_(std::move(name)),
          host_(Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault)),
          device_(cuda ? Ort::MemoryInfo("Cuda", OrtDeviceAllocator, 0, OrtMemTypeDefault)
                       : Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault)) {
        Ort::AllocatorWithDefaultOptions allocator;
        for (std::size_t i = 0; i < session_.GetOutputCount(); ++i)
            outputs_.emplace_back(session_.GetOutputNameAllocated(i, allocator).get());
    }

    Tensors run(Tensors const& inputs, Names const& on_host, HostTensors const& into) const override {
        try {
            return bound_run(inputs, on_host, into);
        } catch (Ort::Exception const& error) {
            throw not_run(name_, error);
        }
    }

    std::optional<std::int64_t> longest(std::string const&, std::size_t) const override { return std::nullopt; }

private:
    Tensors bound_run(Tensors const& inputs, Names const& on_host, HostTensors const& into) const {
        // Run only reads the session, but the C++ interface has no const form of binding.
        Ort::IoBinding binding(const_cast<Ort::Session&>(session_));
        std::vector<Ort::Value> lent;  // until the run is over
        lent.reserve(inputs.size() + into.size());
        for (auto const& [name, tensor] : inputs) {
            if (auto const* const own = dynamic_cast<OrtTensor const*>(tensor.get())) {
                binding.BindInput(name.c_str(), own->value());
            } else {
                lent.push_back(lend(*tensor));
                binding.BindInput(name.c_str(), lent.back());
            }
        }
        for (std::string const& name : outputs_) {
            if (auto const given = into.find(name); given != into.end()) {
                lent.push_back(lend(*given->second));
                binding.BindOutput(name.c_str(), lent.back());
            } else {
                binding.BindOutput(name.c_str(), on_host.count(name) ? host_ : device_);
            }
        }
        const_cast<Ort::Session&>(session_).Run(Ort::RunOptions{nullptr}, binding);
        std::vector<Ort::Value> values = binding.GetOutputValues();
        Tensors results;
        for (std::size_t i = 0; i < outputs_.size(); ++i)
            if (!into.count(outputs_[i]))
                results.emplace(outputs_[i], std::make_shared<OrtTensor>(std::move(values[i])));
        return results;
    }

    /// Host memory as an input or output, without a copy; ONNX Runtime writes only to what is bound as an output.
    Ort::Value lend(Tensor const& tensor) const {
        auto* const bytes = const_cast<std::byte*>(tensor.host());
        std::size_t const size = elements(tensor.shape()) * size_of(tensor.dtype());
        return Ort::Value::CreateTensor(host_, bytes, size, tensor.shape().data(), tensor.shape().size(),
                                        onnx_type(tensor.dtype()));
    }

    std::unique_ptr<SharedArena const> arena_;
    Ort::Session session_;
    std::string name_;
    Ort::MemoryInfo host_, device_;
    std::vector<std::string> outputs_;
};

void append_cuda(Ort::SessionOptions& options) {
    OrtApi const& api = Ort::GetApi();
    OrtCUDAProviderOptionsV2* made = nullptr;
    Ort::ThrowOnError(api.CreateCUDAProviderOptions(&made));
    std::unique_ptr<OrtCUDAProviderOptionsV2, decltype(api.ReleaseCUDAProviderOptions)> const cuda(
        made, api.ReleaseCUDAProviderOptions);
    char const *const key = "use_tf32", *const value = "0";  // scores are float32; TF32 has ten bits of mantissa
    Ort::ThrowOnError(api.UpdateCUDAProviderOptions(cuda.get(), &key, &value, 1));
    options.AppendExecutionProvider_CUDA_V2(*cuda);
}

bool shares_arena(OnnxRuntimeOptions const& options) {
    return options.shared_arena && !options.mapped && !options.cuda;
}

/// Whether an x86 processor adds products of bytes in 32 bits. Without VNNI ONNX Runtime's fast kernels add pairs in
/// 16, which overflow; it has slower ones that do not.
bool has_vnni() {
    static bool const has = [] {
        std::ifstream file("/proc/cpuinfo");
        return std::string(std::istreambuf_iterator<char>(file), {}).find("vnni") != std::string::npos;
    }();
    return has;
}

Ort::SessionOptions session_options(OnnxRuntimeOptions const& options) {
    Ort::SessionOptions result;
    result.SetLogSeverityLevel(kQuiet);
    if (options.threads) result.SetIntraOpNumThreads(*options.threads);
    if (shares_arena(options)) result.AddConfigEntry("session.use_env_allocators", "1");
    if (options.mapped) {
        result.SetGraphOptimizationLevel(ORT_DISABLE_ALL);
        result.DisableCpuMemArena();  // it would keep what one layer needed for the next
    }
    // Otherwise this session's threads wait busily for a while, on the cores that the next graph needs.
    result.AddConfigEntry("session.force_spinning_stop", "1");
    // Blocked DequantizeLinear and MatMul are fused; by default with activations rounded to 8 bits.
    result.AddConfigEntry("session.qdq_matmulnbits_accuracy_level", "1");
    if (!has_vnni()) result.AddConfigEntry("session.x64quantprecision", "1");
    // Functions are inlined where they run: in graphs with many, opening is a fifth faster.
    if (!options.cuda) result.AddConfigEntry("session.disable_aot_function_inlining", "1");
    if (options.cuda) append_cuda(result);
    return result;
}

}  // namespace

bool has_cuda_provider() {
    auto const names = Ort::GetAvailableProviders();
    return std::find(names.begin(), names.end(), "CUDAExecutionProvider") != names.end();
}

void check_threads(std::optional<int> threads) {
    if (threads && *threads < 1)
        throw Error("expected --threads of at least 1, found " + std::to_string(*threads) +
                    "; leave it out for one per core");
}

std::unique_ptr<GraphSession> open_onnxruntime(Ort::Env const& environment, std::filesystem::path const& file,
                                               OnnxRuntimeOptions const& options) {
    check_threads(options.threads);
    if (options.cuda && !has_cuda_provider())
        throw Error(
            "expected ONNX Runtime with CUDAExecutionProvider, found only cpu; link a build of it with "
            "CUDA or use --provider cpu");
    if (!options.cuda && !room_to_open()) throw no_memory_to_open(file.string());
    try {
        auto arena = shares_arena(options) ? std::make_unique<SharedArena const>() : nullptr;
        Ort::Session session(environment, file.c_str(), session_options(options));
        return std::make_unique<OnnxRuntimeSession>(std::move(arena), std::move(session), options.cuda,
                                                    file.filename().string());
    } catch (Ort::Exception const& error) {
        throw not_opened(file.string(), error);
    }
}

}  // namespace asap::detail
