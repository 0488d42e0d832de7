#include "manifest.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <asap/error.hpp>
#include <nlohmann/json.hpp>

#include "anyres.hpp"
#include "json_schema.hpp"
#include "manifest_schema.hpp"
#include "wording.hpp"

namespace asap::detail {

namespace {

using Json = nlohmann::json;

constexpr std::int64_t kLargestSize = std::numeric_limits<std::int32_t>::max();  // products of two stay in 64 bits
constexpr std::int64_t kMostLayers = 4096;
constexpr int kDeepest = 900;  // arrays and objects within each other; Python gives up around 1,000

Error refused(std::string const& what, std::string const& found) {
    return Error("expected " + what + " in manifest.json, found " + found + "; export the bundle again");
}

// Readers of values that satisfy the schema. Only the range of integers is left to check: JSON's have none.

std::int64_t integer(Json const& value, std::string const& name, std::int64_t limit) {
    bool fits = false;
    if (value.is_number_float())  // 5.0 is an integer too
        fits = std::abs(value.get<double>()) < 0x1p63;
    else
        fits = !value.is_number_unsigned() || value.get<std::uint64_t>() <= std::uint64_t{INT64_MAX};
    auto const number = fits ? value.get<std::int64_t>() : 0;
    if (!fits || number > limit)
        throw refused("a number of at most " + std::to_string(limit) + " as " + name, json_repr(value));
    return number;
}

std::int64_t integer(Json const& record, char const* name) {
    return integer(record.at(name), name, std::numeric_limits<std::int64_t>::max());
}

std::int64_t size(Json const& record, char const* name) { return integer(record.at(name), name, kLargestSize); }

std::string text(Json const& record, char const* name) { return record.at(name).get<std::string>(); }

/// Nothing where the member is null.
template <typename Read>
auto optional(Json const& record, char const* name, Read read) {
    auto const& value = record.at(name);
    using Value = decltype(read(value));
    return value.is_null() ? std::optional<Value>() : std::optional<Value>(read(value));
}

template <typename Read>
auto list(Json const& record, char const* name, Read read) {
    std::vector<decltype(read(record))> result;
    for (auto const& element : record.at(name)) result.push_back(read(element));
    return result;
}

template <typename Read>
auto table(Json const& record, char const* name, Read read) {
    std::map<std::string, decltype(read(record))> result;
    for (auto const& [key, value] : record.at(name).items()) result.emplace(key, read(value));
    return result;
}

std::string as_text(Json const& value) { return value.get<std::string>(); }

double as_number(Json const& value) { return value.get<double>(); }

std::int64_t as_integer(Json const& value) { return integer(value, "one", std::numeric_limits<std::int64_t>::max()); }

std::int64_t as_size(Json const& value) { return integer(value, "a size", kLargestSize); }

Source source(Json const& record) {
    return {text(record, "id"), optional(record, "revision", as_text), table(record, "files", as_text)};
}

Size pinpoint(Json const& pair) { return {as_size(pair[0]), as_size(pair[1])}; }

ModelSpec model_spec(Json const& record) {
    ModelSpec spec;
    spec.architecture = text(record, "architecture");
    spec.text_model_type = text(record, "text_model_type");
    spec.hidden_size = size(record, "hidden_size");
    spec.intermediate_size = size(record, "intermediate_size");
    spec.layers = integer(record.at("layers"), "layers", kMostLayers);
    spec.heads = size(record, "heads");
    spec.kv_heads = size(record, "kv_heads");
    spec.head_dim = size(record, "head_dim");
    spec.vocab_size = size(record, "vocab_size");
    spec.max_position_embeddings = size(record, "max_position_embeddings");
    spec.image_token_id = integer(record, "image_token_id");
    spec.eos_token_ids = list(record, "eos_token_ids", as_integer);
    spec.bos_token_id = optional(record, "bos_token_id", as_integer);
    spec.pad_token_id = optional(record, "pad_token_id", as_integer);
    spec.tile_size = size(record, "tile_size");
    spec.patch_size = size(record, "patch_size");
    spec.grid_pinpoints = list(record, "grid_pinpoints", pinpoint);
    spec.class_token = record.at("class_token").get<bool>();
    spec.max_visual_tokens = size(record, "max_visual_tokens");
    spec.dtype = text(record, "dtype");
    return spec;
}

Quantization quantization(Json const& record) { return {size(record, "bits"), size(record, "block_size")}; }

PruningConfig pruning_config(Json const& record) {
    PruningConfig config;
    config.method = text(record, "method");
    config.prune_after = integer(record, "prune_after");
    config.score = text(record, "score");
    config.lambda_max = record.at("lambda_max").get<double>();
    config.threshold = record.at("threshold").get<double>();
    config.merge = record.at("merge").get<bool>();
    config.bidirectional = record.at("bidirectional").get<bool>();
    config.trim_early_kv = record.at("trim_early_kv").get<bool>();
    config.seed = integer(record, "seed");
    return config;
}

Budget budget(Json const& record) {
    return {optional(record, "keep", as_integer), optional(record, "ratio", as_number),
            optional(record, "layer_average", as_number)};
}

Limits limits(Json const& record) {
    return {size(record, "max_batch"), size(record, "max_images"), size(record, "max_text"),
            size(record, "max_new_tokens")};
}

TensorInfo tensor_info(Json const& record) {
    auto const dimension = [](Json const& value) -> std::variant<std::int64_t, std::string> {
        if (value.is_string()) return value.get<std::string>();
        return as_size(value);
    };
    return {text(record, "name"), text(record, "dtype"), list(record, "dims", dimension)};
}

GraphInfo graph_info(Json const& record) {
    return {text(record, "file"), list(record, "inputs", tensor_info), list(record, "outputs", tensor_info)};
}

CpuDecoder cpu_decoder(Json const& record) { return {graph_info(record), list(record, "passes", as_text)}; }

ShapeRange shape_range(Json const& record) {
    return {list(record, "min", as_integer), list(record, "opt", as_integer), list(record, "max", as_integer)};
}

Profile profile(Json const& record) {
    return {text(record, "name"), table(record, "shapes", shape_range), table(record, "values", shape_range)};
}

EnginePart engine_part(Json const& record) {
    auto const& layers = record.at("layers");
    return {integer(record, "number"),
            integer(record, "of"),
            {as_integer(layers[0]), as_integer(layers[1])},
            list(record, "inputs", tensor_info),
            list(record, "outputs", tensor_info)};
}

EngineInfo engine_info(Json const& record) {
    return {text(record, "graph"),
            text(record, "file"),
            text(record, "flavour"),
            text(record, "tensorrt_version"),
            list(record, "compute_capabilities", as_text),
            list(record, "profiles", profile),
            list(record, "decomposed_attention", as_text),
            optional(record, "part", engine_part)};
}

FileInfo file_info(Json const& record) { return {text(record, "sha256"), integer(record, "size")}; }

TurnParts turn_parts(Json const& record) {
    return {text(record, "start"), text(record, "image"), text(record, "after_images"), text(record, "end")};
}

TemplateInfo template_info(Json const& record) {
    return {record.at("trims").get<bool>(), turn_parts(record.at("first")), turn_parts(record.at("later"))};
}

PromptInfo prompt_info(Json const& record) {
    return {text(record, "image_token"), optional(record, "bos_token", as_text),
            optional(record, "template", template_info)};
}

Manifest manifest_of(Json const& document) {
    Manifest manifest;
    manifest.created = text(document, "created");
    manifest.tools = table(document, "tools", as_text);
    manifest.source = source(document.at("source"));
    manifest.model = model_spec(document.at("model"));
    manifest.dtype = text(document, "dtype");
    manifest.pruning = pruning_config(document.at("pruning"));
    manifest.budget = budget(document.at("budget"));
    manifest.limits = limits(document.at("limits"));
    manifest.opset = integer(document, "opset");
    manifest.graphs = table(document, "graphs", graph_info);
    manifest.cpu_decoder = optional(document, "cpu_decoder", cpu_decoder);
    manifest.prompt = prompt_info(document.at("prompt"));
    manifest.quantization = optional(document, "quantization", quantization);
    manifest.engines = list(document, "engines", engine_info);
    manifest.files = table(document, "files", file_info);
    return manifest;
}

/// "line 2 column 5 (char 17)", as Python says where JSON ends being JSON.
std::string position(std::string_view document, std::size_t at) {
    std::string_view const before = document.substr(0, std::min(at, document.size()));
    auto const line_start = before.rfind('\n') + 1;  // 0 where there is none
    auto const lines = 1 + std::count(before.begin(), before.end(), '\n');
    return "line " + std::to_string(lines) + " column " + std::to_string(before.size() - line_start + 1) + " (char " +
           std::to_string(before.size()) + ")";
}

Error no_json(std::string const& found) {
    return Error("expected JSON in manifest.json, found " + found + "; export the bundle again");
}

Json parsed(std::string_view document) {
    auto const watch_depth = [](int depth, Json::parse_event_t, Json&) {
        if (depth > kDeepest) throw no_json("arrays or objects nested too deeply");
        return true;
    };
    try {
        return Json::parse(document.begin(), document.end(), watch_depth);
    } catch (Json::parse_error const& error) {
        throw no_json("a syntax error: " + position(document, error.byte ? error.byte - 1 : 0));
    } catch (Json::exception const& error) {  // a number too large for a double
        throw no_json(one_line(error.what()));
    }
}

/// Python's text[:120] ... text[-75:], which counts characters, where it has more than 200 of them.
std::string shortened(std::string const& text) {
    std::vector<std::size_t> starts;
    for (std::size_t i = 0; i < text.size(); ++i)
        if ((text[i] & 0xc0) != 0x80) starts.push_back(i);
    if (starts.size() <= 200) return text;
    return text.substr(0, starts[120]) + " ... " + text.substr(starts[starts.size() - 75]);
}

void check_version(Json const& document) {
    if (!document.is_object() || !document.contains("schema_version")) return;
    auto const& found = document["schema_version"];
    bool const number = found.is_number_integer() || found.is_boolean();  // as in Python
    if (number && found != kSchemaVersion)
        throw Error("expected schema version " + std::to_string(kSchemaVersion) + " in manifest.json, found " +
                    json_repr(found) + "; use the asap-export release that wrote this bundle, or export it again");
}

void check_schema(Json const& document) {
    auto const schema = nlohmann::ordered_json::parse(manifest_schema());
    if (auto const breach = best_breach(schema, document))
        throw Error("manifest.json breaks its schema at " + breach->place + ": " +
                    shortened(one_line(breach->message)) + "; export the bundle again");
}

}  // namespace

Manifest parse_manifest(std::string_view text) {
    Json const document = parsed(text);
    check_version(document);
    check_schema(document);
    Manifest manifest = manifest_of(document);
    TileGeometry::of(manifest.model);  // refuses sizes that fit no picture
    if (manifest.pruning.prunes() && manifest.pruning.prune_after >= manifest.model.layers)
        throw refused("prune_after below the model's " + std::to_string(manifest.model.layers) + " layers",
                      std::to_string(manifest.pruning.prune_after));
    return manifest;
}

}  // namespace asap::detail
