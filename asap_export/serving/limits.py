"""A limit on the size of a request's body, said or counted."""

from typing import Any

from starlette.exceptions import HTTPException

__all__ = ["LimitedBodies"]


class LimitedBodies:
    """An ASGI application in which a request of more than ``most`` bytes fails with status 413."""

    def __init__(self, app: Any, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI has it."""
        come = 0

        async def counted() -> Any:
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            if come > self._most:
                words = (
                    f"expected a request of at most {self._most:,} bytes, found more; scale its images down"
                )
                raise HTTPException(413, words)
            return message

        await self._app(scope, counted, send)
