#include "tokenizer/definition.hpp"

#include <limits>
#include <unordered_set>

#include <nlohmann/json.hpp>

#include <asap/error.hpp>

#include "tokenizer/characters.hpp"

namespace asap::detail::tokens {

namespace {

using Json = nlohmann::json;

constexpr int kDeepestSequence = 8;
constexpr std::size_t kMostSteps = 8;
constexpr std::size_t kLongestAddedToken = 1000, kLongestReplacement = 16;  // bytes

std::string shown(Json const& value) {
    if (value.is_structured()) return value.is_array() ? "a list" : "an object";
    std::string const text = value.dump();
    return text.size() <= 80 ? text : "one of " + std::to_string(text.size()) + " bytes";
}

[[noreturn]] void refuse(std::string const& where, std::string const& expected, std::string const& found) {
    throw Error("tokenizer.json: expected " + expected + " as " + where + ", found " + found +
                "; use a checkpoint with a tokenizer like those of Llama, Llama 3, Mistral, Qwen2 or GPT-2");
}

/// A value of the file and its place there, for messages.
struct Field {
    Json const& value;
    std::string where;

    Field operator[](std::string const& name) const {
        if (!value.is_object()) refuse(where, "an object", shown(value));
        auto const found = value.find(name);
        static Json const nothing;
        return {found == value.end() ? nothing : *found, where.empty() ? name : where + "." + name};
    }

    template <typename Visit>
    void for_each(Visit const& visit) const {
        if (!value.is_array()) refuse(where, "a list", shown(value));
        std::size_t index = 0;
        for (Json const& element : value) visit(Field{element, where + "[" + std::to_string(index++) + "]"});
    }

    bool missing() const { return value.is_null(); }

    std::string const& text() const {
        if (!value.is_string()) refuse(where, "text", shown(value));
        return value.get_ref<std::string const&>();
    }

    std::string const& some_text() const {
        if (text().empty()) refuse(where, "a text that is not empty", shown(value));
        return text();
    }

    std::string const& text_up_to(std::size_t size) const {
        if (text().size() > size) refuse(where, "a text of at most " + std::to_string(size) + " bytes", shown(value));
        return text();
    }

    std::string const& character() const {
        if (character_count(text()) != 1) refuse(where, "one character", shown(value));
        return text();
    }

    bool flag() const {
        if (!value.is_boolean()) refuse(where, "true or false", shown(value));
        return value.get<bool>();
    }

    bool flag(bool otherwise) const { return missing() ? otherwise : flag(); }

    /// A number from 0 to 2^31 - 1: an id, or a count.
    std::uint32_t number() const {
        constexpr std::uint64_t largest = std::numeric_limits<std::int32_t>::max();
        if (!value.is_number_unsigned() || value.get<std::uint64_t>() > largest)
            refuse(where, "a whole number below 2^31", shown(value));
        return value.get<std::uint32_t>();
    }

    void must_be_off() const {
        bool const off =
            missing() || (value.is_string() && text().empty()) || (value.is_number() && value.get<double>() == 0);
        if (!off) refuse(where, "nothing", shown(value));
    }
};

/// Calls back with each step of a component, the steps of sequences in their place.
template <typename Visit>
void for_each_step(Field const& component, char const* list, Visit const& visit, int depth = 0) {
    std::string const& type = component["type"].text();
    if (type != "Sequence") return visit(type, component);
    if (depth == kDeepestSequence)
        refuse(component.where, "a Sequence that is not that deep", "one in too many others");
    component[list].for_each([&](Field const& step) { for_each_step(step, list, visit, depth + 1); });
}

Replace replace_of(Field const& step) {
    return {step["pattern"]["String"].some_text(), step["content"].text_up_to(kLongestReplacement)};
}

ByteLevel byte_level_of(Field const& step) { return {step["add_prefix_space"].flag(), step["use_regex"].flag(true)}; }

Metaspace metaspace_of(Field const& step) {
    Metaspace made{step["replacement"].character(), PrependScheme::always, step["split"].flag(true)};
    Field const scheme = step["prepend_scheme"];
    if (!scheme.missing()) {
        if (scheme.text() == "first")
            made.prepend_scheme = PrependScheme::first;
        else if (scheme.text() == "never")
            made.prepend_scheme = PrependScheme::never;
        else if (scheme.text() != "always")
            refuse(scheme.where, "first, never or always", shown(scheme.value));
    }
    if (!step["add_prefix_space"].flag(true)) made.prepend_scheme = PrependScheme::never;
    return made;
}

/// Text may grow in each step.
void check_count(std::size_t steps, Field const& component) {
    if (steps > kMostSteps)
        refuse(component.where, "at most " + std::to_string(kMostSteps) + " steps", std::to_string(steps));
}

std::vector<AddedToken> added_tokens_of(Field const& list) {
    std::vector<AddedToken> tokens;
    if (list.missing()) return tokens;
    list.for_each([&](Field const& token) {
        tokens.push_back({token["content"].text_up_to(kLongestAddedToken), token["id"].number(),
                          token["single_word"].flag(), token["lstrip"].flag(), token["rstrip"].flag(),
                          token["normalized"].flag(), token["special"].flag()});
    });
    return tokens;
}

std::vector<NormalizerStep> normalizer_of(Field const& normalizer) {
    std::vector<NormalizerStep> steps;
    if (normalizer.missing()) return steps;
    for_each_step(normalizer, "normalizers", [&](std::string const& type, Field const& step) {
        if (type == "Prepend")
            steps.emplace_back(Prepend{step["prepend"].text_up_to(kLongestReplacement)});
        else if (type == "Replace")
            steps.emplace_back(replace_of(step));
        else if (type == "NFC")
            steps.emplace_back(Nfc{});
        else
            refuse(step.where, "NFC, Prepend, Replace or Sequence", type);
    });
    check_count(steps.size(), normalizer);
    return steps;
}

Split split_of(Field const& step) {
    if (step["behavior"].text() != "Isolated") refuse(step["behavior"].where, "Isolated", step["behavior"].text());
    Field const expression = step["pattern"]["Regex"];
    std::optional<SplitPattern> const pattern = split_pattern(expression.text());
    if (!pattern) refuse(expression.where, "the pattern of GPT-2, Llama 3 or Qwen2", "another");
    return {*pattern};
}

std::vector<PreTokenizerStep> pre_tokenizer_of(Field const& pre_tokenizer) {
    std::vector<PreTokenizerStep> steps;
    int bytes = 0;
    if (pre_tokenizer.missing()) return steps;
    for_each_step(pre_tokenizer, "pretokenizers", [&](std::string const& type, Field const& step) {
        if (type == "ByteLevel" && bytes++ > 0) refuse(step.where, "one ByteLevel", "a second");
        if (type == "Split")
            steps.emplace_back(split_of(step));
        else if (type == "ByteLevel")
            steps.emplace_back(byte_level_of(step));
        else if (type == "Metaspace")
            steps.emplace_back(metaspace_of(step));
        else
            refuse(step.where, "ByteLevel, Metaspace, Sequence or Split", type);
    });
    check_count(steps.size(), pre_tokenizer);
    return steps;
}

TemplatePart template_part_of(Field const& part, Field const& special_tokens) {
    if (!part["Sequence"].missing()) {
        if (part["Sequence"]["id"].text() != "A") refuse(part.where, "one text, A", part["Sequence"]["id"].text());
        return {true, {}};
    }
    TemplatePart made;
    std::string const& name = part["SpecialToken"]["id"].text();
    special_tokens[name]["ids"].for_each([&](Field const& id) { made.ids.push_back(id.number()); });
    return made;
}

std::vector<TemplatePart> post_processor_of(Field const& post_processor) {
    std::vector<TemplatePart> parts;
    if (!post_processor.missing())
        for_each_step(post_processor, "processors", [&](std::string const& type, Field const& step) {
            if (type == "ByteLevel") return;  // it places tokens in the text, which nobody asks for here
            if (type != "TemplateProcessing") refuse(step.where, "ByteLevel, Sequence or TemplateProcessing", type);
            if (!parts.empty()) refuse(step.where, "one TemplateProcessing", "a second");
            step["single"].for_each(
                [&](Field const& part) { parts.push_back(template_part_of(part, step["special_tokens"])); });
            if (parts.empty()) refuse(step["single"].where, "a template with a part", "an empty list");
        });
    if (parts.empty()) parts.push_back({true, {}});
    return parts;
}

std::optional<std::vector<DecoderStep>> decoder_of(Field const& decoder) {
    if (decoder.missing()) return std::nullopt;
    std::vector<DecoderStep> steps;
    for_each_step(decoder, "decoders", [&](std::string const& type, Field const& step) {
        if (type == "Replace")
            steps.emplace_back(replace_of(step));
        else if (type == "ByteFallback")
            steps.emplace_back(ByteFallback{});
        else if (type == "Fuse")
            steps.emplace_back(Fuse{});
        else if (type == "Strip")
            steps.emplace_back(Strip{step["content"].character(), step["start"].number(), step["stop"].number()});
        else if (type == "ByteLevel")
            steps.emplace_back(byte_level_of(step));
        else if (type == "Metaspace")
            steps.emplace_back(metaspace_of(step));
        else
            refuse(step.where, "ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Sequence or Strip", type);
    });
    check_count(steps.size(), decoder);
    return steps;
}

/// A pair as a list of two, or, as files were written earlier, as one text with a space between.
std::pair<std::string, std::string> merge_of(Field const& merge) {
    if (merge.value.is_array() && merge.value.size() == 2)
        return {Field{merge.value[0], merge.where}.some_text(), Field{merge.value[1], merge.where}.some_text()};
    std::string const& text = merge.text();
    std::size_t const space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
        refuse(merge.where, "two tokens with a space between", shown(merge.value));
    return {text.substr(0, space), text.substr(space + 1)};
}

Vocabulary vocabulary_of(Field const& model) {
    // Files of the first releases have no type here; they are BPE where they have merges.
    if (!model["type"].missing() && model["type"].text() != "BPE") refuse("model", "BPE", model["type"].text());
    for (char const* const option : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"})
        model[option].must_be_off();

    Vocabulary made;
    Field const vocab = model["vocab"];
    if (!vocab.value.is_object()) refuse(vocab.where, "an object", shown(vocab.value));
    made.tokens.reserve(vocab.value.size());
    std::unordered_set<std::uint32_t> ids;
    for (auto const& [token, id] : vocab.value.items()) {
        made.tokens.emplace_back(token, Field{id, vocab.where}.number());
        if (!ids.insert(made.tokens.back().second).second) refuse(vocab.where, "ids that differ", shown(id) + " twice");
    }
    made.merges.reserve(model["merges"].value.size());
    model["merges"].for_each([&](Field const& merge) { made.merges.push_back(merge_of(merge)); });
    if (!model["unk_token"].missing()) made.unk_token = model["unk_token"].text();
    made.fuse_unk = model["fuse_unk"].flag(false);
    made.byte_fallback = model["byte_fallback"].flag(false);
    made.ignore_merges = model["ignore_merges"].flag(false);
    return made;
}

Json parsed(std::string_view json) {
    try {
        return Json::parse(json);
    } catch (Json::exception const& error) {
        // Its words, without the number in brackets in front.
        std::string const what = with_replacements(error.what());
        throw Error("expected tokenizer.json as JSON, found " + what.substr(what.find("] ") + 2) + "; export it again");
    }
}

}  // namespace

Definition read_definition(std::string_view json) {
    Json const document = parsed(json);
    Field const file{document, ""};
    if (!document.is_object()) refuse("the whole file", "an object", shown(document));
    if (file["version"].text() != "1.0") refuse("version", "1.0", file["version"].text());
    Definition made{added_tokens_of(file["added_tokens"]),
                    normalizer_of(file["normalizer"]),
                    pre_tokenizer_of(file["pre_tokenizer"]),
                    post_processor_of(file["post_processor"]),
                    decoder_of(file["decoder"]),
                    vocabulary_of(file["model"])};
    for (PreTokenizerStep const& step : made.pre_tokenizer) {
        auto const* const metaspace = std::get_if<Metaspace>(&step);
        // Whether a piece is the first is a question of the text before normalization.
        if (metaspace && metaspace->prepend_scheme == PrependScheme::first && !made.normalizer.empty())
            refuse("normalizer", "nothing before a Metaspace with the prepend_scheme first", "a normalizer");
    }
    return made;
}

}  // namespace asap::detail::tokens
