"""Text while it is being written."""

from collections.abc import Callable, Generator, Iterator, Sequence

from asap_export.errors import UserError
from asap_export.runtime.request import Answer

__all__ = ["AnswerStream", "TextStream"]


class TextStream:
    """Turns tokens into pieces of text whose sum is the text of all of them, without whitespace in front.

    A piece ends where a character ends: the bytes of one may come in several tokens. All tokens are decoded
    each time, because what a token reads as depends on its neighbours. The text ends in front of the first of the
    ``stop`` strings; ``decode`` is asked for special tokens too (``special=True``), which may be such strings.
    """

    def __init__(self, decode: Callable[..., str], stop: Sequence[str] = ()) -> None:
        self.token_ids: list[int] = []
        self.stopped = False  # by a stop string
        self._decode, self._stop = decode, stop
        self._told = 0  # characters

    def put(self, token_id: int) -> bool:
        """One more token; whether it completes a stop string, behind which nothing is to come."""
        self.token_ids.append(token_id)
        if self._stop:
            written = self._decode(self.token_ids, special=True)
            self.stopped = any(stop in written for stop in self._stop)
        return self.stopped

    def piece(self) -> str:
        """What is new and will not change: no part of a character, nor of what may become a stop string."""
        text = self.text()
        return "" if text.endswith("\ufffd") else self._piece(text[: len(text) - self._begun(text)])

    def rest(self) -> str:
        """What has not been told, once all tokens are there."""
        return self._piece(self.text())

    def text(self) -> str:
        text = self._decode(self.token_ids).lstrip()
        if not self.stopped:
            return text
        return text[: min((at for stop in self._stop if (at := text.find(stop)) >= 0), default=len(text))]

    def _begun(self, text: str) -> int:
        """The length of the longest end of ``text`` with which a stop string begins."""
        longest = max(map(len, self._stop), default=1) - 1
        lengths = range(min(longest, len(text)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in self._stop)), 0)

    def _piece(self, text: str) -> str:
        piece = text[self._told :]
        self._told = max(self._told, len(text))
        return piece


class AnswerStream(Iterator[str]):
    """An answer piece by piece, as it is written: ``for piece in stream``, and then ``stream.answer``.

    Nothing is computed ahead of the pieces that are asked for. Who leaves the loop early stops the answer there;
    a conversation is then as it was before. The first piece raises UserError for a budget or a length that does
    not fit.
    """

    def __init__(self, pieces: Generator[str, None, Answer]) -> None:
        self._pieces = pieces
        self._answer: Answer | None = None

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as end:
            self._answer = self._answer or end.value
            raise StopIteration from None

    @property
    def answer(self) -> Answer:
        """The whole answer; what is not written yet is written now."""
        for _ in self:
            pass
        if self._answer is None:
            raise UserError("expected a stream to its end, found one that was broken off; ask again")
        return self._answer

    def close(self) -> None:
        """Break the answer off, if it is not complete."""
        self._pieces.close()
