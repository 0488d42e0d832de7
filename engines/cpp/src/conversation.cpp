#include <asap/conversation.hpp>

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "guard.hpp"
#include "runtime.hpp"

namespace asap {

namespace detail {

struct ConversationState {
    std::optional<KvCache> cache;         // empty before the first turn
    std::vector<std::int64_t> token_ids;  // of all turns; the last is not in the cache yet
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
        std::vector<std::int64_t> ids = state_->token_ids;
        Inputs const inputs = state_->cache ? runtime_->read_turn(images, prompt, options, ids.back())
                                            : runtime_->read(images, prompt, options);
        if (state_->cache) ids.pop_back();  // it comes first in this turn
        std::chrono::duration<double> const preprocess = std::chrono::steady_clock::now() - begin;
        detail::Answered done =
            runtime_->answer(inputs, options, state_->cache ? *state_->cache : runtime_->empty_cache(),
                             preprocess.count(), on_text, ids);
        ids.insert(ids.end(), inputs.input_ids.begin(), inputs.input_ids.end());
        ids.insert(ids.end(), done.answer.token_ids.begin(), done.answer.token_ids.end());
        state_->cache = std::move(done.cache);
        state_->token_ids = std::move(ids);
        return std::move(done.answer);
    });
}

}  // namespace asap
