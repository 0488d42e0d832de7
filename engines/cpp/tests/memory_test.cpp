#include "memory.hpp"

#include <unistd.h>

#include <fstream>
#include <map>

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

TEST(WeightsThatDoNotFit, areRefusedBeforeTheKernelEndsTheProcess) {
    Bundle bundle{};
    bundle.path = "huge.bundle";
    bundle.manifest.dtype = "fp16";
    bundle.manifest.files["weights/model.safetensors"] = {"", std::int64_t{1} << 60};
    std::string const said = test::refusal([&] { weights_stay_on_disk(bundle); });
    EXPECT_EQ(said.rfind("expected 1152921504.6 GB of free memory for the weights of huge.bundle", 0), 0u) << said;
}

}  // namespace
}  // namespace asap::detail
