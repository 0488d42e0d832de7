// Caches that grow in place: what one of them holds never changes, whoever else goes on from it.
#include "buffers.hpp"

#include <atomic>
#include <future>
#include <random>

#include <gtest/gtest.h>

namespace asap::detail {
namespace {

constexpr std::int64_t kHeads = 2, kHeadDim = 3;

std::shared_ptr<Buffers> empty(std::int64_t places) {
    return Buffers::empty({"key", "value"}, kHeads, kHeadDim, Dtype::fp32, places);
}

float* at(HostTensor& array, std::int64_t head, std::int64_t place) {
    return reinterpret_cast<float*>(array.writable()) + (head * array.shape()[2] + place) * kHeadDim;
}

/// What a decoder does with the places that were claimed for it.
void write(Buffers const& buffers, std::int64_t length, std::vector<float> const& values) {
    for (auto const& [name, array] : buffers.arrays())
        for (std::int64_t head = 0; head < kHeads; ++head)
            for (std::size_t i = 0; i < values.size(); ++i)
                for (std::int64_t d = 0; d < kHeadDim; ++d)
                    at(*array, head, length + static_cast<std::int64_t>(i))[d] =
                        values[i] + static_cast<float>(head) + (name == "key" ? 0.25f : 0.5f);
}

bool holds(Buffers const& buffers, std::vector<float> const& values) {
    for (auto const& [name, array] : buffers.arrays())
        for (std::int64_t head = 0; head < kHeads; ++head)
            for (std::size_t i = 0; i < values.size(); ++i)
                for (std::int64_t d = 0; d < kHeadDim; ++d)
                    if (at(*array, head, static_cast<std::int64_t>(i))[d] !=
                        values[i] + static_cast<float>(head) + (name == "key" ? 0.25f : 0.5f))
                        return false;
    return true;
}

std::int64_t length(std::vector<float> const& values) { return static_cast<std::int64_t>(values.size()); }

/// A cache, and what it must hold.
struct Held {
    std::shared_ptr<Buffers> buffers;
    std::vector<float> values;
};

Held grown(Held const& held, std::vector<float> const& news) {
    Held next{held.buffers->claimed(length(held.values), length(held.values) + length(news)), held.values};
    write(*next.buffers, length(held.values), news);
    next.values.insert(next.values.end(), news.begin(), news.end());
    return next;
}

}  // namespace

TEST(Buffers, growInPlaceWhileThereIsRoomAndByACopyWhereThereIsNone) {
    Held const prompt = grown({empty(100), {}}, std::vector<float>(100, 1));
    EXPECT_EQ(prompt.buffers->capacity(), 256);  // of 100 + 12 + 128
    Held const full = grown(prompt, std::vector<float>(156, 2));
    EXPECT_EQ(full.buffers, prompt.buffers);
    Held const longer = grown(full, {3});
    EXPECT_NE(longer.buffers, full.buffers);
    EXPECT_EQ(longer.buffers->capacity(), 512);  // of 257 + 32 + 128
    for (Held const& held : {prompt, full, longer}) EXPECT_TRUE(holds(*held.buffers, held.values));
}

TEST(Buffers, areCopiedForWhoeverGoesOnFromTheSamePlaceSecond) {
    Held const prompt = grown({empty(5), {}}, {1, 2, 3});
    Held const first = grown(prompt, {4, 5}), second = grown(prompt, {6}), third = grown(first, {7});
    EXPECT_EQ(first.buffers, prompt.buffers);
    EXPECT_NE(second.buffers, prompt.buffers);
    EXPECT_EQ(third.buffers, first.buffers);
    for (Held const& held : {prompt, first, second, third}) EXPECT_TRUE(holds(*held.buffers, held.values));
}

TEST(Buffers, keepWhatEachCacheHoldsInAnyCourseOfClaims) {
    std::mt19937 random(0);
    for (int course = 0; course < 50; ++course) {
        std::vector<Held> caches = {{empty(static_cast<std::int64_t>(random() % 20)), {}}};
        for (int step = 0; step < 25; ++step) {
            Held const& from = caches[random() % caches.size()];
            std::vector<float> news(random() % (random() % 5 ? 4 : 200));
            for (float& value : news) value = static_cast<float>(random() % 10000);
            caches.push_back(grown(from, news));
            for (Held const& held : caches) ASSERT_TRUE(holds(*held.buffers, held.values));
        }
    }
}

TEST(Buffers, goToOneOfManyThreadsThatClaimAtOnce) {
    for (int round = 0; round < 50; ++round) {
        Held const prompt = grown({empty(10), {}}, {1, 2, 3});
        std::atomic<int> in_place{0};
        std::vector<std::future<bool>> threads;
        for (int i = 0; i < 4; ++i)
            threads.push_back(std::async(std::launch::async, [&, i] {
                Held const next = grown(prompt, {static_cast<float>(i), 7});
                if (next.buffers == prompt.buffers) ++in_place;
                return holds(*next.buffers, next.values);
            }));
        for (auto& thread : threads) EXPECT_TRUE(thread.get());
        EXPECT_EQ(in_place, 1);
    }
}

TEST(Buffers, giveTheFirstPlacesAloneAndTakeChosenOnes) {
    Held const prompt = grown({empty(5), {}}, {1, 2, 3, 4});
    TensorPtr const first = prompt.buffers->content("value", 3);
    EXPECT_EQ(first->shape(), (Shape{1, kHeads, 3, kHeadDim}));
    HostTensor chosen(Dtype::fp32, {1, kHeads, 4, kHeadDim});
    copy_places(*first, {0, 2}, chosen, 1);
    for (std::int64_t head = 0; head < kHeads; ++head)
        for (std::int64_t d = 0; d < kHeadDim; ++d) {
            EXPECT_EQ(at(chosen, head, 1)[d], 1.5f + static_cast<float>(head));
            EXPECT_EQ(at(chosen, head, 2)[d], 3.5f + static_cast<float>(head));
            EXPECT_EQ(at(chosen, head, 0)[d] + at(chosen, head, 3)[d], 0);
        }
    EXPECT_EQ(prompt.buffers->content("key", 0)->shape(), (Shape{1, kHeads, 0, kHeadDim}));
}

TEST(Buffers, refuseClaimsOnPlacesThatNoCacheHas) {
    auto const buffers = empty(10);
    EXPECT_THROW(buffers->claimed(10'000, 10'001), std::logic_error);
    EXPECT_THROW(buffers->claimed(5, 4), std::logic_error);
    EXPECT_THROW(buffers->claimed(-1, 4), std::logic_error);
}

}  // namespace asap::detail
