"""``asap-export bench`` as a user starts it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from installed_command import IMAGES, refused, run

from asap_export.bench.prepare import Like, prepared
from asap_export.bench.reference import bf16_instructions
from asap_export.checkpoint.sources import DEMO
from asap_export.cli.app import exit_status
from asap_export.errors import UserError
from asap_export.progress import no_progress

SHORT = ("--rounds", "2", "--warmup", "0", "--decode-steps", "1", "--cache-lengths", "8", "--threads", "1")


def test_bundles_and_peers_in_one_run(pruned_bundle, dense_bundle, tmp_path, monkeypatch, capsys):
    shown = ("--curve", "60,100", "--plot", "plot.svg", "--output", "bench.json")
    prompt = ("--visual-tokens", "100", "--text-tokens", "10", "--keep", "20")
    done = run(
        "bench",
        pruned_bundle,
        dense_bundle,
        "--peers",
        "transformers",
        *prompt,
        *SHORT,
        *shown,
        folder=tmp_path,
    )
    facts = json.loads((tmp_path / "bench.json").read_text())
    measured = {contender["name"]: contender for contender in facts["contenders"]}
    peers = ["transformers-sdpa", "transformers-sdpa-asap"]
    if bf16_instructions():
        peers += ["transformers-sdpa-bf16", "transformers-sdpa-bf16-asap"]
    assert list(measured) == ["pruned", "dense", *peers]
    for contender in measured.values():
        assert contender["failed"] is None
        assert contender["seconds"]["first_token"]["samples"] == 2
        assert contender["decode_seconds"]["8"]["cache_length"] == 8
    lengths = [contender["decode_seconds"]["prompt"]["cache_length"] for contender in measured.values()]
    assert lengths == [30, 110, *[110, 30] * (len(peers) // 2)]
    left_out = [] if bf16_instructions() else ["transformers-sdpa-bf16"]
    assert [row["name"] for row in facts["skipped"]] == left_out
    assert [(row["pruned"], row["dense"]) for row in facts["comparisons"]] == [
        ("pruned", "dense"),
        *zip(peers[1::2], peers[::2], strict=True),
    ]
    for contender in measured.values():
        assert contender["of_rate"] > 0 and contender["of_bandwidth"] > 0
        assert contender["computes"] in contender["dtype"].replace("fp32", "f32")
    assert {(row["name"], row["visual_tokens"]) for row in facts["curve"]} == {
        (name, tokens) for name in ("pruned", "dense") for tokens in (60, 100)
    }
    kept = {(row["visual_tokens"], row["keep"]) for row in facts["curve"] if row["prunes"]}
    assert kept == {(60, 12), (100, 20)}
    assert str(tmp_path) not in json.dumps(facts["contenders"])
    assert facts["command"][:2] == ["asap-export", "bench"] and facts["machine"]["cores"] >= 1
    for title in ("Time to first token", "Pruned beside dense", "The machine's rates", "Cost against visual"):
        assert title in done.stdout

    plots = ("plot.svg", "plot-curve.svg")
    drawn = [(tmp_path / plot).read_bytes() for plot in plots]
    assert all(b"<svg" in plot for plot in drawn)

    monkeypatch.chdir(tmp_path)
    assert exit_status(["bench", "--from", "bench.json", "--plot", "plot.svg", "--markdown"]) == 0
    assert [(tmp_path / plot).read_bytes() for plot in plots] == drawn
    assert "### Time to first token\n\n| first token, s | dtype |" in capsys.readouterr().out
    assert exit_status(["bench", "--from", "bench.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == facts


@pytest.mark.long
def test_a_public_model_s_shape_is_made_and_measured_and_used_again(tmp_path):
    like = ("--like", "llava-v1.6-vicuna-7b", "--scale", "0.02", "--layers", "3", "--work", "work")
    arguments = (
        "bench",
        *like,
        "--contenders",
        "asap",
        "--peers",
        "none",
        "--visual-tokens",
        "576",
        *SHORT,
        "--json",
    )
    done = run(*arguments, folder=tmp_path)
    facts = json.loads(done.stdout)
    assert (
        facts["model"] | {"layers": 3, "hidden_size": 64, "heads": 1, "vocab_size": 32064} == facts["model"]
    )
    assert facts["workload"]["visual_tokens"] == 576 and facts["workload"]["keep"] == 96
    assert "Write checkpoint" in done.stderr and "Export asap" in done.stderr

    told: list[str] = []
    like = Like("llava-v1.6-vicuna-7b", 0.02, 3, "fp32", ("asap",), tmp_path / "work")
    _, (bundle,) = prepared(like, lambda stand: told.append(stand.stage))
    assert told == [] and bundle.manifest.model.layers == 3


def test_what_other_code_made_is_made_anew(tmp_path, monkeypatch):
    like = Like("llava-v1.6-vicuna-7b", 0.02, 3, "fp32", (), tmp_path)
    written: list[Path] = []
    monkeypatch.setattr(
        "asap_export.bench.prepare.write_checkpoint", lambda folder, *_, **__: written.append(folder)
    )
    folder = tmp_path / "llava-v1.6-vicuna-7b-0.02-3-layers"
    (folder / "asap").mkdir(parents=True)
    (folder / "made-by.txt").write_text("a digest of other code")
    assert prepared(like, no_progress) == (folder / "checkpoint", [])
    assert written == [folder / "checkpoint"] and not (folder / "asap").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected bundles or --like, found neither"),
        (("BUNDLE", "--like", "llava-v1.6-vicuna-7b"), "expected bundles or --like, found both"),
        (("--like", "llava-9"), "expected --like to name one of"),
        (("--like", "llava-1.5-7b", "--scale", "2"), "expected --scale in (0, 1], found 2"),
        (("--like", "llava-1.5-7b", "--contenders", "asap,asap"), "expected --contenders among"),
        (("BUNDLE", "--scale", "0.5"), "expected --scale with --like"),
        (("BUNDLE", "BUNDLE", "--peers", "none"), "expected bundles of different names, found 2 called"),
        (("no-such-bundle",), "expected a bundle folder at no-such-bundle"),
        (("BUNDLE", "--model", "no-such-checkpoint"), "found no folder no-such-checkpoint"),
        (("BUNDLE", "--cache-lengths", "0"), "expected --cache-lengths of at least 1, found 0"),
        (("BUNDLE", "--cache-lengths", "many"), "expected whole numbers between commas"),
        (("BUNDLE", "--rounds", "0"), "expected --rounds of at least 1"),
        (("BUNDLE", "--threads", "4096"), "expected --threads of at most"),
        (("BUNDLE", "--image", "nothing.png"), "expected an image file at nothing.png"),
        (("BUNDLE", "--visual-tokens", "400", "--keep", "0"), "expected --keep of at least 1"),
        (("BUNDLE", "--plot", "plot.png"), "expected a file name that ends in .svg"),
        (("BUNDLE", "--output", "no/bench.json"), "expected a folder for no/bench.json"),
        (("BUNDLE", "--output", "."), "expected a file's name for --output, found the folder ."),
        (("BUNDLE", "--provider", "cuda", "--profile"), "expected --profile on the CPU"),
        (("BUNDLE", "--json", "--markdown"), "expected --markdown or --json, found both"),
        (("BUNDLE", "--model", DEMO), "found a model of other sizes in"),
        (
            ("BUNDLE", "--peers", "llama"),
            "expected --peers among transformers, openvino-genai, llama.cpp, or none",
        ),
        (("BUNDLE", "--peers", "openvino-genai"), "found openvino-genai without it; give both or neither"),
        (("BUNDLE", "--peers", "none", "--openvino-python", "python"), "found it without that peer"),
        (("BUNDLE", "--precision", "f32"), "expected --precision with --provider openvino"),
        (("BUNDLE", "--provider", "cuda", "--peers", "llama.cpp"), "expected --peers transformers or none"),
        (
            ("BUNDLE", "--peers", "none", "--image", IMAGES / "mat.png", "--visual-tokens", "9999"),
            "found 9999",
        ),
        (("--from", "nothing.json"), "expected a measurement's JSON in nothing.json"),
        (
            ("--from", "bench.json", "--rounds", "9"),
            "expected --from without anything to measure, found --rounds",
        ),
        (("--from", "bench.json", "BUNDLE"), "expected --from without anything to measure, found a bundle"),
    ],
)
def test_wrong_input_gets_one_line(dense_bundle, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    given = [str(dense_bundle) if argument == "BUNDLE" else str(argument) for argument in arguments]
    assert exit_status(["bench", *given]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and said in printed.err and len(printed.err.splitlines()) == 1
    assert not any(Path().iterdir())


def test_on_a_device_a_process_at_a_time(pruned_bundle, tmp_path, monkeypatch, capsys):
    """This machine has no device: so nothing is measured, and the reasons are lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("asap_export.bench.request.compute_capabilities", lambda: ("9.0",))
    arguments = ("--provider", "cuda", "--visual-tokens", "60", *SHORT, "--plot", "plot.svg", "--json")
    assert exit_status(["bench", str(pruned_bundle), *arguments]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["provider"], one["dtype"]) for one in facts["contenders"]] == [
        (name, "cuda", "fp32") for name in ("pruned", "transformers-sdpa", "transformers-sdpa-asap")
    ]
    reasons = {row["name"]: row["reason"] for row in facts["skipped"]}
    assert "expected ONNX Runtime with CUDAExecutionProvider" in reasons["pruned"]
    assert "CUDA" in reasons["transformers-sdpa"] and "CUDA" in reasons["transformers-sdpa-asap"]
    assert (facts["settings"]["provider"], facts["settings"]["processes"]) == ("cuda", "fresh")


@pytest.mark.parametrize("content", ["", '{"schema": 1', '{"schema": 1}', '{"schema": 0}', "[1]"])
def test_a_half_written_measurement_is_refused(tmp_path, monkeypatch, capsys, content):
    monkeypatch.chdir(tmp_path)
    Path("half.json").write_text(content)
    assert exit_status(["bench", "--from", "half.json"]) == 2
    assert capsys.readouterr().err.startswith("error: expected a measurement")


def test_a_folder_that_no_bench_made_is_left_alone(tmp_path):
    like = Like("llava-v1.6-vicuna-7b", 0.02, 3, "fp32", (), tmp_path)
    own = tmp_path / "llava-v1.6-vicuna-7b-0.02-3-layers" / "thesis.tex"
    own.parent.mkdir()
    own.touch()
    with pytest.raises(UserError, match="expected a folder of an earlier bench"):
        prepared(like, no_progress)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="change work"):
        prepared(replace(like, work=tmp_path / "file"), no_progress)
    assert own.exists()


def test_the_installed_command_refuses_too(tmp_path):
    assert "expected bundles or --like" in refused("bench", folder=tmp_path)
