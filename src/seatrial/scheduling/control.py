"""Control: the loop that starts what is due, one short-lived process for each run.

It keeps nothing that it cannot read again: which runs were made stands in the metadata store, so it may be killed at
any time and started again, and any number of them may work on one project. A run that fails, hangs or prints for ever
ends that run. A metadata store that is away or full is waited for, and nothing is run meanwhile: a run that is not
recorded would be made twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from seatrial.core.clock import from_us, iso, monotonic
from seatrial.core.errors import SeatrialError
from seatrial.scheduling import jobs, lease
from seatrial.scheduling.child import Child, wait
from seatrial.scheduling.declared import Declared
from seatrial.scheduling.definition import Schedule
from seatrial.scheduling.jobs import Ended, JobRun
from seatrial.scheduling.running import How, Running, explained, loops, start
from seatrial.stores.metadata import MetadataStore
from seatrial.stores.pauses import paused

UP = "up"
"""Under which name a loop announces itself."""
LOOK_SECONDS = 5.0
"""How long the loop sleeps at most: a pause, a resume and a jump of the clock are seen after that."""
BUSY_SECONDS = 0.25
AGAIN_SECONDS = 5.0


class Control:
    """The loop of one process.

    schedules: those of now, or what knows which they are while the project changes.
    say: told what happens, a line each. facts: what this process says of itself to others.
    beat: called at each look, at least every LOOK_SECONDS.
    """

    def __init__(
        self,
        metadata: MetadataStore,
        schedules: Sequence[Schedule] | Declared,
        how: How,
        *,
        say: Callable[[str], None],
        facts: dict[str, Any] | None = None,
        beat: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._declared = schedules if isinstance(schedules, Declared) else None
        self._schedules = schedules.in_force if isinstance(schedules, Declared) else list(schedules)
        self._metadata, self._how = metadata, how
        self._say, self._facts, self._beat = say, facts or {}, beat
        self._running: list[Running] = []
        self._next_look = 0.0
        self._announced: int | None = None
        self._told: dict[str, str] = {}

    def run(self, stop_files: Sequence[int], *, grace_seconds: float) -> None:
        """Start what is due until one of `stop_files` can be read; then let what runs have the grace, and stop it."""
        while not wait(self._children(), self._pause(), *stop_files):
            self.look()
        until = monotonic() + grace_seconds
        if self._running:
            names = ", ".join(one.schedule.name for one in self._running)
            self._say(f"Waiting up to {grace_seconds:g} s for {names}.")
        asked = False
        while self._running:
            if not asked and monotonic() >= until:
                asked = True
                for one in self._running:
                    one.stop()
            self._gather()
            if asked and not self._children() and monotonic() > until + 2 * AGAIN_SECONDS:
                break  # their ends cannot be recorded: whoever comes next finds them lost
            if self._running:
                wait(self._children(), BUSY_SECONDS)
        with suppress(SeatrialError):
            lease.leave(self._metadata, UP, self._how.by)

    def look(self) -> None:
        """Record what ended, and start what is due."""
        if self._gather():
            self._next_look = 0.0
        if monotonic() < self._next_look:
            return
        self._take_up()
        try:
            self._announce()
            wake = min((self._consider(one) for one in self._schedules), default=LOOK_SECONDS)
            self._tell("metadata", "")
        except SeatrialError as error:
            self._tell("metadata", f"Nothing is run meanwhile: {explained(error)}")
            wake = AGAIN_SECONDS
        self._beat(not self._running)
        self._next_look = monotonic() + min(max(wake, 0.05), LOOK_SECONDS)

    def _take_up(self) -> None:
        """Go on with what the project declares now."""
        if self._declared is None:
            return
        try:
            words = self._declared.changed()
        except SeatrialError as error:
            self._tell("project", f"The project cannot be read, and all stays as it was: {explained(error)}")
            return
        if not words:
            return
        self._tell("project", "")
        self._schedules = self._declared.in_force
        self._facts = self._facts | {"schedules": len(self._schedules)}
        self._announced = None
        self._say(f"{_at(self._how.clock())}  the project declares other schedules now; {words}")

    def _consider(self, schedule: Schedule) -> float:
        """Start a run of a schedule when one is due; seconds until the next look at it."""
        if any(one.schedule.name == schedule.name for one in self._running):
            return LOOK_SECONDS
        now = self._how.clock()
        actor = self._how.actor(schedule)
        lost = jobs.bury(self._metadata, schedule.name, actor=actor, now_us=now)
        if lost is not None:
            self._say(f"{_at(now)}  {schedule.name}: lost, {jobs.LOST} ({lost.id}, by {lost.by})")
        newest = jobs.newest(self._metadata, schedule.name)
        since = jobs.declare(self._metadata, schedule, actor=actor, at_us=now)
        found = jobs.due(schedule, since, newest, now)
        if found is None:
            return (jobs.next_us(schedule, since, newest, now) - now) / 1e6
        pause = paused(self._metadata, loops(schedule), now)
        self._tell(schedule.name, f"{schedule.name}: due, but '{pause.name}' is {pause.words}" if pause else "")
        if pause is not None:
            return LOOK_SECONDS
        try:
            running = start(self._metadata, schedule, found, self._how)
        except jobs.StillRunning:  # another process was faster
            return LOOK_SECONDS
        if found.words:
            self._say(f"{_at(now)}  {schedule.name}: {found.words}")
        if running is not None:
            self._running.append(running)
        return 0.0

    def _gather(self) -> bool:
        """Record the ends of runs; whether there were any."""
        ended = False
        for one in list(self._running):
            try:
                how = one.look()
            except SeatrialError as error:
                what = "its lease cannot be renewed" if one.children else "its end cannot be recorded"
                self._tell("metadata", f"{one.schedule.name}: {what} yet: {explained(error)}")
                continue
            if how is not None:
                self._running.remove(one)
                self._say(f"{_at(self._how.clock())}  {line(one.job, how)}")
                ended = True
        return ended

    def _announce(self) -> None:
        how, now = self._how, self._how.clock()
        if self._announced is None or abs(now - self._announced) > how.renew_us:  # also when the clock has jumped
            lease.announce(self._metadata, UP, how.by, now, length_us=how.lease_us, **self._facts)
            self._announced = now

    def _children(self) -> list[Child]:
        return [child for one in self._running for child in one.children]

    def _pause(self) -> float:
        left = max(self._next_look - monotonic(), 0.0)
        return min(left, BUSY_SECONDS) if self._running else left

    def _tell(self, about: str, words: str) -> None:
        """Say something once, until it is over."""
        if words and self._told.get(about) != words:
            self._say(f"{_at(self._how.clock())}  {words}")
        self._told[about] = words


def line(job: JobRun, ended: Ended) -> str:
    """A run in one line."""
    took = f" in {ended.seconds:.1f} s" if ended.seconds is not None else ""
    attempt = f", attempt {job.attempt}" if job.attempt > 1 else ""
    words = f": {ended.words}" if ended.words else ""
    return f"{job.schedule}: {ended.state}{took}{attempt}{words} ({job.id})"


def _at(us: int) -> str:
    return iso(from_us(us // 1_000_000 * 1_000_000))
