#include <asap/conversation.hpp>

#include <chrono>
#include <optional>
#include <utility>

#include "guard.hpp"
#include "runtime.hpp"

namespace asap {

namespace detail {

struct ConversationState {
    std::optional<KvCache> cache;  // empty before the first turn
    std::int64_t last_token = -1;  // sampled last, and not in the cache yet
};

}  // namespace detail

Conversation::Conversation(std::shared_ptr<detail::Runtime const> runtime)
    : runtime_(std::move(runtime)), state_(std::make_unique<detail::ConversationState>()) {}

Conversation::Conversation(Conversation&&) noexcept = default;
Conversation& Conversation::operator=(Conversation&&) noexcept = default;
Conversation::~Conversation() = default;

Answer Conversation::ask(std::vector<ImageSource> const& images, std::string const& prompt, Options const& options,
                         TextCallback const& on_text) {
    if (!state_) throw Error("expected a conversation, found one that was moved to another; ask that one");
    return detail::guarded([&] {
        auto const begin = std::chrono::steady_clock::now();
        Inputs const inputs = state_->cache ? runtime_->read_turn(images, prompt, options, state_->last_token)
                                            : runtime_->read(images, prompt, options);
        std::chrono::duration<double> const preprocess = std::chrono::steady_clock::now() - begin;
        detail::Answered done = runtime_->answer(
            inputs, options, state_->cache ? *state_->cache : runtime_->empty_cache(), preprocess.count(), on_text);
        state_->cache = std::move(done.cache);
        state_->last_token = done.answer.token_ids.back();
        return std::move(done.answer);
    });
}

}  // namespace asap
