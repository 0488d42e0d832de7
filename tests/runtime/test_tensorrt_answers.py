"""Answers from a bundle's engines, as far as that goes without a GPU: a stand-in for TensorRT runs them."""

from pathlib import Path

import pytest
from filelock import FileLock
from short_checkpoint import write_short_checkpoint
from stand_in_tensorrt import StandInTensorRt, build

import asap_export
from asap_export.engine import build as engine_build
from asap_export.errors import UserError
from asap_export.exporter import ExportRequest, export
from asap_export.pruning.config import PruningConfig
from asap_export.runtime.request import Request

pytest.importorskip("torch")
pytest.importorskip("tensorrt_rtx")  # its name for the compute capability is asked for

IMAGES = Path(__file__).parents[2] / "examples" / "images"
MAT, TOWER = IMAGES / "mat.png", IMAGES / "tower.png"
FORMS = {
    "trimmed": {"max_batch": 2},
    "single": {"single_engine": True},
    "untrimmed": {"pruning": PruningConfig(trim_early_kv=False)},
    "layers": {"layers_per_engine": 1},
}


@pytest.fixture(scope="module")
def short_checkpoint(shared) -> Path:
    with FileLock(shared / "short.lock"):
        folder = shared / "short"
        return folder if folder.exists() else write_short_checkpoint(folder)


@pytest.fixture(scope="module")
def bundle(request, short_checkpoint, tmp_path_factory) -> Path:
    """With the engines that the stand-in runs; in fp32, so that answers are ONNX Runtime's to the last token."""
    folder = tmp_path_factory.mktemp("engines") / "bundle"
    settings = FORMS[getattr(request, "param", "trimmed")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine_build, "build_in_child", build)
        export(
            ExportRequest(
                str(short_checkpoint), output=folder, dtype="fp32", engine="trt", flavor="tensorrt_rtx",
                compute_capabilities=("12.0",), max_text=200, **settings,
            )
        )  # fmt: skip
    return folder


@pytest.mark.parametrize(
    "bundle",
    [form if form == "trimmed" else pytest.param(form, marks=pytest.mark.long) for form in FORMS],
    indirect=True,
)
@pytest.mark.parametrize("hidden", [(), ("kept_index",)], ids=["known", "hidden"])
def test_conversations_go_as_on_the_cpu(bundle, hidden, monkeypatch) -> None:
    StandInTensorRt(hidden).install(monkeypatch)
    spoken = {}
    for provider in ("cpu", "auto"):
        model = asap_export.load(bundle, provider, threads=1)
        chat = model.chat()
        spoken[model.provider] = [
            chat.ask([MAT], "What is it?", max_new_tokens=6).token_ids,
            chat.ask([TOWER], "And this?", max_new_tokens=6, keep=100_000).token_ids,
            chat.ask([], "Which was larger?", max_new_tokens=6).token_ids,
        ]
    assert spoken["tensorrt"] == spoken["cpu"]


def test_rows_of_a_batch_go_as_on_the_cpu(bundle, monkeypatch) -> None:
    StandInTensorRt().install(monkeypatch)
    rows = [Request((MAT,), "What is it?", 6), Request((TOWER,), "Is this a tower or is it not?", 6, keep=9)]
    on_cpu, on_engines = (
        [answer.token_ids for answer in asap_export.load(bundle, provider, threads=1).generate_batch(rows)]
        for provider in ("cpu", "tensorrt")
    )
    assert on_engines == on_cpu


def test_a_budget_beyond_the_bundles_own_runs_in_the_dense_profiles(bundle, monkeypatch) -> None:
    device = StandInTensorRt()
    device.install(monkeypatch)
    model = asap_export.load(bundle, "tensorrt")

    def profiles(**budget: int) -> list[str]:
        device.profiles.clear()
        model.generate(TOWER, "What is it?", max_new_tokens=2, **budget)
        return device.profiles

    parts = 2  # of the decoder
    tower = ["request", "request"]
    embed = ["request"]
    assert profiles() == [*tower, *["context"] * parts, *embed, *["generation"] * parts]
    assert profiles(keep=100_000) == [*tower, *["dense_context"] * parts, *embed, *["generation"] * parts]


def test_a_request_beyond_every_profile_is_told_the_limit(bundle, monkeypatch) -> None:
    StandInTensorRt().install(monkeypatch)
    model = asap_export.load(bundle, "tensorrt")
    with pytest.raises(
        UserError, match=r"^expected sequence \(input_ids\) of 1 to 536 for this engine, found 544;"
    ):
        model.generate([MAT, TOWER], "What is it?", max_new_tokens=2, keep=100_000)


def test_where_memory_for_a_context_is_short_the_limits_are_named(bundle, monkeypatch) -> None:
    StandInTensorRt(contexts=2).install(monkeypatch)
    with pytest.raises(UserError, match=r"expected device memory for decoder\.onnx.*smaller limits"):
        asap_export.load(bundle, "tensorrt").generate(MAT, "What is it?", max_new_tokens=2)
