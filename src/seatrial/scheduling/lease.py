"""Leases: which process may do something now, when the others must not?

A lease is a message in the metadata store's outbox that its holder replaces before it runs out; taking and renewing
are transactions, in which nobody else writes. It is no record, because a record for each renewal would fill the store,
and no head, which may only name records. Its end is an instant of record time: a holder that was killed is followed as
soon as that has passed. A clock that jumps may end a lease early; then its holder is told at the next renewal that it
has lost it, so a lease saves work, and what must not happen twice is guarded by a head besides.
"""

from __future__ import annotations

from typing import Any

import msgspec

from seatrial.stores.metadata import MetadataStore, Transaction

LEASE_US = 30_000_000


class Lease(msgspec.Struct, frozen=True):
    """Who holds a lease until when (microseconds since 1970, UTC), and what it says of itself."""

    holder: str
    until_us: int
    facts: dict[str, Any] = {}
    format: int = 1


def held(metadata: MetadataStore, name: str, now_us: int) -> Lease | None:
    """The lease that holds now, if any. After the clock went back it holds until the clock is where it was, or its
    holder renews it: too long does no harm, too short makes a second run."""
    found = [msgspec.convert(body, Lease) for _, body in metadata.pending(_topic(name))]
    return next((one for one in found if now_us < one.until_us), None)


def take(
    metadata: MetadataStore,
    transaction: Transaction,
    name: str,
    holder: str,
    now_us: int,
    *,
    length_us: int = LEASE_US,
    **facts: Any,
) -> Lease | None:
    """Take or renew a lease; None when somebody else holds it."""
    there = held(metadata, name, now_us)
    if there is not None and there.holder != holder:
        return None
    drop(metadata, transaction, name)
    lease = Lease(holder, now_us + length_us, facts)
    transaction.enqueue(_topic(name), msgspec.to_builtins(lease))
    return lease


def renew(metadata: MetadataStore, name: str, holder: str, now_us: int, *, length_us: int = LEASE_US) -> bool:
    """Hold a lease for longer; False when it is somebody else's, or nobody's, by now."""
    with metadata.transaction() as transaction:
        mine = [one for _, body in metadata.pending(_topic(name)) for one in [msgspec.convert(body, Lease)]]
        if not any(one.holder == holder for one in mine):
            return False
        drop(metadata, transaction, name)
        transaction.enqueue(_topic(name), msgspec.to_builtins(Lease(holder, now_us + length_us, mine[0].facts)))
    return True


def drop(metadata: MetadataStore, transaction: Transaction, name: str) -> None:
    """Let go of a lease, whoever holds it."""
    for seq, _ in metadata.pending(_topic(name)):
        transaction.done(_topic(name), seq)


def _topic(name: str) -> str:
    return f"lease/{name}"


def announce(
    metadata: MetadataStore, name: str, holder: str, now_us: int, *, length_us: int = LEASE_US, **facts: Any
) -> None:
    """Tell that this process does what `name` says, beside others that may do so too; for as long as a lease."""
    topic = _topic(name)
    with metadata.transaction() as transaction:
        for seq, body in metadata.pending(topic):
            lease = msgspec.convert(body, Lease)
            if lease.holder == holder or lease.until_us <= now_us:
                transaction.done(topic, seq)
        transaction.enqueue(topic, msgspec.to_builtins(Lease(holder, now_us + length_us, facts)))


def present(metadata: MetadataStore, name: str, now_us: int) -> list[Lease]:
    """Who announced that, and has not gone."""
    found = [msgspec.convert(body, Lease) for _, body in metadata.pending(_topic(name))]
    return [one for one in found if now_us < one.until_us]


def leave(metadata: MetadataStore, name: str, holder: str) -> None:
    """Take back what was announced."""
    with metadata.transaction() as transaction:
        for seq, body in metadata.pending(_topic(name)):
            if msgspec.convert(body, Lease).holder == holder:
                transaction.done(_topic(name), seq)
