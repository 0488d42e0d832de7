"""Which images give the wanted number of visual tokens, and a prompt of exactly so many tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from asap_export.bench.records import Workload
from asap_export.bench.request import BenchRequest
from asap_export.errors import UserError
from asap_export.model.anyres import Size, TileGeometry, max_visual_tokens, packing, visual_token_count
from asap_export.pruning.config import Budget
from asap_export.runtime.images import read_image
from asap_export.spec import ModelSpec

__all__ = ["Asked", "drawn_images", "fitted", "image_size_for", "images_needed"]

Integers = npt.NDArray[np.int64]

VISUAL_TOKENS = 2880  # of the paper's tables
PROMPT = "What is shown in this picture?"


@dataclass(frozen=True)
class Asked:
    """The prompts of a request: images drawn into ``folder`` unless it names some, and ``budget`` of their visual
    tokens behind a cut."""

    request: BenchRequest
    spec: ModelSpec
    budget: Budget
    prune_after: int
    folder: Path

    def workload(self) -> Workload:
        """The prompt that all are given. Raises UserError where the named images have too few visual tokens."""
        request, geometry = self.request, TileGeometry.of(self.spec)
        if not request.image:
            return self._drawn(request.visual_tokens or min(VISUAL_TOKENS, max_visual_tokens(geometry)))
        pictures = map(read_image, request.image)
        there = sum(
            packing([(picture.height, picture.width) for picture in pictures], geometry).visual_tokens
        )
        tokens = request.visual_tokens or there
        if tokens > there:
            raise UserError(
                f"expected --visual-tokens of at most {there}, what the images have, found {tokens}"
            )
        return self._of(tuple(str(file.resolve()) for file in request.image), tokens)

    def curve(self, workload: Workload) -> list[Workload]:
        """Prompts of the curve's visual tokens, of which a cut keeps the same part as of ``workload``'s."""
        share = workload.keep / workload.visual_tokens
        return [
            replace(self._drawn(tokens), keep=max(1, round(share * tokens)))
            for tokens in sorted(self.request.curve)
        ]

    def _drawn(self, tokens: int) -> Workload:
        geometry = TileGeometry.of(self.spec)
        files = drawn_images(self.folder, tokens, images_needed(tokens, geometry), geometry)
        return self._of(tuple(map(str, files)), tokens)

    def _of(self, files: tuple[str, ...], tokens: int) -> Workload:
        keep = self.budget.keep_for(tokens, self.spec.layers, self.prune_after)
        return Workload(files, PROMPT, tokens, self.request.text_tokens, keep)


def images_needed(visual_tokens: int, geometry: TileGeometry) -> int:
    """How many images it takes at least to have so many visual tokens."""
    return -(-visual_tokens // max_visual_tokens(geometry))


@cache
def image_size_for(visual_tokens: int, geometry: TileGeometry) -> Size:
    """(height, width) of the image with the fewest visual tokens that has at least ``visual_tokens``.

    Of several the squarest, and of these the smallest. Raises UserError where no image has so many.
    """
    counted = ((visual_token_count(size, geometry), size) for size in _candidates(geometry))
    enough = [(count, max(size) / min(size), size) for count, size in counted if count >= visual_tokens]
    if visual_tokens < 1 or not enough:
        most = max_visual_tokens(geometry)
        raise UserError(
            f"expected 1 to {most} visual tokens of an image, found {visual_tokens}; change --visual-tokens"
        )
    return min(enough)[2]


def _candidates(geometry: TileGeometry) -> Iterator[Size]:
    """Images that fill a pinpoint along one side, at every length of the other: strips have no patch row
    left."""
    tile = geometry.tile_size
    for tall, wide in geometry.grid_pinpoints or ((tile, tile),):
        yield from ((height, wide) for height in range(1, tall + 1))
        yield from ((tall, width) for width in range(1, wide + 1))


def drawn_images(folder: Path, visual_tokens: int, images: int, geometry: TileGeometry) -> tuple[Path, ...]:
    """Image files in ``folder`` that together have at least ``visual_tokens``: seeded smooth patterns with
    noise.

    Raises UserError where so many images cannot have them.
    """
    files = []
    for number in range(images):
        height, width = image_size_for(-(-visual_tokens // images), geometry)
        noise = np.random.default_rng(number)
        rows, columns = np.linspace(0, 9, height)[:, None, None], np.linspace(0, 7, width)[None, :, None]
        waves = np.sin(rows * noise.uniform(0.3, 1, 3)) + np.cos(columns * noise.uniform(0.3, 1, 3))
        pixels = 128 + 50 * waves + noise.normal(0, 12, (height, width, 3))
        file = folder / f"{visual_tokens}-{number}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
        files.append(file)
    return tuple(files)


def fitted(input_ids: Sequence[int], image_token_id: int, visual_tokens: int, text_tokens: int) -> Integers:
    """The prompt with exactly so many image tokens and text tokens, [visual_tokens + text_tokens].

    Of image tokens the first ones stay. Text is repeated, or shortened at its beginning, behind the last of
    them; in front of them it stays, unless there is more of it than wanted. Raises UserError for a prompt with
    fewer image tokens, or no text behind them."""
    places = [place for place, token in enumerate(input_ids) if token == image_token_id]
    if len(places) < visual_tokens or text_tokens < 1:
        raise UserError(
            f"expected at least {visual_tokens} visual tokens and 1 text token, found {len(places)} and "
            f"{text_tokens}; change --visual-tokens, --text-tokens or the images"
        )
    first_behind = places[visual_tokens - 1] + 1 if visual_tokens else 0
    front = list(input_ids[:first_behind])
    behind = [token for token in input_ids[first_behind:] if token != image_token_id]
    if not behind:
        raise UserError("expected text behind the last image, found none; ask something about it")
    surplus = len(front) - visual_tokens - (text_tokens - 1)
    if surplus > 0:  # the beginning goes: what asks stands at the end
        text = [place for place, token in enumerate(front) if token != image_token_id][:surplus]
        front = [token for place, token in enumerate(front) if place not in set(text)]
    wanted = visual_tokens + text_tokens - len(front)
    repeated = behind * -(-wanted // len(behind))
    return np.array(front + repeated[len(repeated) - wanted :], np.int64)
