/// What goes wrong, in words for the person who can mend it.
#pragma once

#include <stdexcept>

namespace asap {

/// The one exception of this library. `what()` is one line, the same as the Python runtime's: what was expected,
/// what was found, what to do. It is thrown for damaged or too new bundles, files that are no images, requests that
/// do not fit the model or its engine, and memory that runs out. After it a `Model` or `Conversation` is as it was
/// before the call.
class Error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

}  // namespace asap
