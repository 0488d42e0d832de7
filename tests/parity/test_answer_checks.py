"""Which other tokens an answer may have."""

from types import SimpleNamespace

import pytest
import torch

from asap_export.parity.answer_checks import check_answers
from asap_export.parity.recording import RecordedTurn

END = 9


class Reference:
    """In the place of a model: one after the other, the logits that it is made with; what it was fed is
    remembered."""

    def __init__(self, logits):
        self.config = SimpleNamespace(image_token_id=7)
        self.embedding = SimpleNamespace(embed_tokens=lambda tokens: tokens)
        self.fed = []
        self._logits = iter(logits)

    def advance(self, tokens, valid, visual, keep, context):
        self.fed.append(tokens.flatten().tolist())
        return SimpleNamespace(logits=next(self._logits)), context


def likes(token, second=None, gap=1.0, rows=1):
    """Logits [rows, 1, 10] that are largest for a token, and for a second one smaller by a part of that."""
    logits = torch.zeros(rows, 1, 10)
    logits[:, :, token] = 10.0
    if second is not None:
        logits[:, :, second] = 10.0 * (1 - gap)
    return logits


def check(answers, first, rest=(), length=8):
    turn = RecordedTurn("case", (), None, length)
    turn.answers = [SimpleNamespace(token_ids=tuple(tokens)) for tokens in answers]
    reference = Reference(rest)
    return check_answers(turn, reference, first, None, (END,), limit=0.01), reference


def test_the_same_tokens_pass():
    found, _ = check([[3, END]], likes(3), [likes(END)])
    assert (found.verdict, found.near_tie, found.detail) == ("PASS", False, "2 of 2 greedy tokens agree")


@pytest.mark.parametrize("gap, verdict", [(0.005, "PASS"), (0.02, "FAIL")])
def test_another_token_passes_where_its_logit_is_as_large_within_rounding(gap, verdict):
    found, reference = check([[4, END]], likes(3, 4, gap), [likes(END)])
    assert (found.verdict, found.near_tie) == (verdict, verdict == "PASS")
    assert found.detail.startswith("1 of 2 greedy tokens agree; logits at most")
    assert reference.fed == [[4]]  # it is forced, and the rest compared


def test_the_rest_of_an_answer_is_compared_behind_a_near_tie():
    found, _ = check([[4, 5, END]], likes(3, 4, 0.005), [likes(6), likes(END)])
    assert found.verdict == "FAIL"


@pytest.mark.parametrize("tokens", [[3, 3], [3, END, 3]])
def test_an_answer_ends_where_it_has_to(tokens):
    found, _ = check([tokens], likes(3), [likes(tokens[1]), likes(3)])
    assert found.verdict == "FAIL" and "end before their end" in found.detail


def test_rows_end_one_by_one_and_no_image_token_is_expected():
    both = torch.cat([likes(7, 3, 0.5), likes(3)])
    found, reference = check([[3, END], [3]], both, [likes(END, rows=2)], length=1)
    assert "3 of 3 greedy tokens agree" in found.detail
    assert reference.fed == [[3, 3]]
