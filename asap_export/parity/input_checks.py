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
from asap_export.parity.cases import Case, Question
from asap_export.parity.recording import Array, Recorded, to_array
from asap_export.parity.verdict import Check
from asap_export.runtime.images import read_image
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.runtime.prompt import Prompt, PromptReader, Turn
from asap_export.runtime.template import put_together

__all__ = ["InputChecks"]

_PIXELS, _IDS = "preprocess: pixel_values", "prompt: token ids"
_HISTORY = (Turn("What is that?", 0, "A cat."),)


class InputChecks:
    """``reader`` is transformers' side, the bundle's own processor; the graph always runs on the CPU."""

    def __init__(self, bundle: Bundle, reader: PromptReader) -> None:
        self._bundle, self._reader, self._prompt = bundle, reader, bundle.manifest.prompt
        self._geometry = TileGeometry.of(bundle.manifest.model)
        self._settings = image_settings(reader.processor, self._geometry, str(bundle.processor_path))
        self._preprocess = OnnxRuntimeSession(bundle.graph_path("preprocess"), "cpu")
        self._tokenizer = Tokenizer.from_file(str(bundle.tokenizer_path))

    def of(self, recorded: Recorded) -> list[Check]:
        """Of a case the pixel values of every turn with images, and the ids of every question."""
        checks = []
        for questions, turn in zip(recorded.case.turns, recorded.turns, strict=True):
            pixels = turn.prompt.pixel_values
            if pixels is not None:
                checks.append(self._pixels(turn.name, questions, to_array(pixels)))
        return [*checks, self._ids(recorded.case)]

    def _pixels(self, name: str, questions: Sequence[Question], expected: Array) -> Check:
        """The processor's pixels, which the reference was given, to within one grey level, but for a few."""
        images = [read_image(path) for question in questions for path in question.images]
        tiles = [
            self._preprocess.run({"image": np.asarray(image)}, on_host=("pixel_values",))["pixel_values"]
            for image in images
        ]
        found = np.concatenate(tiles)
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
            return self._reader.read(question.marked_text, question.images, template=False)
        if last is None:
            return self._reader.read(question.text, question.images)
        return self._reader.read_turn(_HISTORY, question.text, question.images, last)

    def _found(self, question: Question, last: int | None, sizes: Sequence[Size]) -> list[int]:
        """The same without transformers; ``sizes`` are those of the question's images."""
        template, mark, bos = self._prompt.template, self._prompt.image_token, self._prompt.bos_token
        text = question.marked_text
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
