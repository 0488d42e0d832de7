"""The script that makes golden cases: the stored ones are what it makes, and what it refuses to make."""

import sys
from pathlib import Path

import golden_cases
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from make_golden import CLEAR, Cut, main, read


@pytest.mark.parametrize("file", golden_cases.FILES, ids=lambda file: file.stem)
def test_a_stored_case_is_what_the_method_gives_in_float64(file: Path) -> None:
    inputs, settings, stored = read(file)
    cut = Cut(inputs, settings)
    assert cut.margin > CLEAR
    made = cut.outputs()
    assert made.keys() == stored.keys()
    for name, expected in stored.items():
        assert made[name].dtype == expected.dtype, name
        if expected.dtype == np.int64:
            np.testing.assert_array_equal(made[name], expected, err_msg=name)
        else:  # a rounding to float32 apart
            np.testing.assert_allclose(made[name], expected, rtol=3e-7, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--keep 3 --layout 3x", "expected a layout like 9p,11t,50v,10t with a visual token, found 3x"),
        ("--keep 3 --layout 3t", "with a visual token, found 3t"),
        ("--keep 3 --layout 3v,2p", "found 3v,2p"),
        ("--keep 55", "--keep from 1 to 54"),
        ("--keep 3 --key-heads 3", "expected key heads that divide the heads"),
    ],
)
def test_what_is_no_case_is_refused(options, reason, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--case", "new", "--folder", str(tmp_path), *options.split()])
    assert reason in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_case_that_hangs_on_rounding_and_one_that_is_there_are_refused(tmp_path, capsys, monkeypatch):
    options = ["--case", "new", "--folder", str(tmp_path), "--layout", "2t,9v,2t", "--keep", "3"]
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr("make_golden.CLEAR", 10.0)
        main(options)
    assert "give another --seed" in capsys.readouterr().err
    main(options)
    with pytest.raises(SystemExit):
        main(options)
    assert "expected a new case, found" in capsys.readouterr().err
