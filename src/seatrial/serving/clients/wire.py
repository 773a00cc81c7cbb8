"""What both clients of a server say and understand: requests, answers, refusals, and how long they go on asking.

It does no I/O. Answers are structs; their members can also be had as of a mapping, `answer["prediction"]`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from seatrial.core.clock import as_utc, iso, monotonic
from seatrial.core.errors import SeatrialError, Unavailable, UsageError, counted
from seatrial.core.identity import uuid7

LARGEST_HEAD = 64 * 2**10
TIMEOUT = 30.0
RETRIES = 2
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two attempts; each pause is twice the one before, and of that a random part from a half on."""

Shape = TypeVar("Shape", bound="Told")


class ServerUnreachable(Unavailable):
    """No server answers at the address, or it broke off."""

    code = "client.unreachable"


class ServerRefused(UsageError):
    """The server refused the request. facts: `status`, the server's own `code`, `field` and `row` if it named them."""

    code = "client.refused"
    http_status: ClassVar[int] = 422


class ServerUnable(Unavailable):
    """The server could not answer, by no fault of the request. facts: `status` and the server's own `code`."""

    code = "client.server_unable"


class NotSeatrial(UsageError):
    """What answers at the address is not a server of seatrial's."""

    code = "client.not_seatrial"


class BadUrl(UsageError):
    """The address of the server cannot be used."""

    code = "client.bad_url"


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer. As a mapping it has the members that the server sent."""

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self.as_dict()

    def __iter__(self) -> Iterator[str]:
        return iter(self.as_dict())

    def keys(self) -> Sequence[str]:
        return list(self.as_dict())

    def get(self, name: str, otherwise: Any = None) -> Any:
        return self.as_dict().get(name, otherwise)

    def as_dict(self) -> dict[str, Any]:
        """The members that the server sent."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


class Prediction(Told, frozen=True, kw_only=True, omit_defaults=True):
    """The answer for one row.

    prediction: 0 or 1, a value, or a class. probability: of 1, of each class by its name, or None of a regression.
    prediction_id: by which a label finds it. request_id, latency_ms: of a row of many they are those of the request.
    degraded: what could not be asked. views: the views that had nothing fresh to say; with `return_features` every one.
    features: the model's inputs, with `return_features`.
    attempts: how often it was asked for. Beyond 1 an attempt whose answer was lost may be in the server's log, too,
        with the same request_id and another prediction_id.
    """

    prediction: float | int | str
    probability: float | dict[str, float] | None
    model_version: str
    prediction_id: str
    release: str
    request_id: str = ""
    latency_ms: float | None = None
    degraded: list[str] = []
    views: dict[str, str] = {}
    features: dict[str, Any] = {}
    attempts: int = 1


class Predictions(Told, frozen=True, kw_only=True, omit_defaults=True):
    """The answers for many rows, in order. attempts: as of `Prediction`."""

    predictions: list[Prediction]
    request_id: str
    latency_ms: float
    attempts: int = 1


class Health(Told, frozen=True, kw_only=True, omit_defaults=True):
    """Whether the process lives, and which deployments answer with what no trusted key vouches for any more."""

    live: bool
    distrusted: dict[str, str] = {}


class Readiness(Told, frozen=True, kw_only=True, omit_defaults=True):
    """Whether every deployment is served, and if not, why; what is served; what was not taken, and why.

    worker, workers: of several, which one answered, and what each says. memory: with a budget, what of it is taken.
    """

    ready: bool
    reason: str
    deployments: dict[str, dict[str, Any]]
    live: bool = True
    refused: dict[str, str] = {}
    distrusted: dict[str, str] = {}
    worker: int | None = None
    workers: list[dict[str, Any]] = []
    memory: dict[str, int] = {}


class Stored(Told, frozen=True, kw_only=True, omit_defaults=True):
    """What a batch said of a key last. age_seconds: from `as_of`, the instant that it was said of, to the answer."""

    prediction: float | int | str
    probability: float | dict[str, float] | None
    model_version: str
    release: str
    as_of: datetime
    age_seconds: float


class Head(NamedTuple):
    """The head of an answer. length: bytes of its body. retry_after: seconds, None when it does not say.

    closes: whether the server closes the connection behind it.
    """

    status: int
    length: int
    closes: bool
    retry_after: float | None


class Reply(NamedTuple):
    """An answer. attempts: how often it was asked for."""

    status: int
    body: bytes
    attempts: int = 1


class Lost(Exception):
    """An attempt without an answer. sent: whether the server may have read the request."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.why = why
        self.sent = sent


@dataclass
class Patience:
    """How long one request is tried.

    retries: attempts beyond the first. timeout: seconds for one attempt; deadline: the monotonic instant for all.
    """

    retries: int
    timeout: float
    deadline: float
    attempts: int = 1
    sent: bool = False

    def left(self) -> float:
        """Seconds that the next attempt may take."""
        return max(min(self.timeout, self.deadline - monotonic()), 0.001)

    def pause(self, retry_after: float | None = None) -> float | None:
        """Seconds to wait before the next attempt; None when there is to be none. retry_after: what the server says."""
        if self.attempts > self.retries:
            return None
        pause: float = min(FIRST_PAUSE * 2 ** (self.attempts - 1), LONGEST_PAUSE) * random.uniform(0.5, 1)
        if retry_after is not None:
            pause += retry_after
        if monotonic() + pause >= self.deadline:
            return None
        self.attempts += 1
        return pause


class Wire:
    """The language of one server at `url`. caller: who asks, for its log.

    timeout, deadline, retries: see `Patience`; without a deadline all attempts have the time of one.
    """

    def __init__(self, url: str, caller: str, *, timeout: float, deadline: float | None, retries: int) -> None:
        self.host, self.port = _address(url)
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._deadline = timeout if deadline is None else deadline
        self._retries = retries
        named = f"x-seatrial-caller: {caller}\r\n" if caller.isascii() and caller.isprintable() and caller else ""
        self._head = f"host: {urlsplit(url).netloc}\r\n{named}".encode()
        self._encode = msgspec.json.Encoder().encode

    def patience(self) -> Patience:
        return Patience(self._retries, self._timeout, monotonic() + self._deadline)

    # -- saying

    def get(self, path: str) -> bytes:
        """A request for a path."""
        return b"GET %b HTTP/1.1\r\n%b\r\n" % (path.encode(), self._head)

    def predict(
        self,
        body: dict[str, Any],
        model: str | None,
        request_id: str | None,
        at: datetime | None,
        return_features: bool,
    ) -> bytes:
        """A request for a prediction. Without an id it gets one here, so that every attempt has the same."""
        body["request_id"] = uuid7() if request_id is None else request_id
        if at is not None:
            body["at"] = iso(as_utc(at))
        if return_features:
            body["return_features"] = True
        path = "/predict" if model is None else f"/models/{quote(model, safe='')}/predict"
        data = self._encode(body)
        return b"POST %b HTTP/1.1\r\n%bcontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
            path.encode(),
            self._head,
            len(data),
            data,
        )

    def stored(self, model: str, key: str) -> bytes:
        """A request for what a batch said of a key."""
        return self.get(f"/predictions/{quote(model, safe='')}/{quote(key, safe='')}")

    # -- understanding

    def head(self, data: bytes) -> Head:
        """The head of an answer, without the empty line behind it. Raises NotSeatrial."""
        first, *lines = data.lower().split(b"\r\n")
        headers: dict[bytes, bytes] = {
            name: value.strip() for name, _, value in (line.partition(b":") for line in lines)
        }
        status, length = first[9:12], headers.get(b"content-length", b"")
        if not (first.startswith(b"http/1.1 ") and status.isdigit() and length.isdigit() and len(length) < 10):
            raise self.other("it answers in another protocol, or does not say how long its answer is")
        later = headers.get(b"retry-after", b"")
        seconds = float(later) if later.isdigit() and len(later) < 6 else None
        closes = headers.get(b"connection") == b"close"
        return Head(int(status), int(length), closes, seconds)

    def told(self, reply: Reply, shape: type[Shape], *, also: Sequence[int] = ()) -> Shape:
        """The document of an answer. also: statuses beside 200 that bring it. Raises what the client raises."""
        if reply.status != 200 and reply.status not in also:
            raise self.refusal(reply)
        try:
            found = msgspec.json.decode(reply.body, type=shape)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise self.other(f"its answer is no {shape.__name__.lower()}") from None
        if reply.attempts > 1 and "attempts" in shape.__struct_fields__:
            return msgspec.structs.replace(found, attempts=reply.attempts)
        return found

    def unreachable(self, why: str, patience: Patience) -> ServerUnreachable:
        times = f" ({counted(patience.attempts, 'attempt')})" if patience.attempts > 1 else ""
        return ServerUnreachable(
            f"the server at {self.url} does not answer: {why}{times}.",
            state="Whether the request was answered and logged is not known." if patience.sent else "",
            next="Start it with `seatrial serve`, or check the address.",
            attempts=patience.attempts,
        )

    def other(self, why: str) -> NotSeatrial:
        return NotSeatrial(
            f"what answers at {self.url} is not `seatrial serve`: {why}.",
            state="Nothing was predicted.",
            next="Check the address.",
        )

    def refusal(self, reply: Reply) -> SeatrialError:
        """The error that a problem document tells of."""
        problem: dict[str, Any] = {}
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            problem = msgspec.json.decode(reply.body, type=dict[str, Any])
        code = problem.get("code", "")
        if reply.status < 500 and not code:
            return self.other(f"it answers {reply.status} without a reason")
        facts = {"status": reply.status, "code": code}
        facts |= {name: problem[name] for name in ("field", "row") if name in problem}
        named = f" [{code}]" if code else ""
        found = f"the server answered {reply.status}{named}: {problem.get('detail', 'no reason was given.')}"
        kind = ServerUnable if reply.status >= 500 else ServerRefused
        return kind(found, state="", **facts)


def _address(url: str) -> tuple[str, int]:
    """Host and port. Raises BadUrl."""
    try:
        parts = urlsplit(url)
        port = 80 if parts.port is None else parts.port
        host = parts.hostname or ""
        host.encode("idna")
        plain = f"{parts.scheme}://{parts.netloc}" == url.rstrip("/") and "@" not in url and url.isprintable()
    except ValueError:  # also what is no name of a host
        plain, host, port = False, "", 0
    if not plain or " " in url or parts.scheme != "http" or not host or not port:
        raise BadUrl(
            f"{url!r} is not the address of a server.",
            expected="http://HOST:PORT is expected, with nothing behind it.",
            state="Nothing was asked.",
        )
    return host, port
