#include "manifest_rules.hpp"

#include <algorithm>
#include <tuple>

#include "anyres.hpp"
#include "document.hpp"

namespace asap::detail {

namespace {

constexpr std::int64_t kMostVisualTokens = 1 << 24;  // of one image: no index of them fills the memory

BundleError broken(std::string const& place, std::string const& expected, std::string const& found) {
    return manifest_error("inconsistent", place, expected, found);
}

std::string pair(std::int64_t first, std::int64_t second) {
    return "[" + std::to_string(first) + ", " + std::to_string(second) + "]";
}

void check_budget(Budget const& budget) {
    std::string given;
    auto const add = [&](bool set, char const* name) {
        if (set) given += (given.empty() ? "" : " and ") + std::string(name);
    };
    add(budget.keep.has_value(), "keep");
    add(budget.layer_average.has_value(), "layer_average");
    add(budget.ratio.has_value(), "ratio");
    int const count = budget.keep.has_value() + budget.ratio.has_value() + budget.layer_average.has_value();
    if (count != 1) throw broken("$.budget", "exactly one budget", given.empty() ? "none" : given);
}

void check_tiles(TileGeometry const& geometry) {
    std::int64_t const tile = geometry.tile_size;
    std::string const size = "the tile's " + std::to_string(tile) + " pixels";
    if (geometry.patch_size > tile)
        throw broken("$.model.patch_size", "at most " + size, std::to_string(geometry.patch_size));
    for (std::size_t i = 0; i < geometry.grid_pinpoints.size(); ++i) {
        auto const [height, width] = geometry.grid_pinpoints[i];
        if (std::min(height, width) < tile)
            throw broken("$.model.grid_pinpoints[" + std::to_string(i) + "]", "no side shorter than " + size,
                         pair(height, width));
    }
    std::int64_t most = geometry.features();
    for (Size const pinpoint : geometry.grid_pinpoints)  // filled to the edge, nothing unpadded
        most = std::max(most, visual_token_count(pinpoint, geometry));
    if (most > kMostVisualTokens)
        throw broken("$.model", "at most " + std::to_string(kMostVisualTokens) + " visual tokens of one image",
                     std::to_string(most));
}

void check_range(ShapeRange const& range, Place const& place) {
    if (range.min.size() != range.opt.size() || range.opt.size() != range.max.size())
        throw broken(place.text(), "shapes of one rank", "several");
    for (std::size_t i = 0; i < range.min.size(); ++i)
        if (range.min[i] > range.opt[i] || range.opt[i] > range.max[i])
            throw broken(place.text(), "min, opt and max in order", "others");
}

void check_part(EnginePart const& part, std::int64_t layers, Place const& place) {
    if (part.number >= part.of)
        throw broken(place.text() + ".number", "less than " + std::to_string(part.of) + ", the number of parts",
                     std::to_string(part.number));
    auto const [first, last] = part.layers;
    if (first > last || last >= layers)
        throw broken(place.text() + ".layers", "the first and last of " + std::to_string(layers) + " layers",
                     pair(first, last));
}

void check_engine(EngineInfo const& engine, std::int64_t layers, Place const& place) {
    Place const all(place, "profiles");
    for (std::size_t i = 0; i < engine.profiles.size(); ++i) {
        Place const profile(all, i), shapes(profile, "shapes"), values(profile, "values");
        for (auto const& [name, range] : engine.profiles[i].shapes) check_range(range, Place(shapes, name));
        for (auto const& [name, range] : engine.profiles[i].values) check_range(range, Place(values, name));
    }
    if (engine.part) check_part(*engine.part, layers, Place(place, "part"));
}

}  // namespace

void check_rules(Manifest const& manifest) {
    auto const& [model, pruning] = std::tie(manifest.model, manifest.pruning);
    check_budget(manifest.budget);
    if (model.heads % model.kv_heads)
        throw broken("$.model.kv_heads", "a divisor of " + std::to_string(model.heads) + " heads",
                     std::to_string(model.kv_heads));
    check_tiles(TileGeometry::of(model));
    if (pruning.prunes() && pruning.prune_after >= model.layers)
        throw broken("$.pruning.prune_after", "less than the model's " + std::to_string(model.layers) + " layers",
                     std::to_string(pruning.prune_after));
    if (auto const& quantized = manifest.quantization;
        quantized && (quantized->bits == 8) == quantized->block_size.has_value())
        throw broken("$.quantization.block_size", "a number for 4 bits, and null for 8",
                     quantized->block_size ? std::to_string(*quantized->block_size) : "null");
    Place const root, engines(root, "engines");
    for (std::size_t i = 0; i < manifest.engines.size(); ++i)
        check_engine(manifest.engines[i], model.layers, Place(engines, i));
}

}  // namespace asap::detail
