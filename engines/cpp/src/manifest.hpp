/// What manifest.json says, typed. Names and meanings are those of asap_export/bundle/manifest.py; what each field may
/// be is in manifest_fields.hpp.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <asap/version.hpp>

namespace asap::detail {

constexpr int kSchemaVersion = ASAP_SCHEMA_VERSION;

/// Pixels.
struct Size {
    std::int64_t height, width;
};

inline bool operator==(Size const& a, Size const& b) { return a.height == b.height && a.width == b.width; }

/// The checkpoint a bundle was made from.
struct Source {
    std::string id;                            // a hub id, or the name of a local folder
    std::optional<std::string> revision;       // commit of the hub repository
    std::map<std::string, std::string> files;  // their sha256
};

/// Sizes and token ids of the checkpoint.
struct ModelSpec {
    std::string architecture;     // transformers' class name
    std::string text_model_type;  // "llama", "mistral", "qwen2"
    std::int64_t hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, vocab_size;
    std::int64_t max_position_embeddings;
    std::int64_t image_token_id;
    std::vector<std::int64_t> eos_token_ids;
    std::optional<std::int64_t> bos_token_id, pad_token_id;
    std::int64_t tile_size;            // pixels, the vision tower's input is square
    std::int64_t patch_size;           // pixels
    std::vector<Size> grid_pinpoints;  // empty where an image is one tile, without newline tokens
    bool class_token;                  // the tower's class token is a visual token too, the first of its tile
    std::int64_t max_visual_tokens;    // of one image, newline tokens included
    std::string dtype;                 // as stored: "fp32", "fp16" or "bf16"
};

/// Of the decoder's linear layers: symmetric, one scale for `block_size` inputs of each output, or, where that is none,
/// for all of them.
struct Quantization {
    std::int64_t bits;
    std::optional<std::int64_t> block_size;  // none exactly where there are 8 bits
};

/// Which tokens leave the decoder.
struct PruningConfig {
    std::string method;        // "asap", "fastv", "random", "none"
    std::int64_t prune_after;  // layers that see every token; fewer than the model has where `prunes`
    std::string score;         // "received", "salience", "text", "last"
    double lambda_max, threshold;
    bool merge, bidirectional, trim_early_kv;
    std::int64_t seed;

    bool prunes() const { return method != "none"; }
};

/// How many visual tokens of a prompt survive the cut, where a request does not say; exactly one is set.
struct Budget {
    std::optional<std::int64_t> keep;
    std::optional<double> ratio;          // in (0, 1]
    std::optional<double> layer_average;  // the mean over all layers
};

/// The largest request that engines are built for.
struct Limits {
    std::int64_t max_batch;
    std::int64_t max_images;  // of one prompt
    std::int64_t max_text;    // tokens of one prompt that are not visual
    std::int64_t max_new_tokens;
};

/// A graph's input or output; a dimension is a number or a name, none is a scalar.
struct TensorInfo {
    std::string name;
    std::string dtype;  // "fp32", "fp16", "bf16", "int64", "int32", "bool", "uint8"
    std::vector<std::variant<std::int64_t, std::string>> dims;
};

/// One ONNX file, relative to the bundle.
struct GraphInfo {
    std::string file;
    std::vector<TensorInfo> inputs, outputs;
};

/// decoder.onnx once more, as ONNX Runtime's CPU provider is fast with it. Caches with a dimension "capacity" may be
/// longer than what they hold, and then are written to in place. Those that leave it with a dimension "untrimmed" still
/// hold the new tokens that were cut.
struct CpuDecoder : GraphInfo {
    std::vector<std::string> passes;  // by which it came from decoder.onnx
};

/// Smallest, expected and largest shape of an input (or values of a shape tensor).
struct ShapeRange {
    std::vector<std::int64_t> min, opt, max;
};

/// One optimization profile: `shapes` per input, `values` per shape-tensor input (`kept_length`).
struct Profile {
    std::string name;
    std::map<std::string, ShapeRange> shapes, values;
};

/// Which part of its graph an engine holds; parts run in order, each fed by the earlier ones by name.
struct EnginePart {
    std::int64_t number;  // from 0
    std::int64_t of;
    std::array<std::int64_t, 2> layers;  // the first and the last, from 0
    std::vector<TensorInfo> inputs, outputs;
};

/// One serialized TensorRT engine and the machines it is for; a whole graph's unless it is a `part`.
struct EngineInfo {
    std::string graph;
    std::string file;
    std::string flavor;  // "tensorrt", "tensorrt_rtx"
    std::string tensorrt_version;
    std::vector<std::string> compute_capabilities;  // "8.6", "12.0", or "current"
    std::vector<Profile> profiles;
    std::vector<std::string> decomposed_attention;  // attention layers without a dedicated kernel
    std::optional<EnginePart> part;
};

struct FileInfo {
    std::string sha256;  // hexadecimal, lower case
    std::int64_t size;   // bytes
};

/// A turn of a conversation: `start`, `image` for each image, `after_images` where there are any, the user's
/// text, `end`. Where the text itself holds image marks, there is no `image` and no `after_images`.
struct TurnParts {
    std::string start, image, after_images, end;
};

/// What the checkpoint's chat template writes. `later` begins right behind the last answer.
struct TemplateInfo {
    bool trims;  // white space is taken off either end of the user's text
    TurnParts first, later;
};

/// How a prompt is made; token ids come from tokenizer.json.
struct PromptInfo {
    std::string image_token;                    // the mark of an image
    std::optional<std::string> bos_token;       // a text that begins with it is given no special tokens
    std::optional<TemplateInfo> chat_template;  // none, or none that these parts can express
};

/// How tokens are chosen where a request does not say: what the checkpoint asks for. Meanings are those of `Options`.
struct GenerationInfo {
    std::int64_t max_new_tokens = 256, min_new_tokens = 0;
    double temperature = 0;
    std::int64_t top_k = 0;
    double top_p = 1, min_p = 0, repetition_penalty = 1;
    std::int64_t no_repeat_ngram_size = 0;
    std::vector<std::string> stop;
    std::vector<std::string> left_out;  // what else the checkpoint asks for and no answer honours
};

/// Everything a runtime needs to know of a bundle before it opens a graph.
struct Manifest {
    std::string created;                       // UTC, "2026-01-31T12:00:00Z"
    std::map<std::string, std::string> tools;  // package name: version
    Source source;
    ModelSpec model;
    std::string dtype;  // of activations and of the weights that are not quantized: "fp32", "fp16" or "bf16"
    PruningConfig pruning;
    Budget budget;
    Limits limits;
    std::int64_t opset;
    std::map<std::string, GraphInfo> graphs;  // preprocess, vision_encoder, embed_tokens, decoder
    std::optional<CpuDecoder> cpu_decoder;
    std::optional<GraphInfo> cuda_decoder;  // decoder.onnx once more, for ONNX Runtime's CUDA provider
    PromptInfo prompt;
    GenerationInfo generation;
    std::optional<Quantization> quantization;
    std::vector<EngineInfo> engines;
    std::map<std::string, FileInfo> files;  // every file but the manifest and parity.json
};

/// The manifest in `content`. Throws `BundleError` where it is too large, no JSON, of another version, or not what the
/// definition in Python says.
Manifest parse_manifest(std::string_view content);

}  // namespace asap::detail
