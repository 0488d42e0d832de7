"""Whether memory can hold a graph or a run, asked before: the kernel would end the process without a word.

Nor does ONNX Runtime survive every allocation that fails.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from asap_export.bundle import Manifest
from asap_export.errors import UserError
from asap_export.memory import available_memory, gigabytes
from asap_export.spec import ModelSpec

__all__ = ["RunMemory", "memory_needed", "room_to_open", "scores_in_blocks"]

_FLOAT = 4  # bytes; the CPU computes in float32, whatever is stored
_SCORES = 3  # attention scores exist as products, with the mask, and as probabilities
_BLOCK = 512  # rows; see graphs/cpu/Blocks.onnxtxt
_TO_OPEN = 32 << 20  # bytes; twice what a graph of 32 layers was seen to take


def room_to_open() -> bool:
    """Whether about 32 MB are there, which ONNX Runtime takes to open a graph, beside its weights."""
    return available_memory() >= _TO_OPEN


def memory_needed(model: ModelSpec, rows: int, new: int, cached: int, blocks: bool) -> int:
    """Bytes, at most about, that the decoder takes for ``new`` tokens behind ``cached`` ones in each row.

    ``blocks``: it holds attention scores of at most 512 new tokens at a time; or all of up to 768 places, but once
    where three of 512 are counted.
    """
    scores = _SCORES * model.heads * (min(new, _BLOCK) if blocks else new) * (cached + new)
    activations = 4 * (model.hidden_size + model.intermediate_size) * new
    of_a_token = 2 * model.layers * model.kv_heads * model.head_dim
    caches = 2 * of_a_token * (cached + new)  # the old and the new one
    return _FLOAT * rows * (scores + activations + caches)


def scores_in_blocks(manifest: Manifest) -> bool:
    """Whether the decoder for the CPU holds attention scores of a block of rows alone, where tokens are plain.

    ONNX Runtime's fused attention holds all of them in fp16, and the scores "received" and "text" need every row
    where the mask is causal.
    """
    decoder, pruning = manifest.cpu_decoder, manifest.pruning
    soft = pruning.method == "asap" and pruning.bidirectional
    return (
        decoder is not None
        and manifest.dtype == "fp32"
        and {"fused-attention", "blockwise-soft-mask"} <= set(decoder.passes)
        and (not pruning.prunes or soft or pruning.score in ("last", "salience"))
    )


class RunMemory:
    """Of a model on the CPU. What a run has taken ONNX Runtime keeps for the next, so it is asked for once.

    ``blocks``: plain tokens (see ``Cache.plain``) are attended to in blocks, see ``memory_needed``.
    """

    def __init__(self, model: ModelSpec, blocks: bool) -> None:
        self._model = model
        self._blocks = blocks
        self._held = 0

    @contextmanager
    def room(self, rows: int, new: int, cached: int, plain: bool) -> Iterator[None]:
        """A run goes into this context. Raises UserError where it would take more than there is."""
        needed = memory_needed(self._model, rows, new, cached, self._blocks and plain)
        if needed > self._held and needed > (available := available_memory()):
            raise UserError(
                f"expected about {gigabytes(needed)} of free memory for a run of {new} tokens, found "
                f"{gigabytes(available)}; shorten the request or use a smaller image"
            )
        yield
        self._held = max(self._held, needed)
