// Any-resolution counts, compared with Python's for thousands of image sizes.
#include <gtest/gtest.h>

#include "anyres.hpp"
#include "fixtures.hpp"

namespace asap::detail {

namespace {

using nlohmann::json;
using test::json_fixture;
using test::refusal;

Size size_of(json const& pair) { return {pair[0].get<std::int64_t>(), pair[1].get<std::int64_t>()}; }

std::vector<Size> sizes_of(json const& pairs) {
    std::vector<Size> sizes;
    for (auto const& pair : pairs) sizes.push_back(size_of(pair));
    return sizes;
}

TileGeometry geometry_of(json const& record) {
    return {record["tile_size"].get<std::int64_t>(), record["patch_size"].get<std::int64_t>(),
            sizes_of(record["grid_pinpoints"]), record["class_token"].get<bool>()};
}

}  // namespace

TEST(Anyres, countsAreThoseOfPythonToTheToken) {
    for (auto const& record : json_fixture("anyres/cases.json")) {
        TileGeometry const geometry = geometry_of(record);
        for (auto const& image : record["images"]) {
            SCOPED_TRACE(record["name"].get<std::string>() + " " + image.dump());
            ASSERT_EQ(tile_count(size_of(image), geometry), image[2]);
            ASSERT_EQ(visual_token_count(size_of(image), geometry), image[3]);
            ASSERT_EQ(refusal([&] { check_resizable(size_of(image), geometry); }).empty(), image[6]);
            if (!geometry.grid_pinpoints.empty()) {
                Size const best{image[4].get<std::int64_t>(), image[5].get<std::int64_t>()};
                ASSERT_EQ(best_resolution(size_of(image), geometry), best);
            }
        }
    }
}

TEST(Anyres, tokensOfAPromptComeFromTheSamePlaces) {
    for (auto const& record : json_fixture("anyres/cases.json")) {
        for (auto const& prompt : record["prompts"]) {
            Packing const packed = packing(sizes_of(prompt["sizes"]), geometry_of(record));
            EXPECT_EQ(json(packed.tiles), prompt["tiles"]);
            EXPECT_EQ(json(packed.visual_tokens), prompt["visual_tokens"]);
            EXPECT_EQ(json(packed.gather_index), prompt["gather_index"]);
        }
    }
}

TEST(Anyres, anImageWithoutPixelsIsRefusedWithPythonsWords) {
    TileGeometry const geometry{336, 14, {}};
    EXPECT_EQ(refusal([&] { packing({{0, 5}}, geometry); }),
              "expected an image of at least 1 x 1 pixel, found 5 x 0; give another");
    EXPECT_EQ(refusal([&] { visual_token_count({-3, 1}, geometry); }),
              "expected an image of at least 1 x 1 pixel, found 1 x -3; give another");
}

TEST(Anyres, aShapeThatWouldTakeMemoryWithoutBoundIsRefusedWithPythonsWords) {
    TileGeometry const geometry{336, 14, {}};
    EXPECT_EQ(refusal([&] { check_resizable({1, 65000}, geometry); }),
              "expected an image that becomes at most 178956970 pixels while it is resized, found 65000 x 1; scale it "
              "down or crop it");
}

TEST(Anyres, sidesWhoseProductOverflowsAreRefused) {
    TileGeometry const geometry{336, 14, {{672, 672}}};
    EXPECT_NE(refusal([&] { tile_count({std::int64_t{1} << 40, 1}, geometry); }), "");
}

}  // namespace asap::detail
