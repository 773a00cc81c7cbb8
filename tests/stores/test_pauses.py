"""Pauses: which loops stand still, from when until when, and that both are in the audit log."""

from __future__ import annotations

import pytest

from seatrial.core.clock import parse_time, to_us
from seatrial.stores import pauses
from seatrial.stores.metadata import MetadataStore
from seatrial.stores.pauses import Paused

NOON = to_us(parse_time("2024-03-01T12:00:00Z"))
HOUR = 3_600_000_000


@pytest.fixture
def metadata(tmp_path):
    return MetadataStore(tmp_path / "metadata.db")


def pause(metadata, name, until=None, reason="strike"):
    with metadata.transaction() as transaction:
        return pauses.pause(transaction, name, reason=reason, until_us=until, actor="ada", at_us=NOON)


def test_a_pause_holds_until_it_is_resumed_and_both_are_in_the_audit_log(metadata):
    assert pauses.paused(metadata, ["late", "schedules"], NOON) is None
    pause(metadata, "late")
    found = pauses.paused(metadata, ["schedules", "late"], NOON + 1000 * HOUR)
    assert found.words == "paused by ada since 2024-03-01T12:00:00Z: strike"
    with metadata.transaction() as transaction:
        pauses.resume(transaction, "late", reason="over", actor="bob", at_us=NOON + HOUR)
    assert pauses.paused(metadata, ["late"], NOON + HOUR) is None
    told = [(event.kind, event.subject, event.actor, event.body["reason"]) for event in metadata.events()]
    assert told == [("loop.paused", "loop/late", "ada", "strike"), ("loop.resumed", "loop/late", "bob", "over")]


def test_a_pause_with_an_end_is_over_then(metadata):
    pause(metadata, "late", until=NOON + HOUR)
    assert pauses.paused(metadata, ["late"], NOON + HOUR - 1).until == "2024-03-01T13:00:00Z"
    assert pauses.paused(metadata, ["late"], NOON + HOUR) is None


def test_the_newest_of_two_pauses_counts(metadata):
    pause(metadata, "late", until=NOON + HOUR)
    pause(metadata, "late", reason="longer")
    assert [(one.name, one.reason, one.until) for one in pauses.pauses(metadata, NOON + 2 * HOUR)] == [
        ("late", "longer", None)
    ]


def test_what_is_refused_says_who_paused_it_and_how_it_goes_on(metadata):
    pauses.refuse(None, "nothing")
    with pytest.raises(Paused, match="it is not done: 'late' is paused by ada") as refused:
        pauses.refuse(pause(metadata, "late"), "it is not done")
    assert refused.value.exit_code == 4
    assert "seatrial resume late" in str(refused.value)
