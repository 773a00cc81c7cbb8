"""Jobs: which runs of schedules were made, when, how did they end, and which is due now?

A run is a frozen record with the instant that it is for, its slot; how it ended is an event. The head (job, NAME) names
a schedule's newest run and moves by compare-and-swap, so a slot is run by one process only, however many try. While it
runs its process holds a lease; a run that has no end and no lease any more is lost, which whoever finds it records.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import Conflict, counted
from seatrial.core.identity import new_id
from seatrial.core.records import Record
from seatrial.core.timing import MOST_COUNTED
from seatrial.scheduling import lease
from seatrial.scheduling.definition import Schedule
from seatrial.stores.metadata import MetadataStore

KIND = "job"
DECLARED = "schedule"

State = Literal["running", "done", "refused", "failed", "timed out", "stopped", "lost", "skipped"]
AGAIN: tuple[State, ...] = ("failed", "timed out", "stopped", "lost")
"""Ends after which the same slot is tried again, as often as the schedule allows."""
LATE_US = 60_000_000
"""From when on an instant counts as missed: nobody was there when it came."""


class StillRunning(Conflict):
    """The run before has not ended. facts: `job`, `holder`."""

    code = "schedule.still_running"


class JobRun(msgspec.Struct, frozen=True):
    """One run of a schedule.

    slot: the instant that it is for. attempt: from 1. words: how it ended, or why it was not made. exit_code: None
    while it runs, and when no process was started; negative for a signal. cpu_seconds, memory_bytes: of the process and
    those that it waited for, their CPU time and the largest one's peak; None when they are not known.
    output: the file with what it printed, shortened; it is kept for a while.
    """

    id: str
    schedule: str
    command: list[str]
    slot: str
    attempt: int
    state: State
    words: str
    started_at: str
    by: str
    ended_at: str | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    exit_code: int | None = None
    output: str = ""
    slot_us: int = 0
    started_us: int = 0
    ended_us: int = 0


class Ended(msgspec.Struct, frozen=True):
    """How a run ended."""

    state: State
    words: str
    exit_code: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    output: str = ""


class Due(msgspec.Struct, frozen=True):
    """A run that is due. missed: instants that went by without one, this one left out; skip: it is only recorded."""

    slot_us: int
    attempt: int = 1
    missed: int = 0
    skip: bool = False

    @property
    def words(self) -> str:
        """Why it is not an ordinary run; empty when it is."""
        if self.skip:
            return f"{_many(self.missed + 1)} missed, and skipped"
        if self.missed:
            return f"{_many(self.missed)} missed before; this run is for all of them"
        return ""


def _many(count: int) -> str:
    return (
        f"more than {MOST_COUNTED - 1:,} instants were"
        if count >= MOST_COUNTED
        else (f"{counted(count, 'instant')} {'was' if count == 1 else 'were'}")
    )


def due(schedule: Schedule, since_us: int, newest: JobRun | None, now_us: int) -> Due | None:
    """What is to be run at `now_us`, if anything.

    since_us: when the schedule was first seen as it is declared now; instants before that are nobody's.
    newest: the schedule's newest run, however it ended. After the clock went back nothing is due until it is again
    where it was.
    """
    if newest is not None and newest.state == "running":
        return None
    after = since_us if newest is None else max(since_us, newest.slot_us)
    count, last = schedule.timing.between(after, now_us)
    if last is not None:
        late = now_us - last > LATE_US
        return Due(last, 1, count - 1, skip=schedule.catch_up == "skip" and late)
    if newest is None or newest.state not in AGAIN or newest.attempt > schedule.retries or newest.slot_us > now_us:
        return None
    if now_us < retry_us(schedule, newest):
        return None
    return Due(newest.slot_us, newest.attempt + 1)


def retry_us(schedule: Schedule, newest: JobRun) -> int:
    """When a run that failed may be tried again; one that was broken off at once."""
    if newest.state in ("stopped", "lost"):
        return newest.ended_us
    return newest.ended_us + schedule.pause_us(newest.attempt)


def next_us(schedule: Schedule, since_us: int, newest: JobRun | None, now_us: int) -> int:
    """When the schedule is due next; in the past when it is due now."""
    found = due(schedule, since_us, newest, now_us)
    if found is not None:
        return found.slot_us
    following = schedule.timing.after(max(now_us, since_us, newest.slot_us if newest else 0))
    if newest is not None and newest.state in AGAIN and newest.attempt <= schedule.retries:
        return min(following, retry_us(schedule, newest))
    return following


def declared_us(metadata: MetadataStore, schedule: Schedule) -> int | None:
    """Since when the schedule is known with its present timing; None when it was not told yet.

    Each timing of a name has a head of its own: two processes with two versions of a project file do not take turns in
    declaring it anew, which would leave nothing due.
    """
    head = metadata.head(DECLARED, _declared(schedule))
    record = metadata.record(head.record_id) if head else None
    return int(record.body["at_us"]) if record else None


def declare(metadata: MetadataStore, schedule: Schedule, *, actor: str, at_us: int) -> int:
    """Tell the metadata store that the schedule is run from now on; since when it is known as it is now."""
    known = declared_us(metadata, schedule)
    if known is not None:
        return known
    with metadata.transaction() as transaction:
        known = declared_us(metadata, schedule)
        if known is not None:  # another process was faster
            return known
        body = {"timing": str(schedule.timing), "words": schedule.told, "at_us": at_us}
        record = Record(new_id("sched"), DECLARED, schedule.name, (), body)
        transaction.add(record)
        transaction.move(DECLARED, _declared(schedule), record.id, expected=0)
        transaction.event("schedule.declared", record.id, actor=actor, at_us=at_us, body=body)
    return at_us


def _declared(schedule: Schedule) -> str:
    return f"{schedule.name} {schedule.timing}"


def newest(metadata: MetadataStore, name: str) -> JobRun | None:
    """A schedule's newest run."""
    head = metadata.head(KIND, name)
    record = metadata.record(head.record_id) if head else None
    return standing(metadata, record) if record else None


def history(metadata: MetadataStore, name: str | None = None, *, limit: int | None = None) -> list[JobRun]:
    """Runs, oldest first; the newest `limit` of them."""
    records = metadata.records(KIND, name)
    return [standing(metadata, one) for one in (records if limit is None else records[-limit:])]


def begin(
    metadata: MetadataStore,
    schedule: Schedule,
    found: Due,
    *,
    actor: str,
    by: str,
    now_us: int,
    lease_us: int = lease.LEASE_US,
    forced: bool = False,
) -> JobRun | None:
    """Claim a run, so that nobody else makes it; None when somebody did, or is at it.

    The run's own id holds its lease. A run before that was lost is told so. forced: also when the slot was run already.
    Raises StillRunning when the run before has not ended.
    """
    with metadata.transaction() as transaction:
        head = transaction.head(KIND, schedule.name)
        before = newest(metadata, schedule.name)
        if before is not None and before.state == "running":
            holder = lease.held(metadata, schedule.name, now_us)
            if holder is not None:
                raise StillRunning(
                    f"run {before.id} of '{schedule.name}' has not ended; it began {before.started_at}.",
                    expected="One run of a schedule at a time.",
                    state="Nothing was run.",
                    job=before.id,
                    holder=holder.facts.get("by", ""),
                )
            _end(metadata, transaction, before, Ended("lost", LOST), actor, now_us)
            before = msgspec.structs.replace(before, state="lost", ended_us=now_us)
        if before is not None and not forced and not _follows(schedule, before, found):
            return None
        same = before is not None and before.slot_us == found.slot_us
        attempt = before.attempt + 1 if same and before is not None else 1
        body: dict[str, Any] = {
            "command": schedule.told,
            "slot_us": found.slot_us,
            "attempt": attempt,
            "missed": found.missed,
            "started_us": now_us,
            "by": by,
        }
        record = Record(new_id("job"), KIND, schedule.name, (), body)
        transaction.add(record)
        transaction.move(KIND, schedule.name, record.id, expected=head.generation if head else 0)
        transaction.event("job.started", record.id, actor=actor, at_us=now_us, body={"slot_us": found.slot_us})
        if found.skip:
            _end(metadata, transaction, _of(record), Ended("skipped", found.words), actor, now_us)
        else:
            lease.take(metadata, transaction, schedule.name, record.id, now_us, length_us=lease_us, by=by)
    made = metadata.record(record.id)
    assert made is not None, "it was added above"
    return standing(metadata, made)


LOST = "its process was gone before it had ended; how far it came is not known"


def _follows(schedule: Schedule, before: JobRun, found: Due) -> bool:
    """Whether a run may be made after this one: of a later slot, or of the same one again as often as allowed."""
    if found.slot_us != before.slot_us:
        return found.slot_us > before.slot_us
    return before.state in AGAIN and before.attempt <= schedule.retries


def as_seen(metadata: MetadataStore, job: JobRun, now_us: int) -> JobRun:
    """A run as whoever looks at `now_us` is told of it: without a lease it is lost, though nobody recorded that yet."""
    if job.state != "running" or lease.held(metadata, job.schedule, now_us) is not None:
        return job
    return msgspec.structs.replace(job, state="lost", words=LOST)


def bury(metadata: MetadataStore, name: str, *, actor: str, now_us: int) -> JobRun | None:
    """Tell that the newest run is lost, when it has neither an end nor a lease; the run, if so."""
    found = newest(metadata, name)
    if found is None or found.state != "running" or lease.held(metadata, name, now_us) is not None:
        return None
    with metadata.transaction() as transaction:
        found = newest(metadata, name)
        if found is None or found.state != "running" or lease.held(metadata, name, now_us) is not None:
            return None
        _end(metadata, transaction, found, Ended("lost", LOST), actor, now_us)
    return found


def end(metadata: MetadataStore, job: JobRun, ended: Ended, *, actor: str, now_us: int) -> bool:
    """Record how a run ended; False when somebody else said so first: it was thought to be lost."""
    with metadata.transaction() as transaction:
        record = metadata.record(job.id)
        assert record is not None, "it was begun"
        if standing(metadata, record).state != "running":
            return False
        _end(metadata, transaction, job, ended, actor, now_us)
    return True


def _end(metadata: MetadataStore, transaction: Any, job: JobRun, ended: Ended, actor: str, now_us: int) -> None:
    transaction.event("job.ended", job.id, actor=actor, at_us=now_us, body=msgspec.to_builtins(ended))
    lease.drop(metadata, transaction, job.schedule)


def standing(metadata: MetadataStore, record: Record) -> JobRun:
    """A run and how it ended, from its events."""
    job = _of(record)
    for event in metadata.events(subject=record.id, kind="job.ended"):
        ended = msgspec.convert(event.body, Ended)
        missed = Due(job.slot_us, missed=record.body["missed"]).words if ended.state != "skipped" else ""
        job = msgspec.structs.replace(
            job,
            state=ended.state,
            words=". ".join(one for one in (ended.words.rstrip(".") if missed else ended.words, missed) if one),
            ended_at=iso(from_us(event.at_us)),
            ended_us=event.at_us,
            seconds=ended.seconds,
            cpu_seconds=ended.cpu_seconds,
            memory_bytes=ended.memory_bytes,
            exit_code=ended.exit_code,
            output=ended.output,
        )
    return job


def _of(record: Record) -> JobRun:
    body = record.body
    return JobRun(
        id=record.id,
        schedule=record.name,
        command=list(body["command"]),
        slot=iso(from_us(body["slot_us"])),
        attempt=body["attempt"],
        state="running",
        words=Due(body["slot_us"], missed=body["missed"]).words,
        started_at=iso(from_us(body["started_us"])),
        by=body["by"],
        slot_us=body["slot_us"],
        started_us=body["started_us"],
    )
