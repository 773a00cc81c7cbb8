"""Alerts on the command line: how one reads, what a pipeline fails on, and what a mute needs."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from seatrial import Project
from seatrial.cli import run
from seatrial.cli.alerting import SEVERITIES, AlarmsFired, details, listing, refuse_fired
from seatrial.cli.render import Line
from seatrial.core.clock import iso
from seatrial.monitoring.alerting.alerts import Alert
from seatrial.testing import FakeClock
from tests.monitoring.alerted import Hook
from tests.worlds import edit

START = datetime(2024, 1, 1, tzinfo=UTC)
PROJECT = """
from seatrial import Deployment, Model, Monitor, ParquetSource

Model("late", task="binary", target="late", key=["parcel"],
      labels=ParquetSource("parcels.parquet", event_timestamp="at"),
      features=["request:size"], estimator="sklearn.linear_model.LogisticRegression", owner="logistics")
Deployment("late")
Monitor("late", every="1d")
"""


def day(number: float) -> datetime:
    return START + timedelta(days=number)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Twenty days of predictions, one every half an hour, and a report."""
    folder = tmp_path_factory.mktemp("alerting")
    (folder / "project.py").write_text(PROJECT)
    with Project(folder, clock=FakeClock(day(20)), actor="cron") as project:
        for number in range(20 * 48):
            when = START + timedelta(minutes=30 * number)
            project.log.write(model="late", features={"size": 1.0}, prediction=0.0, probability=0.3, at=when)
        project.log.close()
    with Project(folder, clock=FakeClock(day(20)), actor="cron") as project:
        project.monitor("late")
    return folder


@pytest.fixture
def says(made, tmp_path, capsys):
    """Run a command on a day of a copy: what it prints, and what it says on stderr, after it ended with `code`."""

    folder = shutil.copytree(made, tmp_path / "project")

    def tell(number, *words, code=0):
        assert run([*words, "--project", str(folder), "--at", iso(day(number))]) == code
        return capsys.readouterr()

    return tell


def test_a_check_fails_a_pipeline_when_something_stays_away_and_sends_first(says):
    """Silence of a service is severe, so every level fails on it."""
    assert "✓ predictions of 'late': last 30 minutes ago" in says(20, "alerts", "check", "--fail-on", "low").out
    for level in ("low", "medium", "high"):
        told = says(20.5, "alerts", "check", "--fail-on", level, code=3)
        assert "✗ 'late' has made no prediction for 12 hours" in told.out
        assert "messages sent: " in told.out
        assert f"1 alarm of severity {level} or higher fired: no predictions." in told.err
        assert "Their alerts are kept." in told.err
    assert says(20.5, "alerts", "check").err == ""


def test_who_is_told_is_told_by_which_project(says, tmp_path):
    hook = Hook()
    settings = f'name = "depot"\n[routes]\nops = "{hook.url}"\n[alerts]\ninternal = ["127.0.0.1"]\n'
    (tmp_path / "project" / "seatrial.toml").write_text(settings)
    edit(tmp_path / "project", 'owner="logistics"', 'owner="logistics", on_call="route:ops"')
    says(20.5, "alerts", "check")
    hook.close()
    assert [(one["project"], one["alert"]["alarm"]) for one in hook.got] == [("depot", "no predictions")]


def test_a_mute_without_options_names_the_end_and_the_reason_in_one_message(says):
    told = says(20, "alerts", "mute", "late", code=2).err
    assert told.startswith("BadMute [alert.bad_mute]: a mute needs an end and a reason.\n")
    assert 'seatrial alerts mute late --for 4h --reason "' in told
    assert "a mute needs an end.\n" in says(20, "alerts", "mute", "late", "--reason", "storm", code=2).err
    assert "a mute has no reason." in says(20, "alerts", "mute", "late", "--for", "4h", code=2).err
    both = ["--for", "4h", "--until", "2024-01-22T00:00:00Z", "--reason", "storm"]
    assert "Either until a time or for a while is expected." in says(20, "alerts", "mute", "late", *both, code=2).err
    assert says(20, "alerts", "list").out == "no open alert\n"


def test_a_mute_says_what_is_quiet_until_when_and_why_and_is_listed_and_ended(says):
    line = "muted: 'late' until 2024-01-21T04:00:00Z by ada: storm\n"
    assert says(20, "alerts", "mute", "late", "--for", "4h", "--reason", "storm", "--actor", "ada").out == line
    assert says(20, "alerts", "list").out == f"no open alert\n{line}"
    assert says(20, "alerts", "unmute", "late").out == "'late' is not muted any more\n"
    assert says(20, "alerts", "list").out == "no open alert\n"


def _shown(**evidence):
    words = ["alert_1", "late", "inputs have moved", "open", "low", "It moved.", "'age' +0.5 sd"]
    one = Alert(*words, evidence, "Ask.", "2024-01-01T00:00:00Z/2024-01-08T00:00:00Z", "rel_1", "rep_1", "2024-01-08")
    return "\n".join(block.text for block in details(msgspec.to_builtins(one)) if isinstance(block, Line))


def test_an_alarm_of_the_policy_shows_no_numbers_that_mean_nothing():
    assert "numbers" not in _shown(value=1.0, threshold=0.0, rows=0, labelled=0)
    assert "numbers   value 0.2, threshold 0.1, rows 900" in _shown(value=0.2, threshold=0.1, rows=900)


def test_alerts_are_listed_with_what_was_found_and_no_table_is_too_wide_for_it():
    one = {"id": f"alert_{'0' * 36}", "model": "late", "alarm": "inputs have moved", "severity": "low", "state": "open"}
    one |= {"words": "'size' +0.5 sd", "opened_at": "2024-02-27T00:00:00Z", "muted_until": "", "owner": "logistics"}
    muted = one | {"muted_until": "2024-02-27T04:00:00Z", "owner": ""}
    assert [block.text for block in listing([one, muted])] == [
        f"2024-02-27 00:00  late  low  open  {one['id']}",
        "  inputs have moved: 'size' +0.5 sd (owner logistics)",
        f"2024-02-27 00:00  late  low  open, muted until 2024-02-27T04:00  {one['id']}",
        "  inputs have moved: 'size' +0.5 sd",
    ]
    assert max(len(block.text) for block in listing([one])) <= 80
    assert [block.text for block in listing([])] == ["no open alert"]


@pytest.mark.parametrize("level", SEVERITIES)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_level_is_failed_on_by_alarms_of_it_and_of_those_above(severity, level):
    severe = list(SEVERITIES).index(severity) <= list(SEVERITIES).index(level)
    refuse_fired([("a", severity)], None, "Done.")
    if not severe:
        refuse_fired([("a", severity)], level, "Done.")
        return
    with pytest.raises(AlarmsFired, match=f"1 alarm of severity {level} or higher fired: a") as refused:
        refuse_fired([("a", severity)], level, "Done.")
    assert (refused.value.exit_code, refused.value.state) == (3, "Done.")
