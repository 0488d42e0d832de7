/// What ONNX Runtime's exceptions say to a user.
#pragma once

#include <string>

#include <onnxruntime_cxx_api.h>
#include <asap/error.hpp>

namespace asap::detail {

/// For the logs of sessions: what ONNX Runtime logs as an error it throws, too, and then it is told once.
constexpr OrtLoggingLevel kQuiet = ORT_LOGGING_LEVEL_FATAL;

/// A graph in `file` that there is too little memory to open.
Error no_memory_to_open(std::string const& file);

/// A graph in `file` that cannot be opened.
Error not_opened(std::string const& file, Ort::Exception const& error);

/// A graph whose run failed; `name` says which.
Error not_run(std::string const& name, Ort::Exception const& error);

}  // namespace asap::detail
