"""Metering: what does the server cost while `seatrial up` runs, and how much memory does it take to wait?

The server's own counters (`/metrics`: CPU seconds of its processes, rows answered) are read every so often; what lies
between two readings is added up and kept as a record every hour, and when the loop ends. CPU that the server spends
waiting counts, as it is paid for. Memory is the proportional share (PSS) of processes: of all of `seatrial up`, read
while no run is under way and nothing was asked, and of the server's at each reading; Linux alone tells it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.request import ProxyHandler, build_opener

from seatrial.core.clock import machine_us, monotonic
from seatrial.core.errors import SeatrialError
from seatrial.core.identity import new_id
from seatrial.core.records import Record
from seatrial.core.windows import Window
from seatrial.monitoring.report import Resources
from seatrial.scheduling.by_hand import KIND
from seatrial.stores.metadata import MetadataStore

SERVING, IDLE, SERVER = "serving", "idle", "server"
SAMPLE_SECONDS = 10.0
KEEP_US = 3_600_000_000
_PATIENCE_SECONDS = 2.0
_DIRECT = build_opener(ProxyHandler({}))  # the server is on this machine


class Counted(NamedTuple):
    """What the server has counted since it started."""

    cpu_seconds: float
    predictions: float


class Meter:
    """Reads the counters, and keeps what they say.

    read: the server's counters; None while they cannot be read. memory: bytes and processes; None where nobody tells.
    of_server: the same of the server's processes alone. by: which process measures.
    """

    _idle: tuple[int, int] | None
    _server: tuple[int, int]

    def __init__(
        self,
        metadata: MetadataStore,
        *,
        read: Callable[[], Counted | None],
        memory: Callable[[], tuple[int, int] | None],
        of_server: Callable[[], tuple[int, int] | None] = lambda: None,
        by: str,
        actor: str,
        clock: Callable[[], int] = machine_us,
        sample_seconds: float = SAMPLE_SECONDS,
    ) -> None:
        self._metadata, self._read, self._memory = metadata, read, memory
        self._of_server = of_server
        self._by, self._actor, self._clock = by, actor, clock
        self._sample_seconds = sample_seconds
        self._next = 0.0
        self._before: Counted | None = None
        self._at = monotonic()
        self._idle: tuple[int, int] | None = None
        self._begin()

    def beat(self, idle: bool) -> None:
        """Read the counters when it is time. idle: no run is under way."""
        if monotonic() < self._next:
            return
        now = self._read()
        before, self._before = self._before, now
        since, self._at = self._at, monotonic()
        self._next = monotonic() + (self._sample_seconds if now is not None else 0.0)  # until it answers, at each look
        if before is not None and now is not None and now >= before:  # less: it was started anew
            self._cpu += now.cpu_seconds - before.cpu_seconds
            self._predictions += round(now.predictions - before.predictions)
            self._seconds += self._at - since
            self._server = max(self._server, self._of_server() or (0, 0))
            if idle and now.predictions == before.predictions:
                self._idle = self._memory() or self._idle
        if self._clock() - self._since >= KEEP_US:
            self.keep()

    def keep(self) -> None:
        """Keep what was measured since the last time, all of it or nothing; a store that does not take it is asked
        again later."""
        span = {"from_us": self._since, "until_us": self._clock(), "by": self._by}
        found = {}
        if self._predictions:
            found[SERVING] = {"cpu_seconds": round(self._cpu, 3), "predictions": self._predictions}
        if self._seconds:
            figures = {"cpu_seconds": round(self._cpu, 3), "seconds": round(self._seconds, 6)}
            found[SERVER] = figures | {"bytes": self._server[0], "processes": self._server[1]}
        if self._idle:
            found[IDLE] = {"bytes": self._idle[0], "processes": self._idle[1]}
        with suppress(SeatrialError):
            with self._metadata.transaction() as transaction:
                for name, body in found.items():
                    record = Record(new_id("cost"), KIND, name, (), span | body)
                    transaction.add(record)
                    of = {"of": name}
                    transaction.event("cost.measured", record.id, actor=self._actor, at_us=self._clock(), body=of)
            self._begin()

    def _begin(self) -> None:
        self._since = self._clock()
        self._cpu, self._predictions, self._seconds = 0.0, 0, 0.0
        self._server = (0, 0)
        self._idle = None


def counters(url: str) -> Counted | None:
    """What the server at `url` has counted; None when it does not answer, as while it starts."""
    try:
        with _DIRECT.open(f"{url}/metrics", timeout=_PATIENCE_SECONDS) as answer:
            text = answer.read().decode()
    except (OSError, ValueError, HTTPException):
        return None
    cpu = sum(_values(text, "process_cpu_seconds_total"))
    return Counted(cpu, sum(_values(text, "model_predictions_total")))


def _values(text: str, name: str) -> Iterator[float]:
    for line in text.splitlines():
        if line.startswith((f"{name} ", f"{name}{{")):
            with suppress(ValueError):
                yield float(line.rpartition(" ")[2])


def used(metadata: MetadataStore, window: Window) -> Resources | None:
    """What the server took in a window, of the measurements that lie in it by more than half; None without any."""
    found = [
        one.body
        for one in metadata.records(KIND, SERVER)
        if window.start_us <= (int(one.body["from_us"]) + int(one.body["until_us"])) // 2 < window.end_us
    ]
    if not found:
        return None
    return Resources(
        seconds=sum(float(one["seconds"]) for one in found),
        cpu_seconds=sum(float(one["cpu_seconds"]) for one in found),
        memory_bytes=max(int(one["bytes"]) for one in found) or None,
    )


def memory_beside(pid: int) -> tuple[int, int] | None:
    """The memory of those that the same process started as this one, and of all below them: bytes, and how many."""
    found = [memory_below(one) for one in _children(pid) if one != os.getpid()]
    known = [one for one in found if one is not None]
    return (sum(one[0] for one in known), sum(one[1] for one in known)) if known else None


def memory_below(pid: int) -> tuple[int, int] | None:
    """The memory of a process and of all below it: bytes, and how many they are; None where it is not told."""
    total = count = 0
    for one in _family(pid):
        share = _share(one)
        if share is not None:
            total, count = total + share, count + 1
    return (total, count) if count else None


def _family(pid: int) -> Iterator[int]:
    yield pid
    for child in _children(pid):
        yield from _family(child)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _share(pid: int) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return None
