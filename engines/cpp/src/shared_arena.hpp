/// Memory that ONNX Runtime's sessions on the CPU have in common.
#pragma once

#include <onnxruntime_cxx_api.h>

namespace asap::detail {

/// While there is one, ONNX Runtime's environment, of which a process has one, has a memory arena that grows by what is
/// asked for, for sessions with "session.use_env_allocators". By default each session has its own, and doubles it when
/// it grows: a prompt then holds more than it needs.
///
/// It takes the place of an allocator that the application has registered; sessions keep the one that they were opened
/// with. Thread-safe.
class SharedArena {
public:
    SharedArena();
    ~SharedArena();
    SharedArena(SharedArena const&) = delete;
    SharedArena& operator=(SharedArena const&) = delete;

private:
    Ort::Env environment_;
};

}  // namespace asap::detail
