// Bundles with one fault each, and what Python says when it opens them.
#include <gtest/gtest.h>

#include "bundle.hpp"
#include "fixtures.hpp"
#include "sha256.hpp"

namespace asap::detail {

namespace {

using test::fixture;
using test::json_fixture;
using test::placed;
using test::refusal;

EngineInfo engine(std::string const& file, std::optional<std::int64_t> number = {}, std::int64_t of = 2) {
    EngineInfo info;
    info.graph = "decoder";
    info.file = file;
    info.flavor = "tensorrt";
    if (number) info.part = EnginePart{*number, of, {0, 0}, {}, {}};
    return info;
}

std::vector<std::string> files_of(std::vector<EngineInfo> const& engines) {
    std::vector<std::string> files;
    for (auto const& each : engines) files.push_back(each.file);
    return files;
}

}  // namespace

TEST(Bundle, aSoundOneOpensAndKnowsItsPlaces) {
    Bundle const bundle = open_bundle(fixture("manifest/bundles/sound"));
    EXPECT_EQ(bundle.graph_path("decoder"), bundle.path / "decoder.onnx");
    EXPECT_EQ(bundle.decoder_path(false), bundle.path / "decoder.cpu.onnx");
    EXPECT_EQ(bundle.decoder_path(true), bundle.path / "decoder.cuda.onnx");
    EXPECT_EQ(bundle.file("config.json"), bundle.path / "config.json");
    EXPECT_TRUE(bundle.engines("decoder", "tensorrt").empty());
}

TEST(Bundle, oneThatIsReplacedWhileItIsLoadedIsRefused) {
    namespace fs = std::filesystem;
    fs::path const folder = fs::path(testing::TempDir()) / "replaced.bundle";
    fs::remove_all(folder);
    fs::copy(fixture("manifest/bundles/sound"), folder, fs::copy_options::recursive);
    Bundle const bundle = open_bundle(folder);
    bundle.check_unchanged();
    fs::copy_file(folder / "decoder.onnx", folder / "new");
    fs::rename(folder / "new", folder / "decoder.onnx");
    try {
        bundle.check_unchanged();
        FAIL() << "was not refused";
    } catch (BundleError const& error) {
        EXPECT_EQ(error.code(), "changed");
        EXPECT_EQ(error.place(), "decoder.onnx");
    }
}

TEST(Bundle, aDamagedOneIsRefusedAsPythonDoes) {
    auto const folder = fixture("manifest/bundles");
    auto const said = json_fixture("manifest/bundles/said.json");
    for (auto const& [name, expected] : said.items()) {
        SCOPED_TRACE(name);
        std::string code, place, message;
        try {
            open_bundle(folder / name);
        } catch (BundleError const& error) {
            code = error.code();
            place = error.place();
            message = error.what();
        }
        EXPECT_EQ(code, expected[0]);
        EXPECT_EQ(place, expected[1]);
        if (code == "invalid_json") continue;  // each JSON parser has its own words
        EXPECT_EQ(message, placed(expected[2].get<std::string>(), folder));
    }
}

TEST(Bundle, whatIsNoneIsRefusedWithPythonsWords) {
    auto const folder = fixture("manifest/bundles");
    EXPECT_EQ(refusal([&] { open_bundle(folder / "none"); }),
              "expected a bundle folder at " + (folder / "none").string() +
                  ", found nothing; make one with asap-export --output");
    EXPECT_EQ(refusal([&] { open_bundle(folder / "said.json"); }),
              "expected a bundle folder at " + (folder / "said.json").string() +
                  ", found a file; make one with asap-export --output");
}

TEST(Bundle, enginesAreTheWholeGraphsOrAllPartsInOrder) {
    Bundle bundle;
    bundle.manifest.engines = {engine("b", 1), engine("a", 0)};
    EXPECT_EQ(files_of(bundle.engines("decoder", "tensorrt")), (std::vector<std::string>{"a", "b"}));
    EXPECT_TRUE(bundle.engines("decoder", "tensorrt_rtx").empty());
    EXPECT_TRUE(bundle.engines("vision_encoder", "tensorrt").empty());

    bundle.manifest.engines = {engine("b", 1)};  // one of two
    EXPECT_TRUE(bundle.engines("decoder", "tensorrt").empty());

    bundle.manifest.engines = {engine("b", 1), engine("whole"), engine("a", 0)};
    EXPECT_EQ(files_of(bundle.engines("decoder", "tensorrt")), (std::vector<std::string>{"whole"}));
}

TEST(Sha256, isTheSha256OfTheContent) {
    auto const& files = open_bundle(fixture("manifest/bundles/sound")).manifest.files;
    EXPECT_EQ(sha256_of(fixture("manifest/bundles/sound/decoder.onnx")), files.at("decoder.onnx").sha256);
    EXPECT_THROW(sha256_of(fixture("manifest/bundles/none")), std::system_error);
}

}  // namespace asap::detail
