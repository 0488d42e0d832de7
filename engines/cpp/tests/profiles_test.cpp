#include "profiles.hpp"

#include <gtest/gtest.h>
#include <asap/error.hpp>

namespace asap::detail {
namespace {

std::vector<TensorInfo> const inputs = {
    {"inputs_embeds", "fp16", {"batch", "sequence", std::int64_t{8}}},
    {"attention_mask", "int64", {"batch", "total_sequence"}},
    {"kept_length", "int64", {}},
};
std::vector<Profile> const profiles = {
    {"context",
     {{"inputs_embeds", {{1, 2, 8}, {1, 300, 8}, {2, 500, 8}}}, {"attention_mask", {{1, 2}, {1, 300}, {2, 700}}}},
     {{"kept_length", {{2}, {100}, {500}}}}},
    {"generation",
     {{"inputs_embeds", {{1, 1, 8}, {1, 1, 8}, {2, 1, 8}}}, {"attention_mask", {{1, 1}, {1, 300}, {2, 800}}}},
     {{"kept_length", {{1}, {1}, {1}}}}},
};

std::string chosen(std::int64_t batch, std::int64_t sequence, std::int64_t total, std::int64_t kept) {
    try {
        return profiles[choose_profile(inputs, profiles,
                                       {{"inputs_embeds", {batch, sequence, 8}},
                                        {"attention_mask", {batch, total}},
                                        {"kept_length", {}}},
                                       {{"kept_length", {kept}}})]
            .name;
    } catch (Error const& error) {
        return error.what();
    }
}

TEST(Profiles, aPromptRunsInTheContextProfileAndAStepInTheOther) {
    EXPECT_EQ(chosen(1, 400, 400, 90), "context");
    EXPECT_EQ(chosen(2, 1, 800, 1), "generation");
}

TEST(Profiles, theNarrowerOfTwoThatFitIsTaken) {
    Profile const wide = {"wide", {{"x", {{1}, {5}, {9}}}}, {}}, narrow = {"narrow", {{"x", {{1}, {1}, {1}}}}, {}};
    EXPECT_EQ(choose_profile(inputs, {wide, narrow}, {{"x", {1}}}, {}), 1u);
    EXPECT_EQ(choose_profile(inputs, {narrow, wide}, {{"x", {1}}}, {}), 0u);
    EXPECT_EQ(choose_profile(inputs, {narrow, wide}, {{"x", {2}}}, {}), 1u);
}

TEST(Profiles, aRequestBeyondAllOfThemIsToldTheLimit) {
    EXPECT_EQ(
        chosen(1, 501, 501, 100),
        "expected sequence (inputs_embeds) of 2 to 500 for this engine, found 501; shorten the request, or export with "
        "other limits (--max-batch, --max-images, --max-text, --max-new-tokens)");
    EXPECT_EQ(chosen(1, 500, 500, 501).substr(0, 60), "expected kept_length of 2 to 500 for this engine, found 501;");
}

TEST(Profiles, aRequestBeyondTwoIsToldTheLimitOfTheWider) {
    Profile const wide = {"wide", {{"x", {{1}, {5}, {9}}}}, {}}, narrow = {"narrow", {{"x", {{1}, {1}, {3}}}}, {}};
    auto const said = [](std::vector<Profile> const& both) -> std::string {
        try {
            return both[choose_profile(inputs, both, {{"x", {10}}}, {})].name;
        } catch (Error const& error) {
            return std::string(error.what()).substr(0, 48);
        }
    };
    EXPECT_EQ(said({wide, narrow}), "expected x of 1 to 9 for this engine, found 10; ");
    EXPECT_EQ(said({narrow, wide}), said({wide, narrow}));
}

TEST(Profiles, sayHowLongAnInputMayBe) {
    EXPECT_EQ(longest(profiles, "attention_mask", 1), 800);
    EXPECT_EQ(longest(profiles, "pixel_values", 0), std::nullopt);
}

}  // namespace
}  // namespace asap::detail
