"""The summer of 2013, asked of a server flight by flight: an A/B test that decides, and a day of stale features.

The model of the winter is live since 1 April. By 1 July it predicts too low, a challenger learns from all flights whose
outcome is known, and nobody can say yet whether it is better: half of the flights of the next days are its. When it has
all of them, a job delivers the departures of the day before under the date of today. Which flight is whose is drawn
anew in each run, and with it the day on which the test decides; the fault comes on 18 July, after the last day on which
it may, so that nothing of it depends on the draw. Minutes long: `make long`. What it found is told in docs/story.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seatrial import Guardrail, Project
from seatrial.cli.canary_story import taken_up
from seatrial.core.clock import to_us
from seatrial.core.errors import SeatrialError
from seatrial.core.windows import Window
from seatrial.monitoring.looks.quality import SLOWER
from tests.journeys.pictures import note, of_looks
from tests.journeys.stale import (
    PLANE_AGE,
    a_day_late,
    ages,
    compared,
    drifted,
    of_month,
    of_stale,
    thrown_away,
    touched,
    without_serving,
)
from tests.journeys.worlds import ENGINEER, REVIEWER, opened, served

pytestmark = pytest.mark.long
DAY = timedelta(days=1)
LAST = 16  # days within which the A/B test has to decide
REASON = "the summer is later than the winter"
EXPERIMENT = """ABTest(
    50,
    judge_for="28d",
    unit="request",
    guardrails=[Guardrail.errors(0.03), Guardrail.slow(0.1), Guardrail.mean_score(0.3), Guardrail.degraded(0.03)],
)"""


def day(month: int, number: int) -> datetime:
    """Midnight in New York (summer time) of a day of 2013."""
    return datetime(2013, month, number, 4, tzinfo=UTC)


FAULT = day(7, 1) + (LAST + 1) * DAY


def window(start: datetime, end: datetime) -> Window:
    return Window(to_us(start), to_us(end))


def at(project: Project, when: datetime, actor: str = ENGINEER) -> Project:
    project.clock.set(when)
    project.actor = actor
    return project


def winter(folder: Path) -> Project:
    """The project whose first release, of the winter, is live since 1 April."""
    Project.init(folder, "flights").close()
    file = folder / "project.py"
    text = file.read_text().replace("strategy=canary", f"strategy={EXPERIMENT}")
    file.write_text(text.replace("from seatrial import (\n", "from seatrial import (\n    ABTest,\n"))
    project = opened(folder, day(4, 1))
    project.release(project.train("late").run)
    at(project, day(4, 1), REVIEWER).approve("late", reason="every gate passed")
    at(project, day(4, 1)).deploy("late")
    return project


@pytest.fixture(scope="module")
def summer(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """1 July: the calibration of the winter's model, a challenger, and an A/B test until it has decided."""
    folder = tmp_path_factory.mktemp("summer") / "flights"
    project = at(winter(folder), day(7, 1))
    trained = project.retrain("late", "train", reason=REASON)
    early = refusal(lambda: at(project, day(7, 1), REVIEWER).promote("late"))
    approved = project.approve("late", reason="nobody knows yet: let half of the flights tell")
    at(project, day(7, 1)).materialize()
    looks: list[tuple[int, Any]] = []
    with served(folder, "--replay") as (_, url):
        begun = project.promote("late", reason="an experiment")
        taken_up(url, begun.generation)
        week = day(7, 8)  # nothing can be decided before a week is over, so it is asked in one go
        project.replay("late", window(day(7, 1), week), url=url)
        for number in range(1, 29):
            end = day(7, 1) + number * DAY
            if end > week:
                project.replay("late", window(end - DAY, end), url=url)
            at(project, end).label("late")
            looks.append((number, project.deployment_advance("late")))
            if looks[-1][1].analysis.verdict != "hold":
                break
        won = project.status()[0].live, project.proposals("late")[-1].state
        taken_up(url, looks[-1][1].generation)
        fault = max(FAULT, end + DAY)
        before, stale, next_day = (window(fault + n * DAY, fault + (n + 1) * DAY) for n in (-1, 0, 1))
        project.replay("late", window(end, fault), url=url)
        pushed = a_day_late(at(project, fault), url, stale)
    project.clock.set(fault + 2 * DAY)  # every label is known
    sound, late = compared(project, before), compared(project, stale)
    month = without_serving(at(project, day(8, 3)), window(day(7, 10), day(8, 1)))
    morning = Window(stale.start_us, stale.start_us + 6 * 3_600_000_000)
    first = project.feature_verify("late", window=morning), touched(project, morning)
    back = at(project, fault + DAY).rollback("late", reason="its features are a day old, says the replay")
    after = project.status()[0].live
    project = opened(thrown_away(project), fault + DAY)
    project.materialize()
    again = project.deploy("late", release="late:2", at_once=True, reason="it was the feed")
    with served(folder, "--replay") as (_, url):
        project.replay("late", next_day, url=url)
    mended = at(project, fault + 2 * DAY).feature_verify("late", window=next_day)
    found = SimpleNamespace(
        trained=trained, early=early, approved=approved, begun=begun, looks=looks, won=won, pushed=pushed, sound=sound,
        late=late, first=first, month=month, back=back, after=after, again=again, mended=mended,
        live=project.status()[0].live,
    )  # fmt: skip
    note("experiment", of_looks(looks))
    note("stale", {"before": of_stale(sound), "day": of_stale(late), "first": [first[0].rows, first[0].mismatched]})
    note("month", of_month(month))
    yield found
    project.close()


def refusal(act: Any) -> SeatrialError:
    with pytest.raises(SeatrialError) as error:
        act()
    return error.value


def test_a_challenger_that_nobody_knows_to_be_better_may_only_be_tried(summer):
    assert summer.early.code == "approval.not_better"
    assert summer.approved.experiment == "ab_test of 'late', decided by labels"
    assert (summer.begun.share, summer.trained.proposal.state) == (50, "judging")


def test_the_ab_test_decides_for_it_between_day_7_and_day_16(summer):
    (number, last) = summer.looks[-1]
    assert 7 <= number <= LAST
    assert (last.analysis.verdict, last.analysis.labels.state, last.analysis.labels.unit) == (
        "advance", "better", "request",
    )  # fmt: skip
    assert {look.analysis.verdict for _, look in summer.looks[:-1]} == {"hold"}
    assert last.analysis.observed == pytest.approx(0.5, abs=0.02)
    assert {one.state for one in last.analysis.guardrails} == {"fine"}
    assert summer.won == ("2", "live")


def test_the_mean_score_needs_a_wider_guardrail_than_the_default(summer):
    """A challenger that mends the level says something else on average: within the week in which nothing can be decided
    it is shown to lie beyond the .05 of the project's canary, and when it is decided for it lies beyond the default."""
    scores = {
        number: next(one for one in look.analysis.guardrails if one.name == "mean_score")
        for number, look in summer.looks
    }
    assert min(number for number, one in scores.items() if one.low > 0.05) < 7
    assert scores[summer.looks[-1][0]].difference > Guardrail.mean_score().margin == 0.1


def test_features_a_day_old_are_seen_by_the_replay_of_the_first_hours_and_by_no_statistic(summer):
    """Wrong is what is asked after a departure of its airport or carrier since midnight; on a quiet night that leaves
    some flights of the first hours right, on this one none."""
    assert summer.sound.skew.mismatched == 0
    seen, wrong = summer.first
    assert seen.mismatched == wrong > 0.99 * seen.rows > 0
    assert summer.late.skew.mismatched == summer.late.touched > 0.99 * summer.late.skew.rows
    assert [check for check in summer.late.report.quality if not check.passed] == []
    moved, right = summer.late.report.drift, summer.late.right.drift
    assert moved.prediction.value < right.prediction.value + 0.02
    assert abs(len(drifted(moved)) - len(drifted(right))) <= 3


def test_features_a_day_old_are_as_young_as_any(summer):
    """Beside the training rows, which is the default, the rule about ages has nothing to compare with."""
    assert {check.expected for check in ages(summer.late.report)} == {""}
    beside = ages(summer.late.before)
    assert all(check.expected for check in beside)
    assert [check.column for check in beside if check.noticed] == []


def test_the_model_was_worse_with_them_than_with_the_right_ones(summer):
    assert summer.late.report.performance.metrics["log_loss"] > summer.late.right.log_loss + 0.02


def test_over_the_days_of_july_drift_looks_alike_with_features_a_day_old_and_with_right_ones(summer):
    def mean(of):
        return [sum(of(way(day)) for day in summer.month) / len(summer.month) for way in (right, stale)]

    right, stale = attrgetter("right"), attrgetter("stale")
    assert len(summer.month) == 22
    columns = mean(lambda one: len(drifted(one.drift)))
    prediction = mean(lambda one: one.drift.prediction.value)
    loss = mean(attrgetter("log_loss"))
    assert columns[1] == pytest.approx(columns[0], abs=1)
    assert prediction[1] == pytest.approx(prediction[0], abs=0.02)
    assert loss[1] > loss[0] + 0.02


def test_rules_fail_on_the_same_days_with_features_a_day_old_as_with_right_ones(summer):
    """On four days of July a third of the readings of pressure did not arrive, whatever became of departures."""
    failed = [day.right.failed for day in summer.month]
    assert [day.stale.failed for day in summer.month] == failed
    assert [one for one in failed if one] == [[("values there", "airport_weather__pressure")]] * 4


def test_events_of_all_kinds_a_day_late_are_seen_by_an_input_that_is_an_age_and_not_by_the_rule_about_ages(summer):
    """95 of 100 planes arrived within some days, sound feed or not, and the rule asks for the double."""

    def moved(way):
        return sum(PLANE_AGE in drifted(way(day).drift) for day in summer.month)

    assert (moved(attrgetter("right")), moved(attrgetter("stale"))) == (0, 0)
    assert moved(attrgetter("wide")) >= 20
    assert all(day.wide.planes < SLOWER * day.right.planes for day in summer.month)


def test_the_replay_names_the_views_that_the_wrong_job_feeds_and_no_other(summer):
    wrong = {one.feature.partition("__")[0] for one in summer.late.skew.features if one.mismatches}
    assert wrong == {"origin_departures", "carrier_departures", "carrier_excess"}


def test_a_sound_day_is_scored_as_the_offline_join_scores_it(summer):
    assert summer.sound.report.performance.metrics["log_loss"] == pytest.approx(summer.sound.right.log_loss, abs=1e-6)


def test_going_back_is_one_command_and_a_store_made_anew_has_the_right_features(summer):
    assert summer.after == "1"
    assert (summer.mended.mismatched, summer.mended.rows > 900) == (0, True)
    assert summer.live == "2"
