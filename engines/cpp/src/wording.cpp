#include "wording.hpp"

#include <charconv>
#include <cmath>

#include <nlohmann/json.hpp>

namespace asap::detail {

namespace {

constexpr std::size_t kLongest = 4096;  // bytes of a value in a message; messages cut it shorter still

std::string hexadecimal(unsigned char byte) {
    constexpr char digits[] = "0123456789abcdef";
    return {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
}

/// repr() of a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
std::string float_repr(double value) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
    double const size = std::abs(value);
    bool const plain = size == 0 || (size >= 1e-4 && size < 1e16);
    char text[64];
    auto const end =
        std::to_chars(text, text + sizeof text, value, plain ? std::chars_format::fixed : std::chars_format::scientific)
            .ptr;
    std::string result(text, end);
    return plain && result.find('.') == std::string::npos ? result + ".0" : result;
}

/// Appends repr() of `value`; stops once it is too long for any message.
template <typename Json>
void append_repr(std::string& result, Json const& value) {
    if (result.size() > kLongest) return;
    if (value.is_null()) {
        result += "None";
    } else if (value.is_boolean()) {
        result += value.template get<bool>() ? "True" : "False";
    } else if (value.is_string()) {
        result += python_repr(value.template get_ref<std::string const&>());
    } else if (value.is_number_float()) {
        result += float_repr(value.template get<double>());
    } else if (value.is_array()) {
        result += '[';
        char const* comma = "";
        for (auto const& element : value) {
            append_repr(result += comma, element);
            comma = ", ";
            if (result.size() > kLongest) break;
        }
        result += ']';
    } else if (value.is_object()) {
        result += '{';
        char const* comma = "";
        for (auto const& [name, element] : value.items()) {
            append_repr(result += comma + python_repr(name) + ": ", element);
            comma = ", ";
            if (result.size() > kLongest) break;
        }
        result += '}';
    } else {
        result += value.dump();  // an integer
    }
}

template <typename Json>
std::string repr_of(Json const& value) {
    std::string result;
    append_repr(result, value);
    return result;
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

std::string json_repr(nlohmann::json const& value) { return repr_of(value); }

std::string json_repr(nlohmann::ordered_json const& value) { return repr_of(value); }

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
