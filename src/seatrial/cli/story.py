"""The demo's second half: a week that nothing in the data explains, and what was made of it.

April came through the server; the months after it are scored in batch. The clock of the project is moved to each
morning on which somebody would have looked, so that nothing is used before it was known.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from seatrial.cli import talk
from seatrial.core.clock import FixedClock, to_us
from seatrial.core.errors import GateRefused, NotAllowed
from seatrial.core.windows import Window

if TYPE_CHECKING:
    from seatrial.monitoring.report import AlarmResult, Report
    from seatrial.project import Project

ENGINEER, REVIEWER = "engineer", "reviewer"
"""Two people in their roles; names are asserted."""

FURLOUGHS = "2013-04-22: air-traffic controllers are furloughed"
WEEKLY = 0.4595
"""Log loss April to December when retrained every week: `tests/journeys/test_year.py`, see benchmarks/RESULTS.md."""


class Steps(Protocol):
    """Who tells the story: see `demo.Story`."""

    def step(self, name: str, command: str) -> AbstractContextManager[Callable[[str], None]]:
        """One step."""


def day(month: int, number: int) -> datetime:
    """Midnight in New York (summer time) of a day of 2013."""
    return datetime(2013, month, number, 4, tzinfo=UTC)


def tell_on(project: Project, story: Steps, progress: talk.Progress, folder: Path) -> dict[str, Any]:
    """From the labels of April to the end of the year; the facts for the summary."""
    project.actor = ENGINEER
    alarm = _april(project, story, folder)
    _challenge(project, story, progress)
    july = _summer(project, story, progress)
    seconds = _winter(project, story, progress)
    losses = _worth(project, story, progress)
    return {"alarm": alarm, "july": july, "rollback_seconds": seconds, "log_loss": losses}


def _april(project: Project, story: Steps, folder: Path) -> str:
    """Labels, and a report every morning: the alarm, and the silence of the drift statistics."""
    at(project, day(5, 3))
    with story.step("label", "seatrial label late --at 2013-05-03T04:00:00Z") as tell:
        told = project.label("late")
        tell(f"{told.told:,} arrivals known; {told.matched:,} of {told.predictions:,} predictions have a label.")
    first = ""
    mornings: list[Report] = []
    with story.step("monitor", "seatrial monitor late   # every morning from 8 April to 1 May") as tell:
        for number in range(24):
            at(project, day(4, 8) + timedelta(days=number))
            report = project.monitor("late")
            mornings.append(report)
            alarm = _calibration(report)
            if alarm.state == "fired" and not first:
                first = report.as_of
                _on_the_alarm(tell, mornings, alarm)
        quiet = [one for one in mornings if _calibration(one).state == "quiet"]
        tell(f"It fired on {len(mornings) - len(quiet)} of {len(mornings)} mornings, and was resolved by itself.")
        page = folder / "report.html"
        at(project, day(4, 29))
        page.write_text(_page(project, Window(to_us(day(4, 22)), to_us(day(4, 29)))), encoding="utf-8")
        tell(f"The week of 22 April as a page: {page}")
    return first


def _on_the_alarm(tell: Callable[[str], None], mornings: list[Report], alarm: AlarmResult) -> None:
    now, before = mornings[-1], mornings[-2]
    gaps = [abs(one.performance.gap or 0) for one in mornings[:-1]]
    tell(
        f"{len(gaps)} quiet mornings, the largest gap {max(gaps):.3f}; an alarm is a gap beyond {alarm.threshold:.2f}."
    )
    tell(f"{now.as_of[:10]}: ALARM. {alarm.evidence}")
    drifted = [sum(one.drifted for one in report.drift.columns) for report in (before, now)]
    moved = [report.drift.prediction.value or 0 for report in (before, now) if report.drift.prediction]
    tell(
        f"The drift statistics saw nothing new: {drifted[1]} columns differ from the winter, {drifted[0]} the day "
        f"before; the predictions moved by {moved[-1]:.2f}, {moved[0]:.2f} the day before."
    )
    tell("Flights were late for a reason that no feature holds: since 21 April controllers were furloughed.")


def _challenge(project: Project, story: Steps, progress: talk.Progress) -> None:
    """A challenger is proposed, trained, judged for sixty days, and refused."""
    with story.step("retrain", "seatrial retrain late   # on Mondays: the triggers only propose") as tell:
        for number in (15, 22, 29):
            at(project, day(4, number))
            tell(f"{number} April: {project.retrain('late').words}.")
    with story.step("retrain", "seatrial retrain late train") as tell:
        tell(f"29 April: {project.retrain('late', 'train', progress=progress).words}.")
    with story.step("retrain", "seatrial retrain late compare   # on the same flights, by day") as tell:
        for when in (day(5, 20), day(6, 10), day(6, 28)):
            at(project, when)
            tell(f"{when:%-d %B}: {project.retrain('late', 'compare', progress=progress).words}.")
    with story.step("approve", "seatrial approve late --reason ... --actor reviewer") as tell:
        try:
            as_reviewer(project, lambda: project.approve("late", reason="it was trained on the bad week"))
        except GateRefused as refused:
            tell(f"Refused: {refused.found}")
        as_reviewer(project, lambda: project.reject("late", reason="sixty days did not show it to be better"))
        tell("Rejected; version 1 stays live.")


def _summer(project: Project, story: Steps, progress: talk.Progress) -> float:
    """A challenger of 1 July, better in July and shown to be so in September."""
    with story.step("retrain", 'seatrial retrain late train --reason "the summer is later than the winter"') as tell:
        at(project, day(7, 1))
        words = project.retrain("late", "train", reason="the summer is later than the winter", progress=progress).words
        tell(f"1 July: {words}.")
    gain = 0.0
    with story.step("retrain", "seatrial retrain late compare") as tell:
        for when in (day(8, 1), day(8, 30), day(9, 16)):
            at(project, when)
            done = project.retrain("late", "compare", progress=progress)
            tell(f"{when:%-d %B}: {done.words}.")
            if when == day(8, 1) and done.proposal and done.proposal.comparison:
                seen = done.proposal.comparison
                gain = (seen.champion_metrics["log_loss"] or 0) - (seen.challenger_metrics["log_loss"] or 0)
                tell(f"  over all flights of July: log loss lower by {gain:.3f}")
    with story.step("approve", "seatrial approve late --reason ...  &&  seatrial promote late") as tell:
        try:
            project.approve("late", reason="mine is better")
        except NotAllowed as refused:
            tell(f"By the one who proposed it: refused. {refused.found}")
        done = as_reviewer(project, lambda: project.approve("late", reason="better on most days of summer"))
        tell(f"By {done.actor} (asserted): approved, bound to generation {done.generation} and to the evidence.")
        promoted = project.promote("late", reason="approved")
        tell(f"16 September: version {promoted.version} is live, generation {promoted.generation}.")
    return gain


def _winter(project: Project, story: Steps, progress: talk.Progress) -> float:
    """December: the alarm again, a roll-back in one command, and why it is taken back."""
    with story.step("predict", "seatrial predict late --batch 2013-09-16T04:00Z/2013-12-14T04:00Z") as tell:
        at(project, day(12, 14))
        scored = project.predict_batch("late", Window(to_us(day(9, 16)), to_us(day(12, 14))), progress=progress)
        project.label("late")
        tell(f"{scored.predictions:,} flights scored in batch and logged: log loss {scored.metrics['log_loss']:.3f}.")
    with story.step("rollback", 'seatrial rollback late --reason "alarm of 11 December"') as tell:
        fired = ""
        for number in (9, 10, 11):
            at(project, day(12, number))
            alarm = _calibration(project.monitor("late"))
            if alarm.state == "fired" and not fired:
                fired = f"{number} December: ALARM. {alarm.evidence}"
                tell(fired)
        done = project.rollback("late", reason="alarm of 11 December")
        tell(f"Version 1 answers again after {done.seconds:.3f} s, generation {done.generation}.")
        at(project, day(12, 14))
        storm = Window(to_us(day(12, 7)), to_us(day(12, 14)))
        old = project.predict_batch("late", storm, progress=progress)
        back = project.deploy("late", release=_newest(project), reason="version 1 does no better in this storm")
        tell(
            f"On the week of the storm version 1 does no better (log loss {old.metrics['log_loss']:.3f}): "
            f"version {back.version} is live again, generation {back.generation}."
        )
    return done.seconds


def _worth(project: Project, story: Steps, progress: talk.Progress) -> dict[str, float]:
    """The honest ending: what retraining was worth over the year."""
    from seatrial.core.signature import as_floats
    from seatrial.inputs import columns
    from seatrial.retraining.backtest import backtest
    from seatrial.stats.metrics import log_loss

    with story.step("backtest", "log loss from April to December, had it been retrained ...") as tell:
        year = Window(0, to_us(datetime(2014, 1, 2, tzinfo=UTC)))
        at(project, datetime(2014, 1, 2, tzinfo=UTC))
        model = project.definitions.model("late")
        rows, _, request, _ = project._inputs.rows(model, window=year, progress=progress)
        april = to_us(day(4, 1))
        labels = as_floats(rows["late"].to_pylist())
        losses = {}
        for name, instants in {
            "never": [april],
            "on alarm": [april, to_us(day(4, 29)), to_us(day(10, 7))],
        }.items():
            scores = backtest(model, rows, request, instants, columns)
            known = ~(labels != labels) & ~(scores != scores)
            losses[name] = round(log_loss(labels[known], scores[known]), 4)
        losses["every week"] = WEEKLY
        tell(f"never {losses['never']:.4f}, when the trigger fired (29 April, 7 October) {losses['on alarm']:.4f},")
        tell(f"every week {WEEKLY:.4f} (39 trainings, from a recorded run). Most of it comes from two.")
    return losses


def at(project: Project, when: datetime) -> None:
    """It is `when` for the project."""
    project.clock = FixedClock(when)


def as_reviewer(project: Project, act: Callable[[], Any]) -> Any:
    """Do something as the second person."""
    project.actor = REVIEWER
    try:
        return act()
    finally:
        project.actor = ENGINEER


def _calibration(report: Report) -> AlarmResult:
    return next(one for one in report.alarms if one.metric == "calibration_gap")


def _newest(project: Project) -> str:
    return str(project.releases("late")[-1]["release"])


def _page(project: Project, window: Window) -> str:
    from seatrial.monitoring.page import html

    return html(project.monitor("late", window=window, keep=False))
