"""Continuous batching: rows join and leave at every step, and none waits for another's end."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import numpy.typing as npt

from asap_export.errors import UserError
from asap_export.runtime.generate import Prefilled, PrefillPlan, checked_logits, planned, prefill
from asap_export.runtime.model import Model
from asap_export.runtime.prompt import Prompt
from asap_export.runtime.request import Answer, Request, StoppedBy, Timings
from asap_export.runtime.rows import Row, Rows
from asap_export.runtime.sampling import Sampler
from asap_export.runtime.streaming import TextStream

__all__ = ["Aborted", "Batcher", "Busy", "Done", "Event", "Piece", "Started", "Ticket"]


@dataclass(frozen=True)
class Started:
    """The prompt has been fed."""

    prompt_tokens: int
    visual_tokens: int
    kept_visual_tokens: int


@dataclass(frozen=True)
class Piece:
    """What has been written and will not change."""

    text: str


@dataclass(frozen=True)
class Done:
    """The whole answer; ``waited`` seconds before its prompt was fed."""

    answer: Answer
    waited: float


@dataclass(frozen=True)
class Aborted:
    """The end without an answer. A UserError is the request's or the machine's; anything else is a fault."""

    error: Exception


Event = Started | Piece | Done | Aborted


class Busy(Exception):
    """No more requests are taken: too many wait, or the batcher is closing."""


@dataclass(eq=False)
class Ticket:
    """A submitted request. ``hear`` is told its events, on the batcher's thread, until it is cancelled."""

    plan: PrefillPlan
    request: Request
    preprocess: float
    hear: Callable[[Event], None] = field(repr=False)
    submitted: float = field(default_factory=perf_counter)
    cancelled: bool = False

    def cancel(self) -> None:
        """Nobody listens any more: its row is let go before the next step."""
        self.cancelled = True

    def tell(self, event: Event) -> None:
        """Tell who listens. One who cannot be told is gone, and no reason for other rows to stop."""
        if self.cancelled:
            return
        try:
            self.hear(event)
        except Exception:
            self.cancelled = True


@dataclass(eq=False)
class _Running:
    """A row, what chooses its tokens, and what it has written."""

    ticket: Ticket
    begun: Prefilled
    waited: float
    row: Row
    sampler: Sampler
    stream: TextStream
    seconds: list[float] = field(default_factory=list)


class Batcher:
    """Answers up to ``rows.most`` requests at a time, on a thread of its own; ``most_waiting`` more may wait.

    A step feeds every row its last token. Between two steps at most one prompt is fed, so that rows that write are
    held up by one newcomer at a time.
    """

    def __init__(self, model: Model, rows: Rows, most_waiting: int = 64) -> None:
        self.model, self.rows, self.most_waiting = model, rows, most_waiting
        self._waiting: deque[Ticket] = deque()
        self._running: list[_Running] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def places_filled(self) -> int:
        """Of the caches behind the cut, of all rows."""
        return sum(each.row.filled for each in list(self._running))

    def submit(
        self, prompt: Prompt, request: Request, hear: Callable[[Event], None], preprocess: float = 0.0
    ) -> Ticket:
        """Queue a request whose prompt took ``preprocess`` seconds to read. Raises Busy where no more are taken,
        and UserError where it can never be fed."""
        graphs = self.model.graphs
        plan = planned(graphs, [prompt], [request], graphs.empty_cache(1), self.rows.places)
        ticket = Ticket(plan, request, preprocess, hear)
        with self._changed:
            if self._closing:
                raise Busy("the server is shutting down")
            if len(self._waiting) >= self.most_waiting:
                raise Busy(f"{len(self._waiting)} requests are waiting already")
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def close(self, seconds: float | None = None) -> bool:
        """Take no more requests and answer those that are here; after ``seconds`` those that are left fail.

        Returns whether all were answered.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)
        drained = not self._thread.is_alive()
        for ticket in [*self._waiting, *(each.ticket for each in self._running)]:
            ticket.tell(Aborted(Busy("the server is shutting down")))
            ticket.cancel()
        self._thread.join()
        return drained

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._running or self._closing):
                    self._changed.wait()
                if self._closing and not self._waiting and not self._running:
                    return
            self._let_go()
            self._admit()
            if self._running:
                self._step()

    def _let_go(self) -> None:
        for each in [each for each in self._running if each.ticket.cancelled]:
            self._leave(each)

    def _admit(self) -> None:
        """Feed the prompt of the next one that waits, if there is a row for it."""
        while self._waiting and len(self._running) < self.rows.most:
            ticket = self._waiting.popleft()
            if ticket.cancelled:
                continue
            try:
                self._begin(ticket)
            except Exception as error:
                ticket.tell(Aborted(error))
            return

    def _begin(self, ticket: Ticket) -> None:
        graphs, plan = self.model.graphs, ticket.plan
        waited = perf_counter() - ticket.submitted
        begun = prefill(graphs, plan, graphs.empty_cache(1))
        how = ticket.request.generation(graphs.manifest.generation)
        context, ends = plan.prompts[0].context(), graphs.manifest.model.eos_token_ids
        each = _Running(
            ticket, begun, waited, self.rows.add(begun.step.cache),
            Sampler(how, ticket.request.seed, context, ends), TextStream(self.model.reader.text, how.stop),
        )  # fmt: skip
        self._running.append(each)
        (visual,), (kept,) = begun.visual_tokens, begun.kept_visual_tokens
        ticket.tell(Started(int(plan.new_mask.sum()), visual, kept))
        self._write(each, begun.step.logits[0])

    def _step(self) -> None:
        rows, started = list(self._running), perf_counter()
        try:
            logits = self.rows.step([each.row for each in rows], [each.stream.token_ids[-1] for each in rows])
        except Exception as error:  # no row has gone on
            for each in rows:
                self._leave(each, Aborted(error))
            return
        took = perf_counter() - started
        for each, row in zip(rows, logits, strict=True):
            each.seconds.append(took)
            self._write(each, row)

    def _write(self, each: _Running, logits: npt.NDArray[np.float32]) -> None:
        """The next token of a row, from its logits [V]; the row leaves with its last one."""
        manifest, stream = self.model.graphs.manifest, each.stream
        try:
            token = each.sampler.next(checked_logits(logits[None], manifest)[0])
        except UserError as error:
            self._leave(each, Aborted(error))
            return
        stopped = stream.put(token)
        ended = token in manifest.model.eos_token_ids
        if not (stopped or ended or len(stream.token_ids) >= each.ticket.plan.most_new[0]):
            if piece := stream.piece():
                each.ticket.tell(Piece(piece))
            return
        if piece := stream.rest():
            each.ticket.tell(Piece(piece))
        answer = _answer(each, "end" if ended else "stop" if stopped else "length")
        self._leave(each, Done(answer, each.waited))

    def _leave(self, each: _Running, last: Event | None = None) -> None:
        self._running.remove(each)
        self.rows.drop(each.row)
        if last is not None:
            each.ticket.tell(last)


def _answer(each: _Running, stopped_by: StoppedBy) -> Answer:
    begun, stream = each.begun, each.stream
    timings = Timings(each.ticket.preprocess, *begun.seconds, decode=tuple(each.seconds))
    return Answer(
        stream.text(),
        tuple(stream.token_ids),
        begun.visual_tokens[0],
        begun.kept_visual_tokens[0],
        tuple(begun.kept_index[0]),
        stopped_by,
        timings,
    )
