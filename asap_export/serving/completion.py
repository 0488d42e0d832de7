"""One chat completion: from the events of its row to what OpenAI's clients read, whole or in pieces."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from time import time
from typing import Any
from uuid import uuid4

from asap_export.runtime.request import Answer
from asap_export.serving.batcher import Aborted, Done, Event, Piece, Started

__all__ = ["Completion"]

_REASONS = {"end": "stop", "stop": "stop", "length": "length"}


@dataclass
class Completion:
    """``events`` are those of a row, in order; ``finished`` is told the answer once it is complete, the tokens of
    its prompt and the seconds it waited."""

    events: AsyncIterator[Event]
    model: str
    finished: Callable[[Answer, int, float], None]

    def __post_init__(self) -> None:
        self.id = f"chatcmpl-{uuid4().hex}"
        self._created = int(time())
        self._prompt_tokens = 0

    async def whole(self) -> dict[str, Any]:
        """The body of the answer. Raises what the row failed with."""
        answer = None
        async for event in self.events:
            answer = self._noted(event) or answer
        assert answer is not None
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": _REASONS[answer.stopped_by],
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage(answer)}

    async def pieces(self, include_usage: bool) -> AsyncIterator[str]:
        """Server-sent events: the role, the text as it is written, the reason of its end, usage where asked for.

        The first one comes with the first token, so that whatever forbids an answer is raised before it.
        """
        answer = None
        async for event in self.events:
            if isinstance(event, Started):
                yield self._chunk({"role": "assistant", "content": ""}, None, include_usage)
            elif isinstance(event, Piece):
                yield self._chunk({"content": event.text}, None, include_usage)
            answer = self._noted(event) or answer
        assert answer is not None
        yield self._chunk({}, _REASONS[answer.stopped_by], include_usage)
        if include_usage:
            yield _event({**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage(answer)})
        yield "data: [DONE]\n\n"

    def _noted(self, event: Event) -> Answer | None:
        if isinstance(event, Aborted):
            raise event.error
        if isinstance(event, Started):
            self._prompt_tokens = event.prompt_tokens
        if not isinstance(event, Done):
            return None
        self.finished(event.answer, self._prompt_tokens, event.waited)
        return event.answer

    def _chunk(self, delta: dict[str, Any], reason: str | None, with_usage: bool) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return _event(chunk | ({"usage": None} if with_usage else {}))

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self._created, "model": self.model}

    def _usage(self, answer: Answer) -> dict[str, Any]:
        written = len(answer.token_ids)
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": written,
            "total_tokens": self._prompt_tokens + written,
            "prompt_tokens_details": {
                "cached_tokens": 0,
                "visual_tokens": answer.visual_tokens,
                "kept_visual_tokens": answer.kept_visual_tokens,
            },
        }


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
