"""Rolling back while the metadata store is away: what this host does at once, and what is made of it later.

A host keeps every route file that it had, signed. So it can return to what was live before without asking anybody:
it writes a journal entry, then the route, whose generation rises by one as always. `settle` tells the metadata store
when it is back. When somebody decided otherwise in the meantime, their decision stands, with a generation above the
host's, so that it is taken up everywhere; the roll-back stays in the audit log as superseded.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

from seatrial.core.clock import machine_us
from seatrial.core.errors import Failed
from seatrial.core.identity import canonical_json, new_id
from seatrial.core.records import Head, Record
from seatrial.deployment.deploy import KIND, NothingToRollBackTo, nothing_deployed, roll_back_within, route_of
from seatrial.stores.metadata import HeadMoved, MetadataStore, Transaction
from seatrial.stores.routes import (
    RouteDamaged,
    RouteFile,
    RouteNotTrusted,
    RouteStore,
    RouteUnwritable,
    Sign,
    Verify,
    unwritable,
)

FORMAT = 1


class JournalTooNew(Failed):
    """A roll-back was journalled by a newer version."""

    code = "rollback.journal_too_new"


class JournalDamaged(Failed):
    """A journalled roll-back cannot be read, so nobody knows what the metadata store has to be told."""

    code = "rollback.journal_damaged"


class Entry(msgspec.Struct, frozen=True):
    """One roll-back that the metadata store has not been told of.

    generation: that of the route after it. at_us: domain time, recorded_at_us: the machine's; microseconds (UTC).
    """

    format: int
    deployment: str
    generation: int
    returned_to: int
    actor: str
    reason: str
    at_us: int
    recorded_at_us: int


class _Format(msgspec.Struct):
    format: int


class Settled(msgspec.Struct, frozen=True):
    """What became of a journalled roll-back. taken: the metadata store took it; else another decision stands."""

    deployment: str
    generation: int
    taken: bool


def roll_back_here(
    routes: RouteStore,
    name: str,
    *,
    sign: Sign,
    verify: Verify,
    actor: str,
    at_us: int,
    expected: int | None = None,
    reason: str = "",
) -> RouteFile:
    """Return this host to the release that was live before, without the metadata store; the route it has now.

    expected: the generation that the caller saw. Raises NothingDeployed, NothingToRollBackTo, HeadMoved, and what
    reading and writing a route raise.
    """
    now = routes.read(name, verify)
    if now is None:
        raise nothing_deployed(name)
    if expected is not None and expected != now.generation:
        raise HeadMoved(
            f"deployment '{name}' is at generation {now.generation} on this host.",
            expected=f"Generation {expected} was expected.",
            state="Nothing was changed.",
            next="Look at it again, then decide.",
        )
    before = routes.earlier(name, now.replaces, verify) if now.replaces is not None else None
    if before is None:
        raise NothingToRollBackTo(
            f"this host knows of no release that was live in deployment '{name}' before this one.",
            state="Nothing was changed.",
            next="When the metadata store is back, deploy another release.",
        )
    # who sends what the release that is left wanted is not refused for it
    route = msgspec.structs.replace(before, generation=now.generation + 1, sent=now.sent | before.sent)
    entry = Entry(FORMAT, name, route.generation, before.generation, actor, reason, at_us, machine_us())
    try:
        _journal(routes, entry)
        written = routes.write(route, sign, verify)
    except (OSError, RouteUnwritable) as error:
        with suppress(OSError):
            _path(routes, entry).unlink(missing_ok=True)
        raise (error if isinstance(error, RouteUnwritable) else unwritable(name, error)) from None
    if not written:
        _path(routes, entry).unlink(missing_ok=True)
        raise HeadMoved(
            f"deployment '{name}' was changed on this host at the same moment.",
            state="The other change stands.",
            next=f"Look at `seatrial deployments show {name}`, then decide again.",
        )
    return route


def settle(metadata: MetadataStore, routes: RouteStore, *, sign: Sign, verify: Verify) -> list[Settled]:
    """Tell the metadata store of the roll-backs that were made without it, oldest first. Can be run at any time."""
    done = []
    for path in _entries(routes):
        entry = _read(path)
        taken = _take(metadata, entry)
        if not taken:
            route = _outbid(metadata, entry, routes.read(entry.deployment, verify))
            routes.write(route, sign, verify)
        path.unlink()
        done.append(Settled(entry.deployment, entry.generation, taken))
    return done


def journalled(routes: RouteStore) -> list[str]:
    """The deployments with a roll-back that the metadata store has not been told of."""
    return sorted({unquote(path.stem.rpartition("@")[0]) for path in _entries(routes)})


def outdo(
    metadata: MetadataStore, routes: RouteStore, name: str, *, sign: Sign, verify: Verify, actor: str, at_us: int
) -> int | None:
    """Restate the decision just taken when this host's route is not behind it, and says otherwise: after a roll-back
    whose journal is lost, or a metadata store that came back from a backup. The new generation; None: no need.
    """
    try:
        here = routes.read(name, verify)
    except (RouteDamaged, RouteNotTrusted):
        here = None
    if here is None:
        return None
    with metadata.transaction() as transaction:
        head = transaction.head(KIND, name)
        record = metadata.record(head.record_id) if head else None
        if head is None or record is None or here.generation < head.generation or here == route_of(record, head):
            return None
        record, head = _above(transaction, record, head, here.generation)
        facts = {"generation": head.generation, "record": record.id, "above": here.generation}
        transaction.event("deploy.restated", f"{KIND}/{name}", actor=actor, at_us=at_us, body=facts)
    routes.write(route_of(record, head), sign, verify)
    return head.generation


def _take(metadata: MetadataStore, entry: Entry) -> bool:
    """Make the roll-back the decision of the metadata store, unless it moved on; True when it has (or had) it."""
    with metadata.transaction() as transaction:
        head = transaction.head(KIND, entry.deployment)
        record = metadata.record(head.record_id) if head else None
        if head is None or record is None:
            return False
        if head.generation == entry.generation and record.body.get("journalled_us") == entry.recorded_at_us:
            return True  # an earlier settling died before it removed the entry
        if head.generation != entry.generation - 1:
            return False
        facts = {"journalled_us": entry.recorded_at_us}
        roll_back_within(transaction, metadata, entry.deployment, head, entry.actor, entry.at_us, entry.reason, facts)
        return True


def _outbid(metadata: MetadataStore, entry: Entry, here: RouteFile | None) -> RouteFile:
    """Restate the standing decision with a generation above this host's route; that decision's route."""
    with metadata.transaction() as transaction:
        head = transaction.head(KIND, entry.deployment)
        record = metadata.record(head.record_id) if head else None
        if head is None or record is None:
            raise nothing_deployed(entry.deployment)
        facts = {"generation": entry.generation, "reason": entry.reason, "stands": record.id}
        record, head = _above(transaction, record, head, here.generation if here else entry.generation)
        subject = f"{KIND}/{entry.deployment}"
        facts["record"] = record.id
        transaction.event("rollback.superseded", subject, actor=entry.actor, at_us=entry.at_us, body=facts)
        return route_of(record, Head(KIND, entry.deployment, record.id, head.generation))


def _above(transaction: Transaction, record: Record, head: Head, generation: int) -> tuple[Record, Head]:
    """The decision of `record` once more, with a generation above the one given."""
    while head.generation <= generation:
        record = Record(new_id("dep"), KIND, head.name, record.inputs, record.body, record.format)
        transaction.add(record)
        head = transaction.move(KIND, head.name, record.id, expected=head.generation)
    return record, head


def _entries(routes: RouteStore) -> list[Path]:
    """Journalled roll-backs, oldest first."""
    found = [path for path in _folder(routes).glob("*@*.json") if path.stem.rpartition("@")[2].isdecimal()]
    return sorted(found, key=lambda path: int(path.stem.rpartition("@")[2]))


def _folder(routes: RouteStore) -> Path:
    return routes.folder / "journal"


def _path(routes: RouteStore, entry: Entry) -> Path:
    return _folder(routes) / f"{quote(entry.deployment, safe='')}@{entry.generation}.json"


def _journal(routes: RouteStore, entry: Entry) -> None:
    path = _path(routes, entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(canonical_json(entry))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def _read(path: Path) -> Entry:
    data = path.read_bytes()
    try:
        number = msgspec.json.decode(data, type=_Format).format
        entry = msgspec.json.decode(data, type=Entry) if number <= FORMAT else None
    except msgspec.MsgspecError as error:
        raise JournalDamaged(
            f"the journalled roll-back {path.name} cannot be read: {error}.",
            state="It is kept; this host serves what it was rolled back to.",
            next=f"Move {path} away, then deploy what is to be live.",
        ) from None
    if entry is None:
        raise JournalTooNew(
            f"the journalled roll-back {path.name} has format {number}; this version reads up to {FORMAT}.",
            state="It is kept.",
            next="Update seatrial.",
        )
    return entry
