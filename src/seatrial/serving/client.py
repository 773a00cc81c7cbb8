"""A small client for one server: keeps its connection, asks one thing at a time, raises what the server refuses.

`predict --url` and the replay of history use it. It speaks as much HTTP/1.1 as this server does.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import msgspec

from seatrial.core.clock import as_utc, iso
from seatrial.core.errors import SeatrialError, Unavailable, UsageError

_LARGEST_HEAD = 64 * 2**10


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


class Client:
    """One connection to a server. Not for several threads at once.

    url: for example "http://127.0.0.1:8080". timeout: seconds to wait for one answer.
    """

    def __init__(self, url: str, *, timeout: float = 30.0, caller: str = "") -> None:
        self._host, self._port = _address(url)
        self.url = url.rstrip("/")
        self._timeout = timeout
        named = f"x-seatrial-caller: {caller}\r\n" if caller.isascii() and caller.isprintable() and caller else ""
        self._head = f"host: {urlsplit(url).netloc}\r\n{named}".encode()
        self._socket: socket.socket | None = None
        self._encode = msgspec.json.Encoder().encode

    def predict(
        self,
        features: Mapping[str, Any],
        *,
        model: str | None = None,
        request_id: str | None = None,
        at: datetime | None = None,
        return_features: bool = False,
    ) -> dict[str, Any]:
        """The answer for one row. at: only a server that replays takes it.

        Raises ServerRefused, ServerUnable or ServerUnreachable.
        """
        return self._post(model, {"features": features}, request_id, at, return_features)

    def predict_many(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        request_id: str | None = None,
        at: datetime | None = None,
        return_features: bool = False,
    ) -> dict[str, Any]:
        """The answer for many rows, in order under "predictions"; raises as `predict` does."""
        return self._post(model, {"instances": rows}, request_id, at, return_features)

    def ready(self) -> dict[str, Any]:
        """What /ready says, ready or not."""
        _, body = self._exchange(b"GET", "/ready", b"")
        return self._read(body, "ready")

    def get(self, path: str) -> bytes:
        """The body of any other path; raises as `predict` does."""
        status, body = self._exchange(b"GET", path, b"")
        if status != 200:
            raise self._refusal(status, body)
        return body

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(
        self,
        model: str | None,
        body: dict[str, Any],
        request_id: str | None,
        at: datetime | None,
        return_features: bool,
    ) -> dict[str, Any]:
        if request_id is not None:
            body["request_id"] = request_id
        if at is not None:
            body["at"] = iso(as_utc(at))
        if return_features:
            body["return_features"] = True
        path = "/predict" if model is None else f"/models/{quote(model, safe='')}/predict"
        status, answer = self._exchange(b"POST", path, self._encode(body))
        if status != 200:
            raise self._refusal(status, answer)
        return self._read(answer, "predictions" if "instances" in body else "prediction")

    def _exchange(self, method: bytes, path: str, body: bytes) -> tuple[int, bytes]:
        request = b"%b %b HTTP/1.1\r\n%bcontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
            method,
            path.encode(),
            self._head,
            len(body),
            body,
        )
        kept = self._socket is not None
        try:
            return self._ask(request)
        except _Closed:
            # a server may close a connection that idled; nothing of an answer has come, so it is asked once more
            if not kept:
                raise self._unreachable("it closed the connection") from None
        except OSError as error:
            self.close()
            raise self._unreachable(error.strerror or str(error)) from None
        try:
            return self._ask(request)
        except _Closed:
            raise self._unreachable("it closed the connection") from None
        except OSError as error:
            self.close()
            raise self._unreachable(error.strerror or str(error)) from None

    def _ask(self, request: bytes) -> tuple[int, bytes]:
        if self._socket is None:
            self._socket = socket.create_connection((self._host, self._port), self._timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._socket
        try:
            connection.sendall(request)
            data = connection.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            data = b""
        if not data:
            self.close()
            raise _Closed
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more(connection, len(data) < _LARGEST_HEAD)
        head = data[:end].lower().split(b"\r\n")
        status, length = (
            head[0][9:12],
            next((line[15:].strip() for line in head if line[:15] == b"content-length:"), b""),
        )
        if not (head[0].startswith(b"http/1.1 ") and status.isdigit() and length.isdigit() and len(length) < 10):
            self.close()
            raise self._other("it answers in another protocol, or does not say how long its answer is")
        size = int(length)
        body = data[end + 4 :]
        while len(body) < size:
            body += self._more(connection, True)
        if b"connection: close" in head:
            self.close()
        return int(status), body

    def _more(self, connection: socket.socket, expected: bool) -> bytes:
        data = connection.recv(262144) if expected else b""
        if not data:
            self.close()
            raise OSError("it broke off in the middle of an answer")
        return data

    def _unreachable(self, why: str) -> ServerUnreachable:
        return ServerUnreachable(
            f"the server at {self.url} does not answer: {why}.",
            state="Whether the request was answered and logged is not known." if self._socket else "",
            next="Start it with `seatrial serve`, or check the address.",
        )

    def _other(self, why: str) -> NotSeatrial:
        return NotSeatrial(
            f"what answers at {self.url} is not `seatrial serve`: {why}.",
            state="Nothing was predicted.",
            next="Check the address.",
        )

    def _read(self, answer: bytes, member: str) -> dict[str, Any]:
        """The answer's document, which has this member."""
        try:
            found = msgspec.json.decode(answer, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise self._other("its answer is not a JSON object") from None
        if member not in found:
            raise self._other(f"its answer has no '{member}'")
        return found

    def _refusal(self, status: int, body: bytes) -> SeatrialError:
        problem: dict[str, Any] = {}
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            problem = msgspec.json.decode(body, type=dict[str, Any])
        code = problem.get("code", "")
        if status < 500 and not code:
            return self._other(f"it answers {status} without a reason")
        facts = {"status": status, "code": code}
        facts |= {name: problem[name] for name in ("field", "row") if name in problem}
        named = f" [{code}]" if code else ""
        found = f"the server answered {status}{named}: {problem.get('detail', 'no reason was given.')}"
        kind = ServerUnable if status >= 500 else ServerRefused
        return kind(found, state="", **facts)


class _Closed(Exception):
    """The connection was closed before any answer."""


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
