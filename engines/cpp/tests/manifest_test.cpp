// Manifests that Python wrote, and hostile ones of which both runtimes must say the same.
#include <algorithm>

#include <gtest/gtest.h>

#include "fixtures.hpp"
#include "manifest.hpp"
#include "manifest_json.hpp"

namespace asap::detail {

namespace {

using test::bytes_of;
using test::fixture;
using test::json_fixture;
using test::refusal;

Manifest parsed(std::vector<std::uint8_t> const& bytes) {
    return parse_manifest({reinterpret_cast<char const*>(bytes.data()), bytes.size()});
}

bool is_one_plain_line(std::string const& text) {
    return text.size() < 500 && std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
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

/// The table holds a case without, and one of a wrong type, for every field of the definition: a field that C++ does
/// not read fails here.
TEST(Manifest, isTakenOrRefusedAsTheTableSays) {
    auto const table = json_fixture("manifest/hostile/table.json");
    ASSERT_GT(table.size(), 600U);
    for (std::size_t i = 0; i < table.size(); ++i) {
        SCOPED_TRACE(std::to_string(i) + ": " + table[i]["name"].get<std::string>());
        std::string code, place;
        try {
            parsed(bytes_of(fixture("manifest/hostile/" + std::to_string(i))));
        } catch (BundleError const& error) {
            code = error.code();
            place = error.place();
            EXPECT_TRUE(is_one_plain_line(error.what())) << error.what();
        }
        EXPECT_EQ(code, table[i]["code"]);
        EXPECT_EQ(place, table[i]["place"]);
    }
}

TEST(Manifest, aRefusalSaysWhatWasExpectedWhereAndWhatToDo) {
    auto document = nlohmann::json::parse(json_fixture("manifest/sound.json")["example"].get<std::string>());
    document["model"]["layers"] = 4097;
    EXPECT_EQ(refusal([&] { parse_manifest(document.dump()); }),
              "expected a number from 1 to 4096 at $.model.layers of manifest.json, found 4097 (out_of_range); export "
              "the bundle again");
}

}  // namespace asap::detail
