"""What verify prints: a screenful that says what was compared, what failed, and what to do next."""

from dataclasses import asdict

import pytest
from rich.console import Console

from asap_export.parity.quantization import QuantizationError
from asap_export.parity.verdict import Check
from asap_export.parity.verify import Report
from asap_export.report.parity import parity_screen, parity_tables

CHECKS = (
    Check("inputs", "image a.png", "preprocess: pixel_values", "PASS", 0.0, limit=1e-3),
    Check("operators", "image a.png", "AsapTopK.index", "PASS", 0.0, limit=0.0, form="decoder"),
    Check("operators", "image a.png", "AsapMerge.merged", "PASS", 4e-6, limit=1e-3, form="decoder"),
    Check("graphs", "image a.png", "present.9.value", "PASS", 9.3e-3, limit=1e-2, form="decoder.cpu"),
    Check("graphs", "image a.png", "logits", "PASS", 1e-3, limit=1e-2, form="decoder"),
    Check("cut", "image a.png", "kept_index", "PASS", 7e-3, form="decoder", near_tie=True),
    Check("answers", "image a.png", "tokens", "PASS", detail="2 of 2 greedy tokens agree"),
)
WRONG = Check(
    "cut", "a batch", "AsapMerge.index", "FAIL", 0.9, limit=0.0, detail="148 of 149 differ", form="decoder"
)
COST = QuantizationError(4, 64, 85, 0.1, 0.2, "lm_head.weight", 0.1, 0.1, kept=0.9, tokens=0.87)


def printed(shown, checks=CHECKS, width=80, **changed) -> list[str]:
    facts = {"layers": 8, "all_layers": 8, "notes": (), "quantization": None} | changed
    report = Report("out", "fp16", "fp16", provider="cpu", limit=1e-2, checks=checks, **facts)
    console = Console(width=width)
    with console.capture() as said:
        console.print(shown(report.facts() | {"quantization": facts["quantization"] and asdict(COST)}))
    return [line.rstrip() for line in said.get().splitlines()]


def test_a_line_for_each_level_then_the_verdict_and_the_next_command():
    lines = printed(parity_screen)
    levels = [line.split()[1] for line in lines if line.startswith("✓")]
    assert levels == ["inputs", "operators", "graphs", "cut", "answers"]
    assert lines[0].endswith("identical")
    assert lines[1].split()[2:8] == ["2", "outputs,", "1", "cuts", "worst", "0.4%"]
    said = " ".join(" ".join(lines).split())
    assert "worst 93% of its limit: values of layer 9, image a.png" in said
    assert "1 of 1 explained, 1 near tie (at least 99.3% of the tokens as PyTorch's)" in said
    assert "PASS, 1 near tie 7 comparisons, fp16, cpu" in said
    assert "next: asap-export run out --image FILE" in said
    assert len(lines) <= 24


def test_what_failed_is_said_with_case_and_numbers():
    lines = printed(parity_screen, (*CHECKS, WRONG))
    said = " ".join(" ".join(lines).split())
    assert "✗ cut" in said and "1 of 2 explained" in said
    assert "✗ decoder: AsapMerge.index a batch: 148 of 149 differ" in said
    assert said.index("FAIL, 1 near tie") < said.index("next: asap-export verify out --verbose")


def test_a_quantized_bundle_says_what_it_was_compared_with_and_what_its_weights_cost():
    said = " ".join(" ".join(printed(parity_screen, quantization=COST)).split())
    assert "PASS, 1 near tie, compared with PyTorch with these 4-bit weights, which themselves change" in said
    assert "13.0% of the greedy tokens and 10.0% of the kept visual tokens" in said


@pytest.mark.parametrize("kind", ["decoder.cpu: values of all layers", "AsapMerge.merged", "greedy answers"])
def test_everything_is_there_with_verbose(kind):
    said = " ".join(" ".join(printed(parity_tables, width=160)).split())
    assert all(word in said for word in kind.split()) and "near tie decoder: kept_index" in said
