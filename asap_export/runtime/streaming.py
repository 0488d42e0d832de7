"""Text while it is being written."""

from collections.abc import Callable, Sequence

__all__ = ["TextCallback", "TextStream"]

TextCallback = Callable[[str], object]


class TextStream:
    """Turns tokens into pieces of text whose sum is the text of all of them, without whitespace in front.

    A piece ends where a character ends: the bytes of one may come in several tokens. All tokens are decoded
    each time, because what a token reads as depends on its neighbours.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], on_text: TextCallback | None = None) -> None:
        self.token_ids: list[int] = []
        self._decode = decode
        self._on_text = on_text
        self._told = 0  # characters

    def put(self, token_id: int) -> None:
        """One more token; calls back where it completes a piece."""
        self.token_ids.append(token_id)
        if self._on_text is not None and not (text := self.text()).endswith("\ufffd"):
            self._tell(text)

    def close(self) -> str:
        """Calls back with what is left, and returns the whole text."""
        text = self.text()
        self._tell(text)
        return text

    def text(self) -> str:
        return self._decode(self.token_ids).lstrip()

    def _tell(self, text: str) -> None:
        if self._on_text is not None and len(text) > self._told:
            self._on_text(text[self._told :])
            self._told = len(text)
