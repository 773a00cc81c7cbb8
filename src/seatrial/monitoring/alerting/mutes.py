"""Mutes: which alarms shall be kept, but not sent, and until when?

A mute has an end. It holds from the instant that it was said until then, in domain time: a clock that jumps back
before it was said makes it void, so that a mistake of a clock is heard and not hidden.
"""

from __future__ import annotations

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import UsageError
from seatrial.core.identity import new_id
from seatrial.core.records import Record
from seatrial.stores.metadata import MetadataStore

KIND = "mute"
FORMAT = 1
LONGEST_US = 366 * 86_400_000_000


class BadMute(UsageError):
    """A mute without an end, without a reason, or that ended before it began; or there is nothing to mute or unmute."""

    code = "alert.bad_mute"


class Mute(msgspec.Struct, frozen=True):
    """alarm: empty for every alarm of the model. Times are of the domain, ISO 8601 in UTC."""

    id: str
    model: str
    alarm: str
    since: str
    until: str
    actor: str
    reason: str


def mute(
    metadata: MetadataStore, model: str, alarm: str, *, until_us: int, actor: str, at_us: int, reason: str
) -> Mute:
    """Send nothing of this alarm (empty: of no alarm of the model) until `until_us`. Raises BadMute."""
    if not reason.strip():
        raise BadMute("a mute has no reason.", expected="Whoever wonders at the silence needs one.")
    if until_us > at_us + LONGEST_US:
        raise BadMute("the mute would hold for more than a year.", expected="An end within 366 days is expected.")
    if until_us <= at_us:
        raise BadMute(
            f"the mute would end at {iso(from_us(until_us))}, and it is {iso(from_us(at_us))}.",
            expected="An end after now is expected.",
        )
    body = {"model": model, "alarm": alarm, "since_us": at_us, "until_us": until_us, "reason": reason.strip()}
    record = Record(new_id(KIND), KIND, model, (), body | {"actor": actor}, FORMAT)
    with metadata.transaction() as transaction:
        transaction.add(record)
        transaction.event("alerts.muted", record.id, actor=actor, at_us=at_us, body={"until_us": until_us})
    return _mute(record)


def unmute(metadata: MetadataStore, model: str, alarm: str, *, actor: str, at_us: int) -> list[Mute]:
    """End the mutes of this alarm, or of the model as a whole (empty); those ended. Raises BadMute when none holds."""
    with metadata.transaction() as transaction:
        ended = [one for one in mutes(metadata, at_us, model) if one.alarm == alarm]
        if not ended:
            what = f"the alarm '{alarm}' of '{model}'" if alarm else f"'{model}'"
            raise BadMute(f"{what} is not muted.", state="Nothing was changed.", next="See `seatrial alerts list`.")
        for one in ended:
            transaction.event("alerts.unmuted", one.id, actor=actor, at_us=at_us)
    return ended


def mutes(metadata: MetadataStore, at_us: int, model: str | None = None) -> list[Mute]:
    """The mutes that hold at an instant, oldest first."""
    holding = [
        record
        for record in metadata.records(KIND, model)
        if record.body["since_us"] <= at_us < record.body["until_us"]
        and not metadata.events(subject=record.id, kind="alerts.unmuted")
    ]
    return [_mute(record) for record in holding]


def muted_until(mutes: list[Mute], alarm: str) -> str:
    """Until when an alarm of the mutes' model is muted; empty when it is not."""
    return max((one.until for one in mutes if one.alarm in ("", alarm)), default="")


def _mute(record: Record) -> Mute:
    body = record.body
    since, until = iso(from_us(body["since_us"])), iso(from_us(body["until_us"]))
    return Mute(record.id, body["model"], body["alarm"], since, until, body["actor"], body["reason"])
