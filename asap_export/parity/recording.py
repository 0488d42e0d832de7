"""What a bundle does with the cases: it answers as for a user, and every run of its graphs is remembered.

All of it is recorded before PyTorch's model is loaded, so that the two never share memory. PyTorch is then given
what each graph was given, so errors do not add up, and goes on from what each graph gave.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asap_export.errors import UserError
from asap_export.parity.cases import Case, CaseQuestion
from asap_export.parity.forms import DecoderForm
from asap_export.runtime.cache import Cache, kept_tokens, present_name
from asap_export.runtime.generate import decode
from asap_export.runtime.model import Model
from asap_export.runtime.prompt import Prompt
from asap_export.runtime.request import GREEDY, Answer, Request
from asap_export.runtime.session import Session, Sessions

__all__ = [
    "Array",
    "DecoderCall",
    "DecoderRun",
    "Ears",
    "RecordedTurn",
    "record",
    "rerun",
    "to_array",
    "to_tensor",
]

Array = npt.NDArray[Any]

_DECODE_STEPS = 2  # recorded behind each prefill


@dataclass(frozen=True)
class DecoderRun:
    """A run of one form of the decoder. ``given`` are its inputs but the caches; ``gave`` logits, kept_index and,
    by output, the keys and values of the new tokens that stay, [B, Hkv, K, d]; ``told`` what was laid open;
    ``altered`` the caches whose earlier tokens are not what earlier runs left. ``failure`` says why it gave
    nothing."""

    given: dict[str, Array]
    gave: dict[str, Array] = field(default_factory=dict)
    told: dict[str, Array] = field(default_factory=dict)
    altered: tuple[str, ...] = ()
    failure: str = ""


@dataclass
class DecoderCall:
    """One call of the decoder: input_ids [B, T] that were embedded, and its run in every form, by the form's
    name."""

    input_ids: Array
    runs: dict[str, DecoderRun]


class VisionRun(NamedTuple):
    """A run of the vision encoder: pixel_values [tiles, 3, h, w], gather_index [N], image_features [N, D]."""

    pixel_values: Array
    gather_index: Array
    image_features: Array


@dataclass
class RecordedTurn:
    """A turn of a case: a batch of questions, what was made of them, and what followed; ``keep`` as the case has
    it. ``failure`` says why it broke off, where it did."""

    name: str
    questions: Sequence[CaseQuestion]
    keep: int | None
    max_new_tokens: int
    prompts: Sequence[Prompt] = ()
    seen: VisionRun | None = None
    steps: list[DecoderCall] = field(default_factory=list)
    answers: Sequence[Answer] = ()
    failure: str = ""


class _Broken(Exception):
    """A graph that cannot be run, or gives what is no number."""


class Ears:
    """Listen in on the three sessions of a model, whose decoder is a ``form``."""

    def __init__(self, form: DecoderForm) -> None:
        self._form = form
        self._past: dict[str, Array] = {}
        self._input_ids: Array | None = None
        self.turn: RecordedTurn | None = None

    def around(self, sessions: Sessions) -> Sessions:
        """Sessions that run these, and tell of it."""
        vision, embedding, decoder = sessions
        return Sessions(
            _Listening(vision, self._vision),
            _Listening(embedding, self._embed),
            _Listening(decoder, self._decoder),
        )

    def forget(self) -> None:
        """Nothing is cached any more."""
        self._past = {}

    @property
    def _full(self) -> bool:
        assert self.turn is not None
        return len(self.turn.steps) > _DECODE_STEPS

    def _vision(
        self, session: Session, inputs: dict[str, Any], on_host: Collection[str], into: Any
    ) -> dict[str, Any]:
        found = session.run(inputs, ("image_features",))
        assert self.turn is not None
        self.turn.seen = VisionRun(inputs["pixel_values"], inputs["gather_index"], found["image_features"])
        return found

    def _embed(
        self, session: Session, inputs: dict[str, Any], on_host: Collection[str], into: Any
    ) -> dict[str, Any]:
        self._input_ids = inputs["input_ids"]
        return session.run(inputs, on_host if self._full else ("inputs_embeds",))

    def _decoder(
        self, session: Session, inputs: dict[str, Any], on_host: Collection[str], into: Any
    ) -> dict[str, Any]:
        if self._full:
            return session.run(inputs, on_host, into)
        assert self.turn is not None and self._input_ids is not None
        past = self._past or {name: value[:, :, :0] for name, value in inputs.items() if _is_cache(name)}
        found, run, self._past = _run(session, self._form, inputs, past, into)
        self.turn.steps.append(DecoderCall(self._input_ids, {self._form.name: run}))
        return found


@dataclass(frozen=True)
class _Listening:
    """A ``Session`` whose runs go through somebody's ears."""

    session: Session
    hear: Any

    def run(
        self, inputs: Mapping[str, Any], on_host: Collection[str] = (), into: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.hear(self.session, dict(inputs), on_host, into)
        except (UserError, _Broken):
            raise
        except Exception as error:  # ONNX Runtime's share no base class
            raise _Broken(str(error)) from error
        return found

    def longest(self, name: str, axis: int) -> int | None:
        return self.session.longest(name, axis)


def record(
    case: Case, model: Model, ears: Ears, max_new_tokens: int, keep_for: Callable[[Array], int] | None
) -> list[RecordedTurn]:
    """All turns of a case, as far as the model, which ``ears`` listen to, can go.

    ``keep_for`` says how many visual tokens of prompts with so many each, [B], survive; None leaves it to the
    bundle's own budget.
    """
    cache: Cache | None = None
    turns: list[RecordedTurn] = []
    ears.forget()
    for number, questions in enumerate(case.turns):
        name = case.name if number == 0 else f"{case.name}, turn {number + 1}"
        is_last = number == len(case.turns) - 1
        turn = RecordedTurn(name, questions, case.keep, max_new_tokens if is_last else _DECODE_STEPS + 1)
        turns.append(turn)
        ears.turn = turn
        try:
            cache = _answer(turn, model, cache, keep_for)
        except (_Broken, IndexError, ValueError) as error:
            turn.failure = " ".join(str(error).split()) or type(error).__name__
            break
    return turns


def rerun(turns: Sequence[RecordedTurn], session: Session, form: DecoderForm) -> None:
    """The runs of the decoder in a case once more, in another form of it, given the same."""
    past: dict[str, Array] = {}
    for turn in turns:
        for step in turn.steps:
            first = next(iter(step.runs.values()))
            past = past or {
                name.replace("present", "past_key_values"): value[:, :, :0]
                for name, value in first.gave.items()
                if name.startswith("present")
            }
            try:
                _, step.runs[form.name], _ = _run(session, form, first.given | past, past)
            except UserError:
                raise
            except Exception as error:  # ONNX Runtime's share no base class
                step.runs[form.name] = DecoderRun(first.given, failure=" ".join(str(error).split()))
            past = {
                name: np.concatenate([array, first.gave[present_name(name)]], 2)
                for name, array in past.items()
            }


def _answer(
    turn: RecordedTurn, model: Model, cache: Cache | None, keep_for: Callable[[Array], int] | None
) -> Cache:
    """Let the model answer a turn; where it ends early, feed it further tokens, until enough is recorded."""
    mark = model.reader.image_token
    texts = [question.marked_text(mark) for question in turn.questions]
    turn.prompts = [
        model.reader.read(text, question.images, template=False)
        for text, question in zip(texts, turn.questions, strict=True)
    ]
    keep = turn.keep
    if keep is None and keep_for is not None:
        marks = [(prompt.input_ids == model.spec.image_token_id).sum() for prompt in turn.prompts]
        keep = keep_for(np.array(marks))
    requests = [
        Request(question.images, text, turn.max_new_tokens, keep=keep, template=False, **GREEDY)
        for text, question in zip(texts, turn.questions, strict=True)
    ]
    turn.answers, cache = model.answer(turn.prompts, requests, cache=cache)
    while len(turn.steps) <= _DECODE_STEPS:
        last = [answer.token_ids[-1] for answer in turn.answers]
        cache = decode(model.graphs, last, np.ones(len(last), bool), cache).cache
    return cache


def _run(
    session: Session,
    form: DecoderForm,
    inputs: Mapping[str, Any],
    past: Mapping[str, Array],
    into: Mapping[str, Array] | None = None,
) -> tuple[dict[str, Array], DecoderRun, dict[str, Array]]:
    """Outputs, the run, and the caches behind it; ``past`` are the caches before it, [B, Hkv, P, d] by input."""
    outputs = ["logits", "kept_index", *form.told, *(present_name(name) for name in past)]
    found = session.run(inputs, outputs, into)
    if not np.isfinite(found["logits"].astype(np.float32)).all():
        raise _Broken("logits that are no numbers")
    given = {name: value for name, value in inputs.items() if not _is_cache(name)}
    gave: dict[str, Array] = {name: found[name] for name in ("logits", "kept_index") if name in found}
    kept = gave.get("kept_index")
    altered, after = [], {}
    for name, before in past.items():
        whole = (into or {}).get(present_name(name), found[present_name(name)])
        length = before.shape[2]
        if not (
            np.array_equal(inputs[name][:, :, :length], before)
            and np.array_equal(whole[:, :, :length], before)
        ):
            altered.append(name)
        new = whole[:, :, length:]
        if name in form.caches.untrimmed and kept is not None:
            new = kept_tokens(whole, length, kept)
        elif name in form.caches.growing:
            new = new[:, :, : given["inputs_embeds"].shape[1] if kept is None else kept.shape[1]]
        gave[present_name(name)] = new = np.array(new)
        after[name] = np.concatenate([before, new], axis=2)
    told = {name: found[name] for name in form.told}
    return found, DecoderRun(given, gave, told, tuple(altered)), after


def _is_cache(name: str) -> bool:
    return name.startswith("past_key_values.")


def to_array(tensor: Tensor) -> Array:
    """A tensor's values for a session; bfloat16, which NumPy does not know, by way of its bits."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    array: Array = tensor.numpy()
    return array


def to_tensor(array: Array) -> Tensor:
    """A session's values for PyTorch: floats as float32."""
    if array.dtype.kind in "fV" or array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.astype(np.float32))
    return torch.from_numpy(np.array(array))
