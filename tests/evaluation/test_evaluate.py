"""Whole evaluations of a tiny checkpoint: continued ones equal others, and both runtimes agree."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from asap_export.errors import UserError
from asap_export.evaluation import EvaluationRequest, evaluate
from asap_export.evaluation.dataset import Dataset, open_dataset
from asap_export.progress import Progress

FILES = ("records.jsonl", "results.json", "results.md")


@pytest.fixture(scope="module")
def request_(checkpoint, data) -> EvaluationRequest:
    """Every way to choose tokens: by the picture, by the question, by chance, and not at all."""
    return EvaluationRequest(
        subject=checkpoint,
        dataset=data,
        methods="dense,asap,asap-text:threshold=0.5,fastv:prune_after=1,random",
        budgets="80%,keep=9",
        max_new_tokens=3,
    )


@pytest.fixture(scope="module")
def whole(request_, tmp_path_factory) -> Path:
    """The folder of an evaluation that was never interrupted."""
    return evaluate(replace(request_, output=tmp_path_factory.mktemp("whole"))).folder


class Interrupted(BaseException):
    """Stands for Ctrl-C."""


def interrupted_before(picture: int, data: Path) -> Dataset:
    """The data set, up to a picture that is never drawn."""
    dataset = open_dataset(data)

    def until(number: int):
        if number == picture:
            raise Interrupted
        return dataset.picture(number)

    return replace(dataset, picture=until)


def test_every_question_has_an_answer_of_every_run(whole):
    records = [json.loads(line) for line in (whole / "records.jsonl").read_text().splitlines()]
    assert [(record["id"], record["image"], record["left"]) for record in records] == [
        ("1", "red.png", 2),
        ("2", "red.png", 1),
        ("5", "red.png", 0),
        ("3", "wide/blue.png", 0),
        ("4", "green.jpg", 0),
    ]
    names = ["asap", "asap-text:threshold=0.5", "fastv:prune_after=1", "random"]
    labels = ["dense", *(f"{name} 80%" for name in names), *(f"{name} keep=9" for name in names)]
    assert all(list(record["found"]["torch"]) == labels for record in records)
    facts = json.loads((whole / "results.json").read_text())
    rows = {(row["method"], row["budget"]): row for row in facts["runs"]}
    assert rows["dense", None]["flops_ratio"] == rows["dense", None]["layer_average_ratio"] == 1
    assert rows["asap", "keep=9"]["kept_visual_tokens"] == 9
    assert abs(rows["fastv:prune_after=1", "80%"]["layer_average_ratio"] - 0.8) < 0.01
    assert rows["fastv:prune_after=1", "keep=9"]["flops_ratio"] < rows["asap", "keep=9"]["flops_ratio"] < 1


def test_an_evaluation_that_is_continued_equals_another_to_the_byte(request_, whole, data, tmp_path):
    broken = replace(request_, output=tmp_path, dataset=interrupted_before(2, data))
    with pytest.raises(Interrupted):
        evaluate(broken)
    assert not (tmp_path / "results.json").exists()
    written = (tmp_path / "records.jsonl").read_bytes()
    assert len(written.splitlines()) == 4
    (tmp_path / "records.jsonl").write_bytes(written[:-20])  # and the last line torn
    told: list[Progress] = []
    evaluate(replace(request_, output=tmp_path), told.append)
    assert "image 2 of 3" in [stand.detail for stand in told]
    assert "image 1 of 3" not in [stand.detail for stand in told]
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


def test_a_finished_evaluation_answers_nothing_anew(request_, whole):
    told: list[Progress] = []
    before = (whole / "results.json").read_bytes()
    evaluate(replace(request_, output=whole), told.append)
    assert {stand.stage for stand in told} == {"Hash checkpoint"}
    assert (whole / "results.json").read_bytes() == before
    with pytest.raises(UserError, match="found another max new tokens: 4 instead of 3"):
        evaluate(replace(request_, output=whole, max_new_tokens=4))


def test_retention_is_accuracy_relative_to_dense(request_, whole, data, tmp_path):
    """Questions whose right answers are dense's own."""
    records = [json.loads(line) for line in (whole / "records.jsonl").read_text().splitlines()]
    lines = [
        {"image": str(data / record["image"]), "question": record["question"], "kind": record["kind"]}
        | {"answer": record["found"]["torch"]["dense"] or "nothing"}
        for record in records
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    own = replace(request_, dataset=tmp_path, output=tmp_path / "out", methods="dense,asap,random:seed=3")
    facts = evaluate(own).facts
    dense = facts["runs"][0]
    assert (dense["accuracy"], dense["retention"], dense["retention_interval"]) == (1, 1, (1, 1))
    for run in facts["runs"]:
        assert run["retention"] == run["accuracy"] == run["correct"] / 5
        assert {kind: of["questions"] for kind, of in run["kinds"].items()} == {"color": 3, "size": 1, "": 1}
    [first, *_] = facts["comparisons"]
    assert (first["method"], first["other"], first["budget"]) == ("asap", "random:seed=3", "80%")
    right = {run["method"]: run["correct"] for run in facts["runs"] if run["budget"] == "80%"}
    assert first["wins"] - first["losses"] == right["asap"] - right["random:seed=3"]
    said = (tmp_path / "out" / "results.md").read_text()
    assert "| dense | all | " in said and "| asap | random:seed=3 | 80% |" in said


def test_without_dense_there_is_no_retention_and_the_output_says_so(request_, tmp_path):
    results = evaluate(replace(request_, methods="fastv", budgets="80%", limit=2, output=tmp_path))
    assert results.facts["runs"][0]["retention"] is None
    assert "dense is not among the methods" in (tmp_path / "results.md").read_text()


@pytest.fixture(scope="module")
def in_both(request_, tmp_path_factory):
    """PyTorch and ONNX Runtime, with one export."""
    folder = tmp_path_factory.mktemp("both")
    return evaluate(replace(request_, methods="asap,random", runtime="both", output=folder))


@pytest.mark.slow  # exports
def test_pytorch_and_onnx_runtime_give_the_same_answers(in_both):
    facts = in_both.facts
    assert facts["differences"] == []
    assert [(run["method"], run["runtime"]) for run in facts["runs"]] == [
        *[("asap", "torch"), ("random", "torch")] * 2,
        *[("asap", "ort")] * 2,
    ]
    assert facts["notes"][1:] == ["random has no graph, so PyTorch alone answered with it"]
    compared = {(pair["runtime"], pair["budget"], pair["method"]) for pair in facts["comparisons"]}
    assert compared == {
        (name, budget, "asap" if name == "torch" else "random")  # as their runs come
        for name in ("torch", "ort")
        for budget in ("80%", "keep=9")
    }
    [first, *_] = (in_both.folder / "records.jsonl").read_text().splitlines()
    found = json.loads(first)["found"]
    assert found["ort"].items() <= found["torch"].items()


def test_a_dense_bundle_answers_as_its_checkpoint(llava_1_5_bundle, data, tmp_path):
    request = EvaluationRequest(llava_1_5_bundle, data, runtime="both", max_new_tokens=3, output=tmp_path)
    facts = evaluate(request).facts
    ran = [(run["method"], run["runtime"], run["questions"]) for run in facts["runs"]]
    assert ran == [("dense", "torch", 5), ("dense", "ort", 5)]
    assert facts["differences"] == []


def test_bundles_are_exported_once(in_both, request_, monkeypatch):
    monkeypatch.setattr("asap_export.evaluation.evaluated.export", None)
    again = replace(request_, methods="asap", budgets="keep=9", runtime="ort", limit=1, overwrite=True)
    facts = evaluate(replace(again, output=in_both.folder)).facts
    assert facts["questions"] == 1 and facts["settings"]["runtime"] == "ort"


def test_a_bundle_is_evaluated_with_its_own_method_and_others_with_its_checkpoint(in_both, data, tmp_path):
    bundle = in_both.folder / "bundles" / "asap"
    request = EvaluationRequest(bundle, data, budgets="keep=9", max_new_tokens=3, output=tmp_path / "own")
    facts = evaluate(request).facts
    assert [(run["method"], run["runtime"]) for run in facts["runs"]] == [("asap", "ort")]
    beside = replace(request, methods="dense,fastv", runtime="torch", output=tmp_path / "beside")
    assert [run["method"] for run in evaluate(beside).facts["runs"]] == ["dense", "fastv"]


def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(request_, tmp_path, monkeypatch):
    monkeypatch.setattr("asap_export.evaluation.device.available_memory", lambda: 1_000_000)
    said = r"expected about [\d.]+ .B of free memory for the model in fp32, found 1 MB; free some"
    with pytest.raises(UserError, match=said):
        evaluate(replace(request_, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"methods": "dense,asap,magic"}, "expected methods among .*, found 'magic'"),
        ({"budgets": "40%"}, r"expected a budget of at least 66.\d% for asap, found 40%: 2 of 3 layers see"),
        ({"methods": "asap:prune_after=3"}, "expected prune_after below the model's 3 layers, found 3"),
        (
            {"runtime": "ort", "dtype": "bf16"},
            "expected fp16 or fp32 for ONNX Runtime's CPU provider, found bf16",
        ),
        ({"dataset": Path("nowhere.jsonl")}, "found nothing at nowhere.jsonl"),
        (
            {"subject": Path("nowhere")},
            "expected a checkpoint folder or a hub id .*, found no folder nowhere",
        ),
        ({"model": "elsewhere"}, "expected model with a bundle"),
        ({"max_new_tokens": 0}, "expected max_new_tokens of at least 1, found 0"),
        ({"device": "gpu"}, "expected cpu, cuda or cuda:N for device, found gpu; correct it"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_anything_is_written(request_, tmp_path, change, said):
    with pytest.raises(UserError, match=said):
        evaluate(replace(request_, output=tmp_path / "out", **change))
    assert not (tmp_path / "out").exists()
