#include "sampler.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

namespace asap::detail {

namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

/// In [0, 1) with 53 bits, as NumPy's RandomState makes it: std::uniform_real_distribution leaves its arithmetic open.
double uniform(std::mt19937& generator) {
    double const high = static_cast<double>(generator() >> 5), low = static_cast<double>(generator() >> 6);
    return (high * 67108864.0 + low) / 9007199254740992.0;
}

/// The token's logit, none for a token without one, such as an image's.
float* logit(std::vector<float>& logits, std::int64_t token) {
    bool const has = token >= 0 && static_cast<std::size_t>(token) < logits.size();
    return has ? &logits[static_cast<std::size_t>(token)] : nullptr;
}

template <typename Value>
void take(std::optional<Value> const& said, Value& value) {
    if (said) value = *said;
}

}  // namespace

GenerationInfo chosen(Options const& options, GenerationInfo defaults) {
    take(options.max_new_tokens, defaults.max_new_tokens);
    take(options.min_new_tokens, defaults.min_new_tokens);
    take(options.temperature, defaults.temperature);
    take(options.top_k, defaults.top_k);
    take(options.top_p, defaults.top_p);
    take(options.min_p, defaults.min_p);
    take(options.repetition_penalty, defaults.repetition_penalty);
    take(options.no_repeat_ngram_size, defaults.no_repeat_ngram_size);
    take(options.stop, defaults.stop);
    return defaults;
}

Sampler::Sampler(GenerationInfo how, std::uint64_t seed, std::vector<std::int64_t> context,
                 std::vector<std::int64_t> ends)
    : how_(std::move(how)),
      generator_(static_cast<std::uint32_t>(seed ^ seed >> 32)),
      context_(std::move(context)),
      ends_(std::move(ends)),
      before_(context_.size()),
      seen_(context_.begin(), context_.end()) {
    for (std::size_t end = 1; how_.no_repeat_ngram_size && end <= context_.size(); ++end) learn(end);
}

std::int64_t Sampler::next(std::vector<float> logits) {
    rule_out(logits);
    std::int64_t const token = sample(logits);
    context_.push_back(token);
    seen_.insert(token);
    learn(context_.size());
    return token;
}

void Sampler::rule_out(std::vector<float>& logits) const {
    auto const penalty = static_cast<float>(how_.repetition_penalty);
    if (how_.repetition_penalty != 1)
        for (std::int64_t const token : seen_)
            if (float* const value = logit(logits, token)) *value = *value < 0 ? *value * penalty : *value / penalty;
    auto const size = static_cast<std::size_t>(how_.no_repeat_ngram_size);
    if (size && context_.size() + 1 >= size) {
        auto const found = next_.find(Ngram(context_.end() - static_cast<std::ptrdiff_t>(size - 1), context_.end()));
        if (found != next_.end())
            for (std::int64_t const token : found->second)
                if (float* const value = logit(logits, token)) *value = kNever;
    }
    if (static_cast<std::int64_t>(context_.size() - before_) < how_.min_new_tokens)
        for (std::int64_t const token : ends_)
            if (float* const value = logit(logits, token)) *value = kNever;
}

/// The tokens of the context that end before `end` have been written.
void Sampler::learn(std::size_t end) {
    auto const size = static_cast<std::size_t>(how_.no_repeat_ngram_size);
    if (!size || end < size) return;
    auto const last = context_.begin() + static_cast<std::ptrdiff_t>(end - 1);
    next_[Ngram(last - static_cast<std::ptrdiff_t>(size - 1), last)].insert(*last);
}

/// The likeliest at temperature 0 (the first of equals), else a draw from what `top_k`, `top_p` and `min_p` leave.
std::int64_t Sampler::sample(std::vector<float> const& logits) {
    auto const likeliest = std::max_element(logits.begin(), logits.end());
    if (how_.temperature == 0 || !std::isfinite(*likeliest)) return likeliest - logits.begin();

    std::vector<double> probability(logits.size());
    for (std::size_t i = 0; i < logits.size(); ++i)
        probability[i] = std::exp(static_cast<double>(logits[i] - *likeliest) / how_.temperature);
    std::vector<std::size_t> order(logits.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return probability[a] > probability[b]; });
    if (how_.top_k) order.resize(std::min(order.size(), static_cast<std::size_t>(how_.top_k)));

    std::vector<double> cumulative;
    double mass = 0;
    for (std::size_t const token : order) cumulative.push_back(mass += probability[token]);
    auto const reaches = std::lower_bound(cumulative.begin(), cumulative.end(), how_.top_p * mass);
    auto count = std::min(cumulative.size(), static_cast<std::size_t>(reaches - cumulative.begin()) + 1);
    double const least = std::max(how_.min_p * probability[order[0]], std::numeric_limits<double>::denorm_min());
    while (count > 1 && probability[order[count - 1]] < least) --count;  // never one of probability 0
    auto const end = cumulative.begin() + static_cast<std::ptrdiff_t>(count);
    auto const drawn = std::upper_bound(cumulative.begin(), end, uniform(generator_) * cumulative[count - 1]);
    return static_cast<std::int64_t>(order[std::min(static_cast<std::size_t>(drawn - cumulative.begin()), count - 1)]);
}

}  // namespace asap::detail
