"""Each input of each pruning node replaced by other values of its type and shape."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import onnx
import onnx_ir as ir

from faults.fault import Decoder, Fault, Form
from faults.observe import Seen

__all__ = ["Replacements", "replacements_of"]

OPERATORS = {
    *("AsapMask", "AsapScore", "AsapTopK", "AsapMerge"),
    *("SoftMaskedAttention", "LastRowBias", "LastRowScore", "ScoreInBlocks"),
}
_EACH = 3  # replacements of an input


class Replacements(NamedTuple):
    """``equal`` values were left out, because they hold the same numbers in every case."""

    faults: list[Fault]
    equal: int


def replacements_of(model: onnx.ModelProto, form: Form, seen: Mapping[str, tuple[Seen, ...]]) -> Replacements:
    """Up to three replacements of every input: of its own kind first, then one of each other kind, the nearest."""
    decoder = Decoder(ir.from_proto(model), form)
    faults: list[Fault] = []
    equal = 0
    order = {value: number for number, value in enumerate(decoder.values())}
    for node in decoder.nodes():
        if node.op_type not in OPERATORS:
            continue
        reachable = set(decoder.values()) if node.graph is decoder.cut else set(_main(decoder))
        behind = _behind(decoder, node)
        for number, old in enumerate(node.inputs):
            if old is None or str(old.name) not in seen:
                continue
            others = [
                value
                for value in reachable - behind - {old}
                if _fits(seen.get(str(value.name)), seen[str(old.name)])
            ]
            others.sort(key=lambda value: abs(order[value] - order[old]))
            distinct = {seen[str(old.name)]: old}
            for value in others:
                distinct.setdefault(seen[str(value.name)], value)
            equal += len(others) - len(distinct) + 1
            for value in _chosen(old, list(distinct.values())[1:]):
                faults.append(_replacement(node, number, value, form))
    return Replacements(faults, equal)


def _replacement(node: ir.Node, number: int, new: ir.Value, form: Form) -> Fault:
    kind, replacement = node.op_type, str(new.name)
    occurrence = str(node.outputs[0].name)

    def change(decoder: Decoder) -> None:
        (found,) = (node for node in decoder.find(kind) if node.outputs[0].name == occurrence)
        found.replace_input_with(number, decoder.value(replacement))

    old = node.inputs[number]
    assert old is not None
    return Fault("operator inputs", f"{kind}, input {number} ({old.name}): {replacement}", form, change)


def _fits(one: tuple[Seen, ...] | None, other: tuple[Seen, ...]) -> bool:
    """Whether two values have the same type and shape in every case."""
    return one is not None and all(a[:2] == b[:2] for a, b in zip(one, other, strict=True))


def _chosen(old: ir.Value, others: list[ir.Value]) -> list[ir.Value]:
    def kind(value: ir.Value) -> str:
        node = value.producer()
        return node.op_type if node is not None else "input"

    nearest: dict[str, ir.Value] = {}
    for value in others:
        nearest.setdefault(kind(value), value)
    first = [nearest[kind(old)]] if kind(old) in nearest else []
    ranked = [*first, *nearest.values(), *others]
    return list(dict.fromkeys(ranked))[:_EACH]


def _main(decoder: Decoder) -> Iterator[ir.Value]:
    """Values of the graph itself, which a branch may read, too."""
    inside = {value for node in decoder.cut for value in node.outputs} if decoder.choice else set()
    return (value for value in decoder.values() if value not in inside)


def _behind(decoder: Decoder, node: ir.Node) -> set[ir.Value]:
    """What depends on a node: to replace its input by that would make a cycle."""
    found: set[ir.Value] = set()
    waiting = [node]
    while waiting:
        for value in waiting.pop().outputs:
            if value in found:
                continue
            found.add(value)
            waiting += [user for user, _ in value.uses()]
            if decoder.choice and (value in decoder.cut.outputs or _read_in_branch(decoder, value)):
                waiting.append(decoder.choice)
    return found


def _read_in_branch(decoder: Decoder, value: ir.Value) -> bool:
    return any(user.graph is not decoder.graph for user, _ in value.uses())
