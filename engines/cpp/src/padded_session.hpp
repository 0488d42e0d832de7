/// The part of a decoder before the cut, at few lengths: OpenVINO compiles its attention anew for every one.
#pragma once

#include <memory>
#include <mutex>

#include "openvino_session.hpp"

namespace asap::detail {

/// Runs another session at rounded lengths, with masks over what it adds: new tokens are padded on the left, caches on
/// the right, in buffers that grow. Its tensors of caches are handles.
class PaddedSession final : public GraphSession {
public:
    explicit PaddedSession(std::unique_ptr<OpenVinoSession> session) : session_(std::move(session)) {}

    Tensors run(Tensors const& inputs, Names const& on_host, HostTensors const& into) const override;
    std::optional<std::int64_t> longest(std::string const&, std::size_t) const override { return std::nullopt; }

    std::vector<std::string> inputs() const { return session_->inputs(); }

private:
    std::unique_ptr<OpenVinoSession> session_;
    mutable std::mutex mutex_;  // places behind a cache are read by a run, and written behind another
};

}  // namespace asap::detail
