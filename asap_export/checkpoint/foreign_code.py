"""Checkpoints may bring classes of their own, in Python files that transformers can import. Never here."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asap_export.errors import UserError

__all__ = ["refuse_foreign_code"]

# Files in which transformers looks for an auto_map: the class for each part, and the Python file that defines it.
_NAMING = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer_config.json",
    "config.json",
)
_OF_A_PROCESSOR = ("Processor", "Tokenizer", "FeatureExtractor")


def refuse_foreign_code(folder: Path) -> None:
    """Raise UserError where a file asks for code of the folder to load the processor.

    transformers would ask on standard input whether to run it, where its own classes do not fit. Code for the
    model itself, which config.json may name too, is never asked for: its class is known before.
    """
    for name in _NAMING:
        for auto_map in _auto_maps(_content(folder / name)):
            parts = auto_map if isinstance(auto_map, dict) else {"AutoTokenizer": auto_map}
            wanted = [part for part in parts if name != "config.json" or part.endswith(_OF_A_PROCESSOR)]
            if wanted:
                raise UserError(
                    f"expected a processor of transformers' own classes, found that {folder / name} asks for code "
                    f"of the checkpoint for its {wanted[0]}, which is never run; if LlavaNextProcessor or "
                    "LlavaProcessor fits, remove auto_map from the file"
                )


def _content(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # those who need the file say what is wrong with it
        return None


def _auto_maps(content: Any) -> Iterator[Any]:
    """What stands under ``auto_map``, at any depth: a processor's file may hold those of its parts."""
    if isinstance(content, dict):
        if content.get("auto_map"):
            yield content["auto_map"]
        for value in content.values():
            yield from _auto_maps(value)
