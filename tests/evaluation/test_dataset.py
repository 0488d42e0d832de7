"""The forms that data may have, and the line that each mistake gets."""

import json
import shutil
from pathlib import Path

import pytest

from asap_export.errors import UserError
from asap_export.evaluation.dataset import open_dataset


def written(folder: Path, *lines: object) -> Path:
    """A JSON-lines file beside an image red.png and a text text.png."""
    (folder / "text.png").write_text("no image")
    file = folder / "data.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return file


def test_questions_are_put_together_by_image(data):
    dataset = open_dataset(data)
    pictures = list(dataset)
    assert [picture.name for picture in pictures] == ["red.png", "wide/blue.png", "green.jpg"]
    assert [asked.text for asked in pictures[0].questions] == [
        "What color?",
        "How large is the picture?",
        "And is it round?",
    ]
    assert pictures[0].questions[1].answers == ("small", "large")
    assert [(asked.id, asked.kind) for asked in pictures[0].questions] == [
        ("1", "color"),
        ("2", "size"),
        ("5", ""),
    ]
    assert open_dataset(data / "questions.jsonl").fingerprint == dataset.fingerprint


def test_a_limit_counts_questions(data):
    assert [len(picture.questions) for picture in open_dataset(data, limit=3)] == [2, 1]


def test_other_names_of_the_fields(data, tmp_path):
    shutil.copy(data / "red.png", tmp_path)
    line = {"id": 12, "image": "red.png", "question": "How many?", "answer": 3, "question_type": "count"}
    [picture] = open_dataset(written(tmp_path, line, ""))
    [asked] = picture.questions
    assert (asked.id, asked.answers, asked.kind) == ("12", ("3",), "count")


def test_a_folder_may_hold_a_file_for_each_split(data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "data")
    (folder / "questions.jsonl").rename(folder / "test.jsonl")
    shutil.copy(folder / "test.jsonl", folder / "validation.jsonl")
    assert open_dataset(folder, "validation").name == "validation.jsonl"
    with pytest.raises(UserError, match=r"found test.jsonl, validation.jsonl; name the file"):
        open_dataset(folder)
    with pytest.raises(UserError, match="expected no split with the file"):
        open_dataset(folder / "test.jsonl", "test")


def test_the_synthetic_set_is_the_same_every_time_and_splits_differ():
    dataset, again = (open_dataset("synthetic", "validation", 20) for _ in range(2))
    assert dataset.size == 3 and dataset.fingerprint == again.fingerprint
    assert [len(picture.questions) for picture in dataset] == [8, 8, 4]
    first = dataset.picture(1)
    assert first.questions == again.picture(1).questions and first.questions[0].id == "validation-1-0"
    assert open_dataset("synthetic", limit=20).fingerprint != dataset.fingerprint
    assert open_dataset("synthetic").size == 250


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "expected questions in .*data.jsonl, found none"),
        ([""], "expected questions in .*, found none"),
        (["{"], "expected a JSON object in line 1 of .*data.jsonl, found {"),
        ([{"image": "red.png", "question": "a", "answer": "b"}, "[1]"], "in line 2 of .*, found \\[1\\]"),
        ([{"question": "a", "answer": "b"}], "expected a text as 'image' in line 1 of .*, found none"),
        ([{"image": "red.png", "answer": "b"}], "expected a text as 'question' in line 1 of .*, found none"),
        ([{"image": "red.png", "question": "a"}], "expected 'answer', or a list of 'answers', in line 1"),
        ([{"image": "red.png", "question": "a", "answers": []}], "in line 1 of .*, found none"),
        ([{"image": "red.png", "question": "a", "answer": {"b": 1}}], "in line 1 of .*, found .*b.*1"),
        (
            [{"image": "no.png", "question": "a", "answer": "b"}],
            "the image of line 1 of .* at .*no.png, found no",
        ),
        (
            [{"image": "text.png", "question": "a", "answer": "b"}],
            "an image for line 1 of .*, found another kind",
        ),
    ],
)
def test_a_malformed_line_is_refused_by_its_number(data, tmp_path, lines, said):
    shutil.copy(data / "red.png", tmp_path)
    file = written(tmp_path, *lines)
    with pytest.raises(UserError, match=said):
        open_dataset(file)


def test_what_is_no_data_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"expected synthetic, a JSON-lines file or a folder .*, found nothing at"
    ):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"expected one .jsonl file in .*, found none"):
        open_dataset(tmp_path)
    with pytest.raises(UserError, match="expected limit of at least 1 question, found 0"):
        open_dataset("synthetic", limit=0)
    (tmp_path / "data.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="expected JSON lines in"):
        open_dataset(tmp_path)
