"""A cut laid open: what came into it, whether its own numbers lead to what it chose, and what differs from
PyTorch.

A kept set that is not PyTorch's is explained where all that came in agrees within rounding, and the reference,
replayed with the graph's own numbers, makes the same choice. Then it is a near tie. Else something fails.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from asap_export.graph.lay_open import OpenedNode
from asap_export.graph.operators import OPERATORS
from asap_export.model.decoder import Cut
from asap_export.parity.forms import DecoderForm
from asap_export.parity.recording import Array, DecoderRun, to_array, to_tensor
from asap_export.parity.replay import replay_merge, replay_topk
from asap_export.parity.selection import decision_margins
from asap_export.parity.verdict import Check, Verdict, compare, equal
from asap_export.pruning import operators
from asap_export.pruning.config import PruningConfig
from asap_export.pruning.cut import Survivors, criterion, take_tokens
from asap_export.pruning.mask import soft_mask
from asap_export.pruning.salience import attention_mass, normalised_salience
from asap_export.pruning.scores import cut_weight, last_valid_row

__all__ = ["ROLES", "CutChecks", "Past", "expected_nodes"]

# A node and its replay are given the same numbers and both compute in float32: only the order of additions
# differs, and where the result is rounded to fewer bits, it may fall to the other side.
_OPERATOR = 1e-4
# What is computed for each element by itself has no order of additions.
_ELEMENT = 1e-6

# What stands in an operator's place in the decoder for the CPU.
ROLES = {
    "SoftMaskedAttention": "AsapMask",
    "LastRowScore": "AsapScore",
    "ScoreInBlocks": "AsapScore",
}


def expected_nodes(pruning: PruningConfig) -> tuple[str, ...]:
    """The operators that a decoder with this configuration holds, once each."""
    if not pruning.prunes:
        return ()
    present = {
        "AsapMask": pruning.weighs_mass,
        "AsapScore": criterion(pruning) in ("received", "text", "last"),
        "AsapTopK": True,
        "AsapMerge": pruning.method == "asap" and pruning.merge,
    }
    return tuple(name for name in OPERATORS if present[name])


class Past(NamedTuple):
    """The scoring layer's cache, [B, Hkv, P, d] each."""

    key: Tensor
    value: Tensor


class CutChecks:
    """Compares cuts of graphs of ``dtype`` with the reference's; ``limit``: see ``verdict.tolerance``."""

    def __init__(self, pruning: PruningConfig, dtype: torch.dtype, limit: float) -> None:
        self._pruning, self._dtype, self._limit = pruning, dtype, limit

    def survivors(self, form: DecoderForm, run: DecoderRun, cut: Cut) -> Survivors | None:
        """What a graph says is left behind its cut; None where that is of no shape to go on from."""
        index = to_tensor(run.gave["kept_index"])
        batch, tokens, width = cut.hidden.shape
        if index.shape != (batch, int(cut.kept_length)) or not bool(((index >= 0) & (index < tokens)).all()):
            return None
        merge = _values(form, run).get("AsapMerge")
        if form.merged is not None:
            hidden = to_tensor(run.told[form.merged])
        elif merge is not None and merge.values["merged"].numel():
            hidden = merge.values["merged"]
        else:  # told nothing: as PyTorch merges them
            own = cut.survivors
            places = own.kept_index[:, :, None].expand_as(own.hidden)
            hidden = take_tokens(cut.hidden.scatter(1, places, own.hidden), index)
        return Survivors(hidden, index) if hidden.shape == (*index.shape, width) else None

    def of(self, case: str, form: DecoderForm, run: DecoderRun, cut: Cut, past: Past) -> list[Check]:
        """All that is to be said of one cut; ``cut`` is the reference's, of the same new tokens."""
        found = _Cut(self._pruning, self._dtype, self._limit, case, form.name, cut, past)
        if not form.opened.pruning:
            return [found.choice(run, is_open=False)]
        if form.opened.cuts is not None and not bool(run.told[form.opened.cuts]):
            return list(found.nothing(run))
        try:
            return [*found.checks(_values(form, run), run), found.choice(run)]
        except (RuntimeError, IndexError, ValueError, KeyError) as error:
            detail = " ".join(str(error).split())
            return [Check("cut", case, "replay", "FAIL", detail=detail, form=form.name)]


class _Node(NamedTuple):
    """A node that was laid open: its kind, and its inputs and outputs by name, floats as float32."""

    kind: str
    values: Mapping[str, Tensor]


def _values(form: DecoderForm, run: DecoderRun) -> dict[str, _Node]:
    """The pruning nodes of a run by what they stand for."""
    arrays = {**run.given, **run.gave, **run.told}

    def opened(node: OpenedNode) -> _Node:
        return _Node(node.kind, {name: to_tensor(value) for name, value in node.values(arrays).items()})

    return {ROLES.get(node.kind, node.kind): opened(node) for node in form.opened.pruning}


class _Cut(NamedTuple):
    """One cut of one form."""

    pruning: PruningConfig
    dtype: torch.dtype
    limit: float
    case: str
    form: str
    cut: Cut
    past: Past

    def checks(self, nodes: Mapping[str, _Node], run: DecoderRun) -> Iterator[Check]:
        """Node after node: what it was given, and what it made of that."""
        if "AsapMask" in nodes:
            yield from self._mask(nodes["AsapMask"])
        if "AsapScore" in nodes:
            yield from self._score(nodes["AsapScore"], nodes.get("AsapMask"))
        yield from self._topk(nodes["AsapTopK"], nodes)
        if "AsapMerge" in nodes:
            yield from self._merge(nodes["AsapMerge"], nodes)
        last = (
            nodes["AsapMerge"].values["kept_index"]
            if "AsapMerge" in nodes
            else nodes["AsapTopK"].values["index"]
        )
        yield self._same("kept_index", to_tensor(run.gave["kept_index"]), last)

    def nothing(self, run: DecoderRun) -> Iterator[Check]:
        """Where a graph did not run its cut: nothing may have been to be cut, and everything stays."""
        tokens = self.cut.hidden.shape[1]
        yield self._same("kept_length", self.cut.kept_length, torch.tensor(tokens))
        everything = torch.arange(tokens).expand(len(self.cut.hidden), -1)
        yield self._same("kept_index", to_tensor(run.gave["kept_index"]), everything)

    def choice(self, run: DecoderRun, is_open: bool = True) -> Check:
        """How much of the kept set is PyTorch's own. Another one is a near tie; where nothing was laid open, only
        if some margin of PyTorch's choice is within rounding."""
        visual, expected = to_array(self.cut.visual), to_array(self.cut.survivors.kept_index)
        found = run.gave["kept_index"]
        if found.shape != expected.shape:
            detail = f"kept {list(found.shape)} tokens, expected {list(expected.shape)}"
            return Check("cut", self.case, "kept_index", "FAIL", detail=detail, form=self.form)
        ours, theirs = (_kept_visual(visual, index) for index in (found, expected))
        overlap = float((ours & theirs).sum() / max(1, theirs.sum()))
        differs = not np.array_equal(found, expected)
        detail = f"{overlap:.1%} of {int(theirs.sum())} kept visual tokens are PyTorch's"
        verdict: Verdict = "PASS"
        if differs and not is_open:
            margins = decision_margins(self.cut, self.pruning)
            verdict = "PASS" if margins.smallest <= self.limit else "FAIL"
            detail += f"; not laid open, {margins}"
        return Check("cut", self.case, "kept_index", verdict, 1 - overlap, detail=detail, form=self.form,
                     near_tie=differs and verdict == "PASS")  # fmt: skip

    def _mask(self, node: _Node) -> Iterator[Check]:
        """AsapMask, or the whole attention layer that stands in its place."""
        values, cut, visual = node.values, self.cut, self.cut.visual_mask
        query, key = self._query(node), self._key(node)
        yield self._near("AsapMask.query", query, cut.query)
        yield self._near("AsapMask.key", key, cut.key)
        yield self._same("AsapMask.visual_mask", values["visual_mask"], visual)
        yield self._same("AsapMask.attention_mask", values["attention_mask"], cut.attention_mask)
        mass = attention_mass(query, key[:, :, self._cached :], visual, cut.scale)
        yield self._made("AsapMask.mass", values["mass"][visual], mass[visual])
        salience = normalised_salience(values["mass"], visual)
        yield self._made("AsapMask.salience", values["salience"][visual], salience[visual], _ELEMENT)
        bias = soft_mask(values["salience"], visual, cut.attention_mask, self.pruning.lambda_max)
        if "bias" in values:
            # A logarithm: where it is near its floor, one rounding of a salience near 0 is a large step of it, and
            # nothing of the weight that an attention is multiplied with.
            yield self._made("AsapMask.bias", values["bias"].exp(), bias.exp(), _ELEMENT)
        if "output" in values:
            value = torch.cat([self.past.value, _heads(values["value"], self.past.value.shape[1])], dim=2)
            given = [part.to(self.dtype).float() for part in (query, key, value)]
            mask, grouped = bias.to(self.dtype).float(), query.shape[1] != key.shape[1]
            attended = torch.nn.functional.scaled_dot_product_attention(
                given[0], given[1], given[2], mask, scale=cut.scale, enable_gqa=grouped
            )
            rows = attended.transpose(1, 2).flatten(2)
            limit = _OPERATOR + 4 * torch.finfo(self.dtype).eps  # scores, probabilities, products, sums
            valid = cut.new_mask
            yield self._made("SoftMaskedAttention.output", values["output"][valid], rows[valid], limit)

    def _score(self, node: _Node, mask: _Node | None) -> Iterator[Check]:
        """AsapScore, or what stands in its place; of the score ``last`` it is given one row."""
        values, cut, chosen = node.values, self.cut, criterion(self.pruning)
        soft = self.pruning.method == "asap" and self.pruning.bidirectional
        query = values["query"]
        yield self._near("AsapScore.query", query, self._rows(cut.query))
        yield self._near("AsapScore.key", values["key"], cut.key)
        if mask is not None:
            yield self._same("AsapScore.query is AsapMask's", query, self._rows(self._query(mask)))
            yield self._same("AsapScore.key is AsapMask's", values["key"], self._key(mask))
        weight = cut_weight(chosen, cut.visual_mask, cut.new_mask)
        weight = weight if chosen != "last" else take_tokens(weight, last_valid_row(cut.new_mask)[:, None])
        yield self._made("AsapScore.row_weight", values["row_weight"], weight)
        if "bias" in values:
            bias = values["bias"]
            whole = (
                mask.values["bias"] if mask is not None and soft and "bias" in mask.values else cut.seen.bias
            )
            yield self._same("AsapScore.bias", bias, self._rows(whole))
        else:
            yield self._same("AsapScore.visual_mask", values["visual_mask"], cut.visual_mask)
            yield self._same("AsapScore.attention_mask", values["attention_mask"], cut.attention_mask)
            inputs = query, values["key"], cut.visual_mask, cut.attention_mask
            bias = operators.mask(*inputs, self.pruning.lambda_max, cut.scale)[0]
        received = operators.score(query, values["key"], bias, values["row_weight"], cut.scale)
        yield self._made("AsapScore.score", values["score"], received)

    def _topk(self, node: _Node, nodes: Mapping[str, _Node]) -> Iterator[Check]:
        values, cut, visual = node.values, self.cut, self.cut.visual_mask
        if "AsapScore" in nodes:
            score = nodes["AsapScore"].values["score"][:, self._cached :]
        else:
            score = nodes["AsapMask"].values["mass"]
        yield self._same("AsapTopK.score", values["score"][visual], score[visual])
        yield self._same("AsapTopK.visual_mask", values["visual_mask"], visual)
        yield self._same("AsapTopK.attention_mask", values["attention_mask"], cut.new_mask)
        yield self._same("AsapTopK.kept_length", values["kept_length"], cut.kept_length)
        yield self._replayed("AsapTopK.index", values["index"], replay_topk(values))

    def _merge(self, node: _Node, nodes: Mapping[str, _Node]) -> Iterator[Check]:
        cut, visual, valid = self.cut, self.cut.visual_mask, self.cut.new_mask
        values = {**node.values, "hidden": node.values["hidden"].to(self.dtype)}
        mask = nodes["AsapMask"].values
        yield self._near("AsapMerge.hidden", node.values["hidden"][valid], cut.hidden[valid])
        yield self._same("AsapMerge.index", values["index"], nodes["AsapTopK"].values["index"])
        yield self._same("AsapMerge.visual_mask", values["visual_mask"], visual)
        for name in ("salience", "mass"):
            yield self._same(f"AsapMerge.{name}", values[name][visual], mask[name][visual])
        limit = _OPERATOR + torch.finfo(self.dtype).eps
        found = replay_merge(values, self.pruning.threshold, limit)
        yield self._replayed("AsapMerge.kept_index", values["kept_index"], found.kept_index)
        yield self._replayed("AsapMerge.absorbed", values["absorbed"], found.absorbed)
        yield self._made("AsapMerge.merged", values["merged"], found.merged, limit)

    @property
    def _cached(self) -> int:
        return self.cut.key.shape[2] - self.cut.query.shape[2]

    def _query(self, mask: _Node) -> Tensor:
        query = mask.values["query"]
        return query if mask.kind == "AsapMask" else _heads(query, self.cut.query.shape[1])

    def _key(self, mask: _Node) -> Tensor:
        """Cached keys first; a whole layer is given the new ones alone."""
        key = mask.values["key"]
        if mask.kind == "AsapMask":
            return key
        return torch.cat([self.past.key, _heads(key, self.past.key.shape[1])], dim=2)

    def _rows(self, values: Tensor) -> Tensor:
        """Of [B, H, T, ...] what the score looks at: the last valid row of each sequence, or all."""
        if criterion(self.pruning) != "last" or values.shape[2] == 1:
            return values
        last = last_valid_row(self.cut.new_mask)[:, None]
        return take_tokens(values.transpose(1, 2), last).transpose(1, 2)

    def _near(self, name: str, found: Tensor, expected: Tensor) -> Check:
        """What came in, against the reference's."""
        pair = to_array(found), to_array(expected.float())
        return compare("cut", self.case, name, *pair, self.limit, self.form)

    def _same(self, name: str, found: Tensor, expected: Tensor) -> Check:
        """What came in and has no rounding: masks, lengths, and what another node gave."""
        return equal("cut", self.case, name, to_array(found), to_array(expected), self.form)

    def _made(self, name: str, found: Tensor, expected: Tensor, limit: float = _OPERATOR) -> Check:
        """What a node made of its inputs, against the reference's operator."""
        pair = to_array(found), to_array(expected.float())
        return compare("operators", self.case, name, *pair, limit, self.form)

    def _replayed(self, name: str, found: Tensor, expected: Tensor) -> Check:
        return equal("operators", self.case, name, to_array(found), to_array(expected), self.form)


def _heads(rows: Tensor, heads: int) -> Tensor:
    """[B, T, H·d] -> [B, H, T, d]."""
    return rows.reshape(*rows.shape[:2], heads, -1).transpose(1, 2)


def _kept_visual(visual: Array, index: Array) -> Array:
    kept = np.zeros_like(visual)
    np.put_along_axis(kept, np.clip(index, 0, visual.shape[1] - 1), True, axis=1)
    return kept & visual
