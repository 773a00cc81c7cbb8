"""The HTTP door: predictions by the shortest way, everything that people look at through FastAPI.

One ASGI callable, `Front`, stands in front. It takes `POST /predict` and `POST /models/NAME/predict` itself, because a
framework's route costs more than the whole prediction; the rest goes to one FastAPI application. Errors are problem
documents (RFC 9457) on every route; none repeats any part of the input.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from seatrial.core.clock import monotonic
from seatrial.core.errors import SeatrialError, Unavailable, UsageError, listed
from seatrial.serving import pages
from seatrial.serving.metrics import CONTENT_TYPE
from seatrial.serving.predictor import Answer, ServerFailed, problem

if TYPE_CHECKING:
    from fastapi import FastAPI

    from seatrial.serving.service import Service

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY = 2**20
SLOW_SECONDS = 20.0
_SWEEP_SECONDS = 1.0
_PROBLEM = b"application/problem+json"
_JSON = b"application/json"
_CLOSE = (b"connection", b"close")


class BodyTooLarge(UsageError):
    """A body is larger than this server takes."""

    code = "http.body_too_large"
    http_status: ClassVar[int] = 413


class BodyTooSlow(UsageError):
    """A body did not arrive in time."""

    code = "http.body_too_slow"
    http_status = 408


class BodyEncoded(UsageError):
    """A body is compressed, which predictions do not take."""

    code = "http.body_encoded"
    http_status = 415


class MethodNotAllowed(UsageError):
    """The path exists, but not with this method."""

    code = "http.method_not_allowed"
    http_status = 405


class NotFound(UsageError):
    """Nothing is served at this path, or no deployment has this name."""

    code = "http.not_found"
    http_status = 404


class NotReady(Unavailable):
    """The server has not loaded and proved its releases yet, or nothing is deployed."""

    code = "serving.not_ready"


class WhichModel(UsageError):
    """Several models are served and the path names none."""

    code = "serving.which_model"
    http_status = 404


class Front:
    """The ASGI application of one service.

    max_body: bytes; counted as they arrive, whatever the request claims. slow_seconds: from the first call for
    a body to its last byte.
    """

    def __init__(self, service: Service, *, max_body: int = MAX_BODY, slow_seconds: float = SLOW_SECONDS) -> None:
        self.service = service
        self._max_body = max_body
        self._slow_seconds = slow_seconds
        self._others: FastAPI | None = None
        self._arriving: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if path == "/predict":
                await self._predict(scope, receive, send, None)
            elif path.startswith("/models/") and path.endswith("/predict"):
                await self._predict(scope, receive, send, path[8:-8])
            else:
                await self.others(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:  # a web socket: nothing here speaks it
            await send({"type": "websocket.close", "code": 1003})

    @property
    def others(self) -> FastAPI:
        """The application for every other path; made when it is first asked for."""
        if self._others is None:
            self._others = application(self.service)
        return self._others

    async def _predict(self, scope: Scope, receive: Receive, send: Send, name: str | None) -> None:
        try:
            caller = self._check_head(scope)
            body = await self._body(receive)
            if body is None:
                return  # the caller went away
            predictor = self.service.predictor(name)
        except SeatrialError as error:
            self.service.metrics.failed("", error.code)
            close = isinstance(error, BodyTooLarge | BodyTooSlow | BodyEncoded | MethodNotAllowed)
            await _send(send, problem(error), close=close)
            return
        await _send(send, predictor.handle(body, caller))

    def _check_head(self, scope: Scope) -> str:
        """The caller's name. Raises when the request can be refused before its body is read."""
        if scope["method"] != "POST":
            raise MethodNotAllowed("predictions are asked for with POST.", state="Nothing was predicted.")
        caller = ""
        for name, value in scope["headers"]:
            if name == b"content-length":
                if len(value) > 18 or int(value) > self._max_body:
                    raise self._too_large()
            elif name == b"content-encoding":
                if value.strip().lower() not in (b"", b"identity"):
                    raise BodyEncoded(
                        "the body is compressed.",
                        expected="Predictions take plain JSON.",
                        state="Nothing was predicted.",
                    )
            elif name == b"x-seatrial-caller":
                caller = value.decode("latin-1")
        return caller

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body; None when the caller went away. Raises BodyTooLarge or BodyTooSlow."""
        task = asyncio.current_task()
        if task is None:
            raise ServerFailed("a request came outside of a task.")
        self._arriving[task] = monotonic() + self._slow_seconds
        try:
            message = await receive()
            if message["type"] != "http.request":
                return None
            first: bytes = message.get("body", b"")
            if not message.get("more_body", False):
                if len(first) > self._max_body:
                    raise self._too_large()
                return first
            parts = [first]
            size = len(first)
            while message.get("more_body", False):
                message = await receive()
                if message["type"] != "http.request":
                    return None
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > self._max_body:
                    raise self._too_large()
            return b"".join(parts)
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            raise BodyTooSlow(
                f"the body was not complete after {self._slow_seconds:g} seconds.",
                state="Nothing was predicted; the connection is closed.",
            ) from None
        finally:
            del self._arriving[task]
            self._late.discard(task)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            "the body is too large.",
            expected=f"At most {self._max_body} bytes are taken.",
            state="Nothing was predicted; the connection is closed.",
        )

    # -- what goes on between requests

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        tasks = [asyncio.create_task(self._sweep()), asyncio.create_task(self.service.watch())]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        self.service.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _sweep(self) -> None:
        """Stop waiting for bodies that are overdue. One sweep a second costs less than a timer for each request."""
        while True:
            await asyncio.sleep(min(_SWEEP_SECONDS, self._slow_seconds / 2))
            now = monotonic()
            for task in [task for task, due in self._arriving.items() if due < now and task not in self._late]:
                self._late.add(task)
                task.cancel()


async def _send(send: Send, answer: Answer, *, close: bool = False) -> None:
    body = answer.body
    headers = [
        (b"content-type", _JSON if answer.status == 200 else _PROBLEM),
        (b"content-length", str(len(body)).encode()),
    ]
    if close:
        headers.append(_CLOSE)
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def application(service: Service) -> FastAPI:
    """The FastAPI application for everything but predictions."""
    from fastapi import FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse
    from starlette.exceptions import HTTPException

    app = FastAPI(title="seatrial", docs_url=None, redoc_url=None, openapi_url=None)

    def json(value: Any, status: int = 200, kind: bytes = _JSON) -> Response:
        return Response(msgspec.json.encode(value), status, media_type=kind.decode())

    def refusal(error: SeatrialError, headers: dict[str, str] | None = None) -> Response:
        answer = problem(error)
        return Response(answer.body, answer.status, headers, media_type=_PROBLEM.decode())

    @app.get("/health", summary="Is the process alive?", response_model=None)
    def health() -> Response:
        return json({"live": True})

    @app.get("/ready", summary="Are all releases loaded and proved?", response_model=None)
    def ready() -> Response:
        state = service.state()
        return json(state, 200 if state["ready"] else 503)

    @app.get("/metrics", summary="Metrics for Prometheus.", response_model=None)
    def metrics() -> Response:
        return Response(service.metrics.render(), headers={"content-type": CONTENT_TYPE})

    @app.get("/openapi.json", summary="This document.", response_model=None)
    def openapi() -> Response:
        return json(pages.openapi(service, app.openapi()))

    @app.get("/docs", summary="The same for people.", response_model=None)
    def docs() -> Response:
        return HTMLResponse(pages.docs(pages.openapi(service, app.openapi())), headers=pages.SAFE_HEADERS)

    @app.get("/", summary="What is served here?", response_model=None)
    def root() -> Response:
        return HTMLResponse(pages.front(service.state()), headers=pages.SAFE_HEADERS)

    @app.exception_handler(HTTPException)
    def refused(_request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "GET")
            return refusal(MethodNotAllowed("this path does not take this method.", state=""), {"Allow": allowed})
        if error.status_code == 404:
            paths = ["/predict", "/models/NAME/predict", "/health", "/ready", "/metrics", "/docs"]
            return refusal(
                NotFound("nothing is served at this path.", expected=f"There are {listed(paths)}.", state="")
            )
        return refusal(UsageError("the request was refused.", state=""))

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, _error: RequestValidationError) -> Response:
        return refusal(UsageError("the request's parameters are wrong.", state=""))

    @app.exception_handler(Exception)
    def failed(_request: Request, _error: Exception) -> Response:
        return refusal(ServerFailed("the server failed at this request."))

    return app
