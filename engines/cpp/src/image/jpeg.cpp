#include <cstdio>  // jpeglib.h needs it
#include <utility>

#include <jerror.h>
#include <jpeglib.h>

#include "image/escape.hpp"
#include "image/formats.hpp"
#include "image/orientation.hpp"

namespace asap::detail {

namespace {

using namespace std::string_view_literals;

constexpr int kMostScans = 1000;  // each takes time for the whole picture, however short it is
constexpr std::string_view kExif = "Exif\0\0"sv, kXmp = "http://ns.adobe.com/xap/1.0/\0"sv;

template <typename Info>
Escape& escape_of(Info const* info) {
    return *static_cast<Escape*>(info->client_data);
}

void give_up(j_common_ptr info) {
    char reason[JMSG_LENGTH_MAX];
    info->err->format_message(info, reason);
    if (info->err->msg_code == JERR_OUT_OF_MEMORY) escape_of(info).lacks_memory();
    escape_of(info).leave(reason);
}

void limit_scans(j_common_ptr info) {
    if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number > kMostScans)
        escape_of(info).leave("more than 1000 scans");
}

void skip(j_decompress_ptr info, long count) {
    auto const skipped = std::min(static_cast<std::size_t>(std::max(count, 0L)), info->src->bytes_in_buffer);
    info->src->next_input_byte += skipped;
    info->src->bytes_in_buffer -= skipped;
}

/// RGB of a row of CMYK. Like Pillow this takes all four colours for inverted, as Adobe writes them: each is darkened
/// by black.
void print_to_rgb(std::uint8_t const* cmyk, std::size_t width, std::uint8_t* rgb) {
    for (std::size_t x = 0; x < width; ++x, cmyk += 4) {
        int const black = cmyk[3];
        for (int i = 0; i < 3; ++i) {
            int const product = (255 - cmyk[i]) * black + 128;
            *rgb++ = static_cast<std::uint8_t>(std::max(black - (((product >> 8) + product) >> 8), 0));
        }
    }
}

class Jpeg {
public:
    explicit Jpeg(Bytes file) {
        source_.next_input_byte = file.data;
        source_.bytes_in_buffer = file.size;
    }
    ~Jpeg() { jpeg_destroy_decompress(&info_); }
    Jpeg(Jpeg const&) = delete;
    Jpeg& operator=(Jpeg const&) = delete;

    Image decode(std::int64_t most_pixels) {
        escape_.guard([&] { read_header(); });
        check_pixels(info_.image_width, info_.image_height, most_pixels);
        int const components = info_.num_components;
        if (components != 1 && components != 3 && components != 4)
            throw damaged(std::to_string(components) + " colours");
        info_.out_color_space = components == 4 ? JCS_CMYK : JCS_RGB;
        int const orientation = detail::orientation(metadata());

        std::size_t const width = info_.image_width, height = info_.image_height;
        Image image{static_cast<std::int64_t>(height), static_cast<std::int64_t>(width),
                    std::vector<std::uint8_t>(height * width * 3)};
        std::vector<std::uint8_t> print(components == 4 ? width * 4 : 0);
        escape_.guard([&] { read_rows(image.rgb.data(), print.data()); });
        return upright(std::move(image), orientation);
    }

private:
    /// What follows runs within `Escape::guard`.
    void read_header() {
        info_.err = jpeg_std_error(&errors_);
        info_.client_data = &escape_;
        errors_.error_exit = give_up;
        errors_.output_message = [](j_common_ptr) {};  // warnings, which Pillow does not mind either
        jpeg_create_decompress(&info_);
        use_source();
        progress_.progress_monitor = limit_scans;
        info_.progress = &progress_;
        jpeg_save_markers(&info_, JPEG_APP0 + 1, 0xffff);
        int found = JPEG_HEADER_TABLES_ONLY;
        while (found == JPEG_HEADER_TABLES_ONLY) found = jpeg_read_header(&info_, FALSE);
        if (found != JPEG_HEADER_OK) truncated_here();
    }

    /// All bytes are there at once. Where they end, libjpeg is told to wait for more.
    void use_source() {
        source_.init_source = [](j_decompress_ptr) {};
        source_.fill_input_buffer = [](j_decompress_ptr) -> boolean { return FALSE; };
        source_.skip_input_data = skip;
        source_.resync_to_restart = jpeg_resync_to_restart;
        source_.term_source = [](j_decompress_ptr) {};
        info_.src = &source_;
    }

    void read_rows(std::uint8_t* rgb, std::uint8_t* print) {
        if (!jpeg_start_decompress(&info_)) truncated_here();
        while (info_.output_scanline < info_.output_height) {
            JSAMPROW row = info_.num_components == 4 ? print : rgb;
            if (jpeg_read_scanlines(&info_, &row, 1) != 1) truncated_here();
            if (row == print) print_to_rgb(print, info_.output_width, rgb);
            rgb += std::size_t{3} * info_.output_width;
        }
        jpeg_finish_decompress(&info_);  // an end of the file that is missing does not count
    }

    [[noreturn]] void truncated_here() { escape_.leave("image file is truncated"); }

    Metadata metadata() const {
        Metadata found;
        for (auto const* marker = info_.marker_list; marker; marker = marker->next) {
            Bytes const content{marker->data, marker->data_length};
            if (content.starts_with(kExif)) {
                Bytes const exif = content.from(kExif.size());
                if (!found.exif) found.exif.emplace();
                found.exif->insert(found.exif->end(), exif.begin(), exif.end());
            } else if (content.starts_with(kXmp)) {
                found.xmp.assign(content.begin() + kXmp.size(), content.end());
            }
        }
        return found;
    }

    Escape escape_;
    jpeg_error_mgr errors_{};
    jpeg_source_mgr source_{};
    jpeg_progress_mgr progress_{};
    jpeg_decompress_struct info_{};
};

}  // namespace

Image decode_jpeg(Bytes file, std::int64_t most_pixels) { return Jpeg(file).decode(most_pixels); }

}  // namespace asap::detail
