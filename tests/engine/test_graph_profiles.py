"""Optimization profiles: every request that the limits allow lies within them, and the graphs agree."""

import pytest
from engine_specs import LLAVA_1_5, MISTRAL, TINY, VICUNA
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from asap_export.bundle import GraphInfo, Limits, TensorInfo
from asap_export.engine import check_limits, graph_profiles
from asap_export.engine.limits import largest_cache
from asap_export.engine.profiles import dimension_ranges
from asap_export.errors import UserError
from asap_export.model.anyres import TileGeometry, packing
from asap_export.pruning.config import Budget, PruningConfig

SPECS = st.sampled_from((VICUNA, MISTRAL, TINY, LLAVA_1_5))
LIMITS = st.builds(Limits, st.integers(1, 8), st.integers(1, 3), st.integers(1, 2000), st.integers(1, 1500))
PRUNINGS = st.sampled_from(
    (
        PruningConfig(),
        PruningConfig(trim_early_kv=False),
        PruningConfig(prune_after=5),
        PruningConfig(method="none"),
    )
)
BUDGETS = st.one_of(
    st.builds(Budget, keep=st.integers(1, 3000)),
    st.builds(Budget, ratio=st.floats(0.01, 1)),
    st.builds(Budget, layer_average=st.floats(1, 3000)),
)
IMAGE_SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


def allowed(spec, pruning, budget, limits):
    """The table of dimensions, for limits that pass."""
    try:
        check_limits(limits, spec, pruning, budget, with_engines=True)
    except UserError:
        assume(False)
    return dimension_ranges(spec, pruning, budget, limits)


def assert_takes(tables, kind, **sizes):
    """One of the profiles for prompts ("context") or for steps ("generation") takes all of it."""
    found = [
        {name: size for name, size in sizes.items() if not ranges[name].min <= size <= ranges[name].max}
        for title, ranges in tables.items()
        if title.endswith(kind)
    ]
    assert {} in found, found


@given(SPECS, PRUNINGS, BUDGETS, LIMITS)
def test_dimensions_are_ordered_and_add_up(spec, pruning, budget, limits):
    for ranges in allowed(spec, pruning, budget, limits).values():
        for name, (low, expected, high) in ranges.items():
            assert low <= expected <= high, name
        for past, total in (
            ("past_sequence", "total_sequence"),
            ("early_past_sequence", "early_total_sequence"),
        ):
            assert ranges[total] == tuple(
                a + b for a, b in zip(ranges[past], ranges["sequence"], strict=True)
            )
        assert all(kept <= new for kept, new in zip(ranges["kept_length"], ranges["sequence"], strict=True))


@settings(max_examples=300)
@given(SPECS, PRUNINGS, BUDGETS, LIMITS, st.data())
def test_every_conversation_fits(spec, pruning, budget, limits, data):
    """Up to four turns at the bundle's own budget, images in any of them, as far as an engine takes them."""
    tables = allowed(spec, pruning, budget, limits)
    room = largest_cache(spec, pruning)
    geometry = TileGeometry.of(spec)
    fed = past = early_past = 0
    for _ in range(data.draw(st.integers(1, 4))):
        images = packing(data.draw(st.lists(IMAGE_SIZES, max_size=limits.max_images)), geometry)
        visual, text = sum(images.visual_tokens), data.draw(st.integers(1, limits.max_text))
        answer = data.draw(st.integers(1, limits.max_new_tokens))
        if fed + visual + text + answer > spec.max_position_embeddings:
            break
        new = visual + text
        kept = new
        if visual and pruning.prunes:
            kept = min(new, budget.keep_for(visual, spec.layers, pruning.prune_after) + text)
        if images.tiles:
            assert_takes(tables, "context", tiles=sum(images.tiles))
        assert_takes(
            tables, "context", batch=1, visual_tokens=visual, sequence=new, past_sequence=past,
            total_sequence=past + new, early_past_sequence=early_past, early_total_sequence=early_past + new,
            **({"kept_length": kept} if pruning.prunes else {}),
        )  # fmt: skip
        if max(past + kept, 0 if pruning.trim_early_kv else early_past + new) + answer - 1 > room:
            break
        past, early_past, fed = past + kept, early_past + new, fed + new
        for _ in range(answer - 1):  # the last token sampled is never fed
            assert_takes(
                tables, "generation", batch=1, sequence=1, kept_length=1, past_sequence=past,
                total_sequence=past + 1, early_past_sequence=early_past, early_total_sequence=early_past + 1,
            )  # fmt: skip
            past, early_past, fed = past + 1, early_past + 1, fed + 1
        past, early_past, fed = past + 1, early_past + 1, fed + 1  # with the next turn


@given(SPECS, LIMITS, st.data())
def test_every_batch_fits(spec, limits, data):
    """Rows of a batch share the tower and the embedding, and are padded to the longest of them."""
    budget, pruning = Budget(ratio=1 / 6), PruningConfig()
    tables = allowed(spec, pruning, budget, limits)
    rows = data.draw(
        st.lists(st.lists(IMAGE_SIZES, max_size=limits.max_images), min_size=1, max_size=limits.max_batch)
    )
    packed = [packing(row, TileGeometry.of(spec)) for row in rows]
    longest = max(sum(row.visual_tokens) for row in packed) + limits.max_text
    assert_takes(
        tables,
        "context",
        batch=len(rows),
        visual_tokens=sum(sum(row.visual_tokens) for row in packed),
        sequence=longest,
    )
    if limits.max_new_tokens > 1:
        last = longest + limits.max_new_tokens - 1
        assert_takes(tables, "generation", batch=len(rows), past_sequence=last - 1, total_sequence=last)


def tensor(name, *dims):
    return TensorInfo(name, "int64", dims)


DECODER = GraphInfo(
    "decoder.onnx",
    (
        tensor("inputs_embeds", "batch", "sequence", 4096),
        tensor("attention_mask", "batch", "total_sequence"),
        tensor("kept_length"),
        tensor("past_key_values.0.key", "batch", 8, "past_sequence", 128),
    ),
    (),
)


def test_profiles_carry_shapes_of_tensors_and_values_of_scalars():
    limits = Limits(max_batch=2, max_images=1, max_text=512, max_new_tokens=512)
    context, generation, *_ = graph_profiles(DECODER, MISTRAL, PruningConfig(), Budget(keep=478), limits)
    assert (context.name, generation.name) == ("context", "generation")
    assert context.shapes["inputs_embeds"].max == (2, 3440, 4096)
    assert context.shapes["past_key_values.0.key"].min == (1, 8, 0, 128)
    assert (context.values["kept_length"].opt, context.values["kept_length"].max) == ((542,), (990,))
    assert generation.shapes["inputs_embeds"].max == (2, 1, 4096)
    assert generation.values["kept_length"].max == (1,)


def test_a_step_takes_a_second_row_only_where_that_saves_memory():
    """Plain weights are then held once, quantized ones where a step takes no more than it must."""
    for batch, quantized, rows in ((1, False, 2), (3, False, 3), (1, True, 1), (3, True, 3)):
        limits = Limits(max_batch=batch, max_images=1, max_text=512, max_new_tokens=512)
        tables = dimension_ranges(MISTRAL, PruningConfig(), Budget(keep=478), limits, quantized)
        assert tables["generation"]["batch"] == (1, 1, rows)
        assert tables["context"]["batch"] == (1, 1, batch)


def test_a_part_behind_the_cut_takes_as_many_tokens_as_are_kept():
    limits = Limits(max_batch=1, max_images=1, max_text=512, max_new_tokens=512)
    part = GraphInfo("decoder.onnx", (tensor("kept_index", "batch", "kept_sequence"), *DECODER.inputs), ())
    for profile in graph_profiles(part, MISTRAL, PruningConfig(), Budget(keep=478), limits):
        kept, length = profile.shapes["kept_index"], profile.values["kept_length"]
        assert (kept.min[1:], kept.opt[1:], kept.max[1:]) == (length.min, length.opt, length.max)


def named(limits, budget, pruning=None):
    profiles = graph_profiles(DECODER, MISTRAL, pruning or PruningConfig(), budget, limits)
    return {profile.name: profile for profile in profiles}


def test_the_bundles_own_budget_and_the_dense_extreme_have_profiles_of_their_own():
    """With one image of 2,928 tokens, a question of 64 and half an answer of 512."""
    found = named(Limits(1, 1, 512, 512), Budget(keep=478))
    assert list(found) == ["context", "generation", "dense_context", "dense_generation"]
    kept = {name: profile.values["kept_length"].opt for name, profile in found.items()}
    assert (kept["context"], kept["dense_context"]) == ((478 + 64,), (2928 + 64,))
    cached = {name: profile.shapes["past_key_values.0.key"].opt[2] for name, profile in found.items()}
    assert (cached["generation"], cached["dense_generation"]) == (478 + 64 + 256, 2928 + 64 + 256)


@pytest.mark.parametrize(
    ("budget", "pruning"),
    [(Budget(keep=2928), PruningConfig()), (Budget(keep=1), PruningConfig(method="none"))],
)
def test_where_nothing_more_can_be_kept_two_profiles_do(budget, pruning):
    assert list(named(Limits(1, 1, 512, 512), budget, pruning)) == ["context", "generation"]


def test_a_request_may_keep_4096_tokens_or_what_the_budget_does():
    for images, keep, most in ((1, 478, 3440), (4, 478, 4096), (4, 6000, 6512), (4, 4 * 2928, 12224)):
        found = named(Limits(1, images, 512, 512), Budget(keep=keep))
        assert max(each.values["kept_length"].max for each in found.values()) == (most,)


def test_long_models_do_not_reserve_masks_for_all_their_positions():
    found = named(Limits(max_batch=1, max_images=1, max_text=512, max_new_tokens=512), Budget(keep=478))
    cached = {name: profile.shapes["past_key_values.0.key"].max[2] for name, profile in found.items()}
    assert cached["context"] == 4 * (478 + 512 + 512)
    assert cached["dense_context"] == max(cached["context"], 2928 + 512 + 512)


@pytest.mark.parametrize("first", ["pixel_values", "input_ids"])
def test_graphs_without_a_cache_have_one_profile(first):
    graph = GraphInfo(
        "graph.onnx", (tensor(first, "batch", "sequence"), tensor("features", "visual_tokens", 8)), ()
    )
    (profile,) = graph_profiles(graph, TINY, PruningConfig(), Budget(keep=1), Limits(3, 2, 100, 100))
    assert profile.name == "request"
    assert profile.shapes["features"].min == (0, 8)
    assert profile.shapes["features"].max == (6 * TINY.max_visual_tokens, 8)
