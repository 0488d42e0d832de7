"""Places in a decoder that faults are planted at, found by how it is wired."""

import onnx_ir as ir

from asap_export.graph.cpu.rows import take_over
from faults.fault import Decoder

__all__ = [
    "adders",
    "coordinates",
    "exchange",
    "input_of",
    "kept_gathers",
    "kept_index",
    "last_norm",
    "last_position",
    "late_valid",
    "origin",
    "rename_output",
    "streams",
    "topk_index",
]


def input_of(node: ir.Node, number: int) -> ir.Value:
    """An input that must be there."""
    value = node.inputs[number]
    assert value is not None
    return value


def exchange(one: ir.Value, other: ir.Value) -> None:
    """Let the readers of two values change places."""
    of_one, of_other = list(one.uses()), list(other.uses())
    for node, number in of_one:
        node.replace_input_with(number, other)
    for node, number in of_other:
        node.replace_input_with(number, one)


def kept_index(d: Decoder) -> ir.Value:
    """The graph's output kept_index, [B, K]."""
    return next(value for value in d.graph.outputs if value.name == "kept_index")


def kept_gathers(d: Decoder) -> list[ir.Node]:
    """GatherND nodes that take tokens by kept_index; their coordinates are (row, place)."""
    column = [user for user, _ in kept_index(d).uses() if user.op_type == "Unsqueeze"]
    pairs = [user for node in column for user, _ in node.outputs[0].uses() if user.op_type == "Concat"]
    users = [user for node in pairs for user, _ in node.outputs[0].uses() if user.op_type == "GatherND"]
    return [node for node in d.graph if node in users]


def coordinates(d: Decoder, gather: ir.Node, index: ir.Value) -> ir.Value:
    """(row, place) for a gather, with the rows of another's."""
    pairs = input_of(gather, 1).producer()
    assert pairs is not None
    return d.make("Concat", pairs.inputs[0], d.make("Unsqueeze", index, d.constant([-1])), axis=-1)


def topk_index(d: Decoder) -> ir.Value:
    """The index that AsapMerge was given, [B, K], in the graph itself."""
    index = d.only("AsapTopK").outputs[0]
    if d.choice is None:
        return index
    d.cut.outputs.append(index)
    other = d.choice.attributes["else_branch"].as_graph()
    other.outputs.append(d.make("Identity", other.outputs[1], at=other))
    old, attributes = d.choice, list(d.choice.attributes.values())
    choice = ir.Node("", "If", list(old.inputs), attributes, num_outputs=3, name="planted_choice")
    d.graph.insert_before(old, choice)
    for value, new in zip(old.outputs, choice.outputs, strict=False):
        take_over(value, new)
    d.graph.remove(old, safe=True)
    choice.outputs[2].name = "planted_index"
    d.choice = choice
    return choice.outputs[2]


def rename_output(d: Decoder, name: str, new: ir.Value) -> None:
    """Give another value out under a name."""
    old = next(value for value in d.graph.outputs if value.name == name)
    place = d.graph.outputs.index(old)
    out = d.make("Identity", new)
    out.type, out.shape = old.type, old.shape
    old.name, out.name = f"{name}.replaced", name
    d.graph.outputs[place] = out


def origin(gather: ir.Node) -> str:
    """What a gather takes tokens of, in words."""
    value = input_of(gather, 0)
    while value.producer() is not None and value.producer().op_type in (
        "Slice",
        "Transpose",
        "Cast",
        "Concat",
    ):
        value = value.producer().inputs[0]
    return str(value.name)


def streams(d: Decoder) -> list[ir.Value]:
    """Hidden states between the halves of layers, from the embeddings on; behind the cut those it made."""
    found = [d.value("inputs_embeds")]
    for node in adders(d):
        if input_of(node, 0) is not found[-1]:
            found.append(input_of(node, 0))  # AsapMerge's or the If's
        found.append(node.outputs[0])
    return found


def adders(d: Decoder) -> list[ir.Node]:
    """The residual additions of all layers, two each."""
    return [node for node in d.graph if node.op_type == "Add" and adds_layer(node)]


def adds_layer(node: ir.Node) -> bool:
    made = node.inputs[1].producer() if node.inputs[1] is not None else None
    return made is not None and made.op_type in ("MatMul", "MatMulNBits")


def last_norm(d: Decoder) -> ir.Node:
    return [node for node in d.graph if node.op_type == "RMSNormalization"][-1]


def last_position(d: Decoder) -> ir.Node:
    """The Slice that takes the last position."""
    node = input_of(last_norm(d), 0).producer()
    assert node is not None
    return node


def late_valid(d: Decoder) -> ir.Value:
    """[B, P+K] bool behind the cut."""
    (gather,) = (node for node in kept_gathers(d) if origin(node) == "attention_mask")
    (concat,) = (user for user, _ in gather.outputs[0].uses())
    return concat.outputs[0]
