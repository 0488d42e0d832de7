"""Rows join and leave; who cannot be told, fails or has no time is no reason for others to stop."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import asap_export
from asap_export.errors import UserError
from asap_export.runtime.request import GREEDY, Request
from asap_export.runtime.rows import open_rows
from asap_export.serving.batcher import Aborted, Batcher, Busy, Done, Event, Piece, Started

IMAGES = Path(__file__).parents[2] / "examples" / "images"


class Heard:
    """The events of one request."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ended = threading.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Done | Aborted):
            self.ended.set()

    @property
    def last(self) -> Event:
        assert self.ended.wait(60)
        return self.events[-1]


@pytest.fixture
def batcher(pruned_bundle: Path) -> Iterator[Batcher]:
    model = asap_export.load(pruned_bundle, "cpu", 1)
    found = Batcher(model, open_rows(model.graphs, 2, 900), 4)
    yield found
    found.close(0)


def submit(
    batcher: Batcher, hear: Callable[[Event], None], tokens: int = 5, text: str = "What is it?"
) -> object:
    long = {**GREEDY, "min_new_tokens": tokens}
    request = Request((IMAGES / "mat.png",), text, tokens, **long)
    return batcher.submit(batcher.model.reader.read(text, request.images), request, hear)


def test_events_come_in_order_and_add_up_to_the_answer(batcher: Batcher) -> None:
    heard = Heard()
    submit(batcher, heard)
    assert isinstance(heard.last, Done)
    started, *pieces, done = heard.events
    assert isinstance(started, Started) and isinstance(done, Done)
    assert (started.visual_tokens, started.kept_visual_tokens) == (
        done.answer.visual_tokens,
        done.answer.kept_visual_tokens,
    )
    assert "".join(each.text for each in pieces if isinstance(each, Piece)) == done.answer.text
    assert len(done.answer.timings.decode) == len(done.answer.token_ids) - 1


def test_one_who_cannot_be_told_does_not_stop_the_others(batcher: Batcher) -> None:
    def gone(_: Event) -> None:
        raise RuntimeError("the loop is closed")

    heard = Heard()
    submit(batcher, gone, 500)
    submit(batcher, heard)
    assert isinstance(heard.last, Done)


def test_what_can_never_fit_is_refused_at_once_and_what_fails_later_is_told(
    batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UserError, match=r"expected at most 900 tokens in a row's cache, found .*; lower max_new_tokens"
    ):
        submit(batcher, Heard(), 899)
    first, second = Heard(), Heard()
    step = batcher.rows.step

    def fails(*given: object) -> object:
        monkeypatch.setattr(batcher.rows, "step", step)
        raise MemoryError("no room")

    monkeypatch.setattr(batcher.rows, "step", fails)
    submit(batcher, first)
    assert isinstance(first.last, Aborted) and isinstance(first.last.error, MemoryError)
    submit(batcher, second)
    assert isinstance(second.last, Done)


def test_closing_answers_those_that_are_here_or_tells_them(batcher: Batcher) -> None:
    short, long = Heard(), Heard()
    submit(batcher, short, 3)
    assert isinstance(short.last, Done)
    submit(batcher, long, 600)
    assert not batcher.close(0.2)
    assert isinstance(long.last, Aborted)
    with pytest.raises(Busy, match="shutting down"):
        submit(batcher, Heard())
