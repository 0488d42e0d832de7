"""What a decoder's graph says of itself, and what its layers attend under."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from asap_export.graph.lay_open import OpenedNode
from asap_export.parity.cut_checks import ROLES, expected_nodes
from asap_export.parity.forms import DecoderForm
from asap_export.parity.recording import Array, DecoderRun, to_array, to_tensor
from asap_export.parity.verdict import Check, Verdict, equal
from asap_export.pruning.config import PruningConfig
from asap_export.pruning.mask import causal_bias, causal_mask
from asap_export.spec import ModelSpec

__all__ = ["check_masks", "check_structure"]

_ALL = "the graph"  # in the place of a case


def check_structure(
    form: DecoderForm, pruning: PruningConfig, model: ModelSpec, scale: float
) -> Iterator[Check]:
    """The pruning nodes, once each; the layers in their order; the soft mask on the scoring layer alone; and all
    settings. ``scale`` is that of attention logits. Nothing of what was not laid open."""
    if form.graph is None:
        return

    def check(name: str, found: object, expected: object) -> Check:
        detail = "" if found == expected else f"found {found}, expected {expected}"
        verdict: Verdict = "FAIL" if detail else "PASS"
        return Check("graphs", _ALL, name, verdict, detail=detail, form=form.name)

    pruned, attention = form.opened.pruning, form.opened.attention
    roles = [ROLES.get(node.kind, node.kind) for node in pruned if node.kind != "LastRowBias"]
    yield check("pruning nodes", sorted(roles), sorted(expected_nodes(pruning)))
    yield check("layers", [node.layer for node in attention], list(range(model.layers)))
    soft = [node.layer for node in attention if node.kind == "SoftMaskedAttention"]
    if soft:
        yield check("soft mask", soft, [pruning.prune_after - 1])
    expected = {
        "lambda_max": pruning.lambda_max,
        "threshold": pruning.threshold,
        "scale": scale,
        "heads": model.heads,
        "kv_heads": model.kv_heads,
        "softcap": 0.0,
        "is_causal": 0,
    }
    settings = {
        f"{name} of {ROLES.get(node.kind, node.kind)}": (value, float(np.float32(expected[name])))
        for node in (*pruned, *attention)
        for name, value in node.attributes.items()
        if name in expected
    }
    other = {name: found for name, (found, wanted) in settings.items() if not np.isclose(found, wanted, 1e-6)}
    yield check("settings", other, {})


@dataclass(frozen=True)
class _Stage:
    """What layers before or behind the cut see: valid [B, S] bool, of which the last T are new."""

    valid: Tensor
    tokens: int

    @cached_property
    def mask(self) -> Array:
        """[B, 1, T, S] bool, made once for all layers."""
        return to_array(causal_mask(self.valid, self.tokens))


def check_masks(
    case: str,
    form: DecoderForm,
    run: DecoderRun,
    pruning: PruningConfig,
    dtype: torch.dtype,
) -> list[Check]:
    """The masks that layers attend under, those that are shared once. They follow from what the run was given and
    which tokens it kept."""
    mask = to_tensor(run.given["attention_mask"]).bool()
    early_mask = to_tensor(run.given.get("early_attention_mask", run.given["attention_mask"])).bool()
    tokens = run.given["inputs_embeds"].shape[1]
    past, new = mask[:, :-tokens], mask[:, -tokens:]
    early = _Stage(early_mask, tokens)
    late = early
    if pruning.prunes:
        kept = to_tensor(run.gave["kept_index"]).clamp(0, tokens - 1)
        late = _Stage(torch.cat([past, new.gather(1, kept)], dim=1), kept.shape[1])
    arrays = {**run.given, **run.told}
    checks: dict[tuple[object, ...], Check] = {}
    for number, node in enumerate(form.opened.attention):
        is_late = pruning.prunes and number >= pruning.prune_after
        scores = pruning.prunes and number == pruning.prune_after - 1
        key = *node.places.values(), is_late, scores
        if key in checks:
            continue
        if scores and node.kind == "Attention":
            found = _scoring_mask(case, form, node, arrays, pruning, dtype, early)
        else:
            found = _layer_mask(
                f"mask of layer {number}", case, form, node, arrays, late if is_late else early
            )
        checks[key] = found
    return list(checks.values())


def _scoring_mask(
    case: str,
    form: DecoderForm,
    node: OpenedNode,
    arrays: dict[str, Array],
    pruning: PruningConfig,
    dtype: torch.dtype,
    stage: _Stage,
) -> Check:
    """The bias that AsapMask gave, rounded to the graph's type; or the causal one."""
    expected = causal_bias(stage.valid, stage.tokens)
    source = next((node for node in form.opened.pruning if node.kind == "AsapMask"), None)
    if pruning.method == "asap" and pruning.bidirectional and source is not None:
        bias = source.values(arrays)["bias"]
        expected = to_tensor(bias) if bias.size else expected
    found = arrays[node.places["mask"]]
    rounded = to_array(expected.to(dtype).float())
    return equal("graphs", case, "mask of the scoring layer", found.astype(np.float32), rounded, form.name)


def _layer_mask(
    name: str, case: str, form: DecoderForm, node: OpenedNode, arrays: dict[str, Array], stage: _Stage
) -> Check:
    """A causal mask; or, where it is not made, that it need not be, and the lengths that stand for it."""
    values = node.values(arrays)
    if "plain" not in values:
        return equal("graphs", case, name, values["mask"], stage.mask, form.name)
    rows, total = stage.valid.shape
    kind = rows == 1 or total == stage.tokens or stage.tokens == 1
    plain = kind and bool(stage.valid.all())
    found = [values["plain"].ravel(), values["total"].ravel(), values["last"].ravel()]
    wanted = [np.array([plain]), np.array([total]), np.full(rows, total - 1)]
    if not plain:
        found.append(values["mask"].ravel())
        wanted.append(stage.mask.ravel())
    ours, theirs = (np.concatenate([part.astype(np.int64) for part in parts]) for parts in (found, wanted))
    return equal("graphs", case, name, ours, theirs, form.name)
