// preprocess.onnx from a bundle, compared with ONNX Runtime in Python.
#include <cstring>
#include <thread>

#include <gtest/gtest.h>

#include "fixtures.hpp"
#include "preprocess.hpp"

namespace asap::detail {

namespace {

using test::bytes_of;
using test::fixture;
using test::json_fixture;
using test::refusal;

std::string by(Size size) { return std::to_string(size.height) + "x" + std::to_string(size.width); }

Image picture(Size size) { return {size.height, size.width, bytes_of(fixture("preprocess/" + by(size) + ".rgb"))}; }

std::vector<Size> sizes() {
    std::vector<Size> result;
    for (auto const& pair : json_fixture("preprocess/sizes.json"))
        result.push_back({pair[0].get<std::int64_t>(), pair[1].get<std::int64_t>()});
    return result;
}

bool same(std::vector<float> const& found, Size size) {
    auto const expected = bytes_of(fixture("preprocess/" + by(size) + ".f32"));
    return found.size() * sizeof(float) == expected.size() &&
           std::memcmp(found.data(), expected.data(), expected.size()) == 0;
}

Preprocessor preprocessor(std::string const& bundle) {
    return Preprocessor(open_bundle(fixture("preprocess/" + bundle)));
}

}  // namespace

TEST(Preprocess, valuesAreThoseOfPythonToTheBit) {
    Preprocessor const preprocess = preprocessor("bundle");
    for (Size const size : sizes()) EXPECT_TRUE(same(preprocess.pixel_values(picture(size)), size)) << by(size);
}

TEST(Preprocess, threadsMayShareOne) {
    Preprocessor const preprocess = preprocessor("bundle");
    std::vector<std::thread> threads;
    for (Size const size : sizes())
        threads.emplace_back([&, size] {
            for (int i = 0; i < 5; ++i) EXPECT_TRUE(same(preprocess.pixel_values(picture(size)), size)) << by(size);
        });
    for (auto& thread : threads) thread.join();
}

TEST(Preprocess, aGraphThatMakesOtherTilesThanTheManifestSaysIsRefused) {
    Preprocessor const preprocess = preprocessor("other-tiles");
    EXPECT_EQ(refusal([&] { preprocess.pixel_values(picture({56, 56})); }),
              "expected 7 tiles of 56 x 56 pixels for an image of 56 x 56 from preprocess.onnx, found "
              "others; export the "
              "bundle again");
}

TEST(Preprocess, noGraphIsRefused) {
    std::string const said = refusal([] { preprocessor("no-graph"); });
    EXPECT_EQ(said.rfind("expected a graph for ONNX Runtime ", 0), 0u) << said;
    EXPECT_EQ(said.find('\n'), std::string::npos);
}

TEST(Preprocess, anImageWhoseBytesDoNotFitItsSizeIsRefused) {
    Preprocessor const preprocess = preprocessor("bundle");
    Image const image{3, 2, std::vector<std::uint8_t>(17)};
    EXPECT_EQ(refusal([&] { preprocess.pixel_values(image); }),
              "expected 3 bytes for each of 2 x 3 pixels, found 17 bytes; give all pixels of the image as RGB");
    EXPECT_NE(refusal([&] { preprocess.pixel_values({0, 0, {}}); }), "");
    EXPECT_NE(refusal([&] { preprocess.pixel_values({-1, -1, std::vector<std::uint8_t>(3)}); }), "");
}

}  // namespace asap::detail
