// What goes on from one cache several times: each turn answers as if it were the only one.
#include "runtime.hpp"

#include <future>
#include <stdexcept>

#include <gtest/gtest.h>

#include "fixtures.hpp"

namespace asap::detail {
namespace {

Runtime opened(std::string const& bundle) {
    LoadOptions options;
    options.provider = Provider::cpu;
    options.threads = 1;
    return {open_bundle(test::fixture("bundle/" + bundle)), options};
}

Options brief() {
    Options options;
    options.max_new_tokens = 12;
    return options;
}

Image picture() {
    Image image{50, 90, {}};
    for (int i = 0; i < 50 * 90 * 3; ++i) image.rgb.push_back(static_cast<std::uint8_t>(i * 7));
    return image;
}

Answered first_turn(Runtime const& runtime) {
    return runtime.answer(runtime.read({picture()}, "What is on the mat?", brief()), brief(), runtime.empty_cache(), 0,
                          {});
}

Answered later_turn(Runtime const& runtime, Answered const& before, std::string const& prompt,
                    TextCallback const& on_text = {}, std::vector<ImageSource> const& images = {}) {
    Inputs const inputs = runtime.read_turn(images, prompt, brief(), before.answer.token_ids.back());
    return runtime.answer(inputs, brief(), before.cache, 0, on_text);
}

}  // namespace

TEST(Runtime, goesOnFromOneCacheInPlaceOnceAndByCopiesThen) {
    Runtime const growing = opened("tiny"), copying = opened("copying");
    Answered const before = first_turn(growing), reference = first_turn(copying);
    ASSERT_TRUE(before.cache.buffers);
    EXPECT_FALSE(reference.cache.buffers);
    EXPECT_ANY_THROW(later_turn(growing, before, "And?", [](auto&) { throw std::runtime_error("stop"); }));
    Answered const one = later_turn(growing, before, "And the cat?"), two = later_turn(growing, before, "Why so?"),
                   third = later_turn(growing, one, "Really?");
    EXPECT_NE(one.answer.token_ids, two.answer.token_ids);
    EXPECT_NE(one.cache.buffers, before.cache.buffers);  // the turn that failed has written behind it
    EXPECT_EQ(third.cache.buffers, one.cache.buffers);
    Answered const expected = later_turn(copying, reference, "And the cat?");
    EXPECT_EQ(one.answer.token_ids, expected.answer.token_ids);
    EXPECT_EQ(two.answer.token_ids, later_turn(copying, reference, "Why so?").answer.token_ids);
    EXPECT_EQ(third.answer.token_ids, later_turn(copying, expected, "Really?").answer.token_ids);
    EXPECT_EQ(later_turn(growing, before, "And the cat?").answer.token_ids, one.answer.token_ids);
}

TEST(Runtime, cutsALaterTurnsPictureInEveryFormOfItsCaches) {
    std::vector<std::vector<std::int64_t>> said;
    for (char const* const form : {"tiny", "trimming", "copying"}) {
        Runtime const runtime = opened(form);
        Answered const second = later_turn(runtime, first_turn(runtime), "And here?", {}, {picture()}),
                       third = later_turn(runtime, second, "Really?");
        EXPECT_LT(second.answer.kept_visual_tokens, second.answer.visual_tokens);
        said.push_back(second.answer.token_ids);
        said.push_back(third.answer.token_ids);
    }
    for (std::size_t i = 2; i < said.size(); ++i) EXPECT_EQ(said[i], said[i % 2]);
}

TEST(Runtime, goesOnFromOneCacheInManyThreads) {
    Runtime const runtime = opened("tiny");
    Answered const before = first_turn(runtime);
    std::vector<std::string> const prompts = {"And the cat?", "Why so?", "Is it red?", "How many?"};
    std::vector<std::future<std::vector<std::int64_t>>> threads;
    for (int i = 0; i < 12; ++i)
        threads.push_back(std::async(std::launch::async, [&, i] {
            return later_turn(runtime, before, prompts[static_cast<std::size_t>(i % 4)]).answer.token_ids;
        }));
    Runtime const copying = opened("copying");
    Answered const reference = first_turn(copying);
    for (std::size_t i = 0; i < threads.size(); ++i)
        EXPECT_EQ(threads[i].get(), later_turn(copying, reference, prompts[i % 4]).answer.token_ids);
}

}  // namespace asap::detail
