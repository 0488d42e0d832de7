#include "preprocess.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include <onnxruntime_cxx_api.h>
#include <asap/error.hpp>

#include "onnxruntime_backend.hpp"
#include "onnxruntime_error.hpp"

namespace asap::detail {

struct Preprocessor::Graph {
    Ort::Env environment{kQuiet, "asap_preprocess"};
    Ort::Session session{nullptr};
    Ort::MemoryInfo host = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);

    /// [tiles, 3, tile_size, tile_size], float32.
    Ort::Value tiles_of(Image const& image) {
        std::array<std::int64_t, 3> const shape = {image.height, image.width, 3};
        // ONNX Runtime does not write to inputs.
        auto const input = Ort::Value::CreateTensor<std::uint8_t>(host, const_cast<std::uint8_t*>(image.rgb.data()),
                                                                  image.rgb.size(), shape.data(), shape.size());
        char const *const input_name = "image", *const output_name = "pixel_values";
        auto outputs = session.Run(Ort::RunOptions{nullptr}, &input_name, &input, 1, &output_name, 1);
        return std::move(outputs.front());
    }
};

namespace {

Ort::SessionOptions session_options(std::optional<int> threads) {
    check_threads(threads);
    Ort::SessionOptions options;
    options.SetLogSeverityLevel(kQuiet);
    if (threads) options.SetIntraOpNumThreads(*threads);
    options.AddConfigEntry("session.force_spinning_stop", "1");  // other graphs run next, on the same cores
    options.DisableCpuMemArena();                                // it would keep what the largest image needed
    return options;
}

std::string by(std::int64_t width, std::int64_t height) {
    return std::to_string(width) + " x " + std::to_string(height);
}

void check_bytes(Image const& image) {
    bool const positive = image.height >= 1 && image.width >= 1;
    std::size_t const pixels = image.rgb.size() / 3;
    if (positive && image.rgb.size() % 3 == 0 && pixels % static_cast<std::size_t>(image.height) == 0 &&
        pixels / static_cast<std::size_t>(image.height) == static_cast<std::size_t>(image.width))
        return;
    throw Error("expected 3 bytes for each of " + by(image.width, image.height) + " pixels, found " +
                std::to_string(image.rgb.size()) + " bytes; give all pixels of the image as RGB");
}

}  // namespace

Preprocessor::Preprocessor(Bundle const& bundle, std::optional<int> threads)
    : geometry_(TileGeometry::of(bundle.manifest.model)), graph_(std::make_unique<Graph>()) {
    auto const path = bundle.graph_path("preprocess");
    try {
        graph_->session = Ort::Session(graph_->environment, path.c_str(), session_options(threads));
    } catch (Ort::Exception const& error) {
        throw not_opened(path.string(), error);
    }
}

Preprocessor::~Preprocessor() = default;

std::vector<float> Preprocessor::pixel_values(Image const& image) const {
    check_bytes(image);
    check_resizable({image.height, image.width}, geometry_);
    std::vector<std::int64_t> const expected = {tile_count({image.height, image.width}, geometry_), 3,
                                                geometry_.tile_size, geometry_.tile_size};
    try {
        Ort::Value const tiles = graph_->tiles_of(image);
        auto const info = tiles.GetTensorTypeAndShapeInfo();
        if (info.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || info.GetShape() != expected)
            throw Error("expected " + std::to_string(expected[0]) + " tiles of " +
                        by(geometry_.tile_size, geometry_.tile_size) + " pixels for an image of " +
                        by(image.width, image.height) + " from preprocess.onnx, found others; export the bundle again");
        auto const* const values = tiles.GetTensorData<float>();
        return {values, values + info.GetElementCount()};
    } catch (Ort::Exception const& error) {
        throw not_run("preprocess.onnx", error);
    }
}

}  // namespace asap::detail
