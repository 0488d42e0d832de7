"""What is measured, and where: Vicuna 7B's shape on a GPU, or a small one in a rehearsal."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml

from asap_export.pruning.config import PruningConfig
from asap_export.pruning.flops import DecoderShape, whole_sequence_flops

PRESETS = Path(__file__).parents[2] / "engines" / "presets"
LIKE = "llava-v1.6-vicuna-7b"
TINY = DecoderShape(
    layers=3, hidden_size=64, intermediate_size=96, heads=4, kv_heads=2, head_dim=16, vocab_size=256
)


@dataclass(frozen=True)
class Setting:
    """A model's shape and a prompt's: text, visual tokens, text; ``keep`` visual tokens survive the cut."""

    device: torch.device
    dtype: torch.dtype
    like: str
    shape: DecoderShape
    before: int
    visual: int
    after: int
    keep: int
    rounds: int
    bundle: Path | None

    @property
    def rehearsal(self) -> bool:
        return self.device.type == "cpu"

    @property
    def text(self) -> int:
        return self.before + self.after

    @property
    def tokens(self) -> int:
        return self.text + self.visual

    def kept_length(self, pruning: PruningConfig) -> int:
        return self.text + self.keep if pruning.prunes else self.tokens

    @property
    def flops_ratio(self) -> float:
        """Of a pruned prefill to a dense one, the whole sequence counted."""
        depth = PruningConfig().prune_after
        pruned, dense = (
            whole_sequence_flops(self.shape, self.visual, self.text, keep, depth)
            for keep in (self.keep, self.visual)
        )
        return pruned / dense


def setting_for(rehearse: bool, layers: int | None, rounds: int, bundle: Path | None) -> Setting:
    """A rehearsal's, or the one that counts: 2,880 visual tokens of which 478 are kept, 64 of text."""
    if rehearse:
        cpu = torch.device("cpu")
        tiny = replace(TINY, layers=layers or TINY.layers)
        return Setting(cpu, torch.float32, "no public model", tiny, 4, 96, 12, 16, rounds, bundle)
    content = yaml.safe_load((PRESETS / f"{LIKE}.yaml").read_text(encoding="utf-8"))
    shape = DecoderShape(**content["decoder"])
    shape = replace(shape, layers=layers or shape.layers)
    cuda = torch.device("cuda", torch.cuda.current_device())
    return Setting(cuda, torch.bfloat16, LIKE, shape, 32, 2880, 32, 478, rounds, bundle)
