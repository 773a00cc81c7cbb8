"""The audit log against every way to change a file behind its back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from seatrial.core.records import GENESIS, event_hash
from seatrial.governance import audit
from seatrial.governance.audit import Anchor, AuditBroken, UnknownEvent
from seatrial.stores.metadata import MetadataStore
from seatrial.testing.metadata_suite import add, happen, record

EVENTS = 12
TEXTS = ("kind", "subject", "actor", "body", "previous", "hash", "records")
NUMBERS = ("at_us", "recorded_at_us", "format", "asserted")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metadata.db"


@pytest.fixture
def store(path):
    """Twelve events; those with an odd number are about a record."""
    opened = MetadataStore(path)
    for number in range(1, EVENTS + 1):
        add(opened, record(f"run_{number}", auc=number / 100))
        happen(opened, subject=f"run_{number}" if number % 2 else "alias/late@candidate", auc=number / 100)
    yield opened
    opened.close()


def tamper(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def forge(path, store, seq, **changes):
    """Change an event and give it the hash that fits, as somebody would who knows how it is made."""
    [event] = store.events(after=seq - 1, limit=1)
    changed = replace(event, **changes)
    tamper(
        path,
        f"UPDATE events SET actor = '{changed.actor}', previous = '{changed.previous}', "
        f"hash = '{event_hash(changed)}' WHERE seq = {seq}",
    )
    return replace(changed, hash=event_hash(changed))


def rewrite(path, store, first, **changes):
    """Change an event and every hash after it."""
    previous = forge(path, store, first, **changes).hash
    for seq in range(first + 1, EVENTS + 1):
        previous = forge(path, store, seq, previous=previous).hash


def first_bad(store, *anchors):
    bad = audit.verify(store, anchors).first_bad
    return bad and bad.seq


def test_an_untouched_log_is_intact(store):
    report = audit.verify(store)
    assert report.intact
    assert report.first_bad is None
    assert report.events == EVENTS
    assert report.head == audit.anchor(store) == Anchor(EVENTS, store.events()[-1].hash)


def test_an_empty_log_is_intact(tmp_path):
    store = MetadataStore(tmp_path / "empty.db")
    report = audit.verify(store, [audit.anchor(store)])
    assert report.intact
    assert report.head == Anchor(0, GENESIS)
    store.close()


def test_anchors_taken_at_any_time_fit_the_log_that_went_on(path, tmp_path):
    store = MetadataStore(tmp_path / "going-on.db")
    anchors = [audit.anchor(store)]
    for number in range(5):
        happen(store, number=number)
        anchors.append(audit.anchor(store))
    report = audit.verify(store, anchors)
    assert report.intact
    assert report.anchors == 6
    store.close()


@pytest.mark.parametrize("seq", [1, 2, 7, EVENTS])
@pytest.mark.parametrize("column", TEXTS)
def test_an_edited_text_is_found_where_it_is(path, store, column, seq):
    values = {"body": "json_set(body, '$.auc', 0.99)", "previous": "'g' || substr(previous, 2)"}
    values |= {"hash": "replace(hash, substr(hash, 1, 1), 'g')", "records": "json_set(records, '$.run_2', 'a')"}
    tamper(path, f"UPDATE events SET {column} = {values.get(column, column + ' || 0')} WHERE seq = {seq}")
    assert first_bad(store) == seq


@pytest.mark.parametrize("seq", [1, 6, EVENTS])
@pytest.mark.parametrize("column", NUMBERS)
def test_an_edited_number_is_found_where_it_is(path, store, column, seq):
    tamper(path, f"UPDATE events SET {column} = 1 - {column} WHERE seq = {seq}")
    assert first_bad(store) == seq


@pytest.mark.parametrize("value", ["'words'", "x'00ff'", "1.5", "''", "CAST(x'ff' AS TEXT)"])
@pytest.mark.parametrize("column", [*TEXTS, *NUMBERS])
def test_an_event_that_cannot_be_read_any_more_is_found_where_it_is(path, store, column, value):
    tamper(path, f"UPDATE events SET {column} = {value} WHERE seq = 7")
    assert first_bad(store) == 7
    assert audit.verify(store).events == EVENTS


@pytest.mark.parametrize("seq", range(1, EVENTS))
def test_a_deleted_event_is_found_where_it_was(path, store, seq):
    tamper(path, f"DELETE FROM events WHERE seq = {seq}")
    assert first_bad(store) == seq


def test_a_gap_that_was_closed_by_counting_anew_is_found(path, store):
    tamper(path, "DELETE FROM events WHERE seq = 4", "UPDATE events SET seq = seq - 1 WHERE seq > 4")
    assert first_bad(store) == 4


COPY = (
    "INSERT INTO events SELECT {seq}, format, kind, subject, records, actor, asserted, at_us, recorded_at_us, "
    "body, previous, hash FROM events WHERE seq = {of}"
)


@pytest.mark.parametrize("seq", [-3, 0])
def test_an_event_put_in_before_the_first_is_found(path, store, seq):
    tamper(path, COPY.format(seq=seq, of=1))
    assert first_bad(store) == seq


def test_an_event_put_in_between_is_found_where_it_is(path, store):
    tamper(path, "UPDATE events SET seq = -seq WHERE seq > 4", "UPDATE events SET seq = 1 - seq WHERE seq < 0")
    tamper(path, COPY.format(seq=5, of=4))
    assert first_bad(store) == 5


def test_an_event_put_in_at_the_end_is_found(path, store):
    tamper(path, COPY.format(seq=EVENTS + 1, of=EVENTS))
    assert first_bad(store) == EVENTS + 1
    tamper(path, f"UPDATE events SET seq = {EVENTS + 5} WHERE seq = {EVENTS + 1}")
    assert first_bad(store) == EVENTS + 1


@pytest.mark.parametrize(("one", "other"), [(1, 2), (3, 9), (EVENTS - 1, EVENTS)])
def test_events_that_changed_places_are_found_at_the_first(path, store, one, other):
    tamper(
        path,
        f"UPDATE events SET seq = -1 WHERE seq = {one}",
        f"UPDATE events SET seq = {one} WHERE seq = {other}",
        f"UPDATE events SET seq = {other} WHERE seq = -1",
    )
    assert first_bad(store) == one


@pytest.mark.parametrize("seq", [1, 6, EVENTS - 1])
def test_a_forged_event_is_found_by_the_one_that_follows_it(path, store, seq):
    forge(path, store, seq, actor="mallory")
    assert first_bad(store) == seq + 1


@pytest.mark.parametrize("kept", [0, 1, 8, EVENTS - 1])
def test_a_tail_that_was_cut_off_is_found_and_so_is_what_is_written_after_it(path, store, kept):
    tamper(path, f"DELETE FROM events WHERE seq > {kept}")
    assert first_bad(store) == kept + 1
    happen(store)
    assert first_bad(store) == kept + 1


@pytest.mark.parametrize("kept", [0, 1, 8, EVENTS - 1])
def test_a_tail_that_was_cut_off_by_somebody_careful_is_found_by_an_anchor(path, store, kept):
    anchor = audit.anchor(store)
    tamper(path, f"DELETE FROM events WHERE seq > {kept}", f"UPDATE sqlite_sequence SET seq = {kept}")
    assert first_bad(store) is None
    assert first_bad(store, anchor) == kept + 1


def test_a_tail_that_was_written_anew_is_found_by_an_anchor(path, store):
    anchors = [Anchor(event.seq, event.hash) for event in store.events()]
    rewrite(path, store, 5, actor="mallory")
    assert first_bad(store) is None
    assert first_bad(store, anchors[3]) is None
    assert first_bad(store, anchors[4]) == 5
    assert first_bad(store, anchors[9]) == 10
    assert first_bad(store, *anchors) == 5


def test_anchors_that_contradict_each_other_cannot_both_fit(store):
    right = audit.anchor(store)
    assert first_bad(store, Anchor(EVENTS, "0" * 64), right) == EVENTS
    assert first_bad(store, right, Anchor(EVENTS, "0" * 64)) == EVENTS
    assert first_bad(store, Anchor(0, "a" * 64)) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET body = json_set(body, '$.auc', 0.99) WHERE id = 'run_5'",
        "UPDATE records SET name = 'early' WHERE id = 'run_5'",
        "UPDATE records SET body = '{' WHERE id = 'run_5'",
        "DELETE FROM records WHERE id = 'run_5'",
        "INSERT INTO record_inputs VALUES ('run_5', 0, 'snap_1')",
    ],
)
def test_a_record_that_was_changed_is_found_at_the_event_about_it(path, store, statement):
    tamper(path, statement)
    report = audit.verify(store)
    assert report.first_bad.seq == 5
    assert "run_5" in report.first_bad.reason


def test_a_record_that_came_with_an_event_about_something_else_is_covered(path, store):
    with store.transaction() as transaction:
        transaction.add(record("dep_1", kind="deployment", share=100))
        transaction.event("deployment.changed", "deployment/late", actor="ada", at_us=0)
    assert audit.verify(store).intact
    tamper(path, "UPDATE records SET body = json_set(body, '$.share', 1) WHERE id = 'dep_1'")
    assert first_bad(store) == EVENTS + 1


def test_a_report_becomes_an_error_that_names_the_place(path, store):
    tamper(path, "DELETE FROM events WHERE seq = 4")
    error = audit.refusal(audit.verify(store))
    assert isinstance(error, AuditBroken)
    assert error.facts["seq"] == 4
    assert "event 4" in str(error)


def test_the_newest_events_are_listed_oldest_first(store):
    assert [event.seq for event in audit.newest(store, 3)] == [10, 11, 12]
    assert [event.seq for event in audit.newest(store, 100)] == list(range(1, EVENTS + 1))
    assert [event.seq for event in audit.newest(store, 2, subject="alias/late@candidate")] == [10, 12]
    assert audit.newest(store, subject="nobody") == []


def test_one_event_is_shown_by_its_number(store):
    assert audit.show(store, 5) == store.events()[4]
    for seq in (0, -1, EVENTS + 1):
        with pytest.raises(UnknownEvent, match="1 to 12"):
            audit.show(store, seq)
