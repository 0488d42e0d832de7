/// Regular expressions of JSON Schema.
#pragma once

#include <memory>
#include <string>

struct pcre2_real_code_8;

namespace asap::detail {

/// A pattern as Python's re.search reads it, as far as schemas use patterns: \d is any script's digit, $ also
/// stands before a closing newline.
class Pattern {
public:
    /// Throws std::logic_error for one that does not compile.
    explicit Pattern(std::string const& pattern);

    /// Whether it is found in `text`, which must be valid UTF-8.
    bool found_in(std::string const& text) const;

private:
    struct Free {
        void operator()(pcre2_real_code_8* code) const;
    };
    std::unique_ptr<pcre2_real_code_8, Free> code_;
};

}  // namespace asap::detail
