#include "cuda_devices.hpp"

#include <dlfcn.h>

#include <memory>

namespace asap::detail {

namespace {

// CUdevice_attribute of the driver API; the driver is loaded by hand, so that no program needs CUDA to start.
constexpr int kMajorAttribute = 75, kMinorAttribute = 76;

struct Close {
    void operator()(void* library) const { dlclose(library); }
};

template <typename Function>
Function function(void* library, char const* name) {
    return reinterpret_cast<Function>(dlsym(library, name));
}

}  // namespace

std::vector<std::string> compute_capabilities() {
    std::unique_ptr<void, Close> const driver(dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL));
    if (!driver) return {};
    auto const init = function<int (*)(unsigned)>(driver.get(), "cuInit");
    auto const count_devices = function<int (*)(int*)>(driver.get(), "cuDeviceGetCount");
    auto const get = function<int (*)(int*, int)>(driver.get(), "cuDeviceGet");
    auto const attribute = function<int (*)(int*, int, int)>(driver.get(), "cuDeviceGetAttribute");
    int count = 0;
    if (!init || !count_devices || !get || !attribute || init(0) || count_devices(&count)) return {};
    std::vector<std::string> found;
    for (int number = 0; number < count; ++number) {
        int device = 0, major = 0, minor = 0;
        if (get(&device, number) || attribute(&major, kMajorAttribute, device) ||
            attribute(&minor, kMinorAttribute, device))
            return {};
        found.push_back(std::to_string(major) + "." + std::to_string(minor));
    }
    return found;
}

}  // namespace asap::detail
