"""The HTTP door: predictions by the shortest way, everything that people look at through FastAPI.

One ASGI callable, `Front`, stands in front. `POST /predict` and `POST /models/NAME/predict` are answered by the
connection itself (`serving.doors.protocol`), or, under another server and for what the connection leaves, by `Front`,
which waits for others off the event loop (`serving.scoring.waiting`); the rest goes to one FastAPI application. Errors
are problem documents (RFC 9457) on every route; none repeats any part of the input.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

import seatrial
from seatrial.core.clock import monotonic
from seatrial.core.errors import SeatrialError, UsageError, listed
from seatrial.core.types import Field
from seatrial.serving.doors.ways import door, through
from seatrial.serving.meters.metrics import CONTENT_TYPE
from seatrial.serving.scoring.predictor import Answer, Draft, Later, Predictor, ServerFailed, finish, problem, shadow
from seatrial.serving.scoring.waiting import Waiting
from seatrial.serving.service import NotFound, Service

if TYPE_CHECKING:
    from fastapi import FastAPI

    from seatrial.serving.doors.container import Platform
    from seatrial.serving.doors.open_inference import Door
    from seatrial.serving.doors.protocol import Turn
    from seatrial.serving.doors.traces import Traces

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

Read = Callable[[bytes, Sequence[Field]], tuple[bytes, Callable[[Answer], Answer]]]
"""The body of a request in another form and a deployment's fields -> the same in our own form, and how a prediction is
told in that other form. Raises a SeatrialError for what cannot be read."""

Refused = Callable[[Answer], Answer]

MAX_BODY = 2**20
SLOW_SECONDS = 20.0
PROBLEM = b"application/problem+json"
JSON = b"application/json"
_CLOSE = (b"connection", b"close")
_LOGGER = logging.getLogger("seatrial.serving")


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


class HeadTooLarge(UsageError):
    """A request's head is larger than this server takes."""

    code = "http.head_too_large"
    http_status = 431


class NotHttp(UsageError):
    """What came on a connection is no HTTP request."""

    code = "http.not_http"


class MethodNotAllowed(UsageError):
    """The path exists, but not with this method."""

    code = "http.method_not_allowed"
    http_status = 405


class Front:
    """The ASGI application of one service.

    max_body: bytes; counted as they arrive, whatever the request claims. slow_seconds: from the end of a request's head
    to the last byte of its body. platform: whose container this is, whose routes are answered beside our own.
    """

    def __init__(
        self,
        service: Service,
        *,
        max_body: int = MAX_BODY,
        slow_seconds: float = SLOW_SECONDS,
        platform: Platform | None = None,
    ) -> None:
        self.service = service
        self.platform = platform
        self.max_body = max_body
        self.slow_seconds = slow_seconds
        self._others: FastAPI | None = None
        self._waiting = Waiting(service.online)
        self._door: Door | None = None
        self._turn: Turn | None = None
        self.traces: Traces | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            came_by = door(scope["path"], None if self.platform is None else self.platform.predict)
            await through(came_by, self.service.metrics, self._answer, scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:  # a web socket: nothing here speaks it
            await send({"type": "websocket.close", "code": 1003})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if self.platform is not None and path in (self.platform.health, self.platform.predict):
            await self._for_platform(self.platform, scope, receive, send)
        elif path == "/predict":
            await self._predict(scope, receive, send, None)
        elif path.startswith("/models/") and path.endswith("/predict"):
            await self._predict(scope, receive, send, path[8:-8])
        elif path == "/invocations":
            await self._invoke(scope, receive, send, None)
        elif path.startswith("/models/") and path.endswith("/invocations"):
            await self._invoke(scope, receive, send, path[8:-12])
        elif path == "/v2" or path.startswith("/v2/"):
            await self.open_inference(scope, receive, send)
        else:
            await self.others(scope, receive, send)

    @property
    def others(self) -> FastAPI:
        """The application for every other path; made when it is first asked for."""
        if self._others is None:
            self._others = application(self.service)
        return self._others

    @property
    def open_inference(self) -> Door:
        """What answers below /v2; made when it is first asked for."""
        if self._door is None:
            from seatrial.serving.doors.open_inference import Door

            self._door = Door(self)
        return self._door

    def draft(self, name: str | None, body: bytes, caller: str, headers: Headers = ()) -> Draft:
        """The answer of a deployment, not logged yet. name: None for the only deployment. Never raises."""
        asked = self.ask(name, body, caller, headers)
        return asked.predictor.draft(asked.body, asked.caller) if isinstance(asked, Later) else asked

    def ask(self, name: str | None, body: bytes, caller: str, headers: Headers = ()) -> Draft | Later:
        """`draft`, or what to draft with others of this turn: requests that look features up. Never raises."""
        try:
            predictor = self.service.predictor(name)
            answering = predictor if self.traces is None else self.traces.watched(predictor, headers)
            if predictor.looks_up and answering is predictor:
                return Later(predictor, body, caller, monotonic())
            return answering.draft(body, caller)
        except Exception as error:
            told = foreseen(error)
            self.service.metrics.failed("", told.code, status=told.http_status)
            return Draft(problem(told))

    def turn(self, loop: asyncio.AbstractEventLoop) -> Turn:
        """What the connections of this server's loop share."""
        if self._turn is None:
            from seatrial.serving.doors.protocol import Turn

            self._turn = Turn(loop, self.service.log, self.service.metrics)
        return self._turn

    async def _predict(self, scope: Scope, receive: Receive, send: Send, name: str | None) -> None:
        try:
            caller, body = await self.asked(scope, receive)
        except SeatrialError as error:
            self.service.metrics.failed("", error.code, status=error.http_status)
            await _send(send, problem(error), close=True)
            return
        if body is not None:  # None: the caller went away
            draft = await self._draft(name, body, caller, scope["headers"])
            await _send(send, finish(self.service.log, [draft])[0])
            shadow([draft])

    async def _invoke(self, scope: Scope, receive: Receive, send: Send, name: str | None) -> None:
        """The same in the form of MLflow's clients."""
        from seatrial.serving.doors import invocations

        kind = header(scope, b"content-type").decode("latin-1")
        read = partial(invocations.read, kind)
        await self._translated(scope, receive, send, name, read, invocations.refused, kind=JSON)

    async def _for_platform(self, platform: Platform, scope: Scope, receive: Receive, send: Send) -> None:
        """The same in the form of the platform whose container this is, and whether it is ready."""
        from seatrial.serving.doors import container

        if scope["path"] == platform.predict and scope["method"] != "GET":
            await self._translated(scope, receive, send, None, container.read, lambda answer: answer)
        elif scope["method"] != "GET":
            found = problem(MethodNotAllowed("this path does not take this method.", state=""))
            await _send(send, found, close=True, allow=b"GET")
        elif scope["path"] == platform.health:
            await _send(send, Answer(200 if self.service.state()["ready"] else 503, b"{}"))
        else:
            await _send(send, problem(MethodNotAllowed("predictions are asked for with POST.", state="")))

    async def _translated(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        name: str | None,
        read: Read,
        refused: Refused,
        *,
        kind: bytes = PROBLEM,
    ) -> None:
        """A prediction that is asked for in another form. refused, kind: a problem in that form, and its media type."""
        body = None
        try:
            caller, body = await self.asked(scope, receive)
            if body is None:  # the caller went away
                return
            asked, answered = read(body, self.service.predictor(name).reader.fields)
        except Exception as error:
            told = foreseen(error)
            self.service.metrics.failed("", told.code, status=told.http_status)
            await _send(send, refused(problem(told)), kind=kind, close=body is None)
            return
        draft = await self._draft(name, asked, caller, scope["headers"])
        answer = finish(self.service.log, [draft])[0]
        await _send(send, answered(answer) if answer.status == 200 else refused(answer), kind=kind)
        shadow([draft])

    async def asked(self, scope: Scope, receive: Receive, *, compressed: bool = False) -> tuple[str, bytes | None]:
        """Who asks, and the whole body; None when the caller went away. Raises what refuses a request unread.

        compressed: a body may be compressed.
        """
        caller = check_head(scope["method"], scope["headers"], self.max_body, compressed=compressed)
        try:
            async with asyncio.timeout(self.slow_seconds):
                return caller, await self._body(receive)
        except TimeoutError:
            raise body_too_slow(self.slow_seconds) from None

    async def _draft(self, name: str | None, body: bytes, caller: str, headers: Headers = ()) -> Draft:
        """`draft`, off the event loop where it has to wait."""
        if name in self.service.elsewhere:
            return await self.draft_by(self.service.predictor(name), body, caller, headers)
        return self.draft(name, body, caller, headers)

    async def draft_by(self, predictor: Predictor, body: bytes, caller: str, headers: Headers = ()) -> Draft:
        """An answer of a predictor, made off the event loop where it has to be waited for. Never raises."""
        watched = predictor if self.traces is None else self.traces.watched(predictor, headers)
        return await self._waiting.draft(predictor, body, caller, watched)

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body; None when the caller went away. Raises BodyTooLarge."""
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.max_body:
                raise body_too_large(self.max_body)
            more = message.get("more_body", False)
        return b"".join(parts)

    # -- what goes on between requests

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        beside = [asyncio.create_task(one) for one in (self.service.watch(), self.service.metrics.keep())]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        self.service.close()
        await send({"type": "lifespan.shutdown.complete"})


def foreseen(error: Exception) -> SeatrialError:
    """What a caller is told of an error; the trace of an unforeseen one goes to the server's log."""
    if isinstance(error, SeatrialError):
        return error
    _LOGGER.error("a request could not be answered", exc_info=error)
    return ServerFailed("the server failed at this request.")


def in_form(path: str, answer: Answer) -> tuple[Answer, bytes]:
    """A problem as it is told at the door with this path, and its media type."""
    if path == "/v2" or path.startswith("/v2/"):
        from seatrial.serving.doors import open_inference

        return Answer(*open_inference.refused(answer)[:2]), JSON
    if path.endswith("/invocations"):
        from seatrial.serving.doors import invocations

        return invocations.refused(answer), JSON
    return answer, PROBLEM


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a request's header, the first if it comes several times; empty when there is none."""
    return next((value for given, value in scope["headers"] if given == name), b"")


def check_head(
    method: str,
    headers: Iterable[tuple[bytes, bytes]],
    max_body: int,
    *,
    compressed: bool = False,
    version: Callable[[], str] | None = None,
) -> str:
    """The name of who asks for a prediction. Raises when the request can be refused before its body is read.

    compressed: the door takes compressed bodies. version: of HTTP, for who sees to the header Host itself.
    """
    if method != "POST":
        raise MethodNotAllowed("predictions are asked for with POST.", state="Nothing was predicted.")
    caller = ""
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            if len(value) > 18 or int(value) > max_body:
                raise body_too_large(max_body)
        elif name == b"content-encoding":
            if not compressed and value.strip().lower() not in (b"", b"identity"):
                raise BodyEncoded(
                    "the body is compressed.",
                    expected="Predictions take plain JSON.",
                    state="Nothing was predicted.",
                )
        elif name == b"x-seatrial-caller":
            caller = value.decode("latin-1")
    if hosts != 1 and version is not None:
        check_host(headers, version())
    return caller


def check_host(headers: Iterable[tuple[bytes, bytes]], version: str) -> None:
    """Raise NotHttp for a request that does not name one host, which HTTP/1.1 wants (RFC 9112, section 3.2)."""
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1 or (not hosts and version == "1.1"):
        raise NotHttp("the request names no host, or several.", expected="HTTP/1.1 wants one header Host.", state="")


def body_too_large(max_body: int) -> BodyTooLarge:
    return BodyTooLarge(
        "the body is too large.",
        expected=f"At most {max_body} bytes are taken.",
        state="Nothing was predicted; the connection is closed.",
    )


def body_too_slow(seconds: float) -> BodyTooSlow:
    return BodyTooSlow(
        f"the body was not complete after {seconds:g} seconds.",
        state="Nothing was predicted; the connection is closed.",
    )


def trace_of(answer: Answer) -> tuple[tuple[bytes, bytes], ...]:
    """The header that names the trace in which an answer was made; none for most, which are in none."""
    found = getattr(answer, "traceparent", b"")
    return ((b"traceparent", found),) if found else ()


async def _send(
    send: Send, answer: Answer, *, kind: bytes = PROBLEM, close: bool = False, allow: bytes = b"POST"
) -> None:
    """kind: the media type of what is no prediction. allow: the methods of a path that was asked with another."""
    body = answer.body
    headers = [
        (b"content-type", JSON if answer.status == 200 else kind),
        (b"content-length", str(len(body)).encode()),
    ]
    headers += trace_of(answer)
    if answer.status == 405:
        headers.append((b"allow", allow))
    if answer.retry_after:
        headers.append((b"retry-after", b"%d" % answer.retry_after))
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

    from seatrial.serving.doors import pages

    app = FastAPI(title="seatrial", docs_url=None, redoc_url=None, openapi_url=None)

    def json(value: Any, status: int = 200, kind: bytes = JSON) -> Response:
        return Response(msgspec.json.encode(value), status, media_type=kind.decode())

    def refusal(error: SeatrialError, headers: dict[str, str] | None = None) -> Response:
        answer = problem(error)
        return Response(answer.body, answer.status, headers, media_type=PROBLEM.decode())

    @app.get("/health", summary="Is the process alive?", response_model=None)
    def health() -> Response:
        distrusted = service.distrusted
        return json({"live": True} | ({"distrusted": distrusted} if distrusted else {}))

    @app.get("/ready", summary="Are all releases loaded and proved?", response_model=None)
    def ready() -> Response:
        state = service.state()
        return json(state, 200 if state["ready"] else 503)

    @app.get("/ping", summary="Does it answer? For MLflow's and SageMaker's callers.", response_model=None)
    def ping() -> Response:
        return json({}, 200 if service.state()["ready"] else 503)

    @app.get("/version", summary="The version of seatrial.", response_model=None)
    def version() -> Response:
        return Response(seatrial.__version__, media_type="text/plain")

    @app.get("/metrics", summary="Metrics for Prometheus.", response_model=None)
    def metrics() -> Response:
        return Response(service.metrics.render(), headers={"content-type": CONTENT_TYPE})

    @app.get("/predictions/{model}/{key:path}", summary="What a batch said of a key last.", response_model=None)
    def stored(model: str, key: str) -> Response:
        known = model if model in service.models else ""
        try:
            found, age = service.stored(model, key)
        except SeatrialError as error:
            service.metrics.stored(known, error.http_status, error.code)
            return refusal(error)
        service.metrics.stored(known, 200)
        return json(msgspec.structs.asdict(found) | {"age_seconds": round(age, 3)})

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
            paths = ["/predict", "/models/NAME/predict", "/invocations", "/health", "/ready", "/metrics", "/docs"]
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
