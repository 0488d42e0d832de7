"""From text and images to what the graphs take, with the checkpoint's own processor."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL.Image import Image
from transformers import AutoProcessor

from asap_export.errors import UserError
from asap_export.model.anyres import Packing, Size, TileGeometry, check_resizable, packing
from asap_export.runtime.images import ImageSource, read_image
from asap_export.runtime.session import Session
from asap_export.spec import ModelSpec

__all__ = ["Prompt", "PromptReader", "Turn", "load_processor"]

# Stands for the last answer when a conversation is rendered: a private-use character, so no user's word.
_ANSWER = "\ue000answer\ue000"


@dataclass(frozen=True)
class Prompt:
    """New tokens of one sequence: a whole prompt, or a later turn of a conversation.

    input_ids: [T] int64, one image token per visual token; pixel_values: [tiles, 3, h, w] float32, the tiles
    of all images in order; image_sizes: (height, width) of each image in pixels.
    """

    input_ids: npt.NDArray[np.int64]
    pixel_values: npt.NDArray[np.float32]
    image_sizes: tuple[tuple[int, int], ...]

    def after(self, token_ids: Sequence[int]) -> "Prompt":
        """The same prompt behind tokens that come first."""
        return replace(self, input_ids=np.concatenate([np.array(token_ids, np.int64), self.input_ids]))


@dataclass(frozen=True)
class Turn:
    """What a user said: text, the number of images with it, and the answer, once there is one."""

    text: str
    images: int
    answer: str = ""


class PromptReader:
    """Reads prompts for one checkpoint.

    Pixel values are those of ``preprocess``, a session on a bundle's preprocess.onnx, so that they are the same in
    every language; without it those of the processor in ``folder``, which are the reference's.
    """

    def __init__(self, folder: Path, spec: ModelSpec, preprocess: Session | None = None) -> None:
        self._preprocess = preprocess
        self.processor = load_processor(folder)
        self.tokenizer: Any = self.processor.tokenizer
        self.tokenizer.model_max_length = 1 << 62  # it would only warn; lengths are checked against the model
        self._spec = spec
        self._geometry = TileGeometry.of(spec)

    def read(self, text: str, images: Sequence[ImageSource] = (), template: bool = True) -> Prompt:
        """The first prompt of a conversation.

        With ``template`` the text goes through the chat template; where it has no ``<image>`` marks, the
        images come first. Without, the text is taken as it is. Raises UserError where marks and images differ
        in number or an image cannot be read.
        """
        self._check_marks(text, len(images), template)
        rendered = self.first_text(text, len(images)) if template else text
        return self._prompt(rendered, images, special=self._takes_special(rendered))

    def read_each(self, texts: Sequence[str], image: ImageSource) -> list[Prompt]:
        """Several first prompts about one image, which is processed once: what ``read`` gives for each.

        Raises UserError like ``read``.
        """
        first = self.read(texts[0], [image])
        visual = int((first.input_ids == self._spec.image_token_id).sum())
        prompts = [first]
        for text in texts[1:]:
            self._check_marks(text, 1, template=True)
            rendered = self.first_text(text, 1)
            ids = self._token_ids(rendered, [visual], self._takes_special(rendered))
            prompts.append(replace(first, input_ids=ids))
        return prompts

    def read_turn(
        self, history: Sequence[Turn], text: str, images: Sequence[ImageSource], last_token: int
    ) -> Prompt:
        """A later turn: what the template puts after the last answer, up to the next one.

        ``last_token`` was sampled last and comes first; where it ended the answer, the template's own end of
        the answer is not repeated. Raises UserError like ``read``.
        """
        self._check_marks(text, len(images), template=True)
        rest = self.later_text(history, text, len(images))
        if last_token in self._spec.eos_token_ids:
            rest = rest.removeprefix(self.tokenizer.convert_ids_to_tokens(last_token))
        return self._prompt(rest, images, special=False).after([last_token])

    def first_text(self, text: str, images: int) -> str:
        """What the template makes of a first question. Raises UserError where there is none."""
        return self._render([Turn(text, images)])

    def later_text(self, history: Sequence[Turn], text: str, images: int) -> str:
        """What the template puts behind the last answer, its end and the next question. Raises UserError where
        there is no template, or one without answers."""
        turns = [*history[:-1], replace(history[-1], answer=_ANSWER), Turn(text, images)]
        _, found, rest = self._render(turns).partition(_ANSWER)
        if not found:
            raise UserError(
                "expected a chat template that repeats earlier answers, found one that drops them; "
                "ask each question by itself"
            )
        return rest

    def text(self, token_ids: Sequence[int]) -> str:
        """Tokens as text, special tokens left out."""
        decoded: str = self.tokenizer.decode(
            token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return decoded

    def _check_marks(self, text: str, images: int, template: bool) -> None:
        mark = self.processor.image_token
        marks = text.count(mark)
        if marks == images or (marks == 0 and template):
            return
        raise UserError(
            f"expected one {mark} mark per image in the prompt, found {marks} for {images} "
            f"image{'s' if images != 1 else ''}; add or remove marks"
            + (", or leave them all out" if template and images else "")
        )

    def _render(self, turns: Sequence[Turn]) -> str:
        if not self.processor.chat_template:
            raise UserError(
                "expected a chat template among the processor's files, found none; write the whole prompt "
                "yourself and turn the template off"
            )
        messages: list[dict[str, Any]] = []
        for turn in turns:
            marked = self.processor.image_token in turn.text
            parts = [] if marked else [{"type": "image"}] * turn.images
            messages.append({"role": "user", "content": [*parts, {"type": "text", "text": turn.text}]})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
        rendered: str = self.processor.apply_chat_template(messages[:-1], add_generation_prompt=True)
        return rendered

    def _takes_special(self, rendered: str) -> bool:
        """As in transformers: a template that writes the first token itself must not get a second one."""
        bos = self.tokenizer.bos_token
        return bos is None or not rendered.startswith(bos)

    def _prompt(self, text: str, images: Sequence[ImageSource], special: bool) -> Prompt:
        pictures = [read_image(image) for image in images]
        sizes = tuple((picture.height, picture.width) for picture in pictures)
        for size in sizes:
            check_resizable(size, self._geometry)
        packed = packing(sizes, self._geometry)
        if self._preprocess is None:
            return self._processed(text, pictures, sizes, packed, special)
        side = self._geometry.tile_size
        tiles = [np.empty((0, 3, side, side), np.float32)]
        for picture in pictures:
            values = self._preprocess.run({"image": np.asarray(picture)}, on_host=("pixel_values",))
            tiles.append(values["pixel_values"])
        return Prompt(self._token_ids(text, packed.visual_tokens, special), np.concatenate(tiles), sizes)

    def _token_ids(self, text: str, visual_tokens: Sequence[int], special: bool) -> npt.NDArray[np.int64]:
        """The ids of a text, each image's mark repeated as often as the image has visual tokens."""
        mark = self.processor.image_token
        first, *others = text.split(mark)
        expanded = first + "".join(
            mark * count + other for count, other in zip(visual_tokens, others, strict=True)
        )
        return np.array(self.tokenizer(expanded, add_special_tokens=special)["input_ids"], np.int64)

    def _processed(
        self, text: str, pictures: Sequence[Image], sizes: tuple[Size, ...], packed: Packing, special: bool
    ) -> Prompt:
        """What the checkpoint's processor makes of text and pictures."""
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


def load_processor(folder: Path) -> Any:
    """transformers' processor from a bundle's files; never from the network."""
    try:
        return AutoProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"expected the processor's files in {folder}, found: {reason}") from error


def _listed(sizes: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{width} x {height}" for height, width in sizes) or "no"
