#include "prompt.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <type_traits>
#include <utility>

#include <asap/error.hpp>

#include "anyres.hpp"
#include "tokenizer/characters.hpp"

namespace asap::detail {

namespace {

std::string content(std::filesystem::path const& file) {
    std::ifstream stream(file, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(stream), {}};
    if (!stream) throw Error("expected a readable " + file.filename().string() + " in the bundle, found none");
    return text;
}

std::size_t occurrences(std::string const& text, std::string const& mark) {
    std::size_t count = 0;
    for (auto at = text.find(mark); at != std::string::npos; at = text.find(mark, at + mark.size())) ++count;
    return count;
}

bool starts_with(std::string const& text, std::string const& start) {
    return text.compare(0, start.size(), start) == 0;
}

Image pixels_of(ImageSource const& source) {
    return std::visit(
        [](auto const& from) -> Image {
            if constexpr (std::is_same_v<std::decay_t<decltype(from)>, Image>)
                return from;
            else
                return read_image(from);
        },
        source.get());
}

/// Each mark in `text` repeated as often as its image has visual tokens.
std::string expanded(std::string const& text, std::string const& mark, std::vector<std::int64_t> const& counts) {
    std::string result;
    std::size_t from = 0;
    for (std::int64_t const count : counts) {
        std::size_t const at = text.find(mark, from);
        result.append(text, from, at - from);
        for (std::int64_t i = 0; i < count; ++i) result += mark;
        from = at + mark.size();
    }
    return result.append(text, from);
}

}  // namespace

PromptReader::PromptReader(Bundle const& bundle, std::optional<int> threads)
    : manifest_(bundle.manifest), preprocessor_(bundle, threads) {
    try {
        tokenizer_.emplace(content(bundle.path / "tokenizer.json"));
    } catch (Error const& error) {
        refusal_ = error.what();
    }
}

Inputs PromptReader::read(std::string const& text, std::vector<ImageSource> const& images, bool use_template) const {
    check_marks(text, images.size(), use_template);
    std::string const whole = use_template ? rendered(&TemplateInfo::first, text, images.size()) : text;
    // As in transformers: a template that writes the first token itself must not get a second one.
    auto const& bos = manifest_.prompt.bos_token;
    return encoded(whole, images, !bos || !starts_with(whole, *bos));
}

Inputs PromptReader::read_turn(std::string const& text, std::vector<ImageSource> const& images,
                               std::int64_t last_token) const {
    check_marks(text, images.size(), true);
    std::string rest = rendered(&TemplateInfo::later, text, images.size());
    auto const& ends = manifest_.model.eos_token_ids;
    if (std::find(ends.begin(), ends.end(), last_token) != ends.end()) {
        std::string const end = tokenizer().id_to_token(last_token);
        if (starts_with(rest, end)) rest.erase(0, end.size());
    }
    Inputs inputs = encoded(rest, images, false);
    inputs.input_ids.insert(inputs.input_ids.begin(), last_token);
    return inputs;
}

std::string PromptReader::text(std::vector<std::int64_t> const& token_ids, bool special) const {
    return tokenizer_ ? tokenizer_->decode(token_ids, !special) : std::string();
}

Tokenizer const& PromptReader::tokenizer() const {
    if (!tokenizer_) throw Error(refusal_ + ", or pass token ids");
    return *tokenizer_;
}

void PromptReader::check_marks(std::string const& text, std::size_t images, bool use_template) const {
    tokens::check_utf8(text);
    std::size_t const marks = occurrences(text, manifest_.prompt.image_token);
    if (marks == images || (marks == 0 && use_template)) return;
    throw Error("expected one " + manifest_.prompt.image_token + " mark per image in the prompt, found " +
                std::to_string(marks) + " for " + std::to_string(images) + " image" + (images != 1 ? "s" : "") +
                "; add or remove marks" + (use_template && images ? ", or leave them all out" : ""));
}

std::string PromptReader::rendered(TurnParts TemplateInfo::* turn, std::string const& text, std::size_t images) const {
    if (!manifest_.prompt.chat_template)
        throw Error(
            "expected a chat template in the bundle that needs no Jinja, found none; write the whole prompt "
            "yourself, with --no-template (use_template)");
    TemplateInfo const& parts = *manifest_.prompt.chat_template;
    TurnParts const& part = parts.*turn;
    bool const marked = text.find(manifest_.prompt.image_token) != std::string::npos;
    std::string result = part.start;
    for (std::size_t i = 0; i < (marked ? 0 : images); ++i) result += part.image;
    if (!marked && images) result += part.after_images;
    result.append(parts.trims ? tokens::stripped(text) : std::string_view(text)).append(part.end);
    if (std::size_t const marks = occurrences(result, manifest_.prompt.image_token); marks != images)
        throw Error("expected a chat template that writes one " + manifest_.prompt.image_token +
                    " mark per image, found " + std::to_string(marks) + " for " + std::to_string(images) + " image" +
                    (images != 1 ? "s" : "") + "; put marks into the prompt yourself");
    return result;
}

Inputs PromptReader::encoded(std::string const& rendered, std::vector<ImageSource> const& images, bool special) const {
    Tokenizer const& ids = tokenizer();  // before an image is read
    Inputs inputs;
    std::vector<std::int64_t> counts;
    TileGeometry const geometry = TileGeometry::of(manifest_.model);
    for (ImageSource const& source : images) {
        Image const image = pixels_of(source);
        counts.push_back(visual_token_count({image.height, image.width}, geometry));
        inputs.image_sizes.emplace_back(image.height, image.width);
        auto const values = preprocessor_.pixel_values(image);
        inputs.pixel_values.insert(inputs.pixel_values.end(), values.begin(), values.end());
    }
    inputs.input_ids = ids.encode(expanded(rendered, manifest_.prompt.image_token, counts), special);
    return inputs;
}

}  // namespace asap::detail
