/// Any bytes as manifest.json: a manifest that images can be cut by, or `BundleError` in one line of ASCII.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include <asap/error.hpp>

#include "anyres.hpp"
#include "manifest.hpp"

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    try {
        auto const manifest = asap::detail::parse_manifest({reinterpret_cast<char const*>(data), size});
        auto const packed = asap::detail::packing({{480, 640}}, asap::detail::TileGeometry::of(manifest.model));
        if (packed.tiles.size() != 1) std::abort();
    } catch (asap::BundleError const& error) {
        for (char const letter : std::string_view(error.what()))
            if (letter < ' ' || letter > '~') std::abort();
    }
    return 0;
}
