"""Running: one claimed run, from the start of its process to the record of its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from seatrial.core.clock import machine_us, monotonic
from seatrial.core.errors import SeatrialError
from seatrial.scheduling import jobs, lease
from seatrial.scheduling.child import Child, wait
from seatrial.scheduling.definition import Schedule
from seatrial.scheduling.jobs import Due, Ended, JobRun
from seatrial.stores.metadata import MetadataStore
from seatrial.stores.pauses import (
    ALERTS,
    BATCHES,
    MATERIALIZING,
    MONITORING,
    RETRAINING,
    ROLLOUTS,
    SCHEDULES,
    SHIPPING,
)

OUTPUTS_KEPT = 20
"""Files with what runs printed, for each schedule."""
_LOOPS = {
    "monitor": MONITORING,
    "label": MONITORING,
    "materialize": MATERIALIZING,
    "batch": BATCHES,
    "alerts check": ALERTS,
    "retrain": RETRAINING,
    "deployments advance": ROLLOUTS,
    "predictions ship": SHIPPING,
    "predictions prune": SHIPPING,
}


@dataclass(frozen=True)
class How:
    """How runs are made here.

    command: the words of a run's process. cwd, env: where it works. outputs: the folder for what runs print.
    by: which process this is, for people: its host and number.
    clock: the machine's, in microseconds. lease_us: how long a lease holds without being renewed.
    """

    command: Callable[[Schedule], Sequence[str]]
    cwd: Path
    env: dict[str, str]
    outputs: Path
    by: str
    clock: Callable[[], int] = machine_us
    lease_us: int = lease.LEASE_US

    @property
    def renew_us(self) -> int:
        """How often a lease is renewed."""
        return self.lease_us // 4

    def actor(self, schedule: Schedule) -> str:
        """Who is told in the audit log."""
        return f"schedule:{schedule.name}"


def loops(schedule: Schedule) -> list[str]:
    """Whose pauses a schedule obeys."""
    of_verb = [_LOOPS[schedule.verb]] if schedule.verb in _LOOPS else []
    return [SCHEDULES, schedule.name, *([schedule.model] if schedule.model else []), *of_verb]


class Running:
    """A run that was begun. Its lease is renewed and its end recorded by whoever calls `look`."""

    def __init__(self, metadata: MetadataStore, schedule: Schedule, job: JobRun, how: How) -> None:
        self.schedule, self.job = schedule, job
        self._metadata, self._how = metadata, how
        self._renewed = how.clock()
        self._ended: Ended | None = None
        self.child: Child | None = None
        try:
            self.child = Child(how.command(schedule), cwd=how.cwd, env=how.env, timeout_us=schedule.timeout_us)
        except OSError as error:
            self._ended = Ended("failed", f"no process could be started: {error.strerror}")

    @property
    def children(self) -> list[Child]:
        """Its process, while it runs."""
        return [self.child] if self.child is not None and self._ended is None else []

    def stop(self) -> None:
        """Ask it to end."""
        for child in self.children:
            child.stop()

    def look(self) -> Ended | None:
        """How it ended, once that is recorded; None before. Raises what the metadata store does; ask again then."""
        if self._ended is None and self.child is not None:
            self._ended = self.child.poll()
            if self._ended is not None:
                self._ended = self._with_output(self._ended, self.child.output())
        if self._ended is None:
            self._renew()
            return None
        jobs.end(self._metadata, self.job, self._ended, actor=self._how.actor(self.schedule), now_us=self._how.clock())
        return self._ended

    def _renew(self) -> None:
        how, now = self._how, self._how.clock()
        if abs(now - self._renewed) < how.renew_us:  # a clock that jumps may have ended it
            return
        if not lease.renew(self._metadata, self.schedule.name, self.job.id, now, length_us=how.lease_us):
            assert self.child is not None
            self.child.stop("lost")
        self._renewed = now

    def _with_output(self, ended: Ended, output: str) -> Ended:
        if not output:
            return ended
        folder = self._how.outputs
        path = folder / f"{self.schedule.name}.{self.job.id}.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # a verb may print what is not for everybody
            path.write_text(output, encoding="utf-8")
        except OSError as error:
            words = f"{ended.words}; what it printed could not be kept: {error.strerror}".lstrip("; ")
            return msgspec.structs.replace(ended, words=words)
        for old in sorted(folder.glob(f"{self.schedule.name}.job_*.txt"))[:-OUTPUTS_KEPT]:
            with suppress(OSError):
                old.unlink()
        return msgspec.structs.replace(ended, output=str(path))


def start(metadata: MetadataStore, schedule: Schedule, found: Due, how: How, *, forced: bool = False) -> Running | None:
    """Claim a run and start its process; None when somebody else made it. Raises StillRunning."""
    job = jobs.begin(
        metadata,
        schedule,
        found,
        actor=how.actor(schedule),
        by=how.by,
        now_us=how.clock(),
        lease_us=how.lease_us,
        forced=forced,
    )
    return None if job is None or job.state == "skipped" else Running(metadata, schedule, job, how)


def finish(running: Running, stopped: Callable[[], bool], *, grace_seconds: float = 0.0) -> Ended:
    """Wait for a run; once `stopped`, let it have the grace and then stop it. Raises what keeps its end unrecorded."""
    until: float | None = None
    while True:
        ended = running.look()
        if ended is not None:
            return ended
        if stopped():
            until = until or monotonic() + grace_seconds
            if monotonic() >= until:
                running.stop()
        wait(running.children, 0.25)


def explained(error: SeatrialError) -> str:
    """An error in one line."""
    return f"{' '.join(error.found.split())} [{error.code}]"
