"""Which layers of the decoder an engine holds.

Behind the cut's ``Loop`` TensorRT recognises no attention. So where tokens are pruned the decoder is two engines:
``early`` with the layers up to the cut, and the cut, and ``late`` with all others. Either may be split further,
which takes less memory to build.
"""

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["DecoderPart", "decoder_parts"]


class DecoderPart(NamedTuple):
    """One engine's layers, ``first`` to ``last``; ``title`` as in its file's name: "decoder.late"."""

    title: str
    first: int
    last: int


def decoder_parts(
    layers: int, cut: int | None, layers_per_engine: int | None = None, single: bool = False
) -> tuple[DecoderPart, ...]:
    """The parts in the order in which they run.

    ``cut``: layers that see every token, None where none is pruned; ``layers_per_engine``: at most so many in each
    part; ``single``: one for all, whatever is cut.
    """
    if single or (cut is None and layers_per_engine is None):
        return (DecoderPart("decoder", 0, layers - 1),)
    if cut is None:
        return _chunks("decoder", range(layers), layers_per_engine)
    early, late = range(cut), range(cut, layers)
    return (
        *_chunks("decoder.early", early, layers_per_engine),
        *_chunks("decoder.late", late, layers_per_engine),
    )


def _chunks(title: str, layers: Sequence[int], most: int | None) -> tuple[DecoderPart, ...]:
    chunks = [
        layers[start : start + (most or len(layers))] for start in range(0, len(layers), most or len(layers))
    ]
    numbered = len(chunks) > 1 or title == "decoder"
    return tuple(
        DecoderPart(f"{title}.{number}" if numbered else title, chunk[0], chunk[-1])
        for number, chunk in enumerate(chunks)
    )
