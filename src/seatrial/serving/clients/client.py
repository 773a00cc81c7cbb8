"""A client for one server: keeps its connection, asks one thing at a time, raises what the server refuses.

`predict --url` and the replay of history use it. It speaks as much HTTP/1.1 as this server does. `async_client` has the
same for an event loop.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from seatrial.core.clock import monotonic
from seatrial.serving.clients.wire import (
    LARGEST_HEAD,
    RETRIES,
    TIMEOUT,
    BadUrl,
    Health,
    Lost,
    NotSeatrial,
    Prediction,
    Predictions,
    Readiness,
    Reply,
    ServerRefused,
    ServerUnable,
    ServerUnreachable,
    Stored,
    Wire,
)

__all__ = [
    "BadUrl",
    "Client",
    "Health",
    "NotSeatrial",
    "Prediction",
    "Predictions",
    "Readiness",
    "ServerRefused",
    "ServerUnable",
    "ServerUnreachable",
    "Stored",
]


class Client:
    """One connection to a server. Not for several threads at once.

    url: for example "http://127.0.0.1:8000". caller: who asks, for the server's log.
    timeout: seconds for one attempt. deadline: seconds for all attempts and the pauses between them, by default those
        of one attempt.
    retries: attempts beyond the first, made when the connection is lost or the server answers 503 and says when to ask
        again. Each has the same request_id, so that what was logged twice can be told.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = TIMEOUT,
        deadline: float | None = None,
        retries: int = RETRIES,
        caller: str = "",
    ) -> None:
        self._wire = Wire(url, caller, timeout=timeout, deadline=deadline, retries=retries)
        self.url = self._wire.url
        self._socket: socket.socket | None = None

    def predict(
        self,
        features: Mapping[str, Any],
        *,
        model: str | None = None,
        request_id: str | None = None,
        at: datetime | None = None,
        return_features: bool = False,
    ) -> Prediction:
        """The answer for one row. at: only a server that replays takes it.

        Raises ServerRefused, ServerUnable, ServerUnreachable or NotSeatrial.
        """
        asked = self._wire.predict({"features": features}, model, request_id, at, return_features)
        return self._wire.told(self._exchange(asked), Prediction)

    def predict_many(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        request_id: str | None = None,
        at: datetime | None = None,
        return_features: bool = False,
    ) -> Predictions:
        """The answers for many rows, in order; raises as `predict` does."""
        asked = self._wire.predict({"instances": rows}, model, request_id, at, return_features)
        return self._wire.told(self._exchange(asked), Predictions)

    def stored(self, model: str, key: str) -> Stored:
        """What a batch said of a key of a model last; ServerRefused with status 404 when nothing was."""
        return self._wire.told(self._exchange(self._wire.stored(model, key)), Stored)

    def health(self) -> Health:
        """What /health says."""
        return self._wire.told(self._exchange(self._wire.get("/health")), Health)

    def ready(self) -> Readiness:
        """What /ready says, ready or not."""
        return self._wire.told(self._exchange(self._wire.get("/ready")), Readiness, also=(503,))

    def get(self, path: str) -> bytes:
        """The body of any other path; raises as `predict` does."""
        reply = self._exchange(self._wire.get(path))
        if reply.status != 200:
            raise self._wire.refusal(reply)
        return reply.body

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(self, request: bytes) -> Reply:
        """The answer to a request, asked for as often as there is patience. Raises ServerUnreachable, NotSeatrial."""
        patience = self._wire.patience()
        while True:
            try:
                reply, retry_after = self._attempt(request, patience.left())
            except Lost as error:
                self.close()
                patience.sent = patience.sent or error.sent
                pause = patience.pause()
                if pause is None:
                    raise self._wire.unreachable(error.why, patience) from None
            except BaseException:
                self.close()  # an answer may still be on its way
                raise
            else:
                wait = reply.status == 503 and retry_after is not None
                pause = patience.pause(retry_after) if wait else None
                if pause is None:
                    return reply._replace(attempts=patience.attempts)
            time.sleep(pause)

    def _attempt(self, request: bytes, seconds: float) -> tuple[Reply, float | None]:
        """The answer to a request, and when to ask again if it says so. Raises Lost or NotSeatrial."""
        until = monotonic() + seconds
        if self._socket is not None and select.select([self._socket], [], [], 0)[0]:
            self.close()  # the server has closed it: nobody asked anything for long, or it ended
        if self._socket is None:
            try:
                self._socket = socket.create_connection((self._wire.host, self._wire.port), seconds)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                raise Lost(error.strerror or str(error), sent=False) from None
        connection = self._socket
        try:
            connection.settimeout(seconds)
            connection.sendall(request)
            data = _more(connection, until)
            while (end := data.find(b"\r\n\r\n")) < 0:
                if len(data) > LARGEST_HEAD:
                    raise self._wire.other("the head of its answer does not end")
                data += _more(connection, until)
            head = self._wire.head(data[:end])
            body = data[end + 4 :]
            while len(body) < head.length:
                body += _more(connection, until)
        except OSError as error:
            raise Lost(error.strerror or str(error), sent=True) from None
        if head.closes:
            self.close()
        return Reply(head.status, body), head.retry_after


def _more(connection: socket.socket, until: float) -> bytes:
    """The next bytes, waited for until a monotonic instant. Raises OSError."""
    connection.settimeout(max(until - monotonic(), 0.001))
    data = connection.recv(262144)
    if not data:
        raise OSError("it closed the connection before its answer was whole")
    return data
