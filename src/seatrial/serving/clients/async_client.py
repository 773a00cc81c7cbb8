"""The client for an event loop: many questions at once to one server, over a few connections that are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from seatrial.serving.clients.wire import (
    LARGEST_HEAD,
    RETRIES,
    TIMEOUT,
    Health,
    Lost,
    Prediction,
    Predictions,
    Readiness,
    Reply,
    Stored,
    Wire,
)

CONNECTIONS = 16

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class AsyncClient:
    """Up to `connections` connections to a server, for the tasks of one event loop.

    Everything else is as of `serving.clients.client.Client`, with `await`: url, timeout, deadline, retries, caller, the
    answers and the errors. A question waits for a connection within its timeout.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = TIMEOUT,
        deadline: float | None = None,
        retries: int = RETRIES,
        caller: str = "",
        connections: int = CONNECTIONS,
    ) -> None:
        self._wire = Wire(url, caller, timeout=timeout, deadline=deadline, retries=retries)
        self.url = self._wire.url
        self._free = asyncio.Semaphore(connections)
        self._kept: list[_Connection] = []

    async def predict(
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
        return self._wire.told(await self._exchange(asked), Prediction)

    async def predict_many(
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
        return self._wire.told(await self._exchange(asked), Predictions)

    async def stored(self, model: str, key: str) -> Stored:
        """What a batch said of a key of a model last; ServerRefused with status 404 when nothing was."""
        return self._wire.told(await self._exchange(self._wire.stored(model, key)), Stored)

    async def health(self) -> Health:
        """What /health says."""
        return self._wire.told(await self._exchange(self._wire.get("/health")), Health)

    async def ready(self) -> Readiness:
        """What /ready says, ready or not."""
        return self._wire.told(await self._exchange(self._wire.get("/ready")), Readiness, also=(503,))

    async def get(self, path: str) -> bytes:
        """The body of any other path; raises as `predict` does."""
        reply = await self._exchange(self._wire.get(path))
        if reply.status != 200:
            raise self._wire.refusal(reply)
        return reply.body

    async def close(self) -> None:
        """Close the connections that are not in use."""
        kept, self._kept = self._kept, []
        for _, writer in kept:
            await _closed(writer)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _exchange(self, request: bytes) -> Reply:
        """The answer to a request, asked for as often as there is patience. Raises ServerUnreachable, NotSeatrial."""
        patience = self._wire.patience()
        while True:
            try:
                reply, retry_after = await self._attempt(request, patience.left())
            except Lost as error:
                patience.sent = patience.sent or error.sent
                pause = patience.pause()
                if pause is None:
                    raise self._wire.unreachable(error.why, patience) from None
            else:
                wait = reply.status == 503 and retry_after is not None
                pause = patience.pause(retry_after) if wait else None
                if pause is None:
                    return reply._replace(attempts=patience.attempts)
            await asyncio.sleep(pause)

    async def _attempt(self, request: bytes, seconds: float) -> tuple[Reply, float | None]:
        """The answer to a request, and when to ask again if it says so. Raises Lost or NotSeatrial."""
        sent = False
        try:
            async with asyncio.timeout(seconds), self._free:
                connection = await self._connection()
                sent, whole = True, False
                try:
                    reply, retry_after, whole = await self._ask(connection, request)
                finally:
                    if whole:
                        self._kept.append(connection)
                    else:  # an answer may still be on its way
                        connection[1].close()
                return reply, retry_after
        except TimeoutError:
            raise Lost("it took too long", sent=sent) from None
        except EOFError:
            raise Lost("it closed the connection before its answer was whole", sent=sent) from None
        except OSError as error:
            raise Lost(error.strerror or str(error), sent=sent) from None

    async def _connection(self) -> _Connection:
        """A connection that is kept, and not closed by the server as far as is known; else a new one."""
        while self._kept:
            reader, writer = self._kept.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._wire.host, self._wire.port, limit=LARGEST_HEAD)

    async def _ask(self, connection: _Connection, request: bytes) -> tuple[Reply, float | None, bool]:
        """The answer, when to ask again, and whether the connection can be kept."""
        reader, writer = connection
        writer.write(request)
        await writer.drain()
        try:
            head = self._wire.head((await reader.readuntil(b"\r\n\r\n"))[:-4])
        except asyncio.LimitOverrunError:
            raise self._wire.other("the head of its answer does not end") from None
        body = await reader.readexactly(head.length)
        return Reply(head.status, body), head.retry_after, not head.closes


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):  # it was broken already
        await writer.wait_closed()
