"""One HTML page that needs nothing beside it: pictures as data URIs, no scripts, light and dark."""

import base64
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from asap_export.explain.pictures import FATE_COLORS, Drawing

__all__ = ["page"]


def page(facts: dict[str, Any], pictures: Sequence[Sequence[Drawing]]) -> str:
    """The page for the numbers of ``explain``, with the pictures of its first images."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"signed": _signed, "data_uri": _data_uri, "times": _times}
    template = environment.from_string((files("asap_export") / "explain/page.html.jinja").read_text("utf-8"))
    colors = {fate: f"rgb{color}" for fate, color in FATE_COLORS.items()}
    rendered: str = template.render(facts=facts, pictures=pictures, colors=colors)
    return rendered


def _signed(number: float | None) -> str:
    """A correlation; a minus sign that a reader sees, and a dash where there is none."""
    return "–" if number is None else f"{number:+.2f}".replace("-", "−")


def _times(number: float | None) -> str:
    return "–" if number is None else f"{number:.2f}"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
