#include "document.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

namespace asap::detail {

namespace {

using Json = nlohmann::json;

constexpr int kDeepest = 32;          // arrays and objects within each other; the definition needs nine
constexpr std::size_t kLongest = 60;  // characters of a value or a key in a message

std::string cut(std::string const& text, char const* end) {
    return text.size() <= kLongest ? text : text.substr(0, kLongest) + "..." + end;
}

std::string in_quotes(std::string_view text) {
    return cut(Json(text).dump(-1, ' ', true, Json::error_handler_t::replace), "\"");
}

bool is_plain(std::string_view key) {
    auto const letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
    auto const later = [&](char c) { return letter(c) || (c >= '0' && c <= '9'); };
    return !key.empty() && key.size() <= kLongest && letter(key[0]) && std::all_of(key.begin(), key.end(), later);
}

/// Before parsing, as in Python, whose parser goes down a level of its stack for each level of the document.
void check_depth(std::string_view content) {
    int depth = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < content.size(); ++i) {
        char const byte = content[i];
        if (in_string && byte == '\\')
            ++i;
        else if (byte == '"')
            in_string = !in_string;
        else if (!in_string && (byte == '[' || byte == '{'))
            ++depth;
        else if (!in_string && (byte == ']' || byte == '}'))
            --depth;
        if (depth > kDeepest)
            throw manifest_error("too_deep", "$",
                                 "at most " + std::to_string(kDeepest) + " levels of arrays and objects", "more");
    }
}

/// The names of each object that is open, and the first name of all that stands twice in one.
class Names {
public:
    bool operator()(int, Json::parse_event_t event, Json const& parsed) {
        if (event == Json::parse_event_t::object_start) open_.emplace_back();
        if (event == Json::parse_event_t::key) add(parsed.get_ref<std::string const&>());
        if (event == Json::parse_event_t::object_end) {
            if (twice.is_null()) twice = open_.back().twice;
            open_.pop_back();
        }
        return true;
    }

    Json twice;  // null, or the name; of the object that ends first, as in Python

private:
    struct Object {
        std::set<std::string> names;
        Json twice;
    };
    void add(std::string const& name) {
        auto& object = open_.back();
        if (!object.names.insert(name).second && object.twice.is_null()) object.twice = name;
    }
    std::vector<Object> open_;
};

}  // namespace

std::string Place::text() const {
    if (!above_) return "$";
    std::string const above = above_->text();
    if (is_index_) return above + "[" + std::to_string(index_) + "]";
    return is_plain(key_) ? above + "." + std::string(key_) : above + "[" + in_quotes(key_) + "]";
}

BundleError manifest_error(char const* code, std::string const& place, std::string const& expected,
                           std::string const& found) {
    return {code, place,
            "expected " + expected + " at " + place + " of manifest.json, found " + found + " (" + code +
                "); export the bundle again"};
}

std::string shown(Json const& value) {
    if (value.is_structured()) return value.is_array() ? "an array" : "an object";
    return value.is_string() ? in_quotes(value.get_ref<std::string const&>()) : cut(value.dump(), "");
}

bool is_whole(Json const& value) {
    return value.is_number_integer() || (value.is_number_float() && std::abs(value.get<double>()) >= 0x1p63);
}

Json read_document(std::string_view content) {
    if (content.size() > kLargestManifest)
        throw manifest_error("too_large", "$", "at most " + std::to_string(kLargestManifest) + " bytes",
                             std::to_string(content.size()));
    check_depth(content);
    // The parser would take a zero byte for the end, and skip a byte order mark.
    bool const strange = content.find('\0') != std::string_view::npos || content.substr(0, 3) == "\xef\xbb\xbf";
    if (strange) throw manifest_error("invalid_json", "$", "JSON", "a zero byte or a byte order mark");
    Names names;
    Json document;
    try {
        document = Json::parse(content.begin(), content.end(), std::ref(names));
    } catch (Json::parse_error const& error) {
        throw manifest_error("invalid_json", "$", "JSON", "a syntax error at byte " + std::to_string(error.byte));
    } catch (Json::exception const&) {
        throw manifest_error("invalid_json", "$", "JSON", "a number beyond those of 64 bits");
    }
    if (!names.twice.is_null()) {
        auto const& name = names.twice.get_ref<std::string const&>();
        throw manifest_error("duplicate_key", "$." + Place(Place(), name).text().substr(1), "one value", "two");
    }
    return document;
}

}  // namespace asap::detail
