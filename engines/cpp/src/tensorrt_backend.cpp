#include "tensorrt_backend.hpp"

#include <NvInfer.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <asap/error.hpp>

#include "chain.hpp"
#include "cuda_devices.hpp"
#include "cuda_memory.hpp"
#include "mapped_file.hpp"
#include "profiles.hpp"

namespace asap::detail {

namespace {

namespace trt = nvinfer1;

constexpr char const* kFlavor = ASAP_TENSORRT_FLAVOUR;  // of the library that is linked

/// Keeps TensorRT's last error for our message; nothing is printed.
class Logger final : public trt::ILogger {
public:
    void log(Severity severity, char const* message) noexcept override {
        if (severity > Severity::kERROR) return;
        std::lock_guard<std::mutex> const lock(mutex_);
        try {
            last_ = message;
        } catch (...) {  // no memory for the words: there is a message without them
        }
    }
    std::string last() const {
        std::lock_guard<std::mutex> const lock(mutex_);
        return last_.empty() ? "no reason" : last_;
    }

private:
    mutable std::mutex mutex_;
    std::string last_;
};

Dtype dtype_of(trt::DataType type) {
    switch (type) {
        case trt::DataType::kFLOAT: return Dtype::fp32;
        case trt::DataType::kHALF: return Dtype::fp16;
        case trt::DataType::kBF16: return Dtype::bf16;
        case trt::DataType::kINT64: return Dtype::int64;
        case trt::DataType::kINT32: return Dtype::int32;
        case trt::DataType::kBOOL: return Dtype::boolean;
        case trt::DataType::kUINT8: return Dtype::uint8;
        default: throw Error("expected an engine with the bundle's dtypes, found another; export the bundle again");
    }
}

trt::Dims dims_of(Shape const& shape) {
    trt::Dims dims{};
    dims.nbDims = static_cast<std::int32_t>(shape.size());
    std::copy(shape.begin(), shape.end(), dims.d);
    return dims;
}

/// Memory for an output whose shape TensorRT learns during the run.
class OutputAllocator final : public trt::IOutputAllocator {
public:
    OutputAllocator(std::shared_ptr<CudaStream const> stream, Dtype dtype)
        : stream_(std::move(stream)), dtype_(dtype) {}

    void* reallocateOutputAsync(char const*, void*, std::uint64_t size, std::uint64_t, cudaStream_t) noexcept override {
        try {
            auto const bytes = static_cast<std::int64_t>(std::max<std::uint64_t>(size, 1));
            buffer_ = std::make_shared<DeviceTensor>(stream_, Dtype::uint8, Shape{bytes});
            return buffer_->address();
        } catch (...) {
            return nullptr;  // TensorRT reports that the run failed
        }
    }
    void notifyShape(char const*, trt::Dims const& dims) noexcept override { dims_ = dims; }

    /// The output in memory of its own size; what was allocated may be larger.
    TensorPtr tensor() const {
        auto result = std::make_shared<DeviceTensor>(stream_, dtype_, Shape(dims_.d, dims_.d + dims_.nbDims));
        check_cuda(cudaMemcpyAsync(result->address(), buffer_->address(), result->bytes(), cudaMemcpyDeviceToDevice,
                                   stream_->get()),
                   "a copy on the device");
        return result;
    }

private:
    std::shared_ptr<CudaStream const> stream_;
    Dtype dtype_;
    std::shared_ptr<DeviceTensor> buffer_;
    trt::Dims dims_{};
};

/// What all engines of a model share. TensorRT wants the logger to outlive the runtime, and that the engines.
struct Shared {
    explicit Shared(void* given) : stream(std::make_shared<CudaStream const>(given)) {
        runtime.reset(trt::createInferRuntime(logger));
        if (!runtime) throw Error("expected TensorRT to start, found: " + logger.last());
    }
    Logger logger;
    std::shared_ptr<CudaStream const> stream;
    std::unique_ptr<trt::IRuntime> runtime;
    std::mutex mutex;  // one run at a time: the engines share a stream
};

class TensorRtSession final : public GraphSession {
public:
    TensorRtSession(std::shared_ptr<Shared> shared, std::filesystem::path const& file, EngineInfo info,
                    std::vector<TensorInfo> inputs)
        : shared_(std::move(shared)), info_(std::move(info)), inputs_(std::move(inputs)) {
        MappedFile const plan(file);
        engine_.reset(shared_->runtime->deserializeCudaEngine(plan.data(), plan.size()));
        if (!engine_)
            throw Error("expected an engine for " + info_.flavor + " " + std::to_string(NV_TENSORRT_MAJOR) + "." +
                        std::to_string(NV_TENSORRT_MINOR) + " in " + file.string() + ", found one of " +
                        info_.tensorrt_version +
                        " that it cannot load; export again with --engine trt on this machine");
        contexts_.resize(info_.profiles.size());
    }

    Tensors run(Tensors const& inputs, Names const& on_host_names, HostTensors const& into) const override {
        if (!into.empty()) throw std::logic_error("engines keep their caches where they made them");
        std::lock_guard<std::mutex> const lock(shared_->mutex);
        DeviceScope const device(shared_->stream->device());
        Tensors const placed = place(inputs);
        trt::IExecutionContext& context = context_for(placed);
        bind_inputs(context, placed);
        std::map<std::string, std::unique_ptr<OutputAllocator>> allocators;
        Tensors outputs = bind_outputs(context, allocators);
        if (!context.enqueueV3(shared_->stream->get()))
            throw Error("expected TensorRT to run " + info_.file + ", found: " + shared_->logger.last());
        for (auto const& [name, allocator] : allocators) outputs[name] = allocator->tensor();
        shared_->stream->wait();
        for (std::string const& name : on_host_names) {
            auto const at = outputs.find(name);
            if (at != outputs.end())
                at->second = on_host(*shared_->stream, static_cast<DeviceTensor const&>(*at->second));
        }
        return outputs;
    }

    std::optional<std::int64_t> longest(std::string const& name, std::size_t axis) const override {
        return detail::longest(info_.profiles, name, axis);
    }

private:
    bool is_shape_tensor(std::string const& name) const {
        return engine_->getTensorLocation(name.c_str()) == trt::TensorLocation::kHOST;
    }

    /// Inputs where TensorRT reads them: shape tensors in host memory, all others on the device.
    Tensors place(Tensors const& inputs) const {
        Tensors placed;
        for (auto const& [name, tensor] : inputs) {
            bool const stays = tensor->host() == nullptr || is_shape_tensor(name);
            placed.emplace(name, stays ? tensor : on_device(shared_->stream, *tensor));
        }
        return placed;
    }

    /// The context of the profile that takes the inputs, made when it is first needed: so a decode step does not
    /// switch.
    trt::IExecutionContext& context_for(Tensors const& placed) const {
        std::map<std::string, Shape> shapes, values;
        for (auto const& [name, tensor] : placed) {
            shapes.emplace(name, tensor->shape());
            if (tensor->host()) values.emplace(name, as_integers(*tensor));
        }
        std::size_t const number = choose_profile(inputs_, info_.profiles, shapes, values);
        auto& context = contexts_.at(number);
        if (!context) {
            context.reset(engine_->createExecutionContext(trt::ExecutionContextAllocationStrategy::kON_PROFILE_CHANGE));
            auto const profile = static_cast<std::int32_t>(number);
            if (!context || !context->setOptimizationProfileAsync(profile, shared_->stream->get())) {
                context.reset();
                throw Error("expected device memory for " + info_.file +
                            ", found too little; export with smaller limits");
            }
        }
        return *context;
    }

    void bind_inputs(trt::IExecutionContext& context, Tensors const& placed) const {
        for (auto const& [name, tensor] : placed) {
            void const* const address =
                tensor->host() ? tensor->host() : static_cast<DeviceTensor const&>(*tensor).address();
            if (!context.setInputShape(name.c_str(), dims_of(tensor->shape())) ||
                !context.setInputTensorAddress(name.c_str(), address))
                throw Error("expected " + info_.file + " to take " + name + ", found: " + shared_->logger.last());
        }
        if (context.inferShapes(0, nullptr) != 0)
            throw Error("expected all inputs of " + info_.file + ", found: " + shared_->logger.last());
    }

    Tensors bind_outputs(trt::IExecutionContext& context,
                         std::map<std::string, std::unique_ptr<OutputAllocator>>& allocators) const {
        Tensors outputs;
        for (std::int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
            char const* const name = engine_->getIOTensorName(i);
            if (engine_->getTensorIOMode(name) != trt::TensorIOMode::kOUTPUT) continue;
            Dtype const dtype = dtype_of(engine_->getTensorDataType(name));
            trt::Dims const dims = context.getTensorShape(name);
            Shape const shape(dims.d, dims.d + std::max(dims.nbDims, 0));
            context.setOutputAllocator(name, nullptr);
            if (std::any_of(shape.begin(), shape.end(), [](std::int64_t size) { return size < 0; })) {
                auto& allocator = allocators[name] = std::make_unique<OutputAllocator>(shared_->stream, dtype);
                context.setOutputAllocator(name, allocator.get());
                continue;
            }
            auto output = std::make_shared<DeviceTensor>(shared_->stream, dtype, shape);
            context.setTensorAddress(name, output->address());
            outputs.emplace(name, std::move(output));
        }
        return outputs;
    }

    std::shared_ptr<Shared> shared_;
    EngineInfo info_;
    std::vector<TensorInfo> inputs_;
    std::unique_ptr<trt::ICudaEngine> engine_;
    mutable std::vector<std::unique_ptr<trt::IExecutionContext>> contexts_;  // one for each profile; under the mutex
};

std::unique_ptr<GraphSession> open_engine(std::shared_ptr<Shared> const& shared, Bundle const& bundle,
                                          std::string const& graph) {
    GraphInfo const& whole = bundle.manifest.graphs.at(graph);
    std::vector<Link> links;
    for (EngineInfo const& engine : bundle.engines(graph, kFlavor)) {
        auto const& inputs = engine.part ? engine.part->inputs : whole.inputs;
        Link link{std::make_unique<TensorRtSession>(shared, bundle.file(engine.file), engine, inputs), {}};
        for (TensorInfo const& input : inputs) link.inputs.push_back(input.name);
        links.push_back(std::move(link));
    }
    std::vector<std::string> outputs;
    for (TensorInfo const& output : whole.outputs) outputs.push_back(output.name);
    return chained(std::move(links), std::move(outputs));
}

std::string listed(std::vector<std::string> const& names) {
    std::string line;
    for (std::string const& name : names) line += (line.empty() ? "" : ", ") + name;
    return line;
}

}  // namespace

void check_tensorrt(Bundle const& bundle) {
    for (char const* const graph : {"vision_encoder", "embed_tokens", "decoder"})
        if (bundle.engines(graph, kFlavor).empty())
            throw Error("expected " + std::string(kFlavor) + " engines in " + bundle.path.string() +
                        ", found none; export with --engine trt, or use --provider cpu or cuda");
    auto const devices = compute_capabilities();
    if (devices.empty())
        throw Error("expected a CUDA device for TensorRT, found none; use --provider cpu, or run where there is a GPU");
    auto const targets = bundle.engines("decoder", kFlavor).front().compute_capabilities;
    auto const has = [&](std::string const& name) {
        return std::find(targets.begin(), targets.end(), name) != targets.end();
    };
    if (!has(devices.front()) && !has("current"))
        throw Error("expected engines for compute capability " + devices.front() + " of this GPU, found engines for " +
                    listed(targets) + "; export with --engine trt on this machine");
}

Sessions open_tensorrt(Bundle const& bundle, void* stream) {
    auto const shared = std::make_shared<Shared>(stream);
    return {open_engine(shared, bundle, "vision_encoder"), open_engine(shared, bundle, "embed_tokens"),
            open_engine(shared, bundle, "decoder")};
}

}  // namespace asap::detail
