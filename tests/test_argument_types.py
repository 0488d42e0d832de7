"""Arguments of another type than a program should give: one line that names types and shows no value."""

from typing import Any

import numpy as np
import pytest

import asap_export
from asap_export.errors import UserError
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.runtime.request import Request


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_new_tokens": "5"}, "expected max_new_tokens as int, found a value of type str; convert it"),
        ({"max_new_tokens": 5.5}, "expected max_new_tokens as int, found a value of type float; convert it"),
        ({"temperature": "warm"}, "expected temperature as float, found a value of type str; convert it"),
        ({"top_k": True}, "expected top_k as int, found a value of type bool; convert it"),
        ({"keep": 2.5}, "expected keep as int, found a value of type float; convert it"),
        ({"seed": None}, "expected seed as int, found a value of type NoneType; convert it"),
        ({"stop": 5}, "expected stop as str or list, found a value of type int; convert it"),
        ({"stop": [5]}, "expected stop as str, found a value of type list; convert it"),
        ({"template": "yes"}, "expected template as bool, found a value of type str; convert it"),
        ({"keep": np.zeros(1000)}, "expected keep as int, found a value of type ndarray; convert it"),
    ],
)
def test_a_request(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        Request((), "What?", **wrong)
    assert str(caught.value) == said


def test_numpys_numbers_are_numbers() -> None:
    request = Request(
        (), "What?", np.int64(5), temperature=np.float32(0.5), keep=np.int32(7), template=np.bool_(True)
    )
    assert (request.max_new_tokens, request.temperature, request.keep) == (5, 0.5, 7)
    assert type(request.max_new_tokens) is int and request.template is True


def test_settings_of_an_export() -> None:
    with pytest.raises(UserError, match=r"^expected method among asap, fastv, random, none, found 'best'$"):
        PruningConfig(method="best")  # type: ignore[arg-type]
    with pytest.raises(
        UserError, match=r"^expected prune_after as int, found a value of type str; convert it$"
    ):
        PruningConfig(prune_after="2")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^expected keep as int, found a value of type str; convert it$"):
        Budget(keep="40")  # type: ignore[arg-type]


def test_what_is_no_path() -> None:
    with pytest.raises(
        UserError, match=r"^expected path as text or a path, found a value of type int; convert it$"
    ):
        asap_export.load(5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^expected model as text or a path, found a value of type bytes;"):
        asap_export.export(b"demo")  # type: ignore[arg-type]


@pytest.mark.parametrize(("threads", "kind"), [(2.5, "float"), ("2", "str"), (True, "bool")])
def test_threads_that_are_no_number(threads: Any, kind: str) -> None:
    with pytest.raises(
        UserError, match=rf"^expected threads as int, found a value of type {kind}; convert it$"
    ):
        asap_export.load("demo.bundle", threads=threads)
