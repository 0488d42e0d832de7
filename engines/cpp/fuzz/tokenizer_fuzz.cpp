/// Any bytes as tokenizer.json, and as text: ids or `Error`, and the text again where nothing changes it.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include <asap/error.hpp>

#include "tokenizer/byte_alphabet.hpp"
#include "tokenizer/characters.hpp"
#include "tokenizer/tokenizer.hpp"

namespace {

using asap::detail::Tokenizer;

/// A tokenizer that has a token for every byte; `rest` is what stands beside its vocabulary.
Tokenizer of_bytes(std::string const& rest, bool printable) {
    std::string vocabulary, between;
    for (int byte = 0; byte < 256; ++byte) {
        char const* const digits = "0123456789ABCDEF";
        char const value = static_cast<char>(static_cast<unsigned char>(byte));
        std::string token = asap::detail::tokens::as_byte_characters(std::string_view(&value, 1));
        if (token == "\"" || token == "\\") token.insert(0, "\\");
        if (!printable) token = std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">";
        vocabulary += between + "\"" + token + "\": " + std::to_string(byte);
        between = ", ";
    }
    return Tokenizer(R"({"version": "1.0", "model": {"type": "BPE", "byte_fallback": true, "merges": [["a", "b"], )"
                     R"(["▁", "▁"], ["ab", "ab"]], "vocab": {"▁": 300, "▁▁": 301, )" +
                     std::string(printable ? "" : R"("a": 302, "b": 303, )") + R"("ab": 304, "abab": 305, )" +
                     vocabulary + "}}" + rest + "}");
}

Tokenizer gpt2() {
    std::string const step = R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})";
    return of_bytes(R"(, "pre_tokenizer": )" + step + R"(, "decoder": )" + step, true);
}

Tokenizer llama() {
    return of_bytes(R"(, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", )"
                    R"("split": false}, "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, )"
                    R"({"type": "Fuse"}]})",
                    false);
}

void check(bool holds) {
    if (!holds) std::abort();
}

void encode_and_decode(Tokenizer const& tokenizer, std::string_view text) {
    using asap::detail::tokens::valid_length;
    std::string const back = tokenizer.decode(tokenizer.encode(text, true), false);
    check(valid_length(back) == back.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    static Tokenizer const bytes = gpt2(), words = llama();
    std::string_view const input(reinterpret_cast<char const*>(data), size);
    try {
        check(bytes.decode(bytes.encode(input, false), false) == input);
        encode_and_decode(words, input);
    } catch (asap::Error const&) {
        check(asap::detail::tokens::valid_length(input) != size);
    }
    try {
        Tokenizer const own(input);
        for (std::string_view const text : {std::string_view("ab  \n<s> e\u0301\u0301 中 9"), input.substr(0, 100)})
            encode_and_decode(own, text);
    } catch (asap::Error const&) {
        return 0;
    }
    return 0;
}
