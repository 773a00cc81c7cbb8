"""A new request field on a real project: from the release that wants it to the callers who send it, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Project
from seatrial.cli import rolling, rolling_page
from seatrial.cli.door import run
from seatrial.cli.render import Line, plain
from seatrial.core.clock import from_us, machine_us
from seatrial.deployment.requests import RefusesCallers
from seatrial.deployment.rollout import InTheFuture
from seatrial.deployment.taken_back import WasTakenBack
from seatrial.serving.scoring.predictor import Predictor
from seatrial.testing import FakeClock
from seatrial.verbs import exporting
from seatrial.verbs.alerting import AlertsNotDelivered

START = datetime(2024, 3, 1, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")
PROJECT = """
from seatrial import *

Model("loan", task="binary", target="bad", key=["id"],
      labels=ParquetSource("loans.parquet", event_timestamp="at", label_known_at="known"),
      features=["request:amount"], estimator="sklearn.linear_model.LogisticRegression",
      cv_folds=2, gates=[], owner="risk", on_call="webhook:ops", runbook="r.md")
Deployment("loan", strategy=Canary([20, 100], min_rows=100))
"""


class World:
    def __init__(self, folder):
        self.folder = folder
        self.clock = FakeClock(START)
        random = np.random.default_rng(0)
        rows = 300
        amount, term = random.normal(size=rows), random.integers(6, 60, rows)
        at = [START - timedelta(days=60) + hour * timedelta(hours=1) for hour in range(rows)]
        loans = {
            "id": [f"L{number}" for number in range(rows)],
            "amount": amount,
            "term_months": term,
            "bad": amount + 0.02 * term + random.normal(size=rows) > 0.6,
            "at": pa.array(at, TIME),
            "known": pa.array([one + timedelta(hours=3) for one in at], TIME),
        }
        pq.write_table(pa.table(loans), folder / "loans.parquet")
        (folder / "project.py").write_text(PROJECT)

    def edit(self, old, new):
        text = (self.folder / "project.py").read_text()
        assert old in text
        (self.folder / "project.py").write_text(text.replace(old, new))

    def project(self):
        return Project(self.folder, clock=self.clock, actor="ada")

    def released(self):
        with self.project() as project:
            return project.release(f"loan:{project.train().version}").id


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("loan"))
    world.releases = [world.released()]
    world.edit('"request:amount"', '"request:amount", "request:term_months"')
    world.releases.append(world.released())
    return world


def served(project) -> Predictor:
    """What serves the deployment after a look at its route."""
    service = project._service(replay=False)
    service.refresh()
    assert service.state()["refused"] == {}
    return service.predictors["loan"]


def test_callers_switch_without_a_refusal_before_the_release_after_it_and_when_it_is_rolled_back(world):
    first, second = world.releases
    today, then = b'{"features": {"amount": 1.0}}', b'{"features": {"amount": 1.0, "term_months": 12}}'
    with world.project() as project:
        assert project.deploy("loan", release=first).requests is None
        assert [served(project).handle(body).status for body in (today, then)] == [200, 422]

        with pytest.raises(RefusesCallers, match="callers must send term_months"):
            project.deploy("loan", release=second)
        world.edit("Canary([20, 100], min_rows=100)", "Shadow()")
    with world.project() as project:
        done = project.deploy("loan", release=second)  # nobody is refused by a shadow
        assert (done.share, done.requests.needed) == (0.0, ["term_months"])
        assert [served(project).handle(body).status for body in (today, then)] == [200, 200]

        back = project.rollback("loan", reason="the shadow was looked at")
        assert back.requests.removed == ["term_months"]
        assert [served(project).handle(body).status for body in (today, then)] == [200, 200]
        world.edit("Shadow()", "Canary([20, 100], min_rows=100)")
    with world.project() as project:
        project.deploy("loan", release=second, reason="every caller sends term_months now")
        canary = served(project)
        assert {canary.handle(then).status for _ in range(30)} == {200}
        assert {canary.handle(today).status for _ in range(60)} == {200, 422}

        project.rollback("loan", reason="too many refusals")
        assert [served(project).handle(body).status for body in (today, then)] == [200, 200]
        assert served(project).ignored == ["term_months"]


def test_a_canary_that_refuses_what_the_champion_answers_is_taken_back(world):
    second = world.releases[1]
    with world.project() as project:
        project.deploy("loan", release=second, reason="they were said to send it")
        world.clock.advance(timedelta(minutes=5))
        service = project._service(replay=False)
        service.refresh()
        statuses = [service.predictors["loan"].handle(b'{"features": {"amount": 1.0}}').status for _ in range(400)]
        service.close()
    assert 40 < statuses.count(422) < 130
    world.clock.advance(timedelta(minutes=5))
    with world.project() as project:
        shown = project.deployment_status("loan").analysis
        assert shown.rows["new"] == 0
        with pytest.warns(AlertsNotDelivered, match="no address"):
            moved = project.deployment_advance("loan")
        assert moved.analysis.verdict == "roll back"
        assert moved.analysis.why.startswith("refused: 1 against 0")
        assert moved.live == world.releases[0]
        (_, message) = project.metadata.pending("webhook")[-1]
        assert (message["target"], message["alert"]["kind"]) == ("webhook:ops", "rollout")
        assert message["alert"]["words"] == moved.analysis.why
        (reviewed,) = project.review()
        (flag,) = [one for one in reviewed.flags if one.name == "taken back"]
        assert second in flag.evidence

        shown = project.deployment_status("loan")
        assert (shown.live, shown.rollout) == (world.releases[0], None)
        assert (shown.ended.release, shown.ended.how) == (second, "rolled back")
        assert "refused: 1 against 0" in shown.ended.because
        assert shown.history[-1]["release"] == second
        told = "".join(block.text for block in rolling.status(plain(shown)) if isinstance(block, Line))
        assert f"{second} was rolled back at" in told
        assert f"{second} was rolled back at" in rolling_page.page(plain(shown))
        marks = [mark.words for mark in project._marks("loan") if mark.kind == "release"]
        assert marks[-1] == "v2"
    world.clock.advance(timedelta(days=8))
    with world.project() as project:
        assert not [one for one in project.review()[0].flags if one.name == "taken back"]


@pytest.mark.filterwarnings("ignore::seatrial.verbs.alerting.AlertsNotDelivered")
def test_who_runs_advance_hears_of_a_roll_back_by_its_exit_code(world, monkeypatch, capsys):
    with world.project() as project:
        project.deploy("loan", release=world.releases[1], reason="once more")
        world.clock.advance(timedelta(minutes=5))
        service = project._service(replay=False)
        service.refresh()
        for _ in range(400):
            service.predictors["loan"].handle(b'{"features": {"amount": 1.0}}')
        service.close()
    world.clock.advance(timedelta(minutes=5))
    monkeypatch.chdir(world.folder)
    words = ["--at", world.clock.now().isoformat(), "deployments", "advance", "loan"]
    assert run(words) == 3
    assert "roll back" in capsys.readouterr().out


def test_no_traffic_is_moved_at_an_instant_that_has_not_come(world):
    first, second = world.releases
    future = FakeClock(from_us(machine_us()) + timedelta(days=2))
    with Project(world.folder, clock=future, actor="ada") as project:
        for move in (
            lambda: project.deploy("loan", release=second, reason="now"),
            lambda: project.deployment_advance("loan"),
            lambda: project.rollback("loan"),
        ):
            with pytest.raises(InTheFuture):
                move()
        assert project.deployment_show("loan")["arms"][0]["release"] == first


def test_a_release_that_was_taken_back_goes_into_traffic_only_by_name_and_with_a_reason(world):
    first, second = world.releases
    with world.project() as project:
        for named in (None, second):
            with pytest.raises(WasTakenBack, match=r"rolled back from 'loan' at .*: refused: 1 against 0"):
                project.deploy("loan", release=named)
        with pytest.raises(WasTakenBack):
            project.deploy("loan", reason="the newest one")
        told = {one["release"]: one["rolled_back"] for one in project.models()}
        assert told[first] is None
        assert "refused: 1 against 0" in told[second]
        assert project.release_show(second)["rolled_back"] == told[second]
        assert "rolled_back" not in project.release_show(first)
        (status,) = project.status()
        assert (status.live, status.rolled_back, status.rollout) == ("1", told[second], None)
        project.deploy("loan", release=second, reason="callers were mended")
        assert project.status()[0].rolled_back is None


def test_status_tells_of_the_rollout_and_since_when_the_live_release_is_live(world):
    with world.project() as project:
        (status,) = project.status()
        assert (status.live, status.since) == ("1", "2024-03-01T00:00:00Z")
        assert (status.rollout.new, status.rollout.share, status.rollout.step) == (world.releases[1], 20.0, 1)
        assert status.rollout.since > status.since


def test_what_is_exported_is_the_live_release_and_not_the_newest(world, tmp_path):
    first, second = world.releases
    with world.project() as project:
        project.rollback("loan", reason="it was worse")
        project.export_docker("loan", tmp_path / "live")
        assert first in (tmp_path / "live" / "README.md").read_text()
        told = exporting.described(project, "loan")
        assert (told["release"], told["version"], "live in 'loan'" in told["told"]) == (first, "1", True)
        with pytest.raises(exporting.NotForExport, match=r"was rolled back from 'loan' at .*: it was worse"):
            project.export_docker(second, tmp_path / "back")
        assert not (tmp_path / "back").exists()
        found = project.export_kubernetes(second, tmp_path / "back", image="loan:2", reason="to look at it at home")
        assert "it was worse" in found.told
        assert project.audit_list(1)[-1].body["reason"] == "to look at it at home"


def test_policy_that_asks_for_an_approval_asks_for_one_of_what_is_exported(tmp_path, monkeypatch):
    monkeypatch.setenv("SEATRIAL_POLICY_APPROVAL", "required")
    world = World(tmp_path)
    release = world.released()
    with world.project() as project:
        with pytest.raises(exporting.NotForExport, match="was approved by nobody"):
            project.export_docker("loan", tmp_path / "image")
        with Project(world.folder, clock=world.clock, actor="bob") as second_person:
            second_person.approve(release, reason="looked at")
        project.export_docker("loan", tmp_path / "image")
        assert "approved by bob" in exporting.described(project, "loan")["told"]
