#include "json_schema.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <map>
#include <set>
#include <stdexcept>
#include <string_view>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "pattern.hpp"
#include "wording.hpp"

namespace asap::detail {

namespace {

using Schema = nlohmann::ordered_json;  // the order of keywords and properties settles ties between breaches
using Json = nlohmann::json;
using Path = std::vector<std::variant<std::size_t, std::string>>;

/// One breach, while it is reported: pointers into the schema and the document.
struct Report {
    Path const& path;
    std::string_view keyword;
    Schema const& schema;  // the one that holds the keyword
    Json const& instance;
    std::string message;
    Schema const* alternatives;  // of an anyOf or oneOf of which none fits
};

using Sink = std::function<void(Report const&)>;

bool is_type(Json const& instance, std::string const& type) {
    if (type == "integer")  // 5.0 is one
        return instance.is_number_integer() ||
               (instance.is_number_float() && std::trunc(instance.get<double>()) == instance.get<double>());
    if (type == "number") return instance.is_number();
    if (type == "boolean") return instance.is_boolean();
    return type == instance.type_name();
}

/// `types`: a name or an array of names.
bool is_any_type(Json const& instance, Schema const& types) {
    if (types.is_string()) return is_type(instance, types.get_ref<std::string const&>());
    return std::any_of(types.begin(), types.end(),
                       [&](Schema const& type) { return is_type(instance, type.get_ref<std::string const&>()); });
}

std::string joined(Schema const& values) {
    if (!values.is_array()) return json_repr(values);
    std::string result;
    for (auto const& value : values) result += (result.empty() ? "" : ", ") + json_repr(value);
    return result;
}

/// Characters of valid UTF-8.
std::size_t characters(std::string const& text) {
    return static_cast<std::size_t>(
        std::count_if(text.begin(), text.end(), [](char byte) { return (byte & 0xc0) != 0x80; }));
}

class Validator {
public:
    explicit Validator(Schema const& root) : root_(root) {}

    /// Tells `sink` of every breach of `schema` by `instance`, which lies at `path`.
    void check(Schema const& schema, Json const& instance, Path& path, Sink const& sink) const {
        for (auto const& [keyword, value] : schema.items()) {
            if (annotations().count(keyword)) continue;
            auto const rule = rules().find(keyword);
            if (rule == rules().end()) throw std::logic_error("a schema with the unknown keyword " + keyword);
            Site const site{keyword, value, schema, instance, path, sink};
            (this->*rule->second)(site);
        }
    }

private:
    struct Site {
        std::string const& keyword;
        Schema const& value;  // the keyword's
        Schema const& schema;
        Json const& instance;
        Path& path;
        Sink const& sink;

        void report(std::string message, Schema const* alternatives = nullptr) const {
            sink({path, keyword, schema, instance, std::move(message), alternatives});
        }
        std::string found() const { return json_repr(instance); }
    };
    using Rule = void (Validator::*)(Site const&) const;

    static std::set<std::string> const& annotations() {
        static std::set<std::string> const names = {"$schema", "$defs", "title", "description"};
        return names;
    }
    static std::map<std::string, Rule> const& rules();

    bool satisfies(Schema const& schema, Json const& instance, Path& path) const {
        bool breached = false;
        check(schema, instance, path, [&](Report const&) { breached = true; });
        return !breached;
    }

    template <typename Part>
    void descend(Site const& site, Schema const& schema, Json const& instance, Part part) const {
        site.path.emplace_back(std::move(part));
        check(schema, instance, site.path, site.sink);
        site.path.pop_back();
    }

    void ref(Site const& site) const {
        auto const place = site.value.get_ref<std::string const&>().substr(1);  // "#/$defs/tensor"
        check(root_.at(Schema::json_pointer(place)), site.instance, site.path, site.sink);
    }

    void type(Site const& site) const {
        if (!is_any_type(site.instance, site.value))
            site.report(site.found() + " is not of type " + joined(site.value));
    }

    void constant(Site const& site) const {
        if (Json(site.value) != site.instance) site.report(json_repr(site.value) + " was expected");
    }

    void one_of_values(Site const& site) const {
        auto const same = [&](Schema const& value) { return Json(value) == site.instance; };
        if (std::none_of(site.value.begin(), site.value.end(), same))
            site.report(site.found() + " is not one of " + json_repr(site.value));
    }

    void pattern(Site const& site) const {
        if (!site.instance.is_string()) return;
        auto const& text = site.value.get_ref<std::string const&>();
        auto const compiled = patterns_.try_emplace(text, text).first;
        if (!compiled->second.found_in(site.instance.get_ref<std::string const&>()))
            site.report(site.found() + " does not match " + json_repr(site.value));
    }

    void min_length(Site const& site) const {
        if (!site.instance.is_string()) return;
        auto const least = site.value.get<std::size_t>();
        if (characters(site.instance.get_ref<std::string const&>()) < least)
            site.report(site.found() + (least == 1 ? " should be non-empty" : " is too short"));
    }

    void minimum(Site const& site) const {
        if (site.instance.is_number() && site.instance < Json(site.value))
            site.report(site.found() + " is less than the minimum of " + json_repr(site.value));
    }

    void exclusive_minimum(Site const& site) const {
        if (site.instance.is_number() && site.instance <= Json(site.value))
            site.report(site.found() + " is less than or equal to the minimum of " + json_repr(site.value));
    }

    void maximum(Site const& site) const {
        if (site.instance.is_number() && site.instance > Json(site.value))
            site.report(site.found() + " is greater than the maximum of " + json_repr(site.value));
    }

    void min_items(Site const& site) const {
        auto const least = site.value.get<std::size_t>();
        if (site.instance.is_array() && site.instance.size() < least)
            site.report(site.found() + (least == 1 ? " should be non-empty" : " is too short"));
    }

    void max_items(Site const& site) const {
        auto const most = site.value.get<std::size_t>();
        if (site.instance.is_array() && site.instance.size() > most)
            site.report(site.found() + (most == 0 ? " is expected to be empty" : " is too long"));
    }

    void items(Site const& site) const {
        if (!site.instance.is_array()) return;
        for (std::size_t i = 0; i < site.instance.size(); ++i) descend(site, site.value, site.instance[i], i);
    }

    void required(Site const& site) const {
        if (!site.instance.is_object()) return;
        for (auto const& name : site.value)
            if (!site.instance.contains(name.get_ref<std::string const&>()))
                site.report(json_repr(name) + " is a required property");
    }

    void properties(Site const& site) const {
        if (!site.instance.is_object()) return;
        for (auto const& [name, schema] : site.value.items()) {
            auto const member = site.instance.find(name);
            if (member != site.instance.end()) descend(site, schema, *member, name);
        }
    }

    void additional_properties(Site const& site) const {
        if (!site.instance.is_object()) return;
        auto const known = site.schema.find("properties");
        std::string extras;
        std::size_t count = 0;
        for (auto const& [name, member] : site.instance.items()) {
            if (known != site.schema.end() && known->contains(name)) continue;
            if (site.value.is_object()) {
                descend(site, site.value, member, name);
            } else if (!site.value.get<bool>()) {
                ++count;
                if (extras.size() < 4096) extras += (extras.empty() ? "" : ", ") + python_repr(name);
            }
        }
        if (count)
            site.report("Additional properties are not allowed (" + extras + (count == 1 ? " was" : " were") +
                        " unexpected)");
    }

    void property_names(Site const& site) const {
        if (!site.instance.is_object()) return;
        for (auto const& member : site.instance.items()) check(site.value, Json(member.key()), site.path, site.sink);
    }

    void any_of(Site const& site) const {
        auto const fits = [&](Schema const& schema) { return satisfies(schema, site.instance, site.path); };
        if (std::none_of(site.value.begin(), site.value.end(), fits))
            site.report(site.found() + " is not valid under any of the given schemas", &site.value);
    }

    void one_of(Site const& site) const {
        std::vector<Schema const*> valid;
        for (auto const& schema : site.value)
            if (satisfies(schema, site.instance, site.path)) valid.push_back(&schema);
        if (valid.empty())
            return site.report(site.found() + " is not valid under any of the given schemas", &site.value);
        if (valid.size() == 1) return;
        std::rotate(valid.begin(), valid.begin() + 1, valid.end());  // jsonschema names the first one last
        std::string list;
        for (auto const* const schema : valid) list += (list.empty() ? "" : ", ") + json_repr(*schema);
        site.report(site.found() + " is valid under each of " + list);
    }

    Schema const& root_;
    mutable std::map<std::string, Pattern> patterns_;  // compiled so far
};

std::map<std::string, Validator::Rule> const& Validator::rules() {
    static std::map<std::string, Rule> const table = {
        {"$ref", &Validator::ref},
        {"type", &Validator::type},
        {"const", &Validator::constant},
        {"enum", &Validator::one_of_values},
        {"pattern", &Validator::pattern},
        {"minLength", &Validator::min_length},
        {"minimum", &Validator::minimum},
        {"exclusiveMinimum", &Validator::exclusive_minimum},
        {"maximum", &Validator::maximum},
        {"minItems", &Validator::min_items},
        {"maxItems", &Validator::max_items},
        {"items", &Validator::items},
        {"required", &Validator::required},
        {"properties", &Validator::properties},
        {"additionalProperties", &Validator::additional_properties},
        {"propertyNames", &Validator::property_names},
        {"anyOf", &Validator::any_of},
        {"oneOf", &Validator::one_of},
    };
    return table;
}

/// What is kept of a report.
struct Kept {
    Path path;
    bool weak;             // anyOf and oneOf say less than any other keyword
    bool of_another_type;  // the instance is not even of the schema's type
    std::string message;
    Schema const* alternatives;
    Json const* instance;  // of alternatives

    explicit Kept(Report const& report)
        : path(report.path),
          weak(report.keyword == "anyOf" || report.keyword == "oneOf"),
          of_another_type(!report.schema.contains("type") || !is_any_type(report.instance, report.schema.at("type"))),
          message(report.message),
          alternatives(report.alternatives),
          instance(report.alternatives ? &report.instance : nullptr) {}
};

bool less_relevant(Kept const& a, Kept const& b) {
    if (a.path.size() != b.path.size()) return a.path.size() > b.path.size();
    return std::tie(a.path, b.weak, a.of_another_type) < std::tie(b.path, a.weak, b.of_another_type);
}

/// The least relevant breach of the alternatives, which is the deepest; nothing where there is none, or two
/// are alike.
std::optional<Kept> within(Validator const& validator, Kept const& breach) {
    std::vector<Kept> least;  // up to two, in order
    Path path = breach.path;
    for (auto const& schema : *breach.alternatives) {
        validator.check(schema, *breach.instance, path, [&](Report const& report) {
            Kept kept(report);
            auto const place = std::upper_bound(least.begin(), least.end(), kept, less_relevant);
            least.insert(place, std::move(kept));
            if (least.size() > 2) least.pop_back();
        });
    }
    if (least.empty() || (least.size() == 2 && !less_relevant(least[0], least[1]))) return std::nullopt;
    return std::move(least[0]);
}

bool is_plain(std::string const& name) {
    auto const letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
    return !name.empty() && letter(name[0]) && std::all_of(name.begin(), name.end(), [&](char c) {
        return letter(c) || (c >= '0' && c <= '9') || c == '_';
    });
}

std::string place_of(Path const& path) {
    std::string place = "$";
    for (auto const& part : path) {
        if (auto const* const index = std::get_if<std::size_t>(&part)) {
            place += "[" + std::to_string(*index) + "]";
        } else if (auto const& name = std::get<std::string>(part); is_plain(name)) {
            place += "." + name;
        } else {
            place += "['";
            for (char const letter : name) {
                if (letter == '\\' || letter == '\'') place += '\\';
                place += letter;
            }
            place += "']";
        }
    }
    return place;
}

}  // namespace

std::optional<Breach> best_breach(nlohmann::ordered_json const& schema, nlohmann::json const& document) {
    Validator const validator(schema);
    std::optional<Kept> best;
    Path path;
    validator.check(schema, document, path, [&](Report const& report) {
        Kept kept(report);
        if (!best || less_relevant(*best, kept)) best = std::move(kept);
    });
    if (!best) return std::nullopt;
    while (best->alternatives) {
        auto deeper = within(validator, *best);
        if (!deeper) break;
        best = std::move(deeper);
    }
    return Breach{place_of(best->path), best->message};
}

}  // namespace asap::detail
