"""Deploying: which release answers from now on, who decided it, and how does serving learn of it?

The decision is one transaction on the metadata store: a frozen deployment record, the head moved by compare-and-swap,
the event. Then the signed route file is written, which is all that serving reads. A crash in between leaves a
decision without its file; `reconcile` writes the file from the head, and can be run at any time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from seatrial.core.errors import NotAllowed, UsageError
from seatrial.core.identity import new_id
from seatrial.core.records import Head, Record
from seatrial.core.routing import BUCKETS
from seatrial.deployment.definition import Deployment
from seatrial.deployment.requests import beside
from seatrial.registry.versions import refuse_deleted
from seatrial.stores.metadata import MetadataStore, Transaction
from seatrial.stores.routes import Arm, RouteDamaged, RouteFile, RouteNotTrusted, RouteStore, Sign, Verify

KIND = "deployment"
RECORD_FORMAT = 1


class NoOwner(NotAllowed):
    """A model without an owner or a runbook may not go live without a written reason."""

    code = "deploy.no_owner"


class WrongModel(UsageError):
    """A release of one model was asked to serve as another."""

    code = "deploy.wrong_model"


class BadShares(UsageError):
    """The shares of a deployment's arms do not add up, or two arms have one name."""

    code = "deploy.bad_shares"


class NothingDeployed(UsageError):
    """The deployment has no live release."""

    code = "deploy.nothing_deployed"


class NothingToRollBackTo(UsageError):
    """No release was live before this one."""

    code = "deploy.nothing_to_roll_back_to"


@dataclass(frozen=True)
class Traffic:
    """A release and its share of 10,000.

    release: the release's record; its body names `model`, `owner` and `runbook`.
    bundle: the key of its bundle in the object store.
    """

    release: Record
    bundle: str
    share: int = BUCKETS
    name: str = "live"


@dataclass(frozen=True)
class Deployed:
    """What was decided: the frozen record, the head that points at it, and the route that serving reads."""

    record: Record
    head: Head
    route: RouteFile


def deploy(
    metadata: MetadataStore,
    routes: RouteStore,
    deployment: Deployment,
    traffic: Sequence[Traffic],
    *,
    sign: Sign,
    verify: Verify,
    actor: str,
    at_us: int,
    expected: int | None = None,
    reason: str = "",
    rollout: dict[str, Any] | None = None,
    event: str = "deploy",
    first: Callable[[Transaction], None] | None = None,
) -> Deployed:
    """Give a deployment's traffic to one or more releases.

    traffic: for blue-green one release with every share; of several the first is the one that was live before.
    rollout: of the step of a rollout, what `deployment.rollout` keeps of it. event: the kind of event to record.
    first: what else is to be kept, in the same transaction and before the deployment.
    expected: the generation that the caller saw, 0 for none; None: whatever it is now.
    reason: why, in words; needed for a model without owner or runbook.
    Raises NoOwner, WrongModel or BadShares before anything is written, HeadMoved when somebody else deployed first.
    """
    _check_shares(deployment.name, traffic)
    for part in traffic:
        _check_release(deployment, part.release, reason)
    with metadata.transaction() as transaction:
        for part in traffic:
            refuse_deleted(transaction, part.release.id, f"release {part.release.id}")
        if first is not None:
            first(transaction)
        head = transaction.head(KIND, deployment.name)
        old = metadata.record(head.record_id) if head else None
        body = {
            "model": deployment.model,
            "strategy": deployment.strategy.kind,
            "route_by": deployment.route_by,
            "on_store_failure": deployment.on_store_failure,
            # one salt for the life of a deployment: a key stays in its arm when the arm's release changes
            "salt": old.body["salt"] if old else os.urandom(8).hex(),
            "arms": [msgspec.to_builtins(Arm(part.name, part.release.id, part.share, part.bundle)) for part in traffic],
            **_returns_to(old, head),
            "reason": reason,
        } | ({"rollout": rollout} if rollout else {})
        body |= deployment.beside
        inputs = tuple(part.release.id for part in traffic)
        given = {part.release.id: part.release for part in traffic}
        body |= beside(lambda id: given.get(id) or metadata.record(id), old, inputs)
        record, head = _decide(transaction, event, deployment.name, inputs, body, actor, at_us, expected)
    route = route_of(record, head)
    routes.write(route, sign, verify)
    return Deployed(record, head, route)


def roll_back(
    metadata: MetadataStore,
    routes: RouteStore,
    name: str,
    *,
    sign: Sign,
    verify: Verify,
    actor: str,
    at_us: int,
    expected: int | None = None,
    reason: str = "",
) -> Deployed:
    """Give the traffic back to what was live before. A second roll-back goes one further back.

    Raises NothingDeployed, NothingToRollBackTo, or HeadMoved when somebody else deployed first.
    """
    with metadata.transaction() as transaction:
        head = transaction.head(KIND, name)
        if head is None:
            raise nothing_deployed(name)
        expect = head.generation if expected is None else expected
        moved = Head(KIND, name, head.record_id, expect)
        record, head = roll_back_within(transaction, metadata, name, moved, actor, at_us, reason)
    route = route_of(record, head)
    routes.write(route, sign, verify)
    return Deployed(record, head, route)


def roll_back_within(
    transaction: Transaction,
    metadata: MetadataStore,
    name: str,
    head: Head,
    actor: str,
    at_us: int,
    reason: str,
    facts: dict[str, Any] | None = None,
) -> tuple[Record, Head]:
    """The decision to return to what was live before `head`, in a transaction of the caller's.

    head: as the caller saw it; its generation is compared and swapped. facts: more to keep in the record.
    """
    current = metadata.record(head.record_id)
    target = metadata.record(current.body["replaces"]) if current and current.body["replaces"] else None
    if current is None or target is None:
        raise NothingToRollBackTo(
            f"nothing was live in deployment '{name}' before its first release.",
            state="Nothing was changed.",
            next=f"Deploy another release: `seatrial deploy {name}`.",
        )
    body = {name: value for name, value in target.body.items() if name not in ("recent", "sent")}
    body |= {"reason": reason, "rolled_back": current.id} | (facts or {})
    body |= beside(metadata.record, current, target.inputs)
    return _decide(transaction, "rollback", name, target.inputs, body, actor, at_us, head.generation)


def live(metadata: MetadataStore, name: str) -> Deployed | None:
    """What a deployment answers with now; None when nothing was ever deployed."""
    head = metadata.head(KIND, name)
    record = metadata.record(head.record_id) if head else None
    return Deployed(record, head, route_of(record, head)) if head and record else None


def reconcile(metadata: MetadataStore, routes: RouteStore, *, sign: Sign, verify: Verify) -> list[str]:
    """Write every route file that is missing, unreadable or older than its head; the names of those written."""
    healed = []
    for head in metadata.heads(KIND):
        try:
            route = routes.read(head.name, verify)
        except (RouteDamaged, RouteNotTrusted):
            route = None
        record = metadata.record(head.record_id)
        if record is not None and (route is None or route.generation < head.generation):
            routes.write(route_of(record, head), sign, verify)
            healed.append(head.name)
    return healed


def route_of(record: Record, head: Head) -> RouteFile:
    """The route that a deployment record stands for."""
    return RouteFile(
        deployment=head.name,
        generation=head.generation,
        model=record.body["model"],
        salt=record.body["salt"],
        arms=tuple(Arm(**arm) for arm in record.body["arms"]),
        route_by=record.body["route_by"],
        on_store_failure=record.body["on_store_failure"],
        replaces=record.body.get("replaces_generation"),
        defaults=record.body.get("defaults", {}),
        cache=record.body.get("cache", 0),
        sent=record.body.get("sent", {}),
    )


def nothing_deployed(name: str) -> NothingDeployed:
    return NothingDeployed(
        f"nothing is deployed as '{name}'.",
        state="Nothing was changed.",
        next=f"Deploy a release: `seatrial deploy {name}`.",
    )


def _returns_to(old: Record | None, head: Head | None) -> dict[str, Any]:
    """What a roll-back returns to: what was live, and where that was the step of a rollout, what was live before it."""
    if old is not None and len(old.body["arms"]) > 1:
        return {name: old.body[name] for name in ("replaces", "replaces_generation")}
    return {"replaces": old.id if old else None, "replaces_generation": head.generation if head else None}


def _decide(
    transaction: Transaction,
    kind: str,
    name: str,
    inputs: tuple[str, ...],
    body: dict[str, Any],
    actor: str,
    at_us: int,
    expected: int | None,
) -> tuple[Record, Head]:
    record = Record(new_id("dep"), KIND, name, inputs, body, RECORD_FORMAT)
    transaction.add(record)
    head = transaction.move(KIND, name, record.id, expected=expected)
    facts = {"record": record.id, "generation": head.generation, "arms": body["arms"], "reason": body["reason"]}
    transaction.event(kind, f"{KIND}/{name}", actor=actor, at_us=at_us, body=facts)
    return record, head


def _check_shares(name: str, traffic: Sequence[Traffic]) -> None:
    total = sum(part.share for part in traffic)
    if total != BUCKETS or any(part.share < 0 for part in traffic):
        raise BadShares(
            f"the shares of deployment '{name}' are {[part.share for part in traffic]}, in all {total}.",
            expected=f"Shares are counted in 0.01 % and add up to {BUCKETS}.",
        )
    names = [part.name for part in traffic]
    if len(set(names)) != len(names):
        raise BadShares(f"two arms of deployment '{name}' have one name.", expected="Each arm needs its own name.")


def _how_to_give(release: Record, missing: Sequence[str]) -> str:
    """How a model gets what its release lacks: one from elsewhere is declared nowhere."""
    more = release.body.get("manifest", {}).get("lineage", {}).get("more", {})
    if "origin" in more:
        return f"Release it again with {' and '.join(f'--{what}' for what in missing)}"
    model = release.body.get("model", release.name)
    return f"Give {' and '.join(f'{what}=' for what in missing)} to Model('{model}', ...) and release again"


def _check_release(deployment: Deployment, release: Record, reason: str) -> None:
    model = release.body.get("model", release.name)
    if model != deployment.model:
        raise WrongModel(
            f"release {release.id} is of model '{model}', deployment '{deployment.name}' serves '{deployment.model}'.",
            state="Nothing was deployed.",
        )
    missing = [what for what in ("owner", "runbook") if not release.body.get(what)]
    if missing and not reason.strip():
        raise NoOwner(
            f"release {release.id} of model '{model}' has no {' and no '.join(missing)}.",
            expected="Somebody must be answerable, and know what to do, when a live model misbehaves.",
            state="Nothing was deployed.",
            next=f"{_how_to_give(release, missing)}, or write down why with --reason.",
        )
