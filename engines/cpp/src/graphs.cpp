#include "graphs.hpp"

#include <numeric>
#include <utility>

#include <asap/error.hpp>

namespace asap::detail {

namespace {

Dtype dtype_named(std::string const& name) {
    return name == "fp16" ? Dtype::fp16 : name == "bf16" ? Dtype::bf16 : Dtype::fp32;
}

std::vector<std::int64_t> all_places(std::size_t count) {
    std::vector<std::int64_t> places(count);
    std::iota(places.begin(), places.end(), 0);
    return places;
}

std::int64_t length(std::size_t size) { return static_cast<std::int64_t>(size); }

}  // namespace

Graphs::Graphs(Manifest const& manifest, Sessions sessions, bool on_host, std::vector<std::string> growing)
    : manifest_(manifest),
      sessions_(std::move(sessions)),
      dtype_(dtype_named(manifest.dtype)),
      on_host_(on_host),
      growing_(std::move(growing)),
      memory_(manifest.model, !growing_.empty() && scores_in_blocks(manifest)) {}

KvCache Graphs::empty_cache() const { return detail::empty_cache(manifest_, dtype_); }

std::optional<std::int64_t> Graphs::longest_cache() const {
    bool const early = manifest_.pruning.prunes() && !manifest_.pruning.trim_early_kv;
    return sessions_.decoder->longest(early ? "early_attention_mask" : "attention_mask", 1);
}

TensorPtr Graphs::image_features(std::vector<float> const& pixel_values,
                                 std::vector<std::int64_t> const& gather_index) const {
    auto const& model = manifest_.model;
    if (gather_index.empty()) return std::make_shared<HostTensor>(dtype_, Shape{0, model.hidden_size});
    std::int64_t const tile = 3 * model.tile_size * model.tile_size, tiles = length(pixel_values.size()) / tile;
    Tensors const inputs = {
        {"pixel_values", floating(dtype_, {tiles, 3, model.tile_size, model.tile_size}, pixel_values)},
        {"gather_index", integers({length(gather_index.size())}, gather_index)},
    };
    return sessions_.vision_encoder->run(inputs, {}).at("image_features");
}

TensorPtr Graphs::inputs_embeds(std::vector<std::int64_t> const& input_ids, TensorPtr const& image_features) const {
    Tensors const inputs = {
        {"input_ids", integers({1, length(input_ids.size())}, input_ids)},
        {"image_features", image_features},
    };
    return sessions_.embed_tokens->run(inputs, {}).at("inputs_embeds");
}

Step Graphs::step(TensorPtr const& inputs_embeds, std::vector<std::uint8_t> const& visual_mask,
                  std::int64_t kept_length, KvCache const& cache) const {
    std::int64_t const count = length(visual_mask.size());
    Tensors inputs = cache.inputs(count);
    inputs["inputs_embeds"] = inputs_embeds;
    Names on_host = {"logits"};
    bool const prunes = manifest_.pruning.prunes();
    if (prunes) {
        inputs["visual_mask"] = booleans({1, count}, visual_mask);
        inputs["kept_length"] = integers({}, {kept_length});
        on_host.insert("kept_index");
    }
    HostTensors into;
    std::int64_t const stay = prunes ? kept_length : count;
    auto written = buffers(cache, cache.length + stay);
    if (written)
        for (auto const& [name, array] : written->arrays()) {
            inputs[name] = array;
            into[present_name(name)] = array;
        }
    Tensors const outputs = sessions_.decoder->run(inputs, on_host, into);
    auto kept = prunes ? as_integers(*outputs.at("kept_index")) : all_places(visual_mask.size());
    if (length(kept.size()) != stay)
        throw Error("expected " + std::to_string(stay) + " tokens kept by the decoder, found " +
                    std::to_string(kept.size()) + "; export the bundle again");
    KvCache next = cache.grown(count, stay, outputs, std::move(written));
    auto logits = as_floats(*outputs.at("logits"));
    if (logits.empty()) throw Error("expected logits from decoder.onnx, found none; export the bundle again");
    return {std::move(logits), std::move(kept), std::move(next)};
}

std::shared_ptr<Buffers> Graphs::buffers(KvCache const& cache, std::int64_t places) const {
    if (growing_.empty()) return {};
    if (cache.buffers) return cache.buffers->claimed(cache.length, places);
    auto const& model = manifest_.model;
    return Buffers::empty(growing_, model.kv_heads, model.head_dim, dtype_, places)->claimed(0, places);
}

}  // namespace asap::detail
