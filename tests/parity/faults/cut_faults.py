"""Faults at the cut: what is chosen, how much, what the layers behind it are given."""

from collections.abc import Callable, Collection

import onnx_ir as ir

from asap_export.graph.cpu.rows import producer_of
from faults.fault import Change, Decoder, Named
from faults.structure import (
    adders,
    coordinates,
    input_of,
    kept_gathers,
    kept_index,
    last_position,
    origin,
    rename_output,
    streams,
    topk_index,
)

__all__ = ["cut_faults"]


def cut_faults(decoder: Decoder) -> Named:
    """All of one form; ``decoder`` is a sound one."""
    for make in (_index, _kept_length, _behind_the_cut, _residual, _score_row, _cut):
        yield from make(decoder)


def _index(decoder: Decoder) -> Named:
    kind = "choice"

    def first(d: Decoder) -> None:
        merge = d.only("AsapMerge")
        index = d.first_k(input_of(merge, 1), at=d.cut)
        merge.replace_input_with(1, index)

    def may_drop_text(d: Decoder) -> None:
        topk = d.only("AsapTopK")
        topk.replace_input_with(1, input_of(topk, 2))

    def reversed_scores(d: Decoder) -> None:
        topk = d.only("AsapTopK")
        topk.replace_input_with(0, d.make("Neg", input_of(topk, 0), at=d.cut))

    def negated(number: int, name: str) -> Change:
        def change(d: Decoder) -> None:
            merge = d.only("AsapMerge")
            merge.replace_input_with(number, d.make("Neg", input_of(merge, number), at=d.cut))

        return change

    def everything_visual(d: Decoder) -> None:
        merge, topk = d.only("AsapMerge"), d.only("AsapTopK")
        merge.replace_input_with(2, input_of(topk, 2))

    yield kind, "AsapMerge.index is 0..K-1", first
    yield kind, "AsapTopK.visual_mask is the mask of valid tokens", may_drop_text
    yield kind, "AsapMerge.visual_mask is the mask of valid tokens", everything_visual
    yield kind, "the lowest scores are kept", reversed_scores
    yield kind, "AsapMerge.salience negated", negated(3, "salience")
    yield kind, "AsapMerge.mass negated", negated(4, "mass")


def _kept_length(decoder: Decoder) -> Named:
    kind = "kept_length"
    uses = list(decoder.value("kept_length").uses())
    users = {(str(node.outputs[0].name), number): node.op_type for node, number in uses}

    def change(more: int, chosen: Collection[tuple[str, int]]) -> Change:
        def by(d: Decoder) -> None:
            length = d.value("kept_length")
            other = d.make("Add", length, d.constant(more))
            for node, number in list(length.uses()):
                if (str(node.outputs[0].name), number) in chosen:
                    node.replace_input_with(number, other)

        return by

    for more in (-1, 1):
        for user, operator in users.items():
            yield kind, f"{more:+d} in {operator} ({user[0]})", change(more, [user])
        if len(users) > 1:
            yield kind, f"{more:+d} everywhere", change(more, users)


def _behind_the_cut(decoder: Decoder) -> Named:
    """Gathers by kept_index go by another index instead."""
    kind = "behind the cut"
    gathers = [str(node.outputs[0].name) for node in kept_gathers(decoder)]

    def change(names: list[str], index: Callable[[Decoder], ir.Value]) -> Change:
        def gathered(d: Decoder) -> None:
            nodes = [node for node in kept_gathers(d) if node.outputs[0].name in names]
            pairs = coordinates(d, nodes[0], index(d))
            for node in nodes:
                node.replace_input_with(1, pairs)

        return gathered

    def first(d: Decoder) -> ir.Value:
        return d.first_k(kept_index(d))

    def told(index: Callable[[Decoder], ir.Value]) -> Change:
        def output(d: Decoder) -> None:
            rename_output(d, "kept_index", index(d))

        return output

    for name, index in {"the first K": first, "top-k's index": topk_index}.items():
        for gather in gathers:
            source = next(node for node in kept_gathers(decoder) if node.outputs[0].name == gather)
            yield kind, f"{origin(source)} gathered by {name}", change([gather], index)
        yield kind, f"everything gathered by {name}", change(gathers, index)
        yield kind, f"kept_index gives {name}", told(index)


def _residual(decoder: Decoder) -> Named:
    """The residual stream comes from another place."""
    kind = "residual stream"
    names = [str(value.name) for value in streams(decoder)]
    scoring = decoder.scoring_layer
    readers = {
        "AsapMerge": lambda d: (d.only("AsapMerge"), 0),
        **{
            f"layer {layer}'s {name}": lambda d, layer=layer, step=step: (adders(d)[2 * layer + step], 0)
            for layer in (scoring, scoring + 1, len(decoder.attention) - 1)
            for step, name in enumerate(("attention", "MLP"))
        },
        "the last norm": lambda d: (last_position(d), 0),
    }

    def change(reader: Callable[[Decoder], tuple[ir.Node, int]], source: str) -> Change:
        def other(d: Decoder) -> None:
            node, number = reader(d)
            node.replace_input_with(number, d.value(source))

        return other

    for name, reader in readers.items():
        node, number = reader(decoder)
        place = names.index(str(input_of(node, number).name))
        cut = 2 * (scoring + 1)  # streams before it have T places, those behind K
        before = [other for other in range(place) if (other <= cut) == (place <= cut)]
        for other in before[-2:]:
            yield kind, f"{name} reads {names[other]} for {names[place]}", change(reader, names[other])
    if decoder.choice is not None:
        yield kind, "nothing to cut: hidden states before the layer", _uncut_before_the_layer


def _uncut_before_the_layer(d: Decoder) -> None:
    assert d.choice is not None
    (identity,) = (n for n in d.choice.attributes["else_branch"].as_graph() if n.op_type == "Identity")
    identity.replace_input_with(0, streams(d)[2 * d.scoring_layer])


def _score_row(decoder: Decoder) -> Named:
    """The score is that of another row."""
    kind = "score row"

    def last(d: Decoder) -> ir.Value:
        # of the positions of valid tokens; another maximum is whether there are visual ones
        maxima = (node for node in d.find("ReduceMax") if node.outputs[0].uses())
        (maximum,) = (node for node in maxima if producer_of(node.inputs[0]).op_type == "Where")
        (column,) = (user for user, _ in maximum.outputs[0].uses())
        return column.outputs[0]

    def before(d: Decoder) -> None:
        row = last(d)
        lower = d.make("Sub", row, d.constant(1), at=d.cut)
        d.replace(row, d.make("Max", lower, d.constant(0), at=d.cut))

    def first(d: Decoder) -> None:
        row = last(d)
        d.replace(row, d.make("Mul", row, d.constant(0), at=d.cut))

    yield kind, "the one before the last", before
    yield kind, "row 0", first


def _cut(decoder: Decoder) -> Named:
    """The cut is taken where it should not be, or not where it should."""
    kind = "whether to cut"
    if decoder.choice is None:
        return

    def when(make: Callable[[Decoder, ir.Value], ir.Value]) -> Change:
        def condition(d: Decoder) -> None:
            assert d.choice is not None
            d.choice.replace_input_with(0, make(d, input_of(d.choice, 0)))

        return condition

    def branches(d: Decoder) -> None:
        assert d.choice is not None
        then, other = (d.choice.attributes[name].as_graph() for name in ("then_branch", "else_branch"))
        d.choice.attributes["then_branch"] = ir.AttrGraph("then_branch", other)
        d.choice.attributes["else_branch"] = ir.AttrGraph("else_branch", then)

    def fewer(d: Decoder, _: ir.Value) -> ir.Value:
        new = d.make("Squeeze", d.make("Shape", d.value("visual_mask"), start=1, end=2))
        return d.make("Less", d.value("kept_length"), new)

    def visual(d: Decoder, _: ir.Value) -> ir.Value:
        return d.make("HasVisual", d.value("visual_mask"), domain="ai.asap.cpu")

    yield kind, "the other way round", when(lambda d, old: d.make("Not", old))
    yield kind, "the branches change places", branches
    yield kind, "always", when(lambda d, old: d.constant(True, bool))
    yield kind, "never", when(lambda d, old: d.constant(False, bool))
    yield kind, "only where fewer are kept", when(fewer)
    yield kind, "only where a token is visual", when(visual)
