"""What prompts share is computed once, and each gets what the reference gives it alone."""

from dataclasses import replace

import pytest
import torch
from small_checkpoints import SmallModel, small_model

from asap_export.model.reference import Context, Reference
from asap_export.model.shared import SharedHead, SharedTails
from asap_export.pruning.config import PruningConfig

LLAVA = small_model(SmallModel(language="qwen2"))  # grouped-query attention, biases
WIDTH = LLAVA.config.text_config.hidden_size
TEXT_BEFORE, VISUAL, LENGTHS = 3, 40, (4, 7, 7)

CONFIGS = [
    PruningConfig(method="none"),
    PruningConfig(),
    PruningConfig(threshold=0.3, prune_after=1),
    PruningConfig(score="salience", merge=False),
    PruningConfig(score="text", lambda_max=1.0),
    PruningConfig(score="text", bidirectional=False, trim_early_kv=False),
    PruningConfig(score="last", threshold=0.3),
    PruningConfig(bidirectional=False, merge=False),
    PruningConfig(method="fastv"),
    PruningConfig(method="fastv", prune_after=1, trim_early_kv=False),
]


@pytest.fixture(scope="module")
def prompts() -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """A head [1, T, D] with some text before its visual tokens, which of it are visual, and three tails."""
    generator = torch.Generator().manual_seed(4)
    head = torch.randn(1, TEXT_BEFORE + VISUAL, WIDTH, generator=generator)
    visual = torch.arange(TEXT_BEFORE + VISUAL)[None] >= TEXT_BEFORE
    return head, visual, [torch.randn(1, length, WIDTH, generator=generator) for length in LENGTHS]


@pytest.fixture(scope="module")
def shared(prompts) -> SharedTails:
    """The three prompts; the tails are padded on the left."""
    head, visual, tails = prompts
    padded = [torch.nn.functional.pad(tail, (0, 0, max(LENGTHS) - tail.shape[1], 0)) for tail in tails]
    valid = torch.stack([torch.arange(max(LENGTHS)) >= max(LENGTHS) - length for length in LENGTHS]).long()
    with torch.no_grad():
        return SharedTails(SharedHead(LLAVA, head, visual), torch.cat(padded), valid)


def continued(reference: Reference, logits: torch.Tensor, context: Context) -> torch.Tensor:
    """The logits [B, V] of three further tokens, the same ones for every prompt."""
    found = [logits[:, 0]]
    for token in (5, 6, 7):
        output, context = reference.step(torch.full((len(logits), 1), token), context)
        found.append(output.logits[:, 0])
    return torch.stack(found)


@pytest.mark.parametrize("pruning", CONFIGS, ids=str)
@torch.no_grad()
def test_every_prompt_is_pruned_and_continued_as_if_alone(prompts, shared, pruning):
    head, visual, tails = prompts
    reference = Reference(LLAVA, pruning)
    for keep in (12, VISUAL):
        found = continued(reference, *shared.prefill(pruning, keep))
        for row, tail in enumerate(tails):
            embeds = torch.cat([head, tail], dim=1)
            mask = torch.ones(1, embeds.shape[1], dtype=torch.int64)
            seen = torch.nn.functional.pad(visual, (0, tail.shape[1]))
            output, context = reference.advance(embeds, mask, seen, keep, reference.empty_context(1))
            expected = continued(reference, output.logits, context)
            torch.testing.assert_close(found[:, row], expected[:, 0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_chance_keeps_what_its_seed_says(shared):
    random = PruningConfig(method="random", seed=1)
    logits = [shared.prefill(replace(random, seed=seed), 12)[0] for seed in (1, 1, 2)]
    assert torch.equal(logits[0], logits[1]) and not torch.equal(logits[0], logits[2])
