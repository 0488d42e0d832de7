/// What is asked, and what comes back.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace asap {

/// How a question is answered. Values out of range are refused with `Error` when it is asked; what is not set is as the
/// bundle's checkpoint asks for.
struct Options {
    std::optional<std::int64_t> max_new_tokens;
    std::optional<std::int64_t> min_new_tokens;  ///< before these an end token is not taken
    std::optional<double> temperature;           ///< 0 is greedy; above, tokens are drawn:
    std::optional<std::int64_t> top_k;           ///< from so many of the likeliest (0: all),
    std::optional<double> top_p;                 ///< of those from the fewest that hold this much probability,
    std::optional<double> min_p;               ///< and of those from the ones so many times as likely as the likeliest
    std::optional<double> repetition_penalty;  ///< above 1, tokens of prompt or answer become less likely; 1 is none
    std::optional<std::int64_t> no_repeat_ngram_size;  ///< so many tokens in a row never come twice (0: they may)
    std::optional<std::vector<std::string>> stop;  ///< the answer ends in front of the first of these that it writes
    std::uint64_t seed = 0;                        ///< the same draws for the same seed, in Python too

    /// At most one of these replaces the bundle's own budget for this request.
    std::optional<std::int64_t> keep;  ///< visual tokens that survive the cut
    std::optional<double> keep_ratio;  ///< the same, as a part of the prompt's visual tokens
    std::optional<double> budget;      ///< the same, as the mean over all layers

    /// Off: the prompt is taken as it is, with an `<image>` mark for each image, and no chat template around it.
    bool use_template = true;
};

/// Called with pieces of the answer as they are written; a piece never ends within a character. An exception thrown
/// here ends the answer and passes through to the caller.
using TextCallback = std::function<void(std::string const& piece)>;

/// Seconds.
struct Timings {
    double preprocess = 0;       ///< images and text, on the host
    double vision = 0;           ///< vision encoder
    double embed = 0;            ///< token embedding
    double prefill = 0;          ///< decoder, on the whole prompt
    std::vector<double> decode;  ///< decoder and embedding, for each token after the first
};

/// An end token, one of `Options::stop`, or `max_new_tokens`, which cut the answer short.
enum class StoppedBy { end, stop, length };

struct Answer {
    std::string text;                      ///< UTF-8, special tokens left out, no white space in front; empty
                                           ///< where the bundle's tokenizer is one that is not read here
    std::vector<std::int64_t> token_ids;   ///< as sampled, the end token included
    std::int64_t visual_tokens = 0;        ///< of this turn's images
    std::int64_t kept_visual_tokens = 0;   ///< of them after the cut; equal where nothing was pruned
    std::vector<std::int64_t> kept_index;  ///< [kept], ascending places in the new tokens of this turn that survived
    StoppedBy stopped_by = StoppedBy::end;
    Timings timings;
};

/// For callers with a front end of their own, in place of text and image files.
struct Inputs {
    std::vector<std::int64_t> input_ids;  ///< [T], one image token for each visual token
    std::vector<float> pixel_values;      ///< [tiles, 3, tile, tile], normalised, the tiles of all images in order
    /// Height and width in pixels of each image before preprocessing: they decide which patches are padding.
    std::vector<std::pair<std::int64_t, std::int64_t>> image_sizes;
};

}  // namespace asap
