// The public interface on a bundle of a few operators: threads, conversations, callbacks, inputs of the caller's own.
#include <atomic>
#include <cmath>
#include <future>
#include <limits>
#include <new>
#include <stdexcept>

#include <gtest/gtest.h>
#include <asap/asap.hpp>

#include "fixtures.hpp"

namespace asap {

namespace {

using test::fixture;
using test::refusal;

std::string const question = "What is on the mat?";

std::unique_ptr<Model> loaded(std::string const& bundle = "tiny") {
    LoadOptions options;
    options.provider = Provider::cpu;
    options.threads = 1;
    return load(fixture("bundle/" + bundle), options);
}

Options brief() {
    Options options;
    options.max_new_tokens = 10;
    return options;
}

/// Stripes, others for each `number`.
Image picture(std::int64_t height, std::int64_t width, int number) {
    Image image{height, width, {}};
    for (std::int64_t i = 0; i < height * width * 3; ++i)
        image.rgb.push_back(static_cast<std::uint8_t>(i * (7 + number) + i / (3 * width) * 11 * number));
    return image;
}

using Ids = std::vector<std::int64_t>;

Ids asked(Model const& model, int number) {
    return model.generate({picture(40 + number, 90, number)}, question, brief()).token_ids;
}

/// Two turns.
std::vector<Ids> conversed(Conversation& chat, int number) {
    return {chat.ask({picture(70, 50, number)}, question, brief()).token_ids,
            chat.ask({}, "And now?", brief()).token_ids};
}

}  // namespace

TEST(Model, answersDependOnPictureAndQuestion) {
    auto const model = loaded();
    EXPECT_EQ(model->provider(), Provider::cpu);
    Answer const answer = model->generate({picture(56, 112, 1)}, question, brief());
    EXPECT_EQ(answer.token_ids.size(), 10u);
    EXPECT_EQ(answer.stopped_by, StoppedBy::length);
    EXPECT_EQ(answer.visual_tokens, 64 + 8 * 17);
    EXPECT_EQ(answer.kept_visual_tokens, 40);
    EXPECT_EQ(answer.timings.decode.size(), 9u);
    EXPECT_EQ(asked(*model, 1), asked(*model, 1));
    EXPECT_NE(asked(*model, 1), asked(*model, 2));
    EXPECT_NE(asked(*model, 1), model->generate({picture(41, 90, 1)}, "Why?", brief()).token_ids);
}

TEST(Model, answersAlikeWhetherCachesGrowInPlaceOrAreMadeAnew) {
    auto const growing = loaded(), copying = loaded("copying");
    Options options = brief();
    options.max_new_tokens = 400;  // beyond what buffers have room for at first, and once more
    auto const answer = [&](Model const& model) {
        auto chat = model.chat();
        Ids ids = chat.ask({picture(70, 50, 1)}, question, options).token_ids;
        Ids const more = chat.ask({picture(60, 60, 2)}, "And now?", brief()).token_ids;
        ids.insert(ids.end(), more.begin(), more.end());
        return ids;
    };
    EXPECT_EQ(answer(*growing), answer(*copying));
    EXPECT_EQ(answer(*growing).size(), 410u);
}

TEST(Model, threadsMayShareOne) {
    auto const model = loaded();
    std::vector<Ids> expected;
    for (int number = 0; number < 4; ++number) expected.push_back(asked(*model, number));
    std::vector<std::future<void>> threads;
    for (int number = 0; number < 4; ++number)
        threads.push_back(std::async(std::launch::async, [&, number] {
            for (int i = 0; i < 10; ++i)
                EXPECT_EQ(asked(*model, number), expected.at(static_cast<std::size_t>(number)));
        }));
    for (auto& thread : threads) thread.get();
}

TEST(Model, aConversationOutlivesIt) {
    auto model = loaded();
    auto other = model->chat();
    auto const expected = conversed(other, 1);
    auto chat = model->chat();
    model.reset();
    EXPECT_EQ(conversed(chat, 1), expected);
}

TEST(Conversations, standSideBySideOnOneModel) {
    auto const model = loaded();
    auto alone = model->chat(), another = model->chat();
    auto const first = conversed(alone, 1), second = conversed(another, 2);
    EXPECT_NE(first, second);
    auto a = model->chat(), b = model->chat();
    EXPECT_EQ(a.ask({picture(70, 50, 1)}, question, brief()).token_ids, first[0]);
    EXPECT_EQ(b.ask({picture(70, 50, 2)}, question, brief()).token_ids, second[0]);
    EXPECT_EQ(a.ask({}, "And now?", brief()).token_ids, first[1]);
    EXPECT_EQ(b.ask({}, "And now?", brief()).token_ids, second[1]);
}

TEST(Conversations, runInThreadsOfTheirOwn) {
    auto const model = loaded();
    auto alone = model->chat();
    auto const expected = conversed(alone, 3);
    std::vector<std::future<std::vector<Ids>>> threads;
    for (int i = 0; i < 4; ++i)
        threads.push_back(std::async(std::launch::async, [&] {
            auto chat = model->chat();
            return conversed(chat, 3);
        }));
    for (auto& thread : threads) EXPECT_EQ(thread.get(), expected);
}

TEST(Conversations, areAsTheyWereAfterATurnThatFails) {
    auto const model = loaded();
    auto sound = model->chat(), chat = model->chat();
    auto const expected = conversed(sound, 1);
    EXPECT_NE(refusal([&] { chat.ask({}, "<image>", brief()); }), "");  // before the first turn
    EXPECT_EQ(chat.ask({picture(70, 50, 1)}, question, brief()).token_ids, expected[0]);

    EXPECT_NE(refusal([&] { chat.ask({"/nowhere/cat.png"}, "And", brief()); }), "");
    EXPECT_NE(refusal([&] { chat.ask({}, std::string(5000, 'x'), brief()); }), "");
    Options wrong = brief();
    wrong.top_p = 2;
    EXPECT_NE(refusal([&] { chat.ask({}, "And now?", wrong); }), "");
    EXPECT_THROW(chat.ask({}, "And now?", brief(), [](auto&) { throw std::runtime_error("stop"); }),
                 std::runtime_error);
    EXPECT_EQ(chat.ask({}, "And now?", brief()).token_ids, expected[1]);
}

TEST(Conversations, move) {
    auto const model = loaded();
    auto sound = model->chat(), chat = model->chat();
    auto const expected = conversed(sound, 1);
    EXPECT_EQ(chat.ask({picture(70, 50, 1)}, question, brief()).token_ids, expected[0]);
    Conversation moved = std::move(chat);
    EXPECT_EQ(refusal([&] { chat.ask({}, "And now?", brief()); }),  // NOLINT: that is what is tested
              "expected a conversation, found one that was moved to another; ask that one");
    EXPECT_EQ(moved.ask({}, "And now?", brief()).token_ids, expected[1]);
    chat = model->chat();
    EXPECT_EQ(conversed(chat, 1), expected);
}

TEST(Callbacks, hearPiecesWhoseSumIsTheAnswer) {
    auto const model = loaded();
    std::string heard;
    Answer const answer =
        model->generate({picture(60, 60, 5)}, question, brief(), [&](auto& piece) { heard += piece; });
    EXPECT_EQ(heard, answer.text);
    EXPECT_NE(heard, "");
}

TEST(Callbacks, mayThrowAnythingAndTheModelIsAsBefore) {
    auto const model = loaded();
    Ids const expected = asked(*model, 1);
    auto const throwing = [&](auto const& thrown) {
        model->generate({picture(41, 90, 1)}, question, brief(), [&](auto&) { throw thrown; });
    };
    EXPECT_THROW(throwing(std::bad_alloc()), std::bad_alloc);  // the caller's, so no Error
    EXPECT_THROW(throwing(std::length_error("mine")), std::length_error);
    EXPECT_THROW(throwing(std::filesystem::filesystem_error("mine", {})), std::filesystem::filesystem_error);
    EXPECT_THROW(throwing(7), int);
    EXPECT_THROW(throwing(Error("mine")), Error);
    EXPECT_EQ(asked(*model, 1), expected);
}

TEST(Inputs, ofTheCallersOwnGiveTheAnswerOfFiles) {
    auto const model = loaded();
    std::vector<ImageSource> const images = {picture(70, 50, 1), picture(20, 100, 2)};
    Inputs const inputs = model->inputs(images, question);
    Answer const own = model->generate(inputs, brief()), whole = model->generate(images, question, brief());
    EXPECT_EQ(own.token_ids, whole.token_ids);
    EXPECT_EQ(own.kept_index, whole.kept_index);
    EXPECT_EQ(own.text, whole.text);
    EXPECT_EQ(own.visual_tokens, whole.visual_tokens);
}

TEST(Inputs, thatDoNotFitOneAnotherAreRefused) {
    auto const model = loaded();
    Inputs const sound = model->inputs({picture(56, 112, 1)}, question);
    auto const said = [&](auto const& change) {
        Inputs inputs = sound;
        change(inputs);
        return refusal([&] { model->generate(inputs, brief()); });
    };
    EXPECT_EQ(said([](Inputs&) {}), "");
    EXPECT_EQ(said([](Inputs& it) { it.input_ids.clear(); }),
              "expected a prompt of at least 1 token, found an empty one; ask something");
    EXPECT_EQ(said([](Inputs& it) { it.input_ids[1] = -1; }),
              "expected token ids from 0 to 258, found -1; use the bundle's own tokenizer");
    EXPECT_NE(said([](Inputs& it) { it.input_ids[1] = 259; }), "");
    EXPECT_NE(said([](Inputs& it) { it.input_ids[1] = std::numeric_limits<std::int64_t>::min(); }), "");
    EXPECT_EQ(said([](Inputs& it) { it.input_ids.push_back(2); }),
              "expected text after the last image of a prompt, found none; ask something about it");
    EXPECT_EQ(said([](Inputs& it) { it.input_ids.insert(it.input_ids.begin(), 2); }),
              "expected 200 image tokens for these images, found 201; give one for each visual token");
    EXPECT_EQ(said([](Inputs& it) { it.pixel_values.pop_back(); }),
              "expected pixel values of 3 tiles of 3 x 56 x 56, found 28223 numbers; preprocess images as "
              "preprocess.onnx does");
    EXPECT_NE(said([](Inputs& it) { it.pixel_values.clear(); }), "");
    EXPECT_NE(said([](Inputs& it) { it.image_sizes.clear(); }), "");
    EXPECT_NE(said([](Inputs& it) { it.image_sizes.emplace_back(56, 56); }), "");
}

TEST(Inputs, ofImpossibleImageSizesAreRefused) {
    auto const model = loaded();
    Inputs inputs = model->inputs({picture(56, 112, 1)}, question);
    auto const most = std::numeric_limits<std::int64_t>::max(), least = std::numeric_limits<std::int64_t>::min();
    for (std::int64_t const side : {std::int64_t{0}, std::int64_t{-1}, least, most, std::int64_t{1} << 31})
        for (auto const& size : {std::make_pair(side, std::int64_t{56}), {std::int64_t{56}, side}, {side, side}}) {
            inputs.image_sizes = {size};
            std::string const said = refusal([&] { model->generate(inputs, brief()); });
            EXPECT_EQ(said.rfind("expected an image of ", 0), 0u) << said;
        }
    // Huge, but no more tokens than the largest pinpoint has.
    inputs.image_sizes = {{(std::int64_t{1} << 31) - 1, (std::int64_t{1} << 31) - 1}};
    EXPECT_EQ(refusal([&] { model->generate(inputs, brief()); }),
              "expected 336 image tokens for these images, found 200; give one for each visual token");
    // Each of a million sizes makes tokens, of which there are 200.
    inputs.image_sizes.assign(1'000'000, {56, 112});
    EXPECT_EQ(refusal([&] { model->generate(inputs, brief()); }),
              "expected 200000000 image tokens for these images, found 200; give one for each visual token");
}

TEST(Inputs, ofNumbersThatAreNoneAreRefusedWhereTheyShow) {
    auto const model = loaded();
    Inputs inputs = model->inputs({picture(56, 112, 1)}, question);
    for (float& value : inputs.pixel_values) value = std::nanf("");
    EXPECT_EQ(refusal([&] { model->generate(inputs, brief()); }),
              "expected numbers from the decoder, found NaN; compare the checkpoint's weights with their source, and "
              "download them again");
}

TEST(Inputs, areAnsweredWithoutATokenizerThatIsRead) {
    auto const model = loaded(), wordless = loaded("unread");
    Inputs const inputs = model->inputs({picture(56, 112, 1)}, question);
    int pieces = 0;
    Answer const answer = wordless->generate(inputs, brief(), [&](auto&) { ++pieces; });
    EXPECT_EQ(answer.token_ids, model->generate(inputs, brief()).token_ids);
    EXPECT_EQ(answer.text, "");
    EXPECT_EQ(pieces, 0);
    EXPECT_EQ(refusal([&] { wordless->generate({picture(56, 112, 1)}, question, brief()); }),
              "tokenizer.json: expected BPE as model, found Unigram; use a checkpoint with a tokenizer like those of "
              "Llama, Llama 3, Mistral, Qwen2 or GPT-2, or pass token ids");
    auto chat = wordless->chat();
    EXPECT_NE(refusal([&] { chat.ask({}, question, brief()); }), "");
}

TEST(Pixels, thatDoNotFitTheirSizeAreRefused) {
    auto const model = loaded();
    std::int64_t const huge = std::int64_t{1} << 31;
    for (auto const& [height, width, bytes] :
         std::vector<std::tuple<std::int64_t, std::int64_t, std::size_t>>{{2, 3, 17},
                                                                          {2, 3, 19},
                                                                          {0, 0, 0},
                                                                          {0, 5, 0},
                                                                          {-2, -3, 18},
                                                                          {-1, -1, 3},
                                                                          {huge, huge, 0},
                                                                          {huge - 1, 1, 3}}) {
        Image const image{height, width, std::vector<std::uint8_t>(bytes)};
        std::string const said = refusal([&] { model->generate({image}, question, brief()); });
        EXPECT_EQ(said.rfind("expected ", 0), 0u) << height << " x " << width << ": " << said;
    }
}

TEST(Load, refusesWhatIsNoBundleAndThreadsThatAreNone) {
    EXPECT_EQ(refusal([] { load("/nowhere"); }),
              "expected a bundle folder at /nowhere, found nothing; make one with asap-export --output");
    LoadOptions none;
    none.threads = 0;
    EXPECT_EQ(refusal([&] { load(fixture("bundle/tiny"), none); }),
              "expected --threads of at least 1, found 0; leave it out for one per core");
}

}  // namespace asap
