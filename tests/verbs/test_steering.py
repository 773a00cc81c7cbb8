"""The verbs of the way back on a small world: what is told, reported, proposed, decided, promoted and taken back.

Parcels: one every half hour. From day 20 on it is high season, of which a model of day 15 knows nothing.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import (
    BlueGreen,
    Canary,
    Deployment,
    Gate,
    Model,
    Monitor,
    ParquetSource,
    Project,
    Retrain,
    Trigger,
    expect,
)
from seatrial.core.clock import to_us
from seatrial.core.errors import SeatrialError
from seatrial.core.windows import Window
from seatrial.testing import FakeClock

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS, A_DAY, SEASON = 45, 48, 20
ADA, EVE = "ada", "eve"
PARCEL = {"size": 0.4, "season": 0.0}


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def window(first: float, last: float) -> Window:
    return Window(to_us(day(first)), to_us(day(last)))


def parcels() -> pa.Table:
    """Every parcel, late or not six hours after its prediction."""
    random = np.random.default_rng(7)
    count = DAYS * A_DAY
    at = [START + timedelta(minutes=30 * number) for number in range(count)]
    size, season = random.normal(size=count), (np.arange(count) >= SEASON * A_DAY).astype(float)
    late = random.random(count) < 1 / (1 + np.exp(1.5 - 1.5 * size - 3 * season))
    instant = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "parcel": [f"P{number:05}" for number in range(count)],
            "at": pa.array(at, instant),
            "known_at": pa.array([one + timedelta(hours=6) for one in at], instant),
            "size": size,
            "season": season,
            "late": late,
        }
    )


@contextmanager
def opened(folder, at, actor=ADA, *, approval="required", strategy=None, trigger=None, **changes):
    """The project on a day."""
    trigger = trigger or Trigger.calibration(0.1, window="5d", every="1d", looks=1)
    source = ParquetSource(
        "parcels.parquet",
        event_timestamp="at",
        label_known_at="known_at",
        expectations=[expect.between("season", 0, 1)],
    )
    given = {
        "task": "binary",
        "target": "late",
        "labels": source,
        "key": ["parcel"],
        "features": ["request:size", "request:season"],
        "estimator": "sklearn.linear_model.LogisticRegression",
        "gates": [Gate.at_least("roc_auc", 0.6)],
        "cv_folds": 0,
        "owner": "logistics",
        "on_call": "logistics",
        "runbook": "docs/runbook.md",
    }
    model = Model("late", **given | changes)
    retrain = Retrain("late", on=[trigger], budget="2/week", cool_down="3d", judge_for="20d", min_days=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_POLICY_APPROVAL", approval)
        definitions = [model, Deployment("late", strategy=strategy or BlueGreen()), Monitor("late"), retrain]
        project = Project(folder, clock=FakeClock(day(at)), actor=actor, definitions=definitions)
    with project:
        yield project


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A release of day 15 that is not live."""
    folder = tmp_path_factory.mktemp("packed")
    pq.write_table(parcels(), folder / "parcels.parquet")
    with opened(folder, 15) as project:
        project.train()
        project.release()
    return folder


@pytest.fixture(scope="module")
def served(packed, tmp_path_factory):
    """It went live on day 15, and twelve days were predicted. No label was told."""
    folder = copy(packed, tmp_path_factory.mktemp("served"))
    with opened(folder, 15, EVE) as project:
        project.approve("late", reason="every gate passed")
    with opened(folder, 15) as project:
        project.deploy("late")
    with opened(folder, 27) as project:
        project.predict_batch("late", window(15, 27))
    return folder


@pytest.fixture(scope="module")
def judged(served, tmp_path_factory):
    """The triggers proposed on day 27; by day 36 the challenger is shown to be better. Nobody decided yet."""
    folder = copy(served, tmp_path_factory.mktemp("judged"))
    with opened(folder, 27) as project:
        project.label("late")
        project.retrain("late")
        project.retrain("late", "train")
    with opened(folder, 36) as project:
        assert project.retrain("late", "compare").proposal.state == "better"
    return folder


def copy(folder, to):
    """A project's folder that nobody has open, for one test to change."""
    return shutil.copytree(folder, to / "project")


@pytest.fixture
def fresh(packed, tmp_path):
    return copy(packed, tmp_path)


@pytest.fixture
def live(served, tmp_path):
    return copy(served, tmp_path)


@pytest.fixture
def ready(judged, tmp_path):
    return copy(judged, tmp_path)


@pytest.fixture
def approved(ready):
    with opened(ready, 36, EVE) as project:
        project.approve("late", reason="better on every day")
    return ready


def refused(act):
    """What `act` is answered by: (code, exit code, words)."""
    with pytest.raises(SeatrialError) as error:
        act()
    return error.value.code, error.value.exit_code, str(error.value)


# Labels


@pytest.fixture
def answered(live):
    """Three predictions of day 28, and one more of the third parcel a day later: (folder, prediction ids)."""
    with opened(live, 28) as project:
        answers = project.predict("late", [PARCEL] * 3, request_ids=["A", "B", "C"])
    with opened(live, 29) as project:
        answers += project.predict("late", [PARCEL], request_ids=["C"])
    return live, [one["prediction_id"] for one in answers]


@pytest.mark.parametrize(
    ("names", "found_on"),
    [
        (lambda ids: {"prediction_id": ids[0]}, 28),
        (lambda ids: {"request_id": "B"}, 28),
        (lambda ids: {"parcel": "A"}, 28),
        (lambda ids: {"parcel": "C"}, 29),  # the latest before the label was known
        (lambda ids: {"parcel": "C", "at": day(28)}, 28),
        (lambda ids: {"parcel": "C", "at": day(29).isoformat()}, 29),
    ],
)
def test_a_label_finds_its_prediction_by_id_request_key_or_key_and_time(answered, names, found_on):
    folder, ids = answered
    with opened(folder, 30) as project:
        told = project.label("late", [names(ids) | {"late": 1}])
        assert (told.told, told.matched, told.unmatched) == (1, 1, 0)
        for other in (28, 29):
            report = project.monitor("late", window=window(other, other + 0.5), keep=False)
            assert report.performance.labelled == (other == found_on)


def test_labels_told_again_told_otherwise_of_nobody_and_too_early_are_counted(answered):
    folder, ids = answered
    with opened(folder, 30) as project:
        project.label("late", [{"prediction_id": ids[0], "late": 1}])
        told = project.label(
            "late",
            [
                {"prediction_id": ids[0], "late": 1, "known_at": day(30)},
                {"prediction_id": ids[1], "late": 1, "known_at": day(29)},
                {"prediction_id": ids[1], "late": 0, "known_at": day(30)},
                {"request_id": "nobody", "late": 1, "known_at": day(30)},
                {"prediction_id": ids[3], "late": 1, "known_at": day(27)},
            ],
        )
        assert (told.told, told.matched, told.duplicate, told.contradicting) == (5, 2, 1, 1)
        assert (told.unmatched, told.before) == (1, 1)
        report = project.monitor("late", window=window(28, 28.5), keep=False)
        assert report.performance.observed == 0.5  # what was known last counts
        assert {name: report.performance.labels[name] for name in ("duplicate", "contradicting")} == {
            "duplicate": 1,
            "contradicting": 1,
        }


def test_a_label_that_is_none_keeps_the_others_from_being_told(answered):
    folder, ids = answered
    with opened(folder, 30) as project:
        wrong = [{"prediction_id": ids[0], "late": 1}, {"prediction_id": ids[1], "late": 2}]
        code, _, words = refused(lambda: project.label("late", wrong))
        assert code == "labels.bad"
        assert "row 2" in words
        assert project.label("late", []).matched == 0


def test_a_late_label_counts_in_the_window_of_its_prediction_and_not_before_it_was_known(answered):
    folder, ids = answered
    with opened(folder, 35) as project:
        project.label("late", [{"prediction_id": ids[0], "late": 1}])
        report = project.monitor("late", window=window(28, 28.5), keep=False)
        assert (report.performance.labelled, report.performance.labels["late"]) == (1, 1)
        assert project.monitor("late", window=window(34, 35), keep=False).performance.labelled == 0
        project.clock.set(day(34))
        assert project.monitor("late", window=window(28, 28.5), keep=False).performance.labelled == 0


def test_the_label_source_tells_what_is_known_by_now_and_each_once(live):
    with opened(live, 20) as project:
        assert project.label("late").told == 5 * A_DAY - 11  # the last six hours are not known yet
    with opened(live, 27) as project:
        assert project.label("late").matched == 12 * A_DAY - 11
        again = project.label("late")
        assert (again.told, again.duplicate) == (0, 0)


# Reports and alerts


def test_a_report_on_nothing_says_so(fresh):
    with opened(fresh, 16) as project:
        report = project.monitor("late")
        assert (report.verdict, report.rows) == ("unknown", 0)
        assert {one.state for one in report.alarms} == {"not_enough_data"}
        assert project.alerts("late") == []


def test_a_report_on_one_row_without_a_label_raises_no_alarm(answered):
    folder, _ = answered
    with opened(folder, 30) as project:
        report = project.monitor("late", window=window(28.9, 29.1))
        assert (report.rows, report.verdict) == (1, "unknown")
        assert "1 of 200" in str(report.drift)
        assert [one.alarm for one in project.alerts("late")] == ["no predictions"]  # for a day, which is another thing


def test_a_window_that_nobody_asked_about_is_reported_without_a_trace(live):
    with opened(live, 27) as project:
        before = project.audit_verify().events
        project.monitor("late", keep=False)
        assert project.audit_verify().events == before
        project.monitor("late")
        assert len(project.metadata.records("report", "late")) == 1


def test_an_input_that_the_model_never_learned_moved_and_moved_no_prediction(live):
    with opened(live, 27) as project:
        report = project.monitor("late", window=window(22, 27), keep=False)
        assert [one.name for one in report.drift.columns if one.drifted] == ["season"]
        found = report.attribution
        assert (found.method, found.rows) == ("rescoring", 240)
        assert [(part.name, round(part.moved, 9)) for part in found.parts] == [("season", 0.0)]
        assert found.rest == pytest.approx(found.moved)


def test_a_report_against_another_time_or_the_champion_keeps_nothing(live):
    with opened(live, 27) as project:
        before = project.audit_verify().events
        past = project.monitor("late", window=window(22, 27), against="5d")
        assert past.drift.reference == f"the predictions of {window(17, 22)}"
        assert {one.name: one.drifted for one in past.drift.columns} == {"season": True, "size": False}
        same = project.monitor("late", window=window(22, 27), against=str(window(17, 22)))
        assert same.drift == past.drift
        champion = project.monitor("late", window=window(22, 27), against="champion")
        assert champion.drift.reference == "the champion's training rows"
        assert champion.drift.columns == project.monitor("late", window=window(22, 27), keep=False).drift.columns
        assert project.audit_verify().events == before


def test_what_nobody_can_compare_with_is_refused(live, packed, tmp_path):
    with opened(live, 27) as project:
        for against in ("yesterday", str(window(26, 30))):
            code, status, _ = refused(lambda to=against: project.monitor("late", window=window(22, 27), against=to))
            assert (code, status) == ("monitor.bad_reference", 2)
        code, _, words = refused(lambda: project.monitor("late", window=window(22, 27), against=str(window(1, 2))))
        assert (code, "holds 0 predictions" in words) == ("monitor.reference_too_small", True)
    with opened(copy(packed, tmp_path / "fresh"), 16) as project:
        code, _, words = refused(lambda: project.monitor("late", against="champion"))
        assert (code, "no champion" in words) == ("monitor.bad_reference", True)


def of_calibration(alerts):
    return [alert for alert in alerts if alert.alarm.startswith("calibration")]


def test_an_alarm_opens_one_alert_which_somebody_takes_and_which_ends_when_it_is_quiet(live):
    with opened(live, 27) as project:
        project.label("late")
        first = project.monitor("late")
        project.clock.set(day(27.25))
        project.monitor("late")
        (alert,) = of_calibration(project.alerts("late"))
        assert (alert.state, alert.seen, alert.owner) == ("open", 2, "logistics")
        assert [one.alert for one in first.alarms if one.metric == "calibration_gap"] == [alert.id]
        project.actor = EVE
        assert project.alert_acknowledge(alert.id, "looking").acknowledged_by == EVE
        over = project.alert_resolve(alert.id, "it was the season")
        assert (over.state, of_calibration(project.alerts("late"))) == ("resolved", [])
        assert [one.id for one in of_calibration(project.alerts("late", every=True))] == [alert.id]


# Decisions


def test_the_first_release_goes_live_only_with_a_second_persons_approval(fresh):
    with opened(fresh, 15) as project:
        assert refused(lambda: project.deploy("late"))[:2] == ("approval.missing", 4)
        assert refused(lambda: project.approve("late", reason="mine"))[:2] == ("approval.own_proposal", 4)
        assert project.status()[0].live is None
    with opened(fresh, 15, EVE) as project:
        assert refused(lambda: project.approve("late", reason=" "))[:2] == ("approval.no_reason", 2)
        decided = project.approve("late", reason="every gate passed")
        assert (decided.actor, decided.asserted, decided.generation) == (EVE, True, 0)
    with opened(fresh, 15) as project:
        assert project.deploy("late").generation == 1


def test_where_policy_asks_for_nobody_nobody_is_asked(fresh):
    with opened(fresh, 15, approval="none") as project:
        assert project.deploy("late").generation == 1


def test_what_was_rejected_does_not_go_live_and_whoever_tries_is_told_why(fresh):
    with opened(fresh, 15, EVE) as project:
        project.reject("late", reason="the parcels of Sunday are missing")
        code, exit_code, words = refused(lambda: project.deploy("late"))
        assert (code, exit_code) == ("approval.missing", 4)
        assert "the parcels of Sunday are missing" in words


def test_who_proposed_cannot_approve_and_another_binds_the_evidence(ready):
    with opened(ready, 36) as project:
        assert refused(lambda: project.approve("late", reason="mine"))[:2] == ("approval.own_proposal", 4)
        (proposal,) = project.proposals("late")
    with opened(ready, 36, EVE) as project:
        assert refused(lambda: project.promote("late"))[:2] == ("approval.missing", 4)
        decided = project.approve(proposal.id, reason="better", seen=proposal.comparison_id)
        assert {proposal.id, proposal.comparison_id, proposal.run, proposal.challenger} <= decided.evidence.keys()


def test_an_approval_of_a_comparison_that_is_not_the_newest_is_refused(ready):
    with opened(ready, 37) as project:
        seen = project.proposals("late")[0].comparison_id
        project.retrain("late", "compare")
    with opened(ready, 37, EVE) as project:
        assert refused(lambda: project.approve("late", reason="better", seen=seen))[:2] == ("approval.stale", 5)


def test_a_comparison_of_two_weeks_ago_is_too_old_to_approve(ready):
    with opened(ready, 43.5, EVE) as project:
        assert refused(lambda: project.approve("late", reason="better"))[:2] == ("approval.stale", 5)


# Retraining


def test_triggers_propose_once_and_say_what_they_saw(live):
    with opened(live, 20) as project:
        project.label("late")
        assert project.retrain("late").proposal is None
        project.clock.set(day(27))
        project.label("late")
        done = project.retrain("late")
        assert (done.words, done.proposal.state) == ("proposed", "open")
        assert done.next == "seatrial retrain late train"
        assert project.retrain("late").proposal.id == done.proposal.id
        assert len(project.proposals("late")) == 1


def test_a_trigger_leaves_out_what_is_too_young_where_labels_that_come_first_are_unlike_the_others(live):
    """That a parcel is late is known four days after its prediction, and of the others after an hour."""
    table = pq.read_table(live / "parcels.parquet")
    waited = np.where(table["late"].to_numpy(), np.timedelta64(96, "h"), np.timedelta64(1, "h"))
    known = pa.array(table["at"].to_numpy() + waited, pa.timestamp("us", tz="UTC"))
    pq.write_table(table.set_column(2, "known_at", known), live / "parcels.parquet")
    with opened(live, 27, trigger=Trigger.calibration(0.1, window="6d", every="6d", looks=1)) as project:
        project.label("late")
        reason = project.retrain("late").proposal.reason
        said = project.log.rows(model="late", window=window(17, 23), columns=["probability"])["probability"].to_numpy()
    happened = table["late"].to_numpy()[17 * A_DAY : 23 * A_DAY]
    gap = said.mean() - happened.mean()
    assert f"{gap:+.3f} on 2024-01-28; of predictions until 2024-01-24T00:00:00Z, whose labels" in reason


def test_a_challenger_is_judged_only_on_what_both_had_not_seen(judged):
    with opened(judged, 36) as project:
        (proposal,) = project.proposals("late")
        seen = proposal.comparison
        assert seen.start == "2024-01-28T00:00:00Z"  # day 27, when the challenger was trained
        assert (len(seen.days), seen.better_days) == (8, 8)
        assert (seen.ripening, seen.ripe_hours) == (1, 6)  # the day before is over, and its labels come in six hours
        assert seen.rows == 8 * A_DAY
        assert seen.low > 0


# Promotion and the way back


def test_of_two_who_saw_the_same_generation_one_promotes_and_the_other_learns_what_is_live(approved):
    with opened(approved, 36) as first, opened(approved, 36, "max") as second:
        won = first.promote("late", expected=1)
        code, exit_code, words = refused(lambda: second.promote("late", expected=1))
        assert (won.generation, won.version) == (2, "2")
        assert (code, exit_code) == ("metadata.head_moved", 5)
        assert "generation 2" in words
        assert won.live in words
        assert second.proposals("late")[0].state == "live"
        assert refused(lambda: second.promote("late"))[0] == "retrain.nothing_proposed"


def test_a_challenger_takes_its_steps_and_its_approval_holds_until_they_are_over(approved):
    with opened(approved, 36, strategy=Canary()) as project:
        begun = project.promote("late")
        assert (begun.share, begun.steps, begun.version) == (5, [5, 25, 100], "2")
        assert begun.step_ends == (day(37)).isoformat().replace("+00:00", "Z")
        assert project.proposals("late")[0].state == "approved"
        assert refused(lambda: project.promote("late"))[0] == "rollout.under_way"
        # the approval was given for the generation at which the rollout began
        done = project.deploy("late", release="late:2", at_once=True, reason="no need to wait")
        assert (done.share, project.proposals("late")[0].state) == (100, "live")


def test_a_challenger_whose_rollout_went_back_is_proposed_no_longer(approved):
    with opened(approved, 36, strategy=Canary()) as project:
        project.promote("late")
        assert project.rollback("late", reason="somebody rang").settled
        assert project.proposals("late")[0].state == "rolled back"
        assert refused(lambda: project.promote("late"))[0] == "retrain.nothing_proposed"
        assert refused(lambda: project.deploy("late", release="late:2"))[0] == "deploy.was_taken_back"
        again = {"release": "late:2", "reason": "it was the phones"}
        assert refused(lambda: project.deploy("late", **again))[0] == "approval.stale"


def test_what_was_live_once_comes_back_without_being_asked_for(ready):
    with opened(ready, 36, approval="none") as project:
        project.deploy("late", release="late:2", reason="in a hurry")
        project.rollback("late", reason="too much of a hurry")
    with opened(ready, 36) as project:
        assert project.deploy("late", release="late:2", reason="nobody hurries now").generation == 4


def test_a_roll_back_returns_to_what_was_live_and_minds_who_was_first(approved):
    with opened(approved, 36) as project:
        assert refused(lambda: project.rollback("late"))[0] == "deploy.nothing_to_roll_back_to"
        project.promote("late")
        assert refused(lambda: project.rollback("late", expected=1))[1] == 5
        done = project.rollback("late", expected=2, reason="the phones ring")
        assert (done.generation, done.settled) == (3, True)
        assert project.status()[0].live == "1"


def test_a_roll_back_without_the_metadata_store_is_told_of_when_it_is_back(approved, tmp_path):
    with opened(approved, 36) as project:
        project.promote("late")
    away(approved, tmp_path / "away")
    with opened(approved, 36.1) as project:
        done = project.rollback("late", reason="the disk is gone")
        assert (done.generation, done.settled) == (3, False)
    back(approved, tmp_path / "away")
    with opened(approved, 37) as project:
        project.reconcile()
        assert project.status()[0].live == "1"
        event = project.metadata.events(subject="deployment/late")[-1]
        assert (event.kind, event.body["reason"]) == ("rollback", "the disk is gone")
        assert (event.actor, event.at_us) == (ADA, to_us(day(36.1)))
        assert project.audit_verify().intact


def test_who_decided_otherwise_while_it_was_away_is_right(approved, tmp_path):
    with opened(approved, 36) as project:
        project.promote("late")
    elsewhere = shutil.copytree(approved / ".seatrial", tmp_path / "elsewhere")
    with opened(approved, 36.1) as project:
        project.rollback("late")
        project.deploy("late", release="late:2", reason="decided on another host")
    away(approved, tmp_path / "away")
    shutil.rmtree(approved / ".seatrial" / "routes")
    shutil.copytree(elsewhere / "routes", approved / ".seatrial" / "routes")  # this host heard of none of it
    with opened(approved, 36.2) as project:
        assert project.rollback("late").settled is False
    back(approved, tmp_path / "away")
    with opened(approved, 37) as project:
        project.reconcile()
        assert project.status()[0].live == "2"
        route = project.routes.read("late", project.signer[1])
        assert (route.generation, route.arms[0].release) == (4, project.releases("late")[-1]["release"])
        assert "rollback.superseded" in [event.kind for event in project.metadata.events(subject="deployment/late")]


def away(folder, to):
    to.mkdir()
    for path in (folder / ".seatrial").glob("metadata.db*"):
        shutil.move(path, to / path.name)


def back(folder, place):
    for path in place.iterdir():
        shutil.move(path, folder / ".seatrial" / path.name)


# Looking closely


def test_a_prediction_is_explained_and_replayed_on_the_release_before(approved):
    with opened(approved, 36) as project:
        project.promote("late")
        (answer,) = project.predict("late", [PARCEL | {"season": 1.0}], request_ids=["X"])
        project.clock.set(day(37))
        project.label("late", [{"request_id": "X", "late": 1}])
        found = project.explain(answer["prediction_id"])
        assert {one.name: (one.served, one.recomputed, one.equal) for one in found.inputs} == {
            "size": (0.4, 0.4, True),
            "season": (1.0, 1.0, True),
        }
        assert [(one.role, one.version, one.same) for one in found.replays] == [
            ("answered", "2", True),
            ("live before", "1", None),
        ]
        assert found.replays[1].score < found.replays[0].score  # the release before knows of no season
        assert found.label == {"label": 1.0, "known_at": "2024-02-07T00:00:00Z"}
        assert [(one["actor"], one["asserted"]) for one in found.approvals] == [(EVE, True)]
        assert {"prediction", "release", "version", "run", "snapshot"} <= {node.kind for node in found.lineage.nodes}
        assert project.explain("X").prediction_id == answer["prediction_id"]


def test_only_predictions_are_explained(live):
    with opened(live, 27) as project:
        assert refused(lambda: project.explain("nobody"))[0] == "lineage.unknown_id"
        release = project.releases("late")[0]["release"]
        assert refused(lambda: project.explain(release))[1] == 2


def test_a_prediction_of_a_model_that_is_gone_is_explained_without_a_recomputation(live):
    with opened(live, 28) as project:
        (answer,) = project.predict("late", [PARCEL])
    with Project(live, definitions=[ParquetSource("parcels.parquet")]) as project:
        found = project.explain(answer["prediction_id"])
        assert "no longer defines model 'late'" in found.note
        assert not any(one.known for one in found.inputs)
        assert found.replays[0].same is True


def flags(project):
    (reviewed,) = project.review()
    return {flag.name for flag in reviewed.flags}


def test_review_names_what_is_wrong_and_forgets_what_was_mended(live):
    with opened(live, 27) as project:
        assert flags(project) == {"not monitored", "no labels", "not reproducible"}
        project.label("late")
        project.monitor("late")
        assert flags(project) == {"open alerts", "not reproducible"}
        (reviewed,) = project.review()
        assert reviewed.next == "seatrial alerts list late"


def test_review_names_a_model_that_is_nobodys_and_that_nobody_approved(fresh):
    with opened(fresh, 15, approval="none", owner="", runbook="") as project:
        project.deploy("late", reason="a trial")
        found = flags(project)
    assert {"nobody to call", "not approved"} <= found


def test_a_batch_is_measured_by_the_labels_that_are_known_by_then(live):
    with opened(live, 28) as project:
        scored = project.predict_batch("late", window(26, 28))
        assert (scored.predictions, scored.labelled) == (2 * A_DAY, 2 * A_DAY - 11)  # known six hours later
        young = project.predict_batch("late", window(27.8, 28))
        assert (young.labelled, young.metrics) == (0, {})


def test_a_window_that_is_scored_again_is_not_logged_again(live):
    with opened(live, 28) as project:
        again = project.predict_batch("late", window(15, 28))
        assert again.predictions > again.logged > 0
        assert project.predict_batch("late", window(15, 28)).logged == 0
        logged = project.log.rows(model="late", columns=["request_id", "at", "release"]).to_pylist()
    assert len({tuple(row.values()) for row in logged}) == len(logged) == again.predictions
