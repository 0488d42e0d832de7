"""Whole answers: the bundle's own path from image files to tokens, against the reference's."""

import torch

from asap_export.parity.recording import Recorded, Step
from asap_export.parity.selection import decision_margins
from asap_export.parity.verdict import Check
from asap_export.runtime.model import Model
from asap_export.runtime.request import Answer, Request

__all__ = ["check_answers"]


def check_answers(
    recorded: Recorded, model: Model, max_new_tokens: int, limit: float, selection_is_ambiguous: bool
) -> Check:
    """Greedy tokens of a case's only turn, sequence by sequence, up to the first end token.

    A difference is AMBIGUOUS where the two largest logits of the reference lie closer together than ``limit``
    (relative to the largest logit), or where a choice of visual tokens already was, or where the bundle has chosen
    others from features of its own and some margin of the reference's choice is below ``limit``.
    """
    case, expected = recorded.case, recorded.answer
    assert expected is not None
    requests = [
        Request(question.marked_text, question.images, max_new_tokens, keep=recorded.keep, template=False)
        for question in case.turns[0]
    ]
    answers = model.generate_batch(requests)
    found = [list(answer.token_ids) for answer in answers]
    ends = set(model.spec.eos_token_ids)
    equal, total, margins = 0, 0, []
    for row, tokens in enumerate(found):
        wanted = _until_end(expected.tokens[row].tolist(), ends)
        total += len(wanted)
        same = next(
            (i for i, pair in enumerate(zip(tokens, wanted, strict=False)) if pair[0] != pair[1]), None
        )
        if same is None and len(tokens) == len(wanted):
            equal += len(wanted)
            continue
        same = min(len(tokens), len(wanted)) if same is None else same
        equal += same
        margins.append(_margin(expected.logits[min(same, len(expected.logits) - 1)][row]))
    detail = f"{equal} of {total} greedy tokens agree"
    if not margins:
        return Check("answers", case.name, "tokens", "PASS", detail=detail)
    detail += f"; top-two logit margin {max(margins):.1e} where they part"
    close = max(margins) <= limit or selection_is_ambiguous
    first = recorded.turns[0].steps[0]
    if first.cut is not None and (others := _others_kept(answers, first)):
        choice = decision_margins(first.cut, model.bundle.manifest.pruning)
        detail += f"; {others} other visual tokens kept, {choice}"
        close = close or choice.smallest <= limit
    return Check("answers", case.name, "tokens", "AMBIGUOUS" if close else "FAIL", limit=limit, detail=detail)


def _others_kept(answers: list[Answer], step: Step) -> int:
    """How many visual tokens the answers' own prompts kept in place of the reference's."""
    padding = (step.inputs["attention_mask"] == 0).sum(dim=1).tolist()  # on the left; answers do not count it
    rows = zip(answers, step.kept_index.tolist(), padding, strict=True)
    return sum(len(set(answer.kept_index) - {place - pad for place in kept}) for answer, kept, pad in rows)


def _until_end(tokens: list[int], ends: set[int]) -> list[int]:
    for place, token in enumerate(tokens):
        if token in ends:
            return tokens[: place + 1]
    return tokens


def _margin(logits: torch.Tensor) -> float:
    first, second = logits.topk(2).values.tolist()
    return float((first - second) / logits[logits.isfinite()].abs().max())
