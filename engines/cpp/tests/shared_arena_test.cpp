// Memory of several models, and of an application that uses ONNX Runtime itself.
#include <atomic>
#include <cstdlib>
#include <future>
#include <memory>
#include <vector>

#include <gtest/gtest.h>
#include <onnxruntime_cxx_api.h>
#include <asap/asap.hpp>

#include "fixtures.hpp"

namespace asap {
namespace {

using Ids = std::vector<std::int64_t>;

std::unique_ptr<Model> loaded(bool shared_arena = true) {
    LoadOptions options;
    options.provider = Provider::cpu;
    options.threads = 1;
    options.shared_arena = shared_arena;
    return load(test::fixture("bundle/tiny"), options);
}

Ids asked(Model const& model) {
    Options options;
    options.max_new_tokens = 5;
    Image const image{40, 90, std::vector<std::uint8_t>(40 * 90 * 3, 77)};
    return model.generate({image}, "What is on the mat?", options).token_ids;
}

/// An application's environment, which is the process's only one, with what the application registers there.
class Application : public testing::Test {
protected:
    /// Whether there was an allocator; there is none then.
    bool unregisters() {
        Ort::Status const status(Ort::GetApi().UnregisterAllocator(environment_, place_));
        return status.IsOK();
    }

    Ort::Env environment_{ORT_LOGGING_LEVEL_FATAL, "application"};
    Ort::MemoryInfo place_ = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
};

/// Memory of the C library that counts how often it is asked for.
struct CountingAllocator : OrtAllocator {
    CountingAllocator() : OrtAllocator{} {
        version = ORT_API_VERSION;
        Alloc = Reserve = [](OrtAllocator* self, std::size_t size) {
            ++static_cast<CountingAllocator*>(self)->count;
            return std::aligned_alloc(64, (size + 63) / 64 * 64);
        };
        Free = [](OrtAllocator*, void* block) { std::free(block); };
        Info = [](OrtAllocator const* self) -> OrtMemoryInfo const* {
            return static_cast<CountingAllocator const*>(self)->place;
        };
    }
    Ort::MemoryInfo place = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
    std::atomic<int> count{0};
};

TEST_F(Application, hasTheArenaWhileAModelLives) {
    EXPECT_FALSE(unregisters());
    auto one = loaded(), other = loaded();
    Ids const expected = asked(*one);
    one.reset();
    EXPECT_EQ(asked(*other), expected);
    EXPECT_TRUE(unregisters());
    EXPECT_EQ(asked(*other), expected);  // sessions keep what they were opened with
    other.reset();
    auto const again = loaded();
    EXPECT_EQ(asked(*again), expected);
    EXPECT_TRUE(unregisters());
}

TEST_F(Application, hasNoArenaOnceTheLastModelIsGone) {
    auto one = loaded(), other = loaded();
    one.reset();
    other.reset();
    EXPECT_FALSE(unregisters());
}

TEST_F(Application, hasNoArenaWhereLoadingFails) {
    EXPECT_NE(test::refusal([] { load("/nowhere"); }), "");
    LoadOptions none;
    none.threads = 0;
    EXPECT_NE(test::refusal([&] { load(test::fixture("bundle/tiny"), none); }), "");
    EXPECT_FALSE(unregisters());
}

TEST_F(Application, registersAnAllocatorThatModelsUseOnlyIfTheyShare) {
    CountingAllocator allocator;
    auto const before = loaded();
    Ids const expected = asked(*before);
    ASSERT_TRUE(unregisters());
    Ort::ThrowOnError(Ort::GetApi().RegisterAllocator(environment_, &allocator));
    {
        auto const apart = loaded(false);
        EXPECT_EQ(asked(*apart), expected);
        EXPECT_EQ(asked(*before), expected);
        EXPECT_EQ(allocator.count, 0);
        auto const sharing = loaded();
        EXPECT_EQ(asked(*sharing), expected);
        EXPECT_GT(allocator.count, 0);
    }
    EXPECT_TRUE(unregisters());
}

TEST_F(Application, keepsItsAllocatorBesideModelsThatDoNotShare) {
    CountingAllocator allocator;
    Ort::ThrowOnError(Ort::GetApi().RegisterAllocator(environment_, &allocator));
    {
        auto const model = loaded(false);
        Ids const expected = asked(*model);
        Ort::SessionOptions options;
        options.AddConfigEntry("session.use_env_allocators", "1");
        auto const graph = test::fixture("bundle/tiny/preprocess.onnx");
        Ort::Session const session(environment_, graph.c_str(), options);
        EXPECT_GT(allocator.count, 0);
        EXPECT_EQ(asked(*model), expected);
    }
    EXPECT_TRUE(unregisters());
}

TEST_F(Application, loadsAndFreesModelsInManyThreads) {
    Ids const expected = asked(*loaded());
    std::vector<std::future<void>> threads;
    for (int i = 0; i < 4; ++i)
        threads.push_back(std::async(std::launch::async, [&] {
            for (int turn = 0; turn < 3; ++turn) EXPECT_EQ(asked(*loaded()), expected);
        }));
    for (auto& thread : threads) thread.get();
    EXPECT_FALSE(unregisters());
}

}  // namespace
}  // namespace asap
