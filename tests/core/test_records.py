"""Records and events: every field counts in their digests."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from seatrial.core.identity import canonical_json, digest
from seatrial.core.records import GENESIS, Event, Record, event_hash, record_digest

EVENT = Event(1, "run.finished", "run_1", "ada", 5, 6, {"auc": 0.7}, GENESIS, "", records={"run_1": "d"})
RECORD = Record("run_1", "run", "late", ("snap_1", "snap_2"), {"auc": 0.7})


def other(value):
    if isinstance(value, bool):
        return not value
    return {int: lambda: value + 1, str: lambda: value + "x", dict: dict, tuple: lambda: value[::-1]}[type(value)]()


@pytest.mark.parametrize("name", [field.name for field in fields(Event) if field.name != "hash"])
def test_every_field_of_an_event_changes_its_hash(name):
    assert event_hash(replace(EVENT, **{name: other(getattr(EVENT, name))})) != event_hash(EVENT)


def test_the_hash_itself_does_not():
    assert event_hash(replace(EVENT, hash="x")) == event_hash(EVENT)


@pytest.mark.parametrize("name", [field.name for field in fields(Record)])
def test_every_field_of_a_record_changes_its_digest(name):
    assert record_digest(replace(RECORD, **{name: other(getattr(RECORD, name))})) != record_digest(RECORD)


def test_a_chain_can_be_checked_with_the_documented_recipe():
    kept = {field.name: getattr(EVENT, field.name) for field in fields(Event) if field.name not in ("previous", "hash")}
    assert event_hash(EVENT) == digest(EVENT.previous.encode() + canonical_json(kept))


def test_nothing_of_a_record_can_be_set():
    with pytest.raises(FrozenInstanceError):
        RECORD.name = "early"
