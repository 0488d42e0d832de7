// asap-infer BUNDLE [--image FILE]... --prompt TEXT: answers a question about images from a bundle.
//
// The answer goes to stdout as it is written, a summary to stderr; with --json everything is JSON on stdout.
// --chat reads further turns from stdin, one a line. Wrong input is one line on stderr and status 2.

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <new>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include <asap/asap.hpp>
#include <nlohmann/json.hpp>

namespace {

constexpr char const* kUsage =
    "usage: asap-infer BUNDLE [--image FILE]... --prompt TEXT\n"
    "  --image FILE         a picture; repeat it for several\n"
    "  --prompt TEXT        the question; images come first, or where <image> stands\n"
    "  --chat               further turns from stdin, one a line\n"
    "  --no-template        take the prompt as it is\n"
    "  --keep N, --keep-ratio R, --budget N\n"
    "                       visual tokens to keep: a number, a part, the layers' mean\n"
    "  --seed N             the same draws for the same seed (0)\n"
    "  --provider NAME      cpu, openvino, cuda or tensorrt; without it the best that\n"
    "                       is there, but OpenVINO\n"
    "  --precision NAME     of OpenVINO: f32, bf16 or auto, in which the CPU is fast\n"
    "  --threads N          of the CPU; one for each core without it\n"
    "  --repeat N           answer N times, for timings\n"
    "  --json               answers as JSON; a list with --repeat\n"
    "  --version, --help\n"
    "How tokens are chosen, where not as the bundle has it:\n"
    "  --max-new-tokens N   cut answers at N tokens\n"
    "  --min-new-tokens N   take no end before N tokens\n"
    "  --stop TEXT          end answers in front of this text; repeat it for several\n"
    "  --temperature T      above 0 draw tokens: from the --top-k K likeliest, those\n"
    "                       of probability --top-p P together, or --min-p P beside\n"
    "                       the likeliest\n"
    "  --repetition-penalty R, --no-repeat-ngram-size N\n"
    "                       what was written already is less likely, or forbidden\n";
constexpr char const* kChatHelp =
    "A line is a question.\n"
    "  /image FILE  an image for the next question; repeat it for several\n"
    "  /help        this text\n"
    "  /exit        ends the chat\n";

struct Arguments {
    std::string bundle;
    std::vector<asap::ImageSource> images;
    std::optional<std::string> prompt;
    asap::Options options;
    asap::LoadOptions load;
    std::optional<int> repeat;
    bool chat = false, json = false, help = false, version = false;
};

[[noreturn]] void refuse(std::string const& flag, char const* expected, std::string const& found) {
    throw asap::Error("expected " + std::string(expected) + " after " + flag + ", found " + found);
}

template <typename Number>
Number number(std::string const& flag, std::string const& text) {
    Number value{};
    char const* const end = text.data() + text.size();
    auto const [behind, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || behind != end)
        refuse(flag, std::is_integral_v<Number> ? "a whole number" : "a number", text);
    return value;
}

std::uint64_t seed(std::string const& flag, std::string const& text) {
    if (text.rfind('-', 0) == 0 && number<std::int64_t>(flag, text) < 0)
        throw asap::Error("expected --seed of 0 or more, found " + text);
    return number<std::uint64_t>(flag, text);
}

void add_stop(asap::Options& options, std::string const& text) {
    if (!options.stop) options.stop.emplace();
    options.stop->push_back(text);
}

std::map<std::string, asap::Provider> const kProviders = {{"auto", asap::Provider::automatic},
                                                          {"cpu", asap::Provider::cpu},
                                                          {"openvino", asap::Provider::openvino},
                                                          {"cuda", asap::Provider::cuda},
                                                          {"tensorrt", asap::Provider::tensorrt}};

asap::Provider provider(std::string const& flag, std::string const& name) {
    auto const at = kProviders.find(name);
    if (at == kProviders.end()) refuse(flag, "auto, cpu, openvino, cuda or tensorrt", name);
    return at->second;
}

asap::Precision precision(std::string const& flag, std::string const& name) {
    if (name == "auto") return asap::Precision::automatic;
    if (name == "f32") return asap::Precision::f32;
    if (name != "bf16") refuse(flag, "auto, f32 or bf16", name);
    return asap::Precision::bf16;
}

std::string name_of(asap::Provider provider) {
    for (auto const& [name, known] : kProviders)
        if (known == provider) return name;
    return "";
}

void check(Arguments const& given) {
    if (given.bundle.empty()) throw asap::Error("expected a bundle, found none; see asap-infer --help");
    if (!given.prompt && !given.chat)
        throw asap::Error("expected --prompt TEXT, found none; give one, or --chat for a conversation");
    if (given.repeat && *given.repeat < 1)
        throw asap::Error("expected --repeat of at least 1, found " + std::to_string(*given.repeat));
    if (given.repeat && given.chat) throw asap::Error("expected --repeat or --chat, found both; leave one of them out");
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
        {"--top-k", [&](auto& f, auto& v) { found.options.top_k = number<std::int64_t>(f, v); }},
        {"--min-p", [&](auto& f, auto& v) { found.options.min_p = number<double>(f, v); }},
        {"--repetition-penalty", [&](auto& f, auto& v) { found.options.repetition_penalty = number<double>(f, v); }},
        {"--no-repeat-ngram-size",
         [&](auto& f, auto& v) { found.options.no_repeat_ngram_size = number<std::int64_t>(f, v); }},
        {"--min-new-tokens", [&](auto& f, auto& v) { found.options.min_new_tokens = number<std::int64_t>(f, v); }},
        {"--stop", [&](auto&, auto& v) { add_stop(found.options, v); }},
        {"--seed", [&](auto& f, auto& v) { found.options.seed = seed(f, v); }},
        {"--provider", [&](auto& f, auto& v) { found.load.provider = provider(f, v); }},
        {"--precision", [&](auto& f, auto& v) { found.load.precision = precision(f, v); }},
        {"--threads", [&](auto& f, auto& v) { found.load.threads = number<int>(f, v); }},
        {"--repeat", [&](auto& f, auto& v) { found.repeat = number<int>(f, v); }},
    };
    std::map<std::string, std::function<void()>> const alone = {
        {"--chat", [&] { found.chat = true; }},
        {"--json", [&] { found.json = true; }},
        {"--no-template", [&] { found.options.use_template = false; }},
        {"--help", [&] { found.help = true; }},
        {"-h", [&] { found.help = true; }},
        {"--version", [&] { found.version = true; }},
    };
    for (std::size_t i = 0; i < words.size(); ++i) {
        std::string const& word = words[i];
        std::string const flag = word.rfind("--", 0) == 0 ? word.substr(0, word.find('=')) : word;
        if (auto const at = with_value.find(flag); at != with_value.end()) {
            bool const joined = flag.size() < word.size();  // --flag=value
            if (!joined && i + 1 == words.size()) refuse(flag, "a value", "none");
            at->second(flag, joined ? word.substr(flag.size() + 1) : words[++i]);
        } else if (auto const known = alone.find(word); known != alone.end()) {
            known->second();
        } else if (word.rfind("-", 0) == 0) {
            throw asap::Error("expected an option that asap-infer knows, found " + word + "; see asap-infer --help");
        } else if (!found.bundle.empty()) {
            throw asap::Error("expected one bundle, found " + found.bundle + " and " + word + "; give one of them");
        } else {
            found.bundle = word;
        }
    }
    if (!found.help && !found.version) check(found);
    return found;
}

char const* name_of(asap::StoppedBy why) {
    return why == asap::StoppedBy::end ? "end" : why == asap::StoppedBy::stop ? "stop" : "length";
}

nlohmann::ordered_json as_json(asap::Answer const& answer) {
    auto const& timings = answer.timings;
    return {
        {"text", answer.text},
        {"token_ids", answer.token_ids},
        {"visual_tokens", answer.visual_tokens},
        {"kept_visual_tokens", answer.kept_visual_tokens},
        {"kept_index", answer.kept_index},
        {"stopped_by", name_of(answer.stopped_by)},
        {"timings",
         {{"preprocess", timings.preprocess},
          {"vision", timings.vision},
          {"embed", timings.embed},
          {"prefill", timings.prefill},
          {"decode", timings.decode}}},
    };
}

/// "154 of 922 visual tokens, first token 0.06 s, 31 tokens/s, cpu"
std::string summary(asap::Answer const& answer, asap::Provider provider) {
    auto const& timings = answer.timings;
    double decode = 0;
    for (double const step : timings.decode) decode += step;
    std::string said = "no image";
    if (answer.visual_tokens)
        said = std::to_string(answer.kept_visual_tokens) + " of " + std::to_string(answer.visual_tokens) +
               " visual tokens";
    char part[40];
    double const first = timings.preprocess + timings.vision + timings.embed + timings.prefill;
    std::snprintf(part, sizeof part, ", first token %.*f s", first < 10 ? 2 : 0, first);
    said += part;
    if (decode > 0) {
        double const rate = static_cast<double>(timings.decode.size()) / decode;
        std::snprintf(part, sizeof part, ", %.*f tokens/s", rate < 10 ? 1 : 0, rate);
        said += part;
    }
    return said + ", " + name_of(provider);
}

void show(asap::Answer const& answer, asap::Provider provider, bool json) {
    if (json) {
        std::cout << as_json(answer).dump(2) << std::endl;
        return;
    }
    std::cout << std::endl;  // the pieces are on stdout already
    if (answer.stopped_by == asap::StoppedBy::length)
        std::cerr << "note: cut at --max-new-tokens " << answer.token_ids.size() << "; raise it for more\n";
    std::cerr << summary(answer, provider) << '\n';
}

/// A line's first word, and what comes behind it, without the blanks around either.
std::pair<std::string, std::string> command_of(std::string const& line) {
    auto const first = line.find_first_not_of(' ');
    auto const end = std::min(line.find(' ', first), line.size());
    auto const rest = line.find_first_not_of(' ', end);
    if (rest == std::string::npos) return {line.substr(first, end - first), ""};
    return {line.substr(first, end - first), line.substr(rest, line.find_last_not_of(' ') + 1 - rest)};
}

std::string existing_file(std::string const& name) {
    if (name.empty()) throw asap::Error("expected a file after /image, found none; give one, such as /image cat.png");
    std::error_code unknown;  // of a name that no file can have
    if (!std::filesystem::exists(name, unknown))
        throw asap::Error("expected an image file at " + name + ", found nothing; check the path");
    return name;
}

/// Turns until /exit or the end of stdin; an error ends a script, but not a person's conversation.
void converse(asap::Model const& model, Arguments const& given, asap::TextCallback const& on_text) {
    auto conversation = model.chat();
    bool const at_terminal = isatty(STDIN_FILENO) == 1;
    std::vector<asap::ImageSource> images = given.images;
    auto const ask = [&](std::string const& text) {
        auto const answered = conversation.ask(images, text, given.options, on_text);
        images.clear();  // those of a question that failed wait for another
        show(answered, model.provider(), given.json);
    };
    auto const follow = [&](std::string const& line) {
        auto const [command, rest] = command_of(line);
        if (command == "/help")
            std::cerr << kChatHelp;
        else if (command == "/image")
            images.emplace_back(existing_file(rest));
        else if (command[0] == '/')
            throw asap::Error("expected a question or a command, found " + command + "; /help lists the commands");
        else
            ask(line);
    };
    auto const turn = [&](auto const& act, std::string const& line) {
        try {
            act(line);
        } catch (asap::Error const& error) {
            if (!at_terminal) throw;
            std::cerr << "error: " << error.what() << '\n';
        }
    };
    if (at_terminal) std::cerr << kChatHelp;
    if (given.prompt) turn(ask, *given.prompt);
    for (std::string line; std::getline(std::cin, line);) {
        if (line == "/exit" || line == "/quit") return;
        if (line.find_first_not_of(' ') != std::string::npos) turn(follow, line);
    }
}

void answer(Arguments const& given) {
    auto const model = asap::load(given.bundle, given.load);
    if (!model->note().empty()) std::cerr << "note: " << model->note() << '\n';
    asap::TextCallback on_text;
    if (!given.json) on_text = [](std::string const& piece) { std::cout << piece << std::flush; };
    if (given.chat) return converse(*model, given, on_text);
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (int i = 0; i < given.repeat.value_or(1); ++i) {
        auto const answered = model->generate(given.images, *given.prompt, given.options, on_text);
        if (given.repeat && given.json)
            all.push_back(as_json(answered));
        else
            show(answered, model->provider(), given.json);
    }
    if (given.repeat && given.json) std::cout << all.dump(2) << '\n';
}

}  // namespace

int main(int count, char** values) {
    std::cout.exceptions(std::ios::badbit);  // an answer that nobody gets is no success
    try {
        Arguments const given = parsed({values + 1, values + count});
        if (given.help)
            std::cout << kUsage;
        else if (given.version)
            std::cout << "asap-infer " ASAP_VERSION << '\n';
        else
            answer(given);
        std::cout.flush();
        return 0;
    } catch (std::ios_base::failure const&) {
        std::string const reason = std::strerror(errno);
        std::cout.exceptions(std::ios::goodbit);  // stderr flushes it
        std::cerr << "error: expected to write to standard output, found: " << reason
                  << "; free space or write elsewhere\n";
        return 2;
    } catch (asap::Error const& error) {
        std::istringstream said(error.what());  // a file's name may have lines
        std::cerr << "error:";
        for (std::string word; said >> word;) std::cerr << ' ' << word;
        std::cerr << '\n';
        return 2;
    } catch (std::bad_alloc const&) {
        std::cerr << "error: expected memory for asap-infer, found too little; use a larger machine\n";
        return 2;
    }
}
