/// Tensors as graphs take and give them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace asap::detail {

enum class Dtype { fp32, fp16, bf16, int64, int32, boolean, uint8 };

using Shape = std::vector<std::int64_t>;

/// Bytes of one element.
std::size_t size_of(Dtype dtype);

/// Elements of a shape; `Error` where that is negative or beyond what memory can address.
std::size_t elements(Shape const& shape);

/// A tensor somewhere: a `HostTensor`, or an output of a backend that stayed on its device, which is opaque to everyone
/// else and good as an input of any session of the same backend. So the KV cache never goes through the host.
class Tensor {
public:
    virtual ~Tensor() = default;
    virtual Dtype dtype() const = 0;
    virtual Shape const& shape() const = 0;
    /// The elements in host memory, null where they are not there.
    virtual std::byte const* host() const = 0;
};

/// Shared, because a cache and a run hold the same tensors; never changed once made.
using TensorPtr = std::shared_ptr<Tensor const>;
using Tensors = std::map<std::string, TensorPtr>;

/// A tensor that owns its elements in host memory.
class HostTensor final : public Tensor {
public:
    HostTensor(Dtype dtype, Shape shape);

    /// `values` as a tensor of their own type: float, std::int64_t, std::uint8_t.
    template <typename T>
    HostTensor(Dtype dtype, Shape shape, std::vector<T> const& values) : HostTensor(dtype, std::move(shape)) {
        check(values.size(), sizeof(T));
        if (!values.empty()) std::memcpy(bytes_.data(), values.data(), bytes_.size());
    }

    Dtype dtype() const override { return dtype_; }
    Shape const& shape() const override { return shape_; }
    std::byte const* host() const override { return bytes_.data(); }
    std::byte* writable() { return bytes_.data(); }

private:
    void check(std::size_t count, std::size_t size) const;  // std::logic_error where they do not fill the shape

    Dtype dtype_;
    Shape shape_;
    std::vector<std::byte> bytes_;
};

/// Tensors that somebody still writes to.
using HostTensors = std::map<std::string, std::shared_ptr<HostTensor>>;

/// float32 values as a tensor of a floating-point dtype, rounded to nearest, ties to even.
TensorPtr floating(Dtype dtype, Shape shape, std::vector<float> const& values);

TensorPtr integers(Shape shape, std::vector<std::int64_t> const& values);

TensorPtr booleans(Shape shape, std::vector<std::uint8_t> const& values);

/// The elements of a host tensor of a floating-point dtype as float32.
std::vector<float> as_floats(Tensor const& tensor);

/// The elements of a host tensor of dtype int64.
std::vector<std::int64_t> as_integers(Tensor const& tensor);

}  // namespace asap::detail
