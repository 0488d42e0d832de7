#include "sampler.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

namespace asap::detail {

namespace {

/// In [0, 1), the same on every platform: std::uniform_real_distribution leaves its arithmetic open.
double uniform(std::mt19937_64& generator) { return static_cast<double>(generator() >> 11) * 0x1p-53; }

}  // namespace

std::int64_t sample(std::vector<float> const& logits, double temperature, double top_p, std::mt19937_64& generator) {
    auto const likeliest = std::max_element(logits.begin(), logits.end());
    if (temperature == 0) return likeliest - logits.begin();

    std::vector<double> probability(logits.size());
    double total = 0;
    for (std::size_t i = 0; i < logits.size(); ++i)
        total += probability[i] =
            std::exp((static_cast<double>(logits[i]) - static_cast<double>(*likeliest)) / temperature);
    std::vector<std::size_t> order(logits.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return probability[a] > probability[b]; });

    std::size_t count = 0;
    double mass = 0;
    while (count < order.size() && (count == 0 || mass < top_p * total)) mass += probability[order[count++]];
    double left = uniform(generator) * mass;
    for (std::size_t i = 0; i + 1 < count; ++i) {
        left -= probability[order[i]];
        if (left < 0) return static_cast<std::int64_t>(order[i]);
    }
    return static_cast<std::int64_t>(order[count - 1]);
}

}  // namespace asap::detail
