"""Schedules and pauses of a project, in Python and on the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from seatrial import Deployment, Project, Retrain, Schedule
from seatrial.cli import run
from seatrial.core.clock import FixedClock, from_us, iso, machine_us
from seatrial.core.errors import UsageError
from seatrial.features.definitions import BadDefinition
from seatrial.folder.loading import UnknownName
from seatrial.scheduling.definition import BadSchedule
from seatrial.scheduling.jobs import StillRunning
from seatrial.stores.metadata import MetadataUnreachable
from seatrial.stores.pauses import Paused
from seatrial.verbs.scheduled import NothingPaused
from tests.retraining import worlds
from tests.worlds import write_project

MORE = """
Schedule("materialize", every="1h")
Schedule("retrain", "late", cron="0 3 * * 1", timezone="Europe/Berlin")
Schedule("monitor", "late", every="1h")
"""
NOW = datetime(2024, 1, 10, 12, 30, tzinfo=UTC)


def project_at(folder: Path, more: str = MORE) -> Path:
    folder.mkdir(exist_ok=True)
    write_project(folder)
    with (folder / "project.py").open("a") as file:
        file.write(more)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return project_at(tmp_path_factory.mktemp("scheduled") / "project")


def command(folder, *words, capsys):
    code = run([*words, "--project", str(folder), "--actor", "ada"])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_schedules_are_listed_with_their_next_instant_in_their_zone(tmp_path):
    with Project(project_at(tmp_path / "p"), clock=FixedClock(NOW)) as project:
        shown = {one.name: one for one in project.schedules()}
        assert list(shown) == ["materialize", "retrain-late", "monitor-late"]
        retrain = shown["retrain-late"]
        assert retrain.command == ["seatrial", "retrain", "late", "advance"]
        assert (retrain.next, retrain.next_local) == ("2024-01-15T02:00:00Z", "2024-01-15T03:00:00+01:00")
        assert (retrain.last, retrain.run_by, retrain.paused) == (None, [], None)
        status = project.status()[0]
        assert [one["name"] for one in status.schedules] == list(shown)


def test_the_list_says_that_nobody_runs_it(folder, capsys):
    code, out, _ = command(folder, "schedules", capsys=capsys)
    assert code == 0
    assert "retrain-late  0 3 * * 1 Europe/Berlin" in out
    assert "03:00 +0" in out
    assert "No `seatrial up` is running: nothing of this runs by itself now." in out
    code, out, _ = command(folder, "status", capsys=capsys)
    assert "by itself     materialize: next" in out
    assert "but no `seatrial up` is running" in out


def test_a_schedule_is_run_once_for_an_instant_by_whoever_asks(tmp_path, capsys):
    made = project_at(tmp_path / "p")
    at = ["--at", "2024-01-10T12:30:00Z"]
    code, out, err = command(made, "schedules", "run", "materialize", *at, capsys=capsys)
    assert (code, err) == (0, "")
    assert "✓ materialize: done in" in out
    assert ", for 2024-01-10T12:00:00Z." in out
    code, out, _ = command(made, "schedules", "run", "materialize", *at, capsys=capsys)
    assert code == 0
    assert "materialize: run already for 2024-01-10T12:00:00Z, done" in out
    with Project(made, clock=FixedClock(NOW)) as project:
        (job,) = project.schedule_history("materialize")
        assert job.command == ["materialize"]
        assert job.cpu_seconds > 0.1
        assert project.features()[0].materialized_through is not None  # as of --at, like the command that asked
        actors = {event.actor for event in project.metadata.events(kind="job.started")}
        assert actors == {"schedule:materialize"}
        earlier = project.schedule_run("materialize", slot=datetime(2024, 1, 10, 9, 59, tzinfo=UTC))
        assert (earlier.ran, earlier.job.id, earlier.later) == (False, job.id, True)  # the store is further already
    code, out, _ = command(made, "schedules", "history", capsys=capsys)
    assert "materialize  2024-01-10 12:00 UTC  ✓ done" in out


BY_ITSELF = """
Monitor("late")
Schedule("batch", "late", every="1d", args=["last-day"])
Schedule("monitor", "late", every="1d")
Schedule("retrain", "late", cron="0 3 * * 2")
"""


@pytest.mark.slow
def test_batch_monitoring_and_retraining_are_run_by_a_schedule_in_processes_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SEATRIAL_STORES_MLFLOW", "")
    monkeypatch.setenv("SEATRIAL_POLICY_APPROVAL", "none")
    worlds.made(tmp_path, retrain="on=[Trigger.new_data(500)]").close()
    with (tmp_path / "project.py").open("a") as file:
        file.write(BY_ITSELF)
    later = worlds.TRAINED + timedelta(days=5)  # a Tuesday
    at = ["--at", iso(later + timedelta(hours=4))]
    for name, words in (
        ("batch-late", ["predict", "late", "--batch", "last-day"]),
        ("monitor-late", ["monitor", "late"]),
        ("retrain-late", ["retrain", "late", "advance"]),
    ):
        code, out, err = command(tmp_path, "schedules", "run", name, *at, capsys=capsys)
        assert (code, err) == (0, "")
        assert f"✓ {name}: done in" in out
        with worlds.opened(tmp_path, later) as project:
            (job,) = project.schedule_history(name)
            assert (job.state, job.command) == ("done", words)
            assert job.cpu_seconds > 0.1
    with worlds.opened(tmp_path, later) as project:
        logged = project.log.rows(model="late", columns=["at", "arm"])
        assert (logged.num_rows, logged["arm"].unique().to_pylist()) == (worlds.PER_DAY, ["batch"])
        (report,) = project.metadata.records("report", "late")
        assert report.body["rows"] == worlds.PER_DAY
        (proposal,) = project.proposals("late")
        assert (proposal.state, proposal.trigger) == ("judging", "500 new labels")
        assert proposal.proposers == ["schedule:retrain-late"]
        assert len(project.metadata.records("run", "late")) == 2


def test_a_run_that_is_refused_ends_with_its_reason(tmp_path, capsys):
    made = project_at(tmp_path / "p", 'Schedule("materialize", every="1h", args=["carier_delay"])\n')
    code, out, err = command(made, "schedules", "run", "materialize", "--json", capsys=capsys)
    assert code == 1
    job = json.loads(out)["job"]
    assert (job["state"], job["exit_code"]) == ("refused", 2)
    assert "carier_delay" in job["words"]
    assert job["words"].endswith("[project.unknown_name]")
    problem = json.loads(err)
    assert problem["code"] == "schedule.run_failed"
    assert "ended as refused" in problem["detail"]


def test_a_run_for_an_instant_sees_that_instant_as_its_present_however_late_it_is_made(tmp_path, capsys):
    made = project_at(tmp_path / "p", 'Schedule("materialize", every="1h")\n')
    late = ["--at", "2024-01-10T12:30:00Z", "schedules", "run", "materialize", "--slot", "2024-01-10T09:59:00Z"]
    code, out, _ = command(made, *late, capsys=capsys)
    assert (code, "for 2024-01-10T09:00:00Z" in out) == (0, True)
    with Project(made, clock=FixedClock(NOW)) as project:
        (written,) = project.metadata.events(kind="features.materialized")
        assert iso(from_us(written.at_us)) == "2024-01-10T09:00:00Z"


def test_a_run_that_was_refused_is_not_green_when_it_is_asked_for_again(tmp_path, capsys):
    made = project_at(tmp_path / "p", 'Schedule("materialize", every="1h", args=["../carier"])\n')
    at = ["--at", "2024-01-10T12:30:00Z", "schedules", "run", "materialize", "--json"]
    code, _, first = command(made, *at, capsys=capsys)
    again, out, second = command(made, *at, capsys=capsys)
    assert (code, again) == (1, 1)
    assert json.loads(out)["ran"] is False
    assert json.loads(first)["detail"] == json.loads(second)["detail"]
    assert "../carier" in json.loads(first)["detail"]
    code, out, _ = command(made, "--at", "2024-01-10T11:30:00Z", *at[2:-1], capsys=capsys)
    assert (code, "a later one was run already, for 2024-01-10T12:00:00Z, refused" in out) == (0, True)


def test_a_run_is_refused_while_another_has_not_ended(tmp_path):
    from seatrial.scheduling import jobs

    with Project(project_at(tmp_path / "p")) as project:
        schedule = project._schedule("materialize")
        now = machine_us()
        slot = schedule.timing.latest(now) - 3_600_000_000
        jobs.begin(project.metadata, schedule, jobs.Due(slot), actor="x", by="elsewhere:7", now_us=now)
        with pytest.raises(StillRunning) as refused:
            project.schedule_run("materialize")
        assert refused.value.facts["holder"] == "elsewhere:7"


def test_what_is_paused_is_not_run_until_it_is_resumed(folder, capsys):
    code, out, _ = command(folder, "pause", "schedules", "--reason", "strike", capsys=capsys)
    assert (code, out.splitlines()[-1]) == (0, "Next: seatrial resume schedules")
    code, _, err = command(folder, "schedules", "run", "materialize", capsys=capsys)
    assert code == 4
    assert "'schedules' is paused by ada since" in err
    code, out, _ = command(folder, "schedules", capsys=capsys)
    assert "‖ schedules is paused by ada" in out
    code, out, _ = command(folder, "status", capsys=capsys)
    assert "paused        schedules, paused by ada" in out
    code, out, _ = command(folder, "resume", "schedules", capsys=capsys)
    assert code == 0
    assert "schedules goes on" in out
    code, _, err = command(folder, "resume", "schedules", capsys=capsys)
    assert code == 2
    assert "[loop.not_paused]" in err


@pytest.mark.parametrize(
    ("schedule", "loop"),
    [
        ('Schedule("monitor", "late", every="1h")', "monitoring"),
        ('Schedule("label", "late", every="1h")', "monitoring"),
        ('Schedule("materialize", every="1h")', "materializing"),
        ('Schedule("batch", "late", every="1h")', "batches"),
        ('Schedule("retrain", "late", every="1h")', "retraining"),
        ('Schedule("deployments advance", "late", every="1h")', "rollouts"),
        ('Schedule("alerts check", every="1h")', "alerts"),
        ('Schedule("predictions prune", every="1h")', "shipping"),
    ],
)
def test_every_kind_of_loop_stands_still_by_its_name_and_goes_on(tmp_path, schedule, loop):
    with Project(project_at(tmp_path / "p", schedule), clock=FixedClock(NOW), actor="ada") as project:
        (name,) = [one.name for one in project.schedules()]
        project.pause(loop, reason="a storm")
        assert project.schedules()[0].paused.name == loop
        with pytest.raises(Paused, match=f"'{loop}' is paused by ada"):
            project.schedule_run(name)
        project.resume(loop)
        assert project.schedules()[0].paused is None


def test_a_route_a_heartbeat_or_gauges_have_silence_looked_for_unless_a_schedule_does(tmp_path):
    made = project_at(tmp_path / "p", "")
    (made / "seatrial.toml").write_text('[routes]\nops = "https://ops.example.org/hook"\n')
    with Project(made, clock=FixedClock(NOW)) as project:
        (implied,) = project.schedules()
        assert (implied.name, implied.timing, implied.command) == (
            "alerts-check",
            "every 5m",
            ["seatrial", "alerts", "check"],
        )
        assert project.status()[0].schedules == []  # while no `up` runs, something else may look for silence
    project_at(made, 'Schedule("alerts check", every="1m", name="watch")')
    (made / "seatrial.toml").write_text('[alerts]\nheartbeat = "https://hc.example.org/1"\n')
    with Project(made, clock=FixedClock(NOW)) as project:
        assert [one.name for one in project.schedules()] == ["watch"]


@pytest.mark.parametrize("name", ["retraining", "late"])
def test_retraining_that_is_paused_is_not_proposed_or_trained(tmp_path, name):
    with Project(project_at(tmp_path / "p"), clock=FixedClock(NOW)) as project:
        project.pause(name, reason="strike", until=datetime(2024, 1, 11, tzinfo=UTC))
        for step in ("propose", "train"):
            with pytest.raises(Paused, match="no retraining of 'late'"):
                project.retrain("late", step, reason="by hand")
    with Project(tmp_path / "p", clock=FixedClock(datetime(2024, 1, 11, tzinfo=UTC))) as project:
        project.retrain("late")  # the pause is over


@pytest.mark.parametrize("name", ["rollouts", "late", "blue"])
def test_a_rollout_that_is_paused_is_not_advanced(tmp_path, name):
    made = project_at(tmp_path / "p", 'Deployment("late", name="blue")\n')
    with Project(made, clock=FixedClock(NOW)) as project:
        project.pause(name, reason="strike")
        with pytest.raises(Paused, match="the rollout of 'blue' is not looked at"):
            project.deployment_advance("blue")


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"name": "laet", "reason": "x"}, UnknownName, "Did you mean 'late'"),
        ({"name": "late", "reason": " "}, UsageError, "no reason"),
        ({"name": "late", "reason": "x", "until": NOW}, UsageError, "which is over"),
    ],
)
def test_a_pause_that_makes_no_sense_is_refused(tmp_path, how, error, words):
    with Project(project_at(tmp_path / "p"), clock=FixedClock(NOW)) as project, pytest.raises(error) as refused:
        project.pause(**how)
    assert words in str(refused.value)
    with Project(tmp_path / "p", clock=FixedClock(NOW)) as project, pytest.raises(NothingPaused):
        project.resume("late")


@pytest.mark.parametrize(
    ("definitions", "error", "words"),
    [
        ([Schedule("monitor", "laet", every="1h")], UnknownName, "of 'laet', and no model is named that"),
        (
            [Schedule("materialize", every="1h"), Schedule("materialize", every="2h")],
            BadDefinition,
            "two schedules are named 'materialize'",
        ),
        (
            [
                Deployment("late"),
                Retrain("late", on=["schedule:0 3 * * *"]),
                Schedule("materialize", every="1h", name="retrain-late-on-schedule"),
            ],
            BadSchedule,
            "one is of Retrain('late')",
        ),
    ],
)
def test_schedules_that_contradict_are_told_by_name(tmp_path, definitions, error, words):
    with Project(tmp_path, definitions=definitions) as project, pytest.raises(error) as refused:
        project.schedules()
    assert words in str(refused.value)


def test_an_unknown_schedule_is_told_and_the_nearest_named(tmp_path):
    with Project(project_at(tmp_path / "p")) as project:
        with pytest.raises(UnknownName, match="no schedule is named 'materialise'") as refused:
            project.schedule_run("materialise")
        assert "Did you mean 'materialize'" in str(refused.value)
        assert project.schedule_history() == []
        assert project.schedule_history("materialize") == []


def test_without_the_store_that_decided_what_is_served_nothing_is_run(tmp_path):
    made = project_at(tmp_path / "p")
    (made / ".seatrial" / "routes").mkdir(parents=True)
    (made / ".seatrial" / "routes" / "late.json").write_text("{}")
    with Project(made) as project, pytest.raises(MetadataUnreachable):
        project.schedule_run("materialize")
    with Project(made) as project, pytest.raises(MetadataUnreachable):
        project.up([0])
