"""A plan: every check before the long work, nothing written, and plain data to look at."""

import json
import os
from collections import namedtuple
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from asap_export.bundle import refusals
from asap_export.cli.app import exit_status
from asap_export.errors import UserError
from asap_export.exporter import ExportRequest, plan_export
from asap_export.spec import Quantization


def listing(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_plan_decides_everything_and_writes_nothing(random_checkpoint: Path, tmp_path: Path) -> None:
    before = listing(random_checkpoint)
    request = ExportRequest(
        str(random_checkpoint), output=tmp_path / "new" / "out", engine="trt", dtype="fp32"
    )
    plan = plan_export(request)
    assert listing(tmp_path) == [] and listing(random_checkpoint) == before
    assert plan.dtype == "fp32" and plan.budget.ratio == pytest.approx(1 / 6)
    assert plan.weights.shards == () and plan.weights.written_anew > 0
    assert plan.engines is not None and set(plan.engines.memory) == {
        "vision_encoder",
        "embed_tokens",
        "decoder.early",
        "decoder.late",
    }
    assert plan.disk > 2 * plan.weights.total
    with pytest.raises(FrozenInstanceError):
        plan.dtype = "fp16"  # type: ignore[misc]
    facts = plan.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["output"] == str(tmp_path / "new" / "out") and "config.json" in facts["files"]


def test_a_file_system_that_is_too_small_is_seen(
    random_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")  # as shutil's own
    monkeypatch.setattr(refusals.shutil, "disk_usage", lambda _: usage(10_000))
    request = ExportRequest(str(random_checkpoint), output=tmp_path / "out")
    with pytest.raises(UserError, match=r"disk full: needed 0.01 GB, free 0.00 GB in "):
        plan_export(request)


def test_links_take_no_room_on_the_disk(random_checkpoint: Path, tmp_path: Path) -> None:
    linked, copied = (
        plan_export(ExportRequest(str(random_checkpoint), output=tmp_path / "out", weights=way))
        for way in ("link", "copy")
    )
    shard = (random_checkpoint / "model.safetensors").stat().st_size
    same = random_checkpoint.stat().st_dev == tmp_path.stat().st_dev
    assert copied.disk - linked.disk == (shard if same else 0)


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: place != tmp_path)  # root may write everywhere
    with pytest.raises(UserError, match=f"Permission denied: {tmp_path}; mend that or choose another"):
        plan_export(ExportRequest("nowhere/nothing", output=tmp_path / "new" / "out"))


def test_what_needs_no_checkpoint_is_refused_before_one_is_opened(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"expected no .*out yet, found one"):
        plan_export(ExportRequest("nowhere/nothing", output=tmp_path / "out"))
    request = ExportRequest("nowhere/nothing", output=tmp_path / "new", engine="trt", flavor="tensorrt_rtx",
                            compute_capabilities=("7.3",))  # fmt: skip
    with pytest.raises(UserError, match=r"7\.3"):
        plan_export(request)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dtype": "fp8"}, "expected --dtype fp32 or fp16 or bf16, found fp8"),
        ({"engine": "openvino"}, "expected --engine ort or trt, found openvino"),
        ({"weights": "link", "quantization": Quantization()}, "expected no --weights link with --quantize"),
        ({"cpu_passes": ("int8-activations",)}, "expected int8-activations with --quantize and"),
        (
            {"quantization": Quantization(8, None), "engine": "trt"},
            "rounded by scales known in advance, found int8; use int4, or --engine ort",
        ),
        ({"quantization": Quantization(8, 64)}, "a block size with 4 bits, and none with 8, found 64 with 8"),
        ({"layers_per_engine": 2}, "expected --layers-per-engine with --engine trt"),
        ({"check_memory": False}, "expected --no-check-memory with --engine trt"),
    ],
)
def test_settings_that_contradict_each_other_make_no_request(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as refusal:
        ExportRequest(**settings)  # type: ignore[arg-type]
    assert said in refusal.value.args[0]


def test_the_command_line_prints_a_plan(
    random_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["--model", str(random_checkpoint), "--output", "out", "--keep", "40", "--plan"]
    assert exit_status(command) == 0
    said = capsys.readouterr().out
    assert "bundle      out, fp16" in said and "pruned                     40" in said
    assert "nothing is written" in said and max(map(len, said.splitlines())) <= 80
    assert exit_status(["export", *command, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["budget"]["keep"] == 40 and facts["saving"]["keep"] == 40
    assert listing(tmp_path) == []
