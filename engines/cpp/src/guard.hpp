/// The library's outer wall: no exception of another library, and none of the system, passes it as such.
#pragma once

#include <filesystem>
#include <new>
#include <string>
#include <type_traits>

#include <asap/error.hpp>
#include <onnxruntime_cxx_api.h>

namespace asap::detail {

/// What `act` returns. Its want of memory and its trouble with files become `Error`; exceptions of a caller's own
/// callback pass through.
template <typename Act>
std::invoke_result_t<Act> guarded(Act act) {
    try {
        return act();
    } catch (std::bad_alloc const&) {
        throw Error("expected memory for this request, found too little; shorten it or use a smaller image");
    } catch (std::filesystem::filesystem_error const& error) {
        throw Error("expected readable files in the bundle, found " + error.code().message() + ": " +
                    error.path1().string());
    } catch (Ort::Exception const& error) {
        throw Error("expected ONNX Runtime to do its work, found: " + std::string(error.what()));
    }
}

}  // namespace asap::detail
