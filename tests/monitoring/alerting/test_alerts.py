from __future__ import annotations

import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.core.records import Record
from seatrial.core.windows import Window
from seatrial.monitoring.alerting.alerts import AlertOver, UnknownAlert, acknowledge, alerts, resolve, settle
from seatrial.monitoring.definition import Alarm, Monitor
from seatrial.stores.metadata import MetadataStore
from tests.monitoring.alerted import report_on, settled
from tests.monitoring.worlds import DAY_US, START_US


@pytest.fixture
def metadata(tmp_path):
    return MetadataStore(tmp_path / "metadata.db")


def kinds(metadata):
    return [event.kind for event in metadata.events()]


def test_an_alarm_that_fires_opens_an_alert_with_all_that_is_needed_at_night(metadata):
    (alert,) = settled(metadata, 10)
    assert (alert.state, alert.severity, alert.alarm) == ("open", "high", "calibration gap above 0.1 over 7d")
    assert (alert.owner, alert.on_call, alert.runbook) == ("flight-ops", "webhook:ops", "docs/runbook.md")
    assert alert.evidence["value"] == pytest.approx(0.3, abs=0.01)
    assert alert.evidence["observed"] == pytest.approx(0.6, abs=0.01)
    assert (alert.evidence["threshold"], alert.release, alert.report) == (0.1, "rel_1", "rep_10_0.6")
    assert alert.action
    assert "60 %" in alert.headline
    assert alert.opened_at == "2013-04-11T00:00:00Z"
    record = metadata.record(alert.id)
    assert (record.kind, record.inputs) == ("alert", ("rep_10_0.6",))
    assert metadata.head("alert", "late/calibration gap above 0.1 over 7d").record_id == alert.id


def test_while_an_alert_is_open_its_alarm_opens_no_other(metadata):
    (first,) = settled(metadata, 10)
    (again,) = settled(metadata, 11)
    assert (again.id, again.seen, again.last_seen_at) == (first.id, 2, "2013-04-12T00:00:00Z")
    acknowledge(metadata, first.id, actor="ben", at_us=START_US + 11 * DAY_US)
    (third,) = settled(metadata, 12)
    assert (third.id, third.seen, third.state) == (first.id, 3, "acknowledged")
    assert len(metadata.records("alert")) == 1


def test_the_same_look_twice_is_seen_once(metadata):
    settled(metadata, 10)
    settled(metadata, 11)
    before = kinds(metadata)
    settled(metadata, 11)
    assert kinds(metadata) == before


def test_a_quiet_alarm_resolves_its_alert(metadata):
    (opened,) = settled(metadata, 10)
    (over,) = settled(metadata, 11, 0.3)
    assert (over.id, over.state, over.reason) == (opened.id, "resolved", "the alarm is quiet again")
    assert over.resolved_at == "2013-04-12T00:00:00Z"
    assert settled(metadata, 12, 0.3) == []


def test_too_little_data_is_not_quiet(metadata):
    settled(metadata, 10)
    (still,) = settled(metadata, 11, 0.3, few=True)
    assert still.state == "open"


def test_after_it_was_resolved_a_later_window_opens_another(metadata):
    (first,) = settled(metadata, 10)
    settled(metadata, 11, 0.3)
    (second,) = settled(metadata, 12)
    assert second.id != first.id
    assert [alert.state for alert in alerts(metadata)] == ["resolved", "open"]


def test_a_report_on_an_older_window_changes_nothing(metadata):
    settled(metadata, 10)
    settled(metadata, 12, 0.3)
    before = kinds(metadata)
    assert settled(metadata, 11) == []
    assert settled(metadata, 9, 0.3) == []
    assert kinds(metadata) == before


def test_an_alert_that_a_person_resolved_is_not_opened_again_by_a_window_that_overlaps(metadata):
    (first,) = settled(metadata, 10)
    resolve(metadata, first.id, actor="ben", at_us=START_US + 10 * DAY_US + 5, reason="storm")
    before = kinds(metadata)
    for day in (10, 11, 16):
        assert settled(metadata, day) == []
    assert kinds(metadata) == before
    assert len(settled(metadata, 17)) == 1  # the seven days after it


def test_an_alert_that_a_person_resolved_is_opened_again_after_the_alarm_was_quiet(metadata):
    (first,) = settled(metadata, 10)
    resolve(metadata, first.id, actor="ben", at_us=START_US + 10 * DAY_US + 5, reason="storm")
    assert settled(metadata, 11, 0.3) == []
    (second,) = settled(metadata, 12)
    assert second.id != first.id
    assert [one.kind for one in alerts(metadata)[0].history] == ["opened", "resolved", "quiet"]


def test_an_alarm_that_is_not_declared_any_more_has_no_open_alert(metadata):
    settled(metadata, 10)
    (over,) = settled(metadata, 11, monitor=Monitor("late", alarms=[Alarm.calibration(0.5)]))
    assert (over.state, over.reason) == ("resolved", "the alarm is not declared any more")


def test_alerts_of_other_models_are_left_alone(metadata):
    settled(metadata, 10)
    other = report_on(11, 0.3)
    settle(metadata, msgspec.structs.replace(other, model="early"), actor="ann", at_us=START_US)
    assert [alert.state for alert in alerts(metadata, "late")] == ["open"]
    assert alerts(metadata, "early") == []


def test_who_did_what_and_why_is_told_in_order(metadata):
    (first,) = settled(metadata, 10)
    acknowledge(metadata, first.id, actor="ben", at_us=START_US + 11 * DAY_US, reason="looking")
    done = resolve(metadata, first.id, actor="eve", at_us=START_US + 12 * DAY_US, reason="strike is over")
    assert [(one.kind, one.actor, one.reason) for one in done.history] == [
        ("opened", "ann", ""),
        ("acknowledged", "ben", "looking"),
        ("resolved", "eve", "strike is over"),
    ]
    assert (done.acknowledged_by, done.resolved_by, done.reason) == ("ben", "eve", "strike is over")


def test_nothing_more_can_be_said_of_an_alert_that_is_over(metadata):
    (first,) = settled(metadata, 10)
    resolve(metadata, first.id, actor="eve", at_us=0)
    for say in (acknowledge, resolve):
        with pytest.raises(AlertOver, match="eve"):
            say(metadata, first.id, actor="ben", at_us=0)


def test_an_id_that_is_no_alert_is_refused(metadata):
    with metadata.transaction() as transaction:
        transaction.add(Record("rep_1", "report", "late"))
    for unknown in ("alert_nothing", "rep_1"):
        with pytest.raises(UnknownAlert):
            acknowledge(metadata, unknown, actor="ben", at_us=0)


def test_two_reports_at_once_open_one_alert(metadata):
    report = report_on(10)
    threads = [
        threading.Thread(target=settle, args=(metadata, report), kwargs={"actor": str(n), "at_us": START_US})
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kinds(metadata) == ["alert.opened", "alerts.told"]
    assert len(metadata.pending("webhook")) == 1


steps = st.one_of(
    st.tuples(st.integers(1, 7), st.sampled_from(["fired", "quiet", "not_enough_data"])),
    st.tuples(st.none(), st.sampled_from(["acknowledge", "resolve"])),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=10))
def test_whatever_happens_in_whatever_order_an_alarm_has_one_alert_at_most(taken):
    """Beside a model of it: the state, the newest window that was looked at, how many were opened, and whether a
    person's word holds; all windows overlap."""
    with TemporaryDirectory() as folder:
        metadata = MetadataStore(Path(folder) / "metadata.db")
        state, newest, opened, held = "resolved", 0, 0, False
        for day, what in taken:
            if day is None:
                for alert in [one for one in alerts(metadata) if one.state != "resolved"]:
                    say = acknowledge if what == "acknowledge" else resolve
                    say(metadata, alert.id, actor="ben", at_us=0)
                if state != "resolved":
                    state = "acknowledged" if what == "acknowledge" else "resolved"
                    held = what == "resolve"
            else:
                settle(metadata, as_if(day, what), actor="ann", at_us=day * DAY_US)
                if day > newest and held:
                    newest, held = (day, False) if what == "quiet" else (newest, True)
                elif day > newest and what == "fired":
                    opened, state = (opened + 1, "open") if state == "resolved" else (opened, state)
                    newest = day
                elif day > newest and what == "quiet" and state != "resolved":
                    state, newest = "resolved", day
            found = alerts(metadata)
            assert len(found) == opened
            assert [one.state for one in found if one.state != "resolved"] == ([] if state == "resolved" else [state])
        metadata.close()


BASE = report_on(10)


def as_if(day, state):
    """A report whose only alarm is in `state` at the end of `day`."""
    window = str(Window(START_US + (day - 7) * DAY_US, START_US + day * DAY_US))
    alarm = msgspec.structs.replace(BASE.alarms[0], state=state, window=window)
    return msgspec.structs.replace(BASE, alarms=[alarm], window=window)
