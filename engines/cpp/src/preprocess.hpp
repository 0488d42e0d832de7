/// Images as the vision encoder wants them.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include <asap/image.hpp>

#include "anyres.hpp"
#include "bundle.hpp"

namespace asap::detail {

/// The bundle's preprocess.onnx in ONNX Runtime, on the CPU. Thread-safe.
class Preprocessor {
public:
    /// `threads`: of one operator, by default one for each core. Throws `Error` where ONNX Runtime cannot load the
    /// graph.
    explicit Preprocessor(Bundle const& bundle, std::optional<int> threads = {});
    ~Preprocessor();

    /// The normalised tiles of one image, [tiles, 3, tile_size, tile_size] laid end to end; as many as
    /// `tile_count` says. Throws `Error` where the image's size and bytes do not fit, its shape would take memory
    /// without bound (`check_resizable`), or the graph gives another number of tiles.
    std::vector<float> pixel_values(Image const& image) const;

private:
    struct Graph;  // keeps ONNX Runtime's headers out of here

    TileGeometry geometry_;
    std::unique_ptr<Graph> graph_;
};

}  // namespace asap::detail
