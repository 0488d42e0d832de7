/// From logits to the next token.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace asap::detail {

/// The next token from `logits` [V]: the likeliest at temperature 0 (the first of equals), else a draw from the
/// smallest set of likeliest tokens whose probabilities reach `top_p`.
std::int64_t sample(std::vector<float> const& logits, double temperature, double top_p, std::mt19937_64& generator);

}  // namespace asap::detail
