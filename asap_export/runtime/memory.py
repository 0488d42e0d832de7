"""Whether memory can hold a run, asked before it starts: the kernel would end the process without a word."""

from collections.abc import Iterator
from contextlib import contextmanager

from asap_export.errors import UserError
from asap_export.memory import available_memory, gigabytes
from asap_export.spec import ModelSpec

__all__ = ["RunMemory", "memory_needed"]

_FLOAT = 4  # bytes; the CPU computes in float32, whatever is stored
_SCORES = 3  # attention scores exist as products, with the mask, and as probabilities


def memory_needed(model: ModelSpec, rows: int, new: int, cached: int) -> int:
    """Bytes, at most about, that the decoder takes for ``new`` tokens behind ``cached`` ones in each row."""
    scores = _SCORES * model.heads * new * (cached + new)
    activations = 4 * (model.hidden_size + model.intermediate_size) * new
    of_a_token = 2 * model.layers * model.kv_heads * model.head_dim
    caches = 2 * of_a_token * (cached + new)  # the old and the new one
    return _FLOAT * rows * (scores + activations + caches)


class RunMemory:
    """Of a model on the CPU. What a run has taken ONNX Runtime keeps for the next, so it is asked for once."""

    def __init__(self, model: ModelSpec) -> None:
        self._model = model
        self._held = 0

    @contextmanager
    def room(self, rows: int, new: int, cached: int) -> Iterator[None]:
        """A run goes into this context. Raises UserError where it would take more than there is."""
        needed = memory_needed(self._model, rows, new, cached)
        if needed > self._held and needed > (available := available_memory()):
            raise UserError(
                f"expected about {gigabytes(needed)} of free memory for a run of {new} tokens, found "
                f"{gigabytes(available)}; shorten the request or use a smaller image"
            )
        yield
        self._held = max(self._held, needed)
