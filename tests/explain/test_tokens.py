"""Every visual token has one fate, and those that stay are those that the decoder kept."""

from pathlib import Path

import numpy as np
import pytest
from installed_command import IMAGES
from small_checkpoints import write_checkpoint

from asap_export.explain.explained import ExplainedModel, open_explained
from asap_export.explain.tokens import FATES, MEASURES, Tokens, tokens_of
from asap_export.model.decoder import Cut
from asap_export.progress import no_progress
from asap_export.pruning.config import Budget

PRUNINGS = {
    "received": {"threshold": 0.5, "score": "received"},
    "everything merges": {"threshold": -1.0, "score": "last"},
    "nothing merges": {"threshold": 1.0, "score": "salience"},
    "no merging": {"merge": False, "score": "text"},
    "no mask": {"bidirectional": False, "merge": False, "score": "received"},
    "fastv": {"method": "fastv"},
    "random": {"method": "random", "seed": 5},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("explained") / "checkpoint")


@pytest.fixture(scope="module")
def explained(checkpoint):
    """A cut and what is said of its tokens, by name of the pruning."""

    def build(name: str, ratio: float = 0.25) -> tuple[ExplainedModel, Cut, Tokens]:
        subject = open_explained(checkpoint, None, None, Budget(ratio=ratio), PRUNINGS[name], no_progress)
        reference = subject.load(1000, no_progress)
        read = subject.reader.read("What differs?", [IMAGES / "mat.png", IMAGES / "sign.png"])
        cut = subject.cut(reference, read)
        return subject, cut, tokens_of(cut, subject.pruning)

    return build


@pytest.mark.parametrize("name", PRUNINGS)
def test_fates_partition_the_visual_tokens_and_agree_with_the_decoder(explained, name):
    subject, cut, tokens = explained(name)
    visual = cut.visual_mask[0].nonzero()[:, 0]
    stays = np.isin(visual.numpy(), cut.survivors.kept_index[0].numpy())
    fates = np.array(FATES)[tokens.fate]
    assert len(fates) == len(visual)
    assert (np.isin(fates, ["kept", "salvaged"]) == stays).all()
    assert stays.sum() == subject.keep_for(len(visual))

    merged, own = fates == "merged", tokens.anchor == np.arange(len(visual))
    assert not own[merged].any() and (fates[tokens.anchor[merged]] == "kept").all()
    assert own[np.isin(fates, ["kept", "dropped"])].all()
    assert (fates == "salvaged").sum() >= merged.sum()
    if name in ("nothing merges", "no merging", "no mask", "fastv", "random"):
        assert set(fates) == {"kept", "dropped"}
    if name == "everything merges":
        assert merged.sum() == (fates == "salvaged").sum() == stays.sum() - 1


def test_absorbed_tokens_that_come_back_are_salvaged(explained):
    """Three in four are kept and all but one absorbed: the quarter that was pruned cannot fill the places."""
    _, _, tokens = explained("everything merges", ratio=0.75)
    fates = np.array(FATES)[tokens.fate]
    back = (fates == "salvaged") & (tokens.anchor != np.arange(len(fates)))
    assert back.any() and not (fates == "dropped").any()


def test_where_all_are_kept_nothing_merges_and_scores_are_told_all_the_same(explained):
    _, cut, tokens = explained("everything merges", ratio=1.0)
    assert (tokens.fate == FATES.index("kept")).all() and len(tokens.fate) == int(cut.visual.sum())
    assert (tokens.anchor == np.arange(len(tokens.anchor))).all()
    _, _, of_some = explained("everything merges")
    for measure in MEASURES:
        np.testing.assert_array_equal(tokens.scores[measure], of_some.scores[measure])


def test_scores_are_attention_under_either_mask(explained):
    _, cut, tokens = explained("received")
    expected = cut.seen.score[0, cut.visual_mask[0]].numpy()
    np.testing.assert_allclose(tokens.scores["sg_bimask"], expected, rtol=1e-5)
    for score in tokens.scores.values():
        assert (score >= 0).all() and 0 < score.sum() <= 1 + 1e-5
    # the earlier a token, the more rows may see it: without anything to see, its score can only fall
    assert (np.diff(tokens.scores["even_causal"]) < 0).all()
    _, other, of_fastv = explained("fastv")
    expected = other.seen.score[0, other.visual_mask[0]].numpy()
    np.testing.assert_allclose(of_fastv.scores["last_row"], expected, rtol=1e-5)
    _, third, without = explained("no mask")
    expected = third.seen.score[0, third.visual_mask[0]].numpy()  # what decides there
    np.testing.assert_allclose(without.scores["causal"], expected, rtol=1e-5)
    for measure in MEASURES:  # the same layer, whatever it is told and prunes behind it
        for others in (of_fastv, without):
            np.testing.assert_allclose(others.scores[measure], tokens.scores[measure], rtol=1e-4, atol=1e-7)
