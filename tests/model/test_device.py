"""The device's form of prefill and decode is the reference's, and can be queued without a look at any value."""

import pytest
import torch
from small_checkpoints import SmallModel, small_model

from asap_export.errors import UserError
from asap_export.model.device import DeviceDecoder
from asap_export.model.reference import Reference
from asap_export.pruning.config import PruningConfig
from asap_export.pruning.device.merging import ROUNDS

TEXT_BEFORE, VISUAL, TEXT_AFTER, KEEP = 4, 60, 7, 17
KEPT = KEEP + TEXT_BEFORE + TEXT_AFTER

CONFIGS = {
    "dense": PruningConfig("none"),
    "fastv": PruningConfig("fastv"),
    "asap": PruningConfig(threshold=0.4),
    "asap, received": PruningConfig(score="received", threshold=0.4),
    "asap, text, causal": PruningConfig(score="text", bidirectional=False, threshold=0.4),
    "asap, without merging": PruningConfig(merge=False),
}


def prompt(width, batch=2):
    """Visual tokens of a few kinds, so that some are merged; random text."""
    noise = torch.Generator().manual_seed(1)
    kinds = torch.randn(12, width, generator=noise)
    visual = kinds[torch.randint(0, 12, (batch, VISUAL), generator=noise)]
    visual = visual + 0.2 * torch.randn(visual.shape, generator=noise)
    text = torch.randn(batch, TEXT_BEFORE + TEXT_AFTER, width, generator=noise)
    embeds = torch.cat([text[:, :TEXT_BEFORE], visual, text[:, TEXT_BEFORE:]], dim=1)
    mask = torch.zeros(batch, embeds.shape[1], dtype=torch.bool)
    mask[:, TEXT_BEFORE : TEXT_BEFORE + VISUAL] = True
    return embeds, mask


@pytest.mark.parametrize("backbone", ["llama", "qwen2"])
@pytest.mark.parametrize("pruning", CONFIGS.values(), ids=CONFIGS)
def test_prefill_and_steps_are_the_reference_s(backbone, pruning):
    llava = small_model(SmallModel("llava_next", backbone))
    embeds, visual = prompt(llava.config.text_config.hidden_size)
    reference = Reference(llava, pruning)
    expected, context = reference.advance(
        embeds, torch.ones(visual.shape, dtype=torch.int64), visual, KEEP, reference.empty_context(2)
    )

    decoder = DeviceDecoder(llava, pruning)
    kept = KEPT if pruning.prunes else embeds.shape[1]
    cache = decoder.cache(kept, new_tokens=3)
    found = decoder.prefill(embeds, visual, kept, cache)

    assert found.settled
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.kept_index, expected.kept_index)
    for token in torch.tensor([[[5], [9]], [[7], [7]], [[1], [2]]]):
        expected, context = reference.step(token, context)
        logits = decoder.step(reference.embedding.embed_tokens(token), cache)
        torch.testing.assert_close(logits, expected.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["fastv", "asap", "asap, received"])
def test_a_prefill_that_keeps_all_is_the_dense_one(name):
    llava = small_model(SmallModel("llava_next", "llama"))
    embeds, visual = prompt(llava.config.text_config.hidden_size)
    outputs = []
    for pruning in (CONFIGS["dense"], CONFIGS[name]):
        decoder = DeviceDecoder(llava, pruning)
        cache = decoder.cache(embeds.shape[1], new_tokens=1)
        found = decoder.prefill(embeds, visual, embeds.shape[1], cache)
        outputs.append((found.logits, found.kept_index, decoder.step(embeds[:, :1], cache)))
    for dense, kept in zip(*outputs, strict=True):
        assert torch.equal(dense, kept)


@pytest.mark.parametrize("name", ["dense", "fastv", "asap", "asap, received"])
def test_nothing_is_looked_at_and_nothing_comes_from_the_host(name):
    """Tensors on the meta device have no values, and no operation takes them together with tensors of the host."""
    pruning = CONFIGS[name]
    with torch.device("meta"):
        llava = small_model(SmallModel("llava_next", "llama"))
        embeds = torch.empty(1, TEXT_BEFORE + VISUAL + TEXT_AFTER, llava.config.text_config.hidden_size)
        visual = torch.empty(embeds.shape[:2], dtype=torch.bool)
    decoder = DeviceDecoder(llava, pruning)
    kept = KEPT if pruning.prunes else embeds.shape[1]
    cache = decoder.cache(kept, new_tokens=1)
    found = decoder.prefill(embeds, visual, kept, cache, ROUNDS)
    step = decoder.step(embeds[:, :1], cache)
    assert found.logits.device.type == step.device.type == "meta"
    assert found.kept_index.shape == (1, kept)


@pytest.mark.parametrize("pruning", [PruningConfig("random"), PruningConfig(trim_early_kv=False)])
def test_what_only_the_reference_does_is_refused(pruning):
    with pytest.raises(UserError, match="use the reference"):
        DeviceDecoder(small_model(SmallModel("llava_next", "llama")), pruning)
