"""Challenging: what asks for a retraining, what refuses it, and that a hundred askers make one run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from datetime import timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial.core.clock import iso, to_us
from seatrial.core.errors import SeatrialError
from seatrial.core.identity import new_id
from seatrial.core.records import Record
from seatrial.core.windows import Window
from seatrial.monitoring.alerting.alerts import settle
from seatrial.retraining.alone import alone
from seatrial.retraining.proposal import Proposal, keep_comparison
from tests.retraining.worlds import PER_DAY, START, TRAINED, made, opened, rows, write

DAY = timedelta(days=1)
LATER = TRAINED + 5 * DAY


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory):
    """A project whose first release is live; copied, never changed."""
    folder = tmp_path_factory.mktemp("live") / "project"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_STORES_MLFLOW", "")
        patch.setenv("SEATRIAL_POLICY_APPROVAL", "none")
        made(folder).close()
    return folder


@pytest.fixture
def folder(trained_folder, tmp_path):
    return shutil.copytree(trained_folder, tmp_path / "project", symlinks=True)


@pytest.fixture
def project(folder):
    with opened(folder, LATER) as project:
        yield project


def declared(project, **how):
    """The project with its file written anew."""
    write(project.folder, **how)
    return opened(project.folder, project.clock.now(), project.actor)


def refused(act) -> SeatrialError:
    with pytest.raises(SeatrialError) as error:
        act()
    return error.value


def trained(project):
    return project.retrain("late", "train", reason="x matters now")


def reasons(project):
    return [(one.code, one.times) for one in project.proposal_refusals("late")]


def test_no_trigger_and_no_reason_propose_nothing_and_refuse_nothing(project):
    done = project.retrain("late")
    assert (done.proposal, "nothing to propose" in done.words) == (None, True)
    assert project.proposal_refusals() == []


def test_a_schedule_proposes_when_it_is_due_and_trains_when_it_advances(project):
    with declared(project, retrain='on=["schedule:0 3 * * 1"]') as scheduled:
        scheduled.clock.set(START + 13 * DAY)  # a Sunday; Monday the 8th lies before the champion's cut-off
        assert scheduled.retrain("late").proposal is None
        scheduled.clock.set(LATER)  # Monday the 15th has passed
        done = scheduled.retrain("late", "advance")
        assert (done.proposal.state, done.proposal.trigger) == ("judging", "schedule 0 3 * * 1 UTC")
        assert done.proposal.evidence == [{"instants": 1, "at": "2024-01-15T03:00:00Z"}]
        scheduled.clock.set(LATER + 8 * DAY)
        assert scheduled.retrain("late", "advance").proposal.state == "better"


def test_new_labels_since_the_cut_off_propose(project):
    with declared(project, retrain="on=[Trigger.new_data(1000)]") as counting:
        counting.clock.set(TRAINED + 4 * DAY)
        assert "of 1,000 labels became known" in counting.retrain("late").words
        counting.clock.set(LATER + DAY)
        assert counting.retrain("late").proposal.evidence[0]["new"] > 1000


def test_a_performance_that_is_shown_to_be_worse_proposes(project):
    with declared(project, retrain='on=[Trigger.performance("roc_auc", 0.75, window="4d")]') as watched:
        watched.predict_batch("late", Window(to_us(TRAINED), to_us(LATER)))
        watched.label("late")
        done = watched.retrain("late")
        (found,) = done.proposal.evidence
        assert found["high"] < 0.75
        assert (found["metric"], found["labelled"] > 500) == ("roc_auc", True)


def test_a_broken_expectation_refuses_before_anything_is_proposed_and_says_which(project):
    table = pq.read_table(project.folder / "rows.parquet")
    x = table["x"].to_numpy().copy()
    x[7] = 999.0
    pq.write_table(table.set_column(1, "x", pa.array(x)), project.folder / "rows.parquet")
    error = refused(lambda: project.retrain("late", reason="the phones ring"))
    assert (error.code, error.exit_code) == ("retrain.data_broken", 1)
    assert "x between -50 and 50" in error.found
    assert project.proposals() == []
    (kept,) = project.proposal_refusals("late")
    assert (kept.code, kept.step, kept.trigger, kept.reason) == (error.code, "propose", "manual", error.found)
    assert refused(lambda: trained(project)).code == "retrain.data_broken"
    assert reasons(project) == [("retrain.data_broken", 1), ("retrain.data_broken", 1)]
    assert len(project.runs()) == 1  # the champion's


def test_a_hard_rule_that_the_newest_report_found_broken_refuses(project):
    project.predict_batch("late", Window(to_us(TRAINED), to_us(LATER)))
    report = project.monitor("late", keep=False)
    assert all(one.passed for one in report.quality)
    broken = msgspec.structs.replace(report.quality[0], passed=False, found="x missing")
    body = msgspec.to_builtins(msgspec.structs.replace(report, quality=[broken]))
    with project.metadata.transaction() as transaction:
        transaction.add(Record(new_id("rep"), "report", "late", (), body))
    error = refused(lambda: trained(project))
    assert (error.code, "x missing" in error.found) == ("retrain.data_broken", True)
    project.clock.set(LATER + 8 * DAY)  # it says nothing of the data of a week later
    assert trained(project).proposal.state == "judging"


def test_data_that_are_broken_are_an_alert_and_no_reason_to_train(project):
    project.predict_batch("late", Window(to_us(TRAINED), to_us(LATER)))
    report = project.monitor("late", keep=False)
    broken = msgspec.structs.replace(report.quality[0], passed=False, found="x missing")
    settle(project.metadata, msgspec.structs.replace(report, quality=[broken]), actor="ann", at_us=to_us(LATER))
    assert [one.alarm for one in project.alerts("late")] == ["data broken"]
    assert project.retrain("late").proposal is None
    assert project.proposals() == []


def test_within_the_cool_down_and_over_the_budget_is_refused_and_a_run_whose_gates_said_no_counts(project):
    with declared(project, gate=0.99, retrain='on=[], budget="2/month", cool_down="3d"') as strict:
        done = trained(strict)
        assert (done.proposal.state, done.proposal.challenger) == ("gates refused", None)
        assert "roc_auc" in done.words
        assert refused(lambda: strict.promote("late")).code == "retrain.nothing_proposed"
        assert len(strict.releases("late")) == 1  # nobody packed it
        strict.clock.set(LATER + DAY)
        early = refused(lambda: trained(strict))
        assert "1d ago" in early.found
        assert f"again from {iso(LATER + 3 * DAY)} on" in early.expected
        assert "`seatrial train late`" in early.next
        strict.clock.set(LATER + timedelta(minutes=13, seconds=57))
        assert "13m ago" in refused(lambda: trained(strict)).found
        strict.clock.set(LATER + 4 * DAY)
        assert trained(strict).proposal.state == "gates refused"
        strict.clock.set(LATER + 9 * DAY)
        spent = refused(lambda: trained(strict))
        assert "2 challengers" in spent.found
        assert f"again from {iso(LATER + 30 * DAY)} on" in spent.expected
        assert "2 challengers" in refused(lambda: strict.retrain("late", "advance", reason="again")).found
        assert reasons(strict) == [("retrain.over_budget", 3), ("retrain.over_budget", 1)]  # train, propose
        assert [one.state for one in strict.proposals()] == ["gates refused", "gates refused"]


def test_a_clock_that_was_set_back_is_refused_and_said(project):
    trained(project)
    project.reject("late", reason="not now")
    project.clock.set(LATER - DAY)
    error = refused(lambda: trained(project))
    assert (error.code, "a clock was set back" in error.found) == ("retrain.over_budget", True)


@pytest.mark.parametrize("by", ["model", "id"])
def test_a_proposal_without_a_challenger_is_rejected_alone_and_the_live_release_stays_approved(folder, four_eyes, by):
    with opened(folder, LATER) as project:
        (live,) = project.releases("late")
        proposal = project.retrain("late", reason="x matters now").proposal
        done = project.reject("late" if by == "model" else proposal.id, reason="the phones are quiet again")
        assert (done.decision, done.release, done.proposal) == ("rejected", "", proposal.id)
        assert list(done.evidence) == [proposal.id]
        assert project.metadata.events(subject=live["release"], kind="release.rejected") == []
        assert project.proposal_show(proposal.id).state == "rejected"
        assert project.deploy("late").generation == 1  # nothing stands against what is live
        assert refused(lambda: project.reject(proposal.id, reason="again")).code == "retrain.nothing_proposed"
        assert project.retrain("late", reason="x matters now").proposal.state == "open"


def test_a_proposal_that_is_rejected_while_it_is_trained_stays_rejected(project):
    proposal = project.retrain("late", reason="x matters now").proposal
    project.reject("late", reason="the phones are quiet again")
    with project.metadata.transaction() as transaction:
        body = {"run": "run_1", "release": "rel_1"}
        transaction.event("proposal.trained", proposal.id, actor="ada", at_us=to_us(LATER), body=body)
    assert project.proposal_show(proposal.id).state == "rejected"


def test_what_is_live_is_not_rejected_but_rolled_back(project):
    (live,) = project.releases("late")
    for name in ("late", live["release"]):
        error = refused(lambda name=name: project.reject(name, reason="it was wrong"))
        assert (error.code, error.exit_code) == ("approval.already_live", 5)
        assert "seatrial rollback late" in error.next
    assert project.metadata.events(subject=live["release"], kind="release.rejected") == []


def test_while_another_release_takes_the_traffic_in_steps_nothing_is_proposed(project):
    run = project.train("late").run
    project.release(run)
    with declared(project, strategy="Canary([5, 100])") as rolling:
        rolling.deploy("late", reason="by hand")
        error = refused(lambda: rolling.retrain("late", reason="x matters now"))
        assert (error.code, error.exit_code) == ("retrain.rollout_under_way", 5)
        assert reasons(rolling) == [("retrain.rollout_under_way", 1)]


def test_a_proposal_that_is_under_way_is_not_doubled_and_each_asking_is_kept(project):
    project.retrain("late", reason="first")
    for _ in range(5):
        assert "under way" in project.retrain("late", reason="again").words
    (kept,) = project.proposal_refusals("late")
    assert (kept.code, kept.times, kept.trigger) == ("retrain.under_way", 5, "again")


def crowd(folder, step: str, **how: str) -> list[str]:
    """What a hundred callers at once are told: words, or the code of a refusal."""
    done: list[str] = []
    told = threading.Lock()

    def ring() -> None:
        with opened(folder, LATER) as project:
            try:
                words = project.retrain("late", step, **how).words
            except SeatrialError as error:
                words = error.code
        with told:
            done.append(words)

    threads = [threading.Thread(target=ring) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def one_proposal_and_one_run(folder, **how: str) -> Proposal:
    """Of a hundred who propose at once and then train; the proposal."""
    answers = crowd(folder, "propose", **how)
    assert sorted(set(answers)) == ["a proposal is under way since 2024-01-16", "proposed"]
    assert answers.count("proposed") == 1
    answers = crowd(folder, "train")
    assert sum("packed" in one for one in answers) == 1
    assert {one for one in answers if "packed" not in one} <= {"retrain.training", "retrain.nothing_proposed"}
    with opened(folder, LATER) as project:
        assert len(project.metadata.records("run", "late")) == 2  # the champion's and one more
        (proposal,) = project.proposals()
        assert proposal.state == "judging"
        assert sum(one.times for one in project.proposal_refusals("late") if one.code == "retrain.under_way") == 99
    return proposal


def test_a_hundred_askers_at_once_make_one_proposal_and_one_run(folder):
    assert one_proposal_and_one_run(folder, reason="it rings").trigger == "manual"


def test_an_alarm_that_rings_proposes_and_a_hundred_calls_without_a_reason_make_one_run(folder):
    with (folder / "project.py").open("a") as file:
        file.write('Monitor("late", alarms=[Alarm.below("roc_auc", 0.75, "4d")], calibration=False)\n')
    with opened(folder, LATER) as project:
        assert project.retrain("late").proposal is None
        project.predict_batch("late", Window(to_us(TRAINED), to_us(LATER)))
        project.label("late")
        assert project.retrain("late").proposal is None  # nobody has looked
        (fired,) = [one for one in project.monitor("late").alarms if one.state == "fired"]
    found = one_proposal_and_one_run(folder)
    assert found.trigger == "an open alert of high severity"
    assert found.evidence == [{"alerts": [fired.alert]}]
    assert "roc auc is 0.6" in found.reason


RING = """
import sys
from pathlib import Path
from seatrial.core.errors import SeatrialError
from tests.verbs.test_challenging import LATER
from tests.retraining.worlds import opened

print("ready", flush=True)
sys.stdin.readline()
for _ in range(25):
    with opened(Path(sys.argv[1]), LATER) as project:
        try:
            print(project.retrain("late", "advance", reason="it rings").words, flush=True)
        except SeatrialError as error:
            print(error.code, flush=True)
"""


@pytest.mark.slow
def test_a_hundred_askers_at_once_in_four_processes_make_one_proposal_and_one_run(folder):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", RING, str(folder)]
    ringing = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True) for _ in range(4)
    ]
    for one in ringing:
        assert one.stdout.readline() == "ready\n"
    answers = []
    for one in ringing:
        one.stdin.write("\n")
        one.stdin.flush()
    for one in ringing:
        answers += one.communicate(timeout=120)[0].splitlines()
    assert len(answers) == 100
    assert sum("packed" in one for one in answers) == 1
    with opened(folder, LATER) as project:
        assert len(project.metadata.records("run", "late")) == 2  # the champion's and one more
        assert [one.state for one in project.proposals()] == ["judging"]


def test_a_training_that_breaks_off_stays_open_and_costs_budget_when_it_had_begun_to_fit(project):
    project.retrain("late", reason="x matters now")
    with declared(project, estimator="sklearn.linear_model.LogisticRegression", params='{"C": -1.0}') as broken:
        error = refused(lambda: broken.retrain("late", "train"))
        assert error.code == "training.estimator_failed"
        (proposal,) = broken.proposals()
        assert (proposal.state, len(proposal.failed)) == ("open", 1)
        assert reasons(broken)[-1] == ("training.estimator_failed", 1)
        refused(lambda: broken.retrain("late", "train"))
        assert refused(lambda: broken.retrain("late", "train")).code == "retrain.over_budget"


def test_a_deployment_that_changed_under_a_proposal_ends_it_and_says_why(project):
    trained(project)
    project.release(project.train("late", cutoff=LATER - DAY).run)
    project.deploy("late", reason="by hand")
    newer = project._live_release("late").id
    project.clock.set(LATER + 9 * DAY)
    error = refused(lambda: project.retrain("late", "compare"))
    assert "overtaken" in error.found
    (proposal,) = project.proposals()
    assert (proposal.state, newer in proposal.ended) == ("overtaken", True)
    assert project.retrain("late", reason="anew").proposal.champion == newer


def test_a_challenger_that_was_taken_out_of_use_ends_the_proposal(project):
    challenger = trained(project).proposal.challenger
    project.release_delete(challenger, reason="learnt from wrong rows")
    error = refused(lambda: project.retrain("late", "compare"))
    assert ("overtaken" in error.found, f"{challenger} was taken out of use" in error.found) == (True, True)
    project.clock.set(LATER + 4 * DAY)
    assert project.retrain("late", reason="anew").words == "proposed"


def test_a_champion_that_was_taken_out_of_use_ends_the_proposal(project):
    first = project._live_release("late").id
    trained(project)
    for back in (1, 2):
        project.release(project.train("late", cutoff=LATER - back * DAY).run)
        project.deploy("late", reason="by hand")
    project.release_delete(first, reason="learnt from wrong rows")
    assert "overtaken" in refused(lambda: project.retrain("late", "compare")).found


def test_a_challenger_that_was_shown_to_be_worse_is_compared_no_more(project):
    trained(project)
    project.clock.set(LATER + 9 * DAY)
    looked = project.retrain("late", "compare").proposal
    with project.metadata.transaction() as transaction:
        worse = msgspec.structs.replace(looked.comparison, verdict="worse")
        keep_comparison(transaction, looked, worse, actor="ada", at_us=to_us(LATER + 9 * DAY))
    project.clock.set(LATER + 12 * DAY)
    error = refused(lambda: project.retrain("late", "compare"))
    assert (error.code, "the newest proposal is worse" in error.found) == ("retrain.nothing_proposed", True)
    assert project.proposals()[0].state == "worse"


def test_a_day_is_judged_when_the_slowest_outcome_had_the_time_to_be_known(folder):
    table = pq.read_table(folder / "rows.parquet")
    at = table["at"].to_numpy()
    slow = table["late"].to_numpy() & (at >= np.datetime64(LATER.replace(tzinfo=None), "us"))
    lag = np.where(slow, np.timedelta64(6, "D"), np.timedelta64(1, "h"))
    known = pa.array(at + lag, pa.timestamp("us", "UTC"))
    pq.write_table(table.set_column(6, "known", known), folder / "rows.parquet")
    with opened(folder, LATER) as project:
        trained(project)
        project.clock.set(LATER + 9 * DAY)
        looked = project.retrain("late", "compare").proposal.comparison
        assert (looked.verdict, len(looked.days), looked.ripening, looked.ripe_hours) == ("too early", 3, 6, 6 * 24)
        assert looked.rows == 3 * PER_DAY
        assert "3 of 7 whole days with labels, all of them about 2024-01-29" in looked.words
        assert "days that still ripen: 6 (6d until their labels are there)" in looked.words
        project.clock.set(LATER + 13 * DAY)
        later = project.retrain("late", "compare").proposal.comparison
        assert (later.verdict, later.days[:3]) == ("better", looked.days)


def test_labels_that_never_come_propose_nothing_and_judge_nothing(folder):
    table = pq.read_table(folder / "rows.parquet")
    at = table["at"].to_numpy()
    known = np.where(
        at < np.datetime64(TRAINED.replace(tzinfo=None), "us"), table["known"].to_numpy(), np.datetime64("NaT")
    )
    late = pa.array([one if ok else None for one, ok in zip(table["late"].to_pylist(), ~np.isnat(known), strict=True)])
    pq.write_table(
        table.set_column(3, "late", late).set_column(6, "known", pa.array(known, pa.timestamp("us", "UTC"))),
        folder / "rows.parquet",
    )
    write(folder, retrain="on=[Trigger.new_data(50), Trigger.calibration()]")
    with opened(folder, LATER) as project:
        words = project.retrain("late").words
        assert "not enough data" in words
        assert "8 of 50 labels became known" in words
        assert trained(project).proposal.state == "judging"
        project.clock.set(LATER + 60 * DAY)
        looked = project.retrain("late", "compare").proposal.comparison
        assert (looked.verdict, looked.rows, looked.final) == ("too early", 0, True)


def test_retraining_on_a_machine_with_more_processes_takes_the_lock_of_the_operating_system(folder):
    locks = folder / ".seatrial" / "retraining"
    with alone(locks, "late"), opened(folder, LATER) as project:
        error = refused(lambda: trained(project))
        assert (error.code, str(os.getpid()) in error.found) == ("retrain.training", True)
        assert reasons(project) == [("retrain.training", 1)]


# who lets it live

AUTO = 'on=[], approval="auto-if-better", margins={"log_loss": 0.02, "positive_rate": 0.9}'


@pytest.fixture
def four_eyes(monkeypatch):
    monkeypatch.setenv("SEATRIAL_POLICY_APPROVAL", "required")


def test_a_challenger_of_new_data_alone_that_is_better_within_its_margins_is_promoted_and_why_is_kept(
    project, four_eyes
):
    with declared(project, retrain=AUTO) as auto:
        auto.release(
            auto.train("late", cutoff=TRAINED).run
        )  # the declaration changed, and with it the definitions' code
    with opened(project.folder, LATER, "eve") as other:
        release = other.releases("late")[-1]["release"]
        other.approve(release, reason="the file changed")
        other.deploy("late")
    with opened(project.folder, LATER) as auto:
        assert trained(auto).proposal.state == "judging"
        auto.clock.set(LATER + 9 * DAY)
        done = auto.retrain("late", "advance")
        assert done.proposal.state == "live"
        assert "promoted by policy, 100 % of the traffic" in done.words
        (kept,) = [event for event in auto.metadata.events(kind="release.approved") if event.body["exempt"]]
        assert kept.body["exempt"]["changed"].startswith("Patch: only data changed since")
        assert kept.body["exempt"]["margins"] == {"log_loss": 0.02, "positive_rate": 0.9}
        assert "better: log_loss lower by" in kept.body["reason"]
        assert any("log_loss of where=north" in one for one in kept.body["exempt"]["changes"])


@pytest.mark.slow
def test_a_challenger_that_takes_no_null_goes_live_without_a_person_where_no_caller_sends_one(tmp_path, monkeypatch):
    table = rows(24)
    x = np.where(np.arange(table.num_rows) % 50 == 0, np.nan, table["x"].to_numpy())
    x[10 * PER_DAY :] = table["x"].to_numpy()[10 * PER_DAY :]  # since then nobody has left it out
    table = table.set_column(1, "x", pa.array(x, from_pandas=True))
    model = {"estimator": "lightgbm.LGBMClassifier", "params": '{"n_estimators": 20, "min_child_samples": 5}'}
    monkeypatch.setenv("SEATRIAL_STORES_MLFLOW", "")
    monkeypatch.setenv("SEATRIAL_POLICY_APPROVAL", "none")
    made(tmp_path, table, retrain=AUTO, **model).close()
    monkeypatch.setenv("SEATRIAL_POLICY_APPROVAL", "required")
    pq.write_table(table.slice(10 * PER_DAY), tmp_path / "rows.parquet")
    with opened(tmp_path, LATER) as auto:
        auto.predict("late", [{"x": 1.0, "y": 0.0}] * 900)
        assert trained(auto).proposal.state == "judging"
        auto.clock.set(LATER + 9 * DAY)
        done = auto.retrain("late", "advance")
        assert (done.proposal.state, done.proposal.comparison.verdict) == ("better", "better")
        assert "needs a person: x may be null no more, and 900 requests of the last 30 days are too few" in done.words
        auto.predict("late", [{"x": 1.0, "y": 0.0}] * 300)
        auto.clock.set(LATER + 10 * DAY)
        assert auto.retrain("late", "advance").proposal.state == "live"
        (kept,) = [event for event in auto.metadata.events(kind="release.approved") if event.body["exempt"]]
        assert kept.body["exempt"]["changed"].endswith(
            "x may be null no more, and was in none of 1,200 requests since 2024-01-16."
        )


def test_more_than_new_data_or_a_change_beyond_a_margin_needs_a_person_and_says_why(project, four_eyes):
    small = AUTO.replace("0.9", "0.0001")
    with declared(project, retrain=small) as auto:
        trained(auto)
        auto.clock.set(LATER + 9 * DAY)
        done = auto.retrain("late", "advance")
        assert done.proposal.state == "better"
        assert "significant change: positive_rate of all rows" in done.words
        assert "more than data changed: Minor: the definitions' code" in done.words
        assert reasons(auto) == [("retrain.needs_person", 1)]
        assert done.proposal.significant
        assert refused(lambda: auto.promote("late")).code == "approval.missing"
        auto.actor = "eve"
        auto.approve("late", reason="I looked at every slice")
        assert auto.promote("late", reason="approved").share == 100


def test_without_the_explicit_policy_advancing_promotes_nothing(project, four_eyes):
    trained(project)
    project.clock.set(LATER + 9 * DAY)
    assert project.retrain("late", "advance").proposal.state == "better"
    assert project.retrain("late", "advance").proposal.state == "better"
    assert project._live_release("late").body["version"] == 1


def test_an_ab_test_may_be_approved_to_show_which_is_better_and_what_is_shown_to_be_worse_not(project, four_eyes):
    with declared(project, strategy="ABTest(50)") as testing:
        trained(testing)
        assert refused(lambda: testing.promote("late")).code == "approval.not_better"
        testing.actor = "eve"
        done = testing.approve("late", reason="let the traffic tell")
        assert done.experiment == "ab_test of 'late', decided by labels"
        moved = testing.promote("late", reason="an experiment")
        assert (moved.share, moved.previous) == (50, testing._live_release("late").id)
        assert testing.proposals()[0].state == "approved"


@pytest.mark.slow
def test_in_the_shadow_champion_and_challenger_are_compared_on_the_same_live_requests(project, four_eyes):
    with declared(project, strategy="Shadow()", retrain='on=[], min_days=3, margins={"log_loss": 0.5}') as shadow:
        trained(shadow)
        shadow.actor = "eve"
        assert shadow.approve("late", reason="let requests tell").experiment
        assert shadow.promote("late", reason="into the shadow").share == 0
        shadow.clock.advance("1m")
        random = np.random.default_rng(5)
        for day in range(5):
            asked = [{"x": x, "y": y} for x, y in random.normal(size=(60, 2)).tolist()]
            ids = [f"{day}/{number}" for number in range(60)]
            shadow.predict("late", asked, request_ids=ids)
            late = [random.random() < 1 / (1 + np.exp(1 - 2 * one["x"] - one["y"])) for one in asked]
            shadow.clock.advance("1h")
            told = [{"request_id": id, "late": bool(one)} for id, one in zip(ids, late, strict=True)]
            shadow.label("late", told[: 60 - day])
            shadow.clock.advance("23h")
        shadow.clock.advance("1h")  # until the labels of the fifth day are due
        looked = shadow.retrain("late", "compare").proposal.comparison
        assert (looked.shadow, looked.rows, len(looked.days)) == ("live", 60 + 59 + 58 + 57 + 56, 5)
        rows = {one["request_id"]: one for one in shadow.log.rows(deployment="late").to_pylist()}
        hidden = {one["request_id"]: one for one in shadow.log.rows(deployment="late~shadow").to_pylist()}
        assert looked.champion != looked.challenger
        told = {one["request_id"]: one["label"] for one in shadow.labels.read("late").to_pylist()}
        loss = [
            -np.log(p if label else 1 - p)
            for side in (rows, hidden)
            for p, label in [(side[id]["probability"], label) for id, label in told.items()]
        ]
        mine, other = np.mean(loss[: len(told)]), np.mean(loss[len(told) :])
        assert looked.champion_metrics["log_loss"] == pytest.approx(mine)
        assert looked.challenger_metrics["log_loss"] == pytest.approx(other)
        assert looked.gain > 0  # x matters since the challenger has learned it


def test_a_challenger_that_lost_its_traffic_is_rolled_back_however_that_came_about(project):
    with declared(project, strategy="ABTest(50)") as testing:
        trained(testing)
        testing.actor = "eve"
        testing.approve("late", reason="let the traffic tell")
        testing.promote("late", reason="an experiment")
        testing.rollback("late", reason="the phones ring")
        assert testing.proposals()[0].state == "rolled back"
        testing.clock.set(LATER + 4 * DAY)
        assert testing.retrain("late", reason="once more").words == "proposed"


def test_an_emergency_roll_back_ends_the_proposal_when_it_is_told(project):
    trained(project)
    project.clock.set(LATER + 9 * DAY)
    project.retrain("late", "compare")
    project.actor = "eve"
    project.approve("late", reason="better on every day")
    project.promote("late", reason="approved")
    assert project.proposals()[0].state == "live"
    project.close()
    state = project.folder / ".seatrial"
    away = project.folder / "away"
    away.mkdir()
    for path in state.glob("metadata.db*"):
        path.rename(away / path.name)
    with opened(project.folder, LATER + 9 * DAY) as alone:
        assert not alone.rollback("late", reason="the disk is gone as well").settled
    for path in state.glob("metadata.db*"):
        path.unlink()
    for path in away.iterdir():
        path.rename(state / path.name)
    with opened(project.folder, LATER + 9 * DAY) as back:
        assert back.proposals()[0].state == "rolled back"
