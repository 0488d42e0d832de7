#include "buffers.hpp"

#include <cstring>
#include <stdexcept>
#include <utility>

namespace asap::detail {

namespace {

constexpr std::int64_t kGranule = 128;  // places; a buffer grows by an eighth and this

std::shared_ptr<HostTensor> room(Dtype dtype, std::int64_t kv_heads, std::int64_t places, std::int64_t head_dim) {
    return std::make_shared<HostTensor>(dtype, Shape{1, kv_heads, places + places / 8 + kGranule, head_dim});
}

/// A longer tensor with the first `length` places of `array`.
std::shared_ptr<HostTensor> copied(HostTensor const& array, std::int64_t length, std::int64_t places) {
    std::int64_t const heads = array.shape()[1], head_dim = array.shape()[3];
    auto copy = room(array.dtype(), heads, places, head_dim);
    auto const bytes = [&](std::int64_t count) {
        return static_cast<std::size_t>(count * head_dim) * size_of(array.dtype());
    };
    for (std::int64_t head = 0; head < heads; ++head)
        std::memcpy(copy->writable() + bytes(head * copy->shape()[2]), array.host() + bytes(head * array.shape()[2]),
                    bytes(length));
    return copy;
}

}  // namespace

Buffers::Buffers(HostTensors arrays, std::int64_t filled) : arrays_(std::move(arrays)), filled_(filled) {}

std::shared_ptr<Buffers> Buffers::empty(std::vector<std::string> const& names, std::int64_t kv_heads,
                                        std::int64_t head_dim, Dtype dtype, std::int64_t places) {
    HostTensors arrays;
    for (std::string const& name : names) arrays.emplace(name, room(dtype, kv_heads, places, head_dim));
    return std::make_shared<Buffers>(std::move(arrays), 0);
}

std::int64_t Buffers::capacity() const { return arrays_.begin()->second->shape()[2]; }

std::shared_ptr<Buffers> Buffers::claimed(std::int64_t length, std::int64_t places) {
    if (length < 0 || length > capacity() || places < length)
        throw std::logic_error("a claim on places that no cache has");
    if (claim(length, places)) return shared_from_this();
    HostTensors copies;
    for (auto const& [name, array] : arrays_) copies.emplace(name, copied(*array, length, places));
    return std::make_shared<Buffers>(std::move(copies), places);
}

bool Buffers::claim(std::int64_t length, std::int64_t places) {
    std::lock_guard<std::mutex> const lock(mutex_);
    if (filled_ != length || places > capacity()) return false;
    filled_ = places;
    return true;
}

}  // namespace asap::detail
