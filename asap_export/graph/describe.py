"""Pass: what a reader of the graph file is told, and the function bodies of its ``ai.asap`` nodes."""

import json
from dataclasses import asdict
from importlib.metadata import version

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass

from asap_export.graph.operators import DOMAIN, VERSION, functions
from asap_export.pruning.config import PruningConfig

__all__ = ["attach_functions", "describe"]

_IR_VERSION = 11  # the one that came with opset 23

_DOCS = {
    "image": "One image: red, green and blue of every pixel.",
    "pixel_values": "Tiles of images, resized and normalised by the image processor; of all images of a prompt.",
    "gather_index": "For every visual token its row: features of all tiles in order, then the newline.",
    "image_features": "Visual tokens of all images, in prompt order.",
    "input_ids": "Token ids, one image token per visual token.",
    "inputs_embeds": "Embeddings of the new tokens, visual tokens in their places; padding on the left.",
    "attention_mask": "1 for valid tokens, 0 for padding: cached tokens first, then the new ones.",
    "early_attention_mask": "attention_mask for the layers before the cut, whose caches keep every token.",
    "position_ids": "Positions of the new tokens in the unpruned sequence.",
    "visual_mask": "True for the visual tokens among the new ones.",
    "kept_length": "How many new tokens survive the cut, text included; their number where none is visual.",
    "logits": "Scores of the next token after the last position.",
    "kept_index": "Positions of the surviving tokens among the new ones, ascending.",
}
_CACHE_DOCS = {
    "past_key_values": "Cached {part}s of layer {layer}, after RoPE.",
    "present": "Cached and surviving new {part}s of layer {layer}.",
}


def describe(model: ir.Model, pruning: PruningConfig | None = None) -> None:
    """Doc strings for inputs and outputs, the producer, and the pruning configuration as metadata."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.doc_string = _doc(str(value.name))
    model.ir_version = _IR_VERSION
    model.producer_name = "asap-export"
    model.producer_version = version("asap-export")
    if pruning is not None:
        model.metadata_props["asap_export.pruning"] = json.dumps(asdict(pruning))


def _doc(name: str) -> str:
    if name in _DOCS:
        return _DOCS[name]
    prefix, layer, part = name.split(".")
    return _CACHE_DOCS[prefix].format(layer=layer, part=part)


def attach_functions(model: ir.Model) -> None:
    """Give the graph the bodies of its ``ai.asap`` nodes, so that any runtime can run them as they are."""
    if not any(node.domain == DOMAIN for node in model.graph):
        return
    for function in functions().values():
        body = ir.serde.deserialize_function(function)
        model.functions[body.identifier()] = body
    RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    model.opset_imports[DOMAIN] = VERSION
