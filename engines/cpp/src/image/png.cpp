#include <algorithm>
#include <cctype>
#include <optional>
#include <string>
#include <utility>

#include "image/crc32.hpp"
#include "image/formats.hpp"
#include "image/orientation.hpp"
#include "image/stb.hpp"

namespace asap::detail {

namespace {

constexpr std::size_t kSignature = 8;
constexpr std::size_t kHeader = 13;
constexpr std::size_t kPalette = 256 * 3;
constexpr std::size_t kMostText = 1 << 20;  // bytes of a decompressed text chunk, as in Pillow

struct Chunk {
    std::string type;
    Bytes content;
};

class Png {
public:
    explicit Png(Bytes file) : file_(file), reader_(file) { reader_.header(kSignature); }

    Image decode(std::int64_t most_pixels) {
        read_headers();
        std::size_t const width = header_->u32be(0), height = header_->u32be(4);
        check_pixels(width, height, most_pixels);
        read_data();
        if (data_.empty()) throw truncated();
        auto rgb = decode_with_stb(canonical(), height, width, 3);
        Image image{static_cast<std::int64_t>(height), static_cast<std::int64_t>(width), std::move(rgb)};
        return upright(std::move(image), orientation(metadata_));
    }

private:
    struct Head {
        std::size_t length;
        std::string type;
    };

    Head read_head() {
        Bytes const head = reader_.header(8);
        std::string const type(head.begin() + 4, head.end());
        if (!std::all_of(type.begin(), type.end(), [](char c) { return c == '_' || (std::isalnum(c) && c > 0); }))
            throw unknown_file();
        return {head.u32be(0), type};
    }

    /// Whether a chunk's checksum is that of its type and its content, which begins at `start`.
    bool crc_fits(Head const& head, std::size_t start) const {
        return crc32({&file_.data[start - 4], head.length + 4}) == file_.u32be(start + head.length);
    }

    /// Everything up to the image data.
    void read_headers() {
        while (true) {
            Head const head = read_head();
            if (head.type == "IDAT") {
                data_length_ = head.length;
                break;
            }
            if (head.type == "IEND") throw damaged("cannot load this image");
            std::size_t const start = reader_.position();
            take({head.type, reader_.block(head.length)});
            reader_.header(4);
            if (!crc_fits(head, start)) throw unknown_file();
        }
        if (!header_ || !depth_is_known()) throw unknown_file();
    }

    void take(Chunk const& chunk) {
        if (chunk.type == "IHDR") {
            if (chunk.content.size < kHeader) throw damaged("Truncated IHDR chunk");
            header_ = Bytes{chunk.content.data, kHeader};
        } else if (chunk.type == "PLTE") {
            palette_ = chunk.content;
        } else {
            take_metadata(chunk);
        }
    }

    void take_metadata(Chunk const& chunk) {
        Bytes const content = chunk.content;
        if (chunk.type == "eXIf") metadata_.exif.emplace(content.begin(), content.end());
        if (chunk.type != "tEXt" && chunk.type != "zTXt" && chunk.type != "iTXt") return;
        auto const end = std::find(content.begin(), content.end(), std::uint8_t{0});
        std::string const key(content.begin(), end);
        Bytes const rest = content.from(key.size() + 1);
        if (key == "Raw profile type exif" && chunk.type == "tEXt")
            metadata_.raw_profile.assign(rest.begin(), rest.end());
        if (key == "Raw profile type exif" && chunk.type == "zTXt") metadata_.raw_profile = text_of(rest.from(1), true);
        if (key == "XML:com.adobe.xmp" && chunk.type == "iTXt" && rest.size >= 2) metadata_.xmp = international(rest);
    }

    static std::string text_of(Bytes bytes, bool compressed) {
        if (!compressed) return {bytes.begin(), bytes.end()};
        auto const text = inflated(bytes.data, bytes.size, kMostText);
        return {text.begin(), text.end()};
    }

    /// Behind the key of an iTXt chunk: compressed or not, the method, language, translated key, text.
    static std::string international(Bytes rest) {
        bool const compressed = rest[0] != 0;
        rest = rest.from(2);
        for (int i = 0; i < 2; ++i) {
            auto const end = std::find(rest.begin(), rest.end(), std::uint8_t{0});
            rest = rest.from(static_cast<std::size_t>(end - rest.begin()) + 1);
        }
        return text_of(rest, compressed);
    }

    bool depth_is_known() const {
        unsigned const depth = (*header_)[8], color = (*header_)[9];
        bool const whole = depth == 8 || depth == 16, small = depth == 1 || depth == 2 || depth == 4;
        if (color == 0) return whole || small;
        if (color == 3) return depth == 8 || small;
        return whole && (color == 2 || color == 4 || color == 6);
    }

    /// The image data, and what comes behind it. Unlike Pillow this looks at the checksums of the data: stb
    /// does not look at the one within, and altered pixels would pass.
    void read_data() {
        reader_.enter_data();
        Head head{data_length_, "IDAT"};
        while (head.type == "IDAT") {
            std::size_t const start = reader_.position();
            append(data_, reader_.block(head.length));
            reader_.block(4);
            if (!crc_fits(head, start)) throw broken();
            try {
                head = read_head();
            } catch (ImageFault const&) {  // the data may be complete all the same
                return;
            }
        }
        read_trailer(head);
    }

    /// Metadata may follow the image; whatever else is there does not count.
    void read_trailer(Head head) {
        try {
            for (; head.type != "IEND"; head = read_head()) {
                take_metadata({head.type, reader_.block(head.length)});
                reader_.header(4);
            }
        } catch (ImageFault const&) {
            return;
        }
    }

    /// A PNG of the header, the palette and the data. Transparency goes: it changes no colour. The palette is
    /// filled up with black, as in Pillow: where it ends too early stb would take colours from memory that
    /// nobody wrote.
    std::vector<std::uint8_t> canonical() const {
        std::vector<std::uint8_t> png;
        png.reserve(data_.size() + 1024);
        append(png, {file_.data, kSignature});
        begin_chunk(png, "IHDR", kHeader);
        append(png, *header_);
        if ((*header_)[9] == 3) {
            if (palette_.size > kPalette) throw damaged("invalid palette size");
            begin_chunk(png, "PLTE", kPalette);
            append(png, {palette_.data, palette_.size / 3 * 3});
            png.resize(png.size() + kPalette - palette_.size / 3 * 3);
        }
        begin_chunk(png, "IDAT", data_.size());
        append(png, {data_.data(), data_.size()});
        begin_chunk(png, "IEND", 0);
        append_u32be(png, 0);
        return png;
    }

    /// Closes the chunk before with a checksum, which stb skips.
    static void begin_chunk(std::vector<std::uint8_t>& png, std::string const& type, std::size_t length) {
        if (png.size() > kSignature) append_u32be(png, 0);
        append_u32be(png, static_cast<std::uint32_t>(length));
        png.insert(png.end(), type.begin(), type.end());
    }

    Bytes file_;
    Reader reader_;
    std::optional<Bytes> header_;
    Bytes palette_{nullptr, 0};
    Metadata metadata_;
    std::size_t data_length_ = 0;  // of the first chunk of data
    std::vector<std::uint8_t> data_;
};

}  // namespace

Image decode_png(Bytes file, std::int64_t most_pixels) { return Png(file).decode(most_pixels); }

}  // namespace asap::detail
