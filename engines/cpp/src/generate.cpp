#include "generate.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include <asap/error.hpp>

#include "anyres.hpp"
#include "budget.hpp"
#include "sampler.hpp"

namespace asap::detail {

namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
}

std::int64_t length(std::size_t size) { return static_cast<std::int64_t>(size); }

std::vector<std::uint8_t> visual_mask(Manifest const& manifest, std::vector<std::int64_t> const& ids) {
    std::vector<std::uint8_t> mask(ids.size());
    std::transform(ids.begin(), ids.end(), mask.begin(),
                   [&](std::int64_t id) { return id == manifest.model.image_token_id ? 1 : 0; });
    return mask;
}

void check_ids(Manifest const& manifest, Inputs const& inputs) {
    if (inputs.input_ids.empty())
        throw Error("expected a prompt of at least 1 token, found an empty one; ask something");
    for (std::int64_t const id : inputs.input_ids)
        if (id < 0 || (id >= manifest.model.vocab_size && id != manifest.model.image_token_id))
            throw Error("expected token ids from 0 to " + std::to_string(manifest.model.vocab_size - 1) + ", found " +
                        std::to_string(id) + "; use the bundle's own tokenizer");
    if (inputs.input_ids.back() == manifest.model.image_token_id)  // it could be pruned, and its logits are wanted
        throw Error("expected text after the last image of a prompt, found none; ask something about it");
}

Packing checked_packing(Manifest const& manifest, Inputs const& inputs, std::int64_t visual_tokens) {
    TileGeometry const geometry = TileGeometry::of(manifest.model);
    std::vector<Size> sizes;
    std::int64_t tokens = 0, tiles = 0;
    for (auto const& [height, width] : inputs.image_sizes) {
        sizes.push_back({height, width});
        tokens += visual_token_count(sizes.back(), geometry);
        tiles += tile_count(sizes.back(), geometry);
    }
    if (visual_tokens != tokens)
        throw Error("expected " + std::to_string(tokens) + " image tokens for these images, found " +
                    std::to_string(visual_tokens) + "; give one for each visual token");
    std::int64_t const side = manifest.model.tile_size;
    if (length(inputs.pixel_values.size()) != tiles * 3 * side * side)
        throw Error("expected pixel values of " + std::to_string(tiles) + " tiles of 3 x " + std::to_string(side) +
                    " x " + std::to_string(side) + ", found " + std::to_string(inputs.pixel_values.size()) +
                    " numbers; preprocess images as preprocess.onnx does");
    return packing(sizes, geometry);  // no larger than what has been found
}

/// How many new tokens there may be: as many as `options` say, or as the bundle does where there is room. The sequence
/// stays within the model's positions, and its cache within the engine.
std::int64_t most_new(Manifest const& manifest, Graphs const& graphs, Options const& options, std::int64_t count,
                      std::int64_t kept_length, KvCache const& cache) {
    std::int64_t const positions = manifest.model.max_position_embeddings;
    std::int64_t const room = positions - cache.fed - count + 1;  // the last new token is never fed
    auto const longest = graphs.longest_cache();
    std::int64_t const cached = cache.longest() + (cache.early_length ? count : kept_length);
    std::int64_t const in_cache = longest ? *longest - cached + 1 : room;
    std::int64_t const usual = std::min({manifest.generation.max_new_tokens, room, in_cache});
    std::int64_t const wanted = options.max_new_tokens.value_or(std::max<std::int64_t>(1, usual));
    if (wanted > room) {
        std::string const before = cache.fed ? std::to_string(cache.fed) + " before, " : "";
        throw Error("expected at most " + std::to_string(positions) + " tokens, the checkpoint's positions, found " +
                    before + std::to_string(count) + " of the prompt and " + std::to_string(wanted) + " new ones; " +
                    (room > 0 ? "lower --max-new-tokens to " + std::to_string(room) : "shorten the prompt"));
    }
    if (longest && wanted > in_cache)
        throw Error("expected at most " + std::to_string(*longest) + " tokens in this engine's cache, found " +
                    std::to_string(cached) + " and " + std::to_string(wanted) +
                    " new ones; lower --max-new-tokens, or export with larger limits");
    return wanted;
}

/// Without the image token: an answer has no image to put in its place.
std::vector<float> checked(std::vector<float> logits, Manifest const& manifest) {
    if (std::any_of(logits.begin(), logits.end(), [](float value) { return std::isnan(value); }))
        throw Error(std::string("expected numbers from the decoder, found NaN; ") +
                    (manifest.dtype == "fp16"
                         ? "export with --dtype bf16 or fp32, whose range is wider"
                         : "compare the checkpoint's weights with their source, and download them again"));
    std::int64_t const image_token_id = manifest.model.image_token_id;
    if (image_token_id < length(logits.size()))
        logits[static_cast<std::size_t>(image_token_id)] = -std::numeric_limits<float>::infinity();
    return logits;
}

struct Prefill {
    Step step;
    std::int64_t visual_tokens, kept_visual_tokens, most_new;
    double vision, embed, decoder;  // seconds
};

Prefill prefill(Manifest const& manifest, Graphs const& graphs, Inputs const& inputs, Options const& options,
                KvCache const& cache) {
    check_ids(manifest, inputs);
    auto const mask = visual_mask(manifest, inputs.input_ids);
    std::int64_t const count = length(mask.size()), visual = std::accumulate(mask.begin(), mask.end(), std::int64_t{0});
    Packing const packed = checked_packing(manifest, inputs, visual);
    std::int64_t const keep = kept_visual_tokens(manifest, options, visual);
    std::int64_t const kept_length = visual ? std::min(count, keep + count - visual) : count;
    std::int64_t const most = most_new(manifest, graphs, options, count, kept_length, cache);

    return graphs.with_room(count, cache, [&]() -> Prefill {
        auto const begin = Clock::now();
        TensorPtr const features = graphs.image_features(inputs.pixel_values, packed.gather_index);
        auto const seen = Clock::now();
        TensorPtr const embeds = graphs.inputs_embeds(inputs.input_ids, features);
        auto const embedded = Clock::now();
        Step step = graphs.step(embeds, mask, kept_length, cache);
        auto const end = Clock::now();
        std::int64_t kept = 0;
        for (std::int64_t const place : step.kept_index) kept += mask.at(static_cast<std::size_t>(place));
        return {std::move(step),       visual, kept, most, seconds(begin, seen), seconds(seen, embedded),
                seconds(embedded, end)};
    });
}

}  // namespace

Generation generate(Manifest const& manifest, Graphs const& graphs, Inputs const& inputs, Options const& options,
                    KvCache const& cache, std::vector<std::int64_t> const& before,
                    std::function<bool(std::int64_t)> const& on_token) {
    check_options(options);
    Prefill first = prefill(manifest, graphs, inputs, options, cache);
    Generation done;
    done.visual_tokens = first.visual_tokens;
    done.kept_visual_tokens = first.kept_visual_tokens;
    done.kept_index = first.step.kept_index;
    done.timings.vision = first.vision;
    done.timings.embed = first.embed;
    done.timings.prefill = first.decoder;

    auto const& ends = manifest.model.eos_token_ids;
    TensorPtr const no_image = graphs.image_features({}, {});
    std::vector<std::int64_t> context = before;
    context.insert(context.end(), inputs.input_ids.begin(), inputs.input_ids.end());
    Sampler sampler(chosen(options, manifest.generation), options.seed, std::move(context), ends);
    Step step = std::move(first.step);
    while (true) {
        std::int64_t const token = sampler.next(checked(std::move(step.logits), manifest));
        done.token_ids.push_back(token);
        bool const stopped = on_token(token);
        bool const ended = std::find(ends.begin(), ends.end(), token) != ends.end();
        if (ended || stopped || length(done.token_ids.size()) >= first.most_new) break;
        auto const begin = Clock::now();
        step = graphs.step(graphs.inputs_embeds({token}, no_image), {0}, 1, step.cache);
        done.timings.decode.push_back(seconds(begin, Clock::now()));
    }
    done.cache = std::move(step.cache);
    return done;
}

}  // namespace asap::detail
