"""The forms of a decoder that are compared, each with its cut laid open."""

from pathlib import Path
from typing import NamedTuple

import onnx
import onnx_ir as ir

from asap_export.bundle import Bundle
from asap_export.bundle.manifest import Flavor
from asap_export.graph.lay_open import Opened, lay_open
from asap_export.runtime.cache import CacheForm
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession

__all__ = ["CLOSED", "DecoderForm", "StoredGraph"]

CLOSED = Opened((), (), (), None)


class StoredGraph(NamedTuple):
    """A graph, and the folder in which its weights lie; the graph itself need not be a file."""

    model: onnx.ModelProto
    folder: Path

    def open(self, provider: str = "cpu") -> OnnxRuntimeSession:
        """A session of ONNX Runtime, which reads the weights where they are."""
        content = self.model.SerializeToString()
        return OnnxRuntimeSession(content, provider, weights=self.folder, fold_constants=False)


class DecoderForm(NamedTuple):
    """A decoder to compare, by the name of its file without the ending: "decoder", "decoder.cpu", or
    "decoder.engine".

    ``graph`` is the laid open one, which an engine has not; ``opened`` says where a run tells of its cut;
    ``caches`` what it does with them; ``merged`` is where engines in parts tell the states behind the cut, if they
    part there.
    """

    name: str
    graph: StoredGraph | None = None
    opened: Opened = CLOSED
    caches: CacheForm = CacheForm()
    merged: str | None = None

    @property
    def told(self) -> tuple[str, ...]:
        """What a run tells beside the decoder's outputs."""
        return self.opened.outputs if self.merged is None else (self.merged,)

    @classmethod
    def of_engines(cls, bundle: Bundle, flavor: Flavor) -> "DecoderForm":
        """The bundle's engine for the decoder, or its parts."""
        behind = f"hidden_states.{bundle.manifest.pruning.prune_after}"
        parts = [engine.part for engine in bundle.engines("decoder", flavor) if engine.part is not None]
        crosses = any(tensor.name == behind for part in parts for tensor in part.inputs)
        return cls("decoder.engine", merged=behind if crosses and bundle.manifest.pruning.prunes else None)

    @classmethod
    def of_inlined(cls, bundle: Bundle) -> "DecoderForm":
        """The bundle's decoder without functions, whose parts OpenVINO runs."""
        behind = f"hidden_states.{bundle.manifest.pruning.prune_after}"
        return cls("decoder.inlined", merged=behind if bundle.manifest.pruning.prunes else None)

    @classmethod
    def of(cls, name: str, stored: StoredGraph) -> "DecoderForm":
        """A graph, laid open."""
        inputs, outputs = (
            [(value.name, [dim.dim_param for dim in value.type.tensor_type.shape.dim]) for value in values]
            for values in (stored.model.graph.input, stored.model.graph.output)
        )
        model = ir.from_proto(stored.model)
        opened = lay_open(model)
        return cls(
            name, StoredGraph(ir.to_proto(model), stored.folder), opened, CacheForm.of(inputs, outputs)
        )

    def open(self, provider: str = "cpu") -> OnnxRuntimeSession:
        """A session of ONNX Runtime on the laid open graph."""
        assert self.graph is not None
        return self.graph.open(provider)
