"""Review: each red flag has its evidence, and a sound model has none."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest

from seatrial.governance.review import Facts, review

COMMITTED = {"environment": {"code": {"commit": "0d41d65", "dirty": False}}}
SOUND = Facts(
    model="late",
    owner="flight-ops",
    on_call="webhook:ops",
    runbook="docs/runbook.md",
    live="3",
    live_release="rel_1",
    declared_monitor=True,
    monitored_at="2013-05-01T04:00:00Z",
    predictions=100,
    labels=90,
    run=COMMITTED,
    approved_by="reviewer",
    open_alerts=0,
    retrain_declared=True,
    reachable=True,
)


@dataclass
class Case:
    flag: str
    facts: dict = field(default_factory=dict)


CASES = [
    Case("open alerts", {"open_alerts": 2}),
    Case("nobody to call", {"owner": ""}),
    Case("alerts go nowhere", {"reachable": False}),
    Case("not monitored", {"monitored_at": None}),
    Case("default monitor", {"declared_monitor": False}),
    Case("no labels", {"labels": 0}),
    Case("not approved", {"approved_by": None}),
    Case("not reproducible", {"run": {"environment": {"code": {"commit": "0d41d65", "dirty": True}}}}),
    Case("not reproducible", {"run": {"environment": {"code": {}}}}),
    Case("waived gates", {"run": COMMITTED | {"gates": [{"gate": "g", "passed": False, "waived": "a pilot"}]}}),
    Case("not repeatable", {"run": COMMITTED | {"repeatable": {"same": False}}}),
    Case("manual step", {"retrain_declared": False}),
]


def test_a_sound_model_has_no_flag():
    assert review(SOUND).flags == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.flag}: {case.facts}")
def test_each_flag_is_raised_by_its_evidence_alone_and_names_the_next_step(case):
    (flag,) = review(msgspec.structs.replace(SOUND, **case.facts)).flags
    assert flag.name == case.flag
    assert flag.evidence
    assert flag.next


def test_a_model_that_never_served_is_not_blamed_for_monitoring_labels_or_approval():
    facts = msgspec.structs.replace(
        SOUND, live=None, live_release=None, predictions=0, labels=0, monitored_at=None, approved_by=None
    )
    assert review(facts).flags == []
