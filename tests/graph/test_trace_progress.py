"""Tracing says which layer it is at: it takes most of an export."""

from pathlib import Path

import torch

from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.graph.skeleton import weightless_model
from asap_export.graph.trace import trace, vision_plan


def test_every_layer_is_told_once_and_no_hook_stays(random_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(random_checkpoint)
    llava = weightless_model(checkpoint.config, torch.float32)
    plan = vision_plan(llava, checkpoint.spec, torch.float32)
    told: list[tuple[int, int]] = []
    trace(plan, lambda done, total: told.append((done, total)))
    assert checkpoint.config.vision_config.num_hidden_layers > 2
    assert told == [(1, 2), (2, 2)]  # of layers that are alike, two show all that there is to see
    assert not any(module._forward_hooks for module in plan.module.modules())
