"""Each graph of a bundle against the reference's module, on the reference's own inputs."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from asap_export.model.reference import Prompt
from asap_export.parity.forced import ForcedDecoder, ProbedDecoder
from asap_export.parity.recording import Array, Recording, Step, to_array
from asap_export.parity.selection import Margins, decision_margins
from asap_export.parity.verdict import Check, Verdict, compare, worst
from asap_export.pruning.config import PruningConfig
from asap_export.runtime.session import Sessions

__all__ = ["GraphChecks"]


class GraphChecks:
    """Compares sessions with the recorded reference.

    ``decoder`` is the file behind its session; ``limit``: see ``verdict.tolerance``.
    """

    def __init__(
        self, pruning: PruningConfig, decoder: Path, sessions: Sessions, recording: Recording, limit: float
    ) -> None:
        self._pruning, self._decoder_file, self._sessions = pruning, decoder, sessions
        self._recording, self._limit = recording, limit

    def vision(self, case: str, prompt: Prompt, expected: Tensor) -> list[Check]:
        """vision_encoder.onnx; nothing where the prompt has no image. expected: [N, D]."""
        if prompt.pixel_values is None or prompt.gather_index is None:
            return []
        pixels = prompt.pixel_values.to(self._recording.reference.dtype)
        feeds = {"pixel_values": to_array(pixels), "gather_index": to_array(prompt.gather_index)}
        found = self._sessions.vision_encoder.run(feeds, on_host=("image_features",))["image_features"]
        return [compare("graphs", case, "image_features", found, to_array(expected), self._limit)]

    def embedding(self, case: str, prompt: Prompt, features: Tensor, expected: Tensor) -> Check:
        """embed_tokens.onnx looks up and puts in place: nothing is computed, so every bit must agree."""
        feeds = {"input_ids": to_array(prompt.input_ids), "image_features": to_array(features)}
        found = self._sessions.embed_tokens.run(feeds, on_host=("inputs_embeds",))["inputs_embeds"]
        return compare("graphs", case, "inputs_embeds", found, to_array(expected), 0.0)

    def decoder(self, case: str, step: Step) -> list[Check]:
        """decoder.onnx on one step: logits, keys and values of every layer, and the kept set.

        Where the outputs differ and the reference's choice was closer than rounding, the kept set of the
        reference is forced upon the graph: then everything must agree, and so must the scores that the graph's
        own choice came from. The step is AMBIGUOUS.
        """
        feeds, expected = step.feeds(self._recording.reference), step.expected()
        names = [name for name in expected if name != "kept_index" or self._pruning.prunes]
        found = self._sessions.decoder.run(feeds, on_host=names)
        checks = self._compare_outputs(case, found, expected)
        if step.cut is None or not bool(step.visual.any()):
            return checks
        margins = decision_margins(step.cut, self._pruning)
        kept = _kept_check(case, step, found["kept_index"], margins)
        if worst((kept, *checks)) == "PASS":
            return [kept, *checks]
        if margins.smallest > self._limit:
            return [kept, *checks]
        excused = replace(kept, verdict="AMBIGUOUS")
        return [excused, *self._probed(case, step, feeds), *self._forced(case, step, feeds, expected)]

    def _compare_outputs(self, case: str, found: dict[str, Array], expected: dict[str, Array]) -> list[Check]:
        floats = (name for name in expected if name != "kept_index")
        return [compare("graphs", case, name, found[name], expected[name], self._limit) for name in floats]

    def _forced(
        self, case: str, step: Step, feeds: dict[str, Array], expected: dict[str, Array]
    ) -> list[Check]:
        assert step.cut is not None
        survivors = step.cut.survivors
        found = self._forced_decoder.run(feeds, to_array(survivors.hidden), to_array(survivors.kept_index))
        return self._compare_outputs(f"{case}, kept set forced", found, expected)

    def _probed(self, case: str, step: Step, feeds: dict[str, Array]) -> list[Check]:
        """The numbers that the graph's own choice hangs on: rounding may decide between them, not change them."""
        cut = step.cut
        assert cut is not None
        visual, valid = to_array(cut.visual_mask), to_array(cut.new_mask)
        seen = cut.seen
        expected = {"score": seen.score, "hidden": cut.hidden, "salience": seen.salience, "mass": seen.mass}
        checks = []
        for name, found in self._probed_decoder.run(feeds).items():
            where = valid if name == "hidden" else visual
            numbers = found[where], to_array(expected[name])[where]
            checks.append(compare("graphs", f"{case}, cut laid open", f"cut.{name}", *numbers, self._limit))
        return checks

    @cached_property
    def _probed_decoder(self) -> ProbedDecoder:
        return ProbedDecoder(self._decoder_file)

    @cached_property
    def _forced_decoder(self) -> ForcedDecoder:
        return ForcedDecoder(self._decoder_file)


def _kept_check(case: str, step: Step, found: Array, margins: Margins) -> Check:
    """Overlap of the kept visual tokens, and how clear the choice was."""
    visual, expected = to_array(step.visual), to_array(step.output.kept_index)
    if found.shape != expected.shape:
        detail = f"kept {list(found.shape)} tokens, expected {list(expected.shape)}"
        return Check("graphs", case, "kept_index", "FAIL", detail=detail)
    ours, theirs = (_kept_visual(visual, index) for index in (found, expected))
    overlap = float((ours & theirs).sum() / max(1, theirs.sum()))
    verdict: Verdict = "PASS" if np.array_equal(found, expected) else "FAIL"
    words = f"{overlap:.1%} of {int(theirs.sum())} kept visual tokens agree"
    detail = f"{words}; {margins}" if str(margins) else words
    return Check("graphs", case, "kept_index", verdict, max_error=1 - overlap, limit=0.0, detail=detail)


def _kept_visual(visual: Array, index: Array) -> Array:
    kept = np.zeros_like(visual)
    np.put_along_axis(kept, index, True, axis=1)
    return kept & visual
