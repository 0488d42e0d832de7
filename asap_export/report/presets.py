"""The public checkpoints that are known by name: their costs need no download."""

from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from asap_export.bundle.presets import presets

__all__ = ["preset_facts", "preset_table"]


def preset_facts() -> dict[str, Any]:
    """All presets by name, as JSON values: hub id, sizes, and the limits that an export of the hub id takes."""
    return {name: msgspec.to_builtins(preset) for name, preset in presets().items()}


def preset_table(facts: dict[str, Any]) -> Table:
    """``preset_facts`` for a terminal."""
    table = Table("name", "hub id", "language model", box=None, pad_edge=False)
    for column in ("visual tokens", "positions", "batch", "images", "text", "answer"):
        table.add_column(column, justify="right")
    for preset in facts.values():
        decoder, limits = preset["decoder"], preset["limits"]
        model = f"{preset['text_model_type']}, {decoder['layers']} × {decoder['hidden_size']}"
        counts = (preset["max_visual_tokens"], preset["max_position_embeddings"], *limits.values())
        names = (Text(preset["name"]), Text(preset["model"]), model)
        table.add_row(*names, *(f"{count:,}" for count in counts))
    return table
