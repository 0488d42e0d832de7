"""Merging, which looks at all tokens at once, is the method's greedy absorption, written out here as a loop."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asap_export.pruning.consolidation import consolidate, cosines, merge_kept


def greedy(hidden, visual, salience, similar):
    """One token after the other: merged states in float64, and the anchor of each token."""
    state, weight, anchor = hidden.double(), salience.tolist(), list(range(len(hidden)))
    merged, taken = state.clone(), [not is_visual for is_visual in visual.tolist()]
    for token in sorted(range(len(hidden)), key=lambda token: (-weight[token], token)):
        if taken[token]:
            continue
        taken[token] = True
        group = [other for other in range(len(hidden)) if similar[token, other] and not taken[other]]
        for other in group:
            taken[other], anchor[other] = True, token
        total = weight[token] + sum(weight[other] for other in group)
        if group and total > 0:
            merged[token] = sum(weight[other] * state[other] for other in [token, *group]) / total
    return merged.float(), torch.tensor(anchor, dtype=torch.int64)


def check(hidden, visual, salience, similar):
    found = consolidate(hidden, visual, salience, similar)
    merged, anchor = greedy(hidden, visual, salience, similar)
    assert torch.equal(found.anchor, anchor)
    assert torch.equal(found.absorbed, anchor != torch.arange(len(anchor)))
    torch.testing.assert_close(found.hidden, merged, rtol=1e-5, atol=1e-6)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**31), tokens=st.integers(0, 40), levels=st.sampled_from([1, 2, 4, 1000]),
    rank=st.integers(1, 6), threshold=st.sampled_from([-0.5, 0.1, 0.5, 0.9]),
)  # fmt: skip
def test_any_tokens(seed, tokens, levels, rank, threshold):
    """Few directions, so that similar tokens are common; few levels of salience, so that ties and zeros are."""
    noise = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, rank, generator=noise) @ torch.randn(rank, 16, generator=noise)
    salience = torch.randint(0, levels, (tokens,), generator=noise) / levels
    visual = torch.rand(tokens, generator=noise) < 0.8
    check(hidden, visual, salience, cosines(hidden) > threshold)


def test_a_chain_settles_one_token_a_round():
    """Each token is similar to its neighbours only, and salience falls along the chain: nothing settles early."""
    hidden = torch.eye(40) + 0.9 * torch.eye(40).roll(1, dims=1)
    hidden[39, 0] = 0.0  # a chain, not a ring
    salience, visual = torch.linspace(1, 0.1, 40), torch.ones(40, dtype=torch.bool)
    similar = cosines(hidden) > 0.4
    check(hidden, visual, salience, similar)
    assert consolidate(hidden, visual, salience, similar).absorbed.tolist() == [False, True] * 20


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), levels=st.integers(1, 4), kept=st.integers(1, 24))
def test_places_of_absorbed_tokens_go_to_the_largest_mass_and_of_equals_to_the_first(seed, levels, kept):
    noise = torch.Generator().manual_seed(seed)
    hidden = torch.randint(-1, 2, (2, 24, 4), generator=noise).float() + 0.25
    salience, mass = (torch.randint(0, levels, (2, 2, 24), generator=noise) / 4).unbind()
    visual = torch.rand(2, 24, generator=noise) < 0.8
    index = torch.rand(2, 24, generator=noise).argsort(dim=1)[:, :kept].sort(dim=1).values

    found, positions, absorbed = merge_kept(hidden, index, visual, salience, mass, 0.6)

    for row in range(2):
        kept_here = index[row]
        similar = cosines(hidden[row, kept_here]) > 0.6
        merged, anchor = greedy(
            hidden[row, kept_here], visual[row, kept_here], salience[row, kept_here], similar
        )
        gone = anchor != torch.arange(kept)
        assert torch.equal(absorbed[row], gone)
        state = dict(zip(kept_here[~gone].tolist(), merged[~gone], strict=True))
        left = set(kept_here[gone].tolist())
        pool = set(visual[row].nonzero()[:, 0].tolist()) - set(kept_here.tolist())
        for group in (pool, left):  # the absorbed come back last
            for token in sorted(group, key=lambda token: (-mass[row, token], token)):
                if len(state) < kept:
                    state[token] = hidden[row, token]
        assert positions[row].tolist() == sorted(state)
        torch.testing.assert_close(found[row], torch.stack([state[token] for token in sorted(state)]))
