// Image files of many kinds, compared with the pixels and the words of Python.
#include <map>

#include <gtest/gtest.h>

#include "fixtures.hpp"
#include "image_file.hpp"

namespace asap::detail {

namespace {

using test::bytes_of;
using test::fixture;
using test::json_fixture;
using test::placed;
using test::refusal;

/// The message without a decoder's own words for what is damaged.
std::string frame(std::string const& message) {
    auto const reason = message.find(", found: ");
    return reason == std::string::npos ? message : message.substr(0, reason) + message.substr(message.rfind(';'));
}

std::string said(std::vector<std::uint8_t> const& bytes) {
    return refusal([&] { asap::decode_image(bytes.data(), bytes.size(), "it"); });
}

}  // namespace

TEST(Images, pixelsAreThoseOfPythonToTheBit) {
    auto const read = json_fixture("images/read.json");
    for (auto const& [name, size] : read.items()) {
        SCOPED_TRACE(name);
        Image image;
        EXPECT_EQ(refusal([&, &file = name] { image = read_image(fixture("images/" + file)); }), "");
        EXPECT_EQ(image.height, size[0]);
        EXPECT_EQ(image.width, size[1]);
        EXPECT_TRUE(image.rgb == bytes_of(fixture("images/" + name + ".rgb")));
    }
}

TEST(Images, whatPythonRefusesIsRefusedWithItsWords) {
    auto const refused = json_fixture("images/refused.json");
    for (auto const& [name, message] : refused.items()) {
        auto const file = fixture("images/" + name);
        EXPECT_EQ(frame(refusal([&] { read_image(file); })),
                  frame(placed(message.get<std::string>(), fixture("images"))));
    }
}

TEST(Images, noFileIsRefusedWithPythonsWords) {
    std::string const place = fixture("images").string();
    EXPECT_EQ(refusal([&] { read_image(place + "/./missing.png"); }),
              "expected an image file at " + place + "/missing.png, found nothing; check the path");
    EXPECT_EQ(refusal([&] { read_image(place + "/"); }),
              "expected an image file at " + place + ", found a folder; check the path");
}

TEST(Images, otherFormatsAreNamed) {
    std::map<std::string, std::string> const names = {
        {"photograph.webp", "WebP"},
        {"photograph.tiff", "TIFF"},
        {"run-lengths.bmp", "a run-length coded BMP"},
        {"arithmetic.jpg", "a JPEG that is not coded by Huffman's method"},
    };
    for (auto const& [file, format] : names)
        EXPECT_EQ(said(bytes_of(fixture("images/" + file))),
                  "expected a PNG, JPEG, BMP or GIF image in it, found " + format + "; convert it to PNG");
    EXPECT_EQ(said({}), "expected an image in it, found another kind of file; give another");
}

TEST(Images, moreDataThanPixelsTakesNoMoreMemory) {
    // 2 x 2 pixels of 64 MiB. Python stops when it has its pixels; stb does not.
    EXPECT_EQ(said(bytes_of(fixture("images/zeros.png"))),
              "expected a readable image in it, found: more data than pixels; give another");
}

TEST(Images, everyBeginningOfAFileIsAnImageOrAnError) {
    for (char const* const name : {"photograph.jpg", "smooth-progressive.jpg", "interlaced-16-6.png", "smooth-P16.png",
                                   "interlaced.gif", "noise-RGB.bmp", "orientation-profile-True.png"}) {
        auto const whole = bytes_of(fixture(std::string("images/") + name));
        for (std::size_t size = 0; size < whole.size(); size += 1 + whole.size() / 200) {
            // Memory of its own, so that a sanitizer sees a read beyond its end.
            std::vector<std::uint8_t> const part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
            said(part);
        }
    }
}

}  // namespace asap::detail
