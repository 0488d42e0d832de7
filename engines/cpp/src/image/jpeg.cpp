#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "image/formats.hpp"
#include "image/jpeg_pixels.hpp"
#include "image/orientation.hpp"
#include "image/stb.hpp"

namespace asap::detail {

using namespace std::string_view_literals;

namespace {

enum Marker : unsigned {
    kFrame = 0xc0,  // baseline; 0xc1 extended, 0xc2 progressive
    kHuffman = 0xc4,
    kExtension = 0xc8,
    kArithmetic = 0xcc,
    kRestart = 0xd0,  // to 0xd7
    kStart = 0xd8,
    kEnd = 0xd9,
    kScan = 0xda,
    kQuantization = 0xdb,
    kRestartInterval = 0xdd,
    kHierarchical = 0xde,
    kApplication = 0xe0,  // to 0xef
};

constexpr int kMostScans = 1000;  // each takes time for the whole picture, however short it is

struct Component {
    unsigned id, quantization;
};

constexpr std::string_view kExif = "Exif\0\0"sv, kXmp = "http://ns.adobe.com/xap/1.0/\0"sv, kJfif = "JFIF\0"sv;

class Jpeg {
public:
    explicit Jpeg(Bytes file) : file_(file), reader_(file), canonical_{0xff, kStart} {
        canonical_.reserve(file.size);
        reader_.header(2);
    }

    Image decode(std::int64_t most_pixels) {
        while (next_segment() != kScan) continue;
        if (components_.empty()) throw unknown_file();
        check_pixels(width_, height_, most_pixels);
        read_scans();
        auto rgb = rgb_of(jpeg_planes(canonical_, height_, width_), coding(), height_, width_);
        Image image{static_cast<std::int64_t>(height_), static_cast<std::int64_t>(width_), std::move(rgb)};
        return upright(std::move(image), orientation(metadata_));
    }

private:
    /// The next marker, bytes between segments skipped.
    unsigned next_marker() {
        while (true) {
            while (byte_between() != 0xff) continue;
            unsigned marker = 0xff;
            while (marker == 0xff) marker = byte_between();
            if (marker) return marker;
        }
    }

    std::uint8_t byte_between() {
        if (!reader_.left() && !components_.empty() && !scan_.data) throw damaged("cannot load this image");
        return reader_.byte();
    }

    /// Reads one segment, and keeps it where stb should see it.
    unsigned next_segment() {
        unsigned const marker = next_marker();
        if (marker == kStart || marker == kExtension || (marker >= kRestart && marker < kRestart + 8)) return marker;
        if (marker == kEnd) return marker;
        if (marker < kFrame) throw unknown_file();
        Bytes const head = reader_.header(2);
        std::size_t const length = head.u16be(0);
        if (length < 2) throw unknown_file();
        Bytes const content = reader_.block(length - 2);
        if (take(marker, content)) keep(marker, content);
        return marker;
    }

    void keep(unsigned marker, Bytes content) {
        append_marker(marker);
        auto const length = static_cast<std::uint32_t>(content.size + 2);
        canonical_.push_back(static_cast<std::uint8_t>(length >> 8));
        canonical_.push_back(static_cast<std::uint8_t>(length & 0xff));
        append(canonical_, content);
    }

    void append_marker(unsigned marker) {
        canonical_.push_back(0xff);
        canonical_.push_back(static_cast<std::uint8_t>(marker));
    }

    /// Looks at a segment; whether stb needs it.
    bool take(unsigned marker, Bytes content) {
        if (marker == kHuffman) return check_huffman(content);
        if (marker == kQuantization) return check_quantization(content);
        if (marker == kRestartInterval) return check(content.size == 2);
        if (marker == kScan) {
            scan_ = content;
            return true;
        }
        if (marker == kHierarchical || (marker > kFrame + 2 && marker < 0xd0 && marker != kArithmetic))
            throw unsupported("a JPEG that is not coded by Huffman's method");
        if (marker <= kFrame + 2) {
            progressive_ = marker == kFrame + 2;
            return take_frame(content);
        }
        if (marker >= kApplication && marker < kApplication + 16) take_application(marker - kApplication, content);
        return false;
    }

    static bool check(bool sound) {
        if (!sound) throw broken();
        return true;
    }

    void take_application(unsigned number, Bytes content) {
        if (number == 1 && content.starts_with(kExif)) {
            if (!metadata_.exif) metadata_.exif.emplace();
            append(*metadata_.exif, content.from(kExif.size()));
        } else if (number == 1 && content.starts_with(kXmp)) {
            metadata_.xmp.assign(content.begin() + kXmp.size(), content.end());
        } else if (number == 0 && content.starts_with(kJfif)) {
            jfif_ = true;
        } else if (number == 14 && content.starts_with("Adobe") && content.size >= 12) {
            transform_ = content[11];
        }
    }

    bool take_frame(Bytes content) {
        check(components_.empty());  // a second frame
        if (content.size < 6 || content[0] != 8) throw unknown_file();
        height_ = content.u16be(1);
        width_ = content.u16be(3);
        std::size_t const count = content[5];
        if (count != 1 && count != 3 && count != 4) throw unknown_file();
        check(content.size == 6 + 3 * count);
        for (std::size_t i = 0; i < count; ++i) components_.push_back({content[6 + 3 * i], content[8 + 3 * i]});
        return true;
    }

    /// stb trusts the number of codes, which must be at most 256.
    bool check_huffman(Bytes content) {
        while (content.size) {
            check(content.size >= 17 && content[0] >> 4 <= 1 && (content[0] & 15) <= 3);
            std::size_t codes = 0;
            for (std::size_t i = 1; i <= 16; ++i) codes += content[i];
            check(codes <= 256 && content.size >= 17 + codes);
            huffman_[content[0] >> 4][content[0] & 15] = true;
            content = content.from(17 + codes);
        }
        return true;
    }

    bool check_quantization(Bytes content) {
        while (content.size) {
            std::size_t const size = content[0] >> 4 ? 129 : 65;
            check(content[0] >> 4 <= 1 && (content[0] & 15) <= 3 && content.size >= size);
            quantization_[content[0] & 15] = true;
            content = content.from(size);
        }
        return true;
    }

    /// What the components are, as libjpeg guesses.
    Coding coding() const {
        if (components_.size() == 1) return Coding::grey;
        if (components_.size() == 4) return !transform_ || *transform_ == 0 ? Coding::cmyk : Coding::ycck;
        if (jfif_) return Coding::ycc;
        if (transform_) return *transform_ == 0 ? Coding::rgb : Coding::ycc;
        bool const named = components_[0].id == 'R' && components_[1].id == 'G' && components_[2].id == 'B';
        return named ? Coding::rgb : Coding::ycc;
    }

    /// Scans with the segments between them, up to the end of the image. The first scan's head has been read.
    void read_scans() {
        reader_.enter_data();
        int scans = 0;
        for (unsigned marker = kScan; marker != kEnd; marker = next_segment()) {
            if (marker != kScan) continue;
            check(++scans <= kMostScans);
            check_scan();
            copy_codes();
        }
        for (auto const& component : components_)
            check(component.quantization <= 3 && quantization_[component.quantization]);
        append_marker(kEnd);
    }

    /// The tables that a scan needs have been given: stb would use whatever is in their place.
    void check_scan() const {
        std::size_t const count = scan_.size ? scan_[0] : 0;
        check(count >= 1 && count <= components_.size() && scan_.size == 4 + 2 * count);
        unsigned const first = scan_[1 + 2 * count], refines = scan_[3 + 2 * count] >> 4;
        for (std::size_t i = 0; i < count; ++i) {
            unsigned const tables = scan_[2 + 2 * i], constant = tables >> 4, varying = tables & 15;
            check(constant <= 3 && varying <= 3);
            if (!progressive_ || (first == 0 && !refines)) check(huffman_[0][constant]);
            if (!progressive_ || first > 0) check(huffman_[1][varying]);
        }
    }

    /// The compressed data behind a scan's head.
    void copy_codes() {
        Bytes const rest = file_.from(reader_.position());
        std::size_t at = 0;
        while (true) {
            auto const* const next = std::find(rest.begin() + at, rest.end(), std::uint8_t{0xff});
            at = static_cast<std::size_t>(next - rest.begin());
            if (rest.size - at < 2) throw truncated();
            unsigned const marker = rest[at + 1];
            if (marker != 0 && (marker < kRestart || marker >= kRestart + 8) && marker != 0xff) break;
            at += marker == 0xff ? 1 : 2;
        }
        append(canonical_, reader_.block(at));
    }

    Bytes file_;
    Reader reader_;
    std::vector<std::uint8_t> canonical_;
    Metadata metadata_;
    std::size_t width_ = 0, height_ = 0;
    bool progressive_ = false;
    Bytes scan_{nullptr, 0};  // the head of the last scan
    std::vector<Component> components_;
    bool jfif_ = false;
    std::optional<unsigned> transform_;  // of colours, from Adobe's marker
    bool huffman_[2][4] = {}, quantization_[4] = {};
};

}  // namespace

Image decode_jpeg(Bytes file, std::int64_t most_pixels) { return Jpeg(file).decode(most_pixels); }

}  // namespace asap::detail
