"""Where one of several workers stands, and what it knows of the others.

A service's runtime folder holds, for as long as the service runs, a file for each worker's slot in which it says
whether it is ready and what it took up, and one page of shared memory in which each counts on while its event loop
turns. A slot is kept when its worker is started again, so there are never more files than workers.

    slot-N.json    what worker N says
    beats          see `Beats`
    metrics/       what the workers count, see `serving.meters.slots`
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from seatrial.core.errors import SeatrialError

_BEAT = struct.Struct("<QQ")  # beats, connections
_FIRST = 64


class Said(msgspec.Struct, frozen=True):
    """What a worker says of itself; reason: why it is not ready, empty when it is. generations: of its routes.

    accepting: whether it takes connections. error: what kept it from starting, as a problem document with state and
    next step.
    """

    slot: int
    pid: int
    accepting: bool = False
    reason: str = ""
    generations: dict[str, int] = {}
    error: dict[str, Any] | None = None


class Beats:
    """One page that all processes of a service share: a mark that it stops, one that it was complete once, and for each
    slot a number that grows while its worker's event loop turns, and how many connections that has."""

    def __init__(self, folder: Path, workers: int) -> None:
        path = folder / "beats"
        if not path.exists():
            path.write_bytes(bytes(_FIRST + _BEAT.size * workers))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 0)

    @property
    def stopping(self) -> bool:
        return bool(self._page[0])

    @property
    def complete(self) -> bool:
        return bool(self._page[1])

    def stop(self) -> None:
        self._page[0] = 1

    def completed(self) -> None:
        self._page[1] = 1

    def of(self, slot: int) -> int:
        """The beats of a slot's workers so far."""
        return int(_BEAT.unpack_from(self._page, _FIRST + _BEAT.size * slot)[0])

    def connections(self, slot: int) -> int:
        """The connections of a slot's worker."""
        return int(_BEAT.unpack_from(self._page, _FIRST + _BEAT.size * slot)[1])

    def set(self, slot: int, beats: int, connections: int) -> None:
        _BEAT.pack_into(self._page, _FIRST + _BEAT.size * slot, beats, connections)


class Place:
    """A worker's place.

    life: a descriptor that is read as ended when the supervisor is gone; None: nobody watches. alone: whether it is.
    """

    def __init__(self, folder: Path, slot: int, workers: int, *, life: int | None = None) -> None:
        self.folder = folder
        self.slot = slot
        self.workers = workers
        self.life = life
        self.accepting = False
        self.alone = False
        self._beats = Beats(folder, workers)
        self._said: Said | None = None

    @property
    def metrics(self) -> Path:
        """The folder in which the workers' counts lie."""
        return self.folder / "metrics"

    @property
    def stopping(self) -> bool:
        """Whether the whole service stops."""
        return self._beats.stopping

    def beat(self, connections: int) -> None:
        """Say that the event loop turns, and how many connections there are."""
        self._beats.set(self.slot, self._beats.of(self.slot) + 1, connections)

    def has_connections(self, connections: int) -> None:
        """Say how many connections there are."""
        self._beats.set(self.slot, self._beats.of(self.slot), connections)

    def fewest_connections(self) -> int:
        """The connections of the worker that has the fewest."""
        return min(map(self._beats.connections, range(self.workers)))

    def say(self, reason: str, generations: Mapping[str, int]) -> None:
        """Let the others know; nothing is written when nothing changed."""
        said = Said(self.slot, os.getpid(), self.accepting, reason, dict(generations))
        if said != self._said:
            with suppress(OSError):  # a folder that takes nothing now is asked again by the next change
                write(self.folder, said)
                self._said = said

    def failed(self, error: SeatrialError) -> None:
        """Leave word why this worker does not start."""
        document = {name: getattr(error, name) for name in ("code", "found", "expected", "state", "next", "exit_code")}
        write(self.folder, Said(self.slot, os.getpid(), reason=error.found, error=document))

    def together(self, own: str) -> tuple[str, list[dict[str, Any]]]:
        """Why the service is not ready, empty when it is, and what is said of each worker.

        own: this worker's own reason. The service is ready when every worker that takes connections is, once all of
        them did: one that is started again takes none until it is ready, and nobody waits for it.
        """
        everyone = [read(self.folder, slot) for slot in range(self.workers)]
        newest: dict[str, int] = {}
        for said in everyone:
            for name, generation in said.generations.items():
                newest[name] = max(generation, newest.get(name, 0))
        workers = []
        reason = own
        for said in everyone:
            told: dict[str, Any] = {"slot": said.slot, "pid": said.pid, "accepting": said.accepting}
            told["reason"] = own if said.slot == self.slot else said.reason
            if said.accepting:
                behind = sorted(name for name, number in newest.items() if said.generations.get(name, 0) < number)
                if behind:
                    told["behind"] = behind
                reason = reason or said.reason
            workers.append(told)
        if not reason and not self._beats.complete:
            ready = sum(said.accepting for said in everyone)
            reason = f"{ready} of {self.workers} workers have loaded their releases and replayed the golden rows."
        return reason, workers


def write(folder: Path, said: Said) -> None:
    """Put what is said in the place of what was."""
    path = folder / f"slot-{said.slot}.json"
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_bytes(msgspec.json.encode(said))
    aside.replace(path)


def read(folder: Path, slot: int) -> Said:
    """What the worker of a slot said last; of one that said nothing yet, that it is being started."""
    try:
        return msgspec.json.decode((folder / f"slot-{slot}.json").read_bytes(), type=Said)
    except (OSError, msgspec.MsgspecError):
        return starting(slot)


def starting(slot: int, reason: str = "It is being started.") -> Said:
    """What is said of a worker that cannot speak for itself yet."""
    return Said(slot, 0, reason=reason)
