#include "image/stb.hpp"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "image/bytes.hpp"

namespace {

// Of the call under way; stb asks through macros, which have no room for an argument.
struct Allowance {
    std::size_t left = 0;  // bytes
    bool exceeded = false;
    bool no_memory = false;  // stb does not always say so
};
thread_local Allowance allowance;

bool granted(std::size_t size) {
    if (size > allowance.left) allowance.exceeded = true;
    if (allowance.exceeded) return false;
    allowance.left -= size;
    return true;
}

void* given(void* memory) {
    if (!memory) allowance.no_memory = true;
    return memory;
}

// Zeroed, because stb reads tables that a file has not filled.
void* take(std::size_t size) { return granted(size) ? given(std::calloc(1, size)) : nullptr; }

void* take_more(void* memory, std::size_t size) { return granted(size) ? given(std::realloc(memory, size)) : nullptr; }

}  // namespace

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_GIF
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_ASSERT(condition) static_cast<void>(0)  // untrusted files must not end the process
#define STBI_MALLOC(size) take(size)
#define STBI_REALLOC(memory, size) take_more(memory, size)
#define STBI_FREE(memory) std::free(memory)
#include <stb_image.h>

namespace asap::detail {

namespace {

struct Free {
    void operator()(std::uint8_t* memory) const { std::free(memory); }
};

struct FreeJpeg {
    void operator()(stbi__jpeg* jpeg) const {
        stbi__cleanup_jpeg(jpeg);
        std::free(jpeg);
    }
};

constexpr std::size_t kFixed = 1 << 20;  // bytes: stb's tables
constexpr std::size_t kEachPixel = 64;   // bytes: planes, coefficients, 16-bit samples, in several copies
constexpr std::size_t kEachFileByte = 2;

/// stb at the start of a file, with a new allowance. What stb keeps elsewhere is made zero here, for
/// compilers that do not see that it goes unread.
stbi__context begin(std::vector<std::uint8_t> const& file, std::size_t pixels) {
    if (file.size() > static_cast<std::size_t>(std::numeric_limits<int>::max()))
        throw damaged("a file of more than 2 GiB");
    allowance = {kFixed + kEachPixel * pixels + kEachFileByte * file.size()};
    stbi__g_failure_reason = "";  // some refusals leave that of an earlier file
    stbi__context context{};
    stbi__start_mem(&context, file.data(), static_cast<int>(file.size()));
    return context;
}

[[noreturn]] void refuse() {
    if (allowance.exceeded) throw damaged("more data than pixels");
    if (allowance.no_memory) throw std::bad_alloc();
    std::string const reason = stbi_failure_reason();
    throw reason.empty() ? broken() : damaged(reason);
}

std::size_t natural(int value) { return static_cast<std::size_t>(value); }

}  // namespace

std::vector<std::uint8_t> decode_with_stb(std::vector<std::uint8_t> const& file, std::size_t height, std::size_t width,
                                          int channels) {
    stbi__context context = begin(file, height * width);
    int found_width = 0, found_height = 0, found_channels = 0;
    std::unique_ptr<std::uint8_t, Free> const decoded(
        stbi__load_and_postprocess_8bit(&context, &found_width, &found_height, &found_channels, channels));
    if (!decoded) refuse();
    if (natural(found_width) != width || natural(found_height) != height) throw damaged("two different sizes");
    return {decoded.get(), decoded.get() + height * width * natural(channels)};
}

std::vector<Plane> jpeg_planes(std::vector<std::uint8_t> const& file, std::size_t height, std::size_t width) {
    // Blocks of up to 32 pixels stick out.
    stbi__context context = begin(file, (height + 31) * (width + 31));
    std::unique_ptr<stbi__jpeg, FreeJpeg> const jpeg(static_cast<stbi__jpeg*>(stbi__malloc(sizeof(stbi__jpeg))));
    if (!jpeg) throw std::bad_alloc();
    jpeg->s = &context;
    jpeg->idct_block_kernel = [](stbi_uc* out, int stride, short* data) { inverse_dct(out, stride, data); };
    if (!stbi__decode_jpeg_image(jpeg.get())) refuse();
    if (context.img_x != width || context.img_y != height) throw damaged("two different sizes");

    std::vector<Plane> planes;
    for (int i = 0; i < context.img_n; ++i) {
        auto const& component = jpeg->img_comp[i];
        Plane plane{natural(component.y),
                    natural(component.x),
                    natural(jpeg->img_h_max / component.h),
                    natural(jpeg->img_v_max / component.v),
                    {}};
        plane.samples.resize(plane.height * plane.width);
        for (std::size_t y = 0; y < plane.height; ++y)
            std::copy_n(component.data + y * natural(component.w2), plane.width, &plane.samples[y * plane.width]);
        planes.push_back(std::move(plane));
    }
    return planes;
}

std::vector<std::uint8_t> inflated(std::uint8_t const* compressed, std::size_t size, std::size_t most) {
    auto const limit = static_cast<std::size_t>(std::numeric_limits<int>::max());
    std::vector<std::uint8_t> result(std::min(most, limit));
    int const length =
        size > limit ? -1
                     : stbi_zlib_decode_buffer(reinterpret_cast<char*>(result.data()), static_cast<int>(result.size()),
                                               reinterpret_cast<char const*>(compressed), static_cast<int>(size));
    result.resize(static_cast<std::size_t>(std::max(length, 0)));
    return result;
}

}  // namespace asap::detail
