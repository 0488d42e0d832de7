#include "manifest_json.hpp"

namespace asap::detail {

namespace {

using nlohmann::json;

template <typename T>
json or_null(std::optional<T> const& value) {
    return value ? json(*value) : json();
}

template <typename T, typename Convert>
json list(std::vector<T> const& values, Convert convert) {
    json result = json::array();
    for (auto const& value : values) result.push_back(convert(value));
    return result;
}

template <typename T, typename Convert>
json table(std::map<std::string, T> const& values, Convert convert) {
    json result = json::object();
    for (auto const& [name, value] : values) result[name] = convert(value);
    return result;
}

json of_size(Size size) { return {size.height, size.width}; }

json of_model(ModelSpec const& spec) {
    return {{"architecture", spec.architecture},
            {"text_model_type", spec.text_model_type},
            {"hidden_size", spec.hidden_size},
            {"intermediate_size", spec.intermediate_size},
            {"layers", spec.layers},
            {"heads", spec.heads},
            {"kv_heads", spec.kv_heads},
            {"head_dim", spec.head_dim},
            {"vocab_size", spec.vocab_size},
            {"max_position_embeddings", spec.max_position_embeddings},
            {"image_token_id", spec.image_token_id},
            {"eos_token_ids", spec.eos_token_ids},
            {"bos_token_id", or_null(spec.bos_token_id)},
            {"pad_token_id", or_null(spec.pad_token_id)},
            {"tile_size", spec.tile_size},
            {"patch_size", spec.patch_size},
            {"grid_pinpoints", list(spec.grid_pinpoints, of_size)},
            {"class_token", spec.class_token},
            {"max_visual_tokens", spec.max_visual_tokens},
            {"dtype", spec.dtype}};
}

json of_pruning(PruningConfig const& config) {
    return {{"method", config.method},
            {"prune_after", config.prune_after},
            {"score", config.score},
            {"lambda_max", config.lambda_max},
            {"threshold", config.threshold},
            {"merge", config.merge},
            {"bidirectional", config.bidirectional},
            {"trim_early_kv", config.trim_early_kv},
            {"seed", config.seed}};
}

json of_tensor(TensorInfo const& tensor) {
    auto const dimension = [](auto const& variant) {
        return std::visit([](auto const& value) { return json(value); }, variant);
    };
    return {{"name", tensor.name}, {"dtype", tensor.dtype}, {"dims", list(tensor.dims, dimension)}};
}

json of_graph(GraphInfo const& graph) {
    return {
        {"file", graph.file}, {"inputs", list(graph.inputs, of_tensor)}, {"outputs", list(graph.outputs, of_tensor)}};
}

json of_cpu_decoder(CpuDecoder const& decoder) {
    json result = of_graph(decoder);
    result["passes"] = decoder.passes;
    return result;
}

json of_range(ShapeRange const& range) { return {{"min", range.min}, {"opt", range.opt}, {"max", range.max}}; }

json of_profile(Profile const& profile) {
    return {{"name", profile.name},
            {"shapes", table(profile.shapes, of_range)},
            {"values", table(profile.values, of_range)}};
}

json of_part(EnginePart const& part) {
    return {{"number", part.number},
            {"of", part.of},
            {"layers", part.layers},
            {"inputs", list(part.inputs, of_tensor)},
            {"outputs", list(part.outputs, of_tensor)}};
}

json of_engine(EngineInfo const& engine) {
    return {{"graph", engine.graph},
            {"file", engine.file},
            {"flavour", engine.flavour},
            {"tensorrt_version", engine.tensorrt_version},
            {"compute_capabilities", engine.compute_capabilities},
            {"profiles", list(engine.profiles, of_profile)},
            {"decomposed_attention", engine.decomposed_attention},
            {"part", engine.part ? of_part(*engine.part) : json()}};
}

json of_file(FileInfo const& file) { return {{"sha256", file.sha256}, {"size", file.size}}; }

json of_turn(TurnParts const& turn) {
    return {{"start", turn.start}, {"image", turn.image}, {"after_images", turn.after_images}, {"end", turn.end}};
}

json of_prompt(PromptInfo const& prompt) {
    json result = {
        {"image_token", prompt.image_token}, {"bos_token", or_null(prompt.bos_token)}, {"template", nullptr}};
    if (auto const& parts = prompt.chat_template)
        result["template"] = {
            {"trims", parts->trims}, {"first", of_turn(parts->first)}, {"later", of_turn(parts->later)}};
    return result;
}

}  // namespace

nlohmann::json json_of(Manifest const& manifest) {
    auto const& [id, revision, files] = manifest.source;
    auto const& limits = manifest.limits;
    json result = {{"schema_version", kSchemaVersion},
                   {"created", manifest.created},
                   {"tools", manifest.tools},
                   {"source", {{"id", id}, {"revision", or_null(revision)}, {"files", files}}},
                   {"model", of_model(manifest.model)},
                   {"dtype", manifest.dtype},
                   {"quantization", nullptr},
                   {"pruning", of_pruning(manifest.pruning)},
                   {"budget",
                    {{"keep", or_null(manifest.budget.keep)},
                     {"ratio", or_null(manifest.budget.ratio)},
                     {"layer_average", or_null(manifest.budget.layer_average)}}},
                   {"limits",
                    {{"max_batch", limits.max_batch},
                     {"max_images", limits.max_images},
                     {"max_text", limits.max_text},
                     {"max_new_tokens", limits.max_new_tokens}}},
                   {"opset", manifest.opset},
                   {"graphs", table(manifest.graphs, of_graph)},
                   {"cpu_decoder", manifest.cpu_decoder ? of_cpu_decoder(*manifest.cpu_decoder) : json()},
                   {"prompt", of_prompt(manifest.prompt)},
                   {"engines", list(manifest.engines, of_engine)},
                   {"files", table(manifest.files, of_file)}};
    if (auto const& quantization = manifest.quantization)
        result["quantization"] = {{"bits", quantization->bits}, {"block_size", quantization->block_size}};
    return result;
}

}  // namespace asap::detail
