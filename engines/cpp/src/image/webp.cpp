#include <memory>
#include <new>
#include <utility>

#include <webp/decode.h>
#include <webp/demux.h>

#include "image/formats.hpp"
#include "image/orientation.hpp"

namespace asap::detail {

namespace {

struct Release {
    void operator()(WebPDemuxer* file) const { WebPDemuxDelete(file); }
    void operator()(WebPIterator* frame) const { WebPDemuxReleaseIterator(frame); }
    void operator()(WebPChunkIterator* chunk) const { WebPDemuxReleaseChunkIterator(chunk); }
};

/// The first chunk of a kind; none where there is no such chunk.
Bytes chunk(WebPDemuxer const* file, char const* kind) {
    WebPChunkIterator found{};
    std::unique_ptr<WebPChunkIterator, Release> const released(&found);
    return WebPDemuxGetChunk(file, kind, 1, &found) ? Bytes{found.chunk.bytes, found.chunk.size} : Bytes{nullptr, 0};
}

Metadata metadata(WebPDemuxer const* file) {
    Metadata found;
    Bytes const exif = chunk(file, "EXIF"), xmp = chunk(file, "XMP ");
    if (exif.size) found.exif.emplace(exif.begin(), exif.end());
    found.xmp.assign(xmp.begin(), xmp.end());
    return found;
}

void decode_frame(WebPIterator const& frame, Image& canvas) {
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config)) throw damaged("another version of libwebp than this was built for");
    auto const width = static_cast<std::size_t>(canvas.width);
    std::size_t const start =
        (static_cast<std::size_t>(frame.y_offset) * width + static_cast<std::size_t>(frame.x_offset)) * 3;
    config.output.colorspace = MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = canvas.rgb.data() + start;
    config.output.u.RGBA.stride = static_cast<int>(width * 3);
    config.output.u.RGBA.size = canvas.rgb.size() - start;
    auto const status = WebPDecode(frame.fragment.bytes, frame.fragment.size, &config);
    if (status == VP8_STATUS_OUT_OF_MEMORY) throw std::bad_alloc();
    if (status != VP8_STATUS_OK) throw broken();
}

}  // namespace

Image decode_webp(Bytes bytes, std::int64_t most_pixels) {
    WebPData const data{bytes.data, bytes.size};
    std::unique_ptr<WebPDemuxer, Release> const file(WebPDemux(&data));
    if (!file) throw damaged("truncated or damaged WebP data");
    std::size_t const width = WebPDemuxGetI(file.get(), WEBP_FF_CANVAS_WIDTH);
    std::size_t const height = WebPDemuxGetI(file.get(), WEBP_FF_CANVAS_HEIGHT);
    check_pixels(width, height, most_pixels);
    WebPIterator frame{};
    std::unique_ptr<WebPIterator, Release> const released(&frame);
    if (!WebPDemuxGetFrame(file.get(), 1, &frame)) throw damaged("no frame");
    // Black where the first frame leaves the canvas bare.
    Image canvas{static_cast<std::int64_t>(height), static_cast<std::int64_t>(width),
                 std::vector<std::uint8_t>(height * width * 3)};
    decode_frame(frame, canvas);
    return upright(std::move(canvas), orientation(metadata(file.get())));
}

}  // namespace asap::detail
