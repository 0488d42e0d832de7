"""What the decoder for the CPU is made of: functions of the domain ``ai.asap.cpu``, ONNX text in graphs/cpu."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

import onnx
import onnx.parser
import onnx_ir as ir
from onnx_ir.passes import common

from asap_export.graph.operators import DOMAIN, VERSION, functions

__all__ = ["CPU_DOMAIN", "attach_cpu_functions", "call", "complete"]

CPU_DOMAIN = "ai.asap.cpu"
_CONTRIB = "com.microsoft"
_NAMES = (
    "Heads",
    "Rows",
    "Appended",
    "HasVisual",
    "Plain",
    "CausalMask",
    "CausalAttention",
    "Blocks",
    "BlockBias",
    "AttendInBlocks",
    "SoftMaskedAttention",
    "LastRowBias",
    "LastRowScore",
    "ScoreInBlocks",
    "Cuts",
    "EveryPosition",
    "RoundedRows",
    "RoundedMatMul",
)  # callees come first


@cache
def _cpu_functions() -> tuple[onnx.FunctionProto, ...]:
    folder = files("asap_export") / "graphs" / "cpu"
    return tuple(
        onnx.parser.parse_function((folder / f"{name}.onnxtxt").read_text("utf-8")) for name in _NAMES
    )


def attach_cpu_functions(model: ir.Model) -> None:
    """Give a graph the bodies of what it calls; those that nothing calls are for RemoveUnusedFunctionsPass.

    They take any type, but ONNX does not know what com.microsoft's operators give, and compares the branches of
    an If: there the type is stated, the graph's own.
    """
    kind = next((value.type for value in model.graph.inputs if value.name == "inputs_embeds"), None)
    for function in (*functions().values(), *_cpu_functions()):
        body = ir.serde.deserialize_function(function)
        for node in ir.traversal.RecursiveGraphIterator(body.graph):
            for value in node.outputs if node.op_type == "GroupQueryAttention" else ():
                value.type = kind
        model.functions.setdefault(body.identifier(), body)
    model.opset_imports.update({DOMAIN: VERSION, CPU_DOMAIN: 1, _CONTRIB: 1})


def complete(model: ir.Model) -> None:
    """Attach the bodies, and remove whatever nothing uses any more."""
    attach_cpu_functions(model)
    ir.passes.Sequential(
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
        common.NameFixPass(),
    )(model)


def call(
    name: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, float] | None = None,
    outputs: int = 1,
) -> ir.Node:
    """A node that calls a function of this domain."""
    return ir.node(name, inputs, attributes=attributes, domain=CPU_DOMAIN, num_outputs=outputs)
