// OpenVINO's caches stay inside: whoever goes on from one answers as if nobody else did. Run on the bundle that the
// environment variable ASAP_BUNDLE names, as tests/cpp/test_openvino.py does.
#include <cstdlib>
#include <future>
#include <optional>
#include <stdexcept>

#include <gtest/gtest.h>

#include "fixtures.hpp"
#include "runtime.hpp"

namespace asap::detail {
namespace {

using Ids = std::vector<std::int64_t>;

Options brief() {
    Options options;
    options.max_new_tokens = 6;
    return options;
}

Image picture(int number) {
    Image image{50, 90, {}};
    for (int i = 0; i < 50 * 90 * 3; ++i) image.rgb.push_back(static_cast<std::uint8_t>(i * (7 + number)));
    return image;
}

class OpenVino : public testing::Test {
protected:
    void SetUp() override {
        char const* const bundle = std::getenv("ASAP_BUNDLE");
        if (!bundle) GTEST_SKIP() << "set ASAP_BUNDLE to a bundle for OpenVINO";
        LoadOptions options;
        options.threads = 1;
        options.provider = Provider::cpu;
        outside_.emplace(open_bundle(bundle), options);
        options.provider = Provider::openvino;
        options.precision = Precision::f32;
        inside_.emplace(open_bundle(bundle), options);
    }

    static Answered first_turn(Runtime const& runtime) {
        return runtime.answer(runtime.read({picture(0)}, "What is it?", brief()), brief(), runtime.empty_cache(), 0,
                              {});
    }

    static Answered later_turn(Runtime const& runtime, Answered const& before, std::string const& prompt,
                               std::vector<ImageSource> const& images = {}, TextCallback const& on_text = {}) {
        Inputs const inputs = runtime.read_turn(images, prompt, brief(), before.answer.token_ids.back());
        return runtime.answer(inputs, brief(), before.cache, 0, on_text);
    }

    std::optional<Runtime> inside_, outside_;
};

}  // namespace

TEST_F(OpenVino, goesOnFromOneCacheInPlaceOnceAndFromCopiesThen) {
    std::vector<std::vector<Ids>> said;
    for (Runtime const* const runtime : {&*inside_, &*outside_}) {
        Answered const first = first_turn(*runtime), second = later_turn(*runtime, first, "And?", {picture(1)});
        Answered const other = later_turn(*runtime, first, "Is it blue, or green?"),
                       third = later_turn(*runtime, second, "Why?"), again = later_turn(*runtime, first, "And?");
        said.push_back({first.answer.token_ids, second.answer.token_ids, other.answer.token_ids, third.answer.token_ids,
                        again.answer.token_ids});
    }
    EXPECT_EQ(said[0], said[1]);
}

TEST_F(OpenVino, isAsBeforeAfterATurnThatFails) {
    Answered const before = first_turn(*inside_);
    auto const stop = [](auto&) { throw std::runtime_error("stop"); };
    EXPECT_ANY_THROW(later_turn(*inside_, before, "And?", {}, stop));
    EXPECT_EQ(later_turn(*inside_, before, "Why so?").answer.token_ids,
              later_turn(*outside_, first_turn(*outside_), "Why so?").answer.token_ids);
}

TEST_F(OpenVino, servesManyThreads) {
    Answered const before = first_turn(*inside_), reference = first_turn(*outside_);
    std::vector<std::string> const prompts = {"And the cat?", "Why so?", "Is it red?", "How many?"};
    std::vector<std::future<Ids>> threads;
    for (std::size_t i = 0; i < 8; ++i)
        threads.push_back(std::async(std::launch::async,
                                     [&, i] { return later_turn(*inside_, before, prompts[i % 4]).answer.token_ids; }));
    for (std::size_t i = 0; i < threads.size(); ++i)
        EXPECT_EQ(threads[i].get(), later_turn(*outside_, reference, prompts[i % 4]).answer.token_ids);
}

}  // namespace asap::detail
