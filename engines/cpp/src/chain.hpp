/// Several sessions that are one graph: its parts, run one after the other, what crosses kept where it is.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend.hpp"

namespace asap::detail {

/// One part of a graph, and the names of what it takes.
struct Link {
    std::unique_ptr<GraphSession> session;
    std::vector<std::string> inputs;
};

/// A session on the parts of a graph, in the order in which they run: by name, a part is given inputs of the whole
/// graph and outputs of earlier parts. `outputs` are the whole graph's; what merely crosses is let go.
std::unique_ptr<GraphSession> chained(std::vector<Link> links, std::vector<std::string> outputs);

}  // namespace asap::detail
