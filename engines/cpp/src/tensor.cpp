#include "tensor.hpp"

#include <limits>
#include <stdexcept>
#include <utility>

#include <asap/error.hpp>

namespace asap::detail {

namespace {

std::uint32_t bits_of(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

float float_of(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

Error other_dtype() { return Error("expected outputs of the bundle's dtypes, found another; export the bundle again"); }

/// A significand without its last `shift` bits, rounded to nearest, ties to even.
std::uint32_t rounded(std::uint32_t value, unsigned shift) {
    std::uint32_t const half = 1u << (shift - 1), odd = (value >> shift) & 1u;
    return (value + half - 1 + odd) >> shift;
}

std::uint16_t to_half(float value) {
    std::uint32_t const bits = bits_of(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);   // NaN
    if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // rounds beyond 65,504
    if (magnitude >= 0x38800000u)  // normal: rebase the exponent; rounding may carry into it, which is right
        return static_cast<std::uint16_t>(sign | rounded(magnitude - 0x38000000u, 13));
    unsigned const shift = 126u - (magnitude >> 23);  // subnormal: in units of 2^-24
    if (shift > 24) return static_cast<std::uint16_t>(sign);
    return static_cast<std::uint16_t>(sign | rounded((magnitude & 0x7fffffu) | 0x800000u, shift));
}

float from_half(std::uint16_t half) {
    std::uint32_t const sign = (half & 0x8000u) << 16, exponent = (half >> 10) & 31u, fraction = half & 1023u;
    if (exponent == 31) return float_of(sign | 0x7f800000u | (fraction << 13));
    if (exponent) return float_of(sign | ((exponent + 112u) << 23) | (fraction << 13));
    float const small = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -small : small;
}

std::uint16_t to_bfloat(float value) {
    std::uint32_t const bits = bits_of(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);  // stays NaN
    return static_cast<std::uint16_t>(rounded(bits, 16));
}

template <typename From, typename To, typename Convert>
std::vector<To> converted(From const* values, std::size_t count, Convert convert) {
    std::vector<To> result(count);
    for (std::size_t i = 0; i < count; ++i) result[i] = convert(values[i]);
    return result;
}

}  // namespace

std::size_t size_of(Dtype dtype) {
    switch (dtype) {
        case Dtype::fp32:
        case Dtype::int32: return 4;
        case Dtype::fp16:
        case Dtype::bf16: return 2;
        case Dtype::int64: return 8;
        case Dtype::boolean:
        case Dtype::uint8: return 1;
    }
    throw std::logic_error("a dtype without a size");
}

std::size_t elements(Shape const& shape) {
    std::size_t count = 1;
    for (std::int64_t const size : shape) {
        if (size < 0) throw std::logic_error("a shape with a negative size");
        if (size && count > (std::numeric_limits<std::size_t>::max() >> 5) / static_cast<std::size_t>(size))
            throw Error("expected tensors that memory can hold, found a larger one; shorten the request");
        count *= static_cast<std::size_t>(size);
    }
    return count;
}

HostTensor::HostTensor(Dtype dtype, Shape shape)
    : dtype_(dtype), shape_(std::move(shape)), bytes_(elements(shape_) * size_of(dtype)) {}

void HostTensor::check(std::size_t count, std::size_t size) const {
    if (size != size_of(dtype_) || count * size != bytes_.size())
        throw std::logic_error("values that do not fill their tensor");
}

TensorPtr floating(Dtype dtype, Shape shape, std::vector<float> const& values) {
    if (dtype == Dtype::fp32) return std::make_shared<HostTensor>(dtype, std::move(shape), values);
    auto const convert = dtype == Dtype::fp16 ? to_half : to_bfloat;
    return std::make_shared<HostTensor>(dtype, std::move(shape),
                                        converted<float, std::uint16_t>(values.data(), values.size(), convert));
}

TensorPtr integers(Shape shape, std::vector<std::int64_t> const& values) {
    return std::make_shared<HostTensor>(Dtype::int64, std::move(shape), values);
}

TensorPtr booleans(Shape shape, std::vector<std::uint8_t> const& values) {
    return std::make_shared<HostTensor>(Dtype::boolean, std::move(shape), values);
}

std::vector<float> as_floats(Tensor const& tensor) {
    Dtype const dtype = tensor.dtype();
    if (dtype != Dtype::fp32 && dtype != Dtype::fp16 && dtype != Dtype::bf16) throw other_dtype();
    std::size_t const count = elements(tensor.shape());
    if (tensor.dtype() == Dtype::fp32) {
        auto const* const values = reinterpret_cast<float const*>(tensor.host());
        return {values, values + count};
    }
    auto const* const values = reinterpret_cast<std::uint16_t const*>(tensor.host());
    if (tensor.dtype() == Dtype::fp16) return converted<std::uint16_t, float>(values, count, from_half);
    return converted<std::uint16_t, float>(
        values, count, [](std::uint16_t bits) { return float_of(static_cast<std::uint32_t>(bits) << 16); });
}

std::vector<std::int64_t> as_integers(Tensor const& tensor) {
    if (tensor.dtype() != Dtype::int64) throw other_dtype();
    auto const* const values = reinterpret_cast<std::int64_t const*>(tensor.host());
    return {values, values + elements(tensor.shape())};
}

}  // namespace asap::detail
