// asap-overhead BUNDLE IMAGE PROMPT THREADS REPEAT: the part of a prefill and of a decode step that is spent outside
// the runtime's own calls, as JSON. Medians over several answers.

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <onnxruntime_cxx_api.h>
#include <asap/asap.hpp>
#include <nlohmann/json.hpp>

#include "bundle.hpp"
#include "generate.hpp"
#include "graphs.hpp"
#include "prompt.hpp"
#include "providers.hpp"

namespace asap::detail {
namespace {

/// Adds up the time that another session takes.
class TimedSession final : public GraphSession {
public:
    TimedSession(std::unique_ptr<GraphSession> session, double& seconds)
        : session_(std::move(session)), seconds_(seconds) {}

    Tensors run(Tensors const& inputs, Names const& on_host, HostTensors const& into) const override {
        auto const begin = std::chrono::steady_clock::now();
        Tensors outputs = session_->run(inputs, on_host, into);
        seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        return outputs;
    }
    std::optional<std::int64_t> longest(std::string const& name, std::size_t axis) const override {
        return session_->longest(name, axis);
    }

private:
    std::unique_ptr<GraphSession> session_;
    double& seconds_;
};

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

/// Parts of an answer's time, from the first graph to the last token, that lie outside the sessions.
struct Shares {
    std::vector<double> prefill, step;
};

void measure(Manifest const& manifest, Graphs const& graphs, Inputs const& inputs, double& inside, Shares& shares) {
    double const before = inside;
    double first_inside = 0;
    auto const begin = std::chrono::steady_clock::now();
    auto first = begin;
    Options options;
    options.max_new_tokens = 16;
    std::size_t tokens = 0;
    auto const since = [](auto from, auto to) { return std::chrono::duration<double>(to - from).count(); };
    generate(manifest, graphs, inputs, options, graphs.empty_cache(), {}, [&](std::int64_t) {
        if (tokens++) return false;
        first = std::chrono::steady_clock::now();
        first_inside = inside - before;
        return false;
    });
    auto const end = std::chrono::steady_clock::now();
    shares.prefill.push_back(1 - first_inside / since(begin, first));
    if (tokens > 1) shares.step.push_back(1 - (inside - before - first_inside) / since(first, end));
}

nlohmann::json measured(std::string const& folder, std::string const& image, std::string const& prompt, int threads,
                        int repeat) {
    Bundle const bundle = open_bundle(folder);
    Ort::Env const environment(ORT_LOGGING_LEVEL_ERROR, "asap");
    LoadOptions load;
    load.threads = threads;
    double inside = 0;
    Sessions sessions = open_sessions(environment, bundle, Provider::cpu, load, false);
    for (auto* const session : {&sessions.vision_encoder, &sessions.embed_tokens, &sessions.decoder})
        *session = std::make_unique<TimedSession>(std::move(*session), inside);
    Graphs const graphs(bundle.manifest, std::move(sessions), false, cache_form(bundle, Provider::cpu));
    PromptReader const reader(bundle);
    Inputs const inputs = reader.read(prompt, {image}, true);
    Shares shares;
    for (int i = 0; i < repeat; ++i) measure(bundle.manifest, graphs, inputs, inside, shares);
    return {{"overhead", median(shares.prefill)}, {"step", shares.step.empty() ? 0 : median(shares.step)}};
}

}  // namespace
}  // namespace asap::detail

int main(int count, char** values) {
    if (count != 6) return std::cerr << "usage: asap-overhead BUNDLE IMAGE PROMPT THREADS REPEAT\n", 2;
    try {
        int const threads = std::stoi(values[4]), repeat = std::stoi(values[5]);
        std::cout << asap::detail::measured(values[1], values[2], values[3], threads, repeat).dump() << '\n';
        return 0;
    } catch (std::exception const& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 2;
    }
}
