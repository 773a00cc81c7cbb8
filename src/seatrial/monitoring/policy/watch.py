"""The watch: the policy run over a model's windows, from where the last run ended.

Windows are judged once, in order, when they are over. What is carried from run to run is a `State`; a second run over
the same windows finds nothing to do, a late one catches up, and one whose clock was put back waits. Another release
begins a watch anew, with what was usual of the inputs before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import Failed, did_you_mean
from seatrial.core.windows import DAY_US, HOUR_US, Window, duration_text, duration_us
from seatrial.monitoring.definition import Monitor
from seatrial.monitoring.looks.drift import PREDICTION
from seatrial.monitoring.policy.expected import ExpectedLoss, expected_loss
from seatrial.monitoring.policy.judgement import (
    SEASON_AGAIN_US,
    SEASON_US,
    Firing,
    Judged,
    Learned,
    Sums,
    judge,
    learn,
    learnable,
    thresholds,
)
from seatrial.monitoring.policy.series import (
    FEWEST,
    FEWEST_DISTANCE,
    KINDS,
    NO_ERROR,
    NO_REFERENCE,
    TOLERATED_LOSS,
    Windows,
    joined,
    span,
    whole_windows,
    windows_of,
)
from seatrial.monitoring.report import AlarmResult, Severity
from seatrial.monitoring.rows.baseline import FEWEST as FEWEST_BEFORE
from seatrial.monitoring.rows.baseline import Baseline
from seatrial.monitoring.rows.reference import Reference
from seatrial.monitoring.rows.sample import Sample
from seatrial.monitoring.watched import NOT_WATCHED, POLICY, Watched

FORMAT = 1
CHUNK_US = 7 * DAY_US
COUNTED_US = 14 * DAY_US
"""By the rows of how long the length of windows is chosen anew, where none is declared."""
BACK_US = 35 * DAY_US
"""How much history a new watch begins with, at most, and how long a label may take to count as an error."""

NO_NAME = "the threshold of "
ESTIMATED = "error is estimated to have grown"

Tested = Mapping[str, float | None]


class WatchTooNew(Failed):
    """What a watch carries was written by a newer version."""

    code = "watch.too_new"


class State(msgspec.Struct, frozen=True):
    """What is carried from run to run. since_us: where the watch began anew; cursor_us: end of the last judged window.
    windows: judged windows that had rows; learned_us: until where the season was learned from, 0 before. rows: how many
    came since counted_us (0: of a version that did not count them), by which the length of windows is chosen anew."""

    format: int
    every_us: int
    release: str
    since_us: int
    cursor_us: int
    windows: int
    sums: Sums
    firing: dict[str, Firing]
    series: int = 0
    learned_us: int = 0
    notes: tuple[str, ...] = ()
    rows: int = 0
    counted_us: int = 0


@dataclass(frozen=True)
class Source:
    """Where the rows come from. read: predictions of a window, with inputs; labelled: those of a window, of which only
    scores and labels are looked at. compared: by release what to compare with, and the metrics of its test part.
    named: what to call a release in words. expected: by release what a score lets expect of the loss."""

    read: Callable[[Window], Sample]
    labelled: Callable[[Window], Sample]
    compared: Callable[[str], tuple[Reference | None, Tested]]
    named: Callable[[str], str] = field(default=lambda release: release)
    expected: Callable[[str], ExpectedLoss | None] = field(default=lambda _: None)

    def windows(self, window: Window, every_us: int, release: str) -> Windows:
        """The whole windows of `window`, beside what that release was trained and tested on."""
        reference, tested = self.compared(release)
        labelled = self.labelled(Window(max(window.start_us - BACK_US, 0), window.end_us))
        return windows_of(
            self.read(window), window, every_us, reference, tested, labelled=labelled, expected=self.expected(release)
        )


@dataclass(frozen=True)
class Step:
    """Some windows that were judged: the state after them, and what is usual since."""

    state: State
    learned: Learned | None
    windows: Windows
    judged: Judged


def every_of(monitor: Monitor, rows: int, length_us: int) -> int:
    """The declared length of windows; else hours where these have 200 rows, days where they have 30, or weeks."""
    if monitor.every:
        return duration_us(monitor.every)
    an_hour = rows * HOUR_US / max(length_us, 1)
    if an_hour >= FEWEST_DISTANCE:
        return HOUR_US
    return DAY_US if an_hour * 24 >= FEWEST else 7 * DAY_US


def begin(release: str, first_us: int, every_us: int, note: str = "") -> State:
    """A watch that has judged nothing."""
    start = -(-first_us // every_us) * every_us
    notes = (note,) if note else ()
    return State(FORMAT, every_us, release, start, start, 0, Sums(), {}, notes=notes, counted_us=start)


def begun(monitor: Monitor, at_us: NDArray[np.int64], source: Source, *, until_us: int) -> State | None:
    """A watch that begins with the first of these instants, and with the release that answered most of the first
    windows; None without any."""
    if not at_us.size:
        return None
    first = int(at_us.min())
    state = begin("", first, every_of(monitor, at_us.size, until_us - first))
    return msgspec.structs.replace(state, release=_first_release(source, state, until_us))


def _first_release(source: Source, state: State, until_us: int) -> str:
    """What answered most of the first windows."""
    window = Window(state.cursor_us, min(state.cursor_us + max(CHUNK_US, state.every_us), until_us))
    if not whole_windows(window, state.every_us).size:
        return ""
    windows = windows_of(source.read(window), window, state.every_us, None)
    return next((name for name in windows.releases if name), "")


def advance(
    monitor: Monitor, state: State, learned: Learned | None, source: Source, *, until_us: int
) -> Iterator[Step]:
    """Judge every window that is over at `until_us` and was not judged yet, some at a time.

    It goes no further than the last window in which there was anything: while no row and no label comes, alarms stay as
    they are, and a clock that jumped ahead for a while leaves nothing behind.
    """
    held: list[Step] = []
    for step in _every_window(monitor, state, learned, source, until_us=until_us):
        if _anything(step.windows).any():
            yield from held
            yield step
            held = []
        else:
            held.append(step)


def _anything(windows: Windows) -> NDArray[np.bool_]:
    """(w,) which windows hold a row, or labels."""
    found: NDArray[np.bool_] = (windows.rows > 0) | ~np.isnan(windows.value).all(axis=1)
    return found


def _every_window(
    monitor: Monitor, state: State, learned: Learned | None, source: Source, *, until_us: int
) -> Iterator[Step]:
    """Each part of the way to `until_us`; what comes after the last row of a part is a part of its own."""
    while True:
        if not state.counted_us:
            state = msgspec.structs.replace(state, counted_us=state.cursor_us)
        if (length := _length(monitor, state)) != state.every_us:
            state, learned = _of_length(state, length, source, learned)
        if state.cursor_us + state.every_us > until_us:
            return
        if _to_learn(state, learned):
            first_us = max(state.since_us, state.cursor_us - SEASON_AGAIN_US)
            # where nothing came lately there is nothing to learn
            learned, state = _learned(state, source, first_us if state.rows else state.cursor_us, learned)
        if state.cursor_us - state.counted_us >= COUNTED_US:
            state = msgspec.structs.replace(state, rows=0, counted_us=state.cursor_us)
        every = state.every_us
        stop = min(_next_us(state), state.counted_us + COUNTED_US)
        end = min(until_us // every * every, state.cursor_us + max(CHUNK_US, every), -(-stop // every) * every)
        windows = source.windows(Window(state.cursor_us, end), every, state.release)
        other = _other(windows, state.release)
        if other is not None:
            place, release = other
            if place:
                step = _judged(monitor, state, learned, windows.part(0, place))
                yield step
                state = step.state
            state, learned = _anew(state, release, source, learned)
            continue
        there = np.flatnonzero(_anything(windows))
        last = int(there[-1]) + 1 if there.size else len(windows)
        for part in (windows.part(0, last), windows.part(last, len(windows))):
            if len(part):
                step = _judged(monitor, state, learned, part)
                yield step
                state = step.state


def _asked_us(state: State) -> int:
    """Until when what is usual should have been learned by now: two and four weeks from the beginning on, then each
    week; 0 before."""
    age = state.cursor_us - state.since_us
    if age < SEASON_US:
        return 0
    whole = age - age % (7 * DAY_US) if age >= SEASON_AGAIN_US else SEASON_US
    return state.since_us + whole


def _next_us(state: State) -> int:
    """When it is to be learned next."""
    asked = _asked_us(state)
    return (asked or state.since_us) + (7 * DAY_US if asked >= state.since_us + SEASON_AGAIN_US else SEASON_US)


def _to_learn(state: State, learned: Learned | None) -> bool:
    """Whether nothing is known of this release yet, or of two weeks where there are four."""
    asked = _asked_us(state)
    if state.learned_us >= asked or DAY_US % state.every_us:
        return False
    if learned is None or learned.from_us < state.since_us:
        return True
    return asked - state.since_us >= SEASON_AGAIN_US > learned.until_us - learned.from_us


def _judged(monitor: Monitor, state: State, learned: Learned | None, windows: Windows) -> Step:
    limits = thresholds(monitor.false_alarms_per_month, windows.series, state.every_us, dict(monitor.thresholds))
    found = judge(windows, limits, state.sums, state.firing, learned)
    notes = [*(one for one in state.notes if not one.startswith(NO_NAME)), *windows.notes]
    notes += _unknown(monitor, windows)
    after = msgspec.structs.replace(
        state,
        cursor_us=int(windows.ends[-1]),
        windows=state.windows + int((windows.rows > 0).sum()),
        rows=state.rows + int(windows.rows.sum()),
        sums=found.sums,
        firing=found.firing,
        series=len(windows.series),
        notes=tuple(dict.fromkeys(notes))[-12:],
    )
    return Step(after, learned, windows, found)


def _unknown(monitor: Monitor, windows: Windows) -> list[str]:
    """Declared thresholds that multiply nothing."""
    known = {name for one in windows.series for name in (one.key, one.subject)} | {*KINDS, "*"}
    lost = [name for name in monitor.thresholds if name not in known] if windows.series else []
    return [f"{NO_NAME}'{one}' multiplies nothing: no series has the name. {did_you_mean(one, known)}" for one in lost]


def _other(windows: Windows, release: str) -> tuple[int, str] | None:
    """The first window that another release answered nearly alone."""
    for place, name in enumerate(windows.releases):
        if name not in ("", release):
            return place, name
    return None


def _anew(state: State, release: str, source: Source, learned: Learned | None) -> tuple[State, Learned | None]:
    """The watch of another release: sums and alarms begin anew; what was usual of the inputs stays known."""
    at = iso(from_us(state.cursor_us))
    words = f"begun anew at {at}: release {source.named(release)} answers, not {source.named(state.release)}"
    if not state.release:
        words = ""
    return _begun_anew(state, begin(release, state.cursor_us, state.every_us, words), source, learned)


def _length(monitor: Monitor, state: State) -> int:
    """How long windows should be by the rows that came lately; traffic at the edge changes nothing, nor does none."""
    length_us = state.cursor_us - state.counted_us
    if monitor.every or not state.rows or length_us < COUNTED_US:
        return state.every_us
    shorter, longer = every_of(monitor, state.rows // 2, length_us), every_of(monitor, state.rows * 2, length_us)
    return shorter if shorter < state.every_us else max(longer, state.every_us)


def _of_length(state: State, every_us: int, source: Source, learned: Learned | None) -> tuple[State, Learned | None]:
    """The watch of the same release in windows of another length: what rings goes on ringing."""
    at, a_day = iso(from_us(state.cursor_us)), state.rows * DAY_US / (state.cursor_us - state.counted_us)
    old, new = duration_text(state.every_us), duration_text(every_us)
    words = f"begun anew at {at}: {a_day:,.0f} predictions a day ask for windows of {new}, not of {old}"
    fresh, learned = _begun_anew(state, begin(state.release, state.cursor_us, every_us, words), source, learned)
    return msgspec.structs.replace(fresh, firing=state.firing, rows=0, counted_us=fresh.cursor_us), learned


def _begun_anew(state: State, fresh: State, source: Source, learned: Learned | None) -> tuple[State, Learned | None]:
    """With what was usual of the inputs before, where two weeks of it are known."""
    fresh = msgspec.structs.replace(fresh, rows=state.rows, counted_us=state.counted_us)
    first_us = state.since_us if learned is None else min(state.since_us, learned.from_us)
    first_us = -(-max(first_us, state.cursor_us - SEASON_AGAIN_US) // fresh.every_us) * fresh.every_us
    if not state.release or state.cursor_us - first_us < SEASON_US:
        return fresh, None
    learned, fresh = _learned(fresh, source, first_us, None)
    return msgspec.structs.replace(fresh, learned_us=0), learned


def _learned(state: State, source: Source, from_us: int, before: Learned | None) -> tuple[Learned | None, State]:
    """Learn what is usual from the windows until now; those of another release tell of the inputs alone."""
    state = msgspec.structs.replace(state, learned_us=state.cursor_us)
    parts = []
    start = from_us
    while start < state.cursor_us:
        end = min(start + max(CHUNK_US, state.every_us), state.cursor_us)
        parts.append(source.windows(Window(start, end), state.every_us, state.release))
        start = end
    parts = [one for one in parts if one.series == parts[-1].series]
    if not parts or not learnable(history := joined(parts)):
        return before, state
    return learn(history, inputs_only=from_us < state.since_us), state


# In words


@dataclass(frozen=True)
class _Group:
    name: str
    kinds: tuple[str, ...]
    predictions: bool
    severity: Severity
    action: str


GROUPS = (
    _Group(
        "error has grown",
        ("error",),
        False,
        "high",
        "Look at the days of the report; retrain, or roll back if there is a release before.",
    ),
    _Group(
        ESTIMATED,
        ("estimated",),
        False,
        "medium",
        "Look at the estimate in the report. Labels decide: it cannot see that the world answers differently.",
    ),
    _Group(
        "predictions have moved",
        ("level", "distance"),
        True,
        "medium",
        "See in the report whether inputs moved at the same time; labels decide whether it does harm.",
    ),
    _Group(
        "more values are missing, or fewer",
        ("missing",),
        False,
        "medium",
        "Ask who delivers the input; until it is back the model guesses without it.",
    ),
    _Group(
        "inputs have moved",
        ("level", "distance"),
        False,
        "low",
        "Ask who delivers the input whether the change is meant; labels decide whether it does harm.",
    ),
    _Group("new categories come", ("unseen",), False, "low", "Ask who delivers the input whether they are meant."),
)
"""What the policy's alarms are about: one alert for each, whatever the number of inputs. Only a loss pages."""


def alarms(state: State | None, *, past: str = "") -> list[AlarmResult]:
    """The policy as alarms of a report. past: why nothing is said, when the report is on another time."""
    found = []
    for group in GROUPS:
        firing = [] if state is None else [one for one in state.firing.items() if _is_of(group, one[1].series)]
        note = past or ("no window is over yet" if state is None or not state.windows else "")
        note = note or ("" if firing or state is None else _unseen(group, state))
        evidence = "" if note else _evidence(firing, state)
        window = "" if state is None else str(Window(state.since_us, state.cursor_us))
        found.append(
            AlarmResult(
                name=group.name,
                state="not_enough_data" if note else "fired" if firing else "quiet",
                severity=group.severity,
                metric=f"{POLICY}{group.name}",
                value=None if note else float(len(firing)),
                threshold=0.0,
                window=window,
                rows=0,
                labelled=0,
                evidence=evidence,
                action=group.action if firing and not note else "",
                note=note,
            )
        )
    return found


def _unseen(group: _Group, state: State) -> str:
    """Why nobody can say that there was no such alarm; empty when somebody looked."""
    idle = [windows for key, windows in state.sums.idle.items() if _is_of(group, key)]
    if idle:
        so_far = min(idle) >= (state.cursor_us - state.since_us) // state.every_us
        if min(idle) < span(state.every_us) and not so_far:
            return ""
        of = f"of {duration_text(state.every_us)}"
        which = f"no window {of} so far" if so_far else f"none of the last {min(idle):,} windows {of}"
        what = "labels that became known" if group.kinds == ("error",) else "values"
        why = [
            one.removesuffix(NO_ERROR) for one in state.notes if group.kinds == ("error",) and one.endswith(NO_ERROR)
        ]
        return "; ".join([f"not enough data: {which} had {FEWEST} {what}", *why[-1:]])
    if state.series and not state.sums.idle:  # of a version that did not count them
        return ""
    return f"{NOT_WATCHED} {_why(group, state)}"


def _why(group: _Group, state: State) -> str:
    if group.kinds == ("error",):
        told = [one.removesuffix(NO_ERROR) for one in state.notes if one.endswith(NO_ERROR)]
        return told[-1] if told else "there is no figure of a test part to compare with"
    if group.kinds == ("estimated",):
        return f"it takes {FEWEST_BEFORE} labelled predictions of before whose scores are probabilities"
    if NO_REFERENCE in state.notes:
        return "there is no reference to compare with"
    return "the reference has nothing of the kind"


def watched(state: State | None, learned: Learned | None) -> Watched | None:
    """The policy's part of a report."""
    if state is None:
        return None
    return Watched(
        duration_text(state.every_us),
        iso(from_us(state.since_us)),
        iso(from_us(state.cursor_us)),
        state.windows,
        state.series,
        0 if learned is None else len(learned.usual),
        {subject: words_of(one) for subject, one in state.firing.items()},
        list(state.notes),
    )


def words_of(firing: Firing) -> str:
    """What is in alarm and by how much: "'distance' +0.31 sd, since 2013-04-16 05:00"."""
    kind, _, column = firing.series.partition(":")
    name = "the predictions" if column == PREDICTION else f"'{column}'"
    since = f"since {from_us(firing.since_us):%Y-%m-%d %H:%M}"
    if kind in ("error", "estimated"):
        guess, of = ("estimated at ", "") if kind == "estimated" else ("", "by labels known ")
        now = f"{guess}{firing.value:.2f} times the test part's"
        if firing.value > 1 + TOLERATED_LOSS:
            return f"the loss is {now}, {of}{since}"
        return f"the loss was higher, {of}{since}, and is {now} again"  # it ends some windows later
    if kind == "missing":
        return f"{name} missing in {firing.value:.1%}, usual {firing.usual:.1%}, {since}"
    if kind == "unseen":
        return f"{name} new in {firing.value:.1%}, {since}"
    if kind == "level":
        return f"{name} {firing.value - firing.usual:+.2f} sd, {since}"
    if not firing.value:  # a window has too few rows for a distance, many together show that there is one
        return f"{name} moved, by how much its windows are too small to say, {since}"
    return f"{name} {firing.value:.2f} away, {since}"


def _is_of(group: _Group, series: str) -> bool:
    kind, _, column = series.partition(":")
    return kind in group.kinds and (column == PREDICTION) == group.predictions


def group_of(series: str) -> str:
    """The alarm that tells of this series."""
    return next((group.name for group in GROUPS if _is_of(group, series)), "")


def _evidence(firing: list[tuple[str, Firing]], state: State | None) -> str:
    assert state is not None
    looked = f"{state.windows:,} windows of {duration_text(state.every_us)}"
    if not firing:
        return f"quiet over {looked}"
    worst = sorted(firing, key=lambda one: one[1].since_us)
    told = "; ".join(words_of(one) for _, one in worst[:3])
    more = f" and {len(worst) - 3} more" if len(worst) > 3 else ""
    return f"{told}{more}; {looked}"


# Of a table of rows that is all there is


def source_of(sample: Sample, reference: Reference | None, tested: Tested, base: Baseline | None = None) -> Source:
    """All rows at hand, whoever answered them. base: labelled predictions of before."""
    expected = expected_loss(base)
    return Source(
        sample.within,
        sample.within,
        lambda _: (reference, tested),
        lambda release: f"version {release}",
        lambda _: expected,
    )


def over(
    monitor: Monitor, at_us: NDArray[np.int64], source: Source, *, until_us: int
) -> tuple[State | None, Learned | None]:
    """The watch over everything that there is, kept nowhere. at_us: instants of predictions, as for `begun`."""
    state = begun(monitor, at_us, source, until_us=until_us)
    learned = None
    for step in () if state is None else advance(monitor, state, None, source, until_us=until_us):
        state, learned = step.state, step.learned
    return state, learned


def plain(state: State, windows: Windows | None) -> dict[str, object]:
    """As a record's body: the state, and of the judged windows the value of each series in 4 digits (null: none)."""
    body: dict[str, object] = {"state": msgspec.to_builtins(state)}
    if windows is not None and len(windows):
        values = {
            one.key: [None if np.isnan(x) else float(f"{x:.4g}") for x in windows.value[:, n].tolist()]
            for n, one in enumerate(windows.series)
        }
        body |= {"starts_us": windows.starts.tolist(), "rows": windows.rows.tolist(), "values": values}
    return body


def read_state(body: Mapping[str, object]) -> State:
    """The state of a record's body. Raises WatchTooNew."""
    said = body["state"]
    number = said.get("format", 0) if isinstance(said, dict) else 0
    if number > FORMAT:
        raise WatchTooNew(
            f"the watch has the format {number}; this version reads up to {FORMAT}.",
            state="Nothing was judged.",
            next="Update seatrial.",
        )
    return msgspec.convert(said, State)
