"""What one cut did to each visual token of a prompt: its scores under both masks, and its fate.

Read from what the decoder shows of its cut, with the steps of ``pruning/`` themselves; nothing of the method is
written again here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asap_export.model.decoder import Cut
from asap_export.pruning.config import PruningConfig
from asap_export.pruning.consolidation import consolidate, cosines
from asap_export.pruning.cut import observe_attention
from asap_export.pruning.mask import causal_bias
from asap_export.pruning.scores import received_attention, row_weight
from asap_export.pruning.topk import kept_positions

__all__ = ["FATES", "MEASURES", "Fate", "Measure", "Tokens", "tokens_of"]

Fate = Literal["kept", "salvaged", "merged", "dropped"]
FATES: tuple[Fate, ...] = get_args(Fate)

Measure = Literal["causal", "sg_bimask", "last_row", "even_causal", "even_sg_bimask"]
MEASURES: tuple[Measure, ...] = get_args(Measure)


@dataclass(frozen=True)
class Tokens:
    """The N visual tokens of a prompt, in order.

    scores: by measure, [N] float32. ``causal`` and ``sg_bimask`` are the attention that a token receives from all
    visual ones under either mask, whichever the layer has; ``even_...`` is the same if every query were 0, so what
    the mask alone does, and ``last_row`` what the last token of the prompt gives it (FastV's score, which no mask
    changes).
    fate: [N] int8 into ``FATES``; anchor: [N] int64, the token that absorbed each, its own number where none did.
    """

    scores: Mapping[Measure, npt.NDArray[np.float32]]
    fate: npt.NDArray[np.int8]
    anchor: npt.NDArray[np.int64]


def tokens_of(cut: Cut, pruning: PruningConfig) -> Tokens:
    """The visual tokens of a prompt of one sequence, after the cut that ``pruning`` made."""
    visual = cut.visual[0].nonzero()[:, 0]  # [N], positions in the prompt
    number = torch.full_like(cut.visual[0], -1, dtype=torch.int64)
    number[visual] = torch.arange(len(visual))

    chosen = kept_positions(cut.seen.score, cut.visual_mask, cut.new_mask, int(cut.kept_length))[0]
    chosen = chosen[cut.visual[0, chosen]]  # what the top-k chose, before any merging
    absorbed = torch.zeros_like(chosen, dtype=torch.bool)
    anchor = torch.arange(len(visual))
    if pruning.method == "asap" and pruning.merge:
        salience = cut.seen.salience[0, chosen]
        similar = cosines(cut.hidden[0, chosen]) > pruning.threshold
        merged = consolidate(cut.hidden[0, chosen], cut.visual_mask[0, chosen], salience, similar)
        absorbed = merged.absorbed
        anchor[number[chosen]] = number[chosen[merged.anchor]]
    stays = cut.survivors.kept_index[0]
    survives = torch.isin(visual, stays)
    kept = torch.isin(visual, chosen[~absorbed])
    gone = torch.isin(visual, chosen[absorbed])
    # an absorbed token that came back, because too few others were left, is a salvaged one
    fate = np.select(
        [(survives & kept).numpy(), survives.numpy(), gone.numpy()],
        [FATES.index("kept"), FATES.index("salvaged"), FATES.index("merged")],
        FATES.index("dropped"),
    )
    scores = {measure: score[0, visual].float().numpy() for measure, score in _scores(cut, pruning).items()}
    return Tokens(scores, fate.astype(np.int8), anchor.numpy())


def _scores(cut: Cut, pruning: PruningConfig) -> dict[Measure, Tensor]:
    """Every measure for all new tokens, [1, T] float32."""
    past = cut.key.shape[2] - cut.query.shape[2]
    inputs: tuple[Any, ...] = (cut.query, cut.key, cut.visual, cut.attention_mask, cut.scale)
    soft, with_mask = cut.seen, replace(pruning, method="asap", score="received", bidirectional=True)
    if pruning != with_mask or not bool(cut.visual_mask.any()):  # to be compared with, not what decided
        soft = observe_attention(with_mask, *inputs)
    last = observe_attention(replace(pruning, method="fastv"), *inputs)
    causal = causal_bias(cut.attention_mask, cut.query.shape[2])
    weight = row_weight("received", cut.visual, cut.new_mask)

    def received(query: Tensor, key: Tensor, bias: Tensor) -> Tensor:
        return received_attention(query, key, bias, weight, cut.scale)[:, past:]

    one_head = torch.zeros_like(cut.query[:, :1]), torch.zeros_like(cut.key[:, :1])
    return {
        "causal": received(cut.query, cut.key, causal),
        "sg_bimask": soft.score,
        "last_row": last.score,
        "even_causal": received(*one_head, causal),
        "even_sg_bimask": received(*one_head, soft.bias),
    }
