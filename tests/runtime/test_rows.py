"""Rows of lengths of their own: each is answered as if it were alone, whoever joins and leaves beside it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import asap_export
from asap_export.errors import UserError
from asap_export.exporter import ExportRequest, export
from asap_export.runtime.generate import planned, prefill
from asap_export.runtime.model import Model
from asap_export.runtime.request import GREEDY, Request
from asap_export.runtime.rows import Row, Rows, RowsAtOnce, RowsInTurn, open_rows

IMAGES = Path(__file__).parents[2] / "examples" / "images"
QUESTIONS = [
    Request((IMAGES / "mat.png",), "What is it?", 9, **GREEDY, keep=20),
    Request((), "Is there nothing to be seen at all?", 4, **GREEDY),
    Request((IMAGES / "tower.png",), "Is this a tower, or is it not?", 9, **GREEDY),
    Request((IMAGES / "sign.png", IMAGES / "mat.png"), "Which?", 6, **GREEDY, keep=100_000),
    Request((IMAGES / "sign.png",), "What does it say?", 7, **GREEDY, keep_ratio=0.5),
]
# When each joins, in steps. The second ends first, from within: the last row takes its place.
JOINING = [0, 0, 1, 2, 6]


@pytest.fixture(params=["pruned_bundle", "dense_bundle", "untrimmed_bundle", "fp16_bundle"], scope="module")
def model(request, shared) -> Model:
    return asap_export.load(request.getfixturevalue(request.param), "cpu", 1)


def fitting(model: Model) -> list[Request]:
    """The questions, without budgets where nothing is pruned."""
    if model.bundle.manifest.pruning.prunes:
        return QUESTIONS
    return [replace(question, keep=None, keep_ratio=None) for question in QUESTIONS]


def begin(model: Model, rows: Rows, question: Request) -> tuple[Row, int]:
    """A row, and the first token of its answer."""
    graphs = model.graphs
    prompt = model.reader.read(question.prompt, question.images)
    empty = graphs.empty_cache(1)
    step = prefill(graphs, planned(graphs, [prompt], [question], empty), empty).step
    return rows.add(step.cache), int(step.logits[0].argmax())


def answered(model: Model, rows: Rows) -> list[list[int]]:
    """All questions, each as many tokens as it asks for."""
    written: dict[int, list[int]] = {}
    running: dict[int, Row] = {}
    questions, step = fitting(model), 0
    while len(written) < len(QUESTIONS) or running:
        for number, question in enumerate(questions):
            if JOINING[number] == step:
                running[number], token = begin(model, rows, question)
                written[number] = [token]
        if running:
            logits = rows.step(list(running.values()), [written[number][-1] for number in running])
            assert logits.shape == (len(running), model.spec.vocab_size)
            for number, row in zip(list(running), logits, strict=True):
                written[number].append(int(row.argmax()))
                if len(written[number]) == QUESTIONS[number].max_new_tokens:
                    rows.drop(running.pop(number))
        step += 1
    return [written[number] for number in range(len(QUESTIONS))]


def test_each_row_is_answered_as_if_it_were_alone(model: Model) -> None:
    at_once, in_turn = open_rows(model.graphs, 4, 700), RowsInTurn(model.graphs, 4)
    assert isinstance(at_once, RowsAtOnce if model.bundle.manifest.pruning.trim_early_kv else RowsInTurn)
    assert answered(model, at_once) == answered(model, in_turn)


def test_rows_in_turn_go_on_as_an_answer_does(model: Model) -> None:
    alone = [
        model.generate(
            q.images,
            q.prompt,
            q.max_new_tokens,
            keep=q.keep,
            keep_ratio=q.keep_ratio,
            **(GREEDY | {"min_new_tokens": q.max_new_tokens}),
        ).token_ids
        for q in fitting(model)
    ]
    found = answered(model, RowsInTurn(model.graphs, 4))
    ends = model.spec.eos_token_ids
    for one, other in zip(found, alone, strict=True):
        length = next((place for place, token in enumerate(one) if token in ends), len(one))
        assert one[:length] == list(other[:length])


def test_caches_take_what_was_reserved_for_them(pruned_bundle: Path) -> None:
    graphs = asap_export.load(pruned_bundle, "cpu", 1).graphs
    model = graphs.manifest.model
    rows = open_rows(graphs, 3, 100)
    assert (rows.most, rows.places) == (3, 100)
    assert rows.memory == 3 * 100 * model.layers * 2 * model.kv_heads * model.head_dim * 4
    with pytest.raises(
        UserError, match=r"^expected .* of memory for the caches of 8 rows of .* places, found .*; lower rows"
    ):
        open_rows(graphs, 8, 10**9)


def test_a_decoder_without_growing_caches_has_its_rows_in_turn(
    short_checkpoint: Path, tmp_path: Path
) -> None:
    request = ExportRequest(model=str(short_checkpoint), output=tmp_path / "b", cpu_passes=("skipped-cut",))
    model = asap_export.load(export(request).bundle.path, "cpu", 1)
    rows = open_rows(model.graphs, 2)
    assert isinstance(rows, RowsInTurn) and (rows.places, rows.memory) == (None, 0)
    row, token = begin(model, rows, QUESTIONS[0])
    assert np.isfinite(rows.step([row], [token])).all()
