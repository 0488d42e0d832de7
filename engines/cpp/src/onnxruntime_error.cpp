#include "onnxruntime_error.hpp"

#include "wording.hpp"

namespace asap::detail {

namespace {

/// Allocators, operator new and the start of threads each have their own words.
bool wants_memory(std::string const& said) {
    for (char const* const sign :
         {"Failed to allocate", "bad_alloc", "bad allocation", "out of memory", "Cannot allocate memory"})
        if (said.find(sign) != std::string::npos) return true;
    return false;
}

}  // namespace

Error no_memory_to_open(std::string const& file) {
    return Error("expected memory to open " + file +
                 ", found too little; use a larger machine, or export with --quantize int4");
}

Error not_opened(std::string const& file, Ort::Exception const& error) {
    std::string const said = one_line(error.what());
    if (wants_memory(said)) return no_memory_to_open(file);
    return Error("expected a graph for ONNX Runtime " + Ort::GetVersionString() + " in " + file + ", found: " + said);
}

Error not_run(std::string const& name, Ort::Exception const& error) {
    std::string const said = one_line(error.what());
    if (wants_memory(said))
        return Error("expected memory for a run of " + name +
                     ", found too little; shorten the request, use a smaller "
                     "image, or export with --quantize int4");
    return Error("expected ONNX Runtime to run " + name + ", found: " + said);
}

}  // namespace asap::detail
