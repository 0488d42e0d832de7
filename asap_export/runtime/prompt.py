"""From text and images to what the graphs take."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from PIL.Image import Image
from tokenizers import Tokenizer

from asap_export.bundle import Bundle
from asap_export.errors import UserError
from asap_export.model.anyres import Packing, Size, TileGeometry, check_resizable, packing
from asap_export.runtime.images import ImageSource, read_image
from asap_export.runtime.session import Session
from asap_export.runtime.template import ChatTemplate, PartsTemplate, Turn, WholeTemplate
from asap_export.spec import ModelSpec

__all__ = ["BundleReader", "Prompt", "PromptReader"]


@dataclass(frozen=True)
class Prompt:
    """New tokens of one sequence: a whole prompt, or a later turn of a conversation.

    input_ids: [T] int64, one image token per visual token; pixel_values: [tiles, 3, h, w] float32, the tiles
    of all images in order; image_sizes: (height, width) of each image in pixels; before: the tokens of earlier
    turns, which are in the cache already.
    """

    input_ids: npt.NDArray[np.int64] = field(repr=False)
    pixel_values: npt.NDArray[np.float32] = field(repr=False)
    image_sizes: tuple[tuple[int, int], ...]
    before: Sequence[int] = field(default=(), repr=False)

    def context(self) -> list[int]:
        """All tokens of the sequence so far."""
        return [*self.before, *self.input_ids.tolist()]

    def after(self, token_ids: Sequence[int]) -> "Prompt":
        """The same prompt behind tokens that come first."""
        return replace(self, input_ids=np.concatenate([np.array(token_ids, np.int64), self.input_ids]))


class PromptReader(ABC):
    """Reads the prompts of one model; who makes token ids and pixel values is a subclass's to say."""

    def __init__(
        self, spec: ModelSpec, template: ChatTemplate, image_token: str, bos_token: str | None
    ) -> None:
        self.image_token = image_token
        self.template = template
        self._bos_token = bos_token
        self._spec = spec
        self._geometry = TileGeometry.of(spec)

    def read(self, text: str, images: Sequence[ImageSource] = (), template: bool = True) -> Prompt:
        """The first prompt of a conversation.

        With ``template`` the text goes through the chat template; where it has no ``<image>`` marks, the
        images come first. Without, the text is taken as it is. Raises UserError where marks and images differ
        in number or an image cannot be read.
        """
        self._check_marks(text, len(images), template)
        rendered = self._checked(self.template.first(text, len(images)), len(images)) if template else text
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
            rendered = self._checked(self.template.first(text, 1), 1)
            ids = self._expanded_ids(rendered, [visual], self._takes_special(rendered))
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
        rest = self._checked(self.template.later(history, text, len(images)), len(images))
        if last_token in self._spec.eos_token_ids:
            rest = rest.removeprefix(self._token(last_token))
        return self._prompt(rest, images, special=False).after([last_token])

    @abstractmethod
    def text(self, token_ids: Sequence[int], special: bool = False) -> str:
        """Tokens as text, ``special`` ones left out or not."""

    @abstractmethod
    def _token(self, token_id: int) -> str:
        """A token as the vocabulary has it, "" where it has none of this id."""

    @abstractmethod
    def _ids(self, text: str, special: bool) -> list[int]:
        """The ids of a text as it is, with the tokens that ``special`` puts around it."""

    @abstractmethod
    def _processed(
        self, text: str, pictures: Sequence[Image], sizes: tuple[Size, ...], packed: Packing, special: bool
    ) -> Prompt:
        """A text with one mark for each picture, and the pictures, as a prompt."""

    def _check_marks(self, text: str, images: int, template: bool) -> None:
        _check_characters(text)
        marks = text.count(self.image_token)
        if marks == images or (marks == 0 and template):
            return
        raise UserError(
            f"expected one {self.image_token} mark per image in the prompt, found {marks} for {images} "
            f"image{'s' if images != 1 else ''}; add or remove marks"
            + (", or leave them all out" if template and images else "")
        )

    def _checked(self, rendered: str, images: int) -> str:
        """What a template wrote, with a mark for each image."""
        if (marks := rendered.count(self.image_token)) != images:
            raise UserError(
                f"expected a chat template that writes one {self.image_token} mark per image, found {marks} for "
                f"{images} image{'s' if images != 1 else ''}; put marks into the prompt yourself"
            )
        return rendered

    def _takes_special(self, rendered: str) -> bool:
        """As in transformers: a template that writes the first token itself must not get a second one."""
        return self._bos_token is None or not rendered.startswith(self._bos_token)

    def _prompt(self, text: str, images: Sequence[ImageSource], special: bool) -> Prompt:
        pictures = [read_image(image) for image in images]
        sizes = tuple((picture.height, picture.width) for picture in pictures)
        for size in sizes:
            check_resizable(size, self._geometry)
        return self._processed(text, pictures, sizes, packing(sizes, self._geometry), special)

    def _expanded_ids(self, text: str, visual_tokens: Sequence[int], special: bool) -> npt.NDArray[np.int64]:
        """The ids of a text, each image's mark repeated as often as the image has visual tokens."""
        mark = self.image_token
        first, *others = text.split(mark)
        expanded = first + "".join(
            mark * count + other for count, other in zip(visual_tokens, others, strict=True)
        )
        return np.array(self._ids(expanded, special), np.int64)


class BundleReader(PromptReader):
    """Reads prompts with what a bundle has for every language: ids by its tokenizer.json, pixel values by
    ``preprocess``, a session on its preprocess.onnx, the chat template by its manifest's parts. Jinja is needed
    only for a template that could not be taken apart.
    """

    def __init__(self, bundle: Bundle, preprocess: Session) -> None:
        info = bundle.manifest.prompt
        super().__init__(bundle.manifest.model, _template_of(bundle), info.image_token, info.bos_token)
        self._preprocess = preprocess
        try:
            self._tokenizer = Tokenizer.from_file(str(bundle.tokenizer_path))
        except Exception as error:  # tokenizers raises nothing more narrow
            reason = " ".join(str(error).split())
            raise UserError(
                f"expected a tokenizer in {bundle.tokenizer_path}, found: {reason}; export the bundle again"
            ) from error

    def text(self, token_ids: Sequence[int], special: bool = False) -> str:
        decoded: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=not special)
        return decoded

    def _token(self, token_id: int) -> str:
        return self._tokenizer.id_to_token(token_id) or ""

    def _ids(self, text: str, special: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).ids
        return ids

    def _processed(
        self, text: str, pictures: Sequence[Image], sizes: tuple[Size, ...], packed: Packing, special: bool
    ) -> Prompt:
        side = self._geometry.tile_size
        tiles = [np.empty((0, 3, side, side), np.float32)]
        for picture in pictures:
            values = self._preprocess.run({"image": np.asarray(picture)}, on_host=("pixel_values",))
            tiles.append(values["pixel_values"])
        return Prompt(self._expanded_ids(text, packed.visual_tokens, special), np.concatenate(tiles), sizes)


def _template_of(bundle: Bundle) -> ChatTemplate:
    info, whole = bundle.manifest.prompt, bundle.chat_template_path
    if info.template is not None:
        return PartsTemplate(info.template, info.image_token)
    if whole is None:
        return WholeTemplate(None, info.image_token)
    from asap_export.runtime.jinja import jinja_renderer  # few bundles need it

    try:
        source = whole.read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(
            f"expected a chat template in UTF-8 in {whole}, found other bytes; export the bundle again"
        ) from error
    return WholeTemplate(jinja_renderer(source), info.image_token)


def _check_characters(text: str) -> None:
    """Raise UserError for half a character, which is how Python holds a byte that is no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        offset = len(text[: error.start].encode())
        found = (
            f"the byte 0x{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"the surrogate U+{code:04X}"
        )
        raise UserError(
            f"expected text in UTF-8, found {found} at offset {offset}; convert it to UTF-8"
        ) from None
