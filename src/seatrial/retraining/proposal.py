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
from seatrial.retraining.comparison import Comparison
from seatrial.retraining.definition import Retrain
from seatrial.retraining.triggers import Reason
from seatrial.stores.metadata import MetadataStore, Transaction

KIND = "proposal"
COMPARISON = "comparison"

State = Literal[
    "open", "gates refused", "judging", "better", "worse", "inconclusive", "approved", "rejected", "live", "rolled back"
]
ENDED: tuple[State, ...] = ("gates refused", "worse", "inconclusive", "rejected", "live", "rolled back")


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
    opened = 0
    for event in metadata.events(subject=record.id):
        match event.kind:
            case "proposal.opened":
                opened = event.at_us
                proposers.append(event.actor)
            case "proposal.trained":
                run, challenger = event.body["run"], event.body["release"]
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
            case "proposal.rolled_back":  # its rollout took the traffic back
                state = "rolled back"
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


def refusal(metadata: MetadataStore, retrain: Retrain, now_us: int) -> OverBudget | None:
    """Why no challenger may be trained now: the cool-down after the last one, or a spent budget. None: one may."""
    trained = [event.at_us for event in _trainings(metadata, retrain.model)]
    if not trained:
        return None
    cool_down = duration_us(retrain.cool_down)
    since = now_us - max(trained)
    if since < cool_down:
        return OverBudget(
            f"the last challenger of '{retrain.model}' was trained {duration_text(max(since, 1_000_000))} ago.",
            expected=f"The cool-down is {retrain.cool_down}.",
            state="Nothing was proposed.",
        )
    most, span = retrain.most
    recent = sum(1 for at in trained if at > now_us - span)
    if recent >= most:
        return OverBudget(
            f"{recent} challengers of '{retrain.model}' were trained within {duration_text(span)}.",
            expected=f"The budget is {retrain.budget}.",
            state="Nothing was proposed.",
        )
    return None


def _trainings(metadata: MetadataStore, model: str) -> list[Event]:
    ids = {record.id for record in metadata.records(KIND, model)}
    return [event for event in metadata.events(kind="proposal.trained") if event.subject in ids]


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
        case "gates refused":
            return "Look at the run: its gates said no; nothing goes live."
        case _:
            return ""


def manual(words: str) -> list[Reason]:
    """The reason of a person who proposes by hand."""
    return [Reason("manual", True, words, {})]


def evidence_of(proposal: Proposal) -> dict[str, Any]:
    """What an approval of the challenger rests on, by kind."""
    return {"proposal": proposal.id, "run": proposal.run, "comparison": proposal.comparison_id}
