"""Failures: how many requests did a service not answer, through no fault of theirs?

The prediction log holds answers; what got a 5xx instead is counted here, and what was refused (4xx) because of the
release that was to answer: by minute and status, in one small file per process. A request that no release would have
taken is counted nowhere. Who counts has `flush` called every second, and `close` when it ends: a sudden death takes at
most the last second's, or what the disk did not take until then. Counting never stands in the way of an answer.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from seatrial.core.errors import Failed
from seatrial.core.identity import uuid7
from seatrial.core.windows import Window

FORMAT = 1
MINUTE_US = 60_000_000


class FailuresTooNew(Failed):
    """Counts of failures were written by a newer version."""

    code = "log.failures_too_new"


class Count(msgspec.Struct, frozen=True):
    """Requests of one minute, deployment and status. minute_us: its start, domain time, microseconds (UTC).

    release: the one that was to answer; empty when the request failed before that was decided, or after.
    """

    format: int
    minute_us: int
    deployment: str
    status: int
    count: int
    release: str = ""


class FailureLog:
    """The counts under one folder; any number of processes write, each its own file, and read at once.

    waits: called when there is something to write, so that somebody calls `flush` soon.
    """

    def __init__(self, root: Path, waits: Callable[[], None] | None = None) -> None:
        self.root = root
        self._waits = waits
        self.forked()

    def forked(self) -> None:
        """Begin anew in a child process: what was counted before is its parent's."""
        self._lock = threading.Lock()  # of the counts
        self._writing = threading.Lock()
        self._counts: Counter[tuple[int, str, int, str]] = Counter()
        self._path: Path | None = None

    def add(self, deployment: str, status: int, at_us: int, release: str = "", count: int = 1) -> None:
        """Count a request, or several, answered with `status`. Never raises: a full disk delays counts, not answers."""
        with self._lock:
            first = not self._counts
            self._counts[at_us - at_us % MINUTE_US, deployment, status, release] += count
        if first and self._waits is not None:
            self._waits()

    def flush(self) -> None:
        """Write what is not written yet; what the disk does not take is kept for the next time."""
        with self._writing:
            with self._lock:
                counts, self._counts = self._counts, Counter()
            if counts and not self._write(counts):
                with self._lock:
                    self._counts += counts

    close = flush

    def count(
        self, *, window: Window, deployment: str | None = None, release: str | None = None, refused: bool = False
    ) -> int:
        """Requests that failed in the minutes that begin in the window, and in that of its start.

        refused: those that got a 4xx because of the release that was to answer, and not those that got a 5xx.
        Lines that cannot be read are left out.

        Raises FailuresTooNew.
        """
        total = 0
        for path in sorted(self.root.glob("*.jsonl")):
            for line in path.read_bytes().splitlines():
                try:
                    one = msgspec.json.decode(line, type=Count)
                except msgspec.DecodeError:
                    continue  # cut off by a sudden death
                if one.format > FORMAT:
                    raise FailuresTooNew(
                        f"{path.name} has counts of the format {one.format}; this version reads up to {FORMAT}.",
                        state="Nothing was changed.",
                        next="Update seatrial.",
                    )
                start_us = window.start_us - window.start_us % MINUTE_US
                of_it = deployment in (None, one.deployment) and release in (None, one.release)
                of_it = of_it and refused == (400 <= one.status < 500)  # an unlogged answer is neither
                if start_us <= one.minute_us < window.end_us and of_it:
                    total += one.count
        return total

    def _write(self, counts: Counter[tuple[int, str, int, str]]) -> bool:
        lines = b"".join(
            msgspec.json.encode(Count(FORMAT, minute_us, deployment, status, number, release)) + b"\n"
            for (minute_us, deployment, status, release), number in sorted(counts.items())
        )
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if self._path is None:
                self._path = self.root / f"{uuid7()}.jsonl"
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                before = os.fstat(descriptor).st_size
                if os.write(descriptor, lines) == len(lines):
                    return True
                os.ftruncate(descriptor, before)  # the disk is full: all of it, later
            finally:
                os.close(descriptor)
        except OSError:
            pass
        return False
