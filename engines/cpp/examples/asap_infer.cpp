// asap-infer BUNDLE [--image FILE]... --prompt TEXT: answers a question about images from a bundle.
//
// The answer goes to stdout as it is written, a summary to stderr; with --json everything is one JSON document on stdout.
// --chat reads further turns from stdin, one a line. Wrong input is one line on stderr and status 2.

#include <cstdio>
#include <functional>
#include <iostream>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <asap/asap.hpp>
#include <nlohmann/json.hpp>

namespace {

constexpr char const* kUsage =
    "usage: asap-infer BUNDLE [--image FILE]... --prompt TEXT [--chat] [--json]\n"
    "  --image FILE          a picture; repeat it for several\n"
    "  --prompt TEXT         the question; <image> marks say where images stand, without marks they come first\n"
    "  --chat                further turns from stdin, one a line; '/image FILE' adds a picture to the next one\n"
    "  --max-new-tokens N    cut answers at N tokens (256)\n"
    "  --keep N, --keep-ratio R, --budget N    visual tokens after the cut, as a number, a part, or the layers' mean\n"
    "  --temperature T, --top-p P, --seed N    draw tokens instead of taking the likeliest\n"
    "  --no-template         take the prompt as it is\n"
    "  --provider auto|cpu|cuda|tensorrt, --threads N\n"
    "  --repeat N            answer N times, for timings (--json lists them all)\n"
    "  --json                answer, token ids, kept places and timings as JSON\n"
    "  --version, --help\n";

struct Arguments {
    std::string bundle;
    std::vector<asap::ImageSource> images;
    std::optional<std::string> prompt;
    asap::Options options;
    asap::LoadOptions load;
    int repeat = 1;
    bool chat = false, json = false;
};

[[noreturn]] void refuse(std::string const& flag, char const* expected, std::string const& found) {
    throw asap::Error("expected " + std::string(expected) + " after " + flag + ", found " + found);
}

template <typename Number>
Number number(std::string const& flag, std::string const& text) {
    try {
        std::size_t used = 0;
        double const value = std::stod(text, &used);
        auto const result = static_cast<Number>(value);
        if (used != text.size() || static_cast<double>(result) != value) throw std::invalid_argument(text);
        return result;
    } catch (std::logic_error const&) {  // invalid_argument and out_of_range
        refuse(flag, "a number", text);
    }
}

asap::Provider provider(std::string const& flag, std::string const& name) {
    static std::map<std::string, asap::Provider> const names = {{"auto", asap::Provider::automatic},
                                                                 {"cpu", asap::Provider::cpu},
                                                                 {"cuda", asap::Provider::cuda},
                                                                 {"tensorrt", asap::Provider::tensorrt}};
    auto const at = names.find(name);
    if (at == names.end()) refuse(flag, "auto, cpu, cuda or tensorrt", name);
    return at->second;
}

Arguments parsed(std::vector<std::string> const& words) {
    Arguments found;
    using Take = std::function<void(std::string const& flag, std::string const& value)>;
    std::map<std::string, Take> const with_value = {
        {"--image", [&](auto&, auto& value) { found.images.emplace_back(value); }},
        {"--prompt", [&](auto&, auto& value) { found.prompt = value; }},
        {"--max-new-tokens", [&](auto& f, auto& v) { found.options.max_new_tokens = number<std::int64_t>(f, v); }},
        {"--keep", [&](auto& f, auto& v) { found.options.keep = number<std::int64_t>(f, v); }},
        {"--keep-ratio", [&](auto& f, auto& v) { found.options.keep_ratio = number<double>(f, v); }},
        {"--budget", [&](auto& f, auto& v) { found.options.budget = number<double>(f, v); }},
        {"--temperature", [&](auto& f, auto& v) { found.options.temperature = number<double>(f, v); }},
        {"--top-p", [&](auto& f, auto& v) { found.options.top_p = number<double>(f, v); }},
        {"--seed", [&](auto& f, auto& v) { found.options.seed = number<std::uint64_t>(f, v); }},
        {"--provider", [&](auto& f, auto& v) { found.load.provider = provider(f, v); }},
        {"--threads", [&](auto& f, auto& v) { found.load.threads = number<int>(f, v); }},
        {"--repeat", [&](auto& f, auto& v) { found.repeat = number<int>(f, v); }},
    };
    std::map<std::string, std::function<void()>> const alone = {
        {"--chat", [&] { found.chat = true; }},
        {"--json", [&] { found.json = true; }},
        {"--no-template", [&] { found.options.use_template = false; }},
    };
    for (std::size_t i = 0; i < words.size(); ++i) {
        std::string const& word = words[i];
        if (auto const at = with_value.find(word); at != with_value.end()) {
            if (i + 1 == words.size()) refuse(word, "a value", "none");
            at->second(word, words[++i]);
        } else if (auto const flag = alone.find(word); flag != alone.end()) {
            flag->second();
        } else if (word.rfind("--", 0) == 0 || !found.bundle.empty()) {
            throw asap::Error("expected an option that asap-infer knows, found " + word + "; see asap-infer --help");
        } else {
            found.bundle = word;
        }
    }
    if (found.bundle.empty()) throw asap::Error("expected a bundle, found none; see asap-infer --help");
    if (!found.prompt && !found.chat)
        throw asap::Error("expected --prompt TEXT, found none; give one, or --chat for a conversation");
    return found;
}

nlohmann::ordered_json as_json(asap::Answer const& answer) {
    auto const& timings = answer.timings;
    return {
        {"text", answer.text},
        {"token_ids", answer.token_ids},
        {"visual_tokens", answer.visual_tokens},
        {"kept_visual_tokens", answer.kept_visual_tokens},
        {"kept_index", answer.kept_index},
        {"stopped_by", answer.stopped_by == asap::StoppedBy::end ? "end" : "length"},
        {"timings",
         {{"preprocess", timings.preprocess},
          {"vision", timings.vision},
          {"embed", timings.embed},
          {"prefill", timings.prefill},
          {"decode", timings.decode}}},
    };
}

/// "45 of 268 visual tokens kept; preprocess 0.01 s, ..."
std::string summary(asap::Answer const& answer) {
    auto const& timings = answer.timings;
    double decode = 0;
    for (double const step : timings.decode) decode += step;
    std::string kept = "no image";
    if (answer.visual_tokens)
        kept = std::to_string(answer.kept_visual_tokens) + " of " + std::to_string(answer.visual_tokens) +
               " visual tokens kept";
    char line[200];
    std::snprintf(line, sizeof line, "; preprocess %.3f s, vision %.3f s, prefill %.3f s, decode %.3f s, tokens %zu%s",
                  timings.preprocess, timings.vision, timings.embed + timings.prefill, decode, answer.token_ids.size(),
                  answer.stopped_by == asap::StoppedBy::length ? " (cut at --max-new-tokens)" : "");
    return kept + line;
}

void show(asap::Answer const& answer, bool json) {
    if (json) {
        std::cout << as_json(answer).dump(2) << std::endl;
    } else {
        std::cout << std::endl;  // the pieces are on stdout already
        std::cerr << summary(answer) << '\n';
    }
}

void converse(asap::Model const& model, Arguments const& given, asap::TextCallback const& on_text) {
    auto conversation = model.chat();
    std::vector<asap::ImageSource> images = given.images;
    auto const ask = [&](std::string const& text) {
        show(conversation.ask(text, images, given.options, on_text), given.json);
        images.clear();
    };
    if (given.prompt) ask(*given.prompt);
    for (std::string line; std::getline(std::cin, line);) {
        if (line == "/quit") return;
        if (line.rfind("/image ", 0) == 0)
            images.emplace_back(line.substr(7));
        else if (!line.empty())
            ask(line);
    }
}

int answer(std::vector<std::string> const& words) {
    Arguments const given = parsed(words);
    auto const model = asap::load(given.bundle, given.load);
    asap::TextCallback on_text;
    if (!given.json) on_text = [](std::string const& piece) { std::cout << piece << std::flush; };
    if (given.chat) {
        converse(*model, given, on_text);
        return 0;
    }
    if (given.repeat == 1) {
        show(model->generate(given.images, *given.prompt, given.options, on_text), given.json);
        return 0;
    }
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (int i = 0; i < given.repeat; ++i) all.push_back(as_json(model->generate(given.images, *given.prompt, given.options)));
    std::cout << all.dump(2) << '\n';
    return 0;
}

}  // namespace

int main(int count, char** values) {
    std::vector<std::string> const words(values + 1, values + count);
    for (std::string const& word : words) {
        if (word == "--help" || word == "-h") return std::cout << kUsage, 0;
        if (word == "--version") return std::cout << "asap-infer " ASAP_VERSION << '\n', 0;
    }
    try {
        return answer(words);
    } catch (asap::Error const& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 2;
    }
}
