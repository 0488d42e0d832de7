// Manifests that Python wrote, and what Python says to damaged ones.
#include <gtest/gtest.h>

#include "fixtures.hpp"
#include "manifest.hpp"
#include "manifest_json.hpp"

namespace asap::detail {

namespace {

using test::json_fixture;
using test::refusal;

std::string said(std::string const& text) {
    return refusal([&] { parse_manifest(text); });
}

/// The message without what may differ: the reason of a JSON parser, and a printed object, whose members come
/// in the order of their names here.
std::string shared(std::string const& message) {
    if (message.rfind("expected JSON", 0) == 0) return message.substr(0, message.find(", found "));
    return message.substr(0, message.find("{"));
}

std::string with(std::string const& place, nlohmann::json const& value) {
    auto document = nlohmann::json::parse(json_fixture("manifest/sound.json")["example"].get<std::string>());
    document[nlohmann::json::json_pointer(place)] = value;
    return document.dump();
}

}  // namespace

TEST(Manifest, saysWhatPythonWrote) {
    auto const sound = json_fixture("manifest/sound.json");
    for (auto const& [name, text] : sound.items()) {
        SCOPED_TRACE(name);
        auto const written = nlohmann::json::parse(text.get<std::string>());
        EXPECT_EQ(json_of(parse_manifest(text.get<std::string>())), written);
    }
}

TEST(Manifest, aDamagedOneIsRefusedWithPythonsWords) {
    for (auto const& pair : json_fixture("manifest/damaged.json")) {
        auto const text = pair[0].get<std::string>(), expected = pair[1].get<std::string>();
        SCOPED_TRACE(text.substr(0, 200));
        std::string const found = said(text);
        if (expected.empty() && found.rfind("expected grid_pinpoints", 0) == 0) continue;  // Python finds out later
        EXPECT_EQ(shared(found), shared(expected));
    }
}

TEST(Manifest, noJsonIsRefusedWithItsPlace) {
    EXPECT_EQ(said("{\"a\": 1,\n \"b\" 2}"),
              "expected JSON in manifest.json, found a syntax error: line 2 column 6 (char 14); export the "
              "bundle again");
    EXPECT_EQ(said("\xff"),
              "expected JSON in manifest.json, found a syntax error: line 1 column 1 (char 0); export the "
              "bundle again");
}

TEST(Manifest, numbersThatNoComputerHoldsAreRefused) {
    EXPECT_NE(said(with("/model/layers", std::uint64_t{1} << 63)), "");
    EXPECT_NE(said(with("/model/hidden_size", 1e300)), "");
    EXPECT_NE(said(with("/model/vocab_size", std::int64_t{1} << 40)), "");
    EXPECT_NE(said(with("/files/decoder.onnx/size", 1e19)), "");
}

TEST(Manifest, sizesThatFitNoPictureAreRefused) {
    EXPECT_EQ(said(with("/model/patch_size", 57)),
              "expected a tile_size of at most 65536 pixels and no larger patch_size in manifest.json, found "
              "56 and 57; "
              "export the bundle again");
    EXPECT_EQ(said(with("/pruning/prune_after", 8)),
              "expected prune_after below the model's 8 layers in manifest.json, found 8; export the bundle again");
}

}  // namespace asap::detail
