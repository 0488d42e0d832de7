/// The three graphs of a bundle as three functions; the decoder's takes and returns the cache.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend.hpp"
#include "kv_cache.hpp"
#include "manifest.hpp"
#include "memory.hpp"

namespace asap::detail {

struct Step {
    std::vector<float> logits;             // [V], of the last token
    std::vector<std::int64_t> kept_index;  // [K], places in the new tokens
    KvCache cache;
};

class Graphs {
public:
    /// `on_host`: the sessions run in the host's memory, which is asked before a prompt runs.
    Graphs(Manifest const& manifest, Sessions sessions, bool on_host = false, CacheForm caches = {});

    KvCache empty_cache() const;

    /// The most places that a cache layer may have; nothing where only memory limits it.
    std::optional<std::int64_t> longest_cache() const;

    /// [tiles, 3, h, w], [N] -> [N, D] in the bundle's dtype, where the backend keeps it.
    TensorPtr image_features(std::vector<float> const& pixel_values,
                             std::vector<std::int64_t> const& gather_index) const;

    /// [T], [N, D] -> [1, T, D]; features take the places of image tokens.
    TensorPtr inputs_embeds(std::vector<std::int64_t> const& input_ids, TensorPtr const& image_features) const;

    /// Feeds new tokens: a prompt, a later turn or one token.
    ///
    /// inputs_embeds: [1, T, D]; visual_mask: [T], 1 for visual tokens; kept_length: how many of the T stay.
    Step step(TensorPtr const& inputs_embeds, std::vector<std::uint8_t> const& visual_mask, std::int64_t kept_length,
              KvCache const& cache) const;

    /// What `run` returns, which feeds `count` new tokens to all three graphs. Throws `Error` before, where the host's
    /// memory is needed and there is too little.
    template <typename Run>
    auto with_room(std::int64_t count, KvCache const& cache, Run run) const {
        return on_host_ ? memory_.with_room(count, cache.longest(), run) : run();
    }

private:
    /// Takes what was cut out of the output that goes on from the cache `name`, of `count` new tokens behind `cached`
    /// ones: the rest goes to `written`, where that has the cache, or stands in the output's place.
    void trim(Tensors& outputs, std::string const& name, std::int64_t cached, std::int64_t count,
              std::vector<std::int64_t> const& kept, Buffers const* written) const;

    /// Buffers for a step behind `cache` that fills `places`; none where no input grows.
    std::shared_ptr<Buffers> buffers(KvCache const& cache, std::int64_t places) const;

    Manifest const& manifest_;
    Sessions sessions_;
    Dtype dtype_;
    bool on_host_;
    CacheForm caches_;
    mutable RunMemory memory_;
};

}  // namespace asap::detail
