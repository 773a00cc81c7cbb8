"""The outcome: everything that a report says of how right the model was, put together once and beside its verdict.

Each part stands by itself and says what it lacks; none raises for what data hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import SeatrialError
from seatrial.core.windows import HOUR_US
from seatrial.monitoring.figures import Arrival, Business, Calibration, Concept, Estimate, Interval, Slices
from seatrial.monitoring.looks.alarms import QUIET_START
from seatrial.monitoring.looks.arrival import ONE_SIDED, ripe_rows
from seatrial.monitoring.looks.calibration import blocks, calibration
from seatrial.monitoring.looks.concept import FEWEST as FEWEST_OF_CONCEPT
from seatrial.monitoring.looks.concept import concept
from seatrial.monitoring.looks.estimate import estimate
from seatrial.monitoring.looks.performance import OF_DECISIONS
from seatrial.monitoring.looks.slices import slices
from seatrial.monitoring.rows.baseline import Baseline, baseline, labelled
from seatrial.stats.bootstrap import Resampling, intervals, resample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from seatrial.core.windows import Window
    from seatrial.monitoring.report import Report
    from seatrial.monitoring.rows.sample import Sample

FEWEST = 50
"""Labels below which no interval is made."""
REPLICATES = 500
DISBELIEVED = "the labels that are known say that the world does answer differently: do not lean on this estimate"
NO_HARM = ", but no harm shows: "
"""In the headline of a report whose inputs moved and whose alarms on labels are quiet."""


def with_outcome(
    report: Report,
    sample: Sample,
    window: Window,
    as_of_us: int,
    came: Arrival,
    *,
    given: Baseline | None = None,
    business: Sequence[Business] = (),
) -> Report:
    """The report with intervals, arrival, calibration, concept, slices and estimate, and what they found.

    sample: back from the window's end, with the labels known at `as_of_us`. came: how those of the window arrive.
    given: labelled rows to compare with.
    """
    inside = sample.within(window)
    drawn = _drawn(inside)
    near = sample.few()
    close = near.within(window)
    base, why = (None, ONE_SIDED) if came.one_sided else baseline(near, window, given)
    changed = concept(close, base, why, ripe_rows(close, as_of_us, came))
    young = changed.verdict == "unknown" and came.ripe is False and came.usual_hours is not None
    if young and (stretch := ripe_stretch(near, window, as_of_us, came.usual_hours or 0.0, given)):
        changed = _of_ripe(near, stretch, given, changed)
    guessed = estimate(close, base, why)
    if guessed.metrics and changed.verdict == "changed":
        note = "; ".join(text for text in (guessed.note, DISBELIEVED) if text)
        guessed = msgspec.structs.replace(guessed, note=note)
    found: dict[str, Any] = {
        "performance": _with_intervals(report, inside, drawn),
        "arrival": came,
        "calibration": calibration(inside, _of_scores(inside, drawn)),
        "concept": changed,
        "slices": slices(close if inside.answers is None else inside),
        "estimate": guessed,
        "business": list(business),
    }
    findings = [
        *_most_off(report, found["slices"]),
        *report.findings,
        *_findings(came, changed, guessed, report),
        *_thinned(inside, close),
    ]
    verdict, headline, next_ = report.verdict, report.headline, report.next
    if changed.verdict == "changed" and verdict in ("ok", "unknown"):
        verdict = "watch"
        headline = f"{_start(changed.words)}; {_rest(report)}"
        next_ = (
            "Find out what changed in the world at that part of the rows; a retrain learns it, a check of data cannot."
        )
    awaited = came.one_sided or came.ripe is False
    if verdict == "unknown" and awaited and report.performance.labelled < FEWEST_OF_CONCEPT:
        due = f", which are due until {came.ripe_at}" if came.ripe_at else ""
        next_ = f"Wait for the labels of these predictions{due}, and tell them as they come."
    # the labels that come first may say nothing of the level
    misleads = came.one_sided or (came.ripe is False and came.biased) or any(one.judged for one in report.alarms)
    if not misleads:
        headline = _with_harm(headline, found["calibration"], found["slices"])
    return msgspec.structs.replace(
        report, **found, findings=list(dict.fromkeys(findings)), verdict=verdict, headline=headline, next=next_
    )


def _of_ripe(sample: Sample, stretch: Window, given: Baseline | None, young: Concept) -> Concept:
    """What an older window says of the world, whose labels are there; where it says nothing either, the young one."""
    inside = sample.within(stretch)
    found = concept(inside, *baseline(sample, stretch, given), np.ones(inside.rows.num_rows, dtype=bool))
    if found.verdict == "unknown":
        return young
    since, until = (iso(from_us(one))[:16].replace("T", " ") for one in (stretch.start_us, stretch.end_us))
    words = f"{found.words} (in the newest window of this length whose labels are there, {since} to {until})"
    note = "; ".join(text for text in (found.note, f"of this window itself: {young.words}") if text)
    return msgspec.structs.replace(found, words=words, note=note, window=str(stretch))


def ripe_stretch(
    sample: Sample, window: Window, as_of_us: int, usual_hours: float, given: Baseline | None = None
) -> Window | None:
    """The newest window as long as `window`, to the hour, whose labels are there by now; None where it could not be
    compared either: too few of its rows have a label, or there is nothing from before it."""
    end_us = int(as_of_us - usual_hours * HOUR_US) // HOUR_US * HOUR_US
    found = type(window)(end_us - (window.end_us - window.start_us), end_us)
    at_us = sample.at_us()
    if not at_us.size or at_us[0] > found.start_us + (found.end_us - found.start_us) // QUIET_START:
        return None  # it is not there as a whole
    if found.end_us >= window.end_us or labelled(sample.within(found)).rows.num_rows < FEWEST_OF_CONCEPT:
        return None
    return None if baseline(sample, found, given)[0] is None else found


def _most_off(report: Report, where: Slices) -> list[str]:
    """Where performance is lost, first: the slice that is most off."""
    if report.verdict != "act" or not all(check.passed for check in report.quality):
        return []
    words = where.off_words(share=report.task != "regression")
    return [words] if words else []


def _with_harm(headline: str, level: Calibration, parts: Slices) -> str:
    """A headline that calls harmless what is off its level beyond chance, as a whole and in a slice, says so instead;
    alarms had their limits, so the verdict stays."""
    gap, off = level.gap_interval, [one for one in parts.worst if one.off]
    if NO_HARM not in headline or gap is None or gap[0] <= 0 <= gap[1] or not off:
        return headline
    where = ", ".join(f"{column} {value}" for column, value in off[0].where.items())
    said = f"said {off[0].mean_score:.3g}, happened {off[0].observed:.3g}"
    return headline.replace(NO_HARM, f", and the level is off, though no alarm fires on it ({where}: {said}): ", 1)


def _thinned(inside: Sample, close: Sample) -> list[str]:
    rows, looked = inside.rows.num_rows, close.rows.num_rows
    if inside.inputs is None or looked == rows:
        return []
    return [f"the log is long: slices, change of the outcome and estimates look at {looked:,} of its {rows:,} rows"]


def _drawn(inside: Sample) -> Resampling | None:
    """Draws of the labelled rows; None when they are too few."""
    sample = labelled(inside)
    count = sample.rows.num_rows
    return None if count < FEWEST else resample(count, seed=0, at_us=sample.at_us(), replicates=REPLICATES)


def _of_scores(inside: Sample, drawn: Resampling | None) -> Resampling | None:
    """The draws of the rows that have a score as well."""
    if drawn is None:
        return None
    sure = np.isfinite(labelled(inside).scores())
    if sure.all():
        return drawn
    return Resampling(drawn.cluster[sure], drawn.counts, drawn.unit, drawn.few) if sure.sum() >= FEWEST else None


def _with_intervals(report: Report, inside: Sample, drawn: Resampling | None) -> Any:
    if drawn is None:
        return report.performance
    sample = labelled(inside)
    labels: NDArray[np.float64]
    try:
        if sample.task == "multiclass":
            labels, scores = sample.class_scores()
        else:
            labels, scores = sample.label_values(), sample.scores()
        if sample.task == "binary" and (scores.min() < 0 or scores.max() > 1 or not np.isin(labels, (0.0, 1.0)).all()):
            return report.performance
        found = intervals(sample.task, labels, scores, drawn, threshold=sample.threshold, quantile=sample.quantile)
    except SeatrialError:
        return report.performance
    defined = report.performance.metrics
    decisions = sample.task == "multiclass" and not sample.of_classes
    told: dict[str, Interval | None] = {
        name: None if defined.get(name) is None or (decisions and name not in OF_DECISIONS) else value
        for name, value in found.items()
    }
    return msgspec.structs.replace(report.performance, intervals=told, blocks=blocks(drawn), few_blocks=drawn.few)


def _findings(came: Arrival, changed: Concept, guessed: Estimate, report: Report) -> list[str]:
    found = []
    if came.ripe is False and came.expected is not None and came.usual_hours is not None:
        found.append(
            f"this window is young: at its age {percent(came.expected)} of the labels are usual, 95 % of those that "
            f"come are there by {age_words(came.usual_hours)}, for the whole window on {came.ripe_at}"
        )
        if came.biased:
            early, late = came.same_age["observed"], came.later["observed"]
            found.append(
                f"the labels that come first are unlike the others: of the window before they said {early:.3g} at this "
                f"age, and {late:.3g} now"
            )
    if changed.words:
        found.append(f"concept: {changed.words}")
    if guessed.metrics and report.performance.labelled < report.rows:
        main = next((name for name in ("roc_auc", "accuracy") if guessed.metrics.get(name) is not None), None)
        if main is not None:
            found.append(f"estimated without labels: {main} {guessed.metrics[main]:.3g}; {guessed.blind}")
    return found


def age_words(hours: float) -> str:
    """An age for people.

    >>> age_words(0.5), age_words(1), age_words(8.41), age_words(216)
    ('30 minutes', '1 hour', '8.4 hours', '9 days')
    """
    if hours < 1:
        return f"{hours * 60:.0f} minutes"
    if hours >= 48:
        return f"{hours / 24:.3g} days"
    words = f"{hours:.2g}"
    return f"{words} hour{'' if words == '1' else 's'}"


def percent(share: float) -> str:
    """Whole per cent; a digit more below ten."""
    found = share * 100
    return f"{found:.0f} %" if found >= 9.95 or found == 0 else f"{found:.1f} %"


def _start(words: str) -> str:
    return words[0].upper() + words[1:]


def _rest(report: Report) -> str:
    figures = report.performance
    if figures.mean_score is None or figures.observed is None:
        return "its level is not known."
    return f"on the whole {figures.observed:.3g} happened and {figures.mean_score:.3g} was said."
