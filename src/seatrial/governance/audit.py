"""The audit log: who did what and when, and is the log still what was written?

Each event's hash covers the hash before it, so an event that was edited, taken out, put in or moved breaks the chain
at its place. The hash of an event covers the records that came with it as well. What a chain cannot show by itself is a
tail that was cut off or written anew; for that, keep an `Anchor` in another place (a release's manifest, the output of
a deploy) and hand it to `verify`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from seatrial.core.errors import Failed, UsageError
from seatrial.core.records import GENESIS, Event, event_hash, record_digest
from seatrial.stores.metadata import EVENT_FORMAT, MetadataDamaged, MetadataStore, UnreadableEvent

_PAGE = 5000


class AuditBroken(Failed):
    """The audit log is not what was written. facts: `seq` of the first bad event and `reason`."""

    code = "audit.broken"


class UnknownEvent(UsageError):
    """The audit log has no such event."""

    code = "audit.unknown_event"


class Anchor(msgspec.Struct, frozen=True):
    """How far the log had come at some time: its last event's position and hash; (0, 64 zeros) for an empty log."""

    seq: int
    hash: str


class BadEvent(msgspec.Struct, frozen=True):
    """The first place where the log is not what was written. seq: of the event that is bad or missing."""

    seq: int
    reason: str


class AuditReport(msgspec.Struct, frozen=True):
    """What `verify` found.

    events: how many are in the file. head: the anchor of the log as it is; keep it elsewhere. anchors: how many were
    compared. first_bad: None when everything is as it was written.
    """

    events: int
    head: Anchor
    anchors: int
    first_bad: BadEvent | None

    @property
    def intact(self) -> bool:
        return self.first_bad is None


def anchor(metadata: MetadataStore) -> Anchor:
    """How far the log has come now, to be kept in another place."""
    last = metadata.last_event()
    return Anchor(last.seq, last.hash) if last else Anchor(0, GENESIS)


def verify(metadata: MetadataStore, anchors: Sequence[Anchor] = ()) -> AuditReport:
    """Check every event of the log, the records that they are about, and anchors kept elsewhere.

    Names the first bad event; a tail cut off is found when the file or an anchor remembers it. Events that are
    appended meanwhile are checked as well. Never raises for what it finds.
    """
    remembered: dict[int, set[str]] = {}
    for kept in anchors:
        remembered.setdefault(kept.seq, set()).add(kept.hash)
    last, count = Anchor(0, GENESIS), 0
    first_bad = BadEvent(0, "no log starts as an anchor says") if remembered.get(0, {GENESIS}) != {GENESIS} else None
    after: int | None = None
    while page := metadata.chain(after=after, limit=_PAGE):
        for event in page:
            if first_bad is None:
                first_bad = _fault(metadata, event, last, remembered)
            hashed = "" if isinstance(event, UnreadableEvent) else event.hash
            last = Anchor(event.seq, hashed)
        count += len(page)
        after = last.seq
    if first_bad is None:
        first_bad = _cut(last, max([metadata.appended(), *remembered]))
    return AuditReport(events=count, head=last, anchors=len(anchors), first_bad=first_bad)


def refusal(report: AuditReport) -> AuditBroken:
    """The error that says what a report found, for callers that must stop."""
    bad = report.first_bad or BadEvent(0, "nothing is wrong")
    return AuditBroken(
        f"the audit log is not what was written, from event {bad.seq} on: {bad.reason}.",
        expected="Each event follows the one before it, as it was written.",
        state="The log was not changed by looking.",
        next="Keep a copy of the metadata file, and compare it with a backup.",
        seq=bad.seq,
        reason=bad.reason,
    )


def newest(metadata: MetadataStore, limit: int = 50, *, subject: str | None = None) -> list[Event]:
    """The newest events, or those about one subject, oldest first; at most `limit`, which is at least 1."""
    if subject is not None:
        return metadata.events(subject=subject)[-limit:]
    last = metadata.last_event()
    return metadata.events(after=max(0, last.seq - limit)) if last else []


def show(metadata: MetadataStore, seq: int) -> Event:
    """One event. Raises UnknownEvent."""
    found = metadata.events(after=seq - 1, limit=1)
    if found and found[0].seq == seq:
        return found[0]
    last = metadata.last_event()
    raise UnknownEvent(
        f"the audit log has no event {seq}.",
        expected=f"It has the events 1 to {last.seq}." if last else "Nothing has happened yet.",
        state="Nothing was changed.",
        next="seatrial audit list",
    )


def _fault(
    metadata: MetadataStore, event: Event | UnreadableEvent, last: Anchor, remembered: dict[int, set[str]]
) -> BadEvent | None:
    """What is wrong with the event after `last`, if anything."""
    if event.seq < 1:
        return BadEvent(event.seq, "it was put in; events count from 1")
    if event.seq != last.seq + 1:
        return BadEvent(last.seq + 1, f"it is missing; event {event.seq} comes next")
    if isinstance(event, UnreadableEvent):
        return BadEvent(event.seq, f"it {event.reason}")
    if event.format > EVENT_FORMAT:
        return BadEvent(event.seq, f"its format is {event.format}; this version reads up to {EVENT_FORMAT}")
    if event.previous != last.hash:
        return BadEvent(event.seq, f"it does not follow event {last.seq}: one of the two was changed, put in or moved")
    if not _hash_fits(event):
        return BadEvent(event.seq, "it was changed after it was written")
    if remembered.get(event.seq, {event.hash}) != {event.hash}:
        return BadEvent(event.seq, "it is not the event that an anchor names; the log was written anew up to here")
    for record_id, digest in event.records.items():
        if not _record_fits(metadata, record_id, digest):
            return BadEvent(event.seq, f"the record '{record_id}' that came with it was changed or taken out since")
    return None


def _hash_fits(event: Event) -> bool:
    try:
        return event_hash(event) == event.hash
    except UnicodeError:
        return False


def _record_fits(metadata: MetadataStore, record_id: str, digest: str) -> bool:
    try:
        record = metadata.record(record_id)
    except MetadataDamaged:
        return False
    return record is not None and record_digest(record) == digest


def _cut(last: Anchor, highest: int) -> BadEvent | None:
    if highest <= last.seq:
        return None
    return BadEvent(last.seq + 1, f"it is missing; the log had come to event {highest}, and its tail was cut off")
