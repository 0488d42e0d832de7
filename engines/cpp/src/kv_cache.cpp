#include "kv_cache.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace asap::detail {

namespace {

TensorPtr ones(std::int64_t count) {
    return integers({1, count}, std::vector<std::int64_t>(static_cast<std::size_t>(count), 1));
}

}  // namespace

Tensors KvCache::inputs(std::int64_t count) const {
    std::vector<std::int64_t> positions(static_cast<std::size_t>(count));
    std::iota(positions.begin(), positions.end(), fed);
    Tensors inputs = layers;
    inputs["attention_mask"] = ones(length + count);
    inputs["position_ids"] = integers({1, count}, positions);
    if (early_length) inputs["early_attention_mask"] = ones(*early_length + count);
    return inputs;
}

KvCache KvCache::grown(std::int64_t count, std::int64_t kept, Tensors const& outputs,
                       std::shared_ptr<Buffers> written) const {
    KvCache next;
    for (auto const& [name, tensor] : layers)
        if (!written || !written->arrays().count(name)) next.layers.emplace(name, outputs.at(present_name(name)));
    next.buffers = std::move(written);
    next.length = length + kept;
    next.fed = fed + count;
    if (early_length) next.early_length = *early_length + count;
    return next;
}

std::string present_name(std::string const& past) {
    return "present" + past.substr(std::min(past.find('.'), past.size()));
}

KvCache empty_cache(Manifest const& manifest, Dtype dtype) {
    auto const& model = manifest.model;
    auto const nothing = std::make_shared<HostTensor>(dtype, Shape{1, model.kv_heads, 0, model.head_dim});
    KvCache cache;
    for (std::int64_t layer = 0; layer < model.layers; ++layer)
        for (char const* const part : {"key", "value"})
            cache.layers.emplace("past_key_values." + std::to_string(layer) + "." + part, nothing);
    if (manifest.pruning.prunes() && !manifest.pruning.trim_early_kv) cache.early_length = 0;
    return cache;
}

}  // namespace asap::detail
