"""Who of several workers takes a connection that waits on their one socket.

The kernel wakes them all and the first one takes it, so of connections that come together one worker may get most, and
keeps them as long as they live. Here each says how many it has, and who has clearly more than another lets a moment
pass before it takes the next one. It takes it then in any case: the other may be busy, or stand still.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from seatrial.serving.place import Place

PAUSE_SECONDS = 0.002
LONG_PAUSE_SECONDS = 0.5
"""When no connection can be taken, for want of descriptors or memory."""
SLACK = 2

MakeProtocol = Callable[[], asyncio.Protocol]


class Acceptor:
    """Takes connections for one worker, from `start` until `stop`. count: how many it has now."""

    def __init__(self, listening: socket.socket, place: Place, make: MakeProtocol, count: Callable[[], int]) -> None:
        self._listening = listening
        self._place = place
        self._make = make
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._let_pass = False
        self._stopped = False
        self._coming: set[asyncio.Task[object]] = set()

    def start(self) -> None:
        self._listening.setblocking(False)
        self._resume()

    def stop(self) -> None:
        self._stopped = True
        self._loop.remove_reader(self._listening)

    @property
    def idle(self) -> bool:
        """Whether every connection that was taken has its protocol."""
        return not self._coming

    def _resume(self) -> None:
        if not self._stopped:
            self._loop.add_reader(self._listening, self._accept)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening)
        self._loop.call_later(seconds, self._resume)

    def _accept(self) -> None:
        own = self._count() + len(self._coming)
        if not self._let_pass and own > self._place.fewest_connections() + SLACK + own // 16:
            self._let_pass = True
            self._pause(PAUSE_SECONDS)
            return
        self._let_pass = False
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker took it, or the caller went away
        except OSError:
            self._pause(LONG_PAUSE_SECONDS)
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._place.has_connections(own + 1)
        coming: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(self._make, connection)
        )
        self._coming.add(coming)
        coming.add_done_callback(self._came)

    def _came(self, coming: asyncio.Task[object]) -> None:
        self._coming.discard(coming)
        if not coming.cancelled():
            coming.exception()  # a caller that went away in between is nobody's fault
