#include "runtime.hpp"

#include <algorithm>
#include <utility>

#include "budget.hpp"
#include "memory.hpp"
#include "providers.hpp"
#include "sampler.hpp"
#include "text_stream.hpp"

namespace asap::detail {

Runtime::Runtime(Bundle bundle, LoadOptions const& options)
    : environment_(ORT_LOGGING_LEVEL_FATAL, "asap"),
      bundle_(std::move(bundle)),
      provider_(choose_provider(bundle_, options.provider)),
      mapped_(provider_ == Provider::cpu && weights_stay_on_disk(bundle_, available_memory())),
      reader_(bundle_, options.threads),
      graphs_(bundle_.manifest, open_sessions(environment_, bundle_, provider_, options, mapped_),
              provider_ == Provider::cpu, cache_form(bundle_, provider_)) {}

std::string Runtime::note() const {
    return mapped_
               ? "there is too little memory for these weights as float32, so they are read from disk at every step, "
                 "which is slow; export with --quantize int4"
               : "";
}

Inputs Runtime::read(std::vector<ImageSource> const& images, std::string const& prompt, Options const& options) const {
    check_options(options);  // before an image is read
    return reader_.read(prompt, images, options.use_template);
}

Inputs Runtime::read_turn(std::vector<ImageSource> const& images, std::string const& prompt, Options const& options,
                          std::int64_t last_token) const {
    check_options(options);
    return reader_.read_turn(prompt, images, last_token);
}

Answered Runtime::answer(Inputs const& inputs, Options const& options, KvCache const& cache, double preprocess_seconds,
                         TextCallback const& on_text, std::vector<std::int64_t> const& before) const {
    TextStream stream([this](auto const& ids, bool special) { return reader_.text(ids, special); }, on_text,
                      chosen(options, bundle_.manifest.generation).stop);
    Generation done = generate(bundle_.manifest, graphs_, inputs, options, cache, before,
                               [&](std::int64_t token) { return stream.put(token); });
    Answer answer;
    answer.text = stream.close();
    auto const& ends = bundle_.manifest.model.eos_token_ids;
    bool const ended = std::find(ends.begin(), ends.end(), done.token_ids.back()) != ends.end();
    answer.stopped_by = ended ? StoppedBy::end : stream.stopped() ? StoppedBy::stop : StoppedBy::length;
    answer.token_ids = std::move(done.token_ids);
    answer.visual_tokens = done.visual_tokens;
    answer.kept_visual_tokens = done.kept_visual_tokens;
    answer.kept_index = std::move(done.kept_index);
    answer.timings = std::move(done.timings);
    answer.timings.preprocess = preprocess_seconds;
    return {std::move(answer), std::move(done.cache)};
}

}  // namespace asap::detail
