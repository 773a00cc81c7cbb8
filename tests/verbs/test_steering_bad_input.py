"""What the verbs of the way back say to a clumsy or hostile caller: a stated result, and nothing lost without a word.

Machines that are asked about every two hours: one key comes back with every event of it.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Alarm, BlueGreen, Deployment, Model, Monitor, ParquetSource, Project
from seatrial.core.clock import to_us
from seatrial.core.errors import UsageError
from seatrial.core.windows import Window
from seatrial.deployment.emergency import JournalDamaged
from seatrial.project import RollbacksNotTold
from seatrial.retraining.approval import NotApproved
from seatrial.retraining.comparison import Comparison
from seatrial.retraining.proposal import NothingProposed, keep_comparison, newest, open_proposal
from seatrial.stores.metadata import HeadMoved, MetadataBusy, MetadataStore
from seatrial.stores.prediction_log import LogWarning
from seatrial.testing import FakeClock
from seatrial.verbs.alerting import AlertsNotDelivered

START = datetime(2024, 1, 1, tzinfo=UTC)
EVE = "eve"
INSTANT = pa.timestamp("us", tz="UTC")


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def window(first: float, last: float) -> Window:
    return Window(to_us(day(first)), to_us(day(last)))


def events() -> pa.Table:
    """Five machines in turn, one every half hour for 30 days; what happened is known an hour later."""
    random, count = np.random.default_rng(3), 30 * 48
    at = [START + timedelta(minutes=30 * number) for number in range(count)]
    load = random.normal(size=count)
    return pa.table(
        {
            "machine": [f"M{number % 5}" for number in range(count)],
            "at": pa.array(at, INSTANT),
            "known_at": pa.array([one + timedelta(hours=1) for one in at], INSTANT),
            "load": load,
            "fails": random.random(count) < 1 / (1 + np.exp(-2 * load)),
        }
    )


@contextmanager
def opened(folder, at=30.0, actor="ada", *, approval="none", deployments=("machines",), timed=True, alarms=()):
    times = {"event_timestamp": "at", "label_known_at": "known_at"} if timed else {}
    model = Model(
        "machines",
        task="binary",
        target="fails",
        labels=ParquetSource("events.parquet", **times),
        key=["machine"] if timed else [],
        features=["request:load"],
        estimator="sklearn.linear_model.LogisticRegression",
        cv_folds=0,
        owner="works",
        on_call="webhook:ops",
        runbook="docs/runbook.md",
    )
    named = [Deployment("machines", strategy=BlueGreen(), name=name) for name in deployments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_POLICY_APPROVAL", approval)
        definitions = [model, *named, Monitor("machines", alarms=alarms)]
        project = Project(folder, clock=FakeClock(day(at)), actor=actor, definitions=definitions)
    with project:
        yield project


@contextmanager
def locked(folder):
    """Another process keeps the metadata store to itself."""
    with closing(sqlite3.connect(folder / ".seatrial" / "metadata.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    pq.write_table(events(), folder / "events.parquet")
    with opened(folder, 10) as project:
        project.train()
        project.release()
    return folder


@pytest.fixture(scope="module")
def served_once(packed, tmp_path_factory):
    """Live since day 10, rolled out again on day 12; ten days were predicted."""
    folder = shutil.copytree(packed, tmp_path_factory.mktemp("served") / "project")
    with opened(folder, 10) as project:
        project.deploy()
    with opened(folder, 12) as project:
        project.train()
        project.deploy(release=project.release().id)
    with opened(folder, 20) as project:
        project.predict_batch(None, window(10, 20))
    return folder


@pytest.fixture
def fresh(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "project")


@pytest.fixture
def live(served_once, tmp_path):
    return shutil.copytree(served_once, tmp_path / "project")


class TestLabels:
    def test_a_key_that_comes_back_is_told_at_every_telling(self, live):
        with opened(live, 15) as project:
            assert project.label().matched == 5 * 48 - 1
        with opened(live, 21) as project:
            assert project.label().matched == 10 * 48
            assert project.label().told == 0

    def test_what_happened_outside_the_time_of_all_predictions_is_not_told(self, live):
        with opened(live) as project:
            told = project.label()
        assert (told.told, told.unmatched) == (10 * 48, 0)

    def test_without_predictions_nothing_is_told(self, fresh):
        with opened(fresh) as project:
            assert project.label().told == 0

    def test_labels_that_are_known_later_are_counted_as_such(self, live):
        rows = [{"machine": "M0", "at": day(10).isoformat(), "known_at": day(40).isoformat(), "fails": 1}]
        with opened(live) as project:
            told = project.label(rows=rows)
        assert (told.told, told.later, told.matched) == (1, 1, 0)

    def test_a_busy_store_refuses_before_a_label_is_kept(self, live):
        path = live / ".seatrial" / "metadata.db"
        with locked(live), opened(live) as project, closing(MetadataStore(path, busy_seconds=0.1)) as impatient:
            project.metadata = impatient
            with pytest.raises(MetadataBusy):
                project.label()
            assert project.labels.read("machines").num_rows == 0


class TestReports:
    def test_an_alert_that_no_webhook_took_is_said(self, live):
        with opened(live, 20.1, alarms=[Alarm.above("label_share", 0.1)]) as project:
            project.label()
            with pytest.warns(AlertsNotDelivered, match=r"'webhook:ops' were not delivered: no address is set for it"):
                project.monitor()
            assert [alert.state for alert in project.alerts()] == ["open"]

    def test_a_file_of_the_log_that_cannot_be_read_is_a_finding(self, live):
        (damaged,) = (live / ".seatrial" / "log").rglob("day=2024-01-18/*.parquet")
        damaged.write_bytes(damaged.read_bytes()[:500])
        with opened(live, 20) as project:
            with pytest.warns(LogWarning, match=r"2024-01-18"):
                report = project.monitor()
            assert report.rows == 6 * 48
            assert any("cannot be read" in finding for finding in report.findings)
            with pytest.warns(LogWarning):
                assert project.label().matched == 9 * 48 - 1


class TestDecisions:
    def test_a_deployment_under_another_name_goes_live_by_approval(self, fresh):
        with opened(fresh, 11, EVE, approval="required", deployments=["eu"]) as project:
            assert project.approve(reason="looked at it").deployment == "eu"
        with opened(fresh, 11, approval="required", deployments=["eu"]) as project:
            project.deploy()
            assert project.status()[0].live == "1"
            assert project.review()[0].live == "1"
            assert project.monitor(keep=False).marks[0].kind == "release"

    def test_of_several_deployments_the_one_that_is_meant_is_named(self, fresh):
        with opened(fresh, 11, EVE, approval="required", deployments=["eu", "us"]) as project:
            with pytest.raises(UsageError, match="2 deployments"):
                project.approve(reason="looked at it")
            assert project.approve("us", reason="looked at it").deployment == "us"
            project.deploy("us")
            assert project.status()[0].live == "1"
            with pytest.raises(NotApproved):
                project.deploy("eu")

    def test_a_rejection_outlives_having_been_live(self, live):
        with opened(live, approval="required") as project:
            first = project.releases()[0]["release"]
            project.reject(first, reason="it was wrong")
            with pytest.raises(NotApproved, match="rejected"):
                project.deploy(release=first)

    def test_a_challenger_is_not_compared_as_of_an_earlier_time(self, live):
        with opened(live) as project:
            facts = {"actor": "ada", "at_us": project.now_us}
            release = project.releases()[-1]["release"]
            other = project.release(project.train().run).id
            with project.metadata.transaction() as transaction:
                record = open_proposal(
                    transaction, model="machines", reasons=[], words="x", champion=release, deployment="machines",
                    generation=2, **facts,
                )  # fmt: skip
                transaction.event("proposal.trained", record.id, body={"run": None, "release": other}, **facts)
            with project.metadata.transaction() as transaction:
                look = Comparison(
                    model="machines", champion=release, challenger=release, start="2024-01-11T00:00:00Z",
                    as_of="2024-02-20T00:00:00Z", rows=1, loss="log_loss", days=[], better_days=0, gain=None, low=None,
                    high=None, champion_metrics={}, challenger_metrics={}, verdict="too early", final=False,
                )  # fmt: skip
                keep_comparison(transaction, newest(project.metadata, "machines"), look, **facts)
            with pytest.raises(UsageError, match="2024-02-20"):
                project.retrain(step="compare")

    def test_no_challenger_is_proposed_that_could_never_be_compared(self, live):
        with opened(live, timed=False) as project, pytest.raises(UsageError, match="no times"):
            project.retrain(step="train", reason="because")

    def test_without_a_deployment_there_is_no_champion(self, fresh):
        with opened(fresh) as project, pytest.raises(NothingProposed, match="no champion"):
            project.retrain(reason="because")


class TestRollbackWithoutTheStore:
    def rolled_back(self, folder, **options):
        with locked(folder), opened(folder) as project:
            assert not project.rollback(**options).settled

    def served(self, project):
        route = project.routes.read("machines", project.signer[1])
        return route.generation, project.record(route.arms[0].release).body["version"]

    def test_the_next_verb_tells_the_store(self, live):
        self.rolled_back(live)
        with opened(live) as project:
            assert (project.status()[0].live, project.status()[0].generation) == ("1", 3)

    def test_what_the_store_says_meanwhile_is_marked(self, live):
        self.rolled_back(live)
        with locked(live), opened(live) as project, pytest.warns(RollbacksNotTold, match="'machines'"):
            assert project.status()[0].live == "2"

    def test_the_generation_that_was_seen_counts(self, live):
        with locked(live), opened(live) as project:
            with pytest.raises(HeadMoved, match="generation 2"):
                project.rollback(expected=1)
            assert project.rollback(expected=2).generation == 3

    @pytest.mark.parametrize("left", [None, b"", b"no database" * 500])
    def test_a_store_that_is_gone_emptied_or_overwritten_does_not_hinder_it(self, live, left):
        for path in (live / ".seatrial").glob("metadata.db*"):
            path.unlink()
        if left is not None:
            (live / ".seatrial" / "metadata.db").write_bytes(left)
        with opened(live) as project:
            assert not project.rollback().settled
        assert (live / ".seatrial" / "metadata.db").exists() is (left is not None)

    def test_a_journal_that_cannot_be_read_is_named_and_no_dead_end(self, live):
        self.rolled_back(live)
        (journal,) = (live / ".seatrial" / "routes" / "journal").iterdir()
        journal.write_bytes(b"{")
        with opened(live) as project:
            with pytest.warns(RollbacksNotTold, match=r"machines@3\.json cannot be read"):
                assert project.status()[0].live == "2"
            with pytest.raises(JournalDamaged, match=r"machines@3"):
                project.deploy(release="machines:2")
        journal.unlink()
        with opened(live) as project:
            done = project.deploy(release="machines:1")
            assert self.served(project) == (done.generation, 1)

    def test_a_decision_on_a_restored_store_reaches_this_host(self, live, tmp_path):
        backup = tmp_path / "backup.db"
        with (
            closing(sqlite3.connect(live / ".seatrial" / "metadata.db")) as store,
            closing(sqlite3.connect(backup)) as kept,
        ):
            store.backup(kept)
        with opened(live) as project:
            project.rollback()
            project.deploy(release="machines:2", reason="it was not to blame")
        for path in (live / ".seatrial").glob("metadata.db*"):
            path.unlink()
        shutil.copy(backup, live / ".seatrial" / "metadata.db")
        with opened(live) as project:
            done = project.deploy(release="machines:1")
            assert self.served(project) == (done.generation, 1)
            assert project.status()[0].generation == done.generation > 4


class TestExplain:
    def test_the_other_predictions_of_a_request_are_named(self, live):
        with opened(live) as project:
            found = project.explain("M0")
        assert len(found.others) == 95
        assert found.prediction_id not in found.others

    def test_a_prediction_of_a_model_that_is_gone_is_shown_as_served(self, live):
        with opened(live) as project:
            id = project.explain("M0").prediction_id
        with Project(live, clock=FakeClock(day(30)), definitions=[]) as project:
            found = project.explain(id)
        assert (found.inputs[0].known, found.replays[0].same) == (False, True)
        assert "no longer defines" in found.note


def test_a_page_is_written_at_every_look(live):
    from seatrial.monitoring.pages.page import html

    with opened(live, 20) as project:
        for at in (20, 20, 400, 20):
            project.clock.set(day(at))
            report = project.monitor()
            assert html(report).startswith("<!doctype html>")


def test_a_blank_actor_is_nobody_else(fresh):
    with opened(fresh, actor="  ") as blank, opened(fresh, actor="") as none:
        assert blank.actor == none.actor.strip()


def test_a_window_before_1970_is_refused(live):
    with opened(live, -20_000) as project, pytest.raises(UsageError, match="begin before 1970"):
        project.monitor()
