/// The library's outer wall: no exception of another library, and none of the system, passes it as such.
#pragma once

#include <exception>
#include <filesystem>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <onnxruntime_cxx_api.h>
#include <asap/error.hpp>

#include "onnxruntime_error.hpp"
#include "wording.hpp"

namespace asap::detail {

/// What a caller's own callback threw, on its way through the wall. No std::exception: nothing within takes it for its
/// own.
struct FromCallback {
    std::exception_ptr thrown;
};

/// What `act` returns. Its want of memory and its trouble with files become `Error`, and so does whatever else a bundle
/// brings about that no check foresaw; exceptions of a caller's own callback pass through.
template <typename Act>
std::invoke_result_t<Act> guarded(Act act) {
    char const* const no_memory =
        "expected memory for this request, found too little; shorten it or use a smaller image";
    try {
        return act();
    } catch (FromCallback const& passing) {
        std::rethrow_exception(passing.thrown);
    } catch (Error const&) {
        throw;
    } catch (std::bad_alloc const&) {
        throw Error(no_memory);
    } catch (std::length_error const&) {  // more elements than a container can have
        throw Error(no_memory);
    } catch (std::filesystem::filesystem_error const& error) {
        throw Error("expected readable files in the bundle, found " + error.code().message() + ": " +
                    error.path1().string());
    } catch (Ort::Exception const& error) {
        throw not_run("a graph", error);
    } catch (std::exception const& error) {
        throw Error("expected a bundle that asap-export wrote, found one that leads to: " + one_line(error.what()) +
                    "; export the bundle again");
    }
}

}  // namespace asap::detail
