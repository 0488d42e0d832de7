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

/// What `automatic` stands for here: "bf16" where the CPU has instructions for it, as OpenVINO itself decides.
std::string chosen(ov::Core& core, Precision precision) {
    auto const abilities = core.get_property("CPU", ov::device::capabilities);
    bool const able = std::find(abilities.begin(), abilities.end(), ov::device::capability::BF16) != abilities.end();
    if (precision == Precision::bf16 && !able)
        throw Error("expected a CPU with instructions for bf16, found none; use --precision f32");
    return able && precision != Precision::f32 ? "bf16" : "f32";
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
    OpenVinoOptions const options{chosen(core, precision), threads};
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
