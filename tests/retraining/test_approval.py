"""Approvals: four eyes on named evidence, and void when the evidence is overtaken."""

from __future__ import annotations

from typing import Any

import pytest

from seatrial.core.records import Record
from seatrial.retraining.approval import (
    AlreadyLive,
    NoReason,
    NotApproved,
    OwnProposal,
    StaleEvidence,
    VerdictRefuses,
    approval_of,
    decide,
    require,
)
from seatrial.retraining.comparison import Comparison
from seatrial.retraining.proposal import keep_comparison, newest, open_proposal
from seatrial.stores.metadata import MetadataStore

DAY_US = 86_400_000_000
NOW_US = 1_364_774_400_000_000
CHAMPION, CHALLENGER = "rel_" + "0" * 32, "rel_" + "1" * 32


@pytest.fixture
def metadata(tmp_path):
    store = MetadataStore(tmp_path / "metadata.db")
    with store.transaction() as transaction:
        for name in (CHAMPION, CHALLENGER):
            transaction.add(Record(name, "release", "late", (), {"of": name}))
        transaction.move("deployment", "late", CHAMPION, expected=0)
    yield store
    store.close()


def comparison(verdict: str, **facts: Any) -> Comparison:
    given = {
        "model": "late", "champion": CHAMPION, "challenger": CHALLENGER, "start": "2013-04-01T00:00:00Z",
        "as_of": "2013-04-01T00:00:00Z", "rows": 1, "loss": "log_loss", "days": [], "better_days": 0, "gain": 0.1,
        "low": 0.05, "high": 0.15, "champion_metrics": {}, "challenger_metrics": {}, "verdict": verdict,
        "final": False,
    }  # fmt: skip
    return Comparison(**(given | facts))


@pytest.fixture
def proposal(metadata):
    """A challenger that was judged: call with the verdict."""

    def judged(verdict: str = "better", **facts: Any):
        with metadata.transaction() as transaction:
            record = open_proposal(
                transaction, model="late", reasons=[], words="summer", champion=CHAMPION, deployment="late",
                generation=1, actor="ada", at_us=NOW_US,
            )  # fmt: skip
            body = {"run": None, "release": CHALLENGER}
            transaction.event("proposal.trained", record.id, actor="ada", at_us=NOW_US, body=body)
        with metadata.transaction() as transaction:
            keep_comparison(
                transaction, newest(metadata, "late"), comparison(verdict, **facts), actor="ada", at_us=NOW_US
            )
        return newest(metadata, "late")

    return judged


@pytest.fixture
def approve(metadata):
    def approve(proposal=None, decision="approved", **options):
        given = {"actor": "eve", "at_us": NOW_US, "reason": "48 of 77 days better"} | options
        with metadata.transaction() as transaction:
            return decide(
                metadata, transaction, decision, release=metadata.record(CHALLENGER), proposal=proposal,
                proposers=["ada"], deployment="late", **given,
            )  # fmt: skip

    return approve


def test_an_approval_binds_actor_reason_generation_and_the_digest_of_every_record(metadata, proposal, approve):
    judged = proposal()
    done = approve(judged)
    assert (done.actor, done.reason, done.generation, done.asserted) == ("eve", "48 of 77 days better", 1, True)
    assert set(done.evidence) == {CHALLENGER, judged.id, judged.comparison_id}
    assert require(metadata, "late", CHALLENGER, 1).id == done.id
    assert newest(metadata, "late").state == "approved"
    assert metadata.events(kind="release.approved")[-1].asserted


def test_who_proposed_cannot_approve_and_nothing_is_kept(metadata, proposal, approve):
    with pytest.raises(OwnProposal):
        approve(proposal(), actor="ada")
    assert approval_of(metadata, "late", CHALLENGER) is None


def test_what_is_live_already_is_neither_approved_again_nor_rejected(metadata, approve):
    with metadata.transaction() as transaction:
        live = Record("dep_2", "deployment", "late", (CHALLENGER,), {"generation": 2})
        transaction.add(live)
        transaction.move("deployment", "late", live.id, expected=1)
    with pytest.raises(AlreadyLive, match="has all of the traffic of 'late' already"):
        approve()
    with pytest.raises(AlreadyLive, match="is live in 'late' and cannot be rejected") as refused:
        approve(decision="rejected")
    assert "seatrial rollback late" in refused.value.next
    assert approval_of(metadata, "late", CHALLENGER) is None


def test_what_was_live_may_be_rejected_once_another_release_is(metadata, approve):
    for number, name in ((2, CHALLENGER), (3, CHAMPION)):
        with metadata.transaction() as transaction:
            live = Record(f"dep_{number}", "deployment", "late", (name,), {"generation": number})
            transaction.add(live)
            transaction.move("deployment", "late", live.id, expected=number - 1)
    assert approve(decision="rejected").decision == "rejected"


def test_a_decision_needs_a_reason(proposal, approve):
    with pytest.raises(NoReason):
        approve(proposal(), reason="  ")


@pytest.mark.parametrize("verdict", ["inconclusive", "worse", "too early"])
def test_a_challenger_that_is_not_shown_to_be_better_cannot_be_approved(proposal, approve, verdict):
    with pytest.raises(VerdictRefuses) as refused:
        approve(proposal(verdict))
    assert refused.value.exit_code == 3


def test_a_rejection_needs_no_verdict_and_may_come_from_the_proposer(metadata, proposal, approve):
    approve(proposal("inconclusive"), decision="rejected", actor="ada")
    assert newest(metadata, "late").state == "rejected"
    with pytest.raises(NotApproved, match="rejected by ada"):
        require(metadata, "late", CHALLENGER, 1)


def test_an_approval_for_another_generation_is_stale(metadata, proposal, approve):
    approve(proposal())
    with pytest.raises(StaleEvidence) as stale:
        require(metadata, "late", CHALLENGER, 2)
    assert stale.value.exit_code == 5


def test_a_champion_that_was_replaced_during_the_judging_makes_the_evidence_stale(metadata, proposal, approve):
    judged = proposal()
    with metadata.transaction() as transaction:
        transaction.move("deployment", "late", CHALLENGER, expected=1)
    with pytest.raises(StaleEvidence, match="generation 2"):
        approve(judged)


def test_an_approval_that_a_newer_comparison_overtook_is_stale(metadata, proposal, approve):
    approve(proposal())
    with metadata.transaction() as transaction:
        seen = newest(metadata, "late")
        newer = keep_comparison(transaction, seen, comparison("better"), actor="ada", at_us=NOW_US + DAY_US)
    require(metadata, "late", CHALLENGER, 1, comparison=seen.comparison_id)
    with pytest.raises(StaleEvidence, match=newer.id):
        require(metadata, "late", CHALLENGER, 1, comparison=newer.id)


def test_a_decision_before_its_evidence_is_refused(proposal, approve):
    with pytest.raises(StaleEvidence, match="later than the present"):
        approve(proposal(), at_us=NOW_US - 365 * DAY_US)


def test_an_old_comparison_is_stale(proposal, approve):
    with pytest.raises(StaleEvidence, match="8d"):
        approve(proposal(), at_us=NOW_US + 8 * DAY_US)


def test_approving_what_one_has_not_seen_is_refused(metadata, proposal, approve):
    seen = proposal()
    with metadata.transaction() as transaction:
        newer = keep_comparison(transaction, seen, comparison("better"), actor="ada", at_us=NOW_US)
    with pytest.raises(StaleEvidence, match=newer.id):
        approve(newest(metadata, "late"), seen=seen.comparison_id)
    approve(newest(metadata, "late"), seen=newer.id)


def test_an_approval_without_a_comparison_is_refused_for_a_proposal_and_taken_for_a_first_release(metadata, approve):
    with metadata.transaction() as transaction:
        open_proposal(
            transaction, model="late", reasons=[], words="x", champion=CHAMPION, deployment="late", generation=1,
            actor="ada", at_us=NOW_US,
        )  # fmt: skip
    with pytest.raises(VerdictRefuses, match="not compared yet"):
        approve(newest(metadata, "late"))
    assert set(approve(None).evidence) == {CHALLENGER}
