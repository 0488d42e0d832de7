#include "padded_session.hpp"

#include <cstring>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "buffers.hpp"
#include "kv_cache.hpp"

namespace asap::detail {

namespace {

constexpr std::int64_t kGranule = 64;  // tokens; a prompt is padded to a multiple of it
constexpr char kMask[] = "attention_mask", kEarlyMask[] = "early_attention_mask", kKept[] = "kept_index";

/// A cache in the first places of buffers.
class HeldCache final : public Tensor {
public:
    HeldCache(std::shared_ptr<Buffers> buffers, std::int64_t length) : buffers_(std::move(buffers)) {
        HostTensor const& array = *buffers_->arrays().begin()->second;
        dtype_ = array.dtype();
        shape_ = {1, array.shape()[1], length, array.shape()[3]};
    }
    Dtype dtype() const override { return dtype_; }
    Shape const& shape() const override { return shape_; }
    std::byte const* host() const override { return nullptr; }

    std::shared_ptr<Buffers> const& buffers() const { return buffers_; }
    std::int64_t length() const { return shape_[2]; }

private:
    std::shared_ptr<Buffers> buffers_;
    Dtype dtype_;
    Shape shape_;
};

/// `count` zeros put in front of place number `place` of a tensor [1, T, ...].
TensorPtr widened(TensorPtr const& tensor, std::int64_t place, std::int64_t count) {
    if (!count) return tensor;
    Shape shape = tensor->shape();
    std::size_t const row = elements({shape.begin() + 2, shape.end()}) * size_of(tensor->dtype());
    std::size_t const before = static_cast<std::size_t>(place) * row,
                      behind = static_cast<std::size_t>(shape[1] - place) * row;
    shape[1] += count;
    auto wide = std::make_shared<HostTensor>(tensor->dtype(), shape);
    if (before) std::memcpy(wide->writable(), tensor->host(), before);
    std::byte* const rest = wide->writable() + before + static_cast<std::size_t>(count) * row;
    if (behind) std::memcpy(rest, tensor->host() + before, behind);
    return wide;
}

/// The caches among `inputs`: handles, or empty tensors in front of a prompt.
std::shared_ptr<HeldCache const> held_of(Tensors const& inputs, std::vector<std::string> const& caches) {
    TensorPtr const& first = inputs.at(caches.front());
    if (auto held = std::dynamic_pointer_cast<HeldCache const>(first)) return held;
    if (first->shape()[2]) throw std::logic_error("OpenVINO takes caches that it made");
    auto buffers = Buffers::empty(caches, first->shape()[1], first->shape()[3], first->dtype(), 0);
    return std::make_shared<HeldCache>(std::move(buffers), 0);
}

/// The tokens of `outputs` that the run has added behind the buffers' places, the last `count` of which are new ones:
/// all of them, or those that were kept.
std::shared_ptr<HeldCache const> grown(HeldCache const& held, Tensors const& outputs, std::int64_t count) {
    auto const& any = outputs.at(present_name(held.buffers()->arrays().begin()->first));
    std::int64_t const added = std::min(any->shape()[2], count), first = any->shape()[2] - added;
    std::vector<std::int64_t> places(static_cast<std::size_t>(added));
    std::iota(places.begin(), places.end(), first);
    auto buffers = held.buffers()->claimed(held.length(), held.length() + added);
    for (auto const& [name, array] : buffers->arrays())
        copy_places(*outputs.at(present_name(name)), places, *array, held.length());
    return std::make_shared<HeldCache>(std::move(buffers), held.length() + added);
}

}  // namespace

Tensors PaddedSession::run(Tensors const& inputs, Names const&, HostTensors const& into) const {
    if (!into.empty()) throw std::logic_error("OpenVINO keeps its caches where it made them");
    std::lock_guard<std::mutex> const lock(mutex_);
    std::vector<std::string> caches;
    Tensors given;
    for (std::string const& name : session_->inputs())
        if (is_cache(name))
            caches.push_back(name);
        else
            given[name] = inputs.at(name);
    auto const held = held_of(inputs, caches);
    std::int64_t const count = inputs.at("inputs_embeds")->shape()[1], places = held->buffers()->capacity(),
                       before = count > 1 ? (kGranule - count % kGranule) % kGranule : 0;
    for (char const* const name : {"inputs_embeds", "position_ids", "visual_mask"})
        given.at(name) = widened(given.at(name), 0, before);
    std::string const own = given.count(kEarlyMask) ? kEarlyMask : kMask;  // the mask of these caches
    for (std::string const& name : Names{own, kMask}) {
        std::int64_t const behind = name == own ? places - held->length() : 0;
        given.at(name) = widened(given.at(name), given.at(name)->shape()[1] - count, before + behind);
    }
    for (auto const& [name, array] : held->buffers()->arrays()) given[name] = array;
    Tensors outputs = session_->run_behind(given, places);
    auto kept = as_integers(*outputs.at(kKept));
    for (std::int64_t& place : kept) place -= before;
    outputs[kKept] = integers(outputs.at(kKept)->shape(), kept);
    auto const next = grown(*held, outputs, count);
    for (std::string const& name : caches) outputs[present_name(name)] = next;
    return outputs;
}

}  // namespace asap::detail
