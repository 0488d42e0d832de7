#include "budget.hpp"

#include <cmath>

#include <gtest/gtest.h>

#include "fixtures.hpp"

namespace asap::detail {
namespace {

Manifest vicuna(Budget const& budget, std::string const& method = "asap") {
    Manifest manifest;
    manifest.model.layers = 32;
    manifest.pruning.method = method;
    manifest.pruning.prune_after = 2;
    manifest.budget = budget;
    return manifest;
}

std::string refusal(Options const& options, Manifest const& manifest, std::int64_t visual_tokens) {
    return test::refusal([&] {
        check_options(options);
        kept_visual_tokens(manifest, options, visual_tokens);
    });
}

TEST(Budget, ofTheBundleHoldsUnlessARequestBringsItsOwn) {
    Manifest const manifest = vicuna({std::nullopt, 1.0 / 6, std::nullopt});
    EXPECT_EQ(kept_visual_tokens(manifest, {}, 2880), 480);
    Options own;
    own.keep = 478;
    EXPECT_EQ(kept_visual_tokens(manifest, own, 2880), 478);
    own = {};
    own.budget = 640;  // the mean over all 32 layers
    EXPECT_EQ(kept_visual_tokens(manifest, own, 2880), 491);
}

TEST(Budget, isHeldBetweenOneTokenAndAll) {
    Manifest const manifest = vicuna({std::int64_t{478}, std::nullopt, std::nullopt});
    EXPECT_EQ(kept_visual_tokens(manifest, {}, 100), 100);
    Options least;
    least.keep_ratio = 0.001;
    EXPECT_EQ(kept_visual_tokens(manifest, least, 100), 1);
}

TEST(Budget, roundsHalvesToTheEvenNeighbourAsPythonDoes) {
    Options half;
    half.keep_ratio = 0.5;
    Manifest const manifest = vicuna({std::int64_t{1}, std::nullopt, std::nullopt});
    EXPECT_EQ(kept_visual_tokens(manifest, half, 5), 2);
    EXPECT_EQ(kept_visual_tokens(manifest, half, 7), 4);
}

TEST(Budget, refusesWhatCannotBeMetInPythonsWords) {
    Manifest const manifest = vicuna({std::int64_t{478}, std::nullopt, std::nullopt});
    Options small;
    small.budget = 100;
    EXPECT_EQ(
        refusal(small, manifest, 2880),
        "expected --budget of at least 181 for 2880 visual tokens (2 of 32 layers see all of them), found 100; raise "
        "it or give --keep");
    Options two;
    two.keep = 5;
    two.budget = 100;
    EXPECT_EQ(refusal(two, manifest, 2880), "expected one of --keep, --keep-ratio and --budget; give only one of them");
    Options dense;
    dense.keep = 5;
    EXPECT_EQ(
        refusal(dense, vicuna({std::nullopt, 1.0, std::nullopt}, "none"), 2880),
        "expected a bundle that prunes, to keep 5 visual tokens, found a dense one; leave --keep, --keep-ratio and "
        "--budget out, or export without --dense");
}

TEST(Options, outOfRangeAreRefused) {
    Options options;
    options.temperature = NAN;
    EXPECT_THROW(check_options(options), Error);
    options = {};
    options.top_p = 0;
    EXPECT_THROW(check_options(options), Error);
    options = {};
    options.max_new_tokens = 0;
    EXPECT_THROW(check_options(options), Error);
}

}  // namespace
}  // namespace asap::detail
