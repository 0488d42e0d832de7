"""A picture and its questions as a model takes them: preprocessed once, whatever is then asked and pruned."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from asap_export.errors import UserError
from asap_export.evaluation.dataset import Picture
from asap_export.runtime.prompt import PromptReader
from asap_export.spec import ModelSpec

__all__ = ["Head", "ReadPicture", "Seen", "read_picture"]

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Head:
    """What some questions' prompts have in common: everything up to the last visual token.

    ids: [T] int64; tails: by the question's number, what follows, [t] int64.
    """

    ids: Integers
    tails: dict[int, Integers]


@dataclass(frozen=True)
class ReadPicture:
    """pixel_values: [tiles, 3, h, w] float32; size: (height, width) in pixels; visual_tokens of each prompt."""

    pixel_values: npt.NDArray[np.float32]
    size: tuple[int, int]
    visual_tokens: int
    heads: tuple[Head, ...]


class Seen(NamedTuple):
    """A picture and its features [N, D], in whatever form the runtime has them."""

    read: ReadPicture
    features: Any


def read_picture(
    reader: PromptReader, spec: ModelSpec, picture: Picture, instruction: str, max_new_tokens: int
) -> ReadPicture:
    """Read all questions of a picture; ``instruction`` is put behind each, on a line of its own.

    Raises UserError where the image cannot be read, or a prompt with its answer exceeds the model's positions.
    """
    texts = [f"{asked.text}\n{instruction}" if instruction else asked.text for asked in picture.questions]
    prompts = reader.read_each(texts, picture.image)
    longest = max(len(prompt.input_ids) for prompt in prompts) + max_new_tokens - 1
    if longest > spec.max_position_embeddings:
        raise UserError(
            f"expected at most {spec.max_position_embeddings} tokens, the checkpoint's positions, found {longest} "
            f"of a prompt on {picture.name} and its answer; scale the image down or lower --max-new-tokens"
        )
    ends = [int(np.flatnonzero(prompt.input_ids == spec.image_token_id)[-1]) + 1 for prompt in prompts]
    heads: dict[bytes, Head] = {}
    for row, (prompt, end) in enumerate(zip(prompts, ends, strict=True)):
        ids = prompt.input_ids[:end]
        heads.setdefault(ids.tobytes(), Head(ids, {})).tails[row] = prompt.input_ids[end:]
    visual = int((prompts[0].input_ids == spec.image_token_id).sum())
    return ReadPicture(prompts[0].pixel_values, prompts[0].image_sizes[0], visual, tuple(heads.values()))
