/// Caches with room to grow: new tokens are written behind the cached ones, which are not copied at every step.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tensor.hpp"

namespace asap::detail {

/// Keys and values of some layers, tensors [1, Hkv, capacity, d] by the decoder's input that takes them.
///
/// `filled` places of them belong to somebody. A cache owns the first ones, as many as it has places, and they never
/// change; what lies behind them is the next writer's who claims it. Thread-safe.
class Buffers : public std::enable_shared_from_this<Buffers> {
public:
    Buffers(HostTensors arrays, std::int64_t filled);

    /// Nothing yet, and room for `places` and some more.
    static std::shared_ptr<Buffers> empty(std::vector<std::string> const& names, std::int64_t kv_heads,
                                          std::int64_t head_dim, Dtype dtype, std::int64_t places);

    HostTensors const& arrays() const { return arrays_; }
    std::int64_t capacity() const;

    /// Buffers that begin with this one's first `length` places; those up to `places` are for the caller. This one,
    /// where there is room and nobody else went on from the same place; otherwise a copy.
    std::shared_ptr<Buffers> claimed(std::int64_t length, std::int64_t places);

    /// The first `length` places of one tensor alone, [1, Hkv, length, d].
    TensorPtr content(std::string const& name, std::int64_t length) const;

private:
    bool claim(std::int64_t length, std::int64_t places);

    HostTensors const arrays_;
    std::int64_t filled_;
    std::mutex mutex_;
};

/// Copies `places` of every head of a cache [1, Hkv, P, d] in host memory to places of another, from `first` on.
void copy_places(Tensor const& from, std::vector<std::int64_t> const& places, HostTensor& to, std::int64_t first);

}  // namespace asap::detail
