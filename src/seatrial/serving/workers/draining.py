"""A server that stops: what has come in is answered, nothing new is accepted, and then it ends.

1. It is not ready any more, and the kernel takes no new connections for its socket: a packet that asks for one is
   dropped, so that who sent it asks again, and is refused when nobody listens any more.
2. Connections that wait to be accepted are accepted; then the socket is closed.
3. Every request that comes on a connection is answered, with `connection: close`. A connection on which nothing is
   under way is closed after LAST_CALL_SECONDS, and never while bytes lie in the kernel that were not read.
4. The prediction log is closed. What is not answered DRAIN_SECONDS after the beginning is cut off.

Of several workers on one socket the supervisor does the first step, and one of them alone that is told to stop leaves
the connections that wait to the others.
"""

from __future__ import annotations

import asyncio
import ctypes
import select
import signal
import socket
import struct
from contextlib import suppress
from types import FrameType

import uvicorn

from seatrial.core.clock import monotonic
from seatrial.serving.doors.http import Front
from seatrial.serving.workers.accepting import Acceptor

DRAIN_SECONDS = 25.0
"""How long a service that was told to stop goes on with what has come in."""
HANDSHAKE_SECONDS = 0.15
"""For connections that were half made when the first step was done."""
TOGETHER_SECONDS = 2.0
"""How long a worker that was interrupted waits for its supervisor to be, too."""
LAST_CALL_SECONDS = 0.3
LOOK_SECONDS = 0.02

_SO_ATTACH_FILTER = 26
# of the TCP header's flags: drop what has SYN and not ACK, take the rest
_NO_SYN = ((0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


def refuse_new(listening: socket.socket) -> None:
    """Let the kernel take no new connections for a socket, in whatever process it is; those that wait stay.

    Where the kernel does not know how, nothing happens: new connections are accepted until the socket is closed.
    """
    code = b"".join(struct.pack("HBBI", *one) for one in _NO_SYN)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HP", len(_NO_SYN), ctypes.addressof(buffer))
    with suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def waiting(listening: socket.socket) -> bool:
    """Whether connections wait to be accepted."""
    look = select.poll()
    look.register(listening.fileno(), select.POLLIN)
    return bool(look.poll(0))


class DrainingServer(uvicorn.Server):
    """uvicorn's server, stopping as described above.

    cut_off: connections that were not done when it gave up.
    """

    def __init__(self, config: uvicorn.Config, front: Front) -> None:
        super().__init__(config)
        self.cut_off = 0
        self._front = front
        self._service = front.service
        self._place = front.service.place
        self._acceptors: list[Acceptor] = []

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.draining = True  # nothing else here: it may interrupt anything
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._place is None:
            await super().startup(sockets)
        else:
            _ = self._front.others  # made now: it would keep the loop for long when it is first asked for
            await super().startup([])
            loop = asyncio.get_running_loop()
            connections = self.server_state.connections
            self._acceptors = [
                Acceptor(one, self._place, self._protocol, lambda: len(connections)) for one in sockets or []
            ]
            for acceptor in self._acceptors:
                acceptor.start()
            if self._place.life is not None:
                loop.add_reader(self._place.life, self._alone)
        self._service.accepting()

    def _protocol(self) -> asyncio.Protocol:
        """The protocol of a new connection, as uvicorn makes it."""
        made: asyncio.Protocol = self.config.http_protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )  # type: ignore[call-arg]
        return made

    async def on_tick(self, counter: int) -> bool:
        self._beat()
        return await super().on_tick(counter)

    def _alone(self) -> None:
        """The supervisor is gone, so nobody would start another worker, or stop this one."""
        assert self._place is not None
        assert self._place.life is not None
        asyncio.get_running_loop().remove_reader(self._place.life)
        self._place.alone = True
        self.handle_exit(signal.SIGTERM, None)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        began = monotonic()
        end = began + DRAIN_SECONDS
        self._service.drain()
        loop = asyncio.get_running_loop()
        self._front.turn(loop).draining = True
        for connection in self.server_state.connections:
            connection.drain()  # type: ignore[union-attr]
        await self._accept_the_rest(sockets or [], began)
        for server in self.servers:
            server.close()
        for acceptor in self._acceptors:
            acceptor.stop()
        for listening in sockets or []:
            listening.close()
        while self._busy() and not self.force_exit:
            self._beat()
            now = monotonic()
            if now >= end:
                break
            if now >= began + LAST_CALL_SECONDS:
                for connection in list(self.server_state.connections):
                    connection.close_unused(loop.time() - LAST_CALL_SECONDS)  # type: ignore[union-attr]
            await asyncio.sleep(LOOK_SECONDS)
        self.cut_off = len(self.server_state.connections)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()

    def _busy(self) -> bool:
        coming = not all(one.idle for one in self._acceptors)
        return bool(coming or self.server_state.connections or self.server_state.tasks)

    async def _accept_the_rest(self, sockets: list[socket.socket], began: float) -> None:
        """Accept the connections that wait, until there are none."""
        if self._place is None:
            for listening in sockets:
                refuse_new(listening)
        while monotonic() < began + DRAIN_SECONDS / 2 and not self.force_exit:
            self._beat()
            await asyncio.sleep(LOOK_SECONDS)
            if self._place is not None and not self._place.stopping:
                # Ctrl-C comes to the supervisor as well, which is about to say that all are to stop
                patience = TOGETHER_SECONDS if signal.SIGINT in self._captured_signals else 0.0
                if monotonic() >= began + patience:
                    return
            elif monotonic() >= began + HANDSHAKE_SECONDS and not any(map(waiting, sockets)):
                return

    def _beat(self) -> None:
        if self._place is not None:
            self._place.beat(len(self.server_state.connections))
