/// The fields of a manifest's records under their names in the file, with what each may be: stated once, for the reader
/// in manifest.cpp and the writer that the tests have. The definition is asap_export/bundle/manifest.py, and tests hold
/// this file to it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "manifest.hpp"

namespace asap::detail {

/// An integer within bounds.
struct Whole {
    std::int64_t least, most;
};

/// A number within bounds, `least` itself left out where `open`.
struct Real {
    double least, most;
    bool open = false;
};

/// One of a few values.
template <typename T>
struct Among {
    std::vector<T> values;
};

enum class Format { any, sha256, time, path };

/// A string of so many characters.
struct Text {
    std::size_t least, most;
    Format format = Format::any;
};

/// The number of elements of a list; what is said behind it is said of each element.
struct Length {
    std::size_t least, most = std::numeric_limits<std::size_t>::max();
};

/// The names of a table are any such texts; what is said behind it is said of each value.
struct Keys {
    Text text;
};

/// The names of a table are these, all of them.
struct Names {
    std::vector<std::string> all;  // sorted
};

constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();  // products of two stay in 64 bits
constexpr Whole kNumber{0, kLargest};
constexpr Whole kCount{1, kLargest};
constexpr Whole kToken{-kLargest, kLargest};
constexpr Whole kLayers{1, 4096};
constexpr Whole kPixels{1, 1 << 16};
constexpr Whole kAny{std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()};
constexpr Text kName{1, 1024};
constexpr Text kText{0, 1 << 16};
constexpr Text kPath{1, 1024, Format::path};
constexpr Text kSha256{64, 64, Format::sha256};
constexpr Length kList{0};
constexpr Length kFilled{1};

using Words = Among<std::string>;
inline Words const kDtypes{{"bf16", "fp16", "fp32"}};
inline Words const kTensorDtypes{{"bf16", "bool", "fp16", "fp32", "int32", "int64", "uint8"}};

template <typename Visit>
void fields(Visit& visit, Source& source) {
    visit("id", source.id, kName);
    visit("revision", source.revision, kText);
    visit("files", source.files, Keys{kName}, kSha256);
}

template <typename Visit>
void fields(Visit& visit, ModelSpec& model) {
    visit("architecture", model.architecture, kName);
    visit("text_model_type", model.text_model_type, kName);
    visit("hidden_size", model.hidden_size, kCount);
    visit("intermediate_size", model.intermediate_size, kCount);
    visit("layers", model.layers, kLayers);
    visit("heads", model.heads, kCount);
    visit("kv_heads", model.kv_heads, kCount);
    visit("head_dim", model.head_dim, kCount);
    visit("vocab_size", model.vocab_size, kCount);
    visit("max_position_embeddings", model.max_position_embeddings, kCount);
    visit("image_token_id", model.image_token_id, kNumber);
    visit("eos_token_ids", model.eos_token_ids, kList, kNumber);
    visit("bos_token_id", model.bos_token_id, kToken);
    visit("pad_token_id", model.pad_token_id, kToken);
    visit("tile_size", model.tile_size, kPixels);
    visit("patch_size", model.patch_size, kPixels);
    visit("grid_pinpoints", model.grid_pinpoints, Length{0, 256}, kPixels);
    visit("class_token", model.class_token);
    visit("max_visual_tokens", model.max_visual_tokens, kCount);
    visit("dtype", model.dtype, kDtypes);
}

template <typename Visit>
void fields(Visit& visit, Quantization& quantization) {
    visit("bits", quantization.bits, Among<std::int64_t>{{4, 8}});
    visit("block_size", quantization.block_size, Among<std::int64_t>{{32, 64, 128}});
}

template <typename Visit>
void fields(Visit& visit, PruningConfig& pruning) {
    visit("method", pruning.method, Words{{"asap", "fastv", "none", "random"}});
    visit("prune_after", pruning.prune_after, kLayers);
    visit("score", pruning.score, Words{{"last", "received", "salience", "text"}});
    visit("lambda_max", pruning.lambda_max, Real{0, 1, true});
    visit("threshold", pruning.threshold, Real{-1, 1});
    visit("merge", pruning.merge);
    visit("bidirectional", pruning.bidirectional);
    visit("trim_early_kv", pruning.trim_early_kv);
    visit("seed", pruning.seed, kAny);
}

template <typename Visit>
void fields(Visit& visit, Budget& budget) {
    visit("keep", budget.keep, kCount);
    visit("ratio", budget.ratio, Real{0, 1, true});
    visit("layer_average", budget.layer_average, Real{1, kLargest});
}

template <typename Visit>
void fields(Visit& visit, Limits& limits) {
    visit("max_batch", limits.max_batch, kCount);
    visit("max_images", limits.max_images, kNumber);
    visit("max_text", limits.max_text, kCount);
    visit("max_new_tokens", limits.max_new_tokens, kCount);
}

template <typename Visit>
void fields(Visit& visit, TensorInfo& tensor) {
    visit("name", tensor.name, kName);
    visit("dtype", tensor.dtype, kTensorDtypes);
    visit("dims", tensor.dims, kList, kNumber, kName);
}

template <typename Visit>
void fields(Visit& visit, GraphInfo& graph) {
    visit("file", graph.file, kPath);
    visit("inputs", graph.inputs, kFilled);
    visit("outputs", graph.outputs, kFilled);
}

template <typename Visit>
void fields(Visit& visit, CpuDecoder& decoder) {
    fields(visit, static_cast<GraphInfo&>(decoder));
    visit("passes", decoder.passes, kList,
          Words{{"blockwise-soft-mask", "fused-attention", "int8-activations", "skipped-cut"}});
}

template <typename Visit>
void fields(Visit& visit, ShapeRange& range) {
    visit("min", range.min, kList, kNumber);
    visit("opt", range.opt, kList, kNumber);
    visit("max", range.max, kList, kNumber);
}

template <typename Visit>
void fields(Visit& visit, Profile& profile) {
    visit("name", profile.name, kName);
    visit("shapes", profile.shapes, Keys{kName});
    visit("values", profile.values, Keys{kName});
}

template <typename Visit>
void fields(Visit& visit, EnginePart& part) {
    visit("number", part.number, kNumber);
    visit("of", part.of, kCount);
    visit("layers", part.layers, kNumber);
    visit("inputs", part.inputs, kFilled);
    visit("outputs", part.outputs, kFilled);
}

template <typename Visit>
void fields(Visit& visit, EngineInfo& engine) {
    visit("graph", engine.graph, Words{{"decoder", "embed_tokens", "vision_encoder"}});
    visit("file", engine.file, kPath);
    visit("flavor", engine.flavor, Words{{"tensorrt", "tensorrt_rtx"}});
    visit("tensorrt_version", engine.tensorrt_version, kName);
    visit("compute_capabilities", engine.compute_capabilities, kList, kName);
    visit("profiles", engine.profiles, kFilled);
    visit("decomposed_attention", engine.decomposed_attention, kList, kName);
    visit("part", engine.part);
}

template <typename Visit>
void fields(Visit& visit, FileInfo& file) {
    visit("sha256", file.sha256, kSha256);
    visit("size", file.size, Whole{0, kAny.most});
}

template <typename Visit>
void fields(Visit& visit, TurnParts& turn) {
    visit("start", turn.start, kText);
    visit("image", turn.image, kText);
    visit("after_images", turn.after_images, kText);
    visit("end", turn.end, kText);
}

template <typename Visit>
void fields(Visit& visit, TemplateInfo& parts) {
    visit("trims", parts.trims);
    visit("first", parts.first);
    visit("later", parts.later);
}

template <typename Visit>
void fields(Visit& visit, PromptInfo& prompt) {
    visit("image_token", prompt.image_token, kName);
    visit("bos_token", prompt.bos_token, kText);
    visit("template", prompt.chat_template);
}

template <typename Visit>
void fields(Visit& visit, GenerationInfo& generation) {
    visit("max_new_tokens", generation.max_new_tokens, kCount);
    visit("min_new_tokens", generation.min_new_tokens, kNumber);
    visit("temperature", generation.temperature, Real{0, 1e6});
    visit("top_k", generation.top_k, kNumber);
    visit("top_p", generation.top_p, Real{0, 1, true});
    visit("min_p", generation.min_p, Real{0, 1});
    visit("repetition_penalty", generation.repetition_penalty, Real{0, 1e6, true});
    visit("no_repeat_ngram_size", generation.no_repeat_ngram_size, kNumber);
    visit("stop", generation.stop, Length{0, 64}, kName);
    visit("left_out", generation.left_out, kList, kName);
}

template <typename Visit>
void fields(Visit& visit, Manifest& manifest) {
    std::int64_t version = kSchemaVersion;
    visit("created", manifest.created, Text{20, 20, Format::time});
    visit("tools", manifest.tools, Keys{kName}, kName);
    visit("source", manifest.source);
    visit("model", manifest.model);
    visit("dtype", manifest.dtype, kDtypes);
    visit("pruning", manifest.pruning);
    visit("budget", manifest.budget);
    visit("limits", manifest.limits);
    visit("opset", manifest.opset, Whole{23, kLargest});
    visit("graphs", manifest.graphs, Names{{"decoder", "embed_tokens", "preprocess", "vision_encoder"}});
    visit("prompt", manifest.prompt);
    visit("generation", manifest.generation);
    visit("cpu_decoder", manifest.cpu_decoder);
    visit("cuda_decoder", manifest.cuda_decoder);
    visit("quantization", manifest.quantization);
    visit("engines", manifest.engines, kList);
    visit("files", manifest.files, Keys{kPath});
    visit("schema_version", version, Among<std::int64_t>{{kSchemaVersion}});
}

}  // namespace asap::detail
