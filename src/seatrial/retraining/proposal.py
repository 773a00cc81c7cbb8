"""Proposals: which retrainings were proposed and why, what was trained for them, and how they ended.

A proposal is a frozen record; what happens to it are events, and where it stands is a fold of them. A model has at
most one proposal that is not ended, so a hundred alarms make one training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import NotAllowed, UsageError
from seatrial.core.identity import new_id
from seatrial.core.records import Event, Record
from seatrial.core.windows import duration_text, duration_us
from seatrial.registry.versions import Deleted, refuse_deleted
from seatrial.retraining.comparison import Comparison
from seatrial.retraining.definition import Retrain
from seatrial.retraining.triggers import Reason
from seatrial.stores.metadata import MetadataStore, Transaction

KIND = "proposal"
COMPARISON = "comparison"
_MINUTE_US = 60_000_000

State = Literal[
    "open",
    "gates refused",
    "judging",
    "better",
    "worse",
    "inconclusive",
    "approved",
    "rejected",
    "live",
    "rolled back",
    "overtaken",
]
ENDED: tuple[State, ...] = ("gates refused", "worse", "inconclusive", "rejected", "live", "rolled back", "overtaken")


class NothingProposed(UsageError):
    """The model has no proposal that this step could take further."""

    code = "retrain.nothing_proposed"


class OverBudget(NotAllowed):
    """The budget of retrainings is spent, or the last one is too recent."""

    code = "retrain.over_budget"


class Proposal(msgspec.Struct, frozen=True):
    """Where a proposal stands.

    reason: why, in words. proposers: who opened it, trained it and packed its release, none of whom may approve it.
    champion: the release that was live, at `generation` of the deployment. looks: every comparison so far, as words.
    evidence: what each trigger found. significant: changes beyond a declared margin in the newest comparison.
    ended: why it ended without a decision, in words. failed: trainings that broke off, in words.
    """

    id: str
    model: str
    state: State
    opened_at: str
    trigger: str
    reason: str
    proposers: list[str]
    champion: str
    deployment: str
    generation: int
    challenger: str | None
    run: str | None
    comparison: Comparison | None
    comparison_id: str | None
    looks: list[str]
    next: str
    evidence: list[dict[str, Any]] = []
    significant: list[str] = []
    ended: str = ""
    failed: list[str] = []


def open_proposal(
    transaction: Transaction,
    *,
    model: str,
    reasons: Sequence[Reason],
    words: str,
    champion: str,
    deployment: str,
    generation: int,
    actor: str,
    at_us: int,
) -> Record:
    """Keep a new proposal; in the transaction of the caller, who has seen that none is under way."""
    body = {
        "trigger": "; ".join(one.trigger for one in reasons) or "manual",
        "reason": words or "; ".join(one.words for one in reasons),
        "evidence": [one.evidence for one in reasons],
        "deployment": deployment,
        "generation": generation,
    }
    record = Record(new_id("prop"), KIND, model, (champion,), body)
    head = transaction.head(KIND, model)
    transaction.add(record)
    transaction.move(KIND, model, record.id, expected=head.generation if head else 0)
    transaction.event("proposal.opened", record.id, actor=actor, at_us=at_us, body={"reason": body["reason"]})
    return record


def proposals(metadata: MetadataStore, model: str | None = None) -> list[Proposal]:
    """Every proposal, oldest first."""
    return [standing(metadata, record) for record in metadata.records(KIND, model)]


def newest(metadata: MetadataStore, model: str) -> Proposal | None:
    """The model's newest proposal, ended or not."""
    head = metadata.head(KIND, model)
    record = metadata.record(head.record_id) if head else None
    return standing(metadata, record) if record else None


def standing(metadata: MetadataStore, record: Record) -> Proposal:
    """Where a proposal stands, from its events."""
    state: State = "open"
    challenger = run = comparison = comparison_id = None
    proposers: list[str] = []
    looks: list[str] = []
    failed: list[str] = []
    ended = ""
    opened = 0
    for event in metadata.events(subject=record.id):
        match event.kind:
            case "proposal.opened":
                opened = event.at_us
                proposers.append(event.actor)
            case "proposal.trained":
                run, challenger = event.body["run"], event.body["release"]
                if state != "rejected":  # somebody may say no while it is being trained
                    state = "judging" if challenger else "gates refused"
                proposers.append(event.actor)
            case "proposal.compared":
                comparison_id = event.body["comparison"]
                comparison = _comparison(metadata, comparison_id)
                looks.append(f"{comparison.as_of[:10]}: {comparison.words}")
                state = _judged(comparison)
            case "proposal.approved":
                state = "approved"
            case "proposal.rejected":
                state = "rejected"
            case "proposal.live":
                state = "live"
            case "proposal.rolled_back":  # it lost the traffic that it had
                state = "rolled back"
            case "proposal.overtaken":  # what it challenges is not live any more
                state, ended = "overtaken", event.body["reason"]
            case "proposal.failed":  # its training broke off; it may be trained again
                failed.append(event.body["reason"])
    body = record.body
    return Proposal(
        id=record.id,
        model=record.name,
        state=state,
        opened_at=iso(from_us(opened)),
        trigger=body["trigger"],
        reason=body["reason"],
        proposers=sorted(set(proposers)),
        champion=record.inputs[0],
        deployment=body["deployment"],
        generation=body["generation"],
        challenger=challenger,
        run=run,
        comparison=comparison,
        comparison_id=comparison_id,
        looks=looks,
        next=_next(state, record.name, challenger),
        evidence=body.get("evidence", []),
        significant=[one.words for one in comparison.significant] if comparison else [],
        ended=ended,
        failed=failed,
    )


def keep_comparison(
    transaction: Transaction, proposal: Proposal, comparison: Comparison, *, actor: str, at_us: int
) -> Record:
    """Keep one look at a challenger as evidence."""
    inputs = (comparison.challenger, comparison.champion, proposal.id)
    record = Record(new_id("cmp"), COMPARISON, proposal.model, inputs, msgspec.to_builtins(comparison))
    transaction.add(record)
    body = {"comparison": record.id, "verdict": comparison.verdict, "words": comparison.words}
    transaction.event("proposal.compared", proposal.id, actor=actor, at_us=at_us, body=body)
    return record


def over_budget(metadata: MetadataStore, retrain: Retrain, now_us: int) -> OverBudget | None:
    """Why no challenger may be trained now: the cool-down after the last one, or a spent budget. None: one may.

    A training whose gates said no counts like any other, and so does one that broke off after it had begun to fit.
    """
    events = _trainings(metadata, retrain.model)
    trained = [event.at_us for event in events if event.kind == "proposal.trained"]
    if not events:
        return None
    latest = max(event.at_us for event in events)
    if latest > now_us:
        return OverBudget(
            f"the last challenger of '{retrain.model}' was trained at {iso(from_us(latest))}, which is later than now: "
            "a clock was set back.",
            expected=f"The cool-down is {retrain.cool_down}, and time must have passed for it.",
            state="Nothing was proposed.",
        )
    by_hand = f"Wait, or do it yourself: `seatrial train {retrain.model}`, then `seatrial release {retrain.model}`."
    since, cool_down = now_us - max(trained, default=0), duration_us(retrain.cool_down)
    if since < cool_down:
        unit = _MINUTE_US if since >= _MINUTE_US else 1_000_000
        return OverBudget(
            f"the last challenger of '{retrain.model}' was trained {duration_text(max(since // unit, 1) * unit)} ago.",
            expected=f"The cool-down is {retrain.cool_down}: {_again(now_us - since + cool_down)}.",
            state="Nothing was proposed.",
            next=by_hand,
        )
    most, span = retrain.most
    recent = sorted(event.at_us for event in events if event.at_us > now_us - span)
    if len(recent) >= most:
        return OverBudget(
            f"{len(recent)} challengers of '{retrain.model}' were trained within {duration_text(span)}.",
            expected=f"The budget is {retrain.budget}: {_again(recent[-most] + span)}.",
            state="Nothing was proposed.",
            next=by_hand,
        )
    return None


def _again(at_us: int) -> str:
    """From when on one may be trained: the next whole second, as nothing shorter is shown."""
    return f"one may be trained again from {iso(from_us(-(-at_us // 1_000_000) * 1_000_000))} on"


def settle(metadata: MetadataStore, transaction: Transaction, model: str, *, actor: str, at_us: int) -> State | None:
    """End the model's newest proposal as its deployment says; the state that it came to, None: nothing was to be said.

    live: its challenger has all of the traffic. rolled back: it had some or all, and lost it, however that came about
    (a rollout that was judged, a person, an emergency that was told later). overtaken: what it challenges is not live
    any more, so what was or would be compared is not what would be replaced.
    """
    proposal = newest(metadata, model)
    head = transaction.head("deployment", proposal.deployment) if proposal else None
    record = metadata.record(head.record_id) if head else None
    if proposal is None or head is None or record is None:
        return None
    state, facts = _stands(metadata, proposal, head.generation, record)
    gone = _gone(transaction, proposal) if proposal.state not in ENDED else ""
    if state is None and gone:
        state, facts = "overtaken", {"reason": gone}
    if state is None or state == proposal.state:
        return None
    body = facts | {"release": proposal.challenger, "generation": head.generation}
    transaction.event(f"proposal.{state.replace(' ', '_')}", proposal.id, actor=actor, at_us=at_us, body=body)
    return state


def settle_all(metadata: MetadataStore, *, actor: str, at_us: int) -> None:
    """`settle` for every model that has a proposal: after decisions that were taken elsewhere and told late."""
    for head in metadata.heads(KIND):
        with metadata.transaction() as transaction:
            settle(metadata, transaction, head.name, actor=actor, at_us=at_us)


def _stands(
    metadata: MetadataStore, proposal: Proposal, generation: int, record: Record
) -> tuple[State | None, dict[str, Any]]:
    challenger = proposal.challenger
    if challenger is not None:
        if record.inputs == (challenger,):
            return "live", {}
        left = metadata.record(record.body.get("rolled_back") or "")
        lost = left is not None and challenger in left.inputs and challenger not in record.inputs
        if lost and proposal.state in ("judging", "better", "approved", "live", "rolled back"):
            return "rolled back", {"reason": record.body.get("reason", "")}
        if challenger in record.inputs:  # its rollout is under way
            return None, {}
    if proposal.state in ENDED or generation == proposal.generation:
        return None, {}
    if record.inputs[0] == proposal.champion:
        return None, {}  # another release came and went, or takes the traffic in steps
    reason = (
        f"release {record.inputs[0]} is live in '{proposal.deployment}' since generation {generation}; the challenger "
        f"was to follow {proposal.champion} at generation {proposal.generation}"
    )
    return "overtaken", {"reason": reason}


def _gone(transaction: Transaction, proposal: Proposal) -> str:
    """That a release of the proposal may not be used any more, in words; empty when both may."""
    for what, id in (("champion", proposal.champion), ("challenger", proposal.challenger)):
        try:
            if id is not None:
                refuse_deleted(transaction, id, f"{what} {id}")
        except Deleted:
            return f"the {what} {id} was taken out of use"
    return ""


def _trainings(metadata: MetadataStore, model: str) -> list[Event]:
    ids = {record.id for record in metadata.records(KIND, model)}
    kinds = ("proposal.trained", "proposal.failed")
    return [
        event
        for kind in kinds
        for event in metadata.events(kind=kind)
        if event.subject in ids and event.body.get("counts", True)
    ]


def _comparison(metadata: MetadataStore, id: str) -> Comparison:
    record = metadata.record(id)
    assert record is not None, "an event names only kept records"
    return msgspec.convert(record.body, Comparison)


def _judged(comparison: Comparison) -> State:
    if comparison.verdict in ("better", "worse"):
        return comparison.verdict
    return "inconclusive" if comparison.final else "judging"


def _next(state: State, model: str, challenger: str | None) -> str:
    match state:
        case "open":
            return f"seatrial retrain {model} train"
        case "judging":
            return f"seatrial retrain {model} compare"
        case "better":
            return f"seatrial approve {challenger} --reason TEXT"
        case "approved":
            return f"seatrial promote {model}"
        case "overtaken":
            return f"seatrial retrain {model}"
        case "gates refused":
            return "Look at the run: its gates said no; nothing goes live."
        case _:
            return ""


def manual(words: str) -> list[Reason]:
    """The reason of a person who proposes by hand."""
    return [Reason("manual", True, words, {})]
