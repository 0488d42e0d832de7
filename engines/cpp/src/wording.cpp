#include "wording.hpp"

namespace asap::detail {

namespace {

std::string hexadecimal(unsigned char byte) {
    constexpr char digits[] = "0123456789abcdef";
    return {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
}

}  // namespace

std::string python_repr(std::string_view text) {
    bool const apostrophe = text.find('\'') != std::string_view::npos;
    char const quote = apostrophe && text.find('"') == std::string_view::npos ? '"' : '\'';
    std::string result(1, quote);
    for (char const letter : text) {
        auto const byte = static_cast<unsigned char>(letter);
        if (letter == quote || letter == '\\')
            result += {'\\', letter};
        else if (letter == '\n')
            result += "\\n";
        else if (letter == '\r')
            result += "\\r";
        else if (letter == '\t')
            result += "\\t";
        else if (byte < 0x20 || byte == 0x7f)
            result += hexadecimal(byte);
        else
            result += letter;
    }
    return result + quote;
}

std::string python_path(std::filesystem::path const& path) {
    std::filesystem::path result = path.root_path();
    for (auto const& part : path.relative_path())
        if (part != "." && !part.empty()) result /= part;
    return result.empty() ? "." : result.string();
}

std::string one_line(std::string_view text) {
    std::string result;
    bool gap = false;
    for (char const letter : text) {
        bool const blank = letter == ' ' || (letter >= '\t' && letter <= '\r');
        if (blank) {
            gap = !result.empty();
            continue;
        }
        if (gap) result += ' ';
        gap = false;
        result += letter;
    }
    return result;
}

}  // namespace asap::detail
