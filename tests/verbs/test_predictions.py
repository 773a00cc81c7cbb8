"""The noun `predictions`: what the log holds, ships and lets go of, and who looked at it."""

from __future__ import annotations

import json

import pytest

from seatrial import Project
from seatrial.cli import run
from seatrial.core.clock import machine_us
from seatrial.testing.prediction_log_suite import a_schema, fill

PROJECT = """
from seatrial import Model, ParquetSource
late = Model("late", task="binary", target="late", key=["flight"],
             labels=ParquetSource("rows.parquet", event_timestamp="at", label_known_at="at"),
             features=["request:delay"], estimator="sklearn.linear_model.LogisticRegression")
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "project.py").write_text(PROJECT)
    (tmp_path / "seatrial.toml").write_text('log_retention = "90d"\n')
    return tmp_path


@pytest.fixture
def written(folder):
    """Two predictions of 2013 that were written then, and three of now."""
    now = machine_us()
    with Project(folder, actor="ops") as project:
        old = fill(project.log, a_schema(), 2)
        new = fill(project.log, a_schema(), 3, at_us=now, recorded_at_us=now, request_id="anna@example.org")
        project.log.close()
    return old, new


@pytest.fixture
def told(folder, capsys):
    def tell(*words):
        assert run([*words, "--project", str(folder), "--json", "--actor", "ops"]) == 0
        return json.loads(capsys.readouterr().out)

    return tell


def test_the_log_is_listed_by_model_and_day_and_by_where_it_is(told, written):
    assert told("predictions")["fresh"] == 5
    shipped = told("predictions", "ship")
    assert (shipped["compacted"], shipped["records"], shipped["unshipped"]) == (5, 5, 0)
    found = told("predictions", "list")
    assert [(one["model"], one["records"], one["shipped"]) for one in found["days"]] == [("late", 2, 2), ("late", 3, 3)]
    assert (found["fresh"], found["unshipped"], found["retention"]) == (0, 0, "90d")


def test_a_prune_is_shown_before_it_is_done_and_told_to_the_audit_log(told, written):
    told("predictions", "ship")
    would = told("predictions", "prune", "--dry-run")
    assert (would["dry_run"], would["records"], [one["day"] for one in would["days"]]) == (True, 2, ["2013-04-01"])
    assert len(told("predictions")["days"]) == 2
    done = told("predictions", "prune")
    assert done | {"dry_run": True, "before": would["before"]} == would
    assert len(told("predictions")["days"]) == 1
    (event,) = [event for event in told("audit", "list") if event["kind"] == "predictions.pruned"]
    assert (event["actor"], event["body"]["records"]) == ("ops", 2)
    assert told("predictions", "prune")["records"] == 0
    assert len([event for event in told("audit", "list") if event["kind"] == "predictions.pruned"]) == 1


def test_without_a_retention_nothing_goes(folder, written, capsys):
    (folder / "seatrial.toml").write_text("")
    assert run(["predictions", "prune", "--project", str(folder)]) == 2
    assert "log_retention" in capsys.readouterr().err


def test_what_is_not_shipped_does_not_go_unless_nothing_is_shipped_at_all(folder, told, written):
    with Project(folder) as project:
        project.log.compact()
    assert told("predictions", "prune")["records"] == 0
    (folder / "seatrial.toml").write_text('log_retention = "90d"\nlog_ship = "never"\n')
    assert told("predictions", "prune")["records"] == 2
    assert told("predictions")["unshipped"] is None


def test_whoever_looks_at_a_prediction_is_in_the_audit_log_and_what_callers_said_is_not(told, written):
    (row,) = told("predictions", "show", written[0][0])
    assert (row["model"], row["feature_carrier"], row["probability"]) == ("late", "AA", 0.75)
    assert len(told("predictions", "show", "anna@example.org")) == 3
    told("lineage", written[0][1])
    events = [event for event in told("audit", "list") if event["kind"] == "predictions.read"]
    assert [(one["actor"], one["body"]["by"], one["body"]["records"]) for one in events] == [
        ("ops", "predictions show", 1),
        ("ops", "predictions show", 3),
        ("ops", "lineage", 1),
    ]
    assert events[1]["body"]["predictions"] == written[1]
    assert "anna" not in json.dumps(events)
    assert told("audit", "verify")["first_bad"] is None


def test_an_unknown_id_is_a_clear_error_that_does_not_repeat_it(folder, written, capsys):
    assert run(["predictions", "show", "anna@example.com", "--project", str(folder)]) == 2
    out = capsys.readouterr()
    assert "log.unknown_prediction" in out.err
    assert "anna" not in out.err


@pytest.mark.parametrize("words", ["predictions", "predictions ship", "predictions prune --dry-run"])
def test_people_get_text(folder, written, capsys, words):
    assert run([*words.split(), "--project", str(folder)]) == 0
    assert "records" in capsys.readouterr().out
