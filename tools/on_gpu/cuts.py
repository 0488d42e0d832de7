"""Cuts to compare on: the golden cases, and random ones up to real size."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from asap_export.pruning.config import PruningConfig

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"


class Size(NamedTuple):
    """Of a random cut."""

    heads: int
    head_dim: int
    text: int
    visual: int
    keep: int


VICUNA_7B, TINY = Size(32, 128, 64, 2880, 478), Size(4, 16, 16, 96, 16)


class CutCase(NamedTuple):
    """What one cut is given, on the host in float32.

    query: [B, H, T, d]; key: [B, Hkv, P+T, d]; hidden: [B, T, D]; visual: [B, T] bool; valid: [B, P+T] bool.
    """

    name: str
    config: PruningConfig
    query: Tensor
    key: Tensor
    hidden: Tensor
    visual: Tensor
    valid: Tensor
    kept_length: int

    @property
    def scale(self) -> float:
        return float(self.query.shape[3] ** -0.5)

    @property
    def new_valid(self) -> Tensor:
        return self.valid[:, self.valid.shape[1] - self.visual.shape[1] :]

    def rounded(self, dtype: torch.dtype) -> "CutCase":
        """The numbers that a device is given in ``dtype``, in float32 again."""
        numbers = {name: getattr(self, name).to(dtype).float() for name in ("query", "key", "hidden")}
        return self._replace(**numbers)

    def on(self, device: torch.device, dtype: torch.dtype) -> "CutCase":
        moved = {name: getattr(self, name).to(device, dtype) for name in ("query", "key", "hidden")}
        return self._replace(**moved, visual=self.visual.to(device), valid=self.valid.to(device))


def golden_cases() -> Iterator[CutCase]:
    """The files of tests/golden; without a checkout's tests there are none."""
    for file in sorted(GOLDEN.glob("*.npz")):
        with np.load(file) as archive:
            arrays = {name: archive[name] for name in archive.files}
        config = json.loads(str(arrays["config"]))
        keep = config.pop("keep")
        query, key, hidden, visual, valid = (
            torch.from_numpy(arrays[f"in_{name}"])[None]
            for name in ("query", "key", "hidden", "visual_mask", "attention_mask")
        )
        kept = int((valid & ~visual).sum()) + min(keep, int(visual.sum()))
        config = PruningConfig(**config)
        yield CutCase(f"golden {file.stem}", config, query, key, hidden, visual, valid, kept)


def random_cases(size: Size) -> Iterator[CutCase]:
    """One prompt of that size under each score; a padded batch with fewer key heads behind a cache."""
    heads, head_dim, text, visual_tokens, keep = size
    for score in ("last", "received"):
        visual = torch.zeros(1, text + visual_tokens, dtype=torch.bool)
        visual[:, text // 2 : text // 2 + visual_tokens] = True
        config = PruningConfig(score=score)  # type: ignore[arg-type]
        name, everyone = f"random, {visual.shape[1]} tokens, {score}", torch.ones_like(visual)
        yield _random(name, config, heads, heads, head_dim, heads * head_dim, visual, everyone, text + keep)
    position = torch.arange(300)
    valid = position >= torch.tensor([0, 41])[:, None]
    visual = (position >= torch.tensor([9, 60])[:, None]) & (position < 290)
    cached = torch.ones(2, 20, dtype=torch.bool)
    for score in ("last", "text", "received"):
        config = PruningConfig(score=score, threshold=0.7)  # type: ignore[arg-type]
        name = f"random, a padded batch behind a cache, {score}"
        yield _random(name, config, 8, 2, 64, 256, visual, torch.cat([cached, valid], dim=1), 90)


def _random(
    name: str,
    config: PruningConfig,
    heads: int,
    kv_heads: int,
    head_dim: int,
    width: int,
    visual: Tensor,
    valid: Tensor,
    kept_length: int,
) -> CutCase:
    noise = torch.Generator().manual_seed(len(name))
    batch, tokens = visual.shape
    query = torch.randn(batch, heads, tokens, head_dim, generator=noise)
    key = torch.randn(batch, kv_heads, valid.shape[1], head_dim, generator=noise)
    kinds = torch.randn(max(4, tokens // 12), width, generator=noise)
    hidden = kinds[torch.randint(0, len(kinds), (batch, tokens), generator=noise)]
    # Near and far from their kind, so that cosines lie on both sides of the threshold.
    apart = 0.9 * torch.rand(batch, tokens, 1, generator=noise)
    hidden = hidden + apart * torch.randn(batch, tokens, width, generator=noise)
    return CutCase(name, config, query, key, hidden, visual, valid, kept_length)
