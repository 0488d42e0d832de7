/// From logits to the next token, as transformers' logits processors and warpers do it, in their order.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <vector>

#include <asap/request.hpp>

#include "manifest.hpp"

namespace asap::detail {

/// How tokens are chosen: what `options` say, and where they say nothing, the bundle's `defaults`.
GenerationInfo chosen(Options const& options, GenerationInfo defaults);

/// Chooses the tokens of one answer, one after the other. The same seed draws the same tokens in Python
/// (asap_export/runtime/sampling.py).
class Sampler {
public:
    /// `context`: all tokens before the first, those of images and of earlier turns too; `ends` end an answer.
    Sampler(GenerationInfo how, std::uint64_t seed, std::vector<std::int64_t> context, std::vector<std::int64_t> ends);

    /// The next token by `logits` [V].
    std::int64_t next(std::vector<float> logits);

private:
    using Ngram = std::vector<std::int64_t>;

    void rule_out(std::vector<float>& logits) const;
    void learn(std::size_t end);
    std::int64_t sample(std::vector<float> const& logits);

    GenerationInfo how_;
    std::mt19937 generator_;
    std::vector<std::int64_t> context_, ends_;
    std::size_t before_;  // tokens of the context that are not of the answer
    std::set<std::int64_t> seen_;
    std::map<Ngram, std::set<std::int64_t>> next_;  // behind tokens in a row that have been written before
};

}  // namespace asap::detail
