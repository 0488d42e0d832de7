/// What the decoder remembers of one sequence, and the masks and positions that go with it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "buffers.hpp"
#include "manifest.hpp"
#include "tensor.hpp"

namespace asap::detail {

/// What a decoder does with its caches, by its inputs for them; in decoder.onnx none is special.
struct CacheForm {
    std::vector<std::string> growing;    // may be buffers with more places than are filled, which a run writes to
    std::vector<std::string> untrimmed;  // what goes on from them still holds the new tokens that were cut; such an
                                         // input has exactly P places in a step that cuts
};

/// Each step makes a new cache, so one can return to an old one; tensors are shared, not copied. Batches have one row
/// here, so no place is ever padding and a length says what a mask would.
struct KvCache {
    Tensors layers;  // decoder input "past_key_values.{i}.key" -> [1, Hkv, P, d], where the backend keeps it
    std::shared_ptr<Buffers> buffers;  // of other layers, in their first P places
    std::int64_t length = 0;  // P: places of the layers behind the cut, and of all where early layers are trimmed
    std::int64_t fed = 0;     // tokens ever fed, pruned ones included: the next position id
    std::optional<std::int64_t> early_length;  // of the layers that keep pruned tokens, where some do

    /// Places of the longest layer.
    std::int64_t longest() const { return early_length.value_or(length); }

    /// The decoder's inputs that follow from the cache and `count` new tokens.
    Tensors inputs(std::int64_t count) const;

    /// The cache after a step that was fed `count` tokens, kept `kept` of them and has written to `written`.
    KvCache grown(std::int64_t count, std::int64_t kept, Tensors const& outputs,
                  std::shared_ptr<Buffers> written = {}) const;
};

/// The decoder's output that goes on from a cache: "past_key_values.3.key" -> "present.3.key".
std::string present_name(std::string const& past);

/// A cache of no tokens.
KvCache empty_cache(Manifest const& manifest, Dtype dtype);

}  // namespace asap::detail
