"""A canary on a real project: two releases behind one deployment, judged by the answers that they gave."""

from __future__ import annotations

import copy
import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import FrameSource, Metric, Project
from seatrial.cli.door import run
from seatrial.core.clock import FixedClock, from_us, iso, to_us
from seatrial.core.errors import SeatrialError
from seatrial.core.windows import Window
from seatrial.deployment.analysis import Answers
from seatrial.deployment.controller import BadPace, Watched
from seatrial.deployment.rollout import DeclaredAnew, NoReason, NoRollout, NoShadow, RolloutUnderWay, check_shadow
from seatrial.monitoring.rows.sample import Sample
from seatrial.serving.batch.table import keep, score
from seatrial.stores.metadata import HeadMoved
from seatrial.testing import FakeClock
from seatrial.verbs.rolling import losses_of, per_request
from seatrial.verbs.valued import valued
from tests.journeys.worlds import served
from tests.worlds import edit, write_project

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CANARY = """
Deployment("late", strategy=Canary([10, 50, 100], min_rows=100, guardrails=[Guardrail.mean_score(0.2)]))
"""


class World:
    """One project whose clock the test moves."""

    def __init__(self, folder):
        self.folder = write_project(folder)
        edit(self.folder, "features=[carrier_delay, share, ", "owner='ops', runbook='runbook.md', features=[")
        (self.folder / "project.py").write_text((self.folder / "project.py").read_text() + CANARY)
        self.clock = FakeClock(START)
        self.random = np.random.default_rng(1)

    def project(self):
        return Project(self.folder, clock=self.clock, actor="ada")

    def released(self):
        with self.project() as project:
            trained = project.train()
            assert trained.passed
            return project.release(f"late:{trained.version}").id

    def ask(self, rows):
        """So many requests, an equal number an hour over one day."""
        with self.project() as project:
            for _ in range(24):
                self.clock.advance(DAY / 24)
                distances = self.random.normal(size=rows // 24)
                project.predict("late", [{"distance": float(one)} for one in distances])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A world with three releases: two that answer alike, and one that says "late" far too often."""
    world = World(tmp_path_factory.mktemp("rolling"))
    releases = [world.released()]
    edit(world.folder, '"n_estimators": 20', '"n_estimators": 21')
    releases.append(world.released())
    edit(world.folder, '"n_estimators": 21', '"n_estimators": 21, "scale_pos_weight": 30.0')
    releases.append(world.released())
    return world, releases


def shares(project):
    return {arm["release"]: arm["share"] / 100 for arm in project.deployment_show("late")["arms"]}


def test_a_canary_goes_its_steps_and_a_bad_one_is_taken_back(trained):
    world, (first, second, bad) = trained
    with world.project() as project:
        done = project.deploy("late", release=first)
        assert (done.share, done.previous) == (100.0, None)  # nothing to compare with: all of it at once
        with pytest.raises(NoRollout):
            project.deployment_advance("late")
        assert project.deployment_status("late").rollout is None
        done = project.deploy("late", release=second)
        assert (done.share, done.previous, done.strategy) == (10.0, first, "canary")
        assert shares(project) == {first: 90.0, second: 10.0}
        assert project.models()[0]["aliases"].count("champion") + project.models()[-1]["aliases"].count("champion") == 1
        with pytest.raises(RolloutUnderWay):
            project.deploy("late", release=bad)
        with pytest.raises(NoReason):
            project.deploy("late", release=bad, at_once=True)
        held = project.deployment_advance("late")
        assert (held.analysis.verdict, held.analysis.why) == ("hold", "not enough data (0 of 100 answers)")

    world.ask(2400)
    with world.project() as project:
        shown = project.deployment_status("late")
        assert shown.analysis.observed == pytest.approx(0.1, abs=0.02)
        assert shown.analysis.verdict == "advance"
        assert project.deployment_show("late")["generation"] == shown.generation  # looking changes nothing
        moved = project.deployment_advance("late")
        assert (moved.analysis.verdict, moved.share, moved.live) == ("advance", 50.0, first)
        assert shares(project) == {first: 50.0, second: 50.0}
        assert project.deployment_advance("late").analysis.verdict == "hold"  # the second step has just begun

    world.ask(960)
    with world.project() as project:
        moved = project.deployment_advance("late")
        assert (moved.analysis.verdict, moved.share, moved.live) == ("advance", 100.0, second)
        assert shares(project) == {second: 100.0}
        kinds = [one["kind"] for one in project.deployment_show("late")["history"]]
        assert [kind for kind in kinds if kind != "rollout.judged"] == [
            "deploy", "deploy", "rollout.advanced", "rollout.finished",
        ]  # fmt: skip
        assert [one["verdict"] for one in project.deployment_status("late").history] == [
            "hold", "advance", "hold", "advance",
        ]  # fmt: skip
        project.deploy("late", release=bad)

    world.ask(1200)
    with world.project() as project:
        moved = project.deployment_advance("late")
        assert (moved.analysis.verdict, moved.share, moved.live) == ("roll back", 0.0, second)
        assert moved.analysis.why.startswith("mean_score: ")
        assert shares(project) == {second: 100.0}
        assert moved.look in project.deployment_show("late")["history"][-1]["reason"]
        project.audit_verify()

        # whoever rolls back in the middle of a rollout returns to what was live before its first step
        project.deploy("late", release=first)
        assert shares(project) == {second: 90.0, first: 10.0}
        assert project.rollback("late").live == second
        assert shares(project) == {second: 100.0}
        done = project.deploy("late", release=first, at_once=True, reason="the second is wrong")
        assert (done.share, shares(project)) == (100.0, {first: 100.0})


def test_the_terminal_says_how_it_stands_and_what_was_done(trained, monkeypatch, capsys):
    world, (first, second, _) = trained
    with world.project() as project:
        other = second if shares(project) == {first: 100.0} else first
    monkeypatch.chdir(world.folder)
    ends = (world.clock.now() + DAY).isoformat().replace("+00:00", "Z")
    assert run(["--at", world.clock.now().isoformat(), "deploy", "--release", other]) == 0
    told = capsys.readouterr().out
    assert f"takes 10 % of the traffic ({other})" in told
    assert f"until {ends} at least, and 100 answers" in told
    assert "While nobody runs it the new release will stay at 10 %, even if it does harm." in told
    assert told.endswith("Next: seatrial deployments advance late --watch\n")
    world.ask(2400)
    at = ["--at", world.clock.now().isoformat()]
    assert run([*at, "deployments", "status"]) == 0
    shown = capsys.readouterr().out
    assert "[10 %] → 50 % → 100 %" in shown
    assert "░░ 10.00% wanted (┃)" in shown
    assert "its shortest time was over" in shown
    assert "████ (2" in shown  # all of what is needed
    assert "difference (over all looks)" in shown
    assert "┼" in shown or "●" in shown
    assert max(map(len, shown.splitlines())) <= 160
    monkeypatch.setenv("COLUMNS", "60")
    assert run([*at, "deployments", "status"]) == 0
    narrow = capsys.readouterr().out.split("Next:")[0].splitlines()
    assert max(map(len, narrow[1:])) <= 60
    assert any(line.startswith("✓ mean_score: fine, 0.2 is borne") for line in narrow)
    assert run([*at, "--json", "deployments", "advance", "late"]) == 0
    moved = json.loads(capsys.readouterr().out)
    assert (moved["analysis"]["verdict"], moved["share"]) == ("advance", 50)
    assert run([*at, "deployments", "advance"]) == 0
    assert "late: hold; nothing was changed; the new release keeps 50 %." in capsys.readouterr().out


@pytest.fixture(scope="module")
def shadowed(tmp_path_factory):
    """A world whose second release is to be the first one's shadow."""
    world = World(tmp_path_factory.mktemp("shadow"))
    edit(world.folder, 'Canary([10, 50, 100], min_rows=100, guardrails=[Guardrail.mean_score(0.2)])',
         'Shadow(min_days=2, judge_for="3d", min_rows=100, guardrails=[Guardrail.mean_score(0.9)])')  # fmt: skip
    world.releases = [world.released()]
    edit(world.folder, '"n_estimators": 20', '"n_estimators": 60')
    world.releases.append(world.released())
    return world


def test_the_shadow_scores_what_is_answered_and_nobody_sees_it(shadowed):
    live, new = shadowed.releases
    with shadowed.project() as project:
        project.deploy("late", release=live)
        done = project.deploy("late", release=new)
        assert (done.share, done.previous, shares(project)) == (0.0, live, {live: 100.0, new: 0.0})
        shadowed.clock.advance("1m")
        answers = project.predict("late", [{"distance": float(one)} for one in range(5)], request_ids=list("abcde"))
        assert {one["release"] for one in answers} == {live}
        told = project.log.rows(model="late")
        assert set(told["release"].to_pylist()) == {live}
        hidden = project.log.rows(deployment="late~shadow")
        assert set(hidden["release"].to_pylist()) == {new}
        assert hidden["request_id"].to_pylist() == list("abcde")
        assert hidden["feature_distance"].equals(told["feature_distance"])
        assert hidden["at"].equals(told["at"])
        assert hidden["probability"].to_pylist() != told["probability"].to_pylist()
        # what was scored for nobody is in no report, and `find` tells both records of a request
        shadowed.clock.advance("1m")
        assert project.monitor("late", keep=False).performance.rows == 5
        assert {one["release"] for one in project.log.find("a")} == {live, new}
        project.log.rotate()
        project.log.compact()
        assert project.log.rows(model="late").equals(told)
        assert project.log.rows(deployment="late~shadow").equals(hidden)


def test_over_http_the_shadow_scores_after_the_answer(shadowed):
    live, new = shadowed.releases
    with served(shadowed.folder) as (_, url):
        for path in ("/predict", "/models/late/predict"):
            request = urllib.request.Request(
                url + path,
                json.dumps({"features": {"distance": 1.5}, "request_id": path}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert json.load(answer)["release"] == live
    with shadowed.project() as project:
        for path in ("/predict", "/models/late/predict"):
            assert {one["release"] for one in project.log.find(path)} == {live, new}


def test_labels_of_the_same_requests_decide_and_an_equal_one_leaves_the_live_release(shadowed, capsys):
    live, _ = shadowed.releases
    for _ in range(3):
        shadowed.ask(960)
    with shadowed.project() as project:
        rows = project.log.rows(model="late").select(["request_id", "feature_distance"]).to_pylist()
        truth = np.random.default_rng(3)
        late = [bool(row["feature_distance"] + truth.normal() > 1) for row in rows]
        asked = [row["request_id"] for row in rows]
        told = [{"request_id": id, "late": one} for id, one in zip(asked, late, strict=True)]
        project.label("late", [one for one in told if not one["late"]])
        first = project.deployment_status("late").analysis.labels  # what did not happen is known first
        assert (first.state, first.days, first.ripening) == ("too early", 0, 3)
        assert run(["--project", str(shadowed.folder), "--at", iso(shadowed.clock.now()), "deployments", "status"]) == 0
        shown = capsys.readouterr().out
        assert "too early: 0 whole days" in shown
        assert "3 more wait 2d" in shown
        project.label("late", [one for one in told if one["late"]])
        shown = project.deployment_status("late")
        assert shown.analysis.rows["new"] == shown.analysis.rows["live"] > 2000
        assert (shown.analysis.labels.days, shown.analysis.labels.ripening) == (3, 0)  # nothing more can come
        moved = project.deployment_advance("late")
        # sixty trees learn 400 rows by heart: the shadow is worse, or not shown to be better
        assert moved.analysis.verdict in ("roll back", "keep the live release")
        assert shares(project) == {live: 100.0}


def test_a_strategy_that_was_declared_anew_in_the_middle_is_said(shadowed):
    project_file = shadowed.folder / "project.py"
    declared = project_file.read_text()
    with shadowed.project() as project:
        project.deploy("late", release=shadowed.releases[1], reason="once more")
    project_file.write_text(declared.replace("Shadow(", "ABTest("))
    try:
        with (
            shadowed.project() as project,
            pytest.raises(DeclaredAnew, match="as shadow, and is declared as ab_test"),
        ):
            project.deployment_advance("late")
    finally:
        project_file.write_text(declared)


def test_a_shadow_on_the_terminal_is_called_one(shadowed, monkeypatch, capsys):
    monkeypatch.chdir(shadowed.folder)
    assert run(["--at", shadowed.clock.now().isoformat(), "deployments", "status"]) == 0
    shown = capsys.readouterr().out
    assert "[in the shadow] → 100 %" in shown
    assert "0 rows scored beside 0 answers, for nobody to see" in shown


def test_one_that_would_hold_the_live_one_up_is_no_shadow_and_one_that_wants_other_fields_is(shadowed):
    with shadowed.project() as project:
        live = project.record(shadowed.releases[0])
    body = json.loads(json.dumps(live.body))
    body["manifest"]["signature"]["request"].append({"name": "extra", "dtype": "float", "nullable": True})
    check_shadow(replace(live, body=body))
    body["manifest"]["model_format"] = "skops"
    with pytest.raises(NoShadow, match="a process of its own"):
        check_shadow(replace(live, body=body))


def test_what_is_scored_in_batch_meanwhile_is_nobodys_answer(trained):
    world, releases = trained
    with world.project() as project:
        live = settled(project)
        project.deploy("late", release=next(one for one in releases if one != live), reason="once more")
        world.clock.advance("1m")
        assert scored(project, live, rows=50) == 50
        assert len(project.log.rows(deployment="late", window=Window(project.now_us, project.now_us + 1))) == 50
        world.clock.advance("1m")
        assert project.deployment_status("late").analysis.rows == {"live": 0, "new": 0}
        project.rollback("late")


def scored(project, release, *, rows):
    """How many rows a release scored in batch, as of now."""
    bundle = project._bundle(project.record(release))
    table = project._inputs.rows(project.definitions.model("late"))[0].slice(0, rows)
    return keep(
        project.log, bundle, table, score(bundle, table), at_us=[project.now_us] * rows,
        request_ids=[str(one) for one in range(rows)], deployment="late", caller="somebody",
    )  # fmt: skip


def settled(project):
    """Something is live, and no rollout under way; the live release."""
    if not project.deployments():
        project.deploy("late", release="late:1")
    if len(shares(project)) > 1:
        project.rollback("late")
    (live,) = shares(project)
    return live


def test_somebody_who_looks_until_it_is_over_takes_every_step(trained):
    world, (first, second, _) = trained
    with world.project() as project:
        new = second if settled(project) == first else first
        project.deploy("late", release=new, reason="once more")
        looks = []

        def wait(seconds):
            assert seconds == 300
            world.ask(2400)
            return len(looks) < 10

        last = project.deployment_watch("late", told=looks.append, wait=wait)
        assert [one.analysis.verdict for one in looks] == ["hold", "advance", "advance"]
        assert (last, last.share, shares(project)) == (looks[-1], 100, {new: 100})
        with pytest.raises(NoRollout):
            project.deployment_watch("late", told=looks.append, wait=wait)
    with Project(world.folder, clock=FixedClock(START), actor="ada") as still, pytest.raises(BadPace):
        still.deployment_watch("late", told=looks.append, wait=wait)


def test_of_two_who_judge_the_same_step_one_takes_it_and_nothing_of_the_other_is_kept(trained):
    world, (first, second, _) = trained
    with world.project() as project:
        project.deploy("late", release=second if settled(project) == first else first, reason="once more")
    world.ask(2400)
    with world.project() as one, world.project() as other:
        before = len(one.deployment_status("late").history)
        read = other._sample

        def slowly(*given, **more):
            """While the second one reads the log, the first one decides."""
            found = read(*given, **more)
            if not done:
                done.append(one.deployment_advance("late"))
            return found

        done = []
        other._sample = slowly
        with pytest.raises(HeadMoved):
            other.deployment_advance("late")
        assert (done[0].analysis.verdict, done[0].share) == ("advance", 50)
        assert len(one.deployment_status("late").history) == before + 1
        assert sorted(shares(one).values()) == [50, 50]
        one.audit_verify()


def test_a_clock_that_jumps_takes_one_step_at_most_and_one_that_was_set_back_none(trained):
    world, (first, second, _) = trained
    with world.project() as project:
        project.deploy("late", release=second if settled(project) == first else first, reason="once more")
    world.ask(2400)
    now = world.clock.now()
    with world.project() as project:
        world.clock.set(now - 3 * DAY)
        held = project.deployment_advance("late")
        assert (held.analysis.verdict, held.share) == ("hold", 10)
        assert held.analysis.why.startswith("the step began later than now")
        world.clock.set(now + 90 * DAY)
        assert project.deployment_advance("late").share == 50
        again = project.deployment_advance("late")
        assert (again.analysis.verdict, again.share, again.analysis.rows["new"]) == ("hold", 50, 0)
        world.clock.set(now)
        assert project.deployment_advance("late").share == 50
        project.rollback("late")


def test_the_controller_is_ended_between_two_looks_and_the_next_one_goes_on(trained):
    world, (first, second, _) = trained
    with Project(world.folder, actor="ada") as project:  # the machine's clock, as the command has it
        project.deploy("late", release=second if settled(project) == first else first, reason="once more")
    command = [sys.executable, "-m", "seatrial", "--project", str(world.folder), "deployments", "advance", "--watch"]
    for ended in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(
            [*command, "--every", "1s"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        looks = [process.stdout.readline() for _ in range(2)]
        assert all(one.endswith("late  hold, 10 % now: not enough data (0 of 100 answers)\n") for one in looks)
        with Project(world.folder) as project, pytest.raises(Watched, match=f"by process {process.pid}"):
            project.deployment_watch("late", told=print, wait=lambda _: False)
        process.send_signal(ended)
        _, err = process.communicate(timeout=30)
        assert process.returncode == (0 if ended == signal.SIGTERM else -ended)
    assert "Stopped; the rollout stays as it is" in err
    with Project(world.folder) as project:
        assert sorted(shares(project).values()) == [10, 90]
        project.rollback("late")


SOLD = """
orders = ParquetSource("orders.parquet", event_timestamp="sold_at")
per_request = QuerySource(
    "SELECT request_id, max(sold_at) AS sold_at, sum(amount) AS revenue FROM orders GROUP BY request_id",
    {"orders": orders}, name="per_request", event_timestamp="sold_at")
Deployment("late", strategy=ABTest(
    judge_for="14d", min_days=7, min_rows=100, guardrails=[], decide=Metric("revenue", per_request, without_row=0)))
"""


def test_orders_in_a_table_of_the_business_decide_an_experiment(trained, tmp_path):
    world, (first, second, _) = trained
    with world.project() as project:
        old = settled(project)
    sold = copy.copy(world)
    sold.folder = shutil.copytree(world.folder, tmp_path / "sold")
    edit(sold.folder, CANARY, SOLD)
    sold.clock = FakeClock(world.clock.now())
    new = second if old == first else first
    with sold.project() as project:
        project.deploy("late", release=new, reason="once more")
        began = sold.clock.now() + timedelta(minutes=1)
        held = project.deployment_advance("late")
        assert held.analysis.verdict == "hold"
        assert (held.analysis.metric.state, held.analysis.metric.name) == ("unreadable", "revenue")
        assert "orders.parquet" in held.analysis.metric.warning
    for _ in range(8):
        sold.ask(192)
    sold.clock.advance("1m")
    with sold.project() as project:
        rows = project.log.rows(deployment="late", window=Window(to_us(began), project.now_us), columns=LOGGED)
        sell(sold.folder / "orders.parquet", rows, {old: 20.0, new: 60.0}, later=project.now_us + 1)
        seen = project.deployment_status("late").analysis.metric
        assert seen.warning == ""
        assert seen.requests["live"] + seen.requests["new"] == 192 * 8
        assert sum(seen.missing.values()) == pytest.approx(192 * 4, abs=2)  # every second one buys
        assert (seen.mixed, seen.stray, seen.days) == (0, 1, 8)
        assert (seen.live, seen.new) == pytest.approx((10, 30), abs=6)
        assert seen.gain == pytest.approx(20, abs=8)
        moved = project.deployment_advance("late")
        assert (moved.analysis.verdict, moved.share) == ("advance", 100)
        assert moved.analysis.why.startswith("revenue: better, better by ")


LOGGED = ["request_id", "at", "release"]


def sell(path, rows, worth, *, later):
    """Two orders of every second request, by the release that answered it; one of nobody's, and one of tomorrow."""
    random = np.random.default_rng(4)
    orders = [
        {"request_id": row["request_id"], "sold_at": row["at"], "amount": worth[row["release"]] / 2 + random.normal()}
        for row in rows.to_pylist()[::2]
        for _ in range(2)
    ]
    orders.append({"request_id": "somebody", "sold_at": rows["at"][0].as_py(), "amount": 9.0})
    orders.append({"request_id": "tomorrow", "sold_at": from_us(later), "amount": 1e6})
    pq.write_table(pa.Table.from_pylist(orders), path)


@pytest.mark.parametrize(
    ("table", "key", "problem"),
    [
        (
            {"request_id": ["a"], "amount": [1.0]},
            [],
            "its source has no column 'revenue'; it has request_id, amount",
        ),
        ({"customer": ["a"], "revenue": [1.0]}, ["flight"], "its rows do not say whose they are: one of prediction_id"),
        ({"request_id": ["a", "a"], "revenue": [1.0, 2.0]}, [], "1 rows name a request_id that another row named"),
        ({"request_id": ["a"], "revenue": ["many"]}, [], "'revenue' is a string, and numbers are expected"),
        ({"request_id": ["a"], "revenue": [float("inf")]}, [], "1 rows of 'revenue' are infinite"),
    ],
)
def test_a_metric_that_cannot_be_joined_says_why(table, key, problem):
    found = joined(pa.table(table), {"request_id": ["a"], "prediction_id": ["p"]}, live=[0], new=[], key=key)
    assert found.problem.startswith(problem)


def joined(table, log, *, live, new, key=(), keys=None):
    """What a metric `revenue` with these rows says of a log, whose rows at `live` and `new` are those of the arms."""
    count = len(log["prediction_id"])
    at = pa.array([10 * (one + 1) for one in range(count)], pa.timestamp("us", "UTC"))
    arms = tuple(np.isin(np.arange(count), places) for places in (live, new))
    metric = Metric("revenue", FrameSource(table, name="orders"))
    answers = pa.table({**log, "at": at})
    return valued(metric, lambda _: table, answers, arms, lambda: pa.array(keys or []), list(key), now_us=10**9)


def test_a_request_of_several_rows_counts_once_and_one_of_both_arms_not_at_all():
    log = {"prediction_id": list("uvwxyz"), "request_id": ["a", "a", "b", "c", "c", None]}
    orders = pa.table({"request_id": ["a", "b", "c", "d", None], "revenue": [1.0, 2.0, 3.0, 4.0, 5.0]})
    found = joined(orders, log, live=[0, 1, 3], new=[2, 4, 5])
    assert (found.live.value.tolist(), found.live.at_us.tolist()) == ([1.0], [10])
    assert found.new.value[0] == 2.0
    assert np.isnan(found.new.value[1])  # nobody can name the one without an id
    assert (found.mixed, found.stray) == (1, 2)


def test_values_come_by_the_key_of_the_model_or_by_the_id_of_a_prediction():
    log = {"prediction_id": ["u", "v"], "request_id": ["a", "b"]}
    by_key = pa.table({"shop": ["x", "y"], "till": [1, 2], "revenue": [7, None]})
    found = joined(by_key, log, live=[0], new=[1], key=["shop", "till"], keys=["x|1", "y|2"])
    assert found.live.value.tolist() == [7.0]
    assert np.isnan(found.new.value).all()
    by_id = pa.table({"prediction_id": ["v"], "request_id": ["zz"], "revenue": [True]})
    assert joined(by_id, log, live=[0], new=[1]).new.value.tolist() == [1.0]


@pytest.mark.filterwarnings("ignore::seatrial.project.RollbacksNotTold")
def test_a_roll_back_in_the_middle_without_the_metadata_store_ends_the_rollout_when_it_is_back(trained, tmp_path):
    world, (first, second, _) = trained
    with world.project() as project:
        live = settled(project)
        new = second if live == first else first
        project.deploy("late", release=new, reason="once more")
    world.ask(2400)
    with world.project() as project:
        assert project.deployment_advance("late").share == 50
    state = world.folder / ".seatrial"
    kept = [path.rename(tmp_path / path.name) for path in state.glob("metadata.db*")]
    with world.project() as project:
        done = project.rollback("late", reason="the phones ring, and the disk is gone")
        assert (done.live, done.settled) == (live, False)
        world.clock.advance("1m")
        told = [project.predict("late", [{"distance": 0.0}])[0] for _ in range(20)]
        assert {one["release"] for one in told} == {live}
        with pytest.raises(SeatrialError) as lost:
            project.deployment_advance("late")  # decides nothing that it cannot keep
        assert lost.value.code != "internal"
    assert not list(state.glob("metadata.db*"))
    for path in kept:
        path.rename(state / path.name)
    with world.project() as project:
        with pytest.raises(NoRollout):
            project.deployment_advance("late")
        assert shares(project) == {live: 100.0}
        history = project.deployment_show("late")["history"]
        assert (history[-1]["kind"], history[-1]["reason"]) == ("rollback", "the phones ring, and the disk is gone")
        assert project.deploy("late", release=new, reason="it was the disk").share == 10  # another one can begin
        project.rollback("late")
        project.audit_verify()


def test_a_request_of_many_rows_is_one_observation():
    rows = Answers(
        at_us=np.array([1, 2, 3, 4]), latency_ms=np.array([2.0, 4.0, 6.0, 1.0]),
        degraded=np.array([False, True, False, False]), score=np.array([0.25, 0.75, np.nan, np.nan]),
        loss=np.array([np.nan, 0.5, 1.0, np.nan]), failed=7,
    )  # fmt: skip
    found = per_request(rows, np.array([5, 5, 5, 9]))
    assert (found.at_us.tolist(), found.failed) == ([1, 4], 7)
    assert (found.latency_ms.tolist(), found.degraded.tolist()) == ([4.0, 1.0], [True, False])
    assert (found.score[0], found.loss[0]) == (0.5, 0.75)
    assert np.isnan([found.score[1], found.loss[1]]).all()
    assert per_request(rows, np.arange(4)) is rows


def test_answers_of_a_quantile_model_are_judged_by_the_loss_of_that_quantile():
    sample = Sample("wait", "regression", pa.table({"label": [10.0, 0.0, None], "score": [0.0, 10.0, 1.0]}))
    np.testing.assert_array_equal(losses_of(sample), [100.0, 100.0, np.nan])
    np.testing.assert_allclose(losses_of(replace(sample, quantile=0.9)), [9.0, 1.0, np.nan])
