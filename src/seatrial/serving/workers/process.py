"""One process that serves: it listens, answers through one front, and drains when it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from typing import cast

from seatrial.core.errors import Failed, Unavailable, UsageError, counted
from seatrial.serving.doors.container import platform
from seatrial.serving.doors.http import Front
from seatrial.serving.meters.server_log import Refusals
from seatrial.serving.service import Service

KEEP_ALIVE_SECONDS = 65
BACKLOG = 2048
"""Connections that wait to be accepted."""


class PortInUse(Unavailable):
    """Another process listens on the port."""

    code = "serving.port_in_use"


class CannotListen(UsageError):
    """The address cannot be listened on."""

    code = "serving.cannot_listen"


class DrainTooLong(Failed):
    """A service that was told to stop cut off what it could not answer in time."""

    code = "serving.drain_too_long"


def run(
    service: Service,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    started: Callable[[str], None] | None = None,
    front: Front | None = None,
) -> None:
    """Serve in this process until SIGTERM or SIGINT, then answer what has come in and return.

    port: 0 takes a free one. started: called once with the service's address when it listens.
    Raises PortInUse, CannotListen or DrainTooLong.
    """
    listening = listen(host, port)
    try:
        if started is not None:
            started(address_of(listening))
        serve_on(listening, service, front)
    finally:
        listening.close()


def serve_on(listening: socket.socket, service: Service, front: Front | None = None) -> None:
    """`run` on a socket that listens; it is closed. Of several workers this is what each of them does."""
    import uvicorn

    from seatrial.serving.doors.protocol import PredictionProtocol
    from seatrial.serving.doors.traces import TracedProtocol, from_environment
    from seatrial.serving.workers.draining import DrainingServer

    front = front or Front(service, platform=platform(os.environ))
    service.metrics.refusals = Refusals()
    front.traces = from_environment(os.environ, service.metrics)
    connection = PredictionProtocol if front.traces is None else TracedProtocol
    config = uvicorn.Config(
        front,
        http=cast("type[asyncio.Protocol]", partial(connection, front)),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        backlog=BACKLOG,
    )
    server = DrainingServer(config, front)
    # uvicorn raises the signal again after draining; with these handlers `run` returns instead of dying by it
    previous = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[listening]))
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if front.traces is not None:
            front.traces.close()
    if server.cut_off:
        raise DrainTooLong(
            f"{counted(server.cut_off, 'connection')} had no answer yet when the time was up, or when the stop was "
            "asked for again.",
            state="They were cut off; what was answered is in the prediction log.",
        )


def address_of(listening: socket.socket) -> str:
    """The address of a socket that listens, as callers write it."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises PortInUse or CannotListen."""
    if not 0 <= port <= 65535:
        raise CannotListen(
            f"{port} is no port.", expected="A number from 0 to 65535 is expected.", state="Nothing was started."
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, ValueError) as error:  # a ValueError for what cannot be a name
        why = getattr(error, "strerror", None) or "it is no address"
        raise CannotListen(
            f"{host}:{port} cannot be listened on: {why}.",
            expected="An address of this machine is expected, such as 127.0.0.1 or 0.0.0.0.",
            state="Nothing was started.",
        ) from None
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(BACKLOG)  # a connection that comes before the loop runs waits instead of being refused
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} of {host} is used by another process.",
                state="Nothing was started.",
                next="Stop that process, or choose another port with --port.",
            ) from None
        raise CannotListen(
            f"{host}:{port} cannot be listened on: {error.strerror}.",
            state="Nothing was started.",
            next="Choose another --host or --port.",
        ) from None
    return listening
