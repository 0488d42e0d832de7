/// The way out of a C library that gives up.
#pragma once

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstring>
#include <new>

#include "image/bytes.hpp"

namespace asap::detail {

/// libjpeg and libpng report an error by a function of ours that must not return to them. It jumps back here, over
/// whatever is in between, and destructors are not run on the way. So nothing within `guard` may own anything: buffers
/// are made outside, and callbacks of the libraries only copy and count.
class Escape {
public:
    /// Runs `calls`, a function that calls the library. Throws ImageFault with the reason that `leave` was given, or
    /// std::bad_alloc where memory was wanting.
    template <typename Calls>
    void guard(Calls const& calls) {
        if (setjmp(place_) != 0) give_up();
        calls();
    }

    /// Leaves the `guard` that is running.
    [[noreturn]] void leave(char const* reason) {
        std::size_t const length = std::min(std::strlen(reason), reason_.size() - 1);
        std::copy_n(reason, length, reason_.begin());
        reason_[length] = '\0';
        std::longjmp(place_, 1);
    }

    /// The next `leave` is for want of memory.
    void lacks_memory() { lacks_memory_ = true; }

private:
    [[noreturn]] void give_up() const {
        if (lacks_memory_) throw std::bad_alloc();
        throw damaged(reason_.data());
    }

    std::jmp_buf place_;
    std::array<char, 256> reason_{};
    bool lacks_memory_ = false;
};

}  // namespace asap::detail
