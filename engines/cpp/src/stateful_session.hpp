/// A graph in OpenVINO whose caches only grow: they stay inside, where a step adds to them in place.
#pragma once

#include <memory>
#include <mutex>

#include "openvino_session.hpp"

namespace asap::detail {

/// Its tensors of caches are handles. A run goes on from its caches in place; where another run did that before, from
/// the same place, it goes on from a copy of them.
class StatefulSession final : public GraphSession {
public:
    StatefulSession(ov::Core& core, std::filesystem::path const& file, OpenVinoOptions const& options);

    Tensors run(Tensors const& inputs, Names const& on_host, HostTensors const& into) const override;
    std::optional<std::int64_t> longest(std::string const&, std::size_t) const override { return std::nullopt; }

    std::vector<std::string> inputs() const;

private:
    struct Places;
    class HeldCache;

    /// A request that holds the caches among `inputs` and no more.
    std::shared_ptr<Places> continued(Tensors const& inputs) const;

    std::vector<std::string> caches_;
    std::string rows_from_;  // the input [1, T, ...] of the new tokens
    ov::CompiledModel graph_;
    mutable std::mutex mutex_;  // one run at a time
};

}  // namespace asap::detail
