"""Approvals: who said yes to which release, on what evidence, and does that still hold?

An approval binds the release (whose id digests its content), the generation of the deployment that it was meant to
change, and the digest of every record of evidence. When the deployment moved since, or a newer comparison exists,
the evidence is stale and the approval counts no more. Who proposed cannot approve. Until identities are proved the
names are what people say of themselves (*asserted*): four eyes, but no authentication.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from seatrial.core.clock import from_us, iso, parse_time, to_us
from seatrial.core.errors import Conflict, GateRefused, NotAllowed, UsageError
from seatrial.core.identity import new_id
from seatrial.core.records import Head, Record, record_digest
from seatrial.core.windows import duration_text
from seatrial.retraining.proposal import Proposal, newest
from seatrial.stores.metadata import MetadataStore, Transaction

KIND = "approval"
EXEMPT = "policy auto-if-better"
"""Who an approval without a person is by."""
FRESH_FOR_US = 7 * 86_400_000_000
"""How old a comparison may be, in domain time, when it is approved."""

Decision = Literal["approved", "rejected"]


class NotApproved(NotAllowed):
    """The release was not approved by a second person, as policy asks."""

    code = "approval.missing"


class OwnProposal(NotAllowed):
    """Who proposed, trained or packed a release cannot approve it."""

    code = "approval.own_proposal"


class AlreadyLive(Conflict):
    """What is to be approved or rejected is live."""

    code = "approval.already_live"


class NoReason(UsageError):
    """A decision was given without a reason in words."""

    code = "approval.no_reason"


class StaleEvidence(Conflict):
    """What the approval rests on has been overtaken."""

    code = "approval.stale"


class VerdictRefuses(GateRefused):
    """The comparison does not say that the challenger is better."""

    code = "approval.not_better"


class Approval(msgspec.Struct, frozen=True):
    """One decision. evidence: digest by record id. asserted: the actor's identity was not proved.

    release: empty where a proposal was rejected that has no challenger. proposal: the one that was decided on, if any.
    exempt: of an approval without a person, what the policy found, see `retraining.exemption`. experiment: of one whose
    challenger is still to be shown to be better, by what; empty otherwise.
    """

    id: str
    decision: Decision
    release: str
    deployment: str
    generation: int
    actor: str
    proposers: list[str]
    reason: str
    evidence: dict[str, str]
    at: str
    asserted: bool = True
    proposal: str = ""
    exempt: dict[str, Any] = {}
    experiment: str = ""


def decide(
    metadata: MetadataStore,
    transaction: Transaction,
    decision: Decision,
    *,
    release: Record,
    proposal: Proposal | None,
    proposers: Sequence[str],
    deployment: str,
    reason: str,
    actor: str,
    at_us: int,
    seen: str | None = None,
    experiment: str = "",
    exempt: dict[str, Any] | None = None,
) -> Approval:
    """Keep a decision, in a transaction of the caller's.

    proposers: everybody who had a hand in the release. seen: the comparison that the actor looked at (its id), when
    it matters that it is the newest. experiment: what will show on live traffic which release is better, in words: then
    a challenger may be approved for it that is not shown to be better yet, and none that is shown to be worse.
    exempt: what the policy found under which nobody has to approve; then it is the policy that does.
    Raises NoReason, AlreadyLive, OwnProposal, StaleEvidence or VerdictRefuses, with nothing kept.
    """
    _check_reason(decision, reason)
    head = transaction.head("deployment", deployment)
    generation = head.generation if head else 0
    by = EXEMPT if exempt else actor
    unproved = False
    live = metadata.record(head.record_id) if head else None
    if decision == "rejected" and live is not None and release.id in live.inputs[:1]:
        raise AlreadyLive(
            f"release {release.id} is live in '{deployment}' and cannot be rejected.",
            expected="A rejection is of a release that is not live; what is live is taken back.",
            state="Nothing was decided.",
            next=f'Run `seatrial rollback {deployment} --reason "..."`, or deploy another one, and reject it then.',
        )
    if decision == "approved":
        if live is not None and live.inputs == (release.id,):
            raise AlreadyLive(
                f"release {release.id} has all of the traffic of '{deployment}' already.",
                expected="There is nothing to approve.",
                state="Nothing was decided.",
                next=f"Look at `seatrial deployments status {deployment}`.",
            )
        if by in proposers:
            raise OwnProposal(
                f"'{actor}' proposed or packed release {release.id} and cannot approve it.",
                expected="Somebody else looks at the evidence and decides. Names are asserted: this is four eyes, "
                "not authentication.",
                next="Let a second person run it with --actor NAME.",
            )
        if proposal is not None:
            unproved = bool(experiment) and _is_open(proposal)
            _check_verdict(metadata, proposal, head, at_us, seen, unproved=unproved)
    evidence = [release.id, *release.inputs[:2]]
    if proposal is not None:
        evidence += [id for id in (proposal.id, proposal.comparison_id) if id]
    digests = _digests(metadata, evidence)
    body = {
        "decision": decision,
        "release": release.id,
        "deployment": deployment,
        "generation": generation,
        "actor": by,
        "proposers": sorted(set(proposers)),
        "reason": reason,
        "evidence": digests,
        "asserted": True,
        "at_us": at_us,
        "exempt": exempt or {},
        "experiment": experiment if unproved else "",
        "proposal": proposal.id if proposal else "",
    }
    record = Record(new_id("appr"), KIND, f"{deployment}/{release.id}", tuple(digests), body)
    transaction.add(record)
    transaction.move(KIND, record.name, record.id, expected=None)
    facts = {name: body[name] for name in ("decision", "reason", "generation", "deployment", "exempt", "experiment")}
    transaction.event(f"release.{decision}", release.id, actor=actor, at_us=at_us, body=facts | {"approval": record.id})
    if proposal is not None:
        transaction.event(f"proposal.{decision}", proposal.id, actor=actor, at_us=at_us, body={"approval": record.id})
    return _plain(record)


def reject_open(
    metadata: MetadataStore, transaction: Transaction, proposal: Proposal, *, reason: str, actor: str, at_us: int
) -> Approval:
    """End a proposal that has no challenger yet, in a transaction of the caller's; no release is decided on.

    Raises NoReason, or StaleEvidence when its challenger came meanwhile, with nothing kept.
    """
    _check_reason("rejected", reason)
    now = newest(metadata, proposal.model)
    if now is None or (now.id, now.state) != (proposal.id, "open"):
        raise StaleEvidence(
            f"proposal {proposal.id} is not open any more.",
            state="Nothing was decided.",
            next=f"Look at `seatrial proposals show {proposal.id}`, then decide again.",
        )
    head = transaction.head("deployment", proposal.deployment)
    digests = _digests(metadata, [proposal.id])
    body = {
        "decision": "rejected",
        "release": "",
        "proposal": proposal.id,
        "deployment": proposal.deployment,
        "generation": head.generation if head else 0,
        "actor": actor,
        "proposers": proposal.proposers,
        "reason": reason,
        "evidence": digests,
        "at_us": at_us,
    }
    record = Record(new_id("appr"), KIND, f"{proposal.deployment}/{proposal.id}", tuple(digests), body)
    transaction.add(record)
    transaction.event(
        "proposal.rejected", proposal.id, actor=actor, at_us=at_us, body={"approval": record.id, "reason": reason}
    )
    return _plain(record)


def approval_of(metadata: MetadataStore, deployment: str, release: str) -> Approval | None:
    """The newest decision on a release in a deployment."""
    head = metadata.head(KIND, f"{deployment}/{release}")
    record = metadata.record(head.record_id) if head else None
    return _plain(record) if record else None


def require(
    metadata: MetadataStore, deployment: str, release: str, generation: int, *, comparison: str | None = None
) -> Approval:
    """The approval under which `release` may replace what is live at `generation`.

    comparison: the newest one that there is of the release.
    Raises NotApproved when there is none, StaleEvidence when the deployment moved or a record of evidence changed.
    """
    found = approval_of(metadata, deployment, release)
    if found is None or found.decision != "approved":
        said = f"it was rejected by {found.actor}: {found.reason}" if found else "nobody has approved it"
        raise NotApproved(
            f"release {release} may not go live in '{deployment}': {said}.",
            expected="A second person approves what goes live; [policy] approval in seatrial.toml says otherwise.",
            state="Nothing was deployed.",
            next=f'Let somebody else run `seatrial approve {release} --reason "..." --actor NAME`.',
        )
    if found.generation != generation:
        raise StaleEvidence(
            f"release {release} was approved to follow generation {found.generation} of '{deployment}', "
            f"which is now at {generation}.",
            expected="Somebody deployed in between, so what was compared is not what would be replaced.",
            state="Nothing was deployed.",
            next=_again(release) if comparison else f"Let somebody `seatrial approve {release}` again.",
        )
    if comparison is not None and comparison not in found.evidence:
        raise StaleEvidence(
            f"release {release} was approved on evidence that the newer comparison {comparison} has overtaken.",
            state="Nothing was deployed.",
            next=f"Look at it, then let somebody `seatrial approve {release}` again.",
        )
    for id, digest in found.evidence.items():
        record = metadata.record(id)
        if record is None or record_digest(record) != digest:
            raise StaleEvidence(
                f"the evidence {id} of approval {found.id} is not what was approved.",
                state="Nothing was deployed.",
                next="Run `seatrial audit verify`.",
            )
    return found


def _check_reason(decision: Decision, reason: str) -> None:
    if not reason.strip():
        raise NoReason(f"no reason was given for '{decision}'.", next='Say why, for whoever asks later: --reason "..."')


def _digests(metadata: MetadataStore, ids: Sequence[str]) -> dict[str, str]:
    kept = [(id, metadata.record(id)) for id in dict.fromkeys(ids)]
    return {id: record_digest(record) for id, record in kept if record is not None}


def _is_open(proposal: Proposal) -> bool:
    """Whether an experiment may still show which is better."""
    return proposal.comparison is None or proposal.comparison.verdict in ("too early", "inconclusive")


def _check_verdict(
    metadata: MetadataStore, proposal: Proposal, head: Head | None, at_us: int, seen: str | None, *, unproved: bool
) -> None:
    generation = head.generation if head else 0
    live = metadata.record(head.record_id) if head else None
    comparison = proposal.comparison
    if unproved:
        comparison = None
    elif comparison is None or comparison.verdict != "better":
        said = comparison.words if comparison else "it was not compared yet"
        raise VerdictRefuses(
            f"challenger {proposal.challenger} of '{proposal.model}' cannot be approved: {said}.",
            expected="Only a challenger that is shown to be better goes live.",
            next=f"Run `seatrial retrain {proposal.model} compare` when more labels are known, or reject it.",
        )
    if seen is not None and seen != proposal.comparison_id:
        raise StaleEvidence(
            f"you looked at comparison {seen}; the newest is {proposal.comparison_id}.",
            next=f"Look at `seatrial proposals show {proposal.id}`, then decide again.",
        )
    if generation != proposal.generation and (live is None or live.inputs != (proposal.champion,)):
        raise StaleEvidence(
            f"deployment '{proposal.deployment}' is at generation {generation}; the challenger was compared with "
            f"what was live at {proposal.generation}.",
            next=_again(proposal.challenger or ""),
        )
    if comparison is None:
        return
    age = at_us - to_us(parse_time(comparison.as_of, name="as_of"))
    if age < 0:
        raise StaleEvidence(
            f"the newest comparison is as of {comparison.as_of}, later than the present.",
            next="Decide at a time at which it can be known.",
        )
    if age > FRESH_FOR_US:
        raise StaleEvidence(
            f"the newest comparison is {duration_text(age)} old.",
            expected=f"At most {duration_text(FRESH_FOR_US)} is expected.",
            next=f"Run `seatrial retrain {proposal.model} compare` first.",
        )


def _again(release: str) -> str:
    return f"`seatrial reject {release} --reason TEXT`, then propose again, against what is live now."


def _plain(record: Record) -> Approval:
    body = record.body
    fields = {name: body[name] for name in Approval.__struct_fields__ if name in body}
    return msgspec.convert(fields | {"id": record.id, "at": iso(from_us(body["at_us"]))}, Approval)
