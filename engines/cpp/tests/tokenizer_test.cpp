#include "tokenizer/tokenizer.hpp"

#include <chrono>
#include <future>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "fixtures.hpp"
#include "text_stream.hpp"
#include "tokenizer/character_tables.hpp"
#include "tokenizer/characters.hpp"
#include "tokenizer/normalizer.hpp"
#include "tokenizer/split_pattern.hpp"

namespace asap::detail {
namespace {

using test::bytes_of;
using test::fixture;
using test::json_fixture;
using test::refusal;

using Json = nlohmann::json;
using Ids = std::vector<std::int64_t>;

Tokenizer read(std::string const& name) {
    auto const file = bytes_of(fixture(name + ".json"));
    return Tokenizer(std::string(file.begin(), file.end()));
}

/// A tokenizer that tests/cpp/fixtures/tokenizer.py wrote.
Tokenizer made(std::string const& name) { return read("tokenizer/" + name); }

Json cases_of(std::string const& name) { return json_fixture("tokenizer/" + name + "-cases.json"); }

/// A small file that can be read, with `part` of it replaced.
std::string changed(std::string const& part, std::string const& by) {
    std::string file = R"({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, )"
                       R"("post_processor": null, "decoder": null, "model": {"type": "BPE", "dropout": null, )"
                       R"("unk_token": null, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}})";
    std::size_t const at = file.find(part);
    if (at == std::string::npos) throw std::logic_error("no " + part + " to replace");
    return file.replace(at, part.size(), by);
}

std::string refused(std::string const& part, std::string const& by) {
    return refusal([&] { Tokenizer tokenizer(changed(part, by)); });
}

class Families : public testing::TestWithParam<char const*> {
protected:
    std::string const name = GetParam();
    Tokenizer const tokenizer = made(name);
    Json const cases = cases_of(name);
};

TEST_P(Families, giveTheIdsAndTextsOfHuggingFacesPackage) {
    ASSERT_GT(cases["texts"].size(), 500u);
    for (Json const& each : cases["texts"]) {
        auto const text = each["text"].get<std::string>();
        auto const ids = each["ids"].get<Ids>();
        ASSERT_EQ(tokenizer.encode(text, true), ids) << each["text"];
        ASSERT_EQ(tokenizer.encode(text, false), each["plain_ids"].get<Ids>()) << each["text"];
        ASSERT_EQ(tokenizer.decode(ids, false), each["decoded"].get<std::string>()) << each["text"];
        ASSERT_EQ(tokenizer.decode(ids, true), each["decoded_plain"].get<std::string>()) << each["text"];
    }
}

TEST_P(Families, tellThePiecesOfPythonsTextStream) {
    for (Json const& each : cases["streams"]) {
        std::vector<std::string> pieces;
        TextStream stream([this](Ids const& ids, bool special) { return tokenizer.decode(ids, !special); },
                          [&](std::string const& piece) { pieces.push_back(piece); },
                          each["stop"].get<std::vector<std::string>>());
        std::size_t count = 0;
        for (std::int64_t const id : each["ids"].get<Ids>())
            if (++count, stream.put(id)) break;
        ASSERT_EQ(count, each["count"].get<std::size_t>()) << each["ids"];
        ASSERT_EQ(stream.close(), each["text"].get<std::string>()) << each["ids"];
        ASSERT_EQ(pieces, each["pieces"].get<std::vector<std::string>>()) << each["ids"];
    }
}

TEST_P(Families, nameTheirTokens) {
    for (Json const& each : cases["tokens"]) {
        auto const id = each[0].get<std::int64_t>();
        auto const token = each[1].get<std::string>();
        ASSERT_EQ(tokenizer.id_to_token(id), token);
    }
    EXPECT_EQ(tokenizer.id_to_token(-1), "");
    EXPECT_EQ(tokenizer.id_to_token(std::int64_t{1} << 40), "");
    EXPECT_FALSE(tokenizer.token_to_id("no such token"));
}

INSTANTIATE_TEST_SUITE_P(All, Families,
                         testing::Values("llama_legacy", "llama", "mistral", "llama3", "qwen2", "gpt2", "unknowns",
                                         "demo"),
                         [](auto const& family) { return std::string(family.param); });

TEST(Tokenizer, findsSpecialTokensInTheText) {
    Tokenizer const tokenizer = made("llama");
    auto const image = tokenizer.token_to_id("<image>");
    ASSERT_TRUE(image);
    EXPECT_EQ(tokenizer.encode("<image><image>", true), (Ids{1, *image, *image}));
    EXPECT_EQ(tokenizer.id_to_token(*image), "<image>");
    EXPECT_EQ(tokenizer.decode({1, *image}, true), "");
}

TEST(Tokenizer, servesManyThreadsAtOnce) {
    Tokenizer const tokenizer = made("qwen2");
    Json const cases = cases_of("qwen2");
    auto const all = [&] {
        Ids ids;
        for (Json const& each : cases["texts"])
            for (std::int64_t const id : tokenizer.encode(each["text"].get<std::string>(), true)) ids.push_back(id);
        return ids;
    };
    auto other = std::async(std::launch::async, all), third = std::async(std::launch::async, all);
    Ids const own = all();
    EXPECT_EQ(other.get(), own);
    EXPECT_EQ(third.get(), own);
}

TEST(Tokenizer, readsLongTextsInTime) {
    auto const start = std::chrono::steady_clock::now();
    for (char const* const name : {"llama_legacy", "llama3", "qwen2", "gpt2"}) {
        Tokenizer const tokenizer = made(name);
        for (char const* const part : {"a", " ", "\n", "<", "\u0301\u0323", "\u0e02", "\u2581", "<sep> ", "1 "}) {
            std::string text;
            while (text.size() < 100'000) text += part;
            Ids const ids = tokenizer.encode(text, false);
            EXPECT_GT(ids.size(), 0u);
            EXPECT_GT(tokenizer.decode(ids, false).size(), 0u);
        }
    }
    // Seconds with sanitizers; what grows as the square takes hours.
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::minutes(5));
}

TEST(Tokenizer, refusesTextThatIsNotUtf8) {
    Tokenizer const tokenizer = made("llama");
    EXPECT_EQ(refusal([&] { tokenizer.encode("a\xff", true); }),
              "expected text in UTF-8, found the byte 0xFF at offset 1; convert it to UTF-8");
    for (char const* const text : {"\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe4\xb8", "\x80"})
        EXPECT_NE(refusal([&] { tokenizer.encode(text, true); }), "");
}

TEST(Tokenizer, readsASmallFile) {
    Tokenizer const tokenizer(changed("", ""));
    EXPECT_EQ(tokenizer.encode("abba", true), (Ids{2, 1, 0}));
    EXPECT_EQ(tokenizer.decode({2, 0}, true), "ab a");
}

TEST(Tokenizer, readsWhereTheFuzzTargetStarts) {
    for (char const* const name : {"llama_legacy", "llama", "mistral", "llama3", "qwen2", "gpt2"}) {
        Tokenizer const tokenizer = read(std::string("seeds/tokenizer/") + name);
        EXPECT_TRUE(tokenizer.token_to_id("ab")) << name;
    }
}

TEST(Tokenizer, namesWhatItDoesNotKnow) {
    EXPECT_EQ(refused(R"("BPE")", R"("Unigram")"),
              "tokenizer.json: expected BPE as model, found Unigram; use a checkpoint with a tokenizer like "
              "those of Llama, Llama 3, Mistral, Qwen2 or GPT-2");
    auto const names = [](std::string const& part, std::string const& by, std::string const& expected) {
        std::string const what = refused(part, by);
        EXPECT_NE(what.find(expected), std::string::npos) << what;
    };
    std::string const no_normalizer = R"("normalizer": null)", no_split = R"("pre_tokenizer": null)";
    names(no_normalizer, R"("normalizer": {"type": "Lowercase"})", "Sequence as normalizer, found Lowercase");
    names(no_normalizer, R"("normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "NFKC"}]})",
          "normalizer.normalizers[1], found NFKC");
    names(no_split, R"("pre_tokenizer": {"type": "BertPreTokenizer"})", "found BertPreTokenizer");
    names(no_split, R"("pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Removed"})",
          "Isolated as pre_tokenizer.behavior, found Removed");
    names(no_split, R"("pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a\\b"}, "behavior": "Isolated"})",
          "the pattern of GPT-2, Llama 3 or Qwen2 as pre_tokenizer.pattern.Regex, found another");
    names(R"("post_processor": null)", R"("post_processor": {"type": "BertProcessing"})", "found BertProcessing");
    names(R"("decoder": null)", R"("decoder": {"type": "WordPiece"})", "as decoder, found WordPiece");
    names(R"("dropout": null)", R"("dropout": 0.1)", "nothing as model.dropout, found 0.1");
}

TEST(Tokenizer, refusesWhatAnExportSaysItDoes) {
    Json const parts = json_fixture("tokenizer/parts.json");
    ASSERT_GT(parts.size(), 50u);
    for (Json const& each : parts) {
        auto const file = each[0].get<std::string>();
        std::string const said = refusal([&] { Tokenizer tokenizer(file); });
        std::string const expected = each[1].is_null() ? "" : "tokenizer.json: " + each[1].get<std::string>();
        // What follows is what to do.
        EXPECT_EQ(said.substr(0, std::min(said.size(), expected.size())), expected) << said << file;
        EXPECT_EQ(said.empty(), expected.empty()) << said << file;
    }
}

TEST(Tokenizer, refusesDamagedFiles) {
    for (char const* const file :
         {"", "{", "[]", "null", "{}", "\xff", R"({"version": "2.0"})", R"({"version": "1.0"})"})
        EXPECT_NE(refusal([&] { Tokenizer tokenizer(file); }), "") << file;
    std::string const vocab = R"("vocab": {"a": 0, "b": 1, "ab": 2})", merges = R"([["a", "b"]])";
    std::string const added = R"("added_tokens": [])";
    std::string const flags =
        R"("single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": true)";
    std::pair<std::string, std::string> const damages[] = {
        {vocab, R"("vocab": {"a": 0, "b": 1, "ab": 1})"},
        {vocab, R"("vocab": {"a": 0, "b": 1, "ab": -2})"},
        {vocab, R"("vocab": {"a": 0, "b": 1, "ab": 4294967295})"},
        {vocab, R"("vocab": {"a": 0, "b": 1, "ab": 1.5})"},
        {vocab, R"("vocab": {"a": 0, "b": 1})"},
        {vocab, R"("vocab": [])"},
        {merges, R"(["a b c"])"},
        {merges, R"([["a", "b", "c"]])"},
        {merges, R"(["ab"])"},
        {merges, R"([["a", "c"]])"},
        {merges, R"({})"},
        {R"("unk_token": null)", R"("unk_token": "?")"},
        {added, R"("added_tokens": [{"id": 3}])"},
        {added, R"("added_tokens": [{"id": 4, "content": "<s>", )" + flags + "}]"},
        {added, R"("added_tokens": [{"id": 3, "content": "", )" + flags + "}]"},
        {added,
         R"("added_tokens": [{"id": 0, "content": "a", )" + flags + R"(}, {"id": 0, "content": "a", )" + flags + "}]"},
        {R"("decoder": null)", R"("decoder": {"type": "Strip", "content": "ab", "start": 1, "stop": 0})"},
        {R"("decoder": null)", R"("decoder": {"type": "Replace", "pattern": {"String": ""}, "content": "x"})"},
    };
    for (auto const& [part, by] : damages) EXPECT_NE(refused(part, by), "") << by;
}

TEST(SplitPattern, givesThePiecesOfHuggingFacesPackage) {
    Json const cases = json_fixture("tokenizer/splits.json");
    ASSERT_EQ(cases.size(), 3u);
    for (Json const& each : cases) {
        auto const pattern = tokens::split_pattern(each["pattern"].get<std::string>());
        ASSERT_TRUE(pattern) << each["pattern"];
        ASSERT_GT(each["pieces"].size(), 20'000u);
        for (auto const& expected : each["pieces"].get<std::vector<std::vector<std::string>>>()) {
            std::string text;
            for (std::string const& piece : expected) text += piece;
            std::vector<std::string> pieces;
            tokens::split(*pattern, text, [&](std::string_view piece) { pieces.emplace_back(piece); });
            ASSERT_EQ(pieces, expected) << text;
        }
    }
}

TEST(Characters, areOfTheClassesOfHuggingFacesPackage) {
    Json const known = json_fixture("tokenizer/characters.json");
    std::vector<std::uint8_t> expected(0x110000);
    auto const mark = [&](char const* name, std::uint8_t value) {
        for (Json const& range : known[name])
            for (auto code = range[0].get<std::size_t>(); code <= range[1].get<std::size_t>(); ++code)
                expected[code] = static_cast<std::uint8_t>(expected[code] | value);
    };
    mark("letters", tokens::kLetter);
    mark("numbers", tokens::kNumber);
    mark("white_space", tokens::kWhiteSpace);
    for (char32_t code = 0; code < expected.size(); ++code)
        ASSERT_EQ(tokens::classes_of(code) & ~tokens::kWordPart, expected[code])
            << std::hex << static_cast<unsigned>(code);
    EXPECT_EQ(tokens::nfc(known["text"].get<std::string>()), known["normalized"].get<std::string>());
}

TEST(Characters, replaceWhatIsNotUtf8) {
    EXPECT_EQ(tokens::with_replacements("a\xff\xe4\xb8z\xf0\x9f\x98"), "a\uFFFD\uFFFDz\uFFFD");
    EXPECT_EQ(tokens::with_replacements("\xe4\xb8\xad\xed\xa0\x80"), "中\uFFFD\uFFFD\uFFFD");
    EXPECT_EQ(tokens::with_replacements("\xf0\x80\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
}

TEST(Characters, areStrippedAsInPython) {
    EXPECT_EQ(tokens::stripped("\u00a0\x1c \u3000 a b\u2028\u0085"), "a b");
    EXPECT_EQ(tokens::stripped(" \u180e \u0085"), "\u180e");
    EXPECT_EQ(tokens::stripped(" \t\n"), "");
    EXPECT_EQ(tokens::left_stripped("\v a "), "a ");
}

TEST(TextStream, givesTheWholeToCallersWithoutACallback) {
    TextStream stream([](Ids const& ids, bool) { return " " + std::to_string(ids.size()); });
    stream.put(1);
    stream.put(2);
    EXPECT_EQ(stream.close(), "2");
}

}  // namespace
}  // namespace asap::detail
