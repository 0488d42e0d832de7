/// What is asked, and what comes back.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace asap {

/// How a question is answered. Values out of range are refused with `Error` when it is asked.
struct Options {
    std::int64_t max_new_tokens = 256;
    double temperature = 0.0;  ///< 0 is greedy; above, tokens are drawn
    double top_p = 1.0;        ///< from the smallest set of likeliest tokens that holds this much probability
    std::uint64_t seed = 0;    ///< the same draws for the same seed; not those of the Python runtime

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

enum class StoppedBy { end, length };

struct Answer {
    std::string text;                       ///< UTF-8, special tokens left out, no white space in front; empty
                                            ///< where the bundle's tokenizer is one that is not read here
    std::vector<std::int64_t> token_ids;    ///< as sampled, the end token included
    std::int64_t visual_tokens = 0;         ///< of this turn's images
    std::int64_t kept_visual_tokens = 0;    ///< of them after the cut; equal where nothing was pruned
    std::vector<std::int64_t> kept_index;   ///< [kept], ascending places in the new tokens of this turn that survived
    StoppedBy stopped_by = StoppedBy::end;  ///< `length`: max_new_tokens cut the answer short
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
