"""The summer of 2013, asked of a server flight by flight: an A/B test that decides, and a day of stale features.

The model of the winter is live since 1 April. By 1 July it predicts too low, a challenger learns from all flights whose
outcome is known, and nobody can say yet whether it is better: half of the flights of the next days are its. When it has
all of them, a job delivers the departures of the day before under the date of today. Minutes long: `make long`. What it
found is told in docs/story.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seatrial import Project
from seatrial.cli.canary_story import taken_up
from seatrial.core.clock import to_us
from seatrial.core.errors import SeatrialError
from seatrial.core.windows import Window
from tests.journeys.pictures import note, of_looks
from tests.journeys.stale import a_day_late, compared, drifted, of_month, of_stale, thrown_away, without_serving
from tests.journeys.worlds import ENGINEER, REVIEWER, opened, served

pytestmark = pytest.mark.long
DAY = timedelta(days=1)
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
        before, stale, next_day = (window(end + n * DAY, end + (n + 1) * DAY) for n in range(3))
        project.replay("late", before, url=url)
        pushed = a_day_late(at(project, end + DAY), url, stale)
    project.clock.set(end + 3 * DAY)  # every label is known
    sound, late = compared(project, before), compared(project, stale)
    month = without_serving(at(project, day(8, 3)), window(day(7, 10), day(8, 1)))
    first = project.feature_verify("late", window=Window(stale.start_us, stale.start_us + 6 * 3_600_000_000))
    back = at(project, end + 2 * DAY).rollback("late", reason="its features are a day old, says the replay")
    after = project.status()[0].live
    project = opened(thrown_away(project), end + 2 * DAY)
    project.materialize()
    again = project.deploy("late", release="late:2", at_once=True, reason="it was the feed")
    with served(folder, "--replay") as (_, url):
        project.replay("late", next_day, url=url)
    mended = at(project, end + 3 * DAY).feature_verify("late", window=next_day)
    found = SimpleNamespace(
        trained=trained, early=early, approved=approved, begun=begun, looks=looks, won=won, pushed=pushed, sound=sound,
        late=late, first=first, month=month, back=back, after=after, again=again, mended=mended,
        live=project.status()[0].live,
    )  # fmt: skip
    note("experiment", of_looks(looks))
    note("stale", {"before": of_stale(sound), "day": of_stale(late), "first": [first.rows, first.mismatched]})
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
    assert 7 <= number <= 16
    assert (last.analysis.verdict, last.analysis.labels.state, last.analysis.labels.unit) == (
        "advance", "better", "request",
    )  # fmt: skip
    assert {look.analysis.verdict for _, look in summer.looks[:-1]} == {"hold"}
    assert last.analysis.observed == pytest.approx(0.5, abs=0.02)
    assert {one.state for one in last.analysis.guardrails} == {"fine"}
    assert summer.won == ("2", "live")


def test_features_a_day_old_are_seen_by_the_replay_of_the_first_hours_and_by_no_statistic(summer):
    assert summer.sound.skew.mismatched == 0
    assert summer.first.mismatched > 0.5 * summer.first.rows > 0  # at night little departed on either day
    assert summer.late.skew.mismatched > 0.9 * summer.late.skew.rows
    failed = {check.column.partition("__")[0] for check in summer.late.report.quality if not check.passed}
    assert failed <= {"airport_weather"}  # readings of pressure that did not arrive on some days of July
    moved, right = summer.late.report.drift, summer.late.right.drift
    assert moved.prediction.value < right.prediction.value + 0.02
    assert abs(len(drifted(moved)) - len(drifted(right))) <= 3


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
    assert loss[1] > loss[0] + 0.01


def test_the_replay_names_the_views_that_the_wrong_job_feeds_and_no_other(summer):
    wrong = {one.feature.partition("__")[0] for one in summer.late.skew.features if one.mismatches}
    assert wrong == {"origin_departures", "carrier_departures", "carrier_excess"}


def test_a_sound_day_is_scored_as_the_offline_join_scores_it(summer):
    assert summer.sound.report.performance.metrics["log_loss"] == pytest.approx(summer.sound.right.log_loss, abs=1e-6)


def test_what_was_live_before_is_back_and_a_store_made_anew_has_the_right_features(summer):
    assert summer.after == "1"
    assert (summer.mended.mismatched, summer.mended.rows > 900) == (0, True)
    assert summer.live == "2"
