"""A metadata store, a clock that is put where the test wants it, and runs that are small Python programs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from seatrial import Schedule
from seatrial.core.clock import parse_time, to_us
from seatrial.scheduling.running import How
from seatrial.stores.metadata import MetadataStore

START = to_us(parse_time("2024-03-01T10:00:30Z"))
SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000


class World:
    """now: microseconds; code: the program of each schedule, by name."""

    def __init__(self, folder: Path, now: int = START, by: str = "here:1") -> None:
        self.folder = folder
        self.metadata = MetadataStore(folder / "metadata.db")
        self.now = now
        self.by = by
        self.code: dict[str, str] = {}
        self.said: list[str] = []

    def how(self) -> How:
        return How(
            command=lambda one: [sys.executable, "-S", "-E", "-c", self.code.get(one.name, "")],
            cwd=self.folder,
            env={"PATH": os.defpath},
            outputs=self.folder / "outputs",
            by=self.by,
            clock=lambda: self.now,
        )

    def at(self, text: str) -> None:
        self.now = to_us(parse_time(text))


def hourly(**how) -> Schedule:
    return Schedule("monitor", "late", every="1h", name="hourly", **how)
