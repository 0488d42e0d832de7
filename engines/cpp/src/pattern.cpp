#include "pattern.hpp"

#include <cstddef>
#include <stdexcept>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace asap::detail {

namespace {

struct FreeMatch {
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

PCRE2_SPTR units(std::string const& text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

void Pattern::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

Pattern::Pattern(std::string const& pattern) {
    int error = 0;
    std::size_t offset = 0;
    constexpr std::uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_ALT_BSUX;  // the last: \u0041
    code_.reset(pcre2_compile(units(pattern), pattern.size(), options, &error, &offset, nullptr));
    if (!code_) throw std::logic_error("the pattern " + pattern + " does not compile");
}

bool Pattern::found_in(std::string const& text) const {
    std::unique_ptr<pcre2_match_data, FreeMatch> const data(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    if (!data) throw std::bad_alloc();
    return pcre2_match(code_.get(), units(text), text.size(), 0, 0, data.get(), nullptr) > 0;
}

}  // namespace asap::detail
