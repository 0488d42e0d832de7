#include "sampler.hpp"

#include <cmath>
#include <map>

#include <gtest/gtest.h>

#include "fixtures.hpp"

namespace asap::detail {
namespace {

using Ids = std::vector<std::int64_t>;
using nlohmann::json;

GenerationInfo warm(double temperature, double top_p = 1) {
    GenerationInfo how;
    how.temperature = temperature;
    how.top_p = top_p;
    return how;
}

GenerationInfo way_of(json const& said) {
    GenerationInfo how;
    how.min_new_tokens = said["min_new_tokens"];
    how.temperature = said["temperature"];
    how.top_k = said["top_k"];
    how.top_p = said["top_p"];
    how.min_p = said["min_p"];
    how.repetition_penalty = said["repetition_penalty"];
    how.no_repeat_ngram_size = said["no_repeat_ngram_size"];
    return how;
}

std::vector<float> logits_of(json const& row) {
    std::vector<float> logits;
    for (json const& value : row) logits.push_back(value.is_null() ? -INFINITY : value.get<float>());
    return logits;
}

TEST(Sampler, choosesThePythonRuntimesTokens) {
    for (json const& each : test::json_fixture("sampling/cases.json")) {
        Sampler sampler(way_of(each["way"]), each["seed"].get<std::uint64_t>(), each["context"].get<Ids>(),
                        each["ends"].get<Ids>());
        Ids tokens;
        for (json const& row : each["logits"]) tokens.push_back(sampler.next(logits_of(row)));
        EXPECT_EQ(tokens, each["tokens"].get<Ids>()) << each["way"] << " seed " << each["seed"];
    }
}

TEST(Sampler, takesTheFirstOfEquals) { EXPECT_EQ(Sampler({}, 0, {}, {}).next({0.5f, 2.0f, -1.0f, 2.0f}), 1); }

TEST(Sampler, drawsAsOftenAsProbable) {
    Sampler sampler(warm(1), 7, {}, {});
    std::map<std::int64_t, int> seen;
    for (int i = 0; i < 20000; ++i) ++seen[sampler.next({std::log(0.5f), std::log(0.3f), std::log(0.2f)})];
    EXPECT_NEAR(seen[0] / 20000.0, 0.5, 0.015);
    EXPECT_NEAR(seen[1] / 20000.0, 0.3, 0.015);
    EXPECT_NEAR(seen[2] / 20000.0, 0.2, 0.015);
}

TEST(Sampler, leavesOutWhatLiesBeyondTopP) {
    Sampler few(warm(1, 0.4), 7, {}, {}), more(warm(1, 0.7), 7, {}, {});
    for (int i = 0; i < 1000; ++i) {
        EXPECT_EQ(few.next({std::log(0.2f), std::log(0.5f), std::log(0.3f)}), 1);
        EXPECT_NE(more.next({std::log(0.2f), std::log(0.5f), std::log(0.3f)}), 0);
    }
}

TEST(Sampler, neverDrawsWhatIsRuledOut) {
    Sampler sampler(warm(5), 7, {}, {});
    for (int i = 0; i < 1000; ++i) EXPECT_EQ(sampler.next({-INFINITY, 0.0f, -INFINITY, 0.0f}) % 2, 1);
}

TEST(Options, replaceWhatTheBundleSays) {
    GenerationInfo bundle;
    bundle.top_k = 5;
    bundle.stop = {"###"};
    Options options;
    options.temperature = 0.5;
    options.stop.emplace();
    GenerationInfo const how = chosen(options, bundle);
    EXPECT_EQ(how.temperature, 0.5);
    EXPECT_EQ(how.top_k, 5);
    EXPECT_TRUE(how.stop.empty());
}

}  // namespace
}  // namespace asap::detail
