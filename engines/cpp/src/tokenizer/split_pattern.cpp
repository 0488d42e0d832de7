#include "tokenizer/split_pattern.hpp"

#include <algorithm>
#include <limits>
#include <string>

#include <asap/error.hpp>

#include "tokenizer/character_tables.hpp"
#include "tokenizer/characters.hpp"

namespace asap::detail::tokens {

namespace {

using Item = SplitPattern::Item;
using Sequence = SplitPattern::Sequence;

constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();
constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();
constexpr std::size_t kLongestExpression = 2000, kMostAlternatives = 200, kDeepestGroup = 8, kMostRepeats = 1000;
constexpr std::size_t kStepsPerByte = 1000;  // a sensible pattern needs a few dozen

/// Reads an expression into alternatives without groups: `a(?:b|c)?` becomes `ab|ac|a`.
class Reader {
public:
    explicit Reader(std::string_view expression) : expression_(expression) {
        std::size_t const valid = std::min(valid_length(expression), kLongestExpression);
        if (valid < expression.size()) refuse(valid);
    }

    std::vector<Sequence> read() {
        std::vector<Sequence> found = alternatives(false, 0);
        if (at_ != expression_.size()) refuse(at_);
        for (Sequence const& sequence : found) {
            auto const takes = [](Item const& item) { return item.min > 0 && !item.forbidden; };
            if (std::none_of(sequence.begin(), sequence.end(), takes))
                throw Error("tokenizer.json: expected a pattern that matches no empty text, found " + shown() +
                            "; split as Llama 3, Qwen2 or GPT-2 do");
        }
        return found;
    }

private:
    std::vector<Sequence> alternatives(bool any_case, std::size_t depth) {
        if (depth > kDeepestGroup) refuse(at_);
        std::vector<Sequence> all = sequences(any_case, depth);
        while (take('|')) {
            std::vector<Sequence> const more = sequences(any_case, depth);
            all.insert(all.end(), more.begin(), more.end());
            limit(all.size());
        }
        return all;
    }

    /// Everything up to the next `|` or `)`.
    std::vector<Sequence> sequences(bool any_case, std::size_t depth) {
        std::vector<Sequence> all = {{}};
        while (at_ < expression_.size() && !next_is("|)")) {
            std::vector<Sequence> const parts = part(any_case, depth);
            limit(all.size() * parts.size());
            std::vector<Sequence> longer;
            for (Sequence const& start : all)
                for (Sequence const& end : parts) {
                    longer.push_back(start);
                    longer.back().insert(longer.back().end(), end.begin(), end.end());
                }
            all = std::move(longer);
        }
        return all;
    }

    std::vector<Sequence> part(bool any_case, std::size_t depth) {
        if (take("(?!")) {
            Item item{single(false)};
            item.forbidden = true;
            expect(')');
            return {{item}};
        }
        bool const folds = take("(?i:");
        if (folds || take("(?:")) {
            std::vector<Sequence> group = alternatives(any_case || folds, depth + 1);
            expect(')');
            if (take('?')) group.emplace_back();
            if (next_is("?*+{")) refuse(at_);
            return group;
        }
        return {{quantified({single(any_case)})}};
    }

    Item quantified(Item item) {
        std::size_t const start = at_;
        if (take('?')) {
            item.min = 0;
        } else if (take('*')) {
            item.min = 0;
            item.max = kUnlimited;
        } else if (take('+')) {
            item.max = kUnlimited;
        } else if (take('{')) {
            item.min = item.max = count();
            if (take(',')) item.max = next_is("}") ? kUnlimited : count();
            if (!take('}') || item.max < item.min || item.max == 0) refuse(start);
        } else {
            return item;
        }
        if (next_is("?*+{")) refuse(start);  // lazy or possessive
        return item;
    }

    /// One character, class or set in brackets.
    CharacterSet single(bool any_case) {
        CharacterSet set;
        if (any_case) return either_case();
        if (take("\\S")) {
            set.add_classes(kWhiteSpace);
            set.negate();
            return set;
        }
        if (!take('[')) {
            if (!take_class(set)) {
                char32_t const code = character("^$.()[]{}?*+|");
                set.add(code, code);
            }
            return set;
        }
        std::size_t const start = at_;
        if (take('^')) set.negate();
        do {
            if (take_class(set)) continue;
            char32_t const first = character("[]-&^"), last = take('-') ? character("[]-&^") : first;
            if (last < first) refuse(start);
            set.add(first, last);
        } while (at_ < expression_.size() && !next_is("]"));
        expect(']');
        return set;
    }

    /// An ASCII character in both cases, and what Unicode folds to it.
    CharacterSet either_case() {
        std::size_t const start = at_;
        char32_t const code = character("^$.()[]{}?*+|");
        if (code >= 0x80) refuse(start);
        CharacterSet set;
        set.add(code, code);
        char32_t const lower = code | 0x20;
        if (lower < 'a' || lower > 'z') return set;
        set.add(code ^ 0x20, code ^ 0x20);
        if (lower == 's') set.add(0x17F, 0x17F);    // long s
        if (lower == 'k') set.add(0x212A, 0x212A);  // kelvin
        // Pairs that are also one character, a ligature: Oniguruma would match that too.
        if ((lower == 'f' && next_is("fFiIlL")) || (lower == 's' && next_is("sStT"))) refuse(start);
        return set;
    }

    bool take_class(CharacterSet& set) {
        if (take("\\s"))
            set.add_classes(kWhiteSpace);
        else if (take("\\p{L}"))
            set.add_classes(kLetter);
        else if (take("\\p{N}"))
            set.add_classes(kNumber);
        else
            return false;
        return true;
    }

    /// A character that stands for itself; those in `special` do so behind a backslash only.
    char32_t character(std::string_view special) {
        std::size_t const start = at_;
        if (at_ == expression_.size()) refuse(start);
        Character const found = character_at(expression_, at_);
        at_ += found.size;
        if (found.code != '\\') {
            if (found.code < 0x80 && special.find(static_cast<char>(found.code)) != kNone) refuse(start);
            return found.code;
        }
        if (take('r')) return '\r';
        if (take('n')) return '\n';
        if (take('t')) return '\t';
        if (at_ == expression_.size()) refuse(start);
        char const escaped = expression_[at_++];
        if (std::string_view("^$.()[]{}?*+|-&/\\'\" ").find(escaped) == kNone) refuse(start);
        return static_cast<unsigned char>(escaped);
    }

    std::size_t count() {
        std::size_t const start = at_;
        std::size_t value = 0;
        while (next_is("0123456789")) {
            value = value * 10 + static_cast<std::size_t>(expression_[at_++] - '0');
            if (value > kMostRepeats) refuse(start);
        }
        if (at_ == start) refuse(start);
        return value;
    }

    /// Whether one of `signs` comes next.
    bool next_is(std::string_view signs) const {
        return at_ < expression_.size() && signs.find(expression_[at_]) != kNone;
    }

    bool take(char sign) { return take(std::string_view(&sign, 1)); }

    bool take(std::string_view sign) {
        if (expression_.substr(at_, sign.size()) != sign) return false;
        at_ += sign.size();
        return true;
    }

    void expect(char sign) {
        if (!take(sign)) refuse(at_);
    }

    void limit(std::size_t alternatives) const {
        if (alternatives > kMostAlternatives)
            throw Error("tokenizer.json: expected a pattern of at most " + std::to_string(kMostAlternatives) +
                        " alternatives, found more in " + shown() + "; split as Llama 3, Qwen2 or GPT-2 do");
    }

    std::string shown() const {
        std::string_view start = expression_.substr(0, 200);
        return "\"" + with_replacements(start) + (start.size() < expression_.size() ? "...\"" : "\"");
    }

    [[noreturn]] void refuse(std::size_t at) const {
        throw Error("tokenizer.json: expected a pattern that this runtime knows, found " + shown() +
                    ", unknown from byte " + std::to_string(at) + " on; split as Llama 3, Qwen2 or GPT-2 do");
    }

    std::string_view expression_;
    std::size_t at_ = 0;
};

/// Ends a pattern that goes back and forth over a text.
class Steps {
public:
    explicit Steps(std::size_t text_size) : left_(kStepsPerByte * text_size) {}

    void take(std::size_t count) {
        if (count > left_)
            throw Error("tokenizer.json: expected a pattern that needs at most " + std::to_string(kStepsPerByte) +
                        " steps for a byte of text, found one that needs more; split as Llama 3, Qwen2 or GPT-2 do");
        left_ -= count;
    }

private:
    std::size_t left_;
};

/// Where `sequence` from its item `index` on ends if it starts at `at`; `kNone` where it does not match.
std::size_t matched(Sequence const& sequence, std::size_t index, std::string_view text, std::size_t at, Steps& steps) {
    if (index == sequence.size()) return at;
    Item const& item = sequence[index];
    if (item.forbidden) {
        bool const follows = at < text.size() && item.set.contains(character_at(text, at).code);
        return follows ? kNone : matched(sequence, index + 1, text, at, steps);
    }
    std::size_t count = 0, end = at;
    while (count < item.max && end < text.size()) {
        Character const next = character_at(text, end);
        if (!item.set.contains(next.code)) break;
        end += next.size;
        ++count;
    }
    steps.take(count + 1);
    for (; count >= item.min; --count) {
        std::size_t const rest = matched(sequence, index + 1, text, end, steps);
        if (rest != kNone || count == 0) return rest;
        end = start_before(text, end);
    }
    return kNone;
}

}  // namespace

bool CharacterSet::contains(char32_t code) const {
    bool const among = (classes_ && (classes_of(code) & classes_)) ||
                       std::any_of(ranges_.begin(), ranges_.end(),
                                   [&](auto const& range) { return range.first <= code && code <= range.second; });
    return among != negated_;
}

SplitPattern::SplitPattern(std::string_view expression) : alternatives_(Reader(expression).read()) {}

void SplitPattern::split(std::string_view text, std::function<void(std::string_view)> const& piece) const {
    Steps steps(text.size());
    std::size_t told = 0, at = 0;
    while (at < text.size()) {
        std::size_t end = kNone;
        for (auto sequence = alternatives_.begin(); end == kNone && sequence != alternatives_.end(); ++sequence)
            end = matched(*sequence, 0, text, at, steps);
        if (end == kNone) {
            at += character_at(text, at).size;
            continue;
        }
        if (told < at) piece(text.substr(told, at - told));
        piece(text.substr(at, end - at));
        told = at = end;
    }
    if (told < text.size()) piece(text.substr(told));
}

}  // namespace asap::detail::tokens
