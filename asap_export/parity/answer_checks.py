"""Whole answers: the tokens that a bundle wrote, against those that PyTorch would have."""

import torch
from torch import Tensor

from asap_export.model.reference import Context, Reference
from asap_export.parity.recording import RecordedTurn
from asap_export.parity.verdict import Check

__all__ = ["check_answers"]


def check_answers(
    turn: RecordedTurn,
    reference: Reference,
    logits: Tensor,
    context: Context,
    ends: tuple[int, ...],
    limit: float,
) -> Check:
    """Greedy tokens of all rows; the reference goes on from logits [B, 1, V] and the context behind the bundle's
    own cut.

    A token may be another than the reference's only where the two logits lie within ``limit`` of the largest; it
    is forced upon the reference then, and the rest of the answer compared. An answer ends with an end token or
    its length.
    """
    answers = [list(answer.token_ids) for answer in turn.answers]
    image_token = reference.config.image_token_id
    equal = total = 0
    gaps: list[float] = []
    for number in range(max(map(len, answers))):
        last = logits[:, 0].clone()
        # the runtime never writes one, and it may have no logit
        last[:, image_token : image_token + 1] = -torch.inf
        for row, tokens in enumerate(answers):
            if number >= len(tokens):
                continue
            total += 1
            best = int(last[row].argmax())
            if tokens[number] == best:
                equal += 1
            else:
                gaps.append(_gap(last[row], best, tokens[number]))
        goes_on = torch.tensor([[int(len(tokens) > number + 1)] for tokens in answers])
        if not bool(goes_on.any()):
            break
        fed = torch.tensor([[tokens[min(number, len(tokens) - 1)]] for tokens in answers])
        embeds = reference.embedding.embed_tokens(fed)
        output, context = reference.advance(embeds, goes_on, torch.zeros_like(goes_on).bool(), 0, context)
        logits = output.logits
    detail = f"{equal} of {total} greedy tokens agree"
    unended = [tokens for tokens in answers if not _ended(tokens, ends, turn.max_new_tokens)]
    if gaps:
        detail += f"; logits at most {max(gaps):.1e} of the largest apart where they do not"
    if unended:
        detail += f"; {len(unended)} answers end before their end"
    failed = bool(unended) or max(gaps, default=0.0) > limit
    return Check(
        "answers",
        turn.name,
        "tokens",
        "FAIL" if failed else "PASS",
        max(gaps, default=0.0),
        limit=limit,
        detail=detail,
        near_tie=bool(gaps) and not failed,
    )


def _gap(logits: Tensor, best: int, chosen: int) -> float:
    return float((logits[best] - logits[chosen]) / logits[logits.isfinite()].abs().max())


def _ended(tokens: list[int], ends: tuple[int, ...], length: int) -> bool:
    """Whether an answer stops where it has to: at the first end token, or at its full length."""
    stops = [place for place, token in enumerate(tokens) if token in ends]
    return stops == [len(tokens) - 1] if stops else len(tokens) == length
