#include "openvino_backend.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include <asap/error.hpp>

#include "chain.hpp"
#include "openvino_session.hpp"
#include "padded_session.hpp"
#include "stateful_session.hpp"

namespace asap::detail {

namespace {

/// How many threads OpenVINO takes, which only a graph that it has compiled says.
int threads_taken(ov::Core& core, std::optional<int> threads) {
    auto const any = std::make_shared<ov::op::v0::Parameter>(ov::element::f32, ov::PartialShape{1});
    auto const graph = std::make_shared<ov::Model>(ov::OutputVector{any}, ov::ParameterVector{any});
    return compiled(core, graph, "a graph of nothing", {"f32", threads}).get_property(ov::inference_num_threads);
}

/// What `automatic` stands for here: "bf16" where the CPU has instructions for it, as OpenVINO itself decides. On one
/// thread it divides by zero while it packs weights for them (openvinotoolkit/openvino#33300), which nothing can catch.
std::string chosen(ov::Core& core, Precision precision, std::optional<int> threads) {
    if (precision == Precision::f32) return "f32";
    auto const abilities = core.get_property("CPU", ov::device::capabilities);
    bool const able = std::find(abilities.begin(), abilities.end(), ov::device::capability::BF16) != abilities.end();
    bool const alone = able && threads_taken(core, threads) < 2;
    if (precision == Precision::bf16 && !able)
        throw Error("expected a CPU with instructions for bf16, found none; use --precision f32");
    if (precision == Precision::bf16 && alone)
        throw Error("expected at least 2 threads for bf16 in OpenVINO, found 1; use --precision f32");
    return able && !alone ? "bf16" : "f32";
}

template <typename Part>
Link link(std::unique_ptr<Part> part) {
    auto inputs = part->inputs();
    return {std::move(part), std::move(inputs)};
}

}  // namespace

extern "C" void asap_open_openvino(OpenVinoGraphs const& graphs, Precision precision, std::optional<int> threads,
                                   Sessions& opened) {
    ov::Core core;
    OpenVinoOptions const options{chosen(core, precision, threads), threads};
    auto const plain = [&](std::filesystem::path const& file) {
        return std::make_unique<OpenVinoSession>(core, file, options);
    };
    std::vector<Link> parts;
    for (std::size_t i = 0; i + 1 < graphs.decoder.size(); ++i)
        parts.push_back(link(std::make_unique<PaddedSession>(plain(graphs.decoder[i]))));
    parts.push_back(link(std::make_unique<StatefulSession>(core, graphs.decoder.back(), options)));
    opened.vision_encoder = plain(graphs.vision_encoder);
    opened.embed_tokens = plain(graphs.embed_tokens);
    opened.decoder = chained(std::move(parts), graphs.decoder_outputs);
}

}  // namespace asap::detail
