"""How large a request may be: what suits a checkpoint, and what cannot be met, said before the work starts."""

import math

from asap_export.bundle import Limits
from asap_export.errors import UserError
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.spec import ModelSpec

__all__ = [
    "LONGEST_SEQUENCE",
    "USUAL",
    "check_limits",
    "default_limits",
    "largest_cache",
    "largest_kept",
    "sequence_limit",
]

LONGEST_SEQUENCE = 120 * 1024  # new tokens; of more, SelectLargest would ask TensorRT's TopK for over 3,840

# With a Loop in the graph, TensorRT-RTX 1.7 crashes where a step's keys and the head size add up to more.
_STEP_AND_HEAD = 24 * 1024

# One prompt with one image of any size.
USUAL = Limits(max_batch=1, max_images=1, max_text=512, max_new_tokens=512)
_ROOM = 512  # tokens that a text, or an answer, should have

_FLAGS = {
    "max_batch": "--max-batch",
    "max_images": "--max-images",
    "max_text": "--max-text",
    "max_new_tokens": "--max-new-tokens",
}


def default_limits(
    spec: ModelSpec,
    usual: Limits = USUAL,
    *,
    max_batch: int | None = None,
    max_images: int | None = None,
    max_text: int | None = None,
    max_new_tokens: int | None = None,
) -> Limits:
    """The ``usual`` limits, as far as the positions hold them: text and answer share what images leave.

    Limits that are given stand as they are, and the others make room for them; images do where 512 tokens of
    text or of an answer would not fit.
    """
    text, answer = max_text or min(_ROOM, usual.max_text), max_new_tokens or min(_ROOM, usual.max_new_tokens)
    images = usual.max_images if max_images is None else max_images
    while max_images is None and images > 1 and _free(spec, images) < text + answer:
        images -= 1
    free = _free(spec, images)
    if max_new_tokens is None:
        room = max(free - usual.max_text, free // 2) if max_text is None else free - max_text
        max_new_tokens = max(1, min(usual.max_new_tokens, room))
    if max_text is None:
        max_text = max(1, min(usual.max_text, free - max_new_tokens))
    return Limits(usual.max_batch if max_batch is None else max_batch, images, max_text, max_new_tokens)


def _free(spec: ModelSpec, images: int) -> int:
    return spec.max_position_embeddings - images * spec.max_visual_tokens


def sequence_limit(limits: Limits, spec: ModelSpec) -> int:
    """Tokens of the longest prompt, or later turn, of one row."""
    return limits.max_images * spec.max_visual_tokens + limits.max_text


def largest_cache(spec: ModelSpec, pruning: PruningConfig) -> int:
    """Tokens in the cache that a step of an engine takes, at most."""
    positions = spec.max_position_embeddings - 1
    return min(positions, _STEP_AND_HEAD - spec.head_dim - 1) if pruning.prunes else positions


def largest_kept(limits: Limits, spec: ModelSpec, pruning: PruningConfig, budget: Budget) -> int:
    """Tokens that survive the cut under the bundle's own budget, at most, the text included.

    Raises UserError where the budget cannot be met with the most visual tokens.
    """
    visual = limits.max_images * spec.max_visual_tokens
    if not pruning.prunes:
        return visual + limits.max_text
    # Of a layer average most is kept where a prompt has about that many visual tokens: none are cut.
    average = budget.layer_average or visual
    counts = {visual, min(visual, math.floor(average)), min(visual, math.ceil(average))}
    return max(budget.keep_for(count, spec.layers, pruning.prune_after) for count in counts) + limits.max_text


def check_limits(
    limits: Limits, spec: ModelSpec, pruning: PruningConfig, budget: Budget, *, with_engines: bool
) -> None:
    """Raise UserError where a limit is below 1, the longest request does not fit the model's positions, or,
    ``with_engines``, is more than TensorRT takes, or the budget cannot be met."""
    for name, flag in _FLAGS.items():
        if getattr(limits, name) < 1:
            raise UserError(f"expected {flag} of at least 1, found {getattr(limits, name)}")
    visual = limits.max_images * spec.max_visual_tokens
    wanted = visual + limits.max_text + limits.max_new_tokens
    if wanted > spec.max_position_embeddings:
        raise UserError(
            f"expected limits within the model's {spec.max_position_embeddings} positions, found {wanted}: "
            f"{limits.max_images} x {spec.max_visual_tokens} visual tokens, {limits.max_text} of text and "
            f"{limits.max_new_tokens} new ones; lower --max-images, --max-text or --max-new-tokens"
        )
    kept = largest_kept(limits, spec, pruning, budget)
    if with_engines and pruning.prunes:
        _check_engine(limits, spec, pruning, kept)


def _check_engine(limits: Limits, spec: ModelSpec, pruning: PruningConfig, kept: int) -> None:
    longest = sequence_limit(limits, spec)
    if longest > LONGEST_SEQUENCE:
        raise UserError(
            f"expected prompts of at most {LONGEST_SEQUENCE} tokens with --engine trt (TensorRT's TopK chooses "
            f"from no more), found {longest}: {longest - limits.max_text} visual ones and --max-text "
            f"{limits.max_text}; lower --max-images or --max-text"
        )
    room = largest_cache(spec, pruning)
    cached = (kept if pruning.trim_early_kv else longest) + limits.max_new_tokens - 1
    if cached > room:
        raise UserError(
            f"expected a prompt to leave at most {room} tokens in the cache with --engine trt, found {cached} "
            f"with --max-text {limits.max_text} and --max-new-tokens {limits.max_new_tokens}; "
            f"lower --keep (or its ratio or budget), --max-images, --max-text or --max-new-tokens"
        )
