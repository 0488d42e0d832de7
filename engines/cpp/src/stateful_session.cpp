#include "stateful_session.hpp"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <utility>

#include <openvino/opsets/opset13.hpp>
#include <openvino/pass/make_stateful.hpp>

#include "kv_cache.hpp"

namespace asap::detail {

namespace {

namespace op = ov::opset13;

// OpenVINO's name for which row of a cache each row goes on from; its attention wants to be told.
constexpr char kRows[] = "beam_idx";
constexpr std::int64_t kUnknown = -1;

std::shared_ptr<ov::Node> numbers(std::vector<std::int64_t> const& values) {
    return op::Constant::create(ov::element::i64, {values.size()}, values);
}

std::shared_ptr<ov::Node> number(std::int64_t value) { return op::Constant::create(ov::element::i64, {}, {value}); }

/// Lets the readers of a cache's input read the chosen `rows` of it, float32 as states are.
void choose_rows(ov::Model& graph, std::string const& name, std::shared_ptr<ov::Node> const& rows) {
    auto const past = ov::as_type_ptr<op::Parameter>(graph.input(name).get_node_shared_ptr());
    auto const readers = past->output(0).get_target_inputs();
    ov::element::Type const stored = past->get_element_type();
    past->set_element_type(ov::element::f32);
    past->validate_and_infer_types();
    std::shared_ptr<ov::Node> read = std::make_shared<op::Gather>(past, rows, number(0));
    if (stored != ov::element::f32) {
        read = std::make_shared<op::Convert>(read, stored);
        auto const present = graph.output(present_name(name)).get_node_shared_ptr();
        auto const wide = std::make_shared<op::Convert>(present->input_value(0), ov::element::f32);
        present->input(0).replace_source_output(wide->output(0));
    }
    for (ov::Input<ov::Node> reader : readers) reader.replace_source_output(read->output(0));
}

/// Turns caches from inputs and outputs into states, in the form that OpenVINO's CPU plugin takes for attention with
/// caches, one operator that adds to them in place: a read, a choice of rows, new places behind, attention. States are
/// float32, as the plugin computes; what they are kept in is a setting of its own.
void keep_inside(std::shared_ptr<ov::Model> const& graph, std::vector<std::string> const& caches,
                 std::string const& rows_from) {
    auto const rows = std::make_shared<op::Parameter>(ov::element::i32, ov::PartialShape{-1});
    rows->output(0).set_names({kRows});
    graph->add_parameters({rows});
    std::map<std::string, std::string> presents;
    for (std::string const& name : caches) {
        choose_rows(*graph, name, rows);
        presents[name] = present_name(name);
    }
    graph->validate_nodes_and_infer_types();
    ov::pass::MakeStateful(presents).run_on_model(graph);
    auto const shape = std::make_shared<op::ShapeOf>(graph->input(rows_from));
    auto const batch = std::make_shared<op::Gather>(shape, numbers({0}), number(0));
    for (auto const& node : graph->get_ops()) {
        if (!ov::as_type_ptr<ov::op::util::ReadValueBase>(node)) continue;
        ov::PartialShape const& cache = node->get_output_partial_shape(0);
        auto const rest = numbers({cache[1].get_length(), 0, cache[3].get_length()});
        auto const none = std::make_shared<op::Concat>(ov::NodeVector{batch, rest}, 0);
        auto const zero = op::Constant::create(ov::element::f32, {}, {0.0f});
        node->set_arguments(ov::OutputVector{std::make_shared<op::Broadcast>(zero, none)});
    }
    graph->validate_nodes_and_infer_types();
}

}  // namespace

/// A request of OpenVINO's with caches inside, of which so many places are filled.
struct StatefulSession::Places {
    ov::InferRequest request;
    std::int64_t filled;
};

/// The first places of a request's caches, which never change; what lies behind them belongs to the first run that goes
/// on from there.
class StatefulSession::HeldCache final : public Tensor {
public:
    HeldCache(std::shared_ptr<Places> places, Dtype dtype, Shape shape)
        : places_(std::move(places)), dtype_(dtype), shape_(std::move(shape)) {}
    Dtype dtype() const override { return dtype_; }
    Shape const& shape() const override { return shape_; }
    std::byte const* host() const override { return nullptr; }

    std::shared_ptr<Places> const& places() const { return places_; }
    std::int64_t length() const { return shape_[2]; }

private:
    std::shared_ptr<Places> places_;
    Dtype dtype_;
    Shape shape_;
};

StatefulSession::StatefulSession(ov::Core& core, std::filesystem::path const& file, OpenVinoOptions const& options) {
    auto const graph = read_graph(file);
    for (auto const& input : graph->inputs()) {
        std::string const name = input.get_any_name();
        if (is_cache(name))
            caches_.push_back(name);
        else if (rows_from_.empty())
            rows_from_ = name;
    }
    keep_inside(graph, caches_, rows_from_);
    graph_ = compiled(core, graph, file, options, {{"KV_CACHE_PRECISION", options.precision}});
}

std::vector<std::string> StatefulSession::inputs() const {
    std::vector<std::string> names = input_names(graph_);
    names.erase(std::find(names.begin(), names.end(), kRows));
    names.insert(names.end(), caches_.begin(), caches_.end());
    return names;
}

Tensors StatefulSession::run(Tensors const& inputs, Names const&, HostTensors const& into) const {
    if (!into.empty()) throw std::logic_error("OpenVINO keeps its caches where it made them");
    std::lock_guard<std::mutex> const lock(mutex_);
    auto const places = continued(inputs);
    Tensors given = inputs;
    given[kRows] = std::make_shared<HostTensor>(Dtype::int32, Shape{1}, std::vector<std::int32_t>{0});
    std::int64_t const past = std::exchange(places->filled, kUnknown);  // a run that fails may have added to them
    Tensors outputs = run_once(places->request, graph_, given);
    places->filled = past + inputs.at(rows_from_)->shape()[1];
    TensorPtr const& before = inputs.at(caches_.front());
    Shape shape = before->shape();
    shape[2] = places->filled;
    auto const held = std::make_shared<HeldCache>(places, before->dtype(), std::move(shape));
    for (std::string const& name : caches_) outputs[present_name(name)] = held;
    return outputs;
}

std::shared_ptr<StatefulSession::Places> StatefulSession::continued(Tensors const& inputs) const {
    TensorPtr const& first = inputs.at(caches_.front());
    auto const* const held = dynamic_cast<HeldCache const*>(first.get());
    if (held && held->places()->filled == held->length()) return held->places();
    auto places = std::make_shared<Places>(Places{ov::CompiledModel(graph_).create_infer_request(), first->shape()[2]});
    places->request.reset_state();
    if (!held && places->filled) throw std::logic_error("OpenVINO takes caches that it made");
    if (!held) return places;
    std::map<std::string, ov::Tensor> states;
    for (auto const& state : held->places()->request.query_state()) states[state.get_name()] = state.get_state();
    for (auto& state : places->request.query_state()) {
        ov::Tensor const& whole = states.at(state.get_name());
        ov::Coordinate end = whole.get_shape();
        end.at(2) = static_cast<std::size_t>(held->length());
        ov::Tensor copy(whole.get_element_type(), end);
        ov::Tensor(whole, ov::Coordinate(end.size(), 0), end).copy_to(copy);
        state.set_state(copy);
    }
    return places;
}

}  // namespace asap::detail
