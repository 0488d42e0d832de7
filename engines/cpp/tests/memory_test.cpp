#include "memory.hpp"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <stdexcept>
#include <thread>

#include <gtest/gtest.h>

#include "fixtures.hpp"

namespace asap::detail {
namespace {

constexpr std::int64_t kMib = 1 << 20;

/// A file system with 4,096 MiB available, and further files.
class Memory : public testing::Test {
protected:
    void SetUp() override {
        root_ = std::filesystem::temp_directory_path() / ("asap-memory-" + std::to_string(::getpid()));
        write("proc/meminfo", "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB\n");
    }
    void TearDown() override { std::filesystem::remove_all(root_); }
    void write(std::string const& name, std::string const& content) const {
        std::filesystem::create_directories((root_ / name).parent_path());
        std::ofstream(root_ / name) << content;
    }
    std::filesystem::path root_;
};

std::string bytes(std::int64_t mebibytes) { return std::to_string(mebibytes * kMib) + "\n"; }

TEST_F(Memory, isTheKernelsEstimateWithoutAContainer) { EXPECT_EQ(available_memory(root_), 4096 * kMib); }

TEST_F(Memory, isLimitedByAContainerOfVersion2WhosePageCacheCountsAsFree) {
    write("proc/self/cgroup", "0::/app/worker\n");
    write("sys/fs/cgroup/app/worker/memory.max", "max\n");
    write("sys/fs/cgroup/app/memory.max", bytes(1000));
    write("sys/fs/cgroup/app/memory.current", bytes(700));
    write("sys/fs/cgroup/app/memory.stat", "anon 5\nactive_file " + bytes(100) + "inactive_file " + bytes(50));
    EXPECT_EQ(available_memory(root_), 450 * kMib);
}

TEST_F(Memory, isLimitedByAContainerOfVersion1SeenFromInside) {
    write("proc/self/cgroup", "9:cpu:/x\n4:memory:/outside/name\n0::/\n");
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", bytes(512));
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", bytes(128));
    write("sys/fs/cgroup/memory/memory.stat", "total_active_file " + bytes(1) + "total_inactive_file " + bytes(1));
    EXPECT_EQ(available_memory(root_), (512 - 128 + 2) * kMib);
}

TEST_F(Memory, isNoneWhereTheLimitIsUsedUp) {
    write("proc/self/cgroup", "0::/\n");
    write("sys/fs/cgroup/memory.max", bytes(100));
    write("sys/fs/cgroup/memory.current", bytes(300));
    EXPECT_EQ(available_memory(root_), 0);
}

TEST_F(Memory, isLimitedByAnAddressSpaceLessWhatThreadsSetAside) {
    std::int64_t const threads = 72 * std::max<std::int64_t>(1, std::thread::hardware_concurrency());
    write("proc/self/limits", "Limit  Soft Limit  Hard Limit  Units\nMax address space         " +
                                  std::to_string((threads + 900) * kMib) + "   unlimited   bytes\n");
    write("proc/self/status", "Name: x\nVmPeak: 1 kB\nVmSize:\t  307200 kB\n");
    EXPECT_EQ(available_memory(root_), 600 * kMib);
    write("proc/self/limits", "Max address space         unlimited            unlimited            bytes\n");
    EXPECT_EQ(available_memory(root_), 4096 * kMib);
}

TEST(Gigabytes, readInTheUnitThatShowsThem) {
    EXPECT_EQ(gigabytes(4.2e9), "4.2 GB");
    EXPECT_EQ(gigabytes(1e8), "0.1 GB");
    EXPECT_EQ(gigabytes(67.4e6), "67 MB");
    EXPECT_EQ(gigabytes(0), "0 MB");
}

ModelSpec small() {
    ModelSpec spec{};
    spec.hidden_size = spec.intermediate_size = 256;
    spec.layers = 8;
    spec.heads = 4;
    spec.kv_heads = 2;
    spec.head_dim = 64;
    return spec;
}

TEST(RunMemory, isRefusedBeforeTheRunAndAskedForOnce) {
    ModelSpec const spec = small();
    RunMemory memory(spec, false);
    std::int64_t const far_too_much = 1'000'000'000;  // tokens
    try {
        memory.with_room(far_too_much, 0, []() -> int { throw std::logic_error("it ran"); });
        FAIL();
    } catch (Error const& error) {
        std::string const said = error.what();
        EXPECT_EQ(
            said.rfind("expected about 48000024576.0 GB of free memory for a run of 1000000000 tokens, found ", 0), 0u)
            << said;
    }
    EXPECT_EQ(memory.with_room(100, 0, [] { return 7; }), 7);
}

TEST(RunMemory, growsWithTheSquareOfAPromptOrInBlocksWithItsLength) {
    ModelSpec const spec = small();
    double const scores = 3.0 * 4 * 4 * 4000 * 4000, blocks = 3.0 * 4 * 4 * 512 * 4000;
    double const others = memory_needed(spec, 4000, 0, false) - scores;
    EXPECT_GT(others, 0);
    EXPECT_EQ(memory_needed(spec, 4000, 0, true), blocks + others);
    EXPECT_EQ(memory_needed(spec, 500, 100, true), memory_needed(spec, 500, 100, false));
}

TEST(RunMemory, isWhatPythonSays) {
    auto const cases = test::json_fixture("memory/needed.json");
    ASSERT_FALSE(cases.empty());
    for (auto const& each : cases) {
        auto const text = each["manifest"].get<std::string>();
        SCOPED_TRACE(text);
        Manifest const manifest = parse_manifest(text);
        EXPECT_EQ(scores_in_blocks(manifest), each["blocks"].get<bool>());
        for (auto const& run : each["runs"])
            EXPECT_EQ(memory_needed(manifest.model, run[0].get<std::int64_t>(), run[1].get<std::int64_t>(),
                                    scores_in_blocks(manifest)),
                      run[2].get<double>());
    }
}

TEST(Weights, stayOnDiskWhereTheyFitAsStoredOnly) {
    Bundle bundle{};
    bundle.path = "some.bundle";
    bundle.manifest.dtype = "fp16";
    bundle.manifest.files["weights/layers.safetensors"] = {"", 3'000'000'000};
    bundle.manifest.files["weights/layers.int4.safetensors"] = {"", 1'000'000'000};
    EXPECT_FALSE(weights_stay_on_disk(bundle, 7'000'000'000));  // 3 GB twice as wide, and 1 GB as it is
    EXPECT_TRUE(weights_stay_on_disk(bundle, 6'999'999'999));
    EXPECT_TRUE(weights_stay_on_disk(bundle, 4'000'000'000));
    EXPECT_EQ(
        test::refusal([&] { weights_stay_on_disk(bundle, 3'900'000'000); }),
        "expected 4.0 GB of free memory for the weights of some.bundle, found 3.9 GB; export with --quantize int4");
    bundle.manifest.dtype = "fp32";
    EXPECT_FALSE(weights_stay_on_disk(bundle, 4'000'000'000));
}

}  // namespace
}  // namespace asap::detail
