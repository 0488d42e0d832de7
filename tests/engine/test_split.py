"""The decoder in parts: run one after the other they are the whole decoder, to the last bit.

In float32, that is: ONNX Runtime's CPU provider computes float16 in float32 and rounds where a graph ends.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from asap_export.bundle import Bundle
from asap_export.engine.attention import decomposed_attention
from asap_export.engine.split import split_decoder
from asap_export.runtime.chain import ChainedSession, Link
from asap_export.runtime.graphs import Graphs
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.runtime.session import Sessions

LAYERS, CUT = 8, 2  # of the random checkpoint; the cut lies behind its second layer
FLOAT32 = ["pruned_bundle", "untrimmed_bundle", "dense_bundle"]


# First layers of parts: the cut between two, within the first, within a later one, and many parts.
SPLITS = {
    "at the cut": (0, 2),
    "behind the cut": (0, 5),
    "before the cut": (0, 1, 4),
    "each layer": tuple(range(8)),
    "unlike lengths": (0, 2, 3, 7),
}


def parts_of(bundle: Path, firsts: Sequence[int]):
    model = onnx.load(bundle / "decoder.onnx", load_external_data=False)
    return split_decoder(model, firsts)


@pytest.fixture
def graphs(request, tmp_path):
    """The bundle's decoder as a whole, and a function that gives it in parts."""
    folder = shutil.copytree(request.getfixturevalue(request.param), tmp_path / "bundle")
    manifest = Bundle.open(folder).manifest

    def around(decoder) -> Graphs:
        return Graphs(manifest, Sessions(None, None, decoder), manifest.dtype)

    def chained(firsts: Sequence[int]) -> Graphs:
        links = []
        for number, part in enumerate(parts_of(folder, firsts)):
            path = folder / f"decoder.{number}.onnx"
            onnx.save(part, path)
            session = OnnxRuntimeSession(path, threads=1)
            links.append(Link(session, [value.name for value in part.graph.input]))
        return around(ChainedSession(links, [tensor.name for tensor in manifest.graphs["decoder"].outputs]))

    return around(OnnxRuntimeSession(folder / "decoder.onnx", threads=1)), chained


def conversation(graphs: Graphs):
    """Prefill of two rows, the second padded; a later turn with an image of its own; two decode steps."""
    random = np.random.default_rng(0)
    prunes = graphs.manifest.pruning.prunes
    cache = graphs.empty_cache(2)
    for new, visual, kept in (
        (40, slice(9, 33), 22),
        (13, slice(2, 10), 9),
        (1, slice(0), 1),
        (1, slice(0), 1),
    ):
        embeds = random.standard_normal((2, new, graphs.manifest.model.hidden_size)).astype(
            graphs.numpy_dtype
        )
        mask = np.ones((2, new), np.int64)
        mask[1, : 5 if new == 40 else 0] = 0
        visual_mask = np.zeros((2, new), np.bool_)
        visual_mask[:, visual] = True
        step = graphs.step(embeds, mask, visual_mask, kept if prunes else new, cache)
        cache = step.cache
        yield step


@pytest.mark.parametrize("graphs", FLOAT32, indirect=True)
@pytest.mark.parametrize("split", SPLITS)
def test_parts_compute_what_the_whole_does(graphs, split):
    whole, chained = graphs
    for expected, found in zip(conversation(whole), conversation(chained(SPLITS[split])), strict=True):
        np.testing.assert_array_equal(found.logits, expected.logits)
        np.testing.assert_array_equal(found.kept_index, expected.kept_index)
        assert found.cache.layers.keys() == expected.cache.layers.keys()
        for name, value in expected.cache.layers.items():
            np.testing.assert_array_equal(found.cache.layers[name].numpy(), value.numpy(), err_msg=name)


@pytest.mark.parametrize("fixture", [*FLOAT32, "fp16_bundle"])
@pytest.mark.parametrize("split", SPLITS)
def test_every_weight_and_every_layer_is_in_one_part(fixture, split, request):
    bundle = request.getfixturevalue(fixture)
    parts = parts_of(bundle, SPLITS[split])
    whole = onnx.load(bundle / "decoder.onnx", load_external_data=False)
    named = [
        each.name for part in parts for each in part.graph.initializer if each.name.startswith("decoder.")
    ]
    assert sorted(named) == sorted(
        each.name for each in whole.graph.initializer if each.name.startswith("decoder.")
    )
    for part, first, end in zip(parts, SPLITS[split], [*SPLITS[split][1:], LAYERS], strict=True):
        layers = {
            int(layer)
            for each in part.graph.initializer
            for layer in re.findall(r"layers\.(\d+)\.", each.name)
        }
        assert layers == set(range(first, end))
        caches = {int(value.name.split(".")[1]) for value in part.graph.input if "past_key" in value.name}
        assert caches == layers


def crossing(parts) -> list[set[str]]:
    """What each part takes that is no input of the whole decoder."""
    given = {value.name for part in parts for value in part.graph.output}
    return [given & {value.name for value in part.graph.input} for part in parts]


def test_hidden_states_cross_and_behind_the_cut_the_kept_index(pruned_bundle):
    assert crossing(parts_of(pruned_bundle, (0, 3, 6))) == [
        set(),
        {"hidden_states.3", "kept_index"},
        {"hidden_states.6", "kept_index"},
    ]


def test_caches_that_a_later_part_trims_cross_to_it(pruned_bundle, untrimmed_bundle):
    assert crossing(parts_of(pruned_bundle, range(LAYERS)))[1] == {
        "hidden_states.1",
        "untrimmed.0.key",
        "untrimmed.0.value",
    }
    assert crossing(parts_of(untrimmed_bundle, range(LAYERS)))[1] == {"hidden_states.1"}


def test_without_pruning_only_hidden_states_cross(dense_bundle):
    assert crossing(parts_of(dense_bundle, (0, 4))) == [set(), {"hidden_states.4"}]


def test_behind_a_boundary_attention_has_its_kernels_again(fp16_bundle):
    """The loop of the cut is in another engine."""
    whole = onnx.load(fp16_bundle / "decoder.onnx", load_external_data=False)
    assert len(decomposed_attention(whole)) == LAYERS - CUT
    assert [len(decomposed_attention(part)) for part in parts_of(fp16_bundle, (0, CUT))] == [0, 0]
    assert [len(decomposed_attention(part)) for part in parts_of(fp16_bundle, (0, 3, 6))] == [1, 0, 0]
