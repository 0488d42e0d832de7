#include "tensor.hpp"

#include <cmath>
#include <cstring>
#include <limits>

#include <gtest/gtest.h>
#include <onnxruntime_cxx_api.h>

namespace asap::detail {
namespace {

float back(Dtype dtype, float value) { return as_floats(*floating(dtype, {1}, {value}))[0]; }

TEST(Tensor, everyHalfIsItselfThereAndBack) {
    for (unsigned bits = 0; bits < 0x10000; ++bits) {
        float const value = Ort::Float16_t::FromBits(static_cast<std::uint16_t>(bits)).ToFloat();
        if (std::isnan(value))
            EXPECT_TRUE(std::isnan(back(Dtype::fp16, value)));
        else
            EXPECT_EQ(back(Dtype::fp16, value), value) << bits;
    }
}

TEST(Tensor, roundsToTheNearestHalf) {
    // between two halves, exactly in the middle, and one float to either side of it
    for (unsigned bits = 0; bits < 0x7bff; ++bits) {
        float const low = Ort::Float16_t::FromBits(static_cast<std::uint16_t>(bits)).ToFloat();
        float const high = Ort::Float16_t::FromBits(static_cast<std::uint16_t>(bits + 1)).ToFloat();
        float const middle = (low + high) / 2;
        EXPECT_EQ(back(Dtype::fp16, std::nextafter(middle, 0.0f)), low) << bits;
        EXPECT_EQ(back(Dtype::fp16, middle), bits % 2 ? high : low) << bits;
        EXPECT_EQ(back(Dtype::fp16, std::nextafter(middle, 1e9f)), high) << bits;
        EXPECT_EQ(back(Dtype::fp16, -middle), bits % 2 ? -high : -low) << bits;
    }
}

TEST(Tensor, halvesEndAt65504) {
    float const infinity = std::numeric_limits<float>::infinity();
    EXPECT_EQ(back(Dtype::fp16, 65504.0f), 65504.0f);
    EXPECT_EQ(back(Dtype::fp16, 65519.99f), 65504.0f);
    EXPECT_EQ(back(Dtype::fp16, 65520.0f), infinity);
    EXPECT_EQ(back(Dtype::fp16, -1e30f), -infinity);
}

TEST(Tensor, bfloat16RoundsToNearestTiesToEven) {
    EXPECT_EQ(back(Dtype::bf16, 1.0f + 0x1p-8f), 1.0f);                    // the middle, and 1.0 is even
    EXPECT_EQ(back(Dtype::bf16, 1.0f + 3 * 0x1p-8f), 1.0f + 4 * 0x1p-8f);  // the middle, upwards to even
    EXPECT_EQ(back(Dtype::bf16, 1.0f + 0x1.1p-8f), 1.0f + 2 * 0x1p-8f);
    EXPECT_TRUE(std::isnan(back(Dtype::bf16, std::numeric_limits<float>::quiet_NaN())));
}

TEST(Tensor, countsItsElements) {
    EXPECT_EQ(elements({}), 1u);
    EXPECT_EQ(elements({2, 0, 5}), 0u);
    EXPECT_EQ(elements({2, 3}), 6u);
    EXPECT_THROW(elements({1 << 30, 1 << 30, 1 << 30}), std::runtime_error);
}

}  // namespace
}  // namespace asap::detail
