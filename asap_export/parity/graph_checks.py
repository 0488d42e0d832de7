"""Each graph's runs against PyTorch, which is given the same and goes on from what the graphs kept."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from asap_export.model.decoder import Cut, DecoderOutput
from asap_export.model.reference import Context, PromptBatch, Reference
from asap_export.parity.answer_checks import check_answers
from asap_export.parity.cut_checks import CutChecks, Past
from asap_export.parity.forms import DecoderForm
from asap_export.parity.recording import Array, DecoderRun, RecordedTurn, to_array, to_tensor
from asap_export.parity.verdict import Check, Verdict, compare, equal
from asap_export.parity.wiring import check_masks
from asap_export.pruning.cut import Survivors

__all__ = ["Follower"]


class Follower:
    """The reference on a bundle's heels. ``forms`` are the decoder's, first the one that answers; ``limit``: see
    ``verdict.tolerance``; ``keep_for`` says how many visual tokens of a prompt [B, T] survive."""

    def __init__(
        self,
        reference: Reference,
        forms: Sequence[DecoderForm],
        dtype: torch.dtype,
        limit: float,
        keep_for: Callable[[PromptBatch], int],
        eos_token_ids: tuple[int, ...],
    ) -> None:
        self._reference, self._forms, self._dtype, self._limit = reference, forms, dtype, limit
        self._keep_for, self._eos = keep_for, eos_token_ids
        self._cuts = CutChecks(reference.pruning, dtype, limit)

    @torch.no_grad()
    def follow(self, turns: Sequence[RecordedTurn], prompts: Sequence[PromptBatch]) -> Iterator[Check]:
        """The turns of a case; ``prompts`` are what transformers makes of each."""
        context = self._reference.empty_context(len(turns[0].questions))
        for turn, prompt in zip(turns, prompts, strict=False):
            try:
                yield from self._vision(turn)
                for number in range(len(turn.steps)):
                    context = yield from self._step(turn, number, prompt, context)
            except (RuntimeError, IndexError, ValueError) as error:  # shapes that nothing can go on from
                turn.failure = turn.failure or " ".join(str(error).split())
            if turn.failure:
                yield Check("graphs", turn.name, "run", "FAIL", detail=turn.failure)
                return

    def _vision(self, turn: RecordedTurn) -> Iterator[Check]:
        if turn.seen is None:
            return
        expected = self._reference.vision(
            to_tensor(turn.seen.pixel_values), to_tensor(turn.seen.gather_index)
        )
        pair = _float(turn.seen.image_features), to_array(expected)
        yield compare("graphs", turn.name, "image_features", *pair, self._limit)

    def _step(
        self, turn: RecordedTurn, number: int, prompt: PromptBatch, before: Context
    ) -> Generator[Check, None, Context]:
        """A call of the decoder: what it was given, and what every form of it gave. Returns the context behind
        it, with the caches of the form that answers."""
        step = turn.steps[number]
        case = turn.name if number == 0 else f"{turn.name}, decode step {number}"
        ids, new_valid = _expected_ids(turn, number, prompt)
        valid = to_array(new_valid)
        yield equal("graphs", case, "input_ids", step.input_ids * valid, to_array(ids) * valid)
        given = next(iter(step.runs.values())).given
        features = turn.seen.image_features if turn.seen and number == 0 else None
        yield self._embedding(case, step.input_ids, features, given["inputs_embeds"])
        visual = (ids == self._reference.config.image_token_id) & new_valid.bool()
        keep = (turn.keep or self._keep_for(prompt)) if number == 0 else 0
        for name, value in self._reference.decoder_inputs(new_valid, visual, keep, before).items():
            yield equal("graphs", case, name, given[name], to_array(value))

        behind: Context | None = None
        followed: _Followed | None = None
        for form in self._forms:
            run = step.runs[form.name]
            if run.failure:
                yield Check("graphs", case, "run", "FAIL", detail=run.failure, form=form.name)
                continue
            if followed is None or not self._leads_there(form, run, followed):
                embeds = to_tensor(given["inputs_embeds"])
                followed = self._advance(embeds, new_valid, visual, keep, before, (form, run))
            yield from self._outputs(case, form, run, followed.output, before)
            if followed.cut is not None and bool(visual.any()):
                past = Past(*before.past[self._reference.pruning.prune_after - 1])
                yield from self._cuts.of(case, form, run, followed.cut, past)
            if behind is None:
                behind = _with_caches(followed.after, before, run)
                if number == 0 and turn.answers:
                    logits = followed.output.logits
                    yield check_answers(turn, self._reference, logits, followed.after, self._eos, self._limit)
        return behind or before

    def _embedding(self, case: str, input_ids: Array, features: Array | None, found: Array) -> Check:
        """embed_tokens.onnx looks up and puts in place: nothing is computed, so every bit must agree."""
        width = self._reference.config.text_config.hidden_size
        image_features = to_tensor(features) if features is not None else torch.zeros(0, width)
        expected = self._reference.embedding(to_tensor(input_ids), image_features)
        return equal(
            "graphs", case, "inputs_embeds", _float(found), _float(to_array(expected.to(self._dtype)))
        )

    def _advance(
        self,
        embeds: Tensor,
        new_valid: Tensor,
        visual: Tensor,
        keep: int,
        before: Context,
        leader: tuple[DecoderForm, DecoderRun],
    ) -> "_Followed":
        """The reference on the same tokens, behind its cut with what the leader says is left."""
        cuts: list[tuple[Cut, Survivors | None]] = []

        def lead(cut: Cut) -> Survivors | None:
            survivors = self._cuts.survivors(*leader, cut) if bool(visual.any()) else None
            cuts.append((cut, survivors))
            return survivors

        self._reference.decoder.on_cut = lead
        output, after = self._reference.advance(embeds, new_valid, visual, keep, before)
        return _Followed(output, after, *(cuts[0] if cuts else (None, None)))

    def _leads_there(self, form: DecoderForm, run: DecoderRun, followed: "_Followed") -> bool:
        """Whether the reference would do the same behind another form's run on the same inputs."""
        if followed.cut is None or not bool(followed.cut.visual.any()):
            return True
        own = self._cuts.survivors(form, run, followed.cut)
        if own is None or followed.survivors is None:
            return own is followed.survivors
        return all(map(torch.equal, own, followed.survivors))

    def _outputs(
        self, case: str, form: DecoderForm, run: DecoderRun, output: DecoderOutput, before: Context
    ) -> Iterator[Check]:
        """Logits, and keys and values of every layer."""
        altered = ", ".join(run.altered)
        verdict: Verdict = "FAIL" if altered else "PASS"
        yield Check("graphs", case, "cached tokens", verdict, detail=altered, form=form.name)
        logits = _float(run.gave["logits"]), to_array(output.logits)
        yield compare("graphs", case, "logits", *logits, self._limit, form.name)
        if "kept_index" in run.gave:
            kept = run.gave["kept_index"], to_array(output.kept_index)
            yield equal("graphs", case, "kept_index", *kept, form.name)
        for layer, (old, whole) in enumerate(zip(before.past, output.present, strict=True)):
            for part, cached, expected in zip(("key", "value"), old, whole, strict=True):
                name = f"present.{layer}.{part}"
                all_tokens = to_array(expected)
                new = all_tokens[:, :, cached.shape[2] :]
                scale = float(np.abs(all_tokens).max())
                yield compare(
                    "graphs", case, name, _float(run.gave[name]), new, self._limit, form.name, scale
                )
        if "kept_index" not in run.gave or run.gave["kept_index"].shape == output.kept_index.shape:
            yield from check_masks(case, form, run, self._reference.pruning, self._dtype)


class _Followed(NamedTuple):
    """What the reference gave, what it remembers, and its cut and what it went on from, where there was one."""

    output: DecoderOutput
    after: Context
    cut: Cut | None
    survivors: Survivors | None


def _expected_ids(turn: RecordedTurn, number: int, prompt: PromptBatch) -> tuple[Tensor, Tensor]:
    """What a call of the decoder is to be given, [B, T]: ids, and 1 where they count. A prompt, or the tokens
    that were sampled before, as long as their rows go on; behind the end of all of them, the last ones again."""
    if number == 0:
        return prompt.input_ids, prompt.attention_mask
    tokens = [answer.token_ids for answer in turn.answers]
    ids = torch.tensor([[row[min(number, len(row)) - 1]] for row in tokens])
    if number >= max(map(len, tokens)):
        return ids, torch.ones_like(ids)
    return ids, torch.tensor([[int(len(row) > number)] for row in tokens])


def _with_caches(after: Context, before: Context, run: DecoderRun) -> Context:
    """The context as the graph's next run has it; in the place of a cache of no fitting shape, the reference's
    own."""
    past = []
    for layer, (old, own) in enumerate(zip(before.past, after.past, strict=True)):
        pair = []
        for part, cached, whole in zip(("key", "value"), old, own, strict=True):
            grown = torch.cat([cached, to_tensor(run.gave[f"present.{layer}.{part}"])], dim=2)
            pair.append(grown if grown.shape == whole.shape else whole)
        past.append((pair[0], pair[1]))
    return replace(after, past=past)


def _float(array: Array) -> Array:
    """As float32, which NumPy computes with."""
    return array.astype(np.float32)
