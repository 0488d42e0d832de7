"""What a program without transformers makes of images and text, against transformers.

Pixel values come from preprocess.onnx, token ids from tokenizer.json and the manifest's ``prompt``, as
graphs/README.md says.
"""

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
from tokenizers import Tokenizer

from asap_export.bundle import Bundle
from asap_export.checkpoint.images import image_settings
from asap_export.graph.preprocess import LARGEST_SHARE_APART, share_apart
from asap_export.model.anyres import Size, TileGeometry, visual_token_count
from asap_export.model.reference import Prompt as ReferencePrompt
from asap_export.parity.cases import Case, Question
from asap_export.parity.recording import Array, RecordedTurn, to_array
from asap_export.parity.verdict import Check
from asap_export.runtime.prompt import Prompt, PromptReader, Turn
from asap_export.runtime.template import put_together

__all__ = ["InputChecks"]

_PIXELS, _IDS = "preprocess: pixel_values", "prompt: token ids"
_HISTORY = (Turn("What is that?", 0, "A cat."),)


class InputChecks:
    """``reader`` is transformers' side, the bundle's own processor."""

    def __init__(self, bundle: Bundle, reader: PromptReader) -> None:
        self._bundle, self._reader, self._prompt = bundle, reader, bundle.manifest.prompt
        self._geometry = TileGeometry.of(bundle.manifest.model)
        self._settings = image_settings(reader.processor, self._geometry, str(bundle.processor_path))
        self._tokenizer = Tokenizer.from_file(str(bundle.tokenizer_path))

    def of(
        self, case: Case, turns: Sequence[RecordedTurn], prompts: Sequence[ReferencePrompt]
    ) -> list[Check]:
        """Of a case the pixel values of every turn with images, and the ids of every question; ``prompts`` are
        what transformers makes of the turns."""
        checks = [
            self._pixels(turn.name, turn.prompts, to_array(prompt.pixel_values))
            for turn, prompt in zip(turns, prompts, strict=False)
            if prompt.pixel_values is not None and turn.prompts
        ]
        return [*checks, self._ids(case)]

    def _pixels(self, name: str, prompts: Sequence[Prompt], expected: Array) -> Check:
        """The processor's pixels to within one grey level, but for a few."""
        found = np.concatenate([prompt.pixel_values for prompt in prompts])
        limit = LARGEST_SHARE_APART
        if found.shape != expected.shape:
            detail = f"shape {list(found.shape)}, expected {list(expected.shape)}"
            return Check("inputs", name, _PIXELS, "FAIL", limit=limit, detail=detail)
        apart = share_apart(found, expected, self._settings)
        if apart <= limit:
            return Check("inputs", name, _PIXELS, "PASS", max_error=apart, limit=limit)
        made, here = self._bundle.manifest.tools.get("pillow"), version("pillow")
        detail = f"{apart:.1%} of values differ by more than a grey level"
        if made != here:
            detail += f"; the bundle was made with Pillow {made}, here is {here}"
        return Check("inputs", name, _PIXELS, "FAIL", max_error=apart, limit=limit, detail=detail)

    def _ids(self, case: Case) -> Check:
        """Every question as a prompt; those of later turns behind each kind of token that may come last."""
        wrong, total = [], 0
        for number, questions in enumerate(case.turns):
            for question in questions:
                for last in self._last_tokens() if number else [None]:
                    expected = self._expected(question, last)
                    total += 1
                    if self._found(question, last, expected.image_sizes) != expected.input_ids.tolist():
                        wrong.append(question.text)
        detail = f"{total - len(wrong)} of {total} prompts agree"
        if wrong:
            detail += f"; not {wrong[0]!r}"
        return Check("inputs", case.name, _IDS, "FAIL" if wrong else "PASS", detail=detail)

    def _last_tokens(self) -> list[int]:
        """One that ended the answer, where there is such a token, and one that did not."""
        ends = self._bundle.manifest.model.eos_token_ids
        return [*ends[:1], next(token for token in range(len(ends) + 1) if token not in ends)]

    def _expected(self, question: Question, last: int | None) -> Prompt:
        """What the reader makes of a question, in a later turn behind the token ``last``."""
        if self._prompt.template is None:
            return self._reader.read(
                question.marked_text(self._prompt.image_token), question.images, template=False
            )
        if last is None:
            return self._reader.read(question.text, question.images)
        return self._reader.read_turn(_HISTORY, question.text, question.images, last)

    def _found(self, question: Question, last: int | None, sizes: Sequence[Size]) -> list[int]:
        """The same without transformers; ``sizes`` are those of the question's images."""
        template, mark, bos = self._prompt.template, self._prompt.image_token, self._prompt.bos_token
        text = question.marked_text(mark)
        if template is not None:
            parts = template.first if last is None else template.later
            text = put_together(parts, template.trims, question.text, len(question.images), mark)
        later = template is not None and last is not None
        if later and last in self._bundle.manifest.model.eos_token_ids:
            text = text.removeprefix(self._tokenizer.id_to_token(last) or "")
        special = not later and (bos is None or not text.startswith(bos))
        whole, *others = text.split(mark)
        if len(others) != len(sizes):
            return []
        for size, other in zip(sizes, others, strict=True):
            whole += mark * visual_token_count(size, self._geometry) + other
        ids: list[int] = self._tokenizer.encode(whole, add_special_tokens=special).ids
        return [last, *ids] if later and last is not None else ids
