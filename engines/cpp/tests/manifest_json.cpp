#include "manifest_json.hpp"

#include "manifest_fields.hpp"

namespace asap::detail {

namespace {

using Json = nlohmann::json;

/// The mirror of the reader in manifest.cpp; what a field may be does not matter here.
struct Writer {
    template <typename T, typename... Rule>
    void operator()(char const* name, T& member, Rule const&...) {
        record[name] = json(member);
    }

    template <typename T>
    static Json json(T& value) {
        if constexpr (std::is_constructible_v<Json, T>) {
            return value;
        } else {
            Writer writer;
            fields(writer, value);
            return writer.record;
        }
    }

    static Json json(Size& size) { return {size.height, size.width}; }

    static Json json(std::variant<std::int64_t, std::string>& dimension) {
        return std::visit([](auto& value) { return Json(value); }, dimension);
    }

    template <typename T>
    static Json json(std::optional<T>& value) {
        return value ? json(*value) : Json();
    }

    template <typename T>
    static Json json(std::vector<T>& values) {
        Json result = Json::array();
        for (auto& value : values) result.push_back(json(value));
        return result;
    }

    template <typename T>
    static Json json(std::map<std::string, T>& values) {
        Json result = Json::object();
        for (auto& [name, value] : values) result[name] = json(value);
        return result;
    }

    Json record = Json::object();
};

}  // namespace

nlohmann::json json_of(Manifest manifest) { return Writer::json(manifest); }

}  // namespace asap::detail
