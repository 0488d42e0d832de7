"""What runs a graph: one method, behind which ONNX Runtime or TensorRT stands."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Protocol

import ml_dtypes
import numpy as np

__all__ = ["NUMPY_DTYPES", "Session", "Sessions", "Tensor"]

# A numpy array, or an output of a session that stayed on the session's device: opaque to everyone else, good
# as an input of any session of the same kind. So the KV cache never goes through the host.
Tensor = Any

NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "fp32": np.dtype(np.float32),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}


class Session(Protocol):
    """One graph, ready to run."""

    def run(
        self,
        inputs: Mapping[str, Tensor],
        on_host: Collection[str] = (),
        into: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """All outputs by name; those named in ``on_host`` as numpy arrays, the others as device tensors.

        Outputs named in ``into`` are written into these arrays, which may be inputs of the same run where the
        graph allows that; only sessions of ONNX Runtime are given any.
        """
        ...

    def longest(self, name: str, axis: int) -> int | None:
        """The largest size of an input's axis that this session takes; None where only memory limits it."""
        ...


class Sessions(NamedTuple):
    """The model's three graphs in a bundle, all in sessions of one kind."""

    vision_encoder: Session
    embed_tokens: Session
    decoder: Session
