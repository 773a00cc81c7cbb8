"""Rolling: how a rollout stands, and its next step when the evidence allows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from seatrial.core.clock import FixedClock, from_us, iso, machine_us
from seatrial.core.errors import SeatrialError
from seatrial.core.identity import new_id
from seatrial.core.windows import Window
from seatrial.deployment import controller
from seatrial.deployment.analysis import TAKE_UP_US, Analysis, Answers, analyse
from seatrial.deployment.controller import BadPace, lease, pace
from seatrial.deployment.definition import STEPWISE, Deployment, Metric, Shadow
from seatrial.deployment.deploy import Deployed, live, nothing_deployed
from seatrial.deployment.rollout import LIVE, NEW, Decider, Rollout, decide, declared_anew, no_rollout, rollout_of
from seatrial.folder.workspace import STATE
from seatrial.monitoring.alerting.telling import TOPIC, targets
from seatrial.stats.metrics import losses
from seatrial.stores.prediction_log import SHADOW
from seatrial.stores.routes import SHADOW_ARM
from seatrial.verbs.valued import valued

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.core.records import Record
    from seatrial.data.sources import Source
    from seatrial.folder.workspace import Workspace
    from seatrial.monitoring.rows.sample import Sample


@dataclass(frozen=True)
class Evidence:
    """Where a rollout's evidence is read.

    sampled: a deployment's answers of a window, by its name in the log. read: the rows of a source. key: the columns of
    the model's key; keyed: its text for each prediction of a window, by prediction_id. routed: what the deployment
    routed each by, where that is a field. ripe_after: how long the labels of a rollout that began then are waited for.
    """

    sampled: Callable[[Window, str], Sample]
    read: Callable[[Source], pa.Table]
    key: list[str]
    keyed: Callable[[Window, str], dict[str, str | None]]
    routed: Callable[[Window, str], dict[str, str | None]]
    ripe_after: Callable[[int], int]


class Ended(msgspec.Struct, frozen=True):
    """How a rollout ended. release: the new one. because: in words; may be empty."""

    release: str
    how: Literal["rolled back", "took all of the traffic"]
    at: str
    because: str


class RolloutShown(msgspec.Struct, frozen=True):
    """Where a rollout stands, and what its evidence says now; nothing is decided by looking.

    analysis: None after the rollout has ended or when there is none. history: every look that decided, oldest first,
    each with the release that it was about. live: the release with the rest of the traffic, or all of it, as_of: now.
    ended: how the last rollout ended; None in the middle of one, and when something else was decided since.
    """

    deployment: str
    generation: int
    rollout: Rollout | None
    analysis: Analysis | None
    history: list[dict[str, Any]]
    live: str = ""
    as_of: str = ""
    ended: Ended | None = None


class Moved(msgspec.Struct, frozen=True):
    """What came of looking at a rollout.

    look: the record of the analysis. generation, live: as they are now. share: percent of the new release now.
    """

    deployment: str
    look: str
    analysis: Analysis
    generation: int
    live: str
    share: float


def show(workspace: Workspace, deployment: Deployment, evidence: Evidence) -> RolloutShown:
    """How the deployment's rollout stands now. Raises NothingDeployed."""
    deployed = live(workspace.metadata, deployment.name)
    if deployed is None:
        raise nothing_deployed(deployment.name)
    rollout = rollout_of(deployed)
    looks = workspace.metadata.records("analysis", deployment.name)
    decisions = {one.id: one for one in workspace.metadata.records("deployment", deployment.name)}
    about = {id: one.body.get("rollout") or {} for id, one in decisions.items()}
    return RolloutShown(
        deployment=deployment.name,
        generation=deployed.head.generation,
        rollout=rollout,
        analysis=_analysis(workspace, deployment, rollout, evidence) if rollout else None,
        history=[
            {"look": one.id, **{name: one.body[name] for name in ("as_of", "verdict", "why")}}
            | {"release": about[one.inputs[0]].get("new", ""), "rollout": about[one.inputs[0]].get("started", "")}
            for one in looks
        ],
        live=deployed.record.inputs[0],
        as_of=iso(from_us(workspace.now_us)),
        ended=_ended(workspace, deployment.name, deployed, decisions),
    )


def _ended(workspace: Workspace, name: str, deployed: Deployed, decisions: dict[str, Record]) -> Ended | None:
    events = workspace.metadata.events(subject=f"deployment/{name}")
    event = next((one for one in reversed(events) if one.body.get("record") == deployed.record.id), None)
    left = decisions.get(deployed.record.body.get("rolled_back") or "")
    because = str(deployed.record.body.get("reason") or "")
    if event is None:
        return None
    if event.kind == "rollout.finished":
        return Ended(deployed.record.inputs[0], "took all of the traffic", iso(from_us(event.at_us)), because)
    if left is not None and left.body.get("rollout"):
        return Ended(left.body["rollout"]["new"], "rolled back", iso(from_us(event.at_us)), because)
    return None


def announce(workspace: Workspace, moved: Moved, new: Record) -> None:
    """Leave a message for who is on call for the model: its new release was taken back."""
    manifest = new.body["manifest"]
    routes = targets(str(manifest.get("on_call") or ""))
    at = iso(from_us(workspace.now_us))
    headline = f"release {new.id} of '{new.body['model']}' was taken back from '{moved.deployment}'"
    alert = {
        "id": moved.look,
        "event": "opened",
        "at": at,
        "kind": "rollout",
        "model": new.body["model"],
        "alarm": f"rollout:{moved.deployment}",
        "severity": "high",
        "headline": headline,
        "words": moved.analysis.why,
        "evidence": {},
        "action": f"Release {moved.live} has all of the traffic again: seatrial deployments status {moved.deployment}",
        "window": f"{moved.analysis.since}/{moved.analysis.as_of}",
        "release": new.id,
        "owner": str(manifest.get("owner") or ""),
        "runbook": str(manifest.get("runbook") or ""),
        "reason": "",
    }
    with workspace.metadata.transaction() as transaction:
        for target in routes:
            told = {"format": 1, "id": new_id("msg"), "target": target, "event": "opened", "model": alert["model"]}
            transaction.enqueue(TOPIC, told | {"at": at, "sent_us": machine_us(), "alert": alert})


def move(workspace: Workspace, deployment: Deployment, evidence: Evidence) -> tuple[Moved, Deployed | None]:
    """Judge the rollout's step and do what the verdict says. Raises NothingDeployed, NoRollout, HeadMoved."""
    deployed = live(workspace.metadata, deployment.name)
    if deployed is None:
        raise nothing_deployed(deployment.name)
    rollout = rollout_of(deployed)
    if rollout is None:
        raise no_rollout(deployment.name)
    analysis = _analysis(workspace, deployment, rollout, evidence)
    sign, verify = workspace.signer
    decider = Decider(workspace.metadata, workspace.routes, sign, verify, workspace.actor, workspace.now_us)
    look, done = decide(decider, deployment, deployed.head, rollout, analysis, workspace.record)
    now = done or deployed
    shares = {arm["name"]: arm["share"] for arm in now.record.body["arms"]}
    alone = 100.0 if now.record.inputs == (rollout.new,) else 0.0
    return (
        Moved(
            deployment=deployment.name,
            look=look.id,
            analysis=analysis,
            generation=now.head.generation,
            live=now.record.inputs[0],
            share=shares[NEW] / 100 if NEW in shares else alone,
        ),
        done,
    )


def watch(
    workspace: Workspace,
    deployment: Deployment,
    advance: Callable[[str], Moved],
    every: str,
    told: Callable[[Moved | SeatrialError], None],
    wait: Callable[[float], bool],
) -> Moved | None:
    """Advance the rollout every so often until it is over; see `Project.deployment_watch`."""
    seconds = pace(every)
    if isinstance(workspace.clock, FixedClock):
        raise BadPace(
            f"the time stands still at {iso(workspace.clock.now())}, and a rollout needs time.",
            expected="Without --at the machine's clock is taken.",
        )

    def look() -> Moved:
        moved = advance(deployment.name)
        told(moved)
        return moved

    def over(_: Moved) -> bool:
        return rollout_of(live(workspace.metadata, deployment.name)) is None

    with lease(workspace.folder / STATE / "rollouts", deployment.name):
        return controller.watch(look, over=over, every=seconds, wait=wait, missed=told)


def _analysis(workspace: Workspace, deployment: Deployment, rollout: Rollout, evidence: Evidence) -> Analysis:
    strategy = deployment.strategy
    if not isinstance(strategy, STEPWISE) or strategy.kind != rollout.strategy:
        raise declared_anew(deployment, rollout)
    now_us = workspace.now_us
    window = Window(rollout.since_us + TAKE_UP_US, max(now_us, rollout.since_us + TAKE_UP_US + 1))
    failures = workspace.log.failures
    of_new = deployment.name + SHADOW if isinstance(strategy, Shadow) else deployment.name
    samples = {name: evidence.sampled(window, name) for name in {deployment.name, of_new}}
    known = {name: losses_of(sample) for name, sample in samples.items()}
    by_key = deployment.route_by is not None
    routed = {name: evidence.routed(window, name) if by_key else None for name in samples}
    arms = [(deployment.name, rollout.live), (of_new, rollout.new)]
    given = [_given(samples[name], release) for name, release in arms]
    live, new = (
        replace(
            _answers(samples[name], mask, known[name], routed[name]),
            failed=failures.count(window=window, deployment=name, release=release),
            refused=failures.count(window=window, deployment=name, release=release, refused=True),
        )
        for (name, release), mask in zip(arms, given, strict=True)
    )
    metric = None
    if isinstance(strategy.decide, Metric):
        rows = samples[deployment.name].rows

        def keys() -> pa.Array:
            import pyarrow as pa

            by_id = evidence.keyed(window, deployment.name)
            return pa.array([by_id.get(one) for one in rows["prediction_id"].to_pylist()], pa.string())

        metric = valued(strategy.decide, evidence.read, rows, (given[0], given[1]), keys, evidence.key, now_us=now_us)
    return analyse(
        strategy,
        rollout.share,
        live,
        new,
        since_us=rollout.since_us,
        as_of_us=now_us,
        by_key=by_key,
        valued=metric,
        ripe_after_us=evidence.ripe_after(rollout.since_us) if strategy.decide == "labels" else 0,
    )


def losses_of(sample: Sample) -> NDArray[np.float64]:
    """(n,) the loss of each answer by its label; NaN where no label is known."""
    if sample.task == "multiclass":
        return losses(sample.task, *sample.class_scores())
    return losses(sample.task, sample.label_values(), sample.scores(), quantile=sample.quantile)


def _given(sample: Sample, release: str) -> NDArray[np.bool_]:
    """(n,) which rows the release answered for somebody, or in the shadow."""
    import pyarrow as pa
    import pyarrow.compute as pc

    arms = pa.array([LIVE, NEW, SHADOW_ARM])  # what was scored in batch was answered to nobody
    asked = pc.and_(pc.equal(sample.rows["release"], release), pc.is_in(sample.rows["arm"], value_set=arms))
    given: NDArray[np.bool_] = asked.to_numpy(zero_copy_only=False).astype(bool)
    return given


def _answers(
    sample: Sample,
    of_arm: NDArray[np.bool_],
    loss: NDArray[np.float64],
    routed: dict[str, str | None] | None,
) -> Answers:
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = sample.rows.filter(pa.array(of_arm))
    answers = Answers(
        at_us=sample.at_us()[of_arm],
        latency_ms=pc.fill_null(rows["latency_ms"], 0.0).to_numpy(),
        degraded=pc.fill_null(rows["degraded"], False).to_numpy(zero_copy_only=False).astype(bool),
        score=sample.scores()[of_arm],
        loss=loss[of_arm],
        failed=0,
        key=None if routed is None else _keys(rows["prediction_id"].to_pylist(), routed),
    )
    ids = pc.coalesce(rows["request_id"], rows["prediction_id"])
    return per_request(answers, ids.combine_chunks().dictionary_encode().indices.to_numpy()) if len(rows) else answers


def per_request(answers: Answers, request: NDArray[np.int64]) -> Answers:
    """The answers with one observation a request: the rows of one go to one arm together, and are alike.

    request: (n,) the number of each row's request. Of several rows the means count, of those that have a value.
    """
    import numpy as np

    _, first, code = np.unique(request, return_index=True, return_inverse=True)
    if first.size == request.size:
        return answers

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        known = np.isfinite(values)
        counts = np.bincount(code[known], minlength=first.size)
        sums = np.bincount(code[known], weights=values[known], minlength=first.size)
        means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(first.size, np.nan), where=counts > 0)
        return means

    return Answers(
        at_us=answers.at_us[first],
        latency_ms=mean(answers.latency_ms),
        degraded=np.bincount(code, weights=answers.degraded, minlength=first.size) > 0,
        score=mean(answers.score),
        loss=mean(answers.loss),
        failed=answers.failed,
        refused=answers.refused,
        key=None if answers.key is None else answers.key[first],
    )


def _keys(ids: list[str], routed: dict[str, str | None]) -> NDArray[np.intp]:
    """(n,) the number of the key of each prediction; one without a key is on its own."""
    import numpy as np

    numbers: dict[str, int] = {}
    found = np.empty(len(ids), dtype=np.intp)
    for place, id in enumerate(ids):
        key = routed.get(id)
        found[place] = numbers.setdefault(f"id {id}" if key is None else f"key {key}", len(numbers))
    return found
