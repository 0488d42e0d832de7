"""Attributes of nodes, and comparisons and constants in the bodies of functions, changed."""

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from faults.fault import Change, Decoder, Named

__all__ = ["setting_faults"]

# Operators, and what stands in their place. Plain is left alone: it chooses between equal ways.
_OTHERS = {
    "Greater": "Less",
    "Less": "Greater",
    "GreaterOrEqual": "Less",
    "LessOrEqual": "Less",
    "And": "Or",
    "Or": "And",
    "ReduceMin": "ReduceMax",
    "ReduceMax": "ReduceMin",
    "Min": "Max",
    "Max": "Min",
}
_BODIES = (
    *("Salience", "AsapMask", "AsapTopK", "AsapMerge", "SelectLargest", "Positions"),
    *("LastRowBias", "Blocks", "BlockBias", "SoftMaskedAttention", "Cuts", "HasVisual", "CausalMask"),
)


def setting_faults(decoder: Decoder) -> Named:
    """All of one form; ``decoder`` is a sound one."""
    yield from _attributes(decoder)
    yield from _bodies(decoder)


def _attributes(decoder: Decoder) -> Named:
    layers, scoring = len(decoder.attention), decoder.scoring_layer
    attention = {layer: decoder.attention[layer] for layer in {0, scoring, scoring + 1, layers - 1}}
    chosen = [(node, "") for node in decoder.nodes() if node.domain.startswith("ai.asap")]
    layer_of = {node: layer for layer, node in enumerate(decoder.attention)}
    chosen = [(node, name) for node, name in chosen if node not in layer_of]
    chosen += [(node, f" of layer {layer}") for layer, node in sorted(attention.items())]
    for node, where in chosen:
        for name in ("lambda_max", "threshold", "scale"):
            if name not in node.attributes:
                continue
            value = node.attributes[name].as_float()
            key = str(node.outputs[0].name)
            far = (0.4, 2.0) if name == "threshold" else (0.1 * value, 3 * value)
            for other in (1.1 * value, *far):
                words = f"{node.op_type}{where}.{name} is {other:.4g} for {value:.4g}"
                yield "attributes", words, _set(key, name, other)


def _set(output: str, name: str, value: float) -> Change:
    def change(decoder: Decoder) -> None:
        (node,) = (node for node in decoder.nodes() if node.outputs[0].name == output)
        node.attributes[name] = ir.AttrFloat32(name, value)

    return change


def _bodies(decoder: Decoder) -> Named:
    for function in decoder.model.functions.values():
        if function.name not in _BODIES:
            continue
        for place, node in enumerate(function.all_nodes()):
            names = ", ".join(str(value.name) for value in node.outputs)
            if names == "go_out":
                continue  # a Loop that ends never, or at once
            for words, change in _changes(node):
                name = f"{function.name}, node {place}: {names} {words}"
                yield "function bodies", name, _within(function.name, place, change)


def _within(function: str, place: int, change: Callable[[ir.Node], None]) -> Change:
    def planted(decoder: Decoder) -> None:
        (body,) = (body for body in decoder.model.functions.values() if body.name == function)
        change(list(body.all_nodes())[place])

    return planted


def _changes(node: ir.Node) -> Iterator[tuple[str, Callable[[ir.Node], None]]]:
    """What can be done to a node of a body."""
    other = _OTHERS.get(node.op_type)
    if other is not None:

        def renamed(node: ir.Node) -> None:
            node.op_type = other

        yield f"is {other} for {node.op_type}", renamed
    if node.op_type == "Where":

        def swapped(node: ir.Node) -> None:
            one, two = node.inputs[1:3]
            node.replace_input_with(1, two)
            node.replace_input_with(2, one)

        yield "with its branches swapped", swapped
    for name in ("largest", "upper", "exclusive"):
        if name in node.attributes:
            value = node.attributes[name].as_int()

            def turned(node: ir.Node, name: str = name, value: int = value) -> None:
                node.attributes[name] = ir.AttrInt64(name, 1 - value)

            yield f"{name} is {1 - value}", turned
    if node.op_type == "Constant":
        yield from _constants(node)


def _constants(node: ir.Node) -> Iterator[tuple[str, Callable[[ir.Node], None]]]:
    reference = node.attributes.get("value_float")
    if reference is not None and reference.is_ref():

        def ignored(node: ir.Node) -> None:
            del node.attributes["value_float"]
            node.attributes["value_float"] = ir.AttrFloat32("value_float", 0.3)

        yield "is 0.3, whatever the attribute", ignored
    if node.outputs[0].name == "epsilon":

        def coarse(node: ir.Node) -> None:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.array(1e-2, np.float32)))

        yield "is 0.01", coarse
