"""The summer of 2013, asked of a server flight by flight: an A/B test that decides, and a day of stale features.

The model of the winter is live since 1 April. By 1 July it predicts too low, a challenger learns from all flights whose
outcome is known, and nobody can say yet whether it is better: half of the flights of the next weeks are its. Minutes
long: `make long`. What it found is told in docs/story.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from seatrial import Project
from seatrial.cli.canary_story import taken_up
from seatrial.core.clock import to_us
from seatrial.core.errors import SeatrialError
from seatrial.core.windows import Window
from seatrial.features.plan import make_plan
from seatrial.verbs.history import Feed
from tests.journeys.worlds import ENGINEER, REVIEWER, opened, served

pytestmark = pytest.mark.long
DAY = timedelta(days=1)
REASON = "the summer is later than the winter"


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
    text = file.read_text().replace("strategy=canary", 'strategy=ABTest(50, judge_for="28d")')
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
    champion = at(project, day(8, 1)).predict_batch("late", window(day(7, 1), day(8, 1)))
    at(project, day(7, 1)).materialize()
    looks: list[tuple[int, Any]] = []
    with served(folder, "--replay") as (_, url):
        begun = project.promote("late", reason="an experiment")
        taken_up(url, begun.generation)
        for number in range(1, 29):
            start = day(7, 1) + (number - 1) * DAY
            project.replay("late", window(start, start + DAY), url=url)
            at(project, start + DAY).label("late")
            looks.append((number, project.deployment_advance("late")))
            _note({"day": number, "look": looks[-1][1]})
            if looks[-1][1].analysis.verdict != "hold":
                break
        decided = project.clock.now()
        proposal = project.proposals("late")[-1]
        # Before what comes next: a sound day, and then one whose events are all stamped a day late.
        taken_up(url, looks[-1][1].generation)
        project.replay("late", window(decided, decided + DAY), url=url)
        stale = served_stale(at(project, decided + 2 * DAY), url, window(decided + DAY, decided + 2 * DAY))
        sound = compared(project, window(decided, decided + DAY))
        late = compared(project, window(decided + DAY, decided + 2 * DAY))
        back = project.rollback("late", reason="features are a day old; the store is mended first")
    after = project.status()[0], project.proposals("late")[-1].state
    found = SimpleNamespace(
        trained=trained, early=early, approved=approved, champion=champion, begun=begun, looks=looks, decided=decided,
        proposal=proposal, stale=stale, sound=sound, late=late, back=back, after=after, project=project,
    )  # fmt: skip
    _note(facts(found))
    yield found
    project.close()


def _note(found: dict[str, Any]) -> None:
    """Keep what docs/story.md is written from, where somebody asked for it."""
    if os.environ.get("STORY"):
        with Path(os.environ["STORY"]).open("a") as file:
            file.write(json.dumps(msgspec.to_builtins(found), default=str) + "\n")


def refusal(act: Any) -> SeatrialError:
    with pytest.raises(SeatrialError) as error:
        act()
    return error.value


def served_stale(project: Project, url: str, span: Window) -> int:
    """Ask a day of flights of the server while every event that reaches the online store is stamped a day late: what
    features hold is what they held the day before. The number of events pushed."""
    model = project.definitions.model("late")
    plan = make_plan(model.features, project.definitions.views)
    sources = [project.definitions.views[view.name].source for view in plan.views]
    tables, _ = project._inputs.tables(sources, None)
    shift = pa.scalar(DAY, pa.duration("us"))
    later = {}
    for source in sources:
        table = tables[source.name]
        for name in dict.fromkeys(one for one in (source.event_timestamp, source.known_at) if one):
            table = table.set_column(table.column_names.index(name), name, pc.add(table[name], shift))
        later[source.name] = table
    feed = Feed(plan.views, later, span, project.online)
    step = 3 * 3_600_000_000
    for start in range(span.start_us, span.end_us, step):
        feed.up_to(start)
        project.replay("late", Window(start, min(start + step, span.end_us)), url=url, push=False)
    return feed.rows


def compared(project: Project, span: Window) -> SimpleNamespace:
    """What statistics and what the replay of features say of a day, and what its labels say in the end."""
    project.label("late")
    report = project.monitor("late", window=span, keep=False)
    skew = project.feature_verify("late", window=span)
    return SimpleNamespace(report=report, skew=skew)


def facts(found: SimpleNamespace) -> dict[str, Any]:
    """The numbers of the story."""

    def told(one: SimpleNamespace) -> dict[str, Any]:
        report, skew = one.report, one.skew
        return {
            "verdict": report.verdict, "headline": report.headline, "rows": report.rows,
            "quality": [(check.name, check.column, check.found) for check in report.quality if not check.passed],
            "drifted": {c.name: c.value for c in report.drift.columns if c.drifted},
            "prediction": report.drift.prediction.value if report.drift.prediction else None,
            "metrics": report.performance.metrics,
            "skew": [skew.rows, skew.mismatched, skew.share],
            "classes": {f.feature: f.classes for f in skew.features if f.mismatches},
        }  # fmt: skip

    return {
        "early": str(found.early), "approved": found.approved.experiment, "july": found.champion.metrics,
        "trained": found.trained.words, "decided": found.decided, "state": found.proposal.state,
        "looks": [
            {"day": n, "verdict": look.analysis.verdict, "why": look.analysis.why, "rows": look.analysis.rows,
             "labels": look.analysis.labels and {
                 "days": look.analysis.labels.days, "labelled": look.analysis.labels.labelled,
                 "gain": look.analysis.labels.gain, "low": look.analysis.labels.low, "high": look.analysis.labels.high,
             },
             "guardrails": [(one.name, one.difference, one.low, one.high) for one in look.analysis.guardrails]}
            for n, look in found.looks
        ],
        "stale": found.stale, "sound_day": told(found.sound), "late_day": told(found.late),
        "rollback": found.back.seconds, "after": [found.after[0].live, found.after[1]],
    }  # fmt: skip


def test_the_winters_model_says_too_little_in_july(summer):
    assert 0.06 <= summer.champion.metrics["expected_calibration_error"] <= 0.10
    assert 0.55 <= summer.champion.metrics["log_loss"] <= 0.567


def test_a_challenger_that_nobody_knows_to_be_better_may_only_be_tried(summer):
    assert summer.early.code == "approval.not_better"
    assert summer.approved.experiment == "ab_test of 'late', decided by labels"
    assert (summer.begun.share, summer.trained.proposal.state) == (50, "judging")


def test_the_ab_test_decides_for_it_between_day_7_and_day_16(summer):
    (number, last) = summer.looks[-1]
    assert 7 <= number <= 16
    assert (last.analysis.verdict, last.analysis.labels.state) == ("advance", "better")
    assert {look.analysis.verdict for _, look in summer.looks[:-1]} == {"hold"}
    assert (last.share, summer.proposal.state) == (100, "live")
    assert last.analysis.observed == pytest.approx(0.5, abs=0.02)


def test_features_a_day_old_are_seen_by_the_replay_and_by_no_statistic(summer):
    assert summer.sound.skew.mismatched == 0
    assert summer.late.skew.mismatched > 0.9 * summer.late.skew.rows
    quiet = {one.name for one in summer.sound.report.drift.columns if one.drifted}
    loud = {one.name for one in summer.late.report.drift.columns if one.drifted}
    assert loud <= quiet
    assert all(check.passed for check in summer.late.report.quality)


def test_the_roll_back_returns_to_the_winters_model_and_ends_the_proposal(summer):
    assert summer.back.settled
    assert summer.after[0].live == "1"
    assert summer.after[1] == "rolled back"
