#include "chain.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace asap::detail {

namespace {

class ChainedSession final : public GraphSession {
public:
    ChainedSession(std::vector<Link> links, std::vector<std::string> outputs)
        : links_(std::move(links)), outputs_(std::move(outputs)) {}

    Tensors run(Tensors const& inputs, Names const& on_host, HostTensors const& into) const override {
        if (!into.empty()) throw std::logic_error("engines keep their caches where they made them");
        Tensors values = inputs;
        for (Link const& link : links_) {
            Tensors given;
            for (std::string const& name : link.inputs) given.emplace(name, values.at(name));
            for (auto& [name, tensor] : link.session->run(given, on_host)) values[name] = tensor;
        }
        Tensors results;
        for (std::string const& name : outputs_) results.emplace(name, values.at(name));
        return results;
    }

    std::optional<std::int64_t> longest(std::string const& name, std::size_t axis) const override {
        std::optional<std::int64_t> least;
        for (Link const& link : links_) {
            if (std::find(link.inputs.begin(), link.inputs.end(), name) == link.inputs.end()) continue;
            if (auto const size = link.session->longest(name, axis)) least = std::min(least.value_or(*size), *size);
        }
        return least;
    }

private:
    std::vector<Link> links_;
    std::vector<std::string> outputs_;
};

}  // namespace

std::unique_ptr<GraphSession> chained(std::vector<Link> links, std::vector<std::string> outputs) {
    return std::make_unique<ChainedSession>(std::move(links), std::move(outputs));
}

}  // namespace asap::detail
