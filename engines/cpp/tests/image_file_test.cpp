// Image files of many kinds, compared with the pixels and the words of Python.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <string>

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

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ASAP_ADDRESS_SANITIZER
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define ASAP_ADDRESS_SANITIZER
#endif
[[maybe_unused]] constexpr char kNoLimit[] =
    "AddressSanitizer sets terabytes of address space aside, so none can be limited";

/// While it lives, this process gets at most `more` bytes of address space beyond what it has.
class Limited {
public:
    explicit Limited(std::size_t more) {
        ::getrlimit(RLIMIT_AS, &before_);
        std::size_t pages = 0;
        std::ifstream("/proc/self/statm") >> pages;
        rlimit const limit{pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) + more, before_.rlim_max};
        ::setrlimit(RLIMIT_AS, &limit);
    }
    ~Limited() { ::setrlimit(RLIMIT_AS, &before_); }

private:
    rlimit before_{};
};

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

TEST(Images, thatLackScansAreAsPythonSmoothsThemUpToRounding) {
    auto const smoothed = json_fixture("images/smoothed.json");
    for (auto const& [name, size] : smoothed.items()) {
        SCOPED_TRACE(name);
        Image const image = read_image(fixture("images/" + name));
        auto const expected = bytes_of(fixture("images/" + name + ".rgb"));
        ASSERT_EQ(image.rgb.size(), expected.size());
        int most = 0;  // grey levels
        for (std::size_t i = 0; i < expected.size(); ++i) most = std::max(most, std::abs(image.rgb[i] - expected[i]));
        EXPECT_LE(most, 2);
    }
}

TEST(Images, whatBreaksTheStandardOfPngIsRefused) {
    auto const strict = json_fixture("images/strict.json");
    for (auto const& [name, size] : strict.items()) {
        auto const file = fixture("images/" + name);
        EXPECT_EQ(frame(refusal([&] { read_image(file); })),
                  "expected a readable image in " + file.string() + "; give another");
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
        {"photograph.tiff", "TIFF"},
        {"photograph.gif", "GIF"},
        {"photograph.bmp", "BMP"},
    };
    for (auto const& [file, format] : names)
        EXPECT_EQ(said(bytes_of(fixture("images/" + file))),
                  "expected a PNG, JPEG or WebP image in it, found " + format + "; convert it to PNG");
    EXPECT_EQ(said({}), "expected an image in it, found another kind of file; give another");
}

/// What a file claims beyond its pixels takes no memory: 64 MiB of data for 2 x 2 pixels, a chunk of 1.3 GiB.
class Claim : public testing::TestWithParam<char const*> {};

TEST_P(Claim, takesNoMemory) {
#ifdef ASAP_ADDRESS_SANITIZER
    GTEST_SKIP() << kNoLimit;
#else
    auto const file = bytes_of(fixture(std::string("images/") + GetParam() + ".png"));
    Limited const limited(1 << 20);
    EXPECT_EQ(said(file).find("memory"), std::string::npos);
#endif
}

INSTANTIATE_TEST_SUITE_P(Images, Claim, testing::Values("zeros", "long_chunk"),
                         [](auto const& file) { return file.param; });

TEST(Images, aThousandScansAreEnough) {
    EXPECT_EQ(said(bytes_of(fixture("images/thousand-scans.jpg"))),
              "expected a readable image in it, found: more than 1000 scans; give another");
}

/// Of one format. Each runs in a process of its own, without memory that another has left.
class LargeImage : public testing::TestWithParam<char const*> {};

TEST_P(LargeImage, withTooLittleMemoryIsNoDamage) {
#ifdef ASAP_ADDRESS_SANITIZER
    GTEST_SKIP() << kNoLimit;
#else
    auto const file = bytes_of(fixture(std::string("images/large.") + GetParam()));
    std::set<std::string> messages;
    std::size_t more = 0;  // bytes
    for (bool refused = true; refused;) {
        more += 1 << 18;
        Limited const limited(more);
        std::string const message = said(file);
        refused = !message.empty();
        if (refused) messages.insert(message);
    }
    EXPECT_GT(more, 2u << 20);  // the pixels alone are 3 MiB
    EXPECT_EQ(messages, std::set<std::string>{
                            "expected a readable image in it, found: too little memory for its pixels; give another"});
#endif
}

INSTANTIATE_TEST_SUITE_P(Images, LargeImage, testing::Values("png", "jpeg", "progressive", "webp", "lossless"),
                         [](auto const& form) { return form.param; });

TEST(Images, everyBeginningOfAFileIsAnImageOrAnError) {
    for (char const* const name :
         {"photograph.jpg", "smooth-progressive.jpg", "interlaced-16-6.png", "smooth-P16.png", "photograph.webp",
          "smooth-RGBA-lossless.webp", "animated.webp", "orientation-profile-True.png"}) {
        auto const whole = bytes_of(fixture(std::string("images/") + name));
        for (std::size_t size = 0; size < whole.size(); size += 1 + whole.size() / 200) {
            // Memory of its own, so that a sanitizer sees a read beyond its end.
            std::vector<std::uint8_t> const part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
            said(part);
        }
    }
}

}  // namespace asap::detail
