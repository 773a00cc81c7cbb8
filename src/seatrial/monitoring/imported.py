"""A model that is served elsewhere: its log, a map of the columns, and every report and alarm that there is.

No project, model or release is needed, and nothing is written. A log is a Parquet or CSV file, a folder of Parquet
files, or a folder that `PredictionLog(...).write(...)` made; `monitoring.rows.mapping` says what a map holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.windows import Window, duration_text, duration_us
from seatrial.monitoring.definition import Alarm, Monitor
from seatrial.monitoring.looks.alarms import MIN_ROWS, QUIET_START
from seatrial.monitoring.looks.performance import performance
from seatrial.monitoring.monitor import make_report, require_an_age
from seatrial.monitoring.report import AlarmResult, Point, Report
from seatrial.monitoring.rows.baseline import FEWEST, Baseline
from seatrial.monitoring.rows.foreign import (
    read_labelled,
    read_log,
    read_reference,
)
from seatrial.monitoring.rows.mapping import ColumnMap, read_map
from seatrial.monitoring.rows.sample import Sample
from seatrial.monitoring.watched import NOT_WATCHED, Watched

if TYPE_CHECKING:
    from seatrial.monitoring.policy.rehearsal import Rehearsal
    from seatrial.monitoring.rows.reference import Reference

DAY_US = 86_400_000_000
MOST_BEFORE = 12
"""Windows before the report's own whose figures are its history."""


def monitor_log(
    log: Path,
    mapping: Path,
    reference: Path | None = None,
    *,
    as_of_us: int,
    window: Window | None = None,
    labels: Path | None = None,
    alarms: Sequence[Alarm] = (),
    against: str | None = None,
) -> Report:
    """The report on a log from elsewhere, with what was known at `as_of_us`. Nothing is written.

    reference: rows to compare with: those of the training, or a stretch of the log that was good; its columns have the
        names of the log's. window: by default as long as the map says, up to the end (UTC) of the day of the log's
        last prediction. labels: a file of labels that find their prediction by prediction_id, request_id or the key.
    alarms: beside those of the map. against: a window of the same log to compare with, in place of a reference: a
        duration (right before the window) or START/END.

    Raises MapUnreadable, BadMap, LogMissing, LogColumnNotThere, LogColumnWrong, UsageError for a window before
    1900, and what reading files raises.
    """
    columns = read_map(mapping)
    monitor = replace(columns.monitor, alarms=(*columns.monitor.alarms, *alarms))
    imported = read_log(log, columns, labels=labels, as_of_us=as_of_us)
    sample = imported.sample
    asked, window = window, window or default_window(sample, duration_us(monitor.window), as_of_us)
    require_an_age(window)
    compared, too_small = compared_with(reference, against, columns, sample, window)
    tested = None if reference is None else read_labelled(reference, columns)
    seen, policy = watched(sample, window, monitor, compared, columns, as_of_us, tested)
    report = make_report(
        sample,
        window=window,
        as_of_us=as_of_us,
        monitor=monitor,
        reference=compared,
        training=columns.tested,
        owner=columns.owner,
        on_call=columns.on_call,
        runbook=columns.runbook,
        tested=tested,
        watched=seen,
        policy=policy,
        history=_history(sample, window),
    )
    report = in_silence(report, silence(sample, window, as_of_us), of_last=asked is None)
    notes = [*too_small, *imported.left_out]
    return msgspec.structs.replace(report, findings=[*report.findings, *notes], next=told_next(report))


def _history(sample: Sample, window: Window) -> list[Point]:
    """The figures of as long windows before this one, oldest first, with the labels known now: nothing is kept of
    earlier reports."""
    at_us, length = sample.at_us(), window.end_us - window.start_us
    found: list[Point] = []
    for number in range(1, MOST_BEFORE + 1):
        earlier = Window(window.start_us - number * length, window.end_us - number * length)
        if not at_us.size or earlier.start_us + length // QUIET_START < int(at_us[0]):
            break
        inside = sample.within(earlier)
        if not inside.rows.num_rows:
            continue
        figures = performance(inside, earlier)
        numbers = figures.metrics | {"gap": figures.gap, "mean_score": figures.mean_score, "observed": figures.observed}
        numbers |= {"rows": float(figures.rows), "labelled": float(figures.labelled)}
        found.append(Point(at=str(earlier).partition("/")[2], window=str(earlier), metrics=numbers))
    return found[::-1]


def in_silence(report: Report, silent: Sequence[str], *, of_last: bool) -> Report:
    """A report whose log has ended. of_last: nobody asked for this window, so it was to tell how things are now."""
    found = [*report.findings, *silent]
    if not (silent and of_last and report.verdict == "ok"):
        return msgspec.structs.replace(report, findings=found)
    words = f"Nobody can say whether the model '{report.model}' is right now: {silent[0]}. Until then it was."
    step = "Check that the model is asked, and that its log is written."
    return msgspec.structs.replace(report, findings=found, verdict="unknown", headline=words, next=step)


def rehearse_log(
    log: Path,
    mapping: Path,
    reference: Path | None = None,
    *,
    as_of_us: int,
    over_us: int,
    labels: Path | None = None,
) -> Rehearsal:
    """The policy replayed on a log from elsewhere, over the last `over_us` of it; see `monitoring.rehearsal`.

    Raises as `monitor_log` does.
    """
    from seatrial.monitoring.policy import watch
    from seatrial.monitoring.policy.rehearsal import WARM_US, rehearse

    columns = read_map(mapping)
    sample = read_log(log, columns, labels=labels, as_of_us=as_of_us).sample
    compared, _ = (None, ()) if reference is None else _compared(reference, columns, sample)
    end_us = default_window(sample, over_us, as_of_us).end_us
    sample = sample.within(Window(end_us - over_us - WARM_US, end_us))
    base = None if reference is None else read_labelled(reference, columns)
    tested, note = tested_on(columns, base)
    source = watch.source_of(sample, compared, tested, base)
    state = watch.begun(columns.monitor, sample.at_us(), source, until_us=end_us)
    done = rehearse(columns.monitor, state, source, from_us=end_us - over_us, until_us=end_us)
    return msgspec.structs.replace(done, notes=[*done.notes, note]) if note else done


def watched(
    sample: Sample,
    window: Window,
    monitor: Monitor,
    reference: Reference | None,
    columns: ColumnMap,
    as_of_us: int,
    base: Baseline | None,
) -> tuple[Watched | None, list[AlarmResult]]:
    """The policy over the whole log up to the window's end."""
    from seatrial.monitoring.policy import watch

    if not monitor.policy:
        return None, []
    tested, note = tested_on(columns, base)
    source = watch.source_of(sample, reference, tested, base)
    state, learned = watch.over(monitor, sample, source, until_us=min(as_of_us, window.end_us))
    seen, alarms = watch.watched(state, learned), [_with_remedy(one) for one in watch.alarms(state)]
    if seen is not None and note:
        seen = msgspec.structs.replace(seen, notes=[*seen.notes, note])
    return seen, alarms


def tested_on(columns: ColumnMap, base: Baseline | None) -> tuple[dict[str, float], str]:
    """The figures of the map's [tested]; where they lack the one by which the error is watched, labelled rows of the
    reference stand for the test part, and a sentence says so."""
    from seatrial.monitoring.policy.series import ERRORS

    metric, tested = ERRORS[columns.task][0], dict(columns.tested)
    if metric in tested or base is None or base.rows < FEWEST:
        return tested, ""
    at_us = base.sample.at_us()
    value = performance(base.sample, Window(int(at_us[0]), int(at_us[-1]) + 1)).metrics.get(metric)
    if value is None:
        return tested, ""
    words = f"the map has no [tested] {metric}: {base.name} stand for the test part, with {metric} {value:.4g}"
    return tested | {metric: value}, words


def _with_remedy(alarm: AlarmResult) -> AlarmResult:
    """What would make somebody look, of the error that nobody watches."""
    if not alarm.note.endswith("to compare with") or not alarm.note.startswith(f"{NOT_WATCHED} the test part"):
        return alarm
    remedy = f"name it under [tested] in the map, or give a --reference with {FEWEST} labels"
    return msgspec.structs.replace(alarm, note=f"{alarm.note}; {remedy}")


def compared_with(
    path: Path | None, against: str | None, columns: ColumnMap, sample: Sample, window: Window
) -> tuple[Reference | None, Sequence[str]]:
    """The rows of a file, or of a window of the log; None, and why, when there are none or too few."""
    if against is not None:
        return _past(against, window, sample, path), ()
    return (None, ()) if path is None else _compared(path, columns, sample)


def _compared(path: Path, columns: ColumnMap, sample: Sample) -> tuple[Reference | None, Sequence[str]]:
    """What to compare with; None, and why, when it is too little to say what is usual."""
    reference = read_reference(path, columns, sample)
    if reference.rows >= MIN_ROWS:
        return reference, ()
    lacking = f"not enough data: {reference.rows:,} of {MIN_ROWS:,} rows"
    return None, [f"nothing was compared with the reference {path.name}: {lacking}"]


def _past(against: str, window: Window, sample: Sample, reference: Path | None) -> Reference:
    from seatrial.monitoring.rows.against import BadReference, chosen, of_window

    found = chosen(against, window)
    if not isinstance(found, Window):
        raise BadReference(
            f"a log from elsewhere has no '{against}' to compare with.",
            expected="A duration such as 7d or a window START/END of the log is expected.",
            next="Give the rows of the training with --reference.",
        )
    if reference is not None:
        raise BadReference(
            f"both a reference ({reference.name}) and a window of the log ({against}) are given.",
            expected="One of them is expected.",
            state="Nothing was reported.",
        )
    return of_window(sample, found)


def default_window(sample: Sample, length_us: int, as_of_us: int) -> Window:
    """`length_us` up to the end of the day of the last prediction, and not beyond `as_of_us`."""
    at = sample.at_us()
    end = as_of_us if not at.size else min(as_of_us, (int(at[-1]) // DAY_US + 1) * DAY_US)
    return Window(end - length_us, end)


def silence(sample: Sample, window: Window, as_of_us: int) -> list[str]:
    """A log that ended long ago is no sign of health."""
    at = sample.at_us()
    length = window.end_us - window.start_us
    if not at.size or as_of_us - int(at[-1]) <= length:
        return []
    days = (as_of_us - int(at[-1])) // DAY_US
    apart = f"{days} days" if days else duration_text((as_of_us - int(at[-1])) // 3_600_000_000 * 3_600_000_000)
    return [f"the log ends {apart} before now: its last prediction is of {iso(from_us(int(at[-1])))}"]


def told_next(report: Report) -> str:
    """What to do, without the commands that need a project."""
    if "`seatrial label" in report.next:
        return "Tell what really happened: name the label's column in the map, or give a file with --labels."
    words = report.next.partition(": `seatrial")[0].partition(" `seatrial")[0]
    return words if words.endswith(".") else f"{words}."
