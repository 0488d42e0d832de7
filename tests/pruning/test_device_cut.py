"""The cut as a device runs it: the reference's results, without a look at any value on the way."""

import golden_cases
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from asap_export.errors import UserError
from asap_export.pruning import cut as reference
from asap_export.pruning.config import PruningConfig
from asap_export.pruning.consolidation import merge_kept as reference_merge
from asap_export.pruning.device.bias import causal_bias, soft_bias
from asap_export.pruning.device.cut import Scores, attend_and_score, drop_tokens
from asap_export.pruning.device.merging import ROUNDS, merge_kept
from asap_export.pruning.device.selection import positions
from asap_export.pruning.mask import causal_bias as causal_matrix
from asap_export.pruning.mask import soft_mask
from asap_export.pruning.topk import kept_positions


@pytest.mark.parametrize("path", golden_cases.FILES, ids=lambda path: path.stem)
def test_it_reproduces_the_golden_case(path):
    case = golden_cases.load(path)
    query, key, hidden = (case.batch(name) for name in ("query", "key", "hidden"))
    visual, valid = case.batch("visual_mask"), case.batch("attention_mask")

    _, seen = attend_and_score(case.config, query, key, key, visual, case.scale, valid)
    survivors = drop_tokens(case.config, seen, hidden, visual, case.kept_length, valid)

    topk = kept_positions(seen.score, visual, valid, case.kept_length)
    absorbed = torch.zeros_like(topk, dtype=torch.bool)
    if case.config.merge:
        threshold = case.config.threshold
        absorbed = merge_kept(hidden, topk, visual, seen.salience, seen.mass, threshold).absorbed
    kept = topk[0].numpy()
    assert survivors.settled
    case.check(
        {
            "mass": seen.mass[0].numpy(),
            "salience": seen.salience[0].numpy(),
            "score": seen.score[0].numpy(),
            "topk": kept[case.inputs["visual_mask"][kept]],
            "absorbed": np.sort(topk[absorbed].numpy()),
            "index": survivors.kept_index[0].numpy(),
            "hidden": survivors.hidden[0].numpy(),
        }
    )


def prompts(batch, tokens, past, noise):
    """Masks of rows with left padding, text, and visual tokens somewhere in between."""
    visual, valid = torch.zeros(2, batch, tokens, dtype=torch.bool)
    for row in range(batch):
        padding, before, after = torch.randint(0, 1 + tokens // 4, (3,), generator=noise).tolist()
        valid[row, padding:] = True
        visual[row, padding + before : tokens - after] = True
    cached = torch.rand(batch, past, generator=noise) < 0.8
    return visual, valid, torch.cat([cached, valid], dim=1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31), batch=st.integers(1, 3), tokens=st.integers(4, 40), past=st.sampled_from([0, 5]),
    group=st.sampled_from([1, 2]), keep=st.integers(1, 30), rank=st.integers(1, 6),
    method=st.sampled_from(["asap", "fastv"]), score=st.sampled_from(["last", "text", "received", "salience"]),
    bidirectional=st.booleans(), threshold=st.sampled_from([-0.5, 0.1, 0.5, 0.9]),
)  # fmt: skip
def test_it_agrees_with_the_reference_on_any_prompt(
    seed, batch, tokens, past, group, keep, rank, method, score, bidirectional, threshold
):
    noise = torch.Generator().manual_seed(seed)
    visual, valid, all_valid = prompts(batch, tokens, past, noise)
    query = torch.randn(batch, 2 * group, tokens, 8, generator=noise)
    key, value = torch.randn(2, batch, 2, past + tokens, 8, generator=noise)
    # Few directions, so that similar tokens are common.
    hidden = torch.randn(batch, tokens, rank, generator=noise) @ torch.randn(rank, 16, generator=noise)
    kept_length = min(tokens, keep + int((valid & ~visual).sum(dim=1).max()))
    config = PruningConfig(method, score=score, bidirectional=bidirectional, threshold=threshold)

    expected = reference.observe_attention(config, query, key, visual, all_valid, 0.3)
    output, seen = attend_and_score(config, query, key, value, visual, 0.3, all_valid)
    attended = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=expected.bias, scale=0.3, enable_gqa=group > 1
    )
    torch.testing.assert_close(output, attended)
    for name in ("mass", "salience", "score"):
        found, wanted = getattr(seen, name), getattr(expected, name)
        torch.testing.assert_close(found[visual], wanted[visual], rtol=1e-4, atol=1e-5)

    # From the same scores on the choice is the same, where no cosine is within rounding of the threshold.
    unit = torch.nn.functional.normalize(hidden, dim=-1)
    assume(method == "fastv" or ((unit @ unit.mT - threshold).abs() > 1e-5).all())
    same = seen._replace(**{name: getattr(expected, name) for name in seen._fields})
    wanted = reference.drop_tokens(config, expected, hidden, visual, valid, torch.tensor(kept_length))
    found = drop_tokens(config, same, hidden, visual, kept_length, valid, rounds=kept_length)
    assert found.settled
    assert torch.equal(found.kept_index, wanted.kept_index)
    torch.testing.assert_close(found.hidden, wanted.hidden, rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), levels=st.integers(1, 4), kept=st.integers(2, 24))
def test_ties_of_salience_and_mass_go_to_the_lower_position(seed, levels, kept):
    """Values on a few levels: every tie that there can be."""
    noise = torch.Generator().manual_seed(seed)
    hidden = torch.randint(-1, 2, (2, 24, 4), generator=noise).float() + 0.25
    salience, mass = (torch.randint(0, levels, (2, 2, 24), generator=noise) / 4).unbind()
    visual = torch.rand(2, 24, generator=noise) < 0.8
    index = torch.rand(2, 24, generator=noise).argsort(dim=1)[:, :kept].sort(dim=1).values

    expected = reference_merge(hidden, index, visual, salience, mass, 0.6)
    found = merge_kept(hidden, index, visual, salience, mass, 0.6, rounds=kept)

    assert found.settled
    assert torch.equal(found.kept_index, expected[1])
    assert torch.equal(found.absorbed, expected[2])
    torch.testing.assert_close(found.hidden, expected[0])


def test_a_chain_longer_than_the_rounds_is_told_and_never_taken_for_settled():
    """Each token is similar to its neighbours only, and salience falls along the chain: nothing settles early."""
    hidden = torch.eye(40)[None] + 0.9 * torch.eye(40).roll(1, dims=1)[None]
    hidden[0, 39, 0] = 0.0  # a chain, not a ring
    salience, visual = torch.linspace(1, 0.1, 40)[None], torch.ones(1, 40, dtype=torch.bool)
    inputs = hidden, torch.arange(40)[None], visual, salience, salience, 0.4

    assert not merge_kept(*inputs, rounds=16).settled
    expected = reference_merge(*inputs)
    for rounds in (40, None):
        found = merge_kept(*inputs, rounds=rounds)
        assert found.settled
        assert torch.equal(found.absorbed, expected[2])
    assert found.absorbed[0].tolist() == [False, True] * 20

    config = PruningConfig(threshold=0.4)
    seen = Scores(salience, salience, salience)
    wanted = reference.drop_tokens(
        config, reference.Observation(visual, *seen), hidden, visual, visual, torch.tensor(38)
    )
    dropped = drop_tokens(config, seen, hidden, visual, 38)
    assert dropped.settled and torch.equal(dropped.kept_index, wanted.kept_index)
    torch.testing.assert_close(dropped.hidden, wanted.hidden)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), tokens=st.integers(1, 30), past=st.integers(0, 5), soft=st.booleans())
def test_the_bias_of_keys_is_the_reference_s_matrix(seed, tokens, past, soft):
    noise = torch.Generator().manual_seed(seed)
    visual, _, all_valid = prompts(2, tokens, past, noise)
    salience = torch.rand(2, tokens, generator=noise).masked_fill(~visual, 0.0)
    if soft:
        bias, matrix = (
            soft_bias(salience, visual, all_valid, 0.5),
            soft_mask(salience, visual, all_valid, 0.5),
        )
    else:
        bias, matrix = causal_bias(visual, all_valid), causal_matrix(all_valid, tokens)
    assert torch.equal(bias.matrix(), matrix)
    rows = torch.randint(0, tokens, (2, 3), generator=noise)
    assert torch.equal(bias.rows(rows)[:, 0], torch.stack([matrix[row, 0, rows[row]] for row in range(2)]))


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_positions_are_those_of_the_chosen(chosen):
    found = positions(torch.tensor([chosen]), sum(chosen))
    assert found[0].tolist() == [place for place, is_chosen in enumerate(chosen) if is_chosen]


@pytest.mark.parametrize("method, score", [("asap", "last"), ("asap", "received"), ("fastv", "last")])
def test_no_value_is_looked_at(method, score):
    """Tensors on the meta device have none: whoever asks for one fails."""
    config = PruningConfig(method, score=score)
    with torch.device("meta"):
        query, key = torch.empty(1, 4, 60, 8), torch.empty(1, 2, 60, 8)
        visual, hidden = torch.empty(1, 60, dtype=torch.bool), torch.empty(1, 60, 32)
        output, seen = attend_and_score(config, query, key, key, visual, 0.3)
        found = drop_tokens(config, seen, hidden, visual, 20, rounds=ROUNDS)
    assert output.shape == query.shape
    assert found.hidden.shape == (1, 20, 32) and found.kept_index.shape == (1, 20)


def test_a_random_choice_is_refused():
    tensor, visual = torch.zeros(1, 1, 4, 8), torch.zeros(1, 4, dtype=torch.bool)
    with pytest.raises(UserError, match="found random; use the reference"):
        attend_and_score(PruningConfig("random"), tensor, tensor, tensor, visual, 1.0)
