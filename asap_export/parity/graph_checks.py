"""Each graph of a bundle against the reference's module, on the reference's own inputs."""

from dataclasses import replace

import numpy as np

from asap_export.parity.forced import DecoderForm, ForcedDecoder, ProbedDecoder
from asap_export.parity.recording import Array, Step, Turn, to_array
from asap_export.parity.selection import Margins, decision_margins
from asap_export.parity.verdict import Check, Group, Verdict, compare, worst
from asap_export.pruning.config import PruningConfig
from asap_export.runtime.session import Session, Sessions

__all__ = ["GraphChecks"]


class GraphChecks:
    """Compares sessions with what the reference did, the decoder in one of its forms; ``limit``: see
    ``verdict.tolerance``."""

    def __init__(self, pruning: PruningConfig, limit: float, form: DecoderForm) -> None:
        self._pruning, self._limit, self._form = pruning, limit, form
        self._ambiguous: list[tuple[str, Step]] = []

    def before_the_decoder(self, turn: Turn, sessions: Sessions) -> list[Check]:
        """Vision encoder and token embedding on a turn."""
        return [*self._vision(turn, sessions), self._embedding(turn, sessions)]

    def decoder(self, turn: Turn, session: Session) -> list[Check]:
        """The decoder on all steps of a turn."""
        checks = []
        for number, step in enumerate(turn.steps):
            name = turn.name if number == 0 else f"{turn.name}, decode step {number}"
            checks += self._step(name, step, session)
        return checks

    def settle(self) -> list[Check]:
        """Look into the steps that were ambiguous, all of them: with the cut laid open, then with the reference's
        kept set forced upon the graph. Opens a session for each, one at a time."""
        if not self._ambiguous:
            return []
        checks = self._probed(ProbedDecoder(self._form))
        return checks + self._forced(ForcedDecoder(self._form))

    def _vision(self, turn: Turn, sessions: Sessions) -> list[Check]:
        """vision_encoder.onnx; nothing where the prompt has no image."""
        prompt = turn.prompt
        if prompt.pixel_values is None or prompt.gather_index is None:
            return []
        pixels = prompt.pixel_values.to(turn.features.dtype)
        feeds = {"pixel_values": to_array(pixels), "gather_index": to_array(prompt.gather_index)}
        found = sessions.vision_encoder.run(feeds, on_host=("image_features",))["image_features"]
        return [compare("graphs", turn.name, "image_features", found, to_array(turn.features), self._limit)]

    def _embedding(self, turn: Turn, sessions: Sessions) -> Check:
        """embed_tokens.onnx looks up and puts in place: nothing is computed, so every bit must agree."""
        feeds = {"input_ids": to_array(turn.prompt.input_ids), "image_features": to_array(turn.features)}
        found = sessions.embed_tokens.run(feeds, on_host=("inputs_embeds",))["inputs_embeds"]
        expected = to_array(turn.steps[0].inputs["inputs_embeds"])
        return compare("graphs", turn.name, "inputs_embeds", found, expected, 0.0)

    def _step(self, case: str, step: Step, session: Session) -> list[Check]:
        """The decoder on one step: logits, keys and values of every layer, and the kept set.

        Where the outputs differ and the reference's choice was closer than rounding, the step is AMBIGUOUS and
        waits for ``settle``: with the reference's kept set forced upon the graph everything must agree, and so
        must the scores that the graph's own choice came from.
        """
        expected = step.expected()
        names = [name for name in expected if name != "kept_index" or self._pruning.prunes]
        feeds = step.feeds()
        found = self._form.caches().trimmed(feeds, session.run(feeds, on_host=names))
        checks = self._compare_outputs(case, found, expected)
        if step.cut is None or not bool(step.visual.any()):
            return checks
        margins = decision_margins(step.cut, self._pruning)
        kept = _kept_check(self._form.group, case, step, found["kept_index"], margins)
        if worst((kept, *checks)) == "PASS" or margins.smallest > self._limit:
            return [kept, *checks]
        self._ambiguous.append((case, step))
        return [replace(kept, verdict="AMBIGUOUS")]

    def _compare_outputs(self, case: str, found: dict[str, Array], expected: dict[str, Array]) -> list[Check]:
        floats = (name for name in expected if name != "kept_index")
        return [
            compare(self._form.group, case, name, found[name], expected[name], self._limit) for name in floats
        ]

    def _forced(self, decoder: ForcedDecoder) -> list[Check]:
        checks = []
        for case, step in self._ambiguous:
            assert step.cut is not None
            survivors = step.cut.survivors
            hidden = survivors.hidden.to(step.inputs["inputs_embeds"].dtype)
            found = decoder.run(step.feeds(), to_array(hidden), to_array(survivors.kept_index))
            checks += self._compare_outputs(f"{case}, kept set forced", found, step.expected())
        return checks

    def _probed(self, decoder: ProbedDecoder) -> list[Check]:
        """The numbers that the graph's own choice hangs on: rounding may decide between them, not change them."""
        checks = []
        for case, step in self._ambiguous:
            cut = step.cut
            assert cut is not None
            visual, valid = to_array(cut.visual_mask), to_array(cut.new_mask)
            seen = cut.seen
            expected = {"score": seen.score, "hidden": cut.hidden}
            expected |= {"salience": seen.salience, "mass": seen.mass}
            for name, found in decoder.run(step.feeds()).items():
                where = valid if name == "hidden" else visual
                numbers = found[where], to_array(expected[name])[where]
                probed = f"{case}, cut laid open"
                checks.append(compare(self._form.group, probed, f"cut.{name}", *numbers, self._limit))
        return checks


def _kept_check(group: Group, case: str, step: Step, found: Array, margins: Margins) -> Check:
    """Overlap of the kept visual tokens, and how clear the choice was."""
    visual, expected = to_array(step.visual), to_array(step.kept_index)
    if found.shape != expected.shape:
        detail = f"kept {list(found.shape)} tokens, expected {list(expected.shape)}"
        return Check(group, case, "kept_index", "FAIL", detail=detail)
    ours, theirs = (_kept_visual(visual, index) for index in (found, expected))
    overlap = float((ours & theirs).sum() / max(1, theirs.sum()))
    verdict: Verdict = "PASS" if np.array_equal(found, expected) else "FAIL"
    words = f"{overlap:.1%} of {int(theirs.sum())} kept visual tokens agree"
    detail = f"{words}; {margins}" if str(margins) else words
    return Check(group, case, "kept_index", verdict, max_error=1 - overlap, limit=0.0, detail=detail)


def _kept_visual(visual: Array, index: Array) -> Array:
    kept = np.zeros_like(visual)
    np.put_along_axis(kept, index, True, axis=1)
    return kept & visual
