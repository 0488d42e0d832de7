#include "graphs.hpp"

#include <algorithm>
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

Graphs::Graphs(Manifest const& manifest, Sessions sessions, bool on_host, CacheForm caches)
    : manifest_(manifest),
      sessions_(std::move(sessions)),
      dtype_(dtype_named(manifest.dtype)),
      on_host_(on_host),
      caches_(std::move(caches)),
      memory_(manifest.model, !caches_.growing.empty() && scores_in_blocks(manifest)) {}

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
    bool const visual = std::find(visual_mask.begin(), visual_mask.end(), 1) != visual_mask.end();
    Names untrimmed;
    if (prunes && (visual || stay < count)) untrimmed.insert(caches_.untrimmed.begin(), caches_.untrimmed.end());
    auto written = buffers(cache, cache.length + stay);
    if (written)
        for (auto const& [name, array] : written->arrays()) {
            if (!untrimmed.count(name))
                inputs[name] = into[present_name(name)] = array;
            else if (cache.buffers)
                inputs[name] = cache.buffers->content(name, cache.length);
        }
    Tensors outputs = sessions_.decoder->run(inputs, on_host, into);
    auto kept = prunes ? as_integers(*outputs.at("kept_index")) : all_places(visual_mask.size());
    if (length(kept.size()) != stay)
        throw Error("expected " + std::to_string(stay) + " tokens kept by the decoder, found " +
                    std::to_string(kept.size()) + "; export the bundle again");
    for (std::string const& name : untrimmed) trim(outputs, name, cache.length, count, kept, written.get());
    KvCache next = cache.grown(count, stay, outputs, std::move(written));
    auto logits = as_floats(*outputs.at("logits"));
    if (logits.empty()) throw Error("expected logits from decoder.onnx, found none; export the bundle again");
    return {std::move(logits), std::move(kept), std::move(next)};
}

void Graphs::trim(Tensors& outputs, std::string const& name, std::int64_t cached, std::int64_t count,
                  std::vector<std::int64_t> const& kept, Buffers const* written) const {
    auto const& model = manifest_.model;
    TensorPtr& present = outputs.at(present_name(name));
    bool const inside = std::all_of(kept.begin(), kept.end(), [&](auto place) { return 0 <= place && place < count; });
    if (!inside || !present->host() || present->dtype() != dtype_ ||
        present->shape() != Shape{1, model.kv_heads, cached + count, model.head_dim})
        throw Error("expected all new tokens in " + present_name(name) +
                    " of the decoder, found others; export the bundle again");
    std::vector<std::int64_t> places = kept;
    for (std::int64_t& place : places) place += cached;
    if (written && written->arrays().count(name))
        return copy_places(*present, places, *written->arrays().at(name), cached);
    std::vector<std::int64_t> const old = all_places(static_cast<std::size_t>(cached));
    places.insert(places.begin(), old.begin(), old.end());
    auto trimmed =
        std::make_shared<HostTensor>(dtype_, Shape{1, model.kv_heads, length(places.size()), model.head_dim});
    copy_places(*present, places, *trimmed, 0);
    present = std::move(trimmed);
}

std::shared_ptr<Buffers> Graphs::buffers(KvCache const& cache, std::int64_t places) const {
    if (caches_.growing.empty()) return {};
    if (cache.buffers) return cache.buffers->claimed(cache.length, places);
    auto const& model = manifest_.model;
    return Buffers::empty(caches_.growing, model.kv_heads, model.head_dim, dtype_, places)->claimed(0, places);
}

}  // namespace asap::detail
