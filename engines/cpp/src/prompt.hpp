/// From text and images to what the graphs take.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <asap/image.hpp>
#include <asap/request.hpp>

#include "bundle.hpp"
#include "preprocess.hpp"
#include "tokenizer/tokenizer.hpp"

namespace asap::detail {

/// Reads prompts for one bundle. Thread-safe.
class PromptReader {
public:
    /// `threads`: of preprocessing, by default one for each core. A tokenizer that cannot be read here is refused when
    /// text is read, not now: callers with token ids of their own need none.
    explicit PromptReader(Bundle const& bundle, std::optional<int> threads = {});

    /// The first prompt of a conversation.
    ///
    /// With the template, images come first where the text has no `<image>` marks. Throws `Error` where marks and
    /// images differ in number, an image cannot be read, or the bundle has no template that can be followed here.
    Inputs read(std::string const& text, std::vector<ImageSource> const& images, bool use_template) const;

    /// A later turn: what the template puts behind the last answer. `last_token` was sampled last and comes first;
    /// where it ended the answer, the template's own end of the answer is not repeated.
    Inputs read_turn(std::string const& text, std::vector<ImageSource> const& images, std::int64_t last_token) const;

    /// Tokens as text, `special` ones left out or not; empty where the tokenizer cannot be read.
    std::string text(std::vector<std::int64_t> const& token_ids, bool special = false) const;

private:
    Tokenizer const& tokenizer() const;
    void check_marks(std::string const& text, std::size_t images, bool use_template) const;
    std::string rendered(TurnParts TemplateInfo::* turn, std::string const& text, std::size_t images) const;
    Inputs encoded(std::string const& rendered, std::vector<ImageSource> const& images, bool special) const;

    Manifest const& manifest_;
    std::optional<Tokenizer> tokenizer_;
    std::string refusal_;  // what is said where there is none
    Preprocessor preprocessor_;
};

}  // namespace asap::detail
