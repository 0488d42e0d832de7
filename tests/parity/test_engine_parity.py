"""Engines, which cannot be laid open, are compared as far as their outputs go. ONNX Runtime stands in for them
here."""

import shutil
from pathlib import Path

import onnx
import pytest
from test_bundle_parity import noisy_layer, reversed_scores

from asap_export.engine.split import split_decoder
from asap_export.parity import compared, verify
from asap_export.parity.forms import DecoderForm
from asap_export.runtime.chain import ChainedSession, Link
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.runtime.session import Sessions

IMAGES = (Path(__file__).parents[2] / "examples" / "images" / "mat.png",)
CUT = 2


@pytest.fixture
def engines(monkeypatch, tmp_path):
    """Have ``decoder.onnx``, changed by a function, run as an engine, or as several that part at the cut."""

    def engines(bundle, change=lambda model: None, parts=False):
        folder = shutil.copytree(bundle, tmp_path / "engines")
        model = onnx.load(folder / "decoder.onnx", load_external_data=False)
        change(model)

        def session(model, name):
            onnx.save(model, folder / name)
            return OnnxRuntimeSession(folder / name)

        def decoder():
            if not parts:
                return session(model, "engine.onnx")
            links = [
                Link(
                    session(part, f"engine.{number}.onnx"),
                    [value.name for value in part.graph.input],
                )
                for number, part in enumerate(split_decoder(model, (0, CUT)))
            ]
            return ChainedSession(links, [value.name for value in model.graph.output])

        def sessions(*_, **__):
            others = (
                OnnxRuntimeSession(folder / f"{name}.onnx") for name in ("vision_encoder", "embed_tokens")
            )
            return Sessions(*others, decoder())

        form = DecoderForm("decoder.engine", merged=f"hidden_states.{CUT}" if parts else None)
        monkeypatch.setattr(compared, "choose_provider", lambda *_: "tensorrt")
        monkeypatch.setattr(compared, "engine_flavor", lambda *_: "tensorrt_rtx")
        monkeypatch.setattr(compared, "open_sessions", sessions)
        monkeypatch.setattr(compared.DecoderForm, "of_engines", lambda *_: form)
        return verify(bundle, provider="tensorrt", images=IMAGES, max_new_tokens=2)

    return engines


def failures(report):
    return {(check.form, check.name) for check in report.checks if check.verdict == "FAIL"}


@pytest.mark.parametrize("parts", [False, True], ids=["one engine", "parts"])
def test_sound_engines_pass_and_the_report_says_what_was_not_looked_into(engines, pruned_bundle, parts):
    report = engines(pruned_bundle, parts=parts)
    assert report.verdict == "PASS", failures(report)
    assert any("engines cannot be laid open" in note for note in report.notes)
    forms = {
        form: {c.level for c in report.checks if c.form == form} for form in ("decoder.engine", "decoder")
    }
    assert forms == {"decoder.engine": {"graphs", "cut"}, "decoder": {"graphs", "cut", "operators"}}


def test_a_close_choice_of_engines_in_parts_is_a_near_tie(engines, fp16_bundle):
    """What they hand over behind the cut says how they merged."""
    report = engines(fp16_bundle, noisy_layer, parts=True)
    assert report.verdict == "PASS", failures(report)


def test_a_choice_that_was_not_close_fails(engines, pruned_bundle):
    report = engines(pruned_bundle, reversed_scores)
    assert ("decoder.engine", "kept_index") in failures(report)
    assert {form for form, _ in failures(report)} == {"decoder.engine"}
