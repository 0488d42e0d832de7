/// Several turns on one KV cache.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <asap/image.hpp>
#include <asap/request.hpp>

namespace asap {

namespace detail {
class Runtime;
struct ConversationState;
}  // namespace detail

/// Made by `Model::chat`. A turn that fails leaves the conversation as it was. One thread at a time. One that was moved
/// to another answers no more.
class Conversation {
public:
    explicit Conversation(std::shared_ptr<detail::Runtime const> runtime);
    Conversation(Conversation&&) noexcept;
    Conversation& operator=(Conversation&&) noexcept;
    ~Conversation();

    /// The next turn. Its images, if any, are pruned in their turn; what earlier ones left in the cache stays, and the
    /// budget of `options` is for the images of this turn. Throws `Error` as `Model::generate` does.
    Answer ask(std::vector<ImageSource> const& images, std::string const& prompt, Options const& options = {},
               TextCallback const& on_text = {});

private:
    std::shared_ptr<detail::Runtime const> runtime_;
    std::unique_ptr<detail::ConversationState> state_;
};

}  // namespace asap
