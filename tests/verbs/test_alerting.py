"""Alerting: what stays away is noticed by check, monitor and status; people are told, and see what was around it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from seatrial import BlueGreen, Deployment, Model, Monitor, ParquetSource, Project
from seatrial.cli import run
from seatrial.core.errors import UsageError
from seatrial.monitoring.alerting.mutes import BadMute
from seatrial.monitoring.pages.incident import html
from seatrial.retraining.proposal import manual, open_proposal
from seatrial.testing import FakeClock
from seatrial.verbs import feeds
from seatrial.verbs.alerting import AlertsNotDelivered, GaugesNotWritten, HeartbeatNotSent
from tests.monitoring.alerted import Hook

START = datetime(2024, 1, 1, tzinfo=UTC)
SETTINGS = """
[routes]
ops = "{url}"

[alerts]
internal = ["127.0.0.1"]
heartbeat = "${{HEARTBEAT}}"
textfile = "gauges"
"""
PROJECT = """
from seatrial import Deployment, Model, Monitor, ParquetSource

Model("late", task="binary", target="late", key=["parcel"],
      labels=ParquetSource("parcels.parquet", event_timestamp="at", label_known_at="known_at"),
      features=["request:size"], estimator="sklearn.linear_model.LogisticRegression",
      owner="logistics", on_call="route:ops", runbook="docs/runbook.md")
Deployment("late")
Monitor("late", every="1d", labels_within="2d")
"""


def day(number: float) -> datetime:
    return START + timedelta(days=number)


@pytest.fixture
def hook():
    hook = Hook()
    yield hook
    hook.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Twenty days of predictions, every half an hour; of the last eight the labels came every day."""
    folder = tmp_path_factory.mktemp("made") / "parcels"
    folder.mkdir()
    (folder / "project.py").write_text(PROJECT)
    (folder / "gauges").mkdir()
    with at(folder, 20) as project:
        for number in range(20 * 48):
            predict(project, number, request_id=f"P{number}")
        project.log.close()
    for number in range(13, 21):
        with at(folder, number) as project:
            project.label("late", [{"request_id": f"P{48 * number - 1}", "late": 0}])
    return folder


@pytest.fixture
def folder(made, tmp_path, hook, monkeypatch):
    monkeypatch.setenv("HEARTBEAT", hook.url.replace("/hook", "/beat"))
    folder = shutil.copytree(made, tmp_path / "parcels")
    (folder / "seatrial.toml").write_text(SETTINGS.format(url=hook.url))
    return folder


def predict(project, number, **named):
    """The prediction of that half an hour."""
    when = START + timedelta(minutes=30 * number)
    project.log.write(model="late", features={"size": 1.0}, prediction=0.0, probability=0.3, at=when, **named)


def at(folder, number):
    return Project(folder, clock=FakeClock(day(number)), actor="cron")


def told(hook):
    return [one for one in hook.got if one]  # a heartbeat is empty


def test_while_everything_comes_nobody_is_told_and_the_heart_beats(folder, hook):
    with at(folder, 20) as project:
        project.monitor("late")
        before = len(hook.got)
        done = project.alerts_check()
        assert {one.what: one.state for one in done.cadences} == {
            "predictions": "on time",
            "labels": "on time",
            "report": "on time",
        }
        assert (done.silent, done.sent, done.heartbeat) == ([], 0, "sent")
        assert hook.got[before:] == [{}]
        assert project.status()[0].silent == []


def test_a_service_that_falls_silent_pages_within_hours_and_the_end_is_told(folder, hook):
    with at(folder, 20.5) as project:
        done = project.alerts_check()
        (alert,) = [one for one in done.silent if one.alarm == "no predictions"]
        assert alert.severity == "high"
        assert alert.words == (
            "'late' has made no prediction for 12 hours; in the same hours of the weeks before it made 24"
        )
        assert project.alerts_check().silent == done.silent
        (page,) = told(hook)
        assert (page["page"], page["alert"]["alarm"], page["alert"]["owner"]) == (True, "no predictions", "logistics")
        assert "no prediction" in project.status()[0].silent[0]
        predict(project, 48 * 20 + 23.8)
        assert "no predictions" not in [one.alarm for one in project.alerts_check().silent]
        assert [one["event"] for one in told(hook)] == ["opened", "resolved"]


def test_a_log_that_only_a_handler_writes_falls_silent_too(tmp_path):
    (tmp_path / "project.py").write_text(PROJECT)
    with at(tmp_path, 20) as project:
        for number in range(20 * 48):
            predict(project, number)
        project.log.close()
    with at(tmp_path, 20.5) as project, pytest.warns(AlertsNotDelivered):
        assert "no predictions" in [one.alarm for one in project.alerts_check().silent]


def test_status_and_review_say_what_rings_what_was_reported_and_where_to_look(folder, hook, capsys):
    with at(folder, 20) as project:
        report = project.monitor("late")
        assert (project.status()[0].alerts, project.status()[0].report.id) == (None, report.id)
    with at(folder, 20.5) as project:
        (alert,) = [one for one in project.alerts_check().silent if one.alarm == "no predictions"]
        model = project.status()[0]
        assert (model.alerts.high, model.alerts.unseen, model.alerts.worst) == (1, 1, alert.id)
        assert model.report.verdict == "unknown"
        model = project._with_what_waits(msgspec.structs.replace(model, live="1", next="seatrial serve"))
        assert model.next == f"seatrial incident {alert.id}"
        (flags,) = [one.flags for one in project.review()]
        assert ("open alerts", "open alerts: 1 (1 high)") in [(one.name, one.evidence) for one in flags]
    assert run(["status", "--project", str(folder), "--at", "2024-01-21T12:00:00Z"]) == 0
    shown = capsys.readouterr().out
    assert "  report        UNKNOWN: " in shown
    assert f"  alerts        1 high; the worst is {alert.id}: 'late' has made no prediction" in shown


def test_labels_and_reports_that_stay_away_are_tickets_and_a_report_says_it_too(folder, hook):
    with at(folder, 20) as project:
        project.monitor("late")
        for number in range(20 * 48, 26 * 48):
            predict(project, number)
    with at(folder, 26) as project:
        silent = {one.alarm: one for one in project.alerts_check().silent}
        assert set(silent) == {"no labels", "no report"}
        assert silent["no labels"].words == "the labels of 'late' have not come for 6 days; expected every 2 days"
        assert [one["page"] for one in told(hook)] == [False]
        report = project.monitor("late")
        assert "The labels of 'late' have not come for 6 days; expected every 2 days" in report.findings
        assert [one.alarm for one in project.alerts_check().silent] == ["no labels"]


def test_the_gauges_are_what_prometheus_reads(folder):
    with at(folder, 20.5) as project:
        project.monitor("late")
        project.alerts_check()
    (file,) = (folder / "gauges").iterdir()
    text = file.read_text()
    name = folder.name
    assert file.name == f"seatrial_{name}.prom"
    assert f'seatrial_open_alerts{{project="{name}",model="late",severity="high"}} 1' in text
    assert f'seatrial_missed{{project="{name}",model="late",what="predictions"}} 1' in text
    assert f'seatrial_report_verdict{{project="{name}",model="late",verdict="unknown"}} ' in text
    assert f'seatrial_heartbeat_timestamp_seconds{{project="{name}"}} ' in text


@pytest.mark.needs("promtool")
def test_promtool_finds_no_fault_in_the_gauges_of_a_project(folder):
    with at(folder, 20.5) as project:
        project.monitor("late")
    (file,) = (folder / "gauges").iterdir()
    done = subprocess.run(["promtool", "check", "metrics"], input=file.read_bytes(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_newest_report_is_found_without_reading_those_before_it(folder):
    with at(folder, 20) as project:
        first = project.monitor("late").id
    with at(folder, 20.5) as project:
        newest = project.monitor("late").id
        with closing(sqlite3.connect(project.metadata.path, isolation_level=None)) as connection:
            connection.execute("UPDATE records SET body = '{' WHERE id = ?", [first])
        assert project.status()[0].report.id == newest
        project.review()
        project.alerts_check()
    assert 'verdict="unknown"} 1' in next((folder / "gauges").iterdir()).read_text()


def test_a_check_looks_once_at_what_should_come(folder, monkeypatch):
    looked = []
    look = feeds.cadences
    monkeypatch.setattr(feeds, "cadences", lambda project, model: looked.append(model.name) or look(project, model))
    with at(folder, 20.5) as project:
        project.alerts_check()
    assert looked == ["late"]
    assert 'what="predictions"} 1' in next((folder / "gauges").iterdir()).read_text()


def test_what_cannot_be_written_sent_or_reached_is_said_and_kept(folder, monkeypatch):
    (folder / "gauges").rmdir()
    settings = (folder / "seatrial.toml").read_text()
    (folder / "seatrial.toml").write_text(settings.replace('internal = ["127.0.0.1"]', ""))
    with at(folder, 20.5) as project, pytest.warns() as heard:
        done = project.alerts_check()
    assert {one.category for one in heard} == {AlertsNotDelivered, GaugesNotWritten, HeartbeatNotSent}
    assert "internal address" in str([str(one.message) for one in heard])
    assert "127.0.0.1" not in str([str(one.message) for one in heard])
    assert (done.waiting, done.textfile) == (1, "")
    assert "internal address" in done.heartbeat
    monkeypatch.delenv("HEARTBEAT")
    with at(folder, 20.5) as project, pytest.warns():
        assert project.alerts_check().heartbeat == "its variable or file is not set"


def test_an_alarm_is_muted_by_model_by_its_name_and_by_its_alert(folder, hook):
    with at(folder, 20.5) as project:
        project.alerts_mute("late", lasting="4h", reason="the belt stands")
        (alert, *_) = [one for one in project.alerts_check().silent if one.alarm == "no predictions"]
        assert told(hook) == []
        assert project.alerts("late")[0].muted_until == "2024-01-21T16:00:00Z"
        for name in ("no predictions", "late/no predictions", alert.id, alert.id[:20]):
            done = project.alerts_mute(name, until=day(21), reason="the belt stands")
            assert (done.model, done.alarm) == ("late", "no predictions")
        assert len(project.alerts_mutes()) == 5
        project.alerts_unmute("late")
        assert {one.alarm for one in project.alerts_mutes()} == {"no predictions"}
        for wrong in ({}, {"lasting": "4h", "until": day(21)}, {"until": day(20)}):
            with pytest.raises(BadMute):
                project.alerts_mute("late", reason="the belt stands", **wrong)
        with pytest.raises(UsageError, match="no model, no alert and no alarm"):
            project.alerts_mute("layte", lasting="4h", reason="the belt stands")
    with at(folder, 21) as project:
        project.alerts_check()
        assert [one["page"] for one in told(hook)] == [True]


def test_an_incident_tells_what_happened_around_it_in_order(folder):
    with at(folder, 20.5) as project:
        alert = project.alerts_check().silent[0]
        project.alert_acknowledge(alert.id, "looking")
        found = project.incident(alert.id)
        assert (found.model, found.state, found.alert) == ("late", "open", alert.id)
        assert project.incident(found.id) == found
        assert [one.at for one in found.moments] == sorted(one.at for one in found.moments)
        kinds = [one.kind for one in found.moments]
        assert {"labels", "alert", "message"} <= set(kinds)
        assert kinds.count("labels") == 1  # a week of tellings is one line
        assert any(one.words.startswith("acknowledged no predictions: looking") for one in found.moments)
        assert any(one.words == "page for route:ops on 1 alert, sent" for one in found.moments)
        page = html(found)
        assert page.count("<h1>") == 1
        assert "http" not in page.replace('http-equiv="Content', "")
        assert "no prediction for" in page
        project.alert_resolve(alert.id, "the belt runs")
        assert project.incident(alert.id).moments[-1].kind == "message"
        with pytest.raises(UsageError):
            project.incident("parcels")
        assert project.incident("late").alert == alert.id


def test_monitor_names_the_alerts_that_it_opened_and_who_is_on_call(folder, capsys):
    text = (folder / "project.py").read_text()
    alarm = 'labels_within="2d", alarms=[Alarm.below("label_share", 0.5)])\n'
    (folder / "project.py").write_text("from seatrial import Alarm\n" + text.replace('labels_within="2d")\n', alarm))
    here = ["--project", str(folder), "--at", "2024-01-21T00:00:00Z"]
    assert run(["monitor", "late", *here]) == 0
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "label_share" in one and "Opened" in one]
    assert line.startswith("Opened alert_")
    assert line.endswith("; on call: route:ops")
    assert run(["monitor", "late", *here]) == 0
    assert "Opened" not in capsys.readouterr().out


def test_an_incident_says_what_the_newest_report_says_and_folds_those_that_say_the_same(folder):
    with at(folder, 20.5) as project:
        alert = project.alerts_check().silent[0]
        for number, (verdict, headline) in enumerate([("act", "It is off.")] * 3 + [("act", "It is worse.")] * 2):
            body = {"model": "late", "verdict": verdict, "headline": headline}
            with project.metadata.transaction() as transaction:
                project.event(transaction, "report.made", f"rep_{number}", body)
        with project.metadata.transaction() as transaction:
            facts = {"champion": "rel_1", "deployment": "late", "generation": 1, "actor": "ann", "at_us": 0}
            retraining = open_proposal(transaction, model="late", reasons=manual("it is off"), words="", **facts).id
        found = project.incident(alert.id)
    reports = [(one.words, one.id) for one in found.moments if one.tone and one.kind == "report"]
    assert reports == [
        ("act: It is off. (3 times until 2024-01-21 12:00)", "rep_2"),
        ("act: It is worse. (2 times until 2024-01-21 12:00)", "rep_4"),
    ]
    assert found.newest.startswith("act: It is worse. (2 times")
    assert "The newest report: act: It is worse." in html(found)
    assert found.next[-1] == f"seatrial proposals show {retraining}"


def test_the_commands_say_the_same(folder, capsys):
    here = ["--project", str(folder), "--at", "2024-01-21T12:00:00Z"]
    assert run(["alerts", "check", *here]) == 0
    assert "✗ 'late' has made no prediction for 12 hours" in capsys.readouterr().out
    assert run(["alerts", "list", "--json", *here]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert run(["incident", listed[0]["id"], "--html", str(folder / "page.html"), *here]) == 0
    out = capsys.readouterr().out
    assert out.startswith("OPEN: 'late' has made no prediction")
    out_of_incident = out.splitlines()[-1] + "\n"
    assert (folder / "page.html").read_text().startswith("<!doctype html>")
    assert run(["alerts", "mute", "late", "--for", "2h", "--reason", "the belt stands", *here]) == 0
    assert run(["alerts", "list", *here]) == 0
    out = capsys.readouterr().out
    assert "open, muted until 2024-01-21T14:00" in out
    assert "muted: 'late' until 2024-01-21T14:00:00Z" in out
    assert run(["alerts", "mute", "late", "--until", "2024-01-20T00:00:00Z", "--reason", "x", *here]) == 2
    assert run(["alerts", "unmute", "late", *here]) == 0
    assert run(["incident", "late", *here]) == 0
    assert capsys.readouterr().out.endswith(out_of_incident)
    assert run(["alerts", "acknowledge", "late", "--reason", "looking", *here]) == 0
    assert "acknowledged" in capsys.readouterr().out
    assert run(["alerts", "show", listed[0]["id"], *here]) == 0
    assert " hours since the last" in capsys.readouterr().out
    assert run(["alerts", "undelivered", *here]) == 0
    assert "every message arrived" in capsys.readouterr().out
    assert run(["alerts", "resend", "msg_1", *here]) == 2
    assert run(["alerts", "resend", *here]) == 0
    assert run(["status", *here]) == 0
    assert "silent        'late' has made no prediction" in capsys.readouterr().out


def test_a_route_that_cannot_work_is_named_before_anything_rings(tmp_path, monkeypatch):
    monkeypatch.delenv("OPS", raising=False)
    routes = {
        "ops": "${OPS}",
        "mail": "smtp://ann:secret@host",
        "carrier": "pigeon://secret",
        "good": "https://a.example",
        "inside": "http://127.0.0.1:9/hook?key=secret",
        "post": "smtp://10.1.2.3?to=ops@example.org&from=seatrial@example.org",
        "named": "alertmanager+http://10.20.0.1:9093",
    }
    toml = "[alerts]\ninternal = ['10.20.0.0/16']\n[routes]\n" + "".join(
        f'{name} = "{address}"\n' for name, address in routes.items()
    )
    (tmp_path / "seatrial.toml").write_text(toml)
    labels = ParquetSource("x.parquet", event_timestamp="at")
    given = {"task": "binary", "target": "late", "labels": labels, "features": ["request:size"], "estimator": "a.B"}
    model = Model("late", on_call="route:good, route:nobody", **given)
    with Project(tmp_path, clock=FakeClock(day(1)), definitions=[model]) as project:
        found = project.alerts_check().routes
    assert set(found) == {"ops", "mail", "carrier", "nobody", "inside", "post"}
    assert found["inside"] == found["post"]
    assert found["post"].startswith("it is an internal address, which [alerts] internal")
    assert found["ops"] == "its variable or file is not set"
    assert "no known kind" in found["carrier"]
    assert "lacks to= or from=" in found["mail"]
    assert "secret" not in str(found)


@pytest.mark.parametrize("on_call", ["risk-duty@example.org", "ops", "the risk desk, Ann"])
def test_an_on_call_that_is_no_route_is_named_because_nobody_would_be_told(tmp_path, capsys, on_call):
    text = PROJECT.replace('on_call="route:ops"', f'on_call="{on_call}"')
    (tmp_path / "project.py").write_text(text)
    (tmp_path / "seatrial.toml").write_text('[routes]\nops = "https://a.example"\n')
    assert run(["alerts", "check", "--project", str(tmp_path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert (
        'which is not "route:NAME", so nobody is told'
        in told.partition(f"✗ route '{on_call}': 'late' has it as on_call, ")[2]
    )


@pytest.mark.parametrize("on_call", ["", "route:ops", "Ann, route:ops"])
def test_an_on_call_that_tells_somebody_or_is_not_given_is_no_problem(tmp_path, on_call):
    (tmp_path / "project.py").write_text(PROJECT.replace('on_call="route:ops"', f'on_call="{on_call}"'))
    (tmp_path / "seatrial.toml").write_text('[routes]\nops = "https://a.example"\n')
    with Project(tmp_path, clock=FakeClock(day(1))) as project:
        assert project.alerts_check().routes == {}


def test_on_an_empty_project_there_is_nothing_to_expect(tmp_path):
    labels = ParquetSource("x.parquet", event_timestamp="at")
    model = Model("late", task="binary", target="late", labels=labels, features=["request:size"], estimator="a.B")
    given = [model, Deployment("late", strategy=BlueGreen()), Monitor("late", every="1d", labels_within="1d")]
    with Project(tmp_path, clock=FakeClock(day(1)), definitions=given) as project:
        done = project.alerts_check()
        assert {one.state for one in done.cadences} == {"not expected"}
        assert (done.silent, done.heartbeat, done.textfile) == ([], "not set", "")


def test_a_digest_that_is_held_is_listed_with_until_when(folder, hook, capsys):
    here = ["--project", str(folder), "--at"]
    assert run(["alerts", "check", *here, "2024-01-21T12:00:00Z"]) == 0
    assert run(["alerts", "check", *here, "2024-01-25T12:00:00Z"]) == 0  # now labels are missed too: a ticket
    assert "1 wait (see `seatrial alerts undelivered`)" in capsys.readouterr().out
    assert run(["alerts", "undelivered", *here, "2024-01-25T12:00:00Z"]) == 0
    out = capsys.readouterr().out
    assert "held until 20" in out
    assert "every message arrived" not in out
    assert "resend" not in out


def test_an_alertmanager_is_told_again_however_its_address_is_spelled(folder, hook):
    settings = (folder / "seatrial.toml").read_text()
    (folder / "seatrial.toml").write_text(settings.replace('ops = "http', 'ops = "AlertManager+http'))
    with at(folder, 20.5) as project:
        assert project.alerts_check().sent == 1
        before = len(told(hook))
        assert project.alerts_check().sent == 0
        assert [[one["labels"]["alertname"] for one in posted] for posted in told(hook)[before:]] == [
            ["SeatrialIncident", "SeatrialAlert"]
        ]


def test_while_alerts_are_paused_messages_wait_unless_a_person_sends_them(folder, hook):
    with at(folder, 20.5) as project:
        project.pause("alerts", reason="the chat moves")
        done = project.alerts_check()
        assert done.silent
        assert (done.sent, told(hook)) == (0, [])
        assert done.waiting == 1
        assert [(one.failure, one.next_at, one.attempts) for one in project.alerts_undelivered()] == [("", "", 0)]
        project.resume("alerts")
        assert project.alerts_check().sent == 1
        assert len(told(hook)) == 1
