"""The Alertmanager: a real one rings while something rings here, pages once, and is told again after it was away."""

from __future__ import annotations

import time

import msgspec
import pytest

from seatrial.monitoring.alerting.alerts import alerts, resolve, settle, with_mutes
from seatrial.monitoring.alerting.mutes import mute
from seatrial.monitoring.definition import Alarm, Monitor
from seatrial.monitoring.routes.addresses import Allowed
from seatrial.monitoring.routes.delivery import deliver, refresh, undelivered
from seatrial.stores.metadata import MetadataStore
from tests.monitoring.alerted import Hook, report_on, settled
from tests.monitoring.worlds import DAY_US, START_US
from tests.servers import AlertmanagerProcess

pytestmark = pytest.mark.needs("prometheus-alertmanager")
HERE = Allowed.parse(["127.0.0.1"])
TWO = Monitor("late", alarms=[Alarm.calibration(), Alarm.above("log_loss", 0.7)])


@pytest.fixture
def metadata(tmp_path):
    return MetadataStore(tmp_path / "metadata.db")


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    hook = Hook()
    manager = AlertmanagerProcess(tmp_path_factory.mktemp("alertmanager") / "it", hook.url).start()
    manager.told = hook.got
    yield manager
    manager.stop()
    hook.close()


@pytest.fixture
def model(request):
    """A name of its own, so that tests can share one Alertmanager."""
    return request.node.name.partition("[")[0][-60:]


def told(metadata, manager, model, day, rate=0.6, **named):
    """Settle the day's report on `model` and deliver."""
    report = msgspec.structs.replace(report_on(day, rate, on_call="route:am", **named), model=model)
    settle(metadata, report, actor="ann", at_us=START_US + day * DAY_US, example="p-000007")
    return deliver(metadata, {"am": f"alertmanager+{manager.url}"}, allowed=HERE)


def ringing(manager, model):
    return sorted(
        (one for one in manager.alerts() if one["labels"]["model"] == model), key=lambda one: one["labels"]["alertname"]
    )


def notifications(manager, model):
    """What it told its webhook."""
    return [one for one in manager.told if one["groupLabels"]["model"] == model]


def until(fact):
    for _ in range(1000):
        if fact():
            return True
        time.sleep(0.01)
    return False


def test_an_incident_pages_and_its_alarms_are_tickets_that_the_page_inhibits(metadata, manager, model):
    assert told(metadata, manager, model, 10, monitor=TWO).sent == 1
    *singles, incident = ringing(manager, model)
    single = singles[0]
    assert {one["labels"]["alarm"] for one in singles} == {
        "calibration gap above 0.1 over 7d",
        "log_loss above 0.7 over 7d",
    }
    assert incident["labels"] == {
        "alertname": "SeatrialIncident",
        "model": model,
        "failure": "model",
        "severity": "page",
        "owner": "flight-ops",
    }
    assert single["labels"]["severity"] == "ticket"
    assert incident["annotations"]["explain"] == "seatrial explain p-000007"
    assert incident["annotations"]["timeline"].startswith("seatrial incident alert_")
    assert incident["annotations"]["runbook"] == "docs/runbook.md"
    assert incident["endsAt"] > incident["startsAt"]
    assert until(lambda: notifications(manager, model))
    notified = notifications(manager, model)
    assert [alert["labels"]["alertname"] for one in notified for alert in one["alerts"]] == ["SeatrialIncident"]
    assert all(one["status"]["inhibitedBy"] for one in ringing(manager, model)[:-1])


def test_labels_name_the_project_so_that_two_projects_ring_apart(tmp_path, manager, model):
    urls = {"am": f"alertmanager+{manager.url}"}
    for project in ("shop", "depot"):
        metadata = MetadataStore(tmp_path / f"{project}.db")
        report = msgspec.structs.replace(report_on(10, on_call="route:am"), model=model)
        settle(metadata, report, actor="ann", at_us=START_US + 10 * DAY_US)
        assert deliver(metadata, urls, project=project, allowed=HERE).sent == 1
        before = {one["fingerprint"] for one in ringing(manager, model)}
        assert refresh(metadata, alerts(metadata), urls, project=project, allowed=HERE) == {}
        assert {one["fingerprint"] for one in ringing(manager, model)} == before
    rang = sorted((one["labels"]["project"], one["labels"]["alertname"]) for one in ringing(manager, model))
    assert rang == [(project, name) for project in ("depot", "shop") for name in ("SeatrialAlert", "SeatrialIncident")]


def test_it_fires_until_it_is_over_here(metadata, manager, model):
    told(metadata, manager, model, 10)
    assert len(ringing(manager, model)) == 2
    assert until(lambda: notifications(manager, model))  # it tells nobody of the end of what it has not told
    told(metadata, manager, model, 11)
    assert len(ringing(manager, model)) == 2
    told(metadata, manager, model, 12, 0.3)
    assert ringing(manager, model) == []
    assert until(lambda: "resolved" in [one["status"] for one in notifications(manager, model)])


def test_telling_it_again_makes_no_other_alert(metadata, manager, model):
    told(metadata, manager, model, 10)
    before = {one["fingerprint"] for one in ringing(manager, model)}
    urls = {"am": f"alertmanager+{manager.url}"}
    for _ in range(3):
        assert refresh(metadata, alerts(metadata), urls, allowed=HERE) == {}
    assert {one["fingerprint"] for one in ringing(manager, model)} == before


def test_one_that_was_down_and_lost_everything_is_told_when_it_is_back(metadata, tmp_path, model):
    manager = AlertmanagerProcess(tmp_path / "down", "http://127.0.0.1:1/")
    away = told(metadata, manager, model, 10)
    assert (away.sent, away.pending) == (0, 1)
    assert "could not be reached" in away.failures["route:am"]
    assert [one.attempts for one in undelivered(metadata)] == [1]
    manager.start()
    try:
        urls = {"am": f"alertmanager+{manager.url}"}
        later_us = 40_000_000 + time.time_ns() // 1000
        assert deliver(metadata, urls, allowed=HERE, now_us=later_us).sent == 1
        assert len(ringing(manager, model)) == 2
        manager.stop()
        (manager.folder / "data" / "nflog").unlink(missing_ok=True)
        manager.start()
        assert refresh(metadata, alerts(metadata), urls, allowed=HERE) == {}
        assert len(ringing(manager, model)) == 2
    finally:
        manager.stop()


def test_an_alert_that_a_person_resolved_ends_there(metadata, manager, model):
    told(metadata, manager, model, 10)
    (alert,) = alerts(metadata, model)
    resolve(metadata, alert.id, actor="ben", at_us=START_US + 10 * DAY_US)
    assert deliver(metadata, {"am": f"alertmanager+{manager.url}"}, allowed=HERE).sent == 1
    assert ringing(manager, model) == []


def test_what_is_muted_is_over_there_until_the_mute_ends(metadata, manager, model):
    told(metadata, manager, model, 10, monitor=TWO)
    urls, now_us = {"am": f"alertmanager+{manager.url}"}, START_US + 10 * DAY_US

    def again(at_us):
        assert refresh(metadata, with_mutes(metadata, alerts(metadata, model), at_us), urls, allowed=HERE) == {}
        return [one["labels"].get("alarm", one["labels"]["alertname"]) for one in ringing(manager, model)]

    loss, gap = "log_loss above 0.7 over 7d", "calibration gap above 0.1 over 7d"
    assert sorted(again(now_us)) == ["SeatrialIncident", gap, loss]
    facts = {"actor": "ben", "at_us": now_us, "reason": "storm"}
    mute(metadata, model, loss, until_us=now_us + DAY_US // 4, **facts)
    assert sorted(again(now_us + 1)) == ["SeatrialIncident", gap]
    mute(metadata, model, "", until_us=now_us + DAY_US // 8, **facts)
    assert again(now_us + 1) == []
    resolve(metadata, alerts(metadata, model)[0].id, actor="ben", at_us=now_us + 2)
    assert again(now_us + 3) == []  # its end is told there as well, though it is muted
    (rings,) = [one.alarm for one in alerts(metadata, model) if one.state != "resolved"]
    assert sorted(again(now_us + DAY_US)) == ["SeatrialIncident", rings]


def test_what_it_refuses_is_said_without_the_address(metadata, manager, model):
    settled(metadata, 10, on_call="route:am")
    done = deliver(metadata, {"am": f"alertmanager+{manager.url}/nothing/here?token=secret"}, allowed=HERE)
    assert done.failures == {"route:am": "it answered 404"}
