"""The loop from prompts to tokens: one prefill, then one step per token, for a batch of rows."""

from collections.abc import Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt

from asap_export.bundle import Manifest
from asap_export.errors import UserError
from asap_export.model.anyres import TileGeometry, packing
from asap_export.runtime.cache import Cache, Integers
from asap_export.runtime.graphs import Graphs, StepOutput
from asap_export.runtime.prompt import Prompt
from asap_export.runtime.request import Request, Timings
from asap_export.runtime.sampling import Sampler
from asap_export.spec import ModelSpec

__all__ = [
    "Generation",
    "PrefillPlan",
    "Prefilled",
    "checked_logits",
    "decode",
    "generate",
    "kept_length",
    "left_padded",
    "planned",
    "prefill",
    "tokens",
]

_FILLER = 0  # the id in padding: masked, so any will do that is no image token


@dataclass(frozen=True)
class Generation:
    """Per row: sampled tokens, visual tokens fed and kept, and places in its prompt of all tokens kept.

    ``cache`` holds all but each row's last token; ``timings`` has everything but the preprocessing.
    """

    token_ids: list[list[int]]
    visual_tokens: list[int]
    kept_visual_tokens: list[int]
    kept_index: list[list[int]]
    cache: Cache
    timings: Timings


def generate(
    graphs: Graphs,
    prompts: Sequence[Prompt],
    requests: Sequence[Request],
    cache: Cache | None = None,
) -> Generation:
    """Answer ``prompts``, each as its request says, on top of what is in ``cache``: all that ``tokens`` yields."""
    written = tokens(graphs, prompts, requests, cache)
    while True:
        try:
            next(written)
        except StopIteration as end:
            done: Generation = end.value
            return done


def tokens(
    graphs: Graphs, prompts: Sequence[Prompt], requests: Sequence[Request], cache: Cache | None = None
) -> Generator[tuple[int, int], bool | None, Generation]:
    """Row and token, each as soon as it is sampled; nothing runs before it is asked for the next one.

    A row ends with an end token, its ``max_new_tokens``, or where True is sent back for a token. Raises UserError
    before anything runs where a row is longer than the model or its engine takes.
    """
    ends = graphs.manifest.model.eos_token_ids
    cache = cache or graphs.empty_cache(len(prompts))
    plan = planned(graphs, prompts, requests, cache)
    begun = prefill(graphs, plan, cache)
    step, seconds = begun.step, []
    samplers = [
        Sampler(request.generation(graphs.manifest.generation), request.seed, prompt.context(), ends)
        for prompt, request in zip(prompts, requests, strict=True)
    ]
    written: list[list[int]] = [[] for _ in prompts]
    running = np.ones(len(prompts), bool)
    while True:
        logits = checked_logits(step.logits, graphs.manifest)  # [B, V]
        for row in np.flatnonzero(running).tolist():
            token = samplers[row].next(logits[row])
            written[row].append(token)
            stopped = yield row, token
            running[row] = token not in ends and len(written[row]) < plan.most_new[row] and not stopped
        if not running.any():
            break
        started = perf_counter()
        step = decode(graphs, [row[-1] for row in written], running, step.cache)
        seconds.append(perf_counter() - started)
    timings = Timings(0.0, *begun.seconds, decode=tuple(seconds))
    return Generation(
        written, begun.visual_tokens, begun.kept_visual_tokens, begun.kept_index, step.cache, timings
    )


@dataclass(frozen=True)
class PrefillPlan:
    """What a prefill will feed, checked: prompts of ids [B, T], ``new_mask`` and ``visual_mask`` [B, T], of which
    ``length`` places stay in the cache; ``most_new`` tokens of each row's answer."""

    prompts: Sequence[Prompt]
    input_ids: Integers
    new_mask: Integers
    visual_mask: npt.NDArray[np.bool_]
    length: int
    most_new: list[int]


@dataclass(frozen=True)
class Prefilled:
    """What came of a plan: the first logits and the cache in ``step``; per row the visual tokens fed and kept, and
    the places in its prompt of all that was kept; ``seconds`` of the vision encoder, embedding and decoder."""

    step: StepOutput
    visual_tokens: list[int]
    kept_visual_tokens: list[int]
    kept_index: list[list[int]]
    seconds: tuple[float, float, float]


def _check_ids(input_ids: Integers, spec: ModelSpec) -> None:
    """Raise UserError for an id without an embedding; image tokens need none."""
    outside = (input_ids < 0) | (input_ids >= spec.vocab_size)
    unknown = input_ids[outside & (input_ids != spec.image_token_id)]
    if unknown.size:
        raise UserError(
            f"expected token ids from 0 to {spec.vocab_size - 1}, found {unknown[0]}; "
            "use the bundle's own tokenizer"
        )


def planned(
    graphs: Graphs,
    prompts: Sequence[Prompt],
    requests: Sequence[Request],
    cache: Cache,
    places: int | None = None,
) -> PrefillPlan:
    """The plan for prompts behind a cache of at most ``places``. Raises UserError where one cannot be fed, or is
    too long for the model, its engine or ``places``."""
    if not all(len(prompt.input_ids) for prompt in prompts):
        raise UserError("expected a prompt of at least 1 token, found an empty one; ask something")
    for prompt in prompts:
        _check_ids(prompt.input_ids, graphs.manifest.model)
    input_ids, new_mask = left_padded([prompt.input_ids for prompt in prompts])  # [B, T]
    visual_mask = input_ids == graphs.manifest.model.image_token_id  # [B, T]
    if visual_mask[:, -1].any():  # it could be pruned, and the logits are those of the last position
        raise UserError("expected text after the last image of a prompt, found none; ask something about it")
    keep = _keep(graphs, requests, visual_mask.sum(axis=1).tolist())
    length = kept_length(keep, visual_mask, new_mask)
    most_new = _most_new(graphs, requests, new_mask, length, cache, places)
    return PrefillPlan(prompts, input_ids, new_mask, visual_mask, length, most_new)


def prefill(graphs: Graphs, plan: PrefillPlan, cache: Cache) -> Prefilled:
    """Feed prompts behind the cache that they were planned for. Raises UserError where memory is short."""
    prompts, new_mask, visual_mask = plan.prompts, plan.new_mask, plan.visual_mask
    sizes = [size for prompt in prompts for size in prompt.image_sizes]
    gather_index = packing(sizes, TileGeometry.of(graphs.manifest.model)).gather_index  # [N]
    rows, new = new_mask.shape
    plain = cache.plain(new_mask)
    with graphs.memory.room(rows, new, cache.length, plain) if graphs.memory else nullcontext():
        begin = perf_counter()
        features = graphs.image_features(np.concatenate([p.pixel_values for p in prompts]), gather_index)
        seen = perf_counter()
        embeds = graphs.inputs_embeds(plan.input_ids, features)  # [B, T, D]
        embedded = perf_counter()
        step = graphs.step(embeds, new_mask, visual_mask, plan.length, cache)
        end = perf_counter()
    kept = np.take_along_axis(visual_mask, step.kept_index, axis=1)  # [B, K]
    padding = new_mask.shape[1] - new_mask.sum(axis=1, keepdims=True)  # [B, 1]
    return Prefilled(
        step,
        visual_mask.sum(axis=1).tolist(),
        kept.sum(axis=1).tolist(),
        [[place for place in row if place >= 0] for row in (step.kept_index - padding).tolist()],
        (seen - begin, embedded - seen, end - embedded),
    )


def decode(graphs: Graphs, last: Sequence[int], running: npt.NDArray[np.bool_], cache: Cache) -> StepOutput:
    """One token per row: ``last`` [B], those sampled last. Rows that are not ``running`` [B] are fed padding,
    which counts for nothing in them."""
    input_ids = np.where(running, last, _FILLER).astype(np.int64)[:, None]  # [B, 1]
    no_image = graphs.image_features(np.empty(0, np.float32), np.empty(0, np.int64))
    embeds = graphs.inputs_embeds(input_ids, no_image)
    visual_mask = np.zeros(input_ids.shape, bool)
    return graphs.step(embeds, running.astype(np.int64)[:, None], visual_mask, 1, cache)


def left_padded(rows: Sequence[Integers]) -> tuple[Integers, Integers]:
    """Rows of token ids, [T_b] each, as one [B, T], and its mask [B, T]: 0 for the padding on the left.

    On the left, because the decoder gives the logits of the last position.
    """
    longest = max(len(row) for row in rows)
    ids = np.full((len(rows), longest), _FILLER, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for number, row in enumerate(rows):
        ids[number, longest - len(row) :] = row
        mask[number, longest - len(row) :] = 1
    return ids, mask


def kept_length(keep: int, visual_mask: npt.NDArray[np.bool_], new_mask: Integers) -> int:
    """How many of T new tokens stay after the cut, in every row: ``keep`` visual ones and the most text that
    a row has. All of them where no row has visual tokens.

    visual_mask, new_mask: [B, T].
    """
    if not visual_mask.any():
        return int(new_mask.shape[1])
    text = ((new_mask == 1) & ~visual_mask).sum(axis=1)
    return min(int(new_mask.shape[1]), keep + int(text.max()))


def _keep(graphs: Graphs, requests: Sequence[Request], visual_tokens: Sequence[int]) -> int:
    """Visual tokens to keep: one number for the batch, so the most that any row asks for."""
    manifest = graphs.manifest
    layers, after = manifest.model.layers, manifest.pruning.prune_after
    wanted = [
        (request.own_budget() or manifest.budget).keep_for(count, layers, after)
        for request, count in zip(requests, visual_tokens, strict=True)
    ]
    if not manifest.pruning.prunes and any(
        keep < count for keep, count in zip(wanted, visual_tokens, strict=True)
    ):
        raise UserError(
            f"expected a bundle that prunes, to keep {min(wanted)} visual tokens, found a dense one; leave "
            "--keep, --keep-ratio and --budget out, or export without --dense"
        )
    return max(wanted)


def _most_new(
    graphs: Graphs,
    requests: Sequence[Request],
    new_mask: Integers,
    length: int,
    cache: Cache,
    places: int | None = None,
) -> list[int]:
    """How many new tokens each row may have: what its request says, or what the bundle does where there is room.

    Raises UserError where a row would run beyond the model's positions, or the cache beyond its engine.
    """
    positions, usual = (
        graphs.manifest.model.max_position_embeddings,
        graphs.manifest.generation.max_new_tokens,
    )
    mask = "attention_mask" if cache.early_mask is None else "early_attention_mask"
    fed_now = length if cache.early_mask is None else new_mask.shape[1]
    of_engine = graphs.sessions.decoder.longest(mask, 1)
    longest = of_engine if places is None else min(places, of_engine or places)
    in_cache = None if longest is None else longest - cache.length - fed_now + 1
    most = []
    tokens = new_mask.sum(axis=1)  # [B]
    for fed, count, request in zip(cache.fed.tolist(), tokens.tolist(), requests, strict=True):
        room = positions - fed - count + 1  # the last new token is never fed
        free = room if in_cache is None else min(room, in_cache)
        wanted = request.max_new_tokens or max(1, min(usual, free))
        if wanted > room:
            before = f"{fed} before, " if fed else ""
            remedy = f"lower --max-new-tokens to {room}" if room > 0 else "shorten the prompt"
            raise UserError(
                f"expected at most {positions} tokens, the checkpoint's positions, found {before}{count} of "
                f"the prompt and {wanted} new ones; {remedy}"
            )
        if in_cache is not None and wanted > in_cache:
            raise UserError(
                f"expected at most {longest} tokens in {'a row' if of_engine is None else 'this engine'}'s cache, "
                f"found {cache.length + fed_now} and {wanted} new ones; lower --max-new-tokens, or "
                f"{'serve with more --places' if of_engine is None else 'export with larger limits'}"
            )
        most.append(wanted)
    return most


def checked_logits(logits: npt.NDArray[np.float32], manifest: Manifest) -> npt.NDArray[np.float32]:
    """Logits [B, V] to sample from, without the image token: an answer has no image to put in its place."""
    if np.isnan(logits).any():
        remedy = (
            "export with --dtype bf16 or fp32, whose range is wider"
            if manifest.dtype == "fp16"
            else "compare the checkpoint's weights with their source, and download them again"
        )
        raise UserError(f"expected numbers from the decoder, found NaN; {remedy}")
    image_token_id = manifest.model.image_token_id
    if image_token_id < logits.shape[1]:
        logits[:, image_token_id] = -np.inf
    return logits
