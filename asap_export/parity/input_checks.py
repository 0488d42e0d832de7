"""What a program without transformers makes of images and text, against transformers.

Pixel values come from preprocess.onnx, token ids from tokenizer.json, the chat template from the manifest's
``prompt`` or Jinja, as graphs/README.md says.
"""

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from asap_export.bundle import Bundle
from asap_export.checkpoint.images import image_settings
from asap_export.errors import UserError
from asap_export.graph.preprocess import LARGEST_SHARE_APART, share_apart
from asap_export.model.anyres import TileGeometry
from asap_export.model.reference import PromptBatch
from asap_export.parity.cases import Case, CaseQuestion
from asap_export.parity.processor_reader import ProcessorReader
from asap_export.parity.recording import Array, RecordedTurn, to_array
from asap_export.parity.verdict import Check
from asap_export.runtime.prompt import BundleReader, Prompt, PromptReader
from asap_export.runtime.template import Turn

__all__ = ["InputChecks"]

_PIXELS, _IDS = "preprocess: pixel_values", "prompt: token ids"
_HISTORY = (Turn("What is that?", 0, "A cat."),)


class InputChecks:
    """``reader`` is the bundle's own, ``reference`` transformers' side, the bundle's processor."""

    def __init__(self, bundle: Bundle, reader: BundleReader, reference: ProcessorReader) -> None:
        self._bundle, self._reader, self._reference = bundle, reader, reference
        self._settings = image_settings(
            reference.processor, TileGeometry.of(bundle.manifest.model), str(bundle.processor_path)
        )
        self._has_template = (
            bundle.manifest.prompt.template is not None or bundle.chat_template_path is not None
        )

    def of(self, case: Case, turns: Sequence[RecordedTurn], prompts: Sequence[PromptBatch]) -> list[Check]:
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
                    total += 1
                    if not self._agree(question, last):
                        wrong.append(question.text)
        detail = f"{total - len(wrong)} of {total} prompts agree"
        if wrong:
            detail += f"; not {wrong[0]!r}"
        return Check("inputs", case.name, _IDS, "FAIL" if wrong else "PASS", detail=detail)

    def _last_tokens(self) -> list[int]:
        """One that ended the answer, where there is such a token, and one that did not."""
        ends = self._bundle.manifest.model.eos_token_ids
        return [*ends[:1], next(token for token in range(len(ends) + 1) if token not in ends)]

    def _agree(self, question: CaseQuestion, last: int | None) -> bool:
        """Whether both make the same of a question, in a later turn behind the token ``last``: the text that the
        template writes, and the ids."""
        if self._has_template:
            texts = [_written(reader, question, last) for reader in (self._reference, self._reader)]
            if texts[0] != texts[1] or texts[0] is None:
                return texts[0] == texts[1]
        expected = self._ids_of(self._reference, question, last)
        try:
            return self._ids_of(self._reader, question, last) == expected
        except (UserError, ValueError):  # marks and images that do not fit
            return False

    def _ids_of(self, reader: PromptReader, question: CaseQuestion, last: int | None) -> list[int]:
        if not self._has_template:
            text = question.marked_text(reader.image_token)
            prompt = reader.read(text, question.images, template=False)
        elif last is None:
            prompt = reader.read(question.text, question.images)
        else:
            prompt = reader.read_turn(_HISTORY, question.text, question.images, last)
        ids: list[int] = prompt.input_ids.tolist()
        return ids


def _written(reader: PromptReader, question: CaseQuestion, last: int | None) -> str | None:
    """What the chat template writes; None where it refuses."""
    try:
        if last is None:
            return reader.template.first(question.text, len(question.images))
        return reader.template.later(_HISTORY, question.text, len(question.images))
    except Exception:  # a template may raise what it likes
        return None
