"""Several turns on one KV cache; a later turn may bring images, which are pruned in their turn."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Unpack

from asap_export.errors import UserError
from asap_export.runtime.answering import pieces
from asap_export.runtime.cache import Cache
from asap_export.runtime.graphs import Graphs
from asap_export.runtime.images import ImageSource, as_images
from asap_export.runtime.prompt import Prompt, PromptReader
from asap_export.runtime.request import Answer, Request, Settings
from asap_export.runtime.streaming import AnswerStream
from asap_export.runtime.template import Turn

__all__ = ["Conversation"]


class Conversation:
    """Made by ``Model.chat``. A turn that fails or is broken off leaves the conversation as it was."""

    def __init__(self, reader: PromptReader, graphs: Graphs) -> None:
        self.turns: list[Turn] = []
        self._reader, self._graphs = reader, graphs
        self._cache: Cache | None = None
        self._token_ids: list[int] = []  # of all turns; the last is not in the cache yet

    def __repr__(self) -> str:
        turns = "1 turn" if len(self.turns) == 1 else f"{len(self.turns)} turns"
        return f"<Conversation of {turns}>"

    def ask(
        self,
        images: ImageSource | Sequence[ImageSource],
        prompt: str,
        max_new_tokens: int | None = None,
        **settings: Unpack[Settings],
    ) -> Answer:
        """The next turn; arguments and errors as in ``Model.generate``. The budget is for the images of this
        turn: what earlier ones left in the cache stays."""
        return self.stream(images, prompt, max_new_tokens, **settings).answer

    def stream(
        self,
        images: ImageSource | Sequence[ImageSource],
        prompt: str,
        max_new_tokens: int | None = None,
        **settings: Unpack[Settings],
    ) -> AnswerStream:
        """The next turn piece by piece. It becomes part of the conversation with its last piece."""
        request = Request(as_images(images), prompt, max_new_tokens, **settings)
        started = perf_counter()
        if self.turns:
            *before, last = self._token_ids
            read = replace(self._reader.read_turn(self.turns, prompt, request.images, last), before=before)
        else:
            read = self._reader.read(prompt, request.images)
        return AnswerStream(self._turn(request, read, perf_counter() - started))

    def _turn(self, request: Request, read: Prompt, preprocess: float) -> Generator[str, None, Answer]:
        earlier = len(self.turns)
        answer, cache = yield from pieces(self._reader, self._graphs, read, request, preprocess, self._cache)
        if len(self.turns) != earlier:
            raise UserError("expected one turn at a time, found another one meanwhile; ask again")
        self.turns.append(Turn(request.prompt, len(request.images), answer.text))
        self._cache, self._token_ids = cache, [*read.context(), *answer.token_ids]
        return answer
