"""Which tokens leave, and how many stay. No torch here: every room reads this file."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from asap_export.argument_types import check_types
from asap_export.errors import UserError
from asap_export.spec import LARGEST, Count, Layers

__all__ = ["DEFAULT_KEEP_RATIO", "Budget", "Method", "PruningConfig", "Score"]

Method = Literal["asap", "fastv", "random", "none"]
Score = Literal["received", "salience", "text", "last"]

# The paper's "640" setting keeps 478 of 2,880 visual tokens after the cut: one in six.
DEFAULT_KEEP_RATIO = 1 / 6


@dataclass(frozen=True)
class PruningConfig:
    """How visual tokens are scored, merged and dropped (docs/method.md).

    ``prune_after`` decoder layers see every token; the last of them is the scoring layer. ``lambda_max`` in
    (0, 1] scales the soft mask of Eq 4, ``threshold`` is the cosine above which a token is absorbed (Eq 6).
    Without ``bidirectional`` the scoring layer has the causal mask instead of SG-BiMask.
    ``trim_early_kv`` also drops the pruned tokens from the KV cache of the layers before the cut. ``seed``
    is read by ``random`` only.
    """

    method: Method = "asap"
    prune_after: Layers = 2
    score: Score = "last"
    lambda_max: Annotated[float, Meta(gt=0, le=1)] = 0.5
    threshold: Annotated[float, Meta(ge=-1, le=1)] = 0.8
    merge: bool = True
    bidirectional: bool = True
    trim_early_kv: bool = True
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] = 0

    def __post_init__(self) -> None:
        check_types(self)
        if self.prune_after < 1:
            raise UserError(
                f"expected prune-after of at least 1 layer, found {self.prune_after}; 2 is the paper's"
            )
        if not 0 < self.lambda_max <= 1:
            raise UserError(f"expected lambda-max in (0, 1], found {self.lambda_max:g}; 0.5 is the default")
        if not -1 <= self.threshold <= 1:
            raise UserError(
                f"expected a cosine threshold in [-1, 1], found {self.threshold:g}; 0.8 is the default"
            )

    @property
    def prunes(self) -> bool:
        return self.method != "none"

    @property
    def weighs_mass(self) -> bool:
        """Whether anything reads the attention mass (Eq 2): the soft mask, merging, or the score."""
        return self.method == "asap" and (self.bidirectional or self.merge or self.score == "salience")


@dataclass(frozen=True)
class Budget:
    """How many visual tokens of a prompt survive the cut; exactly one of the three is set.

    ``keep`` is that number itself, ``ratio`` a part of the prompt's visual tokens, ``layer_average`` the
    paper's way of counting: the mean over all layers, those before the cut included.
    """

    keep: Count | None = None
    ratio: Annotated[float, Meta(gt=0, le=1)] | None = None
    layer_average: Annotated[float, Meta(ge=1, le=LARGEST)] | None = None

    def __post_init__(self) -> None:
        check_types(self)
        if [self.keep, self.ratio, self.layer_average].count(None) != 2:
            raise UserError("expected one of --keep, --keep-ratio and --budget; give only one of them")
        if self.keep is not None and self.keep < 1:
            raise UserError(f"expected --keep of at least 1 visual token, found {self.keep}")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise UserError(f"expected --keep-ratio in (0, 1], found {self.ratio:g}")
        if self.layer_average is not None and not self.layer_average >= 1:
            raise UserError(f"expected --budget of at least 1 visual token, found {self.layer_average:g}")

    def keep_for(self, visual_tokens: int, layers: int, prune_after: int) -> int:
        """Tokens after the cut for a prompt of ``visual_tokens``: at least 1, at most all of them.

        Raises UserError where a layer average is below what the full layers before the cut already take.
        """
        if self.keep is not None:
            wanted: float = self.keep
        elif self.ratio is not None:
            wanted = self.ratio * visual_tokens
        else:
            assert self.layer_average is not None
            wanted = (self.layer_average * layers - prune_after * visual_tokens) / (layers - prune_after)
            if visual_tokens and wanted < 1:
                least = (prune_after * visual_tokens + layers - prune_after) / layers
                raise UserError(
                    f"expected --budget of at least {least:.0f} for {visual_tokens} visual tokens "
                    f"({prune_after} of {layers} layers see all of them), found {self.layer_average:g}; "
                    "raise it or give --keep"
                )
        return max(1, round(min(visual_tokens, wanted)))
