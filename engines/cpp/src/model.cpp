#include <asap/model.hpp>

#include <chrono>
#include <utility>

#include "guard.hpp"
#include "providers.hpp"
#include "runtime.hpp"

namespace asap {

namespace {

double since(std::chrono::steady_clock::time_point begin) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

Model::Model(std::shared_ptr<detail::Runtime const> runtime) : runtime_(std::move(runtime)) {}

Answer Model::generate(std::vector<ImageSource> const& images, std::string const& prompt, Options const& options,
                       TextCallback const& on_text) const {
    return detail::guarded([&] {
        auto const begin = std::chrono::steady_clock::now();
        Inputs const inputs = runtime_->read(images, prompt, options);
        return runtime_->answer(inputs, options, runtime_->empty_cache(), since(begin), on_text).answer;
    });
}

Answer Model::generate(Inputs const& inputs, Options const& options, TextCallback const& on_text) const {
    return detail::guarded(
        [&] { return runtime_->answer(inputs, options, runtime_->empty_cache(), 0, on_text).answer; });
}

Inputs Model::inputs(std::vector<ImageSource> const& images, std::string const& prompt, Options const& options) const {
    return detail::guarded([&] { return runtime_->read(images, prompt, options); });
}

Conversation Model::chat() const { return Conversation(runtime_); }

Provider Model::provider() const { return runtime_->provider(); }

std::string Model::note() const { return runtime_->note(); }

std::unique_ptr<Model> load(std::filesystem::path const& bundle, LoadOptions const& options) {
    return detail::guarded([&] {
        auto const opened = detail::open_bundle(bundle);
        detail::check_precision(options);
        auto model = std::make_unique<Model>(std::make_shared<detail::Runtime const>(opened, options));
        opened.check_unchanged();
        return model;
    });
}

}  // namespace asap
