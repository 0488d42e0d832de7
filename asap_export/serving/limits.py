"""A limit on the size of a request's body."""

from typing import Any

from fastapi.responses import JSONResponse

__all__ = ["LimitedBodies"]


class LimitedBodies:
    """An ASGI application in which a request of more than ``most`` bytes is answered with status 413.

    ``error`` makes the body of that answer from a sentence.
    """

    def __init__(self, app: Any, most: int, error: Any) -> None:
        self._app, self._most = app, most
        said = f"expected a request of at most {most:,} bytes, found more; scale its images down"
        self._refusal = JSONResponse(error(413, said), 413)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI has it."""
        come, refused = 0, False

        async def counted() -> Any:
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            return message if come <= self._most else {"type": "http.disconnect"}

        async def sent(message: Any) -> None:
            nonlocal refused
            if come <= self._most:
                await send(message)
            elif not refused:  # whatever the application says of a body that broke off
                refused = True
                await self._refusal(scope, receive, send)

        await self._app(scope, counted, sent)
        if come > self._most and not refused:
            await self._refusal(scope, receive, send)
