/// What a model and its conversations share: a bundle with everything that runs it.
#pragma once

#include <optional>

#include <onnxruntime_cxx_api.h>
#include <asap/model.hpp>

#include "bundle.hpp"
#include "generate.hpp"
#include "graphs.hpp"
#include "prompt.hpp"

namespace asap::detail {

/// An answer, and the cache behind it, which holds everything but the last token.
struct Answered {
    Answer answer;
    KvCache cache;
};

/// Thread-safe: nothing in it changes once it is made.
class Runtime {
public:
    Runtime(Bundle bundle, LoadOptions const& options);

    Inputs read(std::vector<ImageSource> const& images, std::string const& prompt, Options const& options) const;
    Inputs read_turn(std::vector<ImageSource> const& images, std::string const& prompt, Options const& options,
                     std::int64_t last_token) const;

    /// `before`: the tokens of earlier turns.
    Answered answer(Inputs const& inputs, Options const& options, KvCache const& cache, double preprocess_seconds,
                    TextCallback const& on_text, std::vector<std::int64_t> const& before = {}) const;

    KvCache empty_cache() const { return graphs_.empty_cache(); }
    Provider provider() const { return provider_; }
    std::string note() const;

private:
    Ort::Env environment_;
    Bundle bundle_;
    Provider provider_;
    bool mapped_;
    PromptReader reader_;
    Graphs graphs_;
};

}  // namespace asap::detail
