"""The nouns that are kept: frozen records, events about them, and heads that point at one of them.

A `Record` never changes once written. What happens to it is an `Event`; events form one hash-chained
log. A `Head` names the record that is current for (kind, name); it is the only thing that moves, by
compare-and-swap on its generation, in the transaction of the event that moved it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from seatrial.core.identity import canonical_json, digest, value_digest

GENESIS = "0" * 64
"""What the first event names as its predecessor's hash."""


@dataclass(frozen=True)
class Record:
    """One frozen fact of the path.

    id: `snap_`, `tset_`, `rel_` and 32 hex digits of content, or a prefix and a version-7 UUID.
    kind: snapshot, training_set, run, version, release, deployment, ...
    name: what it belongs to (the model's or source's name); empty for content that belongs to nobody.
    inputs: ids of the records it was made from, in a meaningful order.
    body: plain JSON values.
    format: the number of the body's format; readers refuse newer ones.
    """

    id: str
    kind: str
    name: str
    inputs: tuple[str, ...] = ()
    body: dict[str, Any] = field(default_factory=dict)
    format: int = 1


@dataclass(frozen=True)
class Event:
    """Something that happened, who did it, and when.

    seq: position in the log, from 1, without gaps.
    subject: the id of the record that it is about, or a (kind/name) such as "deployment/late".
    actor: who; `asserted` is true while identities are not proved.
    at_us: domain time, record time is `recorded_at_us`; microseconds since 1970 (UTC).
    previous, hash: the chain, see `event_hash`.
    records: id -> `record_digest` of the records that came with the event: those added in its transaction since the
        event before, and the one that `subject` names; so that a record edited later shows.
    format: the number of the format of the event; readers refuse newer ones.
    """

    seq: int
    kind: str
    subject: str
    actor: str
    at_us: int
    recorded_at_us: int
    body: dict[str, Any]
    previous: str
    hash: str
    asserted: bool = True
    records: dict[str, str] = field(default_factory=dict)
    format: int = 1


@dataclass(frozen=True)
class Head:
    """The current record of (kind, name). generation rises by one with every move, from 1."""

    kind: str
    name: str
    record_id: str
    generation: int


def record_digest(record: Record) -> str:
    """The digest of everything in a record: 64 hex digits."""
    return value_digest(
        {
            "body": record.body,
            "format": record.format,
            "id": record.id,
            "inputs": record.inputs,
            "kind": record.kind,
            "name": record.name,
        }
    )


def event_hash(event: Event) -> str:
    """The hash that `event` must have: the digest of `previous` and the canonical JSON of all else but `hash`."""
    fields = {
        "actor": event.actor,
        "asserted": event.asserted,
        "at_us": event.at_us,
        "body": event.body,
        "format": event.format,
        "kind": event.kind,
        "recorded_at_us": event.recorded_at_us,
        "records": event.records,
        "seq": event.seq,
        "subject": event.subject,
    }
    return digest(event.previous.encode() + canonical_json(fields))
