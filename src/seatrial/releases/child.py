"""The process in which a model without an ONNX form answers: it loads one model and scores what it is sent.

It is started by `releases.supervised` with one end of a socket, knows no keys, settings or stores, and ends when the
process that started it does. Rows come in and scores go out as `releases.frames`; what the estimator raises is told.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec

from seatrial.releases import frames
from seatrial.releases.native import NativeModel, Scorer, one_line

# What these libraries import when it is there, and do not need to score: seconds of the start, half of the memory.
NOT_NEEDED = {
    "lightgbm": ("sklearn", "pandas", "pyarrow", "matplotlib", "dask", "cffi"),
    "xgboost": ("sklearn", "pandas", "pyarrow", "matplotlib", "dask"),
}


def main(link_fd: int, life_fd: int) -> None:
    """Serve the other end of the socket `link_fd` until it closes. life_fd: the read end of the parent's life pipe."""
    _die_with(life_fd)
    os.dup2(2, 1)  # libraries that print do not reach the parent's stdout
    link = socket.socket(fileno=link_fd)
    with contextlib.suppress(frames.Broken):
        scorer = _load(link)
        while scorer is not None:
            _answer(link, scorer)
    os._exit(0)  # nothing is to be saved, and libraries take their time to say good-bye


def _die_with(life_fd: int) -> None:
    """End when the parent does, even in the middle of a long computation and however the parent ended.

    Nobody writes into the pipe. When its last writer is gone the kernel sends SIGIO, which nobody handles.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent answers what is open
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    fcntl.fcntl(life_fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life_fd, fcntl.F_SETFL, fcntl.fcntl(life_fd, fcntl.F_GETFL) | os.O_ASYNC)


def _load(link: socket.socket) -> Scorer | None:
    """The scorer of the model that is sent; None when it cannot be loaded, which was then told."""
    _, body = frames.receive(link)
    hello = msgspec.msgpack.decode(body, type=frames.Hello)
    _, model = frames.receive(link)
    try:
        if hello.version != frames.VERSION:
            raise ValueError(f"the server speaks version {hello.version}, its child {frames.VERSION}")
        for module in NOT_NEEDED.get(hello.format, ()):
            sys.modules[module] = None  # type: ignore[assignment]
        native: Any = NativeModel(hello.format, bytes(model), hello.task)  # type: ignore[arg-type]
        scorer: Scorer = native.scorer()
    except Exception as error:  # a loader raises what it likes
        _tell(link, error)
        return None
    frames.send(link, frames.READY, frames.told(frames.Ready(frames.VERSION, _memory())))
    return scorer


def _answer(link: socket.socket, scorer: Scorer) -> None:
    kind, body = frames.receive(link)
    try:
        scores = scorer(frames.named(body) if kind == frames.COLUMNS else frames.values(body, "<f4"))
    except Exception as error:  # an estimator raises what it likes
        _tell(link, error)
        return
    frames.send(link, frames.SCORES, *frames.matrix(scores))


def _tell(link: socket.socket, error: Exception) -> None:
    frames.send(link, frames.RAISED, frames.told(frames.Raised(type(error).__name__, one_line(error))))


def _memory() -> int:
    """Bytes of memory that this process has now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()
