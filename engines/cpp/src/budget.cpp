#include "budget.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include <asap/error.hpp>

namespace asap::detail {

namespace {

std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}

double layer_average_keep(Manifest const& manifest, double average, std::int64_t visual_tokens) {
    auto const layers = static_cast<double>(manifest.model.layers);
    auto const before = static_cast<double>(manifest.pruning.prune_after), visual = static_cast<double>(visual_tokens);
    double const wanted = (average * layers - before * visual) / (layers - before);
    if (visual_tokens && wanted < 1) {
        double const least = (before * visual + layers - before) / layers;
        throw Error("expected --budget of at least " + std::to_string(std::llrint(least)) + " for " +
                    std::to_string(visual_tokens) + " visual tokens (" + std::to_string(manifest.pruning.prune_after) +
                    " of " + std::to_string(manifest.model.layers) + " layers see all of them), found " +
                    number(average) + "; raise it or give --keep");
    }
    return wanted;
}

double wanted_tokens(Manifest const& manifest, Budget const& budget, std::int64_t visual_tokens) {
    if (budget.keep) return static_cast<double>(*budget.keep);
    if (budget.ratio) return *budget.ratio * static_cast<double>(visual_tokens);
    return layer_average_keep(manifest, *budget.layer_average, visual_tokens);
}

void check_budget(Options const& options) {
    if (options.keep && *options.keep < 1)
        throw Error("expected --keep of at least 1 visual token, found " + std::to_string(*options.keep));
    if (options.keep_ratio && !(*options.keep_ratio > 0 && *options.keep_ratio <= 1))
        throw Error("expected --keep-ratio in (0, 1], found " + number(*options.keep_ratio));
    if (options.budget && !(*options.budget >= 1))
        throw Error("expected --budget of at least 1 visual token, found " + number(*options.budget));
}

/// Throws `Error` for a value that is set and does not fit.
template <typename Value, typename Fits>
void check(std::optional<Value> const& value, Fits fits, char const* expected, char const* remedy = "") {
    if (!value || fits(static_cast<double>(*value))) return;
    std::string found;
    if constexpr (std::is_integral_v<Value>)
        found = std::to_string(*value);
    else
        found = number(*value);
    throw Error(std::string("expected ") + expected + found + remedy);
}

}  // namespace

void check_options(Options const& options) {
    auto const positive = [](double value) { return value > 0 && std::isfinite(value); };
    auto const not_negative = [](double value) { return value >= 0 && std::isfinite(value); };
    auto const share = [](double value) { return value > 0 && value <= 1; };
    auto const part = [](double value) { return value >= 0 && value <= 1; };
    check(options.max_new_tokens, positive, "--max-new-tokens of at least 1, found ");
    check(options.min_new_tokens, not_negative, "--min-new-tokens of 0 or more, found ");
    check(options.temperature, not_negative, "--temperature of 0 or more, found ", "; 0 is greedy");
    check(options.top_k, not_negative, "--top-k of 0 or more, found ", "; 0 takes all tokens");
    check(options.top_p, share, "--top-p in (0, 1], found ", "; 1 takes all tokens");
    check(options.min_p, part, "--min-p in [0, 1], found ", "; 0 takes all tokens");
    check(options.repetition_penalty, positive, "--repetition-penalty above 0, found ", "; 1 is none");
    check(options.no_repeat_ngram_size, not_negative, "--no-repeat-ngram-size of 0 or more, found ",
          "; 0 forbids nothing");
    for (std::string const& stop : options.stop.value_or(std::vector<std::string>{}))
        if (stop.empty()) throw Error("expected --stop of at least one character each, found none in one");
    if (options.keep.has_value() + options.keep_ratio.has_value() + options.budget.has_value() > 1)
        throw Error("expected one of --keep, --keep-ratio and --budget; give only one of them");
    check_budget(options);
}

std::int64_t kept_visual_tokens(Manifest const& manifest, Options const& options, std::int64_t visual_tokens) {
    bool const own = options.keep || options.keep_ratio || options.budget;
    Budget const budget = own ? Budget{options.keep, options.keep_ratio, options.budget} : manifest.budget;
    // The default rounding mode is Python's: halves go to the even neighbour.
    auto const wanted = static_cast<std::int64_t>(
        std::nearbyint(std::min(wanted_tokens(manifest, budget, visual_tokens), static_cast<double>(visual_tokens))));
    std::int64_t const keep = std::max<std::int64_t>(1, wanted);
    if (!manifest.pruning.prunes() && keep < visual_tokens)
        throw Error("expected a bundle that prunes, to keep " + std::to_string(keep) +
                    " visual tokens, found a dense one; leave --keep, --keep-ratio and --budget out, or export without "
                    "--dense");
    return keep;
}

}  // namespace asap::detail
