"""From a prediction to a decision: the week of April 2013 in which air-traffic controllers were furloughed.

The story goes on where the journey of `test_flights` ends: April was served, nobody knows yet how it came out. The
project's clock is put at each morning on which somebody would have looked. Each fixture is one part of the story, made
once; every test looks at one thing that came of it. `test_year` has what a year of weekly retraining would be worth.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seatrial import Project
from seatrial.cli import canary_story
from seatrial.cli.story import day, weekly_looks
from seatrial.core.errors import SeatrialError
from seatrial.core.windows import parse_window
from seatrial.monitoring.policy.watch import GROUPS
from seatrial.testing import FakeClock
from tests.journeys.lots import LOTS, decided
from tests.journeys.pictures import note, of_comparison, of_days
from tests.journeys.worlds import APRIL, ENGINEER, MIDNIGHT, REVIEWER, opened, served, twin

pytestmark = pytest.mark.slow

MAY = parse_window("2013-05-01T04:00:00Z/2013-06-01T04:00:00Z")
REASON = "the summer is later than the winter"


def refused(act: Any) -> SeatrialError:
    """The error that `act` is answered by."""
    with pytest.raises(SeatrialError) as error:
        act()
    return error.value


def calibration(report: Any) -> Any:
    return next(one for one in report.alarms if one.metric == "calibration_gap")


def drifted(report: Any) -> set[str]:
    return {one.name for one in report.drift.columns if one.drifted}


def at(project: Project, when: datetime, actor: str = ENGINEER) -> Project:
    """`project`, when it is `when` and `actor` acts."""
    project.clock = FakeClock(when)
    project.actor = actor
    return project


def alarms(project: Project) -> list[Any]:
    """The alerts of declared alarms; that nothing is predicted after the replay's end is another thing, and so are the
    tickets of the policy."""
    every = project.alerts("late", every=True)
    return [one for one in every if one.kind == "alarm" and one.alarm not in {group.name for group in GROUPS}]


@pytest.fixture(scope="module")
def webhook() -> Iterator[list[dict[str, Any]]]:
    """What a server at the address of the model's on_call was sent."""
    sent: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPS_WEBHOOK", f"http://127.0.0.1:{server.server_port}/alerts")
        yield sent
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def april(journey, webhook) -> Iterator[SimpleNamespace]:
    """Labels, a report every morning, and the triggers asked on Mondays."""
    project = opened(journey.twin, MIDNIGHT)
    served = project.log.rows(columns=["prediction_id", "at"]).sort_by("at")["prediction_id"]
    reviewed = project.review()
    told = at(project, day(5, 3)).label("late")
    again = project.label("late")
    mornings: dict[datetime, Any] = {}
    proposed: dict[datetime, Any] = {}
    for when in [*(day(4, number) for number in (*range(8, 25), 26, 29, 30)), day(5, 1), day(5, 2)]:
        mornings[when] = at(project, when).monitor("late")
        if when in (day(4, 15), day(4, 22), day(4, 29)):
            proposed[when] = project.retrain("late")
    whole = at(project, day(5, 3)).monitor("late", window=APRIL, keep=False)
    note("week", of_days(whole)[14:])
    yield SimpleNamespace(
        project=project, reviewed=reviewed, served=served, told=told, again=again, mornings=mornings,
        proposed=proposed, whole=whole, alerts=alarms(project),
        sent=[one for one in webhook if one["alert"]["alarm"] != "no predictions"],  # the replay ends with April
    )  # fmt: skip
    project.close()


@pytest.fixture(scope="module")
def spring(april) -> SimpleNamespace:
    """The challenger of 29 April is judged for sixty days while version 1 goes through May."""
    project = april.project
    trained = at(project, day(4, 29)).retrain("late", "train")
    second = [refused(lambda: at(project, day(4, 30)).retrain("late", "train", reason="once more"))]
    proposed = project.retrain("late")
    scored = at(project, day(6, 3)).predict_batch("late", MAY)
    told = project.label("late")
    mornings = {when: at(project, when).monitor("late") for when in (day(5, number) for number in range(3, 32, 2))}
    opened_in_may = [one for one in alarms(project) if one not in april.alerts]
    looks = weekly_looks(project, day(4, 29), day(6, 28))
    unproved = refused(lambda: at(project, day(6, 28), REVIEWER).approve("late", reason="it knows the bad week"))
    unpromoted = refused(lambda: at(project, day(6, 28)).promote("late"))
    rejected = at(project, day(6, 28), REVIEWER).reject("late", reason="sixty days did not show it to be better")
    lots = decided(at(project, day(6, 28)), trained.proposal)
    note("april", of_comparison(looks[-1][1].proposal.comparison))
    note("april by other lots", lots)
    return SimpleNamespace(
        project=project, trained=trained, second=second[0], proposed=proposed, scored=scored, told=told,
        mornings=mornings, opened_in_may=opened_in_may, looks=looks, unproved=unproved, unpromoted=unpromoted,
        rejected=rejected, proposal=project.proposal_show(trained.proposal.id), lots=lots,
    )  # fmt: skip


@pytest.fixture(scope="module")
def summer(spring) -> SimpleNamespace:
    """A challenger that somebody asks for on 1 July is shown to be better by September, and approved."""
    project = spring.project
    trained = at(project, day(7, 1)).retrain("late", "train", reason=REASON)
    looks = weekly_looks(project, day(7, 1), day(8, 1))
    july = looks[-1][1]
    looks += weekly_looks(project, day(7, 1), day(9, 29), after=day(8, 1))
    better = looks[-1][1]
    lots = decided(project, trained.proposal)
    own = refused(lambda: project.approve("late", reason="mine is better"))
    unapproved = refused(lambda: project.promote("late"))
    approved = at(project, day(9, 16), REVIEWER).approve(
        "late", reason="better on most days", seen=better.proposal.comparison_id
    )
    note("july", of_comparison(better.proposal.comparison))
    note("july by other lots", lots)
    return SimpleNamespace(
        project=project, trained=trained, looks=looks, july=july, better=better, own=own, unapproved=unapproved,
        approved=approved, lots=lots,
    )  # fmt: skip


@pytest.fixture(scope="module")
def overtaken(summer, tmp_path_factory) -> SimpleNamespace:
    """The same moment, had somebody without a policy deployed another release between approval and promotion."""
    summer.project.close()
    folder = twin(summer.project.folder, tmp_path_factory.mktemp("overtaken") / "flights")
    with opened(folder, day(9, 16), actor="somebody", approval="none") as other:
        deployed = other.deploy("late", release="late:2")
    with opened(folder, day(9, 16)) as project:
        return SimpleNamespace(deployed=deployed, stale=refused(lambda: project.promote("late")))


@pytest.fixture(scope="module")
def rolled(summer, overtaken, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """16 to 18 September, asked of a server: the approved one takes its steps, one from a notebook is taken back."""
    folder = twin(summer.project.folder, tmp_path_factory.mktemp("rolled") / "flights")
    project = opened(folder, day(9, 16))
    project.materialize()
    with served(folder, "--replay") as (_, url):
        told: list[str] = []
        begun = project.promote("late", reason="approved")
        looks = canary_story.stepped(project, begun, told.append, None, url)
        stood = project.status()[0].live, project.proposals("late")[-1].state
        odd = canary_story.wrong_way_round(project)
        project.actor = REVIEWER
        project.approve(odd.id, reason="the notebook looked good")
        project.actor = ENGINEER
        tried = project.deploy("late", release=odd.id)
        back = canary_story.judged(project, tried.generation, timedelta(hours=8), None, url)
    yield SimpleNamespace(
        project=project, begun=begun, looks=looks, stood=stood, told=told, tried=tried, back=back,
        history=project.deployment_status("late").history,
    )  # fmt: skip
    project.close()


@pytest.fixture(scope="module")
def live(summer, overtaken, rolled) -> Iterator[SimpleNamespace]:
    """16 September: two people promote at once. Then roll back, with the metadata store and without it."""
    folder = summer.project.folder
    file = folder / "project.py"  # these are about who is first and about going back, not about steps
    text = (
        file.read_text()
        .replace("strategy=canary", "strategy=BlueGreen()")
        .replace("    Canary,", "    BlueGreen,\n    Canary,")
    )
    file.write_text(text)
    promotions = at_once(folder, "promote", "late", "--expect", "1", "--reason", "approved")
    project = opened(folder, day(9, 16))
    versions = [project.status()[0].live]
    back = project.rollback("late", reason="the phones ring")
    versions.append(project.status()[0].live)
    again = project.deploy("late", release="late:3", reason="it was not the model")
    project.close()
    with without_metadata(folder):
        alone = opened(folder, day(9, 17)).rollback("late", reason="the disk is gone as well")
    project = opened(folder, day(9, 17))
    project.reconcile()
    versions.append(project.status()[0].live)
    told = project.metadata.events(subject="deployment/late")
    last = project.deploy("late", release="late:3", reason="back to what is better")
    yield SimpleNamespace(
        project=project, promotions=promotions, versions=versions, back=back, again=again, alone=alone, told=told,
        last=last,
    )  # fmt: skip
    project.close()


def at_once(folder: Path, *words: str) -> list[tuple[int, dict[str, Any]]]:
    """Exit code and answer of the same command, run by two processes at the same time."""
    command = [sys.executable, "-m", "seatrial", "--project", str(folder), "--at", "2013-09-16T04:00:00Z", "--json"]
    environment = os.environ | {"SEATRIAL_POLICY_APPROVAL": "required", "SEATRIAL_ACTOR": ENGINEER}
    running = [
        subprocess.Popen([*command, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    done = [(process.communicate(timeout=60), process.returncode) for process in running]
    return sorted((code, json.loads(out or err)) for (out, err), code in done)


class without_metadata:
    """The metadata store's files are away while the block runs."""

    def __init__(self, folder: Path) -> None:
        self.state, self.away = folder / ".seatrial", folder / "away"

    def __enter__(self) -> None:
        self.away.mkdir()
        for path in self.state.glob("metadata.db*"):
            path.rename(self.away / path.name)

    def __exit__(self, *_: object) -> None:
        assert not list(self.state.glob("metadata.db*"))
        for path in self.away.iterdir():
            path.rename(self.state / path.name)


# April: what is known, what fires, who is told


def test_labels_find_their_predictions_and_are_told_once(april):
    assert (april.told.predictions, april.told.matched) == (28_330, 27_564)
    assert (april.told.unmatched, april.told.duplicate, april.told.contradicting, april.told.before) == (0, 0, 0, 0)
    assert (april.again.told, april.again.matched) == (0, 27_564)


def test_a_late_label_counts_in_the_window_of_its_prediction(april):
    assert april.whole.performance.labelled == 27_564
    assert april.whole.performance.labels["late"] == 48  # landed after midnight of 30 April


def test_the_alarm_first_fires_on_the_morning_of_23_april_and_is_over_by_2_may(april):
    states = {when: calibration(report).state for when, report in april.mornings.items()}
    assert [state for when, state in states.items() if when < day(4, 23)] == ["quiet"] * 15
    assert states[day(4, 23)] == "fired"
    assert [states[day(4, number)] for number in (24, 26, 29)] == ["fired"] * 3
    assert states[day(5, 2)] == "quiet"
    assert calibration(april.mornings[day(4, 23)]).value == pytest.approx(0.103, abs=0.005)


def test_no_drift_statistic_saw_anything_new_on_that_morning(april):
    before, then = april.mornings[day(4, 22)], april.mornings[day(4, 23)]
    assert drifted(then) <= drifted(before)
    quiet = [report.drift.prediction for when, report in april.mornings.items() if when < day(4, 22)]
    assert then.drift.prediction.value < max(one.value for one in quiet)
    assert any(one.drifted for one in quiet) or not then.drift.prediction.drifted
    assert all(check.passed for check in then.quality)
    assert then.verdict == "act"
    assert "under-predicted" in then.headline


def test_the_alert_says_whose_it_is_what_was_found_and_what_to_do(april):
    (alert,) = april.alerts
    assert (alert.owner, alert.on_call, alert.severity) == ("flight-ops", "webhook:ops", "high")
    assert alert.runbook == "docs/runbook.md"
    assert "retrain" in alert.action
    assert alert.opened_at == "2013-04-23T04:00:00Z"
    assert alert.evidence["labelled"] > 6000
    assert alert.evidence["observed"] - alert.evidence["mean_score"] == pytest.approx(alert.evidence["value"])


def test_a_week_of_mornings_is_one_alert_and_it_ends_by_itself(april):
    (alert,) = april.alerts
    fired = [report for report in april.mornings.values() if calibration(report).state == "fired"]
    assert alert.seen == len(fired) >= 4
    assert {calibration(report).alert for report in fired} == {alert.id}
    assert alert.state == "resolved"
    assert day(4, 29).isoformat() < alert.resolved_at <= "2013-05-02T04:00:00Z"


def test_who_is_on_call_is_paged_once(april):
    pages = [message for message in april.sent if message["page"] and message["event"] == "opened"]
    assert len(pages) == 1  # what opens later joins it, and the end is told when nothing of it rings any more
    assert [message["event"] for message in april.sent].count("resolved") <= 1
    told = pages[0]["alert"]
    assert told["id"] in {alert.id for alert in april.project.alerts("late", every=True)}
    assert {"headline", "evidence", "action", "runbook", "owner"} <= told.keys()


def test_a_report_shows_what_happened_to_the_model_and_how_it_was_before(april):
    (*earlier, last) = april.mornings.values()
    policy = {group.name for group in GROUPS}
    marks = [(mark.kind, mark.at[:10]) for mark in last.marks if mark.words not in policy]
    assert [kind for kind, _ in marks if kind != "alert"] == ["release", "proposal", "resolved"]
    assert {("release", "2013-04-01"), ("alert", "2013-04-23"), ("proposal", "2013-04-29")} < set(marks)
    assert marks[-1] == ("resolved", "2013-05-01")
    assert len(last.history) == len(earlier)
    assert any("of this window's labels have arrived" in finding for finding in last.findings)


def test_the_triggers_propose_on_monday_29_april_and_not_before(april):
    assert [done.proposal is not None for done in april.proposed.values()] == [False, False, True]
    assert "nothing to propose" in april.proposed[day(4, 22)].words
    proposal = april.proposed[day(4, 29)].proposal
    assert (proposal.state, proposal.challenger, proposal.generation) == ("open", None, 1)
    assert "calibration gap" in proposal.trigger


# Spring: the challenger that was not shown to be better


def test_the_challenger_passes_the_gates_of_its_model_and_nothing_goes_live(journey, spring):
    run = spring.project.run_show(spring.proposal.run)
    assert [gate["gate"] for gate in run["gates"]] == [gate["gate"] for gate in journey.trained.gates]
    assert all(gate["passed"] for gate in run["gates"])
    assert spring.trained.proposal.state == "judging"
    assert spring.scored.release == journey.released.id


def test_one_proposal_at_a_time_is_under_way(spring):
    assert spring.second.code == "retrain.nothing_proposed"
    assert "under way" in spring.proposed.words
    assert spring.proposed.proposal.id == spring.trained.proposal.id


def test_may_in_batch_is_quiet_but_for_pressure_readings_that_did_not_arrive(spring):
    assert spring.scored.predictions == 28_796
    assert spring.told.matched == 27_564 + spring.scored.labelled
    assert [calibration(report).state for report in spring.mornings.values()] == ["quiet"] * 15
    assert [one.alarm for one in spring.opened_in_may] == ["data broken"] * 2
    assert [(one.opened_at[:10], one.resolved_at[:10]) for one in spring.opened_in_may] == [
        ("2013-05-11", "2013-05-17"),
        ("2013-05-25", "2013-05-31"),
    ]
    assert all("'airport_weather__pressure'" in one.words for one in spring.opened_in_may)


def test_the_challenger_of_29_april_is_inconclusive_at_every_weekly_look_for_sixty_days(spring):
    """`test_year` has what the looks after the sixtieth day would have said."""
    comparisons = [done.proposal.comparison for _, done in spring.looks]
    assert [one.verdict for one in comparisons] == ["too early"] + ["inconclusive"] * 8
    days = [len(one.days) for one in comparisons]
    assert days == [6, 13, 20, 27, 34, 41, 48, 55, 59]  # flights of the day before are in the air
    assert comparisons[-1].gain == pytest.approx(0.0147, abs=0.004)
    assert comparisons[-1].low < 0 < comparisons[-1].high
    assert [look[:10] for look in spring.proposal.looks] == [f"{when:%Y-%m-%d}" for when, _ in spring.looks]


def test_an_experiment_by_request_would_hardly_have_decided_in_may_either(spring):
    assert sum(spring.lots["states"].values()) == LOTS
    assert spring.lots["states"]["undecided"] >= 0.9 * LOTS


def test_the_gate_says_no_whoever_asks(spring):
    assert (spring.unproved.code, spring.unproved.exit_code) == ("approval.not_better", 3)
    assert (spring.unpromoted.code, spring.unpromoted.exit_code) == ("approval.not_better", 3)
    assert (spring.rejected.decision, spring.rejected.actor) == ("rejected", REVIEWER)
    assert spring.proposal.state == "rejected"


# Summer: the challenger that was


def test_the_winters_model_keeps_its_order_in_july_and_loses_its_level(summer):
    of_winter = summer.july.proposal.comparison.champion_metrics
    assert 0.735 <= of_winter["roc_auc"] <= 0.755
    assert 0.55 <= of_winter["log_loss"] <= 0.567
    assert 0.06 <= of_winter["expected_calibration_error"] <= 0.10


def test_the_challenger_of_1_july_wins_july(summer):
    assert summer.trained.proposal.trigger == "manual"
    assert summer.trained.proposal.reason == REASON
    seen = summer.july.proposal.comparison
    assert len(seen.days) == 30
    gain = seen.champion_metrics["log_loss"] - seen.challenger_metrics["log_loss"]
    assert 0.03 <= gain <= 0.05


def test_an_experiment_by_request_decides_for_it_however_the_flights_are_split(summer):
    states, by = summer.lots["states"], summer.lots["by"]
    assert set(states) <= {"better", "undecided"}
    assert states["better"] >= 0.98 * LOTS
    assert (by[7], by[16] >= 0.95 * LOTS) == (0, True)
    assert 7 < summer.lots["median"] < 12


def test_the_first_weekly_look_that_says_better_counts_and_it_is_the_one_of_16_september(summer):
    verdicts = [done.proposal.comparison.verdict for _, done in summer.looks]
    mondays = [day(7, 1) + timedelta(days=7 * week) for week in range(1, 12)]
    assert [when for when, _ in summer.looks] == sorted([*mondays, day(8, 1)])  # and at the end of July
    assert verdicts == ["too early"] + ["inconclusive"] * 10 + ["better"]
    seen = summer.better.proposal.comparison
    assert len(seen.days) == 76
    assert 0 < seen.low < 0.005  # by a hair


def test_who_proposed_it_cannot_approve_it_and_another_can(summer):
    assert (summer.own.code, summer.own.exit_code) == ("approval.own_proposal", 4)
    assert (summer.unapproved.code, summer.unapproved.exit_code) == ("approval.missing", 4)
    assert (summer.approved.actor, summer.approved.asserted) == (REVIEWER, True)
    proposal = summer.better.proposal
    bound = {proposal.challenger, proposal.id, proposal.run, proposal.comparison_id}
    assert bound <= summer.approved.evidence.keys()
    assert all(len(digest) == 64 for digest in summer.approved.evidence.values())


def test_an_approval_is_void_when_somebody_else_deployed_in_between(overtaken):
    assert overtaken.deployed.generation == 2
    assert (overtaken.stale.code, overtaken.stale.exit_code) == ("approval.stale", 5)


# In steps: what the evidence of each allows


def test_the_approved_one_takes_its_steps_on_what_the_flights_of_each_day_show(rolled):
    assert (rolled.begun.share, rolled.begun.version) == (25, "3")
    assert [(look.analysis.verdict, look.share) for look in rolled.looks] == [("advance", 50), ("advance", 100)]
    assert rolled.stood == ("3", "live")
    for look, wanted in zip(rolled.looks, (0.25, 0.5), strict=True):
        assert sum(look.analysis.rows.values()) > 900
        assert look.analysis.observed == pytest.approx(wanted, abs=0.05)
        assert {one.state for one in look.analysis.guardrails} == {"fine"}
    assert "mean probability 0.1" in rolled.told[1]


def test_one_from_a_notebook_that_answers_the_wrong_way_round_is_taken_back_within_a_morning(rolled):
    assert (rolled.tried.share, rolled.back.analysis.verdict, rolled.back.share) == (25, "roll back", 0)
    (crossed,) = [one for one in rolled.back.analysis.guardrails if one.state == "crossed"]
    assert (crossed.name, crossed.difference > 0.5, crossed.low > 0.05) == ("mean_score", True, True)
    assert rolled.back.analysis.rows["new"] < 300
    assert rolled.project.status()[0].live == "3"
    assert [one["verdict"] for one in rolled.history] == ["advance", "advance", "roll back"]


# Live: promotion, and the way back


def test_of_two_promotions_at_once_one_wins_and_the_other_learns_what_is_live(live):
    (won, lost) = live.promotions
    assert (won[0], won[1]["generation"], won[1]["version"]) == (0, 2, "3")
    assert (lost[0], lost[1]["code"]) == (5, "metadata.head_moved")
    assert "generation 2" in json.dumps(lost[1])
    assert [event.kind for event in live.told] == ["deploy", "deploy", "rollback", "deploy", "rollback"]


def test_a_roll_back_is_one_command(live):
    assert (live.back.generation, live.back.settled) == (3, True)
    assert live.versions[:2] == ["3", "1"]
    assert live.again.generation == 4  # it was live before, so nobody has to approve it again


def test_a_roll_back_without_the_metadata_store_is_told_later(live):
    assert (live.alone.generation, live.alone.settled) == (5, False)
    assert live.versions[2] == "1"
    assert live.told[-1].body["reason"] == "the disk is gone as well"
    assert live.last.generation == 6


# Looking closely


def test_a_prediction_is_explained_down_to_its_rows_its_commit_and_who_let_it(journey, april, live):
    found = live.project.explain(april.served[14_000].as_py())
    assert (len(found.inputs), found.different) == (33, 0)
    assert all(one.known for one in found.inputs)
    (plane,) = (one for one in found.inputs if one.name == "plane_arrival__delay")
    assert (plane.status, plane.age_s > 0) == ("present", True)
    assert found.release == journey.released.id
    assert [one.same for one in found.replays] == [True]  # nothing was live before the first release
    assert [one["actor"] for one in found.approvals] == [REVIEWER]
    assert found.label is not None
    nodes = {node.kind: node for node in found.lineage.nodes}
    assert nodes["run"].facts["code.commit"] == journey.commit
    assert len(nodes["run"].facts["lock.digest"]) == 64


def test_a_prediction_of_a_later_release_is_replayed_on_the_one_before(journey, live):
    window = parse_window("2013-09-17T10:00:00Z/2013-09-17T11:00:00Z")
    assert at(live.project, day(9, 18)).predict_batch("late", window).release == live.last.live
    found = live.project.explain(live.project.log.rows(model="late", window=window)["prediction_id"][0].as_py())
    assert found.version == "3"
    assert [(one.role, one.version, one.same) for one in found.replays] == [
        ("answered", "3", True), ("live before", "1", None),
    ]  # fmt: skip
    assert found.replays[1].release == journey.released.id
    assert found.replays[1].score != found.replays[0].score
    assert found.different == 0


def test_review_named_what_was_missing_in_april_and_finds_it_mended_in_the_end(april, live):
    (before,), (now,) = april.reviewed, live.project.review()
    assert {flag.name for flag in before.flags} == {"not monitored", "no labels"}
    assert all(flag.evidence and flag.next for flag in before.flags)
    # the replay stops here, which is an alert of its own
    assert (now.live, [flag.name for flag in now.flags if flag.name != "open alerts"]) == ("3", [])


def test_all_of_it_is_one_unbroken_chain(journey, live):
    assert live.project.audit_verify([journey.deployed.audit, live.last.audit]).intact
