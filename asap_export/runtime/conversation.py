"""Several turns on one KV cache; a later turn may bring images, which are pruned in their turn."""

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from asap_export.runtime.cache import Cache
from asap_export.runtime.images import ImageSource, as_images
from asap_export.runtime.request import Answer, Request
from asap_export.runtime.streaming import TextCallback
from asap_export.runtime.template import Turn

if TYPE_CHECKING:
    from asap_export.runtime.model import Model

__all__ = ["Conversation"]


class Conversation:
    """Made by ``Model.chat``. A turn that fails or is interrupted leaves the conversation as it was."""

    def __init__(self, model: "Model") -> None:
        self.turns: list[Turn] = []
        self._model = model
        self._cache: Cache | None = None
        self._last_token = -1  # sampled last, and not in the cache yet

    def ask(
        self,
        prompt: str,
        images: ImageSource | Sequence[ImageSource] = (),
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        keep: int | None = None,
        keep_ratio: float | None = None,
        budget: float | None = None,
        on_text: TextCallback | None = None,
    ) -> Answer:
        """The next turn; arguments and errors as in ``Model.generate``. The budget is for the images of this
        turn: what earlier ones left in the cache stays."""
        pictures = as_images(images)
        request = Request(
            prompt, pictures, max_new_tokens, temperature, top_p, seed, keep, keep_ratio, budget
        )
        reader = self._model.reader
        started = perf_counter()
        if self.turns:
            read = reader.read_turn(self.turns, prompt, pictures, self._last_token)
        else:
            read = reader.read(prompt, pictures)
        seconds = perf_counter() - started
        [answer], cache = self._model.answer([read], [request], seconds, self._cache, on_text)
        self.turns.append(Turn(prompt, len(pictures), answer.text))
        self._cache, self._last_token = cache, answer.token_ids[-1]
        return answer
