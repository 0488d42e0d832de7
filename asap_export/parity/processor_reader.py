"""Prompts as transformers reads them, with a checkpoint's own processor: the reference for a bundle's reader."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from asap_export.checkpoint.loading import load_processor
from asap_export.checkpoint.tokenizer import chat_template
from asap_export.errors import UserError
from asap_export.model.anyres import Packing, Size
from asap_export.runtime.jinja import jinja_renderer
from asap_export.runtime.prompt import Prompt, PromptReader
from asap_export.runtime.template import WholeTemplate
from asap_export.runtime.template_parts import self_contained
from asap_export.spec import ModelSpec

__all__ = ["ProcessorReader"]


class ProcessorReader(PromptReader):
    """Reads prompts with the processor whose files are in ``folder``. Raises UserError where they are missing."""

    def __init__(self, folder: Path, spec: ModelSpec) -> None:
        self.processor: Any = load_processor(folder, spec)
        self.tokenizer: Any = self.processor.tokenizer
        self.tokenizer.model_max_length = 1 << 62  # it would only warn; lengths are checked against the model
        mark = self.processor.image_token
        super().__init__(spec, WholeTemplate(_render(self.processor), mark), mark, self.tokenizer.bos_token)

    def text(self, token_ids: Sequence[int], special: bool = False) -> str:
        decoded: str = self.tokenizer.decode(
            token_ids, skip_special_tokens=not special, clean_up_tokenization_spaces=False
        )
        return decoded

    def _token(self, token_id: int) -> str:
        return self.tokenizer.convert_ids_to_tokens(token_id) or ""

    def _ids(self, text: str, special: bool) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids

    def _processed(
        self, text: str, pictures: Sequence[Image], sizes: tuple[Size, ...], packed: Packing, special: bool
    ) -> Prompt:
        """What the processor makes of text and pictures, image marks repeated by its own count."""
        encoded = self.processor(images=pictures or None, text=[text], add_special_tokens=special)
        ids = np.array(encoded["input_ids"][0], np.int64)
        found = int((ids == self._spec.image_token_id).sum())
        if found != sum(packed.visual_tokens):
            raise UserError(
                f"expected {sum(packed.visual_tokens)} visual tokens for images of {_listed(sizes)} pixels, "
                f"found {found} from the bundle's processor; its files do not fit its config.json"
            )
        side = self._geometry.tile_size
        tiles = [np.empty((0, 3, side, side), np.float32)]
        for padded, count in zip(encoded.get("pixel_values", ()), packed.tiles, strict=True):
            # padded to the image with the most tiles; LLaVA-1.5's single tile comes without that dimension
            tiles.append(np.asarray(padded, np.float32).reshape(-1, 3, side, side)[:count])
        return Prompt(ids, np.concatenate(tiles), sizes)


def _render(processor: Any) -> Callable[..., str] | None:
    """transformers' own rendering, once the template has ended within limits: transformers has none."""
    template = chat_template(processor)
    if not template:
        return None
    within_limits = jinja_renderer(self_contained(template, processor.tokenizer.special_tokens_map))

    def render(messages: Sequence[dict[str, Any]], add_generation_prompt: bool) -> str:
        within_limits(messages, add_generation_prompt)
        text: str = processor.apply_chat_template(messages, add_generation_prompt=add_generation_prompt)
        return text

    return render


def _listed(sizes: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{width} x {height}" for height, width in sizes) or "no"
