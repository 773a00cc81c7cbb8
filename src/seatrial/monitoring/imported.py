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
import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import from_us, iso
from seatrial.core.windows import DAY_US, HOUR_US, Window, duration_text, duration_us
from seatrial.monitoring.definition import Alarm, Monitor
from seatrial.monitoring.looks.alarms import MIN_ROWS, QUIET_START
from seatrial.monitoring.looks.performance import performance
from seatrial.monitoring.monitor import make_report, require_an_age
from seatrial.monitoring.report import AlarmResult, Point, Report
from seatrial.monitoring.rows.baseline import FEWEST, Baseline
from seatrial.monitoring.rows.foreign import Imported, read_labelled, read_log, read_reference
from seatrial.monitoring.rows.mapping import ColumnMap, read_map
from seatrial.monitoring.rows.sample import Sample
from seatrial.monitoring.watched import NOT_WATCHED, Watched

if TYPE_CHECKING:
    from seatrial.monitoring.policy.rehearsal import Rehearsal
    from seatrial.monitoring.rows.reference import Reference

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
    ends = _ends(imported.sample)
    looked = window or default_window(ends, duration_us(monitor.window), as_of_us)
    require_an_age(looked)
    return reported(
        imported,
        columns,
        monitor,
        looked,
        reference,
        against,
        as_of_us=as_of_us,
        ends=ends,
        of_last=window is None,
    )


def reported(
    imported: Imported,
    columns: ColumnMap,
    monitor: Monitor,
    window: Window,
    reference: Path | None,
    against: str | None,
    *,
    as_of_us: int,
    ends: tuple[int, int] | None,
    of_last: bool,
) -> Report:
    """The report on a log, wherever its rows are.

    ends: instants of its first and last prediction, None without any. of_last: nobody asked for this window.
    """
    sample = imported.sample
    compared, too_small = _compared_with(reference, against, columns, sample, window)
    tested = None if reference is None else read_labelled(reference, columns)
    seen, policy = _watched(sample, window, monitor, compared, columns, as_of_us, tested)
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
        since_us=None if ends is None else ends[0],
        history=_history(sample, window, ends),
    )
    report = _in_silence(report, _silence(ends, window, as_of_us), of_last=of_last)
    notes = [*too_small, *imported.left_out]
    return msgspec.structs.replace(report, findings=[*report.findings, *notes], next=_told_next(report))


def _ends(sample: Sample) -> tuple[int, int] | None:
    at_us = sample.at_us()
    return (int(at_us[0]), int(at_us[-1])) if at_us.size else None


def _history(sample: Sample, window: Window, ends: tuple[int, int] | None) -> list[Point]:
    """The figures of as long windows before this one, oldest first, with the labels known now: nothing is kept of
    earlier reports."""
    length = window.end_us - window.start_us
    found: list[Point] = []
    for number in range(1, MOST_BEFORE + 1):
        earlier = Window(window.start_us - number * length, window.end_us - number * length)
        if ends is None or earlier.start_us + length // QUIET_START < ends[0]:
            break
        figures = performance(sample.within(earlier), earlier)
        if not figures.rows:
            continue
        numbers = figures.metrics | {"gap": figures.gap, "mean_score": figures.mean_score, "observed": figures.observed}
        numbers |= {"rows": float(figures.rows), "labelled": float(figures.labelled)}
        found.append(Point(at=str(earlier).partition("/")[2], window=str(earlier), metrics=numbers))
    return found[::-1]


def _in_silence(report: Report, silent: Sequence[str], *, of_last: bool) -> Report:
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
    """The policy replayed on a log from elsewhere, over the last `over_us` of it; see `monitoring.policy.rehearsal`.

    Raises as `monitor_log` does.
    """
    from seatrial.monitoring.policy import watch
    from seatrial.monitoring.policy.rehearsal import WARM_US, rehearse

    columns = read_map(mapping)
    sample = read_log(log, columns, labels=labels, as_of_us=as_of_us).sample
    compared, _ = (None, ()) if reference is None else _compared(reference, columns, sample)
    end_us = default_window(_ends(sample), over_us, as_of_us).end_us
    sample = sample.within(Window(end_us - over_us - WARM_US, end_us))
    base = None if reference is None else read_labelled(reference, columns)
    tested, note = _tested_on(columns, base)
    source = watch.source_of(sample, compared, tested, base)
    state = watch.begun(columns.monitor, sample.at_us(), source, until_us=end_us)
    done = rehearse(columns.monitor, state, source, from_us=end_us - over_us, until_us=end_us)
    notes = [*done.notes, note] if note else done.notes
    return msgspec.structs.replace(done, notes=notes, snippet=_of_the_map(done, columns) if done.snippet else "")


def _of_the_map(done: Rehearsal, columns: ColumnMap) -> str:
    """The proposed thresholds, with those that the map has, as lines of the map."""
    factors = dict(columns.monitor.thresholds) | done.thresholds
    inner = ", ".join(f'"{name}" = {value:g}' for name, value in sorted(factors.items()))
    return f'every = "{done.every}"\nfalse_alarms_per_month = {done.budget:g}\nthresholds = {{{inner}}}'


def _watched(
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
    tested, note = _tested_on(columns, base)
    apart = sample.answers is not None and base is not None
    source = watch.source_of(sample, reference, tested, None if apart else base)
    until_us = min(as_of_us, window.end_us)
    at_us = _instants(sample, Window(until_us - 8 * watch.BACK_US, until_us))
    state, learned = watch.over(monitor, at_us, source, until_us=until_us)
    seen, alarms = watch.watched(state, learned), [_with_remedy(one, apart) for one in watch.alarms(state)]
    if seen is not None and note:
        seen = msgspec.structs.replace(seen, notes=[*seen.notes, note])
    return seen, alarms


def _instants(sample: Sample, window: Window) -> NDArray[np.int64]:
    """When predictions came; of rows in a database the first instant, as often as there are rows: that is looked at."""
    at_us = sample.at_us()
    if sample.answers is None:
        return at_us[at_us >= window.start_us]
    times = sample.answers.within(window).times()
    return np.empty(0, np.int64) if times is None else np.broadcast_to(np.int64(times.first_us), times.rows)


def _tested_on(columns: ColumnMap, base: Baseline | None) -> tuple[dict[str, float], str]:
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


def _with_remedy(alarm: AlarmResult, apart: bool) -> AlarmResult:
    """What would make somebody look, of the error that nobody watches.

    apart: there are labelled rows for an estimate, and those of the log stay in their database.
    """
    from seatrial.monitoring.policy import watch

    if apart and alarm.name == watch.ESTIMATED:
        return msgspec.structs.replace(alarm, note=f"{NOT_WATCHED} it takes the rows, which stayed in their database")
    if not alarm.note.endswith("to compare with") or not alarm.note.startswith(f"{NOT_WATCHED} the test part"):
        return alarm
    remedy = f"name it under [tested] in the map, or give a --reference with {FEWEST} labels"
    return msgspec.structs.replace(alarm, note=f"{alarm.note}; {remedy}")


def _compared_with(
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


def default_window(ends: tuple[int, int] | None, length_us: int, as_of_us: int) -> Window:
    """`length_us` up to the end of the day of the last prediction, and not beyond `as_of_us`."""
    end = as_of_us if ends is None else min(as_of_us, (ends[1] // DAY_US + 1) * DAY_US)
    return Window(end - length_us, end)


def _silence(ends: tuple[int, int] | None, window: Window, as_of_us: int) -> list[str]:
    """A log that ended long ago is no sign of health."""
    if ends is None or as_of_us - ends[1] <= window.end_us - window.start_us:
        return []
    days = (as_of_us - ends[1]) // DAY_US
    apart = f"{days} days" if days else duration_text((as_of_us - ends[1]) // HOUR_US * HOUR_US)
    return [f"the log ends {apart} before now: its last prediction is of {iso(from_us(ends[1]))}"]


def _told_next(report: Report) -> str:
    """What to do, without the commands that need a project."""
    if "`seatrial label" in report.next:
        return "Tell what really happened: name the label's column in the map, or give a file with --labels."
    words = report.next.partition(": `seatrial")[0].partition(" `seatrial")[0]
    return words if words.endswith(".") else f"{words}."
