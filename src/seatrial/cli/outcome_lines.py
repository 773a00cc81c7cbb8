"""Rendering of what a report says of how right the model was: a line or two a part, its numbers with --detail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.cli.render import Block, Cell, Line, Style, Table, decimals, fixed

if TYPE_CHECKING:
    from seatrial.monitoring.figures import Changed, Interval, SliceFigure
    from seatrial.monitoring.report import Report

FEW = 3
"""Slices that are told without --detail."""


def outcome_lines(report: Report, *, detail: bool) -> list[Block]:
    """Arrival of labels, calibration, concept, worst slices, estimate and business, in that order."""
    parts = [
        _arrival(report, detail),
        _calibration(report, detail),
        _concept(report, detail),
        _slices(report, detail),
        _estimate(report, detail),
        _business(report),
    ]
    return [block for part in parts if part for block in ([Line(), *part] if detail else part)]


def span(interval: Interval | None, places: int | None = None) -> str:
    """An interval for people, with as many decimals as the number beside it has.

    >>> span((0.7123, 0.75)), span((0.7123, 0.75), 3)
    ('0.712 to 0.75', '0.712 to 0.750')
    """
    if interval is None:
        return ""
    return " to ".join(f"{end:.3g}" if places is None else fixed(end, places) for end in interval)


def _arrival(report: Report, detail: bool) -> list[Block]:
    from seatrial.monitoring.looks.outcome import age_words

    one = report.arrival
    if one is None or one.usual_hours is None:
        return [] if one is None or not one.note or not report.rows else [_line("labels", one.note)]
    words = f"95 % of those that come are there within {age_words(one.usual_hours)}"
    if one.final is not None and one.final < 0.995:
        words += f"; {_percent(1 - one.final)} never come"
    words += "; this window is ripe" if one.ripe else f"; this window is ripe on {one.ripe_at}"
    if not one.ripe and one.expected is not None:
        words += f", {_percent(one.expected)} is usual at its age"
    found: list[Block] = [_line("labels", words)]
    if one.same_age:
        early, late = one.same_age, one.later
        text = f"the window before, as young, had a mean label of {early['observed']:.3g}, "
        text += f"and has {late['observed']:.3g} now"
        text += ": the first labels are unlike the others" if one.biased else ""
        found.append(_line("", text, "red" if one.biased else ""))
    if one.note:
        found.append(_line("", one.note))
    if detail and one.curve:
        steps = max(1, len(one.curve) // 10)
        rows: list[list[Cell]] = [[age_words(point.hours), point.share] for point in one.curve[steps - 1 :: steps]]
        found.append(Table(("age", "share of labels known"), rows, even=True))
    return found


def _calibration(report: Report, detail: bool) -> list[Block]:
    one = report.calibration
    if one is None or not one.rows:
        return []
    if one.slope is None and one.error is None:
        return [_line("calibration", one.note)] if one.note else []
    parts = [f"gap {_signed(one.gap)}{_in(one.gap_interval)}"]
    parts += [f"error {one.error:.3g}{_in(one.error_interval)}"] if one.error is not None else []
    parts += [f"slope {one.slope:.3g}{_in(one.slope_interval)}"] if one.slope is not None else []
    found: list[Block] = [_line("calibration", ", ".join(parts))]
    if one.note:
        found.append(_line("", one.note))
    if detail and one.bins:
        places = decimals(bin.observed for bin in one.bins)
        rows: list[list[Cell]] = [
            [f"{bin.low:.3g} to {bin.high:.3g}", bin.rows, bin.mean_score, bin.observed, span(bin.interval, places)]
            for bin in one.bins
        ]
        found.append(Table(("score", "rows", "said", "happened", "95 %"), rows, even=True))
        found.append(Line(f"intervals draw {one.unit}", "dim"))
    return found


def _concept(report: Report, detail: bool) -> list[Block]:
    one = report.concept
    if one is None or not report.rows:
        return []
    style: Style = "red" if one.verdict == "changed" else ""
    found: list[Block] = [_line("concept", one.words, style)]
    if one.against and (detail or one.verdict == "changed"):
        weighed = ""
        if one.weighted and one.effective is not None:
            weighed = f", weighted to the inputs of now (which leaves {_percent(one.effective)} of them)"
        words = f"{one.rows:,} labelled rows against {one.before_rows:,} {one.against}{weighed}; {one.unit}"
        found.append(_line("", words, "dim"))
    if one.note:
        found.append(_line("", one.note, "dim"))
    listed = [*one.parts, *one.slices] if detail else [part for part in [*one.parts, *one.slices] if part.changed][:FEW]
    if listed:
        found.append(Table(("part", "rows", "off before", "off now", "change", "95 %", ""), [_part(p) for p in listed]))
    return found


def _part(one: Changed) -> list[Cell]:
    return [
        one.part,
        one.rows,
        f"{one.before:+.3g}",
        f"{one.after:+.3g}",
        f"{one.change:+.3g}",
        span(one.interval),
        "CHANGED" if one.changed else "",
    ]


def _slices(report: Report, detail: bool) -> list[Block]:
    one = report.slices
    if one is None or not report.performance.labelled:
        return []
    if not one.looked_at:
        return [_line("slices", one.note)] if one.note else []
    if not one.worst:
        return [_line("slices", f"none of {one.looked_at:,} is worse than the other rows beyond chance")]
    off = sum(found.off for found in one.worst)
    words = f"of {one.looked_at:,}, {off} are off their level and {len(one.worst) - off} harder than the other rows:"
    rows = [_slice(found) for found in (one.worst if detail else one.worst[:FEW])]
    head = ("slice", "", "rows", one.loss, "95 %", "others", "said", "happened")
    return [_line("slices", words), Table(head, rows, even=True), *([_line("", one.note, "dim")] if one.note else [])]


def _slice(one: SliceFigure) -> list[Cell]:
    where = " and ".join(f"{column} {value}" for column, value in one.where.items())
    return [
        where,
        "OFF" if one.off else "hard",
        one.rows,
        one.loss,
        span(one.interval),
        one.others,
        one.mean_score,
        one.observed,
    ]


def _estimate(report: Report, detail: bool) -> list[Block]:
    one = report.estimate
    if one is None or not report.rows:
        return []
    if not one.metrics:
        return [_line("estimate", one.note)] if one.note else []
    known = {name: value for name, value in one.metrics.items() if value is not None}
    main = [name for name in ("roc_auc", "f1", "accuracy") if name in known]
    parts = [f"{name} {known[name]:.3g}{_in(one.intervals.get(name))}" for name in main]
    found: list[Block] = [_line("estimate", f"{', '.join(parts)}, of all {one.rows:,} rows, without their labels")]
    found.append(_line("", f"! {one.blind}", "bold"))
    if detail:
        weighed = ""
        if one.weighted and one.effective is not None:
            weighed = f", weighted to the window's inputs (which leaves {_percent(one.effective)} of them)"
        found.append(_line("", f"calibrated on {one.calibrated_on}{weighed}", "dim"))
        places, so_far = decimals(known.values()), report.performance.metrics
        rows: list[list[Cell]] = [
            [name, value, span(one.intervals.get(name), places), so_far.get(name), one.tested.get(name)]
            for name, value in known.items()
        ]
        found.append(Table(("metric", "estimated", "95 %", "by the labels so far", "before"), rows, even=True))
    if one.note:
        found.append(_line("", one.note, "dim"))
    return found


def _business(report: Report) -> list[Block]:
    found: list[Block] = []
    for one in report.business:
        if one.mean is None:
            found.append(_line(one.name, one.note))
            continue
        words = f"{one.mean:.4g} a request{_in(one.interval)}, {one.total:,.4g} in all of {one.rows:,}"
        found.append(_line(one.name, words + (f"; {one.note}" if one.note else "")))
    return found


def _line(name: str, words: str, style: Style = "") -> Line:
    return Line(f"{name + ':' if name else '':13}{words}", style, hang=13)


def _in(interval: Interval | None) -> str:
    return "" if interval is None else f" [{interval[0]:.3g}, {interval[1]:.3g}]"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3g}"


def _percent(share: float) -> str:
    percent = share * 100
    return f"{percent:.0f} %" if percent >= 9.95 or percent == 0 else f"{percent:.1f} %"
