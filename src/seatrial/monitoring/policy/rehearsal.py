"""The rehearsal: what would the policy have said over a model's own past, and what does it take to keep the budget?

The windows of the past are judged by the same code that watches. Then an incident is planted in copies of them, at
several places, and the windows are counted until it is found; and the series whose alarms are too many get higher
thresholds, one after the other, until the stated budget is met.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from seatrial.core.clock import from_us as instant
from seatrial.core.clock import iso
from seatrial.core.windows import DAY_US, Window, duration_text
from seatrial.monitoring.definition import Monitor
from seatrial.monitoring.looks.drift import PREDICTION
from seatrial.monitoring.policy.judgement import (
    LOSSES,
    MONTH_US,
    Firing,
    Judged,
    Learned,
    Sums,
    factor_of,
    judge,
    onsets,
    thresholds,
)
from seatrial.monitoring.policy.series import Windows, windows_of
from seatrial.monitoring.policy.watch import Source, State, advance, every_of, group_of, words_of
from seatrial.monitoring.rows.reference import Numbers, Reference, floats
from seatrial.monitoring.rows.sample import FEATURE, Sample

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

FORMAT = 1
WARM_US = 28 * DAY_US
"""History before the rehearsed time from which the season may be learned."""
USUAL = 0.05
SHIFT, MISSING, SCORES = 0.5, 0.03, 0.25
PLACES, INPUTS = 4, 5
HORIZON = 48
"""How often an incident is planted, in how many inputs, and for how many windows it is looked for."""
ROUNDS = 40
HIGHEST_FACTOR = 50.0
MOST_LISTED = 200


class Raised(msgspec.Struct, frozen=True):
    """One alarm that would have been raised. at: the end of its window. series: those that were beyond their thresholds
    in it, of those that began before the rehearsed time none."""

    at: str
    subject: str
    words: str
    series: list[str] = []


class Incident(msgspec.Struct, frozen=True):
    """What was planted, how often, and how often it was found within `horizon` windows. median, p95: windows until
    then; None when it was found too seldom."""

    words: str
    planted: int
    found: int
    median: float | None
    p95: float | None
    horizon: int


class Rehearsal(msgspec.Struct, frozen=True):
    """What the policy would have done.

    from_, until: the rehearsed time; windows: how many of its windows had rows. budget, a_month: false alarms in 30
    days as stated, and alarms in 30 days as replayed (they are false if nothing happened, which only you know).
    usual, usual_a_month: how often "KS p < 0.05 for each feature" would have begun to alarm. thresholds: what to
    declare so that the budget is met, empty when it is; proposed: alarms that then remain; unseen: how many in the last
    third, with thresholds made from the rest, and how many the budget allows there. snippet: to paste. earlier: alarms
    that began before the rehearsed time and still rang when it began; they are not among `raised`.
    kept: alarms of the error, or of alerts that are open, which no proposed threshold silences.
    """

    format: int
    model: str
    from_: str
    until: str
    every: str
    windows: int
    series: int
    season: int
    budget: float
    alarms: list[Raised]
    raised: int
    a_month: float
    usual: int
    usual_a_month: float
    within: bool
    incidents: list[Incident]
    thresholds: dict[str, float]
    proposed: int
    unseen: tuple[int, float]
    snippet: str
    notes: list[str]
    earlier: list[Raised] = []
    kept: int = 0


@dataclass(frozen=True)
class _Part:
    """Windows judged in one go. fresh: a watch begins here."""

    windows: Windows
    learned: Learned | None
    fresh: bool
    release: str


def rehearse(
    monitor: Monitor,
    state: State | None,
    source: Source,
    *,
    from_us: int,
    until_us: int,
    open_alerts: Collection[str] = (),
) -> Rehearsal:
    """Judge everything from where `state` begins until `until_us`, and count from `from_us` on. Nothing is kept.
    Without a state there was no row. open_alerts: names of the policy's alarms that ring or are looked into: thresholds
    that would silence them are not proposed, nor any for the error.

    One part of the rows is in memory at a time; of the windows their statistics.
    """
    parts: list[_Part] = []
    if state is None:
        return _nothing(monitor, every_of(monitor, 0, 0), from_us, until_us, ())
    since, notes = -1, list(state.notes)
    monitor = replace(monitor, every=duration_text(state.every_us))
    for step in advance(monitor, state, None, source, until_us=until_us):
        parts.append(_Part(step.windows, step.learned, step.state.since_us != since, step.state.release))
        since = step.state.since_us
        notes += [one for one in step.state.notes if one not in notes]
    if not parts or not any(part.windows.series for part in parts):
        return _nothing(monitor, state.every_us, from_us, until_us, notes)
    last_us = int(parts[-1].windows.ends[-1])
    if last_us <= from_us:
        why = f"nothing came after {iso(instant(last_us))}, so there is nothing to rehearse on"
        return _nothing(monitor, state.every_us, from_us, until_us, [*notes, why])
    from_us = max(from_us, int(parts[0].windows.starts[0]))
    months = (last_us - from_us) / MONTH_US
    raised = _replay(parts, monitor, monitor.thresholds, from_us)
    usual = _usual(parts, from_us)
    allowed = _allowed(monitor, months)
    loud = _not_to_silence(parts, open_alerts)
    factors = _factors(parts, monitor, raised, allowed, loud, from_us)
    proposed = _replay(parts, monitor, factors, from_us) if factors != dict(monitor.thresholds) else raised
    counted = sum(int((part.windows.rows[part.windows.starts >= from_us] > 0).sum()) for part in parts)
    unseen = _unseen(parts, monitor, loud, from_us)
    changed = {name: value for name, value in factors.items() if value != monitor.thresholds.get(name)}
    return Rehearsal(
        FORMAT,
        monitor.model,
        iso(instant(from_us)),
        iso(instant(last_us)),
        duration_text(state.every_us),
        counted,
        len(parts[-1].windows.series),
        len(parts[-1].learned.usual) if parts[-1].learned is not None else 0,
        monitor.false_alarms_per_month,
        raised[:MOST_LISTED],
        len(raised),
        len(raised) / months,
        usual,
        usual / months,
        len(raised) <= allowed,
        _incidents(parts, monitor, source, from_us),
        changed,
        len(proposed),
        unseen,
        _snippet(monitor, state, factors) if changed else "",
        notes,
        _earlier(parts, monitor, from_us),
        sum(one.subject in loud for one in raised),
    )


def _nothing(monitor: Monitor, every_us: int, from_us: int, until_us: int, why: Sequence[str]) -> Rehearsal:
    every = duration_text(every_us)
    begin, end = iso(instant(from_us)), iso(instant(until_us))
    budget = monitor.false_alarms_per_month
    notes = list(why) or [f"no window of {every} is over in this time, so there is nothing to rehearse on"]
    return Rehearsal(
        FORMAT, monitor.model, begin, end, every, 0, 0, 0, budget, [], 0, 0.0, 0, 0.0, False, [], {}, 0, (0, 0.0), "",
        notes,
    )  # fmt: skip


def _allowed(monitor: Monitor, months: float) -> int:
    """Alarms that the budget has for this time, to the nearest whole one."""
    return int(monitor.false_alarms_per_month * months + 0.5)


def _replay(
    parts: Sequence[_Part], monitor: Monitor, factors: Mapping[str, float], from_us: int, until_us: int = 2**62
) -> list[Raised]:
    """Every alarm that begins in the time, in order."""
    found = []
    for part, judged, before in _judged(parts, monitor, factors):
        began = onsets(judged.fired, np.array([one in before for one in judged.subjects], dtype=bool))
        for row, column in np.argwhere(began).tolist():
            at = int(part.windows.ends[row])
            if from_us < at <= until_us:
                subject = judged.subjects[column]
                words, shown = _words(part, judged, row, subject), judged.shown_by(row, subject)
                found.append(Raised(iso(instant(at)), subject, words, shown))
    return found


def _earlier(parts: Sequence[_Part], monitor: Monitor, from_us: int) -> list[Raised]:
    """What began before the time and rings in its first window, by when it began."""
    for part, judged, before in _judged(parts, monitor, monitor.thresholds):
        later = np.flatnonzero(part.windows.ends > from_us)
        if not later.size:
            continue
        row, found = int(later[0]), []
        for column, subject in enumerate(judged.subjects):
            quiet = np.flatnonzero(~judged.fired[: row + 1, column])
            begun = int(quiet[-1]) + 1 if quiet.size else 0
            if begun == 0 and subject in before:
                since = before[subject].since_us
            elif begun < row:
                since = int(part.windows.ends[begun])
            else:
                continue
            found.append(Raised(iso(instant(since)), subject, _words(part, judged, row, subject)))
        return sorted(found, key=lambda one: one.at)
    return []


def _judged(
    parts: Sequence[_Part], monitor: Monitor, factors: Mapping[str, float]
) -> list[tuple[_Part, Judged, dict[str, Firing]]]:
    """Each part judged, with what was in alarm before it."""
    sums, firing = Sums(), dict[str, Firing]()
    found = []
    for part in parts:
        if part.fresh:
            sums, firing = Sums(), {}
        limits = thresholds(monitor.false_alarms_per_month, part.windows.series, part.windows.every_us, factors)
        judged = judge(part.windows, limits, sums, firing, part.learned)
        found.append((part, judged, firing))
        sums, firing = judged.sums, judged.firing
    return found


def _words(part: _Part, judged: Judged, row: int, subject: str) -> str:
    """What the alarm says when it is raised."""
    if row == len(part.windows) - 1 and subject in judged.firing:
        return words_of(judged.firing[subject]).partition(", since")[0]
    columns = [n for n, one in enumerate(part.windows.series) if one.subject == subject]
    told = []
    for n in columns:
        series, values = part.windows.series[n], part.windows.value[: row + 1, n]
        known = values[~np.isnan(values)]
        if known.size:
            usual = series.usual
            one = Firing(0, 0, "", series.key, float(known[-1]), usual)
            told.append(words_of(one).partition(", since")[0])
    return "; ".join(told)


def _usual(parts: Sequence[_Part], from_us: int) -> int:
    """How often a feature begins to be beyond p < 0.05."""
    count = 0
    beyond: dict[str, bool] = {}
    for part in parts:
        chosen = [
            (n, one.key)
            for n, one in enumerate(part.windows.series)
            if one.kind == "distance" and one.column != PREDICTION
        ]
        later = part.windows.starts >= from_us
        for n, key in chosen:
            far = np.nan_to_num(part.windows.p_value[:, [n]], nan=1.0) < USUAL
            count += int(onsets(far, np.array([beyond.get(key, False)]))[later].sum())
            beyond[key] = bool(far[-1, 0])
    return count


# Thresholds


def _factors(
    parts: Sequence[_Part],
    monitor: Monitor,
    raised: Sequence[Raised],
    allowed: int,
    loud: Collection[str],
    from_us: int,
    until_us: int = 2**62,
) -> dict[str, float]:
    """The declared factors, with those of the series that showed the loudest subjects raised until no more than
    `allowed` alarms remain of all but those that are to stay `loud`."""
    factors = dict(monitor.thresholds)
    series = {one.key: one for part in parts for one in part.windows.series}
    for _ in range(ROUNDS):
        raised = [one for one in raised if one.subject not in loud]
        if len(raised) <= allowed:
            break
        counts: dict[str, int] = {}
        shown: dict[str, set[str]] = {}
        for one in raised:
            counts[one.subject] = counts.get(one.subject, 0) + 1
            shown.setdefault(one.subject, set()).update(one.series)
        excess = len(raised) - allowed
        for subject in sorted(counts, key=lambda one: (-counts[one], one)):
            now = {key: factor_of(series[key], factors) for key in sorted(shown[subject])}
            now = {key: factor for key, factor in now.items() if factor < HIGHEST_FACTOR}
            if excess <= 0 or not now:
                continue
            factors |= {key: round(min(factor * 1.25 + 0.05, HIGHEST_FACTOR), 2) for key, factor in now.items()}
            excess -= counts[subject]
        raised = _replay(parts, monitor, factors, from_us, until_us)
    return factors


def _not_to_silence(parts: Sequence[_Part], open_alerts: Collection[str]) -> set[str]:
    """Subjects of the error, and of alerts that are open: what they told of may be true."""
    every = {one for part in parts for one in part.windows.series}
    return {one.subject for one in every if one.kind in LOSSES or group_of(one.key) in open_alerts}


def _unseen(parts: Sequence[_Part], monitor: Monitor, loud: Collection[str], from_us: int) -> tuple[int, float]:
    """Thresholds made of the first two thirds, asked about the last: alarms, and what the budget has for it."""
    end = int(parts[-1].windows.ends[-1])
    cut = from_us + (end - from_us) * 2 // 3
    raised = _replay(parts, monitor, monitor.thresholds, from_us, cut)
    factors = _factors(parts, monitor, raised, _allowed(monitor, (cut - from_us) / MONTH_US), loud, from_us, cut)
    return len(_replay(parts, monitor, factors, cut)), monitor.false_alarms_per_month * (end - cut) / MONTH_US


def _snippet(monitor: Monitor, state: State, factors: Mapping[str, float]) -> str:
    """The declaration that meets the budget."""
    inner = ", ".join(f'"{name}": {value:g}' for name, value in sorted(factors.items()))
    return (
        f'Monitor("{monitor.model}", every="{duration_text(state.every_us)}", '
        f"false_alarms_per_month={monitor.false_alarms_per_month:g},\n        thresholds={{{inner}}})"
    )


# Incidents


def _incidents(parts: Sequence[_Part], monitor: Monitor, source: Source, from_us: int) -> list[Incident]:
    reference, _ = source.compared(parts[-1].release)
    if reference is None:
        return []
    every = parts[-1].windows.every_us
    numbers = [name for name, one in reference.columns.items() if isinstance(one, Numbers) and one.std]
    moved = _apart(numbers, INPUTS)
    found = []
    if moved:
        kinds = [_shift(name, reference, SHIFT) for name in moved]
        found.append(_planted(f"an input moves by {SHIFT:g} sd", kinds, parts, monitor, source, from_us, every))
    every_input = _apart(list(reference.columns), INPUTS)
    if every_input:
        kinds = [_dark(name, reference) for name in every_input]
        words = f"{MISSING:.0%} more of an input is missing"
        found.append(_planted(words, kinds, parts, monitor, source, from_us, every))
    if reference.predicted is None and reference.scores is not None and reference.scores.std:
        kinds = [_scores(reference)]
        found.append(_planted(f"scores move by {SCORES:g} sd", kinds, parts, monitor, source, from_us, every))
    return found


@dataclass(frozen=True)
class _Kind:
    """One incident: what it does to the rows, the reference that looks at what it changes, and whom it concerns."""

    change: Callable[[Sample], Sample]
    reference: Reference
    subject: str


def _planted(
    words: str,
    kinds: Sequence[_Kind],
    parts: Sequence[_Part],
    monitor: Monitor,
    source: Source,
    from_us: int,
    every_us: int,
) -> Incident:
    delays: list[float] = []
    horizon, places = _places(parts, from_us, HORIZON if every_us < DAY_US else 14)
    runs = _judged(parts, monitor, monitor.thresholds)
    for kind in kinds:
        for place in places:
            delay = _delay(kind, place, runs, monitor, source, horizon)
            if delay is not None:
                delays.append(delay)
    found = [one for one in delays if np.isfinite(one)]
    enough = np.sort(delays)
    return Incident(
        words,
        len(delays),
        len(found),
        _at(enough, 0.5),
        _at(enough, 0.95),
        horizon,
    )


def _at(delays: NDArray[Any], share: float) -> float | None:
    """The smallest delay that `share` of them do not exceed; None when that one was not found."""
    if not delays.size:
        return None
    value = float(delays[min(int(np.ceil(share * delays.size)) - 1, delays.size - 1)])
    return value if np.isfinite(value) else None


def _places(parts: Sequence[_Part], from_us: int, horizon: int) -> tuple[int, list[tuple[int, int]]]:
    """For how many windows incidents are looked for, `horizon` or half of what there is, and the parts and rows where
    they begin, spread over the rehearsed time: where the same watch goes on for so long."""
    left, after = {}, 0
    for number, part in reversed(list(enumerate(parts))):
        for row in range(len(part.windows)):
            if part.windows.starts[row] >= from_us:
                left[number, row] = after + len(part.windows) - row
        after = 0 if part.fresh else after + len(part.windows)
    horizon = min(horizon, (max(left.values(), default=0) + 1) // 2)
    every = sorted(one for one in left if left[one] >= horizon and parts[one[0]].windows.rows[one[1]] > 0)
    return horizon, list(dict.fromkeys(every[len(every) * n // (PLACES + 1)] for n in range(1, PLACES + 1) if every))


def _delay(
    kind: _Kind,
    place: tuple[int, int],
    runs: Sequence[tuple[_Part, Judged, dict[str, Firing]]],
    monitor: Monitor,
    source: Source,
    horizon: int,
) -> float | None:
    """Windows until it is found; infinite when it is not; None when its subject is in alarm already, or when what there
    is ends before it is found."""
    number, row = place
    part, _, before = runs[number]
    sums = runs[number - 1][1].sums if number and not part.fresh else Sums()
    windows, firing = part.windows, dict(before)
    if row:
        limits = thresholds(monitor.false_alarms_per_month, windows.series, windows.every_us, monitor.thresholds)
        until = judge(windows.part(0, row), limits, sums, firing, part.learned)
        sums, firing = until.sums, until.firing
    if kind.subject in firing:
        return None
    looked = 0
    first = row
    while looked < horizon and number < len(runs) and not (looked and runs[number][0].fresh):
        part = runs[number][0]
        stretch = part.windows.part(first, min(first + horizon - looked, len(part.windows)))
        changed = _changed(kind, stretch, source)
        limits = thresholds(monitor.false_alarms_per_month, changed.series, changed.every_us, monitor.thresholds)
        found = judge(changed, limits, sums, firing, part.learned)
        if kind.subject in found.subjects:
            fired = np.flatnonzero(found.fired[:, found.subjects.index(kind.subject)])
            if fired.size:
                return looked + float(fired[0]) + 1
        sums, firing = found.sums, found.firing
        looked, number, first = looked + len(stretch), number + 1, 0
    return float("inf") if looked >= horizon else None


def _changed(kind: _Kind, windows: Windows, source: Source) -> Windows:
    """The windows with the incident in them: only the series that it touches are counted again."""
    span = Window(int(windows.starts[0]), int(windows.ends[-1]))
    again = windows_of(kind.change(source.read(span)), span, windows.every_us, kind.reference)
    arrays = {name: getattr(windows, name).copy() for name in ("value", "up", "down", "p_value")}
    places = {one.key: n for n, one in enumerate(windows.series)}
    for n, one in enumerate(again.series):
        if one.key in places:
            for name, array in arrays.items():
                array[:, places[one.key]] = getattr(again, name)[:, n]
    return replace(windows, **arrays)


def _shift(name: str, reference: Reference, by: float) -> _Kind:
    column = reference.columns[name]
    assert isinstance(column, Numbers)
    amount = by * (column.std or 0.0)
    one = replace(reference, columns={name: column}, scores=None, predicted=None)
    return _Kind(lambda sample: _with(sample, FEATURE + name, lambda values: values + amount), one, name)


def _dark(name: str, reference: Reference) -> _Kind:
    one = replace(reference, columns={name: reference.columns[name]}, scores=None, predicted=None)
    return _Kind(lambda sample: _without(sample, FEATURE + name), one, f"missing:{name}")


def _scores(reference: Reference) -> _Kind:
    scores = reference.scores
    assert scores is not None
    amount = SCORES * (scores.std or 0.0)
    if scores.mean is not None and scores.mean > (scores.low + scores.high) / 2:
        amount = -amount
    one = replace(reference, columns={}, predicted=None)
    return _Kind(
        lambda sample: _with(sample, "score", lambda values: np.clip(values + amount, scores.low, scores.high)),
        one,
        PREDICTION,
    )


def _with(sample: Sample, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Sample:
    import pyarrow as pa

    return _replaced(sample, name, lambda column: pa.array(change(floats(column)), from_pandas=True))


def _without(sample: Sample, name: str) -> Sample:
    """Every row of a fixed part of those that come has no value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def darkened(column: pa.ChunkedArray) -> pa.ChunkedArray:
        dark = np.random.default_rng(0).random(len(column)) < MISSING
        return pc.if_else(pa.array(dark), pa.scalar(None, column.type), column)

    return _replaced(sample, name, darkened)


def _replaced(sample: Sample, name: str, change: Callable[[pa.ChunkedArray], pa.Array | pa.ChunkedArray]) -> Sample:
    """With another column in place of one of its rows; of a long log the others are left out."""
    rows = sample.with_input(sample.rows, name.removeprefix(FEATURE))
    if name not in rows.column_names:
        return sample
    rows = rows.set_column(rows.column_names.index(name), name, change(rows[name]))
    return replace(sample, rows=rows, inputs=None)


def _apart(names: Sequence[str], most: int) -> list[str]:
    """At most so many, spread over all of them."""
    if len(names) <= most:
        return list(names)
    return [names[len(names) * place // most] for place in range(most)]
