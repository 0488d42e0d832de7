"""The HTTP interface: OpenAI's routes, health, metrics; keys, limits, the log of requests."""

import asyncio
import hmac
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter, time
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from asap_export.errors import UserError
from asap_export.runtime.model import Model
from asap_export.runtime.prompt import Prompt
from asap_export.runtime.request import Answer
from asap_export.runtime.request import Request as Question
from asap_export.serving.batcher import Aborted, Batcher, Busy, Done, Event
from asap_export.serving.completion import Completion
from asap_export.serving.images import ImagePolicy
from asap_export.serving.limits import LimitedBodies
from asap_export.serving.metrics import Metrics
from asap_export.serving.prompts import Prompts, image_urls
from asap_export.serving.schema import ChatRequest

__all__ = ["ServerSettings", "create_app"]

_LOG = logging.getLogger("asap_export.serving")
_POLL = 0.5  # seconds between looks whether a client is still there
_RETRY = 5  # seconds that a client should wait where all places are taken
_OPEN = ("/health/live", "/health/ready")  # without a key
_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")
_FIELDS = {name.replace("_", "-"): name for name in ChatRequest.model_fields}
_FIELDS |= {"max-new-tokens": "max_tokens", "min-new-tokens": "min_tokens"}
_KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


@dataclass(frozen=True)
class ServerSettings:
    """``name``: of the model; ``key``: that clients have to send; ``seconds``: that an answer may take; ``drain``:
    that answers have to end when the server closes; ``most_bytes``: of a request."""

    name: str
    key: str | None = None
    images: ImagePolicy = field(default_factory=ImagePolicy)
    seconds: float = 600.0
    drain: float = 30.0
    most_bytes: int = 50_000_000


def create_app(model: Model, batcher: Batcher, settings: ServerSettings) -> FastAPI:
    """The application. It closes the batcher when it shuts down."""
    server = _Server(model, batcher, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        server.ready = True
        yield
        server.ready = False
        await asyncio.to_thread(batcher.close, settings.drain)

    # Interactive pages of documentation would fetch their programs from elsewhere; /openapi.json has it all.
    app = FastAPI(title="asap-export", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_api_route("/v1/chat/completions", server.complete, methods=["POST"], response_model=None)
    app.add_api_route("/v1/models", server.models, methods=["GET"])
    app.add_api_route("/v1/models/{name:path}", server.model, methods=["GET"])
    app.add_api_route("/health/live", server.live, methods=["GET"])
    app.add_api_route("/health/ready", server.is_ready, methods=["GET"], response_model=None)
    app.add_api_route("/metrics", server.metrics_text, methods=["GET"], response_model=None)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.middleware("http")(server.guarded)
    app.add_middleware(LimitedBodies, most=settings.most_bytes, error=_body)
    return app


class _Server:
    """What the routes share."""

    def __init__(self, model: Model, batcher: Batcher, settings: ServerSettings) -> None:
        self._model, self._batcher, self._settings = model, batcher, settings
        self._prompts = Prompts(model.bundle, model.reader)
        self._metrics = Metrics(batcher)
        self._card = {
            "id": settings.name,
            "object": "model",
            "created": int(time()),
            "owned_by": "asap-export",
        }
        self.ready = False

    async def guarded(self, request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        """Around every route: an id, the key, a line in the log, a count."""
        request.state.id = request.headers.get("x-request-id", uuid4().hex)[:64]
        request.state.facts = {}
        started = perf_counter()
        response = await go_on(request) if self._may(request) else _error(401, "expected the server's key")
        response.headers["x-request-id"] = request.state.id
        self._metrics.requests.labels(str(response.status_code)).inc()
        facts = {"id": request.state.id, "method": request.method, "path": request.url.path}
        facts |= {"status": response.status_code, "seconds": round(perf_counter() - started, 4)}
        _LOG.info(json.dumps(facts | request.state.facts))
        return response

    async def complete(self, body: ChatRequest, request: Request) -> Response:
        """OpenAI's chat completion."""
        self._check_name(body.model)
        started = perf_counter()
        prompt, question = await asyncio.to_thread(self._read, body)
        request.state.facts |= {"user": body.user} if body.user else {}
        events = self._events(prompt, question, perf_counter() - started, request)
        completion = Completion(events, self._settings.name, self._finished)
        request.state.facts["completion"] = completion.id
        if not body.stream:
            return JSONResponse(await completion.whole())
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        pieces = completion.pieces(include_usage)
        first = await anext(pieces)  # whatever is refused is no stream yet
        return StreamingResponse(_with_errors(first, pieces), media_type="text/event-stream")

    async def models(self) -> dict[str, Any]:
        """The one model that there is."""
        return {"object": "list", "data": [self._card]}

    async def model(self, name: str) -> dict[str, Any]:
        """Its card."""
        self._check_name(name)
        return self._card

    async def live(self) -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "live"}

    async def is_ready(self) -> Response:
        """Whether it takes requests."""
        word, status = ("ready", 200) if self.ready else ("closing", 503)
        return JSONResponse({"status": word}, status)

    async def metrics_text(self) -> Response:
        """For Prometheus."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    def _may(self, request: Request) -> bool:
        key = self._settings.key
        if key is None or request.url.path in _OPEN:
            return True
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.encode(), key.encode())

    def _check_name(self, name: str) -> None:
        if name != self._settings.name:
            raise HTTPException(
                404, f"expected the model {self._settings.name}, found {name}; see /v1/models"
            )

    def _read(self, body: ChatRequest) -> tuple[Prompt, Question]:
        images = [self._settings.images.read(url) for url in image_urls(body.messages)]
        text = self._prompts.written(body.messages)
        question = Question(
            images, text, body.most_tokens, body.min_tokens, body.temperature, body.top_k, body.top_p, body.min_p,
            body.repetition_penalty, body.no_repeat_ngram_size, body.stop or None,
            secrets.randbits(31) if body.seed is None else body.seed,
            body.keep, body.keep_ratio, body.budget, template=False,
        )  # fmt: skip
        return self._model.reader.read(text, question.images, template=False), question

    async def _events(
        self, prompt: Prompt, question: Question, preprocess: float, request: Request
    ) -> AsyncIterator[Event]:
        """Those of a row, until its last one; who leaves early lets it go."""
        loop, told = asyncio.get_running_loop(), asyncio.Queue[Event]()

        def hear(event: Event) -> None:
            loop.call_soon_threadsafe(told.put_nowait, event)

        ticket = self._batcher.submit(prompt, question, hear, preprocess)
        deadline = loop.time() + self._settings.seconds
        looked, event = loop.time(), None
        try:
            while not isinstance(event, Done | Aborted):
                if loop.time() > deadline:
                    raise HTTPException(504, f"no answer within {self._settings.seconds:g} s")
                if loop.time() > looked + _POLL:
                    if await request.is_disconnected():
                        raise HTTPException(499, "the client has left")
                    looked = loop.time()
                try:
                    event = await asyncio.wait_for(told.get(), _POLL)
                except TimeoutError:
                    continue
                yield event
        finally:
            ticket.cancel()

    def _finished(self, answer: Answer, prompt_tokens: int, waited: float) -> None:
        self._metrics.answered(answer, prompt_tokens, waited)


async def _with_errors(first: str, pieces: AsyncIterator[str]) -> AsyncIterator[str]:
    """A stream that has begun has its status; what fails then is an event of its own."""
    yield first
    try:
        async for piece in pieces:
            yield piece
    except Exception as error:
        if not isinstance(error, UserError | HTTPException):
            _LOG.exception("an answer failed")
        yield f"data: {json.dumps(_body(500, _said(error)))}\n\n"


def _said(error: Exception) -> str:
    if isinstance(error, UserError):  # options that a request has a field for, by that field's name
        return _OPTION.sub(lambda option: _FIELDS.get(option[1], option[0]), error.message)
    return (
        str(error.detail)
        if isinstance(error, HTTPException)
        else "an answer failed; the server's log says why"
    )


def _body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}


def _error(
    status: int, message: str, param: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    return JSONResponse(_body(status, message, param), status, headers)


async def _of_user(_: Request, error: Any) -> Response:
    return _error(400, _said(error))


async def _of_http(_: Request, error: Any) -> Response:
    return _error(error.status_code, _said(error))


async def _of_queue(_: Request, error: Any) -> Response:
    return _error(429, f"{error}; try again in {_RETRY} s", headers={"Retry-After": str(_RETRY)})


async def _of_fields(_: Request, error: Any) -> Response:
    """What is wrong, by the field's name: the innermost, where a field may be of several kinds."""
    first = max(error.errors(), key=lambda each: len(each["loc"]))
    place = [str(each) for each in first["loc"] if each != "body"]
    if first["type"] == "json_invalid":
        return _error(400, "expected a body in JSON, found another")
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        said = "this server does not support it; leave it out"
    name = ".".join(place)
    return _error(400, f"{name}: {said}" if name else said, name or None)


async def _of_fault(_: Request, error: Any) -> Response:
    _LOG.error("a request failed", exc_info=error)
    return _error(500, _said(error))


_HANDLERS: dict[Any, Any] = {
    UserError: _of_user,
    HTTPException: _of_http,
    Busy: _of_queue,
    RequestValidationError: _of_fields,
    Exception: _of_fault,
}
