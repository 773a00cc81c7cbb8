"""The nouns that are kept: frozen records, events about them, and heads that point at one of them.

A `Record` never changes once written. What happens to it is an `Event`; events form one hash-chained
log. A `Head` names the record that is current for (kind, name); it is the only thing that moves, by
compare-and-swap on its generation, in the transaction of the event that moved it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
    previous, hash: the chain: hash = digest(previous hash and this event's canonical JSON).
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


@dataclass(frozen=True)
class Head:
    """The current record of (kind, name). generation rises by one with every move, from 1."""

    kind: str
    name: str
    record_id: str
    generation: int
