#include "shared_arena.hpp"

#include <mutex>

#include "onnxruntime_error.hpp"

namespace asap::detail {

namespace {

constexpr int kAsRequested = 1;  // of the arena's ways to grow; 0 doubles it
constexpr int kDefault = -1;

struct Users {
    std::mutex mutex;
    int count = 0;
};

Users& users() {
    static Users all;
    return all;
}

Ort::MemoryInfo place() { return Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault); }

}  // namespace

SharedArena::SharedArena() : environment_(kQuiet, "asap") {
    std::lock_guard const lock(users().mutex);
    if (users().count == 0)
        environment_.CreateAndRegisterAllocator(place(), Ort::ArenaCfg(0, kAsRequested, kDefault, kDefault));
    ++users().count;
}

SharedArena::~SharedArena() {
    std::lock_guard const lock(users().mutex);
    if (--users().count) return;
    Ort::Status const done(
        Ort::GetApi().UnregisterAllocator(environment_, place()));  // fails if the application did it
}

}  // namespace asap::detail
