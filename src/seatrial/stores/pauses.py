"""Pauses: which loops were told to stand still, by whom, why, and until when?

A loop is whatever acts without being asked each time: the schedules, reports, materialization, batches, a model's
retraining, the controller of its rollouts, the sending of alerts, the shipping of the log. A pause is a record, the
head (pause, NAME) names the newest of its name, and each is told in the audit log. Whoever runs a loop asks before each
step.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import NotAllowed
from seatrial.core.identity import new_id
from seatrial.core.records import Record
from seatrial.stores.metadata import MetadataStore, Transaction

KIND = "pause"
SCHEDULES, RETRAINING, ROLLOUTS, SHIPPING = "schedules", "retraining", "rollouts", "shipping"
MONITORING, MATERIALIZING, BATCHES, ALERTS = "monitoring", "materializing", "batches", "alerts"
LOOPS = {
    SCHEDULES: "everything that `seatrial up` starts by itself, and `seatrial schedules run`",
    MONITORING: "scheduled reports and labels, of every model",
    MATERIALIZING: "scheduled materialization, of every view",
    BATCHES: "scheduled batches, of every model",
    ALERTS: "looking for silence, the heartbeat, and sending messages to routes",
    RETRAINING: "proposing and training challengers, of every model",
    ROLLOUTS: "advancing rollouts without being asked, of every deployment",
    SHIPPING: "shipping and pruning the prediction log",
}


class Paused(NotAllowed):
    """The loop was told to stand still. facts: `pause`."""

    code = "loop.paused"


class Pause(msgspec.Struct, frozen=True):
    """A pause that holds. until: None: until it is resumed."""

    name: str
    reason: str
    by: str
    since: str
    until: str | None

    @property
    def words(self) -> str:
        """Who paused it, since when and why."""
        until = f", until {self.until}" if self.until else ""
        return f"paused by {self.by} since {self.since}{until}: {self.reason}"


def pause(transaction: Transaction, name: str, *, reason: str, until_us: int | None, actor: str, at_us: int) -> Pause:
    """Let the loop stand still, also where it does already: the newest reason and end count."""
    body = {"paused": True, "reason": reason, "until_us": until_us, "actor": actor, "at_us": at_us}
    _move(transaction, name, body, "loop.paused", actor, at_us)
    return _pause(name, body)


def resume(transaction: Transaction, name: str, *, reason: str, actor: str, at_us: int) -> None:
    """Let the loop go on."""
    body = {"paused": False, "reason": reason, "until_us": None, "actor": actor, "at_us": at_us}
    _move(transaction, name, body, "loop.resumed", actor, at_us)


def pauses(metadata: MetadataStore, now_us: int) -> list[Pause]:
    """Every pause that holds at `now_us`, by name."""
    return [found for head in metadata.heads(KIND) for found in [_holds(metadata, head.record_id, now_us)] if found]


def paused(metadata: MetadataStore, names: Iterable[str], now_us: int) -> Pause | None:
    """The first of these loops' pauses that holds at `now_us`."""
    for name in names:
        head = metadata.head(KIND, name)
        found = _holds(metadata, head.record_id, now_us) if head else None
        if found is not None:
            return found
    return None


def refuse(found: Pause | None, what: str) -> None:
    """Raise Paused when there is a pause. what: what is not done now, as the start of a sentence."""
    if found is not None:
        raise Paused(
            f"{what}: '{found.name}' is {found.words}.",
            state="Nothing was done.",
            next=f"`seatrial resume {found.name}` lets it go on.",
            pause=found,
        )


def _move(transaction: Transaction, name: str, body: dict[str, object], kind: str, actor: str, at_us: int) -> None:
    record = Record(new_id("pause"), KIND, name, (), body)
    transaction.add(record)
    transaction.move(KIND, name, record.id, expected=None)
    told = {"name": name, "reason": body["reason"], "until_us": body["until_us"]}
    transaction.event(kind, f"loop/{name}", actor=actor, at_us=at_us, body=told)


def _holds(metadata: MetadataStore, record_id: str, now_us: int) -> Pause | None:
    record = metadata.record(record_id)
    if record is None or not record.body["paused"]:
        return None
    until = record.body["until_us"]
    return None if until is not None and now_us >= until else _pause(record.name, record.body)


def _pause(name: str, body: dict[str, object]) -> Pause:
    until = body["until_us"]
    return Pause(
        name=name,
        reason=str(body["reason"]),
        by=str(body["actor"]),
        since=_second(int(str(body["at_us"]))),
        until=_second(int(str(until))) if until is not None else None,
    )


def _second(us: int) -> str:
    return iso(from_us(us // 1_000_000 * 1_000_000))
