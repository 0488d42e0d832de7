"""Heat maps and fates of an image's patches, drawn on its own pixels as PNGs with their legends."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from asap_export.explain.tokens import FATES, Fate, Measure, Tokens
from asap_export.explain.views import ImageTokens, View

__all__ = ["FATE_COLORS", "Drawing", "Scale", "heat_map", "heat_scale", "pictures_of"]

Floats = npt.NDArray[np.floating[Any]]

_LONGEST = 560  # pixels of a picture's longer side, without title and legend
_NARROWEST = 440  # so that a legend fits under a narrow image
_TITLE, _LEGEND, _MARGIN, _TEXT = 28, 48, 10, 15
_PAPER, _INK, _FRAME = (255, 255, 255), (32, 33, 36), (128, 128, 128)

# Okabe and Ito's colours, which people tell apart whatever they see of red and green.
FATE_COLORS: Mapping[Fate, tuple[int, int, int]] = {
    "kept": (0, 158, 115),
    "salvaged": (86, 180, 233),
    "merged": (230, 159, 0),
    "dropped": (120, 120, 124),
}
_VIRIDIS = np.array(
    [
        (68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142), (31, 158, 137),
        (53, 183, 121), (109, 205, 89), (180, 222, 44), (253, 231, 37),
    ],
    np.float64,
)  # fmt: skip
_HEAT_TITLES: Mapping[Measure, str] = {
    "causal": "attention received, causal mask",
    "sg_bimask": "attention received, SG-BiMask",
    "last_row": "attention of the last row",
}
_COMPARED: tuple[Measure, ...] = ("causal", "sg_bimask")  # the colours of these two mean the same
_VIEW_NAMES = {"base view": "base", "tile grid": "tiles"}


@dataclass(frozen=True)
class Drawing:
    """A PNG with the words that go with it; ``name`` is its part of a file name."""

    name: str
    title: str
    png: bytes


class Scale(NamedTuple):
    """The ends of a colour scale, as base-2 logarithms of "times the mean"."""

    low: float
    high: float


def pictures_of(image: Image.Image, places: ImageTokens, tokens: Tokens, first: int) -> list[Drawing]:
    """For every view its heat maps, with one colour scale for both masks, and the fates of its patches.

    ``first`` is the number of the image's first token among those of ``tokens``.
    """
    heat = {measure: np.log2(_times_mean(tokens.scores[measure])) for measure in _HEAT_TITLES}
    own = np.concatenate([view.token.reshape(-1) for view in places.views]) + first
    shared = heat_scale(np.concatenate([heat[measure][own] for measure in _COMPARED]))
    scales = {m: shared if m in _COMPARED else heat_scale(values[own]) for m, values in heat.items()}
    pictures = []
    for view in places.views:
        for measure, title in _HEAT_TITLES.items():
            name = f"{_VIEW_NAMES[view.name]}-{measure.replace('_', '-')}"
            drawn = heat_map(image, view, heat[measure][view.token + first], scales[measure])
            framed = _framed(drawn, view.name, title, scales[measure])
            pictures.append(Drawing(name, f"{view.name}: {title}", framed))
        drawn, counts = _fates(image, view, tokens, first)
        title = "kept, salvaged, merged and dropped"
        name = f"{_VIEW_NAMES[view.name]}-tokens"
        pictures.append(Drawing(name, f"{view.name}: {title}", _framed(drawn, view.name, title, counts)))
    return pictures


def _times_mean(score: Floats) -> Floats:
    """Scores as multiples of their mean, and no smaller than a logarithm bears."""
    times: Floats = np.maximum(score / max(float(score.mean()), 1e-30), 2.0**-20)
    return times


def heat_scale(logarithms: Floats) -> Scale:
    """Ends of a colour scale: two in a hundred values lie beyond either, and noise alone does not fill it."""
    low, high = np.percentile(logarithms, (2, 98)).tolist()
    middle, half = (low + high) / 2, max((high - low) / 2, 0.125)
    return Scale(middle - half, middle + half)


def heat_map(image: Image.Image, view: View, logarithms: Floats, scale: Scale) -> Image.Image:
    """The image in grey under the colours of its patches; what no patch covers stays grey.

    logarithms: [rows, columns], of the score as multiples of its mean.
    """
    canvas = _canvas(image, _LONGEST)
    grey = np.asarray(canvas.convert("L"), np.float64)[:, :, None].repeat(3, axis=2)
    row, column = _cells(canvas, image, view)
    covered = (row >= 0)[:, None] & (column >= 0)[None, :]
    part = (logarithms - scale.low) / (scale.high - scale.low)
    colors = _viridis(part)[row[:, None], column[None, :]]  # [height, width, 3]
    mixed = np.where(covered[:, :, None], 0.3 * grey + 0.7 * colors, 0.5 * grey + 60)
    return Image.fromarray(mixed.round().astype(np.uint8))


def _viridis(part: Floats) -> Floats:
    """Colours [..., 3] of parts of a scale, those beyond its ends as the ends."""
    at = np.clip(part, 0, 1) * (len(_VIRIDIS) - 1)
    channels = [np.interp(at, np.arange(len(_VIRIDIS)), _VIRIDIS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1)


def _fates(image: Image.Image, view: View, tokens: Tokens, first: int) -> tuple[Image.Image, dict[Fate, int]]:
    """The image, grey where patches were dropped, tinted where merged or salvaged; and patches of each fate."""
    fate = tokens.fate[view.token + first]  # [rows, columns]
    canvas = _canvas(image, 2 * _LONGEST)  # drawn at twice the size, so that lines come out smooth
    pixels = np.asarray(canvas, np.float64)
    row, column = _cells(canvas, image, view)
    covered = (row >= 0)[:, None] & (column >= 0)[None, :]
    code = np.where(covered, fate[row[:, None], column[None, :]], FATES.index("dropped"))
    # faded to the middle, so that neither a dark nor a bright image looks dropped where it is kept
    faded = 0.22 * pixels.mean(axis=2, keepdims=True) + 0.78 * np.array(FATE_COLORS["dropped"])
    mixed = np.where((code == FATES.index("dropped"))[:, :, None], faded, pixels)
    for name in ("salvaged", "merged"):
        tinted = 0.5 * pixels + 0.5 * np.array(FATE_COLORS[name])
        mixed = np.where((code == FATES.index(name))[:, :, None], tinted, mixed)
    drawn = Image.fromarray(mixed.round().astype(np.uint8))
    _outline(drawn, image, view, fate)
    _tie(drawn, image, view, tokens, first)
    drawn = drawn.resize((max(1, canvas.width // 2), max(1, canvas.height // 2)), Image.Resampling.LANCZOS)
    return drawn, {name: int((fate == number).sum()) for number, name in enumerate(FATES)}


def _outline(drawn: Image.Image, image: Image.Image, view: View, fate: npt.NDArray[np.int8]) -> None:
    draw, scale = ImageDraw.Draw(drawn), drawn.width / image.width
    for tile in view.tiles:
        corners = tile.left, tile.top, tile.left + tile.width, tile.top + tile.height
        draw.rectangle([scale * corner for corner in corners], outline=_FRAME, width=2)
    for (row, column), code in np.ndenumerate(fate):
        left, top, width, height = (scale * edge for edge in view.patch(row, column))
        if FATES[code] != "dropped" and width > 3 and height > 3:
            inner = left + 1, top + 1, left + width - 2, top + height - 2
            draw.rectangle(inner, outline=FATE_COLORS[FATES[code]], width=3)


def _tie(drawn: Image.Image, image: Image.Image, view: View, tokens: Tokens, first: int) -> None:
    """Lines from merged patches to their anchors; a circle where the anchor is none of this view's patches."""
    draw, scale = ImageDraw.Draw(drawn), drawn.width / image.width
    centre = {}
    for row, column in np.ndindex(view.token.shape):
        left, top, width, height = view.patch(row, column)
        middle = scale * (left + width / 2), scale * (top + height / 2)
        centre[int(view.token[row, column]) + first] = middle
    color = FATE_COLORS["merged"]
    for number, (x, y) in centre.items():
        anchor = int(tokens.anchor[number])
        if FATES[tokens.fate[number]] != "merged":
            continue
        if anchor not in centre:
            draw.ellipse((x - 7, y - 7, x + 7, y + 7), fill=_PAPER, outline=_INK, width=3)
            continue
        to_x, to_y = centre[anchor]
        draw.line((x, y, to_x, to_y), fill=_INK, width=4)
        draw.line((x, y, to_x, to_y), fill=color, width=2)
        draw.ellipse((to_x - 7, to_y - 7, to_x + 7, to_y + 7), fill=color, outline=_INK, width=2)


def _canvas(image: Image.Image, longest: int) -> Image.Image:
    scale = longest / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def _cells(
    canvas: Image.Image, image: Image.Image, view: View
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The patch row of each pixel row of the canvas, and the patch column of each column; -1 for none."""

    def along(starts: Floats, ends: Floats, pixels: int, whole: int) -> npt.NDArray[np.int64]:
        at = (np.arange(pixels) + 0.5) * (whole / pixels)
        cell = np.searchsorted(starts, at, side="right") - 1
        return np.where((cell >= 0) & (at < ends[cell]), cell, -1)

    return (
        along(view.tops, view.bottoms, canvas.height, image.height),
        along(view.lefts, view.rights, canvas.width, image.width),
    )


def _framed(drawn: Image.Image, view: str, title: str, legend: Scale | dict[Fate, int]) -> bytes:
    """The drawing with its title above and its legend below, as a PNG."""
    width = max(drawn.width, _NARROWEST) + 2 * _MARGIN
    sheet = Image.new("RGB", (width, drawn.height + _TITLE + _LEGEND + _MARGIN), _PAPER)
    sheet.paste(drawn, ((width - drawn.width) // 2, _TITLE))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    draw.text((_MARGIN, 5), f"{view}: {title}", fill=_INK, font=font)
    top = _TITLE + drawn.height + 8
    if isinstance(legend, Scale):
        _draw_scale(sheet, legend, top)
    else:
        _draw_fates(draw, legend, top)
    png = io.BytesIO()
    sheet.save(png, "PNG", optimize=True)
    return png.getvalue()


def _draw_scale(sheet: Image.Image, scale: Scale, top: int) -> None:
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    left, right, height = _MARGIN + 104, sheet.width - _MARGIN - 16, 12
    bar = _viridis(np.linspace(0, 1, right - left))[None].repeat(height, axis=0)
    sheet.paste(Image.fromarray(bar.round().astype(np.uint8)), (left, top))
    draw.rectangle((left - 1, top - 1, right, top + height), outline=_FRAME)
    draw.text((_MARGIN, top - 2), "times mean", fill=_INK, font=font)
    step = next((step for step in (0.25, 0.5, 1, 2) if (scale.high - scale.low) / step <= 8), 4)
    for tick in np.arange(np.ceil(scale.low / step), np.floor(scale.high / step) + 1) * step:
        x = left + (right - left) * (tick - scale.low) / (scale.high - scale.low)
        draw.line((x, top + height, x, top + height + 4), fill=_INK)
        draw.text((x, top + height + 5), f"{2**tick:.2g}", fill=_INK, font=font, anchor="ma")


def _draw_fates(draw: ImageDraw.ImageDraw, counts: dict[Fate, int], top: int) -> None:
    font, x = ImageFont.load_default(_TEXT), float(_MARGIN)
    for fate in FATES:
        draw.rectangle((x, top, x + 13, top + 13), fill=FATE_COLORS[fate], outline=_INK)
        said = f"{fate} {counts[fate]}"
        draw.text((x + 19, top), said, fill=_INK, font=font)
        x += 19 + draw.textlength(said, font=font) + 16
