#include "sha256.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <vector>

#include <openssl/evp.h>

namespace asap::detail {

namespace {

constexpr std::size_t kChunk = 1 << 20;  // bytes

struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
};

struct FreeDigest {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

void require(int done) {
    if (done != 1) throw std::runtime_error("OpenSSL cannot compute SHA-256");
}

}  // namespace

std::string sha256_of(std::filesystem::path const& file) {
    std::unique_ptr<std::FILE, Close> const stream(std::fopen(file.c_str(), "rb"));
    if (!stream) throw std::system_error(errno, std::generic_category());
    std::unique_ptr<EVP_MD_CTX, FreeDigest> const context(EVP_MD_CTX_new());
    if (!context) throw std::bad_alloc();
    require(EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr));
    std::vector<unsigned char> piece(kChunk);
    while (std::size_t const read = std::fread(piece.data(), 1, piece.size(), stream.get()))
        require(EVP_DigestUpdate(context.get(), piece.data(), read));
    if (std::ferror(stream.get())) throw std::system_error(errno, std::generic_category());

    std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
    unsigned int size = 0;
    require(EVP_DigestFinal_ex(context.get(), digest.data(), &size));
    std::string text;
    for (unsigned int i = 0; i < size; ++i) {
        constexpr char digits[] = "0123456789abcdef";
        text += digits[digest[i] >> 4];
        text += digits[digest[i] & 15];
    }
    return text;
}

}  // namespace asap::detail
