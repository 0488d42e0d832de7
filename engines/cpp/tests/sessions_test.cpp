// The cache and the chain of parts, on sessions that only pass tensors on.
#include "chain.hpp"
#include "kv_cache.hpp"

#include <functional>
#include <utility>

#include <gtest/gtest.h>

namespace asap::detail {
namespace {

class FunctionSession final : public GraphSession {
public:
    using Function = std::function<Tensors(Tensors const&)>;
    explicit FunctionSession(Function function, std::optional<std::int64_t> most = {})
        : function_(std::move(function)), most_(most) {}
    Tensors run(Tensors const& inputs, Names const&, HostTensors const&) const override { return function_(inputs); }
    std::optional<std::int64_t> longest(std::string const&, std::size_t) const override { return most_; }

private:
    Function function_;
    std::optional<std::int64_t> most_;
};

std::int64_t value(TensorPtr const& tensor) { return as_integers(*tensor).at(0); }

TensorPtr tensor(std::int64_t number) { return integers({1}, {number}); }

TEST(Chain, givesEachPartWhatItTakesAndReturnsTheWholeGraphsOutputs) {
    std::vector<Link> links;
    links.push_back({std::make_unique<FunctionSession>(
                         [](Tensors const& in) { return Tensors{{"crosses", tensor(value(in.at("x")) + 1)}}; }, 9),
                     {"x"}});
    links.push_back({std::make_unique<FunctionSession>(
                         [](Tensors const& in) {
                             EXPECT_EQ(in.size(), 2u);
                             return Tensors{{"y", tensor(value(in.at("crosses")) * value(in.at("mask")))}};
                         },
                         7),
                     {"crosses", "mask"}});
    auto const whole = chained(std::move(links), {"y"});
    Tensors const outputs = whole->run({{"x", tensor(2)}, {"mask", tensor(10)}}, {});
    ASSERT_EQ(outputs.size(), 1u);
    EXPECT_EQ(value(outputs.at("y")), 30);
    EXPECT_THROW(whole->run({}, {}, {{"y", nullptr}}), std::logic_error);  // engines write to memory of their own
    EXPECT_EQ(whole->longest("x", 0), 9);
    EXPECT_EQ(whole->longest("mask", 0), 7);
    EXPECT_EQ(whole->longest("y", 0), std::nullopt);
}

Manifest small(bool trim_early_kv) {
    Manifest manifest{};
    manifest.model.layers = 2;
    manifest.model.kv_heads = 2;
    manifest.model.head_dim = 4;
    manifest.pruning.method = "asap";
    manifest.pruning.trim_early_kv = trim_early_kv;
    return manifest;
}

Tensors presents() {
    Tensors outputs;
    for (char const* const name : {"present.0.key", "present.0.value", "present.1.key", "present.1.value"})
        outputs.emplace(name, tensor(1));
    return outputs;
}

TEST(KvCache, growsByWhatIsKeptAndCountsPositionsByWhatWasFed) {
    KvCache const empty = empty_cache(small(true), Dtype::fp16);
    EXPECT_EQ(empty.layers.size(), 4u);
    EXPECT_EQ(empty.layers.at("past_key_values.1.value")->shape(), (Shape{1, 2, 0, 4}));

    KvCache const prefilled = empty.grown(100, 30, presents());
    EXPECT_EQ(prefilled.length, 30);
    Tensors const step = prefilled.inputs(1);
    EXPECT_EQ(step.at("attention_mask")->shape(), (Shape{1, 31}));
    EXPECT_EQ(as_integers(*step.at("position_ids")), (std::vector<std::int64_t>{100}));
    EXPECT_EQ(step.count("early_attention_mask"), 0u);
    EXPECT_EQ(step.at("past_key_values.0.key"), prefilled.layers.at("past_key_values.0.key"));  // not copied
}

TEST(KvCache, keepsTwoLengthsWhereEarlyLayersAreNotTrimmed) {
    KvCache const cache = empty_cache(small(false), Dtype::fp32).grown(100, 30, presents());
    EXPECT_EQ(cache.longest(), 100);
    Tensors const step = cache.inputs(1);
    EXPECT_EQ(step.at("attention_mask")->shape(), (Shape{1, 31}));
    EXPECT_EQ(step.at("early_attention_mask")->shape(), (Shape{1, 101}));
}

TEST(KvCache, leavesToBuffersWhatWasWrittenThere) {
    KvCache const empty = empty_cache(small(true), Dtype::fp32);
    auto const written = Buffers::empty({"past_key_values.1.key", "past_key_values.1.value"}, 2, 4, Dtype::fp32, 3);
    Tensors outputs = presents();
    outputs.erase("present.1.key");
    outputs.erase("present.1.value");
    KvCache const grown = empty.grown(5, 3, outputs, written);
    EXPECT_EQ(grown.buffers, written);
    EXPECT_EQ(grown.layers.size(), 2u);
    EXPECT_EQ(grown.layers.count("past_key_values.1.key"), 0u);
}

}  // namespace
}  // namespace asap::detail
