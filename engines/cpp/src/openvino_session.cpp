#include "openvino_session.hpp"

#include <algorithm>
#include <sstream>
#include <stdexcept>

#include <asap/error.hpp>
#include <openvino/frontend/manager.hpp>

namespace asap::detail {

namespace {

constexpr char kPast[] = "past_key_values.", kPresent[] = "present.";

bool starts_with(std::string const& text, char const* start) { return text.rfind(start, 0) == 0; }

/// The last line that says something: in front of it is where in OpenVINO's source that was.
std::string reason(ov::Exception const& error) {
    std::istringstream lines(error.what());
    std::string said;
    for (std::string line; std::getline(lines, line);) {
        auto const first = line.find_first_not_of(" \t\r");
        if (first == std::string::npos) continue;
        line = line.substr(first, line.find_last_not_of(" \t\r") + 1 - first);
        if (said.empty() || !starts_with(line, "Exception from")) said = line;
    }
    return said.substr(0, 300);
}

Error not_loaded(std::filesystem::path const& file, ov::Exception const& error) {
    std::string const version = ov::get_openvino_version().buildNumber;
    return Error("expected a graph for OpenVINO " + version.substr(0, version.find('-')) + " in " + file.string() +
                 ", found: " + reason(error));
}

ov::element::Type element_of(Dtype dtype) {
    switch (dtype) {
        case Dtype::fp32: return ov::element::f32;
        case Dtype::fp16: return ov::element::f16;
        case Dtype::bf16: return ov::element::bf16;
        case Dtype::int64: return ov::element::i64;
        case Dtype::int32: return ov::element::i32;
        case Dtype::boolean: return ov::element::boolean;
        case Dtype::uint8: return ov::element::u8;
    }
    throw std::logic_error("a dtype that OpenVINO does not have");
}

Dtype dtype_of(ov::element::Type const& type) {
    for (Dtype const dtype :
         {Dtype::fp32, Dtype::fp16, Dtype::bf16, Dtype::int64, Dtype::int32, Dtype::boolean, Dtype::uint8})
        if (element_of(dtype) == type) return dtype;
    throw Error("expected outputs of the bundle's dtypes, found another; export the bundle again");
}

/// Host memory as an input, without a copy: OpenVINO does not write to it.
ov::Tensor lent(Tensor const& tensor) {
    ov::Shape const shape(tensor.shape().begin(), tensor.shape().end());
    if (!ov::shape_size(shape)) return {element_of(tensor.dtype()), shape};
    return {element_of(tensor.dtype()), shape, const_cast<std::byte*>(tensor.host())};
}

/// A tensor, or where it has places of caches, those behind the first `behind`.
TensorPtr copied(ov::Tensor const& tensor, std::int64_t behind) {
    ov::Coordinate const end = tensor.get_shape();
    ov::Coordinate begin(end.size(), 0);
    if (behind) begin.at(2) = static_cast<std::size_t>(behind);
    ov::Tensor const wanted(tensor, begin, end);
    Shape const shape(wanted.get_shape().begin(), wanted.get_shape().end());
    auto copy = std::make_shared<HostTensor>(dtype_of(tensor.get_element_type()), shape);
    if (elements(shape)) {
        ov::Tensor target(tensor.get_element_type(), wanted.get_shape(), copy->writable());
        wanted.copy_to(target);
    }
    return copy;
}

}  // namespace

std::shared_ptr<ov::Model> read_graph(std::filesystem::path const& file) {
    try {
        // The core would ask the readers of all formats in turn, and some of them print what they think of it.
        auto const reader = ov::frontend::FrontEndManager().load_by_framework("onnx");
        return reader->convert(reader->load(file.string()));
    } catch (ov::Exception const& error) {
        throw not_loaded(file, error);
    }
}

ov::CompiledModel compiled(ov::Core& core, std::shared_ptr<ov::Model> const& graph, std::filesystem::path const& file,
                           OpenVinoOptions const& options, ov::AnyMap const& more) {
    ov::AnyMap settings = {
        {"PERFORMANCE_HINT", "LATENCY"},
        {"NUM_STREAMS", 1},
        {"INFERENCE_PRECISION_HINT", options.precision},
        // Otherwise activations are rounded to 8 bits where weights are quantized.
        {"DYNAMIC_QUANTIZATION_GROUP_SIZE", 0},
    };
    settings.insert(more.begin(), more.end());
    if (options.threads) settings["INFERENCE_NUM_THREADS"] = *options.threads;
    try {
        return core.compile_model(graph, "CPU", settings);
    } catch (ov::Exception const& error) {
        throw not_loaded(file, error);
    }
}

Tensors run_once(ov::InferRequest& request, ov::CompiledModel const& graph, Tensors const& inputs,
                 std::int64_t behind) {
    try {
        for (auto const& input : graph.inputs()) request.set_tensor(input, lent(*inputs.at(input.get_any_name())));
        request.infer();
        Tensors outputs;
        for (auto const& output : graph.outputs()) {
            auto const& names = output.get_names();  // some have another one's names too
            bool const cache = std::any_of(names.begin(), names.end(),
                                           [](std::string const& name) { return starts_with(name, kPresent); });
            TensorPtr const copy = copied(request.get_tensor(output), cache ? behind : 0);
            for (std::string const& name : names) outputs[name] = copy;
        }
        return outputs;
    } catch (ov::Exception const& error) {
        throw Error("expected OpenVINO to run " + graph.get_property(ov::model_name) + ", found: " + reason(error));
    }
}

std::vector<std::string> input_names(ov::CompiledModel const& graph) {
    std::vector<std::string> names;
    for (auto const& input : graph.inputs()) names.push_back(input.get_any_name());
    return names;
}

bool is_cache(std::string const& name) { return starts_with(name, kPast); }

OpenVinoSession::OpenVinoSession(ov::Core& core, std::filesystem::path const& file, OpenVinoOptions const& options)
    : graph_(compiled(core, read_graph(file), file, options)), request_(graph_.create_infer_request()) {}

Tensors OpenVinoSession::run(Tensors const& inputs, Names const&, HostTensors const& into) const {
    if (!into.empty()) throw std::logic_error("OpenVINO keeps its caches where it made them");
    return run_behind(inputs, 0);
}

Tensors OpenVinoSession::run_behind(Tensors const& inputs, std::int64_t behind) const {
    std::lock_guard<std::mutex> const lock(mutex_);
    return run_once(request_, graph_, inputs, behind);
}

}  // namespace asap::detail
