"""Rollout: a new release takes the traffic of a live one in steps, and the evidence of each decides on the next.

A step is a deployment like any other, with two arms: `live`, what was live before, and `new`. Whoever rolls back in
the middle of it returns to what was live before its first step. Every look that decides is a record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from seatrial.core.clock import from_us, iso, machine_us, parse_time, to_us
from seatrial.core.errors import Conflict, UsageError
from seatrial.core.identity import new_id
from seatrial.core.records import Head, Record
from seatrial.core.routing import BUCKETS
from seatrial.deployment.analysis import Analysis
from seatrial.deployment.definition import STEPWISE, Deployment
from seatrial.deployment.deploy import KIND, Deployed, Traffic, deploy, roll_back_within, route_of
from seatrial.stores.metadata import HeadMoved, MetadataStore, Transaction
from seatrial.stores.routes import SHADOW_ARM, RouteStore, Sign, Verify

LIVE, NEW = "live", "new"
AHEAD_US = 60_000_000
"""By how much a caller's clock may be ahead of this machine's."""


class NoRollout(Conflict):
    """The deployment is not in the middle of a rollout."""

    code = "rollout.none"


class RolloutUnderWay(Conflict):
    """Another release is taking the traffic in steps."""

    code = "rollout.under_way"


class DeclaredAnew(Conflict):
    """The deployment is declared with another strategy than the rollout that is under way began with."""

    code = "rollout.declared_anew"


class NoShadow(UsageError):
    """The release cannot score what the live one answers."""

    code = "rollout.no_shadow"


class NoReason(UsageError):
    """The steps of a rollout are skipped without a written reason."""

    code = "rollout.no_reason"


class InTheFuture(UsageError):
    """Traffic is to be moved at an instant that has not come yet."""

    code = "rollout.in_the_future"


class Rollout(msgspec.Struct, frozen=True):
    """Where a rollout stands.

    live, new: the releases. step: 0 for the first. steps: percents of the traffic for the new release, one per step.
    started, since: when the rollout and when this step began.
    """

    strategy: Literal["canary", "ab_test", "shadow"]
    live: str
    new: str
    step: int
    steps: tuple[float, ...]
    started: str
    since: str

    @property
    def share(self) -> float:
        """Percent of the traffic that the new release is to get now."""
        return self.steps[self.step]

    @property
    def since_us(self) -> int:
        return to_us(parse_time(self.since))


class Decider(msgspec.Struct, frozen=True):
    """Who decides and with what: the stores and the signer that every step needs."""

    metadata: MetadataStore
    routes: RouteStore
    sign: Sign
    verify: Verify
    actor: str
    at_us: int


def check_not_in_future(at_us: int) -> None:
    """Raise InTheFuture for an instant that has not come: a step would be over before anybody was answered in it.

    at_us: domain time. History may be replayed at any instant of it.
    """
    if at_us > machine_us() + AHEAD_US:
        raise InTheFuture(
            f"it is not {iso(from_us(at_us))} yet.",
            expected="Traffic moves now, or, where history is replayed, at an instant that has been.",
            state="Nothing was changed.",
            next="Leave --at out.",
        )


def rollout_of(deployed: Deployed | None) -> Rollout | None:
    """The rollout that a deployment is in the middle of."""
    kept = deployed.record.body.get("rollout") if deployed else None
    return msgspec.convert(kept, Rollout) if kept else None


def is_other(deployed: Deployed, release: Record) -> bool:
    """Whether the release would take traffic from another one."""
    return deployed.record.inputs != (release.id,)


def check_alone(name: str, deployed: Deployed | None, *, at_once: bool, reason: str) -> None:
    """Raise RolloutUnderWay in the middle of a rollout, and NoReason where its steps are skipped without one."""
    rollout = rollout_of(deployed)
    if at_once and not reason.strip():
        raise NoReason(
            f"deployment '{name}' would give all of its traffic at once, without evidence.",
            expected="A reason is expected.",
            state="Nothing was deployed.",
            next='Write down why: --reason "..."',
        )
    if rollout is not None and not at_once:
        raise RolloutUnderWay(
            f"release {rollout.new} has {rollout.share:g} % of the traffic of '{name}', and its rollout is not over.",
            state="Nothing was deployed.",
            next=f"Take its next step with `seatrial deployments advance {name}`, or end it with "
            f"`seatrial rollback {name}`.",
        )


def check_shadow(release: Record) -> None:
    """Raise NoShadow for a release that cannot score what the live one answers without holding it up."""
    form = release.body["manifest"].get("model_format", "onnx")
    if form != "onnx":
        raise NoShadow(
            f"release {release.id} is scored by a process of its own ({form}); the live one would wait for it.",
            expected="A release in ONNX form can be a shadow.",
            state="Nothing was deployed.",
            next="Declare strategy=Canary(): its first step gives the release little of the traffic.",
        )


def begin(
    decider: Decider,
    deployment: Deployment,
    live: Record,
    new: Record,
    *,
    expected: int,
    reason: str = "",
) -> Deployed:
    """The first step: the new release gets its first share. Raises what `deploy` raises."""
    strategy = deployment.strategy
    assert isinstance(strategy, STEPWISE)  # the caller looked
    now = iso(from_us(decider.at_us))
    rollout = Rollout(strategy.kind, live.id, new.id, 0, tuple(strategy.steps), now, now)
    return _give(decider, deployment, rollout, live, new, expected=expected, reason=reason, event="deploy")


def first_step(deployment: Deployment, deployed: Deployed) -> dict[str, Any]:
    """What to tell of a rollout that has just begun; nothing where all of the traffic moved at once."""
    rollout, strategy = rollout_of(deployed), deployment.strategy
    if rollout is None or not isinstance(strategy, STEPWISE):
        return {}
    return {
        "share": rollout.share,
        "steps": list(rollout.steps),
        "step_ends": iso(from_us(rollout.since_us + strategy.hold_us)),
        "min_rows": strategy.min_rows,
    }


def decide(
    decider: Decider,
    deployment: Deployment,
    head: Head,
    rollout: Rollout,
    analysis: Analysis,
    record: Callable[[str], Record],
) -> tuple[Record, Deployed | None]:
    """Keep the analysis and do what it says, both or neither: (its record, the deployment that came of it; None when it
    holds).

    head: as the caller saw it; whoever was first is right. record: the record of a release by its id. Raises HeadMoved.
    """
    kept = Record(new_id("look"), "analysis", deployment.name, (head.record_id,), msgspec.to_builtins(analysis))

    def keep(transaction: Transaction) -> None:
        facts = {"analysis": kept.id, "verdict": analysis.verdict, "why": analysis.why, "share": rollout.share}
        subject = f"{KIND}/{deployment.name}"
        transaction.add(kept)
        transaction.event("rollout.judged", subject, actor=decider.actor, at_us=decider.at_us, body=facts)

    reason = f"{analysis.why} ({kept.id})"
    if analysis.verdict == "advance":
        new, live = record(rollout.new), record(rollout.live)
        after = msgspec.structs.replace(rollout, step=rollout.step + 1, since=iso(from_us(decider.at_us)))
        options: dict[str, Any] = {"expected": head.generation, "reason": reason, "first": keep}
        if after.step < len(after.steps) and after.share < 100:
            return kept, _give(decider, deployment, after, live, new, event="rollout.advanced", **options)
        done = deploy(
            decider.metadata,
            decider.routes,
            deployment,
            [Traffic(new, new.body["object"])],
            sign=decider.sign,
            verify=decider.verify,
            actor=decider.actor,
            at_us=decider.at_us,
            event="rollout.finished",
            **options,
        )
        return kept, done
    with decider.metadata.transaction() as transaction:
        _check_head(transaction, head)
        keep(transaction)
        if analysis.verdict == "hold":
            return kept, None
        back, moved = roll_back_within(
            transaction,
            decider.metadata,
            deployment.name,
            head,
            decider.actor,
            decider.at_us,
            reason,
            {"look": kept.id},
        )
    route = route_of(back, moved)
    decider.routes.write(route, decider.sign, decider.verify)
    return kept, Deployed(back, moved, route)


def _check_head(transaction: Transaction, seen: Head) -> None:
    now = transaction.head(KIND, seen.name)
    if now != seen:
        raise HeadMoved(
            f"deployment '{seen.name}' was changed while its rollout was judged"
            + (f": it is at generation {now.generation} now." if now else "."),
            expected=f"Generation {seen.generation} was judged.",
            state="What was found is not kept.",
            next="Look at it again.",
            head=now,
            expected_generation=seen.generation,
        )


def _give(
    decider: Decider,
    deployment: Deployment,
    rollout: Rollout,
    live: Record,
    new: Record,
    *,
    expected: int,
    reason: str,
    event: str,
    first: Callable[[Transaction], None] | None = None,
) -> Deployed:
    share = round(rollout.share * BUCKETS / 100)
    return deploy(
        decider.metadata,
        decider.routes,
        deployment,
        [
            Traffic(live, live.body["object"], BUCKETS - share, LIVE),
            Traffic(new, new.body["object"], share, NEW if share else SHADOW_ARM),
        ],
        sign=decider.sign,
        verify=decider.verify,
        actor=decider.actor,
        at_us=decider.at_us,
        expected=expected,
        reason=reason,
        rollout=msgspec.to_builtins(rollout),
        event=event,
        first=first,
    )


def no_rollout(name: str) -> NoRollout:
    return NoRollout(
        f"deployment '{name}' is not in the middle of a rollout.",
        state="Nothing was changed.",
        next=f"Begin one with `seatrial deploy {name}`: with the strategy Canary(), ABTest() or Shadow(), a "
        "release takes the traffic of a live one in steps.",
    )


def declared_anew(deployment: Deployment, rollout: Rollout) -> DeclaredAnew:
    now = deployment.strategy.kind
    return DeclaredAnew(
        f"the rollout of '{deployment.name}' began as {rollout.strategy}, and is declared as {now} now.",
        state="Nothing was changed.",
        next=f"Declare the strategy that it began with, end it with `seatrial rollback {deployment.name}`, or give "
        f"{rollout.new} all of the traffic: `seatrial deploy {deployment.name} --release {rollout.new} --at-once "
        '--reason "..."`.',
    )
