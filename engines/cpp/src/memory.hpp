/// How much memory a bundle and a request may take on this machine, asked before they do: the kernel would end the
/// process without a word, and ONNX Runtime does not survive every allocation that fails.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>

#include "bundle.hpp"

namespace asap::detail {

/// Bytes that can be allocated now without swapping: the kernel's own estimate, and what is left of the limits of the
/// control groups around this process and of its address space. The largest number where the system does not say.
std::int64_t available_memory(std::filesystem::path const& root = "/");

/// Whether about 32 MB are there, which ONNX Runtime takes to open a graph, beside its weights.
bool room_to_open();

/// A number of bytes as "4.2 GB", or below a tenth of that unit as "67 MB".
std::string gigabytes(double size);

/// Whether weights fit into `available` bytes as stored, but not as float32, in which ONNX Runtime computes on a CPU.
/// Throws `Error` where not even the first is so: the kernel would end the process without a word.
bool weights_stay_on_disk(Bundle const& bundle, std::int64_t available);

/// Bytes, at most about, that the decoder takes on a CPU for `count` new tokens behind `cached` ones. `blocks`: it
/// holds attention scores of at most 512 rows at a time.
double memory_needed(ModelSpec const& model, std::int64_t count, std::int64_t cached, bool blocks);

/// Whether the decoder for the CPU holds attention scores of a block of rows alone. ONNX Runtime's fused attention
/// holds all of them in fp16, and the scores "received" and "text" need every row where the mask is causal.
bool scores_in_blocks(Manifest const& manifest);

/// Of a model on the CPU. What a run has taken ONNX Runtime keeps for the next, so it is asked for once. Thread-safe.
class RunMemory {
public:
    /// `model` must outlive it; `blocks`: see `memory_needed`.
    RunMemory(ModelSpec const& model, bool blocks) : model_(model), blocks_(blocks) {}

    /// Runs a prompt of `count` tokens behind `cached` ones. Throws `Error` before, where it would take more than there
    /// is.
    template <typename Run>
    auto with_room(std::int64_t count, std::int64_t cached, Run run) {
        double const needed = memory_needed(model_, count, cached, blocks_);
        check(needed, count);
        auto result = run();
        for (double held = held_; held < needed && !held_.compare_exchange_weak(held, needed);) {}
        return result;
    }

private:
    void check(double needed, std::int64_t count) const;

    ModelSpec const& model_;
    bool blocks_;
    std::atomic<double> held_{0};
};

}  // namespace asap::detail
