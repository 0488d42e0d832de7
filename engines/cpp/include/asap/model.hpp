/// A loaded bundle.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <asap/conversation.hpp>
#include <asap/image.hpp>
#include <asap/request.hpp>

namespace asap {

namespace detail {
class Runtime;
}

/// Where a bundle runs.
enum class Provider {
    automatic,  ///< the best of those below that this machine and this build have, but OpenVINO
    cpu,        ///< ONNX Runtime on the CPU
    openvino,   ///< OpenVINO on the CPU
    cuda,       ///< ONNX Runtime on CUDA
    tensorrt,   ///< the bundle's own engines
};

/// What OpenVINO computes products in.
enum class Precision {
    automatic,  ///< bf16 where the CPU has instructions for it, else f32
    f32,
    bf16,
};

struct LoadOptions {
    Provider provider = Provider::automatic;
    Precision precision = Precision::automatic;  ///< only for OpenVINO
    std::optional<int> threads;                  ///< of one operator on the CPU; by default one for each core
    void* cuda_stream = nullptr;                 ///< a cudaStream_t that TensorRT runs in; null: one of the model's own

    /// Models on the CPU take memory from one arena, which is registered with ONNX Runtime's environment as long as one
    /// of them lives, and which sessions of the application's with "session.use_env_allocators" share. False where the
    /// application registers an allocator of its own: every graph then has an arena to itself, which takes more memory.
    bool shared_arena = true;
};

/// Answers questions about images. A model may be used by several threads at once: every call of `generate` has a KV
/// cache of its own, and so has every `Conversation`. With OpenVINO and
/// TensorRT, calls on one model wait for one another.
class Model {
public:
    explicit Model(std::shared_ptr<detail::Runtime const> runtime);

    /// Answers one question about any number of images. Throws `Error` for images, marks, budgets and lengths that do
    /// not fit.
    Answer generate(std::vector<ImageSource> const& images, std::string const& prompt, Options const& options = {},
                    TextCallback const& on_text = {}) const;

    /// The same from token ids and pixels that the caller has made.
    Answer generate(Inputs const& inputs, Options const& options = {}, TextCallback const& on_text = {}) const;

    /// What `generate` makes of images and prompt before the model runs.
    Inputs inputs(std::vector<ImageSource> const& images, std::string const& prompt, Options const& options = {}) const;

    /// A conversation that remembers its turns in a KV cache of its own; it keeps the model alive.
    Conversation chat() const;

    Provider provider() const;

    /// What a user should know about how this model runs: where memory is too little for the weights as the CPU
    /// computes with them, they are read from disk at every step. Mostly empty.
    std::string note() const;

private:
    std::shared_ptr<detail::Runtime const> runtime_;
};

/// Opens the bundle in a folder: sizes of all its files and hashes of all but weights and engines are checked. Throws
/// `Error` where it is damaged, too new, cannot run with this provider, or memory cannot hold its weights.
std::unique_ptr<Model> load(std::filesystem::path const& bundle, LoadOptions const& options = {});

}  // namespace asap
