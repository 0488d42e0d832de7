/// The loop from a prompt to tokens: one prefill, then one step per token.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <asap/request.hpp>

#include "graphs.hpp"

namespace asap::detail {

struct Generation {
    std::vector<std::int64_t> token_ids;   // sampled, the end token included
    std::vector<std::int64_t> kept_index;  // places in the new tokens that survived the cut
    std::int64_t visual_tokens = 0, kept_visual_tokens = 0;
    KvCache cache;    // everything but the last token
    Timings timings;  // all but the preprocessing
};

/// Answers `inputs` as `options` say, on top of what is in `cache`, which came of the tokens `before`. Throws `Error`
/// before anything runs where they do not fit one another, the model or its engine. `on_token` hears of each token at
/// once, and says whether the answer ends with it.
Generation generate(Manifest const& manifest, Graphs const& graphs, Inputs const& inputs, Options const& options,
                    KvCache const& cache, std::vector<std::int64_t> const& before,
                    std::function<bool(std::int64_t)> const& on_token);

}  // namespace asap::detail
