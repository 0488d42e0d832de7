"""What is on disk after an interruption, and when a folder may be continued."""

import pytest

from asap_export.errors import UserError
from asap_export.evaluation.journal import Journal

SETTINGS = {"methods": ["dense"], "limit": None}


def records(picture: int) -> list[dict[str, object]]:
    return [{"id": f"{picture}-{place}", "found": "ä"} for place in range(2)]


def test_what_was_written_is_there_when_it_is_opened_again(tmp_path):
    with Journal(tmp_path / "new" / "out", SETTINGS) as journal:
        assert journal.pictures == []
        journal.append(records(0))
    with Journal(tmp_path / "new" / "out", SETTINGS) as journal:
        assert journal.pictures == [records(0)]
        journal.append(records(1))
        assert journal.pictures == [records(0), records(1)]


@pytest.mark.parametrize("lost", [1, 5, 30, 49])
def test_a_picture_that_was_not_written_whole_is_cut_off(tmp_path, lost):
    with Journal(tmp_path, SETTINGS) as journal:
        for picture in range(2):
            journal.append(records(picture))
    file = tmp_path / "records.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-lost])
    with Journal(tmp_path, SETTINGS) as journal:
        assert journal.pictures == [records(0)]
        assert whole.startswith(file.read_bytes())
        journal.append(records(1))
    assert file.read_bytes() == whole


def test_other_settings_are_refused_with_what_differs_or_begin_anew(tmp_path):
    with Journal(tmp_path, SETTINGS) as journal:
        journal.append(records(0))
    other = SETTINGS | {"limit": 5}
    with pytest.raises(UserError, match="found another limit: 5 instead of null; give overwrite"):
        Journal(tmp_path, other)
    with Journal(tmp_path, other, overwrite=True) as journal:
        assert journal.pictures == []


def test_what_was_killed_before_its_settings_were_written_can_be_begun_again(tmp_path):
    (tmp_path / "records.jsonl").touch()
    with Journal(tmp_path, SETTINGS) as journal:
        journal.append(records(0))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(
        UserError, match=r"expected an empty folder or an evaluation at .*, found something else"
    ):
        Journal(tmp_path, SETTINGS, overwrite=True)
    with pytest.raises(UserError, match="found the file"):
        Journal(tmp_path / "notes.txt", SETTINGS)
    with pytest.raises(UserError, match=r"expected to write to .*notes.txt/out, found: Not a directory"):
        Journal(tmp_path / "notes.txt" / "out", SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_two_at_once_are_refused(tmp_path):
    with Journal(tmp_path, SETTINGS), pytest.raises(UserError, match="expected no other evaluation to write"):
        Journal(tmp_path, SETTINGS)
