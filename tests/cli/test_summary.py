"""What an export says when it is done."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundle_cases import example_engine, example_manifest, write_bundle

from asap_export.bundle import Bundle, EngineInfo
from asap_export.cli import summary
from asap_export.cli.summary import print_exported
from asap_export.exporter import Exported, ExportPlan, ExportRequest, plan_export
from asap_export.graph.write import Written


@pytest.fixture(scope="module")
def plan(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportPlan:
    output = tmp_path_factory.mktemp("planned") / "out"
    return plan_export(ExportRequest(str(random_checkpoint), output=output))


@pytest.fixture
def exported(plan: ExportPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exported:
    monkeypatch.chdir(tmp_path)
    bundle = write_bundle(tmp_path / "out")
    return Exported(plan, bundle, {"config.json": "copied"}, Written())


def test_what_it_prunes_what_runs_where_and_what_to_do_next(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(summary, "compute_capabilities", lambda: ())
    print_exported(exported)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("out, fp16, ")
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert rows["dense"][0] == "336" and rows["pruned"][0] in ("/", "56")
    assert [line.split()[1] for line in lines if line.startswith("pruned  ")] == ["56"]
    assert any("ONNX Runtime's CUDA provider; no CUDA device here" in line for line in lines)
    assert lines[-2:] == [
        "next: asap-export verify out",
        '      asap-export run out --image FILE --prompt "What is in the image?"',
    ]
    assert max(map(len, lines)) <= 80


def test_engines_that_were_only_built_are_said_to_be(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = exported.bundle.manifest
    engine = EngineInfo("decoder", "decoder.onnx", "tensorrt_rtx", "1.7", ("8.9",), (), ("a layer",))
    built = replace(exported, bundle=Bundle(exported.bundle.path, replace(manifest, engines=(engine,))))
    monkeypatch.setattr(summary, "compute_capabilities", lambda: ())
    print_exported(built)
    said = capsys.readouterr().out
    assert "engines  built, not run: no CUDA device here" in said
    assert "by tensorrt_rtx 1.7 for compute capability 8.9" in said
    assert "1 attention layers without a dedicated kernel; fp32 has none" in said
    monkeypatch.setattr(summary, "compute_capabilities", lambda: ("8.9",))
    print_exported(built)
    assert "engines  built, not run yet" in capsys.readouterr().out


def test_what_the_bundle_goes_without_is_mentioned(
    exported: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    print_exported(exported)
    assert "prompts" not in capsys.readouterr().out
    missing = {"prompts": "programs without Python write them whole", "CPU": "the decoder goes without it"}
    print_exported(replace(exported, plan=replace(exported.plan, missing=missing)))
    said = capsys.readouterr().out
    assert (
        "prompts  programs without Python write them whole" in said and "the decoder goes without it" in said
    )


def test_quiet_prints_the_folder_and_json_everything(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_exported(exported, as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["saving"]["visual_tokens"] == 336 and facts["missing"] == {}
    monkeypatch.setattr(summary, "is_quiet", lambda: True)
    print_exported(exported)
    assert capsys.readouterr().out == "out\n"


def test_verbose_adds_engines_and_files(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(summary, "is_verbose", lambda: True)
    print_exported(exported)
    said = capsys.readouterr().out
    assert "1 copied (" in said and " written (" in said and "limits" in said


@pytest.mark.parametrize(
    ("dtype", "slow", "said"),
    [
        ("fp16", 0, "0 attention layers without a dedicated kernel"),
        ("fp16", 6, "6 attention layers without a dedicated kernel (single engine)"),
        ("fp32", 8, "8 attention layers without a dedicated kernel; fp32 has none"),
    ],
)
def test_which_attention_layers_have_no_kernel_and_why(dtype: Any, slow: int, said: str) -> None:
    layers = tuple(f"layer {number}" for number in range(slow))
    engine = replace(example_engine("1.7"), decomposed_attention=layers)
    assert summary._kernels(replace(example_manifest(), dtype=dtype, engines=(engine,))) == said
