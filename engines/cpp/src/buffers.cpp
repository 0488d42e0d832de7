#include "buffers.hpp"

#include <cstring>
#include <stdexcept>
#include <utility>

namespace asap::detail {

namespace {

constexpr std::int64_t kGranule = 128;  // places; a buffer grows by an eighth and this, to a multiple of it

std::shared_ptr<HostTensor> room(Dtype dtype, std::int64_t kv_heads, std::int64_t places, std::int64_t head_dim) {
    std::int64_t const granules = (places + places / 8 + 2 * kGranule - 1) / kGranule;
    return std::make_shared<HostTensor>(dtype, Shape{1, kv_heads, granules * kGranule, head_dim});
}

std::size_t bytes_of(Tensor const& array, std::int64_t places) {
    return static_cast<std::size_t>(places * array.shape()[3]) * size_of(array.dtype());
}

/// Copies `count` places of every head from one place on.
void copy_run(Tensor const& from, std::int64_t from_place, HostTensor& to, std::int64_t to_place, std::int64_t count) {
    for (std::int64_t head = 0; head < to.shape()[1]; ++head)
        std::memcpy(to.writable() + bytes_of(to, head * to.shape()[2] + to_place),
                    from.host() + bytes_of(from, head * from.shape()[2] + from_place), bytes_of(to, count));
}

/// A longer tensor with the first `length` places of `array`.
std::shared_ptr<HostTensor> copied(HostTensor const& array, std::int64_t length, std::int64_t places) {
    auto copy = room(array.dtype(), array.shape()[1], places, array.shape()[3]);
    copy_run(array, 0, *copy, 0, length);
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

TensorPtr Buffers::content(std::string const& name, std::int64_t length) const {
    HostTensor const& array = *arrays_.at(name);
    auto copy = std::make_shared<HostTensor>(array.dtype(), Shape{1, array.shape()[1], length, array.shape()[3]});
    if (length) copy_run(array, 0, *copy, 0, length);
    return copy;
}

bool Buffers::claim(std::int64_t length, std::int64_t places) {
    std::lock_guard<std::mutex> const lock(mutex_);
    if (filled_ != length || places > capacity()) return false;
    filled_ = places;
    return true;
}

void copy_places(Tensor const& from, std::vector<std::int64_t> const& places, HostTensor& to, std::int64_t first) {
    for (std::int64_t const place : places) copy_run(from, place, to, first++, 1);
}

}  // namespace asap::detail
