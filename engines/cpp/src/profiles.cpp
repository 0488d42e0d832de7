#include "profiles.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include <asap/error.hpp>

namespace asap::detail {

namespace {

struct Breach {
    std::string name;
    std::size_t axis;
    std::int64_t found, low, high;
};

using Ranges = std::map<std::string, ShapeRange>;

void add_breaches(std::vector<Breach>& breaches, Ranges const& ranges, std::map<std::string, Shape> const& found) {
    for (auto const& [name, allowed] : ranges) {
        auto const at = found.find(name);
        if (at == found.end()) continue;
        for (std::size_t axis = 0; axis < at->second.size() && axis < allowed.min.size(); ++axis) {
            std::int64_t const size = at->second[axis], low = allowed.min[axis], high = allowed.max[axis];
            if (size < low || size > high) breaches.push_back({name, axis, size, low, high});
        }
    }
}

double volume(Profile const& profile) {
    double total = 0;
    for (auto const& [name, allowed] : profile.shapes) {
        double one = 1;
        for (std::int64_t const size : allowed.max) one *= static_cast<double>(size);
        total += one;
    }
    return total;
}

/// The dimension in the graph's words ("batch"), or the input itself where it is a scalar.
std::string title(std::vector<TensorInfo> const& inputs, Breach const& breach) {
    for (TensorInfo const& input : inputs) {
        if (input.name != breach.name || breach.axis >= input.dims.size()) continue;
        auto const* const dim = std::get_if<std::string>(&input.dims[breach.axis]);
        if (dim && *dim != breach.name) return *dim + " (" + breach.name + ")";
    }
    return breach.name;
}

[[noreturn]] void refuse(std::vector<TensorInfo> const& inputs, Breach const& breach) {
    throw Error("expected " + title(inputs, breach) + " of " + std::to_string(breach.low) + " to " +
                std::to_string(breach.high) + " for this engine, found " + std::to_string(breach.found) +
                "; shorten the request, or export with other limits (--max-batch, --max-images, --max-text, "
                "--max-new-tokens)");
}

}  // namespace

std::size_t choose_profile(std::vector<TensorInfo> const& inputs, std::vector<Profile> const& profiles,
                           std::map<std::string, Shape> const& shapes, std::map<std::string, Shape> const& values) {
    std::optional<std::size_t> narrowest;
    std::vector<Breach> nearest;  // of several profiles that miss as little, the widest has the limit that holds
    double width = 0;
    for (std::size_t number = 0; number < profiles.size(); ++number) {
        std::vector<Breach> breaches;
        add_breaches(breaches, profiles[number].shapes, shapes);
        add_breaches(breaches, profiles[number].values, values);
        double const size = volume(profiles[number]);
        if (breaches.empty() && (!narrowest || size < volume(profiles[*narrowest]))) narrowest = number;
        if (breaches.empty()) continue;
        bool const nearer = breaches.size() < nearest.size() || (breaches.size() == nearest.size() && size > width);
        if (nearest.empty() || nearer) {
            nearest = std::move(breaches);
            width = size;
        }
    }
    if (!narrowest) {
        if (nearest.empty()) throw Error("expected an engine with profiles, found none; export the bundle again");
        refuse(inputs, nearest.front());
    }
    return *narrowest;
}

std::optional<std::int64_t> longest(std::vector<Profile> const& profiles, std::string const& name, std::size_t axis) {
    std::optional<std::int64_t> most;
    for (Profile const& profile : profiles) {
        auto const at = profile.shapes.find(name);
        if (at != profile.shapes.end() && axis < at->second.max.size())
            most = std::max(most.value_or(std::numeric_limits<std::int64_t>::min()), at->second.max[axis]);
    }
    return most;
}

}  // namespace asap::detail
