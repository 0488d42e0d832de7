#include "sampler.hpp"

#include <cmath>
#include <map>

#include <gtest/gtest.h>

namespace asap::detail {
namespace {

TEST(Sampler, isGreedyAtTemperatureZeroAndTakesTheFirstOfEquals) {
    std::mt19937_64 generator(0);
    EXPECT_EQ(sample({0.5f, 2.0f, -1.0f, 2.0f}, 0, 1, generator), 1);
}

TEST(Sampler, drawsAsOftenAsProbable) {
    std::mt19937_64 generator(7);
    std::vector<float> const logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
    std::map<std::int64_t, int> seen;
    for (int i = 0; i < 20000; ++i) ++seen[sample(logits, 1, 1, generator)];
    EXPECT_NEAR(seen[0] / 20000.0, 0.5, 0.015);
    EXPECT_NEAR(seen[1] / 20000.0, 0.3, 0.015);
    EXPECT_NEAR(seen[2] / 20000.0, 0.2, 0.015);
}

TEST(Sampler, leavesOutWhatLiesBeyondTopP) {
    std::mt19937_64 generator(7);
    std::vector<float> const logits = {std::log(0.2f), std::log(0.5f), std::log(0.3f)};
    for (int i = 0; i < 1000; ++i) {
        EXPECT_EQ(sample(logits, 1, 0.4, generator), 1);
        EXPECT_NE(sample(logits, 1, 0.7, generator), 0);
    }
}

TEST(Sampler, neverDrawsWhatIsRuledOut) {
    std::mt19937_64 generator(7);
    std::vector<float> const logits = {-INFINITY, 0.0f, -INFINITY, 0.0f};
    for (int i = 0; i < 1000; ++i) EXPECT_EQ(sample(logits, 5, 1, generator) % 2, 1);
}

TEST(Sampler, drawsTheSameForTheSameSeed) {
    std::vector<float> const logits(100, 0.0f);
    std::mt19937_64 one(3), other(3);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(sample(logits, 1, 1, one), sample(logits, 1, 1, other));
}

}  // namespace
}  // namespace asap::detail
