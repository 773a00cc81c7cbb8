"""Rendering of a monitoring report: the verdict first, then what it rests on, each part in a few lines.

What has nothing to say is one line or none; the page (`--html`) and `--json` hold everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seatrial.cli.outcome_lines import outcome_lines, span
from seatrial.cli.render import MAIN_METRICS, Block, Cell, Line, Plain, Style, Table, decimals, fixed, shown
from seatrial.core.errors import counted
from seatrial.monitoring.watched import NOT_WATCHED

if TYPE_CHECKING:
    from seatrial.monitoring.report import AlarmResult, Check, Report

MOST_COLUMNS = 8
VERDICTS: dict[str, tuple[str, Style]] = {
    "act": ("ACT", "red"),
    "watch": ("WATCH", "bold"),
    "unknown": ("NOT KNOWN", "bold"),
    "ok": ("OK", "green"),
}
STATES = {"fired": "FIRED", "quiet": "quiet", "not_enough_data": "not judged"}
TOLD = {
    "late": "known only after the window's end",
    "unmatched": "without a prediction",
    "duplicate": "told again",
    "contradicting": "against another one; the one known last counts",
    "before": "known before the prediction, and not counted",
}


def listing(things: list[Plain]) -> list[Block]:
    """Kept reports: when, and the verdict below it."""
    if not things:
        return [Line("no report was kept")]
    blocks: list[Block] = []
    for one in things:
        word, style = VERDICTS[one["verdict"]]
        when = one["as_of"][:16].replace("T", " ")
        blocks.append(Line(f"{when}  {one['model']}  {one['id']}", "dim"))
        blocks.append(Line(f"  {word}: {one['headline']}", style, hang=4))
    return [*blocks, Line(f"Next: seatrial reports show {things[-1]['id']}")]


def monitor_lines(report: Report, distances: Sequence[str] = (), *, detail: bool = False) -> list[Block]:
    """One report: verdict, next step, then performance, alarms, inputs, data and service.

    distances: shown beside the one that each input is judged by.
    detail: every section with its numbers; without it a section is a line or two.
    """
    word, style = VERDICTS[report.verdict]
    return [
        Line(f"{word}: {report.headline}", style, hang=2),
        Line(f"Next: {report.next}", hang=6),
        Line(),
        Line(f"{report.model}, {report.window}, as of {report.as_of}", "dim"),
        *_performance(report),
        *outcome_lines(report, detail=detail),
        *_days(report),
        *_alarms(report),
        *_drift(report, distances),
        *_quality(report),
        *_system(report),
    ]


def _performance(report: Report) -> list[Block]:
    one = report.performance
    if not one.rows:
        return [Line("no predictions in this window")]
    share = _percent(one.labelled / one.rows)
    blocks: list[Block] = [Line(f"{one.rows:,} predictions; {share} of their labels have arrived ({one.labelled:,})")]
    for name, words in TOLD.items():
        if one.labels.get(name):
            blocks.append(Line(f"  {counted(one.labels[name], 'label')} {words}"))
    if one.note:
        blocks.append(Line(f"  {one.note}", hang=4))
    rows: list[list[Cell]] = []
    if one.mean_score is not None:
        rows.append(["mean prediction", one.mean_score, None, None])
        rows.append(["mean label", one.observed, None, None])
    names = [*(name for name in MAIN_METRICS if name in one.metrics), *sorted(one.metrics)]
    known = [name for name in dict.fromkeys(names) if one.metrics[name] is not None]
    places = decimals([*(one.metrics[name] for name in known), one.mean_score, one.observed])
    rows = [[*row, ""] for row in rows]
    rows += [
        [name, one.metrics[name], one.constant.get(name), one.training.get(name), span(one.intervals.get(name), places)]
        for name in known
    ]
    if rows:
        head = ["performance", "now", "95 %", "constant", "test"]
        kept = [place for place, name in enumerate(head) if not (name == "test" and not one.training)]
        kept = [place for place in kept if head[place] != "95 %" or any(row[4] for row in rows)]
        ordered = [[row[0], row[1], row[4], row[2], row[3]] for row in rows]
        blocks += [Line(), Table([head[i] for i in kept], [[row[i] for i in kept] for row in ordered], even=True)]
    if one.blocks:
        narrow = ", too few: they are too narrow" if one.few_blocks else ""
        blocks.append(Line(f"intervals draw {one.blocks}{narrow}", "dim"))
    return blocks


def _days(report: Report) -> list[Block]:
    days = [day for day in report.performance.days if day.rows]
    if not days:
        return []
    notes = [f"the last 14 of {len(days)} days"] if len(days) > 14 else []
    begins = next((day.start[11:16] for day in days if not day.partial), "00:00")
    if begins != "00:00":
        notes.append(f"days begin at {begins} UTC, as the window does")
    rows: list[list[Cell]] = [
        [
            f"{day.middle:%Y-%m-%d}{' (part)' if day.partial else ''}",
            day.rows,
            day.labelled,
            day.mean_score_labelled if day.labelled else day.mean_score,
            day.observed,
        ]
        for day in days[-14:]
    ]
    table = Table(("day", "predictions", "labels", "predicted", "observed"), rows, even=True)
    return [Line(), table, *([Line("; ".join(notes), "dim")] if notes else [])]


def _state(alarm: AlarmResult) -> str:
    return "not watched" if alarm.note.startswith(NOT_WATCHED) else STATES[alarm.state]


def _alarms(report: Report) -> list[Block]:
    if not report.alarms:
        return []
    rows = [[_state(one), one.name, one.severity, one.evidence or one.note] for one in report.alarms]
    return [Line(), Table(("alarm", "", "severity", "evidence"), rows)]


def _drift(report: Report, distances: Sequence[str]) -> list[Block]:
    found = report.drift
    notes: list[Block] = [Line(found.note)] if found.note else []
    every = [*([found.prediction] if found.prediction else []), *found.columns]
    if not every:
        return [Line(), *notes]
    moved = sum(one.drifted for one in found.columns)
    listed = [one for one in every if one.drifted or one is found.prediction]
    listed += [one for one in every if one not in listed][: max(0, MOST_COLUMNS - len(listed))]
    listed = listed[: MOST_COLUMNS * 3]
    places = decimals(one.value for one in listed)
    rows: list[list[Cell]] = [
        [
            "(the predictions)" if one is found.prediction else one.name,
            "-" if one.value is None else f"{one.distance} {fixed(one.value, places)}",
            *(one.distances.get(name) for name in distances),
            one.tolerated,
            ("moved before" if one.before else "MOVED") if one.drifted else "",
            _percent(one.missing),
            one.rows,
            one.note,
        ]
        for one in listed
    ]
    head = ("input", "distance", *distances, "tolerated", "", "missing", "rows", "")
    against = f", against {found.reference}" if found.reference else ""
    words = f"{moved} of {len(found.columns)} inputs moved{against}"
    rest = len(every) - len(listed)
    more: list[Block] = [Line(f"and {rest} more", "dim")] if rest else []
    told = report.attribution
    more += [Line(_capital(told.words), hang=2)] if told is not None and told.words else []
    return [Line(), Line(words, "red" if moved else "", hang=2), Table(head, rows, even=True), *more, *notes]


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def _quality(report: Report) -> list[Block]:
    if not report.quality:
        return []
    failed = [one for one in report.quality if not one.passed]
    noticed = [one for one in report.quality if one.noticed and one.passed]

    def told(one: Check) -> str:
        expected = f"; expected: {one.expected}" if one.expected else ""
        return f"{one.name}{f' of {one.column}' if one.column else ''}: {one.found}{expected}"

    lines: list[Block] = [Line(f"✗ {told(one)}", "red", hang=2) for one in failed]
    if not failed:
        lines = [Line(f"✓ all {len(report.quality)} checks of the data passed", "green")]
    lines += [Line(f"! {told(one)}", hang=2) for one in noticed[:MOST_COLUMNS]]
    rest = len(noticed) - MOST_COLUMNS
    return [Line(), *lines, *([Line(f"and {rest} more, none of which is a fault", "dim")] if rest > 0 else [])]


def _system(report: Report) -> list[Block]:
    one = report.system
    parts = [
        f"{name} {shown(value)} ms"
        for name, value in (("p50", one.p50_ms), ("p95", one.p95_ms), ("p99", one.p99_ms))
        if value is not None
    ]
    parts += [] if one.degraded is None else [f"degraded {_percent(one.degraded)}"]
    parts += [] if one.error_rate is None else [f"failed {_percent(one.error_rate)}"]
    parts += [] if one.resources is None else [f"server {one.resources.words}"]
    parts += one.broken
    words = f"service: {', '.join(parts)}" if parts else ""
    told = "; ".join(text for text in (words, one.note) if text)
    lines = [Line(told, hang=9)] if told else []
    return [Line(), *lines, *_skew(report)] if lines or report.skew else []


def _skew(report: Report) -> list[Block]:
    """What of the features that were given the offline join confirms."""
    if report.skew is None:
        return []
    mark = "✗ " if report.skew.mismatched else "✓ " if report.skew.rows else ""
    style: Style = "red" if report.skew.mismatched else "green" if report.skew.rows else ""
    as_of = "" if report.skew.as_of == report.as_of else f" ({report.skew.as_of[:16].replace('T', ' ')})"
    return [Line(f"{mark}replay: {report.skew.words}{as_of}", style)]


def _percent(share: float) -> str:
    percent = share * 100
    return f"{percent:.0f} %" if percent >= 9.95 or percent == 0 else f"{percent:.1f} %"
