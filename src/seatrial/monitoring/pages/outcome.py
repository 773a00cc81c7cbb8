"""The sections of the page about how right the model was: a sentence each, the picture and the numbers on demand."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from seatrial.core.clock import parse_time
from seatrial.monitoring.looks.outcome import age_words
from seatrial.monitoring.pages.pictures import (
    Dot,
    Series,
    Shown,
    Whisker,
    arrival_steps,
    calibration_curve,
    line_chart,
    part,
    safe,
    span_text,
    table,
    value_text,
    whiskers,
)

if TYPE_CHECKING:
    from seatrial.monitoring.figures import Concept, Estimate
    from seatrial.monitoring.report import Report

FEW = 30
METHOD = (
    "Labelled predictions of now are set beside labelled ones of before, by what happened minus what was said. Where "
    "other inputs come now, those of before are weighted so that their inputs are alike: what is left is the answer."
)


def section(report: Report) -> str:
    """All of them, in the order in which they are asked for."""
    return "".join(one(report) for one in (_concept, _calibration, _slices, _arrival, _estimate, _business))


def _concept(report: Report) -> str:
    one = report.concept
    if one is None or not report.rows:
        return ""
    heading = "Does the world answer as before?"
    if one.verdict == "unknown" and not one.parts:
        return part(heading, _sentence(f"Not known: {one.words}"), _small(one.note))
    shown: Shown = "number"
    parts = [*one.parts, *one.slices]
    caption = (
        "Each dot is how much more happened than was said, now compared with before, and the line what chance leaves "
        "open. The shaded area counts as nothing. Filled red: more than that, and not by chance."
    )
    picture = whiskers(
        [
            Whisker(
                found.part,
                found.change,
                found.interval,
                beyond=found.changed,
                note=f"{found.rows:,} rows",
            )
            for found in parts
        ],
        title="Change of the answer to the same inputs",
        caption=caption,
        shown=shown,
        borne=one.tolerated,
    )
    rows = [
        (
            found.part,
            f"{found.rows:,}",
            f"{found.before_rows:,}",
            f"{found.before:+.3g}",
            f"{found.after:+.3g}",
            f"{found.change:+.3g}",
            "–" if found.p_value is None else f"{found.p_value:.2g}",
        )
        for found in parts
    ]
    head = ("part", "rows now", "rows before", "off before", "off now", "change", "p")
    body = f"<p>{safe(METHOD, 600)} {safe(_against(one), 600)}</p>{picture}"
    body += f"<details><summary>Every part in numbers</summary>{table(head, rows, numbers=range(1, 7))}</details>"
    return part(heading, _sentence(one.words), body + _small(one.note), loud=one.verdict == "changed")


def _against(one: Concept) -> str:
    words = f"{one.rows:,} labelled rows of now, {one.before_rows:,} of before ({one.against})."
    if one.weighted and one.effective is not None and one.auc is not None:
        words += (
            f" The inputs can be told apart (a classifier's AUC is {one.auc:.2f}), so those of before were weighted, "
            f"which leaves {value_text(one.effective, 'share')} of them."
        )
    elif one.inputs_moved is False and one.auc is not None:
        words += f" The inputs cannot be told apart (a classifier's AUC is {one.auc:.2f}), so nothing was weighted."
    return words + (f" The variance is that of {one.unit}." if one.unit else "")


def _calibration(report: Report) -> str:
    one, shown = report.calibration, _shown(report)
    if one is None or not one.rows:
        return ""
    heading = "Can its numbers be taken at their word?"
    if one.gap is None or (one.slope is None and one.error is None):
        return part(heading, _sentence(one.note), "")
    off = one.gap_interval is not None and not one.gap_interval[0] <= 0 <= one.gap_interval[1]
    side = "too high" if one.gap > 0 else "too low"
    told = f"Off by {value_text(abs(one.gap), shown)}: what it says is {side}" if off else "Its level is right"
    told += f" (gap {span_text(one.gap_interval, shown)})" if one.gap_interval is not None else ""
    dots = [Dot(bin.mean_score, bin.observed, bin.rows, bin.interval) for bin in one.bins]
    words = (
        "Predictions of one size are put together, and compared with what became of them. On the dashed line what was "
        "said is what happened. Larger dots hold more predictions; upright lines are what chance leaves open."
    )
    picture = calibration_curve(dots, title="Observed against predicted", caption=words, shown=shown, few=FEW)
    rows = [
        ("what was said minus what happened, mean", value_text(one.gap, shown), one.gap_interval),
        ("mean distance over the bins (calibration error)", value_text(one.error, "number"), one.error_interval),
        ("slope that would put it right (below 1: too extreme)", value_text(one.slope, "number"), one.slope_interval),
        ("where that line begins", value_text(one.intercept, "number"), one.intercept_interval),
    ]
    told_rows = [
        (name, value, span_text(interval, "number" if number else shown))
        for number, (name, value, interval) in enumerate(rows)
        if value != "–"
    ]
    body = picture + table(("", "now", "between"), told_rows, numbers=(1, 2))
    return part(heading, _sentence(told), body + _small(f"Intervals draw {one.unit}. {one.note}"), open=True)


def _slices(report: Report) -> str:
    one = report.slices
    if one is None or not report.performance.labelled:
        return ""
    heading = "Where is it worst?"
    if not one.looked_at:
        return part(heading, _sentence(one.note or "Nothing was looked at"), "")
    if not one.worst:
        return part(heading, f"None of {one.looked_at:,} slices is worse than the other rows beyond chance.", "")
    named = [" and ".join(f"{column} {value}" for column, value in found.where.items()) for found in one.worst]
    shown = _shown(report)
    picture = whiskers(
        [
            Whisker(name, found.loss, found.interval, beyond=found.off, note=f"{found.rows:,} rows")
            for name, found in zip(named, one.worst, strict=True)
        ],
        title=f"Mean {one.loss} of the worst slices",
        caption=f"Mean {one.loss} of each slice, and what chance leaves open; the upright line is the other rows'.",
        zero=(_others(report), "the other rows"),
    )
    rows = [
        (
            name,
            "off" if found.off else "hard",
            f"{found.rows:,}",
            f"{found.loss:.3g}",
            span_text(found.interval, "number"),
            f"{found.others:.3g}",
            value_text(found.mean_score, shown),
            value_text(found.observed, shown),
        )
        for name, found in zip(named, one.worst, strict=True)
    ]
    head = ("slice", "", "rows", one.loss, "between", "others", "said", "happened")
    off = sum(found.off for found in one.worst)
    told = f"{_slices_words(off)} off its level" if off == 1 else f"{_slices_words(off)} off their level"
    told = f"{told}, most of all {named[0]}." if off else "No slice is off its level."
    if len(named) > off:
        told += f" {_slices_words(len(named) - off)} harder to tell than the other rows."
    words = (
        f"{one.looked_at:,} slices of one or two of {one.columns} inputs with at least {one.least_rows:,} rows were "
        "compared with all other rows. Listed are those that are worse beyond chance with at most 1 % false finds, in "
        "the order of how much worse they are when small slices are drawn towards the rest: first those that are off, "
        "where what happened is not what was said, then those whose rows are harder to tell, as for any model."
    )
    body = f"<p>{safe(words, 600)}</p>{picture}{table(head, rows, numbers=range(2, 8))}"
    return part(heading, told, body + _small(one.note), open=bool(off) and report.verdict == "act")


def _slices_words(count: int) -> str:
    return "One slice is" if count == 1 else f"{count} slices are"


def _others(report: Report) -> float:
    worst = report.slices.worst if report.slices else []
    return worst[0].others if worst else 0.0


def _arrival(report: Report) -> str:
    one = report.arrival
    if one is None or not report.rows:
        return ""
    heading = "How do labels arrive?"
    if not one.curve or one.usual_hours is None:
        return part(heading, _sentence(one.note), "")
    usual = age_words(one.usual_hours)
    known = value_text(one.known, "share")
    if one.ripe:
        told = f"{known} have arrived, and nearly all that come have had the time to ({usual})."
    else:
        due = value_text(one.expected, "share")
        told = f"{known} have arrived, {due} is usual at this age; ripe on {_moment(one.ripe_at)}."
    picture = arrival_steps(
        [(point.hours, point.share) for point in one.curve],
        title="Share of labels known, by age",
        caption=f"From {one.of}; young predictions count for as long as they were waited for.",
        marks=[(one.usual_hours, f"95 % of those that come: {usual}")],
    )
    words = ""
    if one.same_age:
        early, late = one.same_age, one.later
        was, became = (value_text(found["observed"], _shown(report)) for found in (early, late))
        words = (
            f"The window before had {was} happen when as young as this one ({early['labelled']:,.0f} labels), and "
            f"has {became} by now ({late['labelled']:,.0f})"
        )
        words += (
            ": the labels that come first are unlike the others, so this window's will change." if one.biased else "."
        )
    elif one.note:
        words = _sentence(one.note)
    body = (f"<p>{safe(words, 600)}</p>" if words else "") + picture
    return part(heading, told, body, loud=one.biased)


def _estimate(report: Report) -> str:
    one = report.estimate
    if one is None or not report.rows:
        return ""
    heading = "What is likely, before the labels are there?"
    if not one.metrics:
        return part(heading, _sentence(one.note), "")
    main = next((name for name in ("roc_auc", "accuracy") if one.metrics.get(name) is not None), None)
    told = f"Not without a metric; {one.blind}."
    if main is not None:
        interval = one.intervals.get(main)
        between = f" ({span_text(interval, 'number')})" if interval is not None else ""
        told = f"{main.replace('_', ' ')} {value_text(one.metrics[main], 'number')}{between}; {one.blind}."
    rows = [
        (
            name.replace("_", " "),
            value_text(value, "number"),
            span_text(one.intervals.get(name), "number"),
            value_text(report.performance.metrics.get(name), "number"),
            value_text(one.tested.get(name), "number"),
        )
        for name, value in one.metrics.items()
        if value is not None
    ]
    head = ("", "estimated", "between", "by the labels so far", "before")
    body = (
        f'<p class="blind">{safe(_sentence(one.blind))}</p><p>{safe(_how(one), 700)}</p>'
        f"{table(head, rows, numbers=range(1, 5))}{_small(one.note)}"
    )
    return part(heading, told, body)


def _how(one: Estimate) -> str:
    words = (
        f"Scores were calibrated on {one.calibrated_on}; each of the window's {one.rows:,} predictions then counts as "
        "positive with its probability. Between: where the metric will lie as far as chance goes."
    )
    if one.weighted and one.effective is not None and one.auc is not None:
        words += (
            f" Other inputs come now (a classifier's AUC is {one.auc:.2f}), so those rows were weighted to them, which "
            f"leaves {value_text(one.effective, 'share')}."
        )
    return words


def _business(report: Report) -> str:
    if not report.business:
        return ""
    rows = [
        (
            one.name,
            "–" if one.mean is None else f"{one.mean:.4g}",
            span_text(one.interval, "number"),
            "–" if one.total is None else f"{one.total:,.4g}",
            f"{one.rows:,}",
            one.note or f"{one.better} is better",
        )
        for one in report.business
    ]
    head = ("", "a request", "between", "in all", "requests", "")
    pictures = []
    for one in report.business:
        points = [
            (parse_time(found.at), found.metrics.get(f"business:{one.name}"))
            for found in report.history
            if found.metrics.get(f"business:{one.name}") is not None
        ]
        end = parse_time(report.window.partition("/")[2])
        if one.mean is not None and all(at < end for at, _ in points):
            points.append((end, one.mean))
        if len(points) > 1 and all(b > a for (a, _), (b, _) in pairwise(points)):
            pictures.append(
                line_chart(
                    [at for at, _ in points],
                    [Series(one.name, [value for _, value in points])],
                    title=f"{one.name}, a request, report by report",
                    shown="number",
                )
            )
    first = report.business[0]
    told = (
        f"{first.name} {first.mean:.4g} a request."
        if first.mean is not None
        else _sentence(f"{first.name}: {first.note}")
    )
    return part("What did it do for the business?", told, table(head, rows, numbers=range(1, 5)) + "".join(pictures))


def _shown(report: Report) -> Shown:
    return "number" if report.task == "regression" else "share"


def _sentence(words: str) -> str:
    words = words.strip()
    return f"{words[:1].upper()}{words[1:].rstrip('.')}." if words else ""


def _small(words: str) -> str:
    return f'<p class="small">{safe(_sentence(words), 600)}</p>' if words.strip() else ""


def _moment(text: str | None) -> str:
    if text is None:
        return "an unknown day"
    time = parse_time(text)
    return f"{time.day} {_MONTHS[time.month - 1]} {time:%H:%M} UTC"


_MONTHS = "January February March April May June July August September October November December".split()
