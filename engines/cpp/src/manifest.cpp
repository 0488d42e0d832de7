#include "manifest.hpp"

#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#include "document.hpp"
#include "manifest_fields.hpp"
#include "manifest_rules.hpp"

namespace asap::detail {

namespace {

using Json = nlohmann::json;

void require_type(bool fits, Json const& value, Place const& place, char const* type) {
    if (!fits) throw manifest_error("wrong_type", place.text(), type, shown(value));
}

std::string limits(std::size_t least, std::size_t most, char const* unit) {
    bool const open = most == std::numeric_limits<std::size_t>::max();
    return (open ? "at least " + std::to_string(least) : std::to_string(least) + " to " + std::to_string(most)) + unit;
}

void check_length(std::size_t found, Length length, Place const& place, char const* unit) {
    if (found < length.least || found > length.most)
        throw manifest_error("wrong_length", place.text(), limits(length.least, length.most, unit),
                             std::to_string(found));
}

/// `pattern`: 0 stands for any digit, every other character for itself.
bool looks_like(std::string const& text, std::string_view pattern) {
    auto const same = [](char c, char wanted) { return wanted == '0' ? c >= '0' && c <= '9' : c == wanted; };
    return std::equal(text.begin(), text.end(), pattern.begin(), pattern.end(), same);
}

void check_format(std::string const& text, Format format, Place const& place) {
    auto const refuse = [&](char const* expected) {
        throw manifest_error("wrong_format", place.text(), expected, shown(text));
    };
    auto const is_control = [](char c) { return c >= 0 && c < ' '; };
    if (format == Format::sha256 && text.find_first_not_of("0123456789abcdef") != std::string::npos)
        refuse("64 hexadecimal digits in lower case");
    if (format == Format::time && !looks_like(text, "0000-00-00T00:00:00Z")) refuse("a time like 2026-01-31T12:00:00Z");
    if (format == Format::path && std::any_of(text.begin(), text.end(), is_control))
        refuse("a path without control characters");
}

/// Reads JSON values into the members of records, and refuses what `fields` does not allow.
struct Reader {
    static void read(Json const& value, Place const& place, bool& member) {
        require_type(value.is_boolean(), value, place, "a boolean");
        member = value.get<bool>();
    }

    static void read(Json const& value, Place const& place, std::int64_t& member, Whole bounds) {
        require_type(is_whole(value), value, place, "an integer");
        bool const fits = !value.is_number_float() &&
                          (!value.is_number_unsigned() || value.get<std::uint64_t>() <= std::uint64_t{INT64_MAX});
        member = fits ? value.get<std::int64_t>() : 0;
        if (!fits || member < bounds.least || member > bounds.most)
            throw manifest_error("out_of_range", place.text(),
                                 "a number from " + std::to_string(bounds.least) + " to " + std::to_string(bounds.most),
                                 shown(value));
    }

    static void read(Json const& value, Place const& place, double& member, Real bounds) {
        require_type(value.is_number(), value, place, "a number");
        member = value.get<double>();
        if (member < bounds.least || member > bounds.most || (bounds.open && member == bounds.least))
            throw manifest_error("out_of_range", place.text(),
                                 std::string("a number ") + (bounds.open ? "above " : "from ") + shown(bounds.least) +
                                     " to " + shown(bounds.most),
                                 shown(value));
    }

    static void read(Json const& value, Place const& place, std::string& member, Text const& text) {
        require_type(value.is_string(), value, place, "a string");
        member = value.get<std::string>();
        auto const starts_character = [](char byte) { return (byte & 0xc0) != 0x80; };
        auto const characters = std::count_if(member.begin(), member.end(), starts_character);
        check_length(static_cast<std::size_t>(characters), {text.least, text.most}, place, " characters");
        check_format(member, text.format, place);
    }

    template <typename T>
    static void read(Json const& value, Place const& place, T& member, Among<T> const& among) {
        if constexpr (std::is_same_v<T, std::string>)
            require_type(value.is_string(), value, place, "a string");
        else
            require_type(is_whole(value), value, place, "an integer");
        auto const& values = among.values;
        auto const found = std::find_if(values.begin(), values.end(), [&](T const& each) { return value == each; });
        if (found == values.end()) {
            std::string all;
            for (T const& each : values) all += (all.empty() ? "" : ", ") + shown(each);
            throw manifest_error("unknown_value", place.text(), "one of " + all, shown(value));
        }
        member = *found;
    }

    static void read(Json const& value, Place const& place, std::variant<std::int64_t, std::string>& member,
                     Whole bounds, Text const& text) {
        if (value.is_string()) {
            read(value, place, member.emplace<std::string>(), text);
        } else {
            require_type(is_whole(value), value, place, "an integer or a string");
            read(value, place, member.emplace<std::int64_t>(), bounds);
        }
    }

    static void read(Json const& value, Place const& place, std::array<std::int64_t, 2>& member, Whole bounds) {
        require_type(value.is_array(), value, place, "an array");
        check_length(value.size(), {2, 2}, place, " elements");
        for (std::size_t i = 0; i < 2; ++i) read(value[i], Place(place, i), member[i], bounds);
    }

    static void read(Json const& value, Place const& place, Size& member, Whole bounds) {
        std::array<std::int64_t, 2> sides{};
        read(value, place, sides, bounds);
        member = {sides[0], sides[1]};
    }

    template <typename T, typename... Rule>
    static void read(Json const& value, Place const& place, std::optional<T>& member, Rule const&... rule) {
        if (!value.is_null()) read(value, place, member.emplace(), rule...);
    }

    template <typename T, typename... Rule>
    static void read(Json const& value, Place const& place, std::vector<T>& member, Length length,
                     Rule const&... rule) {
        require_type(value.is_array(), value, place, "an array");
        check_length(value.size(), length, place, " elements");
        for (std::size_t i = 0; i < value.size(); ++i) read(value[i], Place(place, i), member.emplace_back(), rule...);
    }

    template <typename T, typename... Rule>
    static void read(Json const& value, Place const& place, std::map<std::string, T>& member, Keys const& keys,
                     Rule const&... rule) {
        require_type(value.is_object(), value, place, "an object");
        for (auto const& [name, element] : value.items()) {
            Place const below(place, name);
            std::string key;
            read(Json(name), below, key, keys.text);
            read(element, below, member[key], rule...);
        }
    }

    template <typename T>
    static void read(Json const& value, Place const& place, std::map<std::string, T>& member, Names const& names) {
        Reader reader(value, place);
        for (auto const& name : names.all) reader(name, member[name]);
        reader.refuse_others();
    }

    template <typename Record>
    static void read(Json const& value, Place const& place, Record& record) {
        Reader reader(value, place);
        fields(reader, record);
        reader.refuse_others();
    }

    Reader(Json const& value, Place const& place) : value_(value), place_(place) {
        require_type(value.is_object(), value, place, "an object");
    }

    template <typename T, typename... Rule>
    void operator()(std::string const& name, T& member, Rule const&... rule) {
        Place const below(place_, name);
        auto const found = value_.find(name);
        if (found == value_.end()) throw manifest_error("missing_field", below.text(), "a value", "none");
        known_.insert(name);
        read(*found, below, member, rule...);
    }

    void refuse_others() const {
        for (auto const& [name, element] : value_.items())
            if (!known_.count(name))
                throw manifest_error("unknown_field", Place(place_, name).text(), "no such field", shown(element));
    }

private:
    Json const& value_;
    Place const& place_;
    std::set<std::string> known_;
};

/// Before anything else: of another version nothing else can be said.
void check_version(Json const& document) {
    if (!document.is_object() || !document.contains("schema_version")) return;
    auto const& found = document["schema_version"];
    if (is_whole(found) && found != kSchemaVersion)
        throw BundleError("wrong_version", "$.schema_version",
                          "expected schema version " + std::to_string(kSchemaVersion) + " in manifest.json, found " +
                              shown(found) +
                              "; use the asap-export release that wrote this bundle, or export it again");
}

}  // namespace

Manifest parse_manifest(std::string_view content) {
    Json const document = read_document(content);
    check_version(document);
    Manifest manifest;
    Reader::read(document, Place(), manifest);
    check_rules(manifest);
    return manifest;
}

}  // namespace asap::detail
