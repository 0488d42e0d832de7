#include "openvino_library.hpp"

#include <dlfcn.h>

#include <asap/error.hpp>

#include "wording.hpp"

namespace asap::detail {

namespace {

#ifdef ASAP_OPENVINO_BACKEND
/// The backend's one function. It stays loaded: sessions live in it.
decltype(&asap_open_openvino) backend() {
    void* const library = dlopen(ASAP_OPENVINO_BACKEND, RTLD_NOW | RTLD_LOCAL);
    void* const found = library ? dlsym(library, "asap_open_openvino") : nullptr;
    if (!found)
        throw Error("expected OpenVINO and " ASAP_OPENVINO_BACKEND ", found: " + one_line(dlerror()) +
                    "; add its folder to LD_LIBRARY_PATH, or use --provider cpu");
    return reinterpret_cast<decltype(&asap_open_openvino)>(found);
}
#else
decltype(&asap_open_openvino) backend() {
    throw Error(
        "expected asap_runtime built with OpenVINO, found it built without; use --provider cpu, or build it where "
        "CMake finds OpenVINO");
}
#endif

}  // namespace

void check_openvino() { backend(); }

Sessions open_openvino(OpenVinoGraphs const& graphs, Precision precision, std::optional<int> threads) {
    Sessions opened;
    backend()(graphs, precision, threads, opened);
    return opened;
}

}  // namespace asap::detail
