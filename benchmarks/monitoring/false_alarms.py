"""How often does the alarm policy cry wolf, and how late is it when something did move?

The policy, without hard rules and declared alarms (that on calibration among them), is simulated by the code that
watches (`monitoring.policy`): distances, levels, missing values, unseen categories, predictions, errors and estimated
errors together, an alarm counted when it begins. Rows are left out: the policy sees of a column how many rows of a
window lie in each bin of the reference, and these counts are drawn from the very distribution that rows would give them
(multinomial), so that a month takes seconds.

    stationary  50 features (40 numbers, 10 categories, 2 % missing), scores, labels; hourly windows of 1,000 and of 200
                rows; a reference of 100,000 rows; 60 days, the season learned after two weeks and again after four, as
                always. Beside it KS p < 0.05 for each number, counted the same way.
    season      the same, with a daily wave of 0.3 sd, a weekend of 0.2 sd and a level that wanders (first-order
                autoregression, 0.8, 0.15 sd) under every number, every category and the scores; four weeks to learn
                from, four to watch.
    delays      windows until one changed input of 50 is in alarm: in a watch that is a day old and in one of 30 days,
                each change planted in a copy of a world in which nothing else changes.

    PYTHONPATH=src python benchmarks/monitoring/false_alarms.py [--months 12] [--runs 100] [--seasons 8] [--first 0]
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from seatrial.core.windows import Window
from seatrial.monitoring.definition import Monitor
from seatrial.monitoring.policy.judgement import MONTH_US, Sums, judge, onsets, thresholds
from seatrial.monitoring.policy.series import (
    DAY_US,
    HOUR_US,
    Figures,
    Windows,
    error_of,
    of_categories,
    of_error,
    of_estimate,
    of_numbers,
    of_share,
    span,
    stacked,
)
from seatrial.monitoring.policy.watch import Source, Step, advance, begin
from seatrial.monitoring.rows.reference import Categories, Numbers, Reference

REFERENCE_ROWS = 100_000
MISSING = 0.02
CUTS: NDArray[np.float64] = ndtri(np.cumsum(0.35 * 0.65 ** np.arange(7)))
"""Where eight categories lie on a normal scale: 35 %, 23 %, 15 % and so on."""
NEVER = 999.0
SATURDAY = 5

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass
class World:
    """Windows of an hour in which nothing changes but the season. Seeds tell worlds apart."""

    seed: int
    rows: int
    hours: int
    seasonal: bool = False
    numbers: int = 40
    categories: int = 10

    def __post_init__(self) -> None:
        random = np.random.default_rng([self.seed, 0])
        columns = self.numbers + self.categories + 1
        hour = np.arange(self.hours)
        self.levels: Floats = np.zeros((self.hours, columns))
        if self.seasonal:
            phase, sign = random.uniform(0, 2 * np.pi, columns), random.choice([-1.0, 1.0], columns)
            wander = random.normal(size=columns) * 0.15
            weekend = (hour // 24 + 3) % 7 >= SATURDAY
            for n in range(self.hours):
                wander = 0.8 * wander + random.normal(size=columns) * 0.15 * 0.6
                self.levels[n] = 0.3 * np.sin(2 * np.pi * n / 24 + phase) + 0.2 * sign * weekend[n] + wander

    @cached_property
    def reference(self) -> Reference:
        """Rows that were there before; of a seasonal world those of its first four weeks."""
        random = np.random.default_rng([self.seed, 1])
        hour = random.integers(0, min(28 * 24, self.hours), REFERENCE_ROWS)
        latent = random.normal(size=(REFERENCE_ROWS, self.levels.shape[1])) + self.levels[hour]
        columns: dict[str, Any] = {}
        for n in range(self.numbers):
            columns[f"feature_x{n:02}"] = pa.array(latent[:, n], mask=random.random(REFERENCE_ROWS) < MISSING)
        words = pa.array([f"value {n}" for n in range(8)])
        for n in range(self.categories):
            drawn = np.searchsorted(CUTS, latent[:, self.numbers + n])
            columns[f"feature_c{n:02}"] = words.take(pa.array(drawn, mask=random.random(REFERENCE_ROWS) < MISSING))
        return Reference.from_table(pa.table(columns | {"score": _score(latent[:, -1])}))

    @cached_property
    def tested(self) -> tuple[float, float]:
        """Mean and standard deviation of the losses of the test part: rows of the same hours as the reference's."""
        random = np.random.default_rng([self.seed, 2])
        hour = random.integers(0, min(28 * 24, self.hours), REFERENCE_ROWS)
        scores = _score(random.normal(size=REFERENCE_ROWS) + self.levels[hour, -1])
        losses = scores * (1 - scores)
        return float(losses.mean()), float(losses.std())

    @cached_property
    def windows(self) -> Windows:
        """Of every hour."""
        random = np.random.default_rng([self.seed, 3])
        found: list[Figures] = []
        for n, (name, column) in enumerate(self.reference.columns.items()):
            found += self.input(random, name, column, self.levels[:, n])
        scores = _score(random.normal(size=(self.hours, self.rows)) + self.levels[:, -1:])
        labels = random.random(scores.shape) < scores
        place = np.repeat(np.arange(self.hours), self.rows)
        known = self.reference.scores
        assert known is not None
        bins = np.searchsorted(known.cuts, scores.ravel(), side="right")
        counts = np.bincount(place * known.counts.size + bins, minlength=self.hours * known.counts.size)
        found += of_numbers("prediction", counts.reshape(self.hours, -1), known)
        brier, spread = self.tested
        before = int(span(HOUR_US)) - 1
        losses = error_of(((labels - scores) ** 2).ravel(), place + before, self.hours + before)
        found.append(of_error(losses, before, brier, shares=True))
        expected = error_of((scores * (1 - scores)).ravel(), place, self.hours)
        found.append(of_estimate(expected, brier, spread))
        starts = np.arange(self.hours, dtype=np.int64) * HOUR_US
        return stacked(HOUR_US, starts, np.full(self.hours, self.rows), ("",) * self.hours, found)

    def input(
        self,
        random: np.random.Generator,
        name: str,
        column: Numbers | Categories,
        level: Floats,
        missing: float = MISSING,
    ) -> list[Figures]:
        """The series of one input in hours of these levels."""
        total = np.full(level.size, self.rows)
        present = random.binomial(total, 1 - missing)
        cuts = column.cuts if isinstance(column, Numbers) else CUTS
        below = ndtr(cuts[None, :] - level[:, None])
        edges = np.hstack([np.zeros((level.size, 1)), below, np.ones((level.size, 1))])
        counts = random.multinomial(present, np.diff(edges, axis=1))
        whole = column.rows / (1 - column.missing)
        absent = of_share("missing", name, total - present, total, column.missing, whole)
        if isinstance(column, Numbers):
            return [*of_numbers(name, counts, column), absent]
        order = [int(word.removeprefix("value ")) for word in column.values]
        named = np.hstack([counts[:, order], np.zeros((level.size, 1), dtype=np.int64)])
        unseen = of_share("unseen", name, named[:, -1], present, 0.0, column.rows, only_up=True)
        return [*of_categories(name, named, column), unseen, absent]


def _score(latent: Floats) -> Floats:
    found: Floats = ndtr(-0.7 + 0.6 * latent)
    return found


@dataclass(frozen=True)
class Drawn(Source):
    """The windows of a world in place of rows."""

    world: World | None = None

    def windows(self, window: Window, every_us: int, release: str) -> Windows:  # noqa: ARG002 (all are one release)
        assert self.world is not None
        return self.world.windows.part(window.start_us // every_us, window.end_us // every_us)


def watched(world: World, budget: float) -> list[Step]:
    """The whole watch over a world, in the parts in which it goes."""

    def none(_: Any) -> Any:
        raise AssertionError("there are no rows")

    monitor = Monitor("simulated", every="1h", false_alarms_per_month=budget)
    source = Drawn(none, none, none, world=world)
    return list(advance(monitor, begin("", 0, HOUR_US), None, source, until_us=world.hours * HOUR_US))


def begun(steps: Sequence[Step], from_us: int) -> tuple[Counter[str], int]:
    """Alarms that began from then on by kind and path, and those of the usual rule."""
    found: Counter[str] = Counter()
    usual, before, beyond_before = 0, dict[str, Any](), None
    for step in steps:
        counted = step.windows.ends > from_us
        began = onsets(step.judged.fired, np.array([one in before for one in step.judged.subjects]))
        for n in np.flatnonzero(began[counted].any(axis=0)):
            found[_kind(step.judged.subjects[n])] += int(began[counted][:, n].sum())
        chosen = [n for n, one in enumerate(step.windows.series) if one.key.startswith("distance:x")]
        beyond = np.nan_to_num(step.windows.p_value[:, chosen], nan=1.0) < 0.05
        usual += int(onsets(beyond, beyond[0] if beyond_before is None else beyond_before)[counted].sum())
        beyond_before = beyond[-1]
        before = step.state.firing
    return found, usual


def _kind(subject: str) -> str:
    kind = subject.partition(":")[0]
    if kind in ("missing", "unseen", "error", "estimated", "prediction"):
        return kind
    return "number" if kind.startswith("x") else "category"


def delays(
    world: World, steps: Sequence[Step], budget: float, places: Sequence[int], inputs: Sequence[int], horizon: int,
    *, moved: float = 0.0, missing: float = MISSING,
) -> Iterator[float]:  # fmt: skip
    """Windows until each of these inputs, changed from each of these hours on, is in alarm; `NEVER` after `horizon`.

    What is in alarm already when it is changed is left out.
    """
    random = np.random.default_rng([world.seed, 4, *places])
    kind = "missing:" if missing != MISSING else ""
    for place in places:
        number = next(n for n, step in enumerate(steps) if int(step.windows.ends[-1]) > place * HOUR_US)
        step = steps[number]
        row = place - int(step.windows.starts[0]) // HOUR_US
        sums, firing = (Sums(), {}) if not number else (steps[number - 1].state.sums, steps[number - 1].state.firing)
        limits = thresholds(budget, step.windows.series, HOUR_US, {})
        if row:
            until = judge(step.windows.part(0, row), limits, sums, firing, step.learned)
            sums, firing = until.sums, until.firing
        later = world.windows.part(place, place + horizon)
        for n in inputs:
            name, column = list(world.reference.columns.items())[n]
            if kind + name in firing:
                continue
            figures = world.input(random, name, column, world.levels[place : place + horizon, n] + moved, missing)
            changed = judge(_with(later, figures), limits, sums, firing, step.learned)
            fired = np.flatnonzero(changed.fired[:, changed.subjects.index(kind + name)])
            yield float(fired[0]) + 1 if fired.size else NEVER


def _with(windows: Windows, figures: Sequence[Figures]) -> Windows:
    """The windows with these series in place of their own."""
    arrays = {name: getattr(windows, name).copy() for name in ("value", "up", "down", "p_value")}
    for one in figures:
        place = windows.series.index(one.series)
        for name, array in arrays.items():
            array[:, place] = getattr(one, name)
    return replace(windows, **arrays)


# The table


@dataclass
class Table:
    """What was measured, line by line."""

    figures: dict[str, Any] = field(default_factory=dict)

    def alarms(self, key: str, words: str, counts: Sequence[int], months: float, goal: float) -> None:
        if not counts:
            self._nothing(key, words)
            return
        mean = sum(counts) / months
        words = f"{words} ({sum(counts)} in {months:.1f} months)"
        self._line(words, f"{mean:.2f}", f"{goal:g}", mean <= goal)
        self.figures[key] = mean

    def delay(self, key: str, words: str, found: Sequence[float], goal: float | None) -> None:
        if not found:
            self._nothing(key, words)
            return
        median, late = _at(found, 0.5), _at(found, 0.95)
        figure = " / ".join(f">{NEVER - 1:.0f}" if one >= NEVER else f"{one:.0f}" for one in (median, late))
        self._line(
            f"{words} ({len(found)} runs)", figure, "" if goal is None else f"{goal:g}", goal is None or late <= goal
        )
        self.figures[key] = [median, late]

    def _nothing(self, key: str, words: str) -> None:
        """What was not measured reaches nothing."""
        print(f"{words:<84} {'no runs':>10}", flush=True)
        self.figures[key] = None

    @staticmethod
    def _line(words: str, figure: str, goal: str, reached: bool) -> None:
        verdict = ("reached" if reached else "MISSED") if goal else ""
        print(f"{words:<84} {figure:>10}   goal {goal:<4} {verdict}", flush=True)


def _at(values: Sequence[float], share: float) -> float:
    """The smallest of them that `share` of them do not exceed."""
    return float(np.sort(values)[int(np.ceil(share * len(values))) - 1])


GOALS = {
    1000: {"moved 0.5": 1, "moved 0.2": 4, "missing": 3},
    200: {"moved 0.5": 3, "moved 0.2": 11, "missing": 8},
}
CHANGES: dict[str, tuple[str, dict[str, float]]] = {
    "moved 0.5": ("moved by 0.5 sd", {"moved": 0.5}),
    "moved 0.2": ("moved by 0.2 sd", {"moved": 0.2}),
    "missing": ("2 % to 5 % missing", {"missing": 0.05}),
}


def stationary(table: Table, rows: int, goal: float, months: int, runs: int, first: int) -> None:
    days = 60
    kinds: Counter[str] = Counter()
    counts, often = [], []
    found: dict[tuple[str, bool], list[float]] = {(what, old): [] for what in CHANGES for old in (False, True)}
    worlds = max(-(-months * 30 // days), 1)
    each = -(-runs // worlds)
    for seed in range(first, first + worlds):
        world = World(seed, rows, days * 24)
        steps = watched(world, 1.0)
        by_kind, usual = begun(steps, 0)
        kinds += by_kind
        counts.append(by_kind.total())
        often.append(usual)
        inputs = [n * 7 % world.numbers for n in range(each)]
        for what, (_, change) in CHANGES.items():
            for n, one in enumerate(inputs):
                for old in (False, True):
                    place = [(30 * 24 if old else 24) + n * 17 % (240 if old else 120)]
                    found[what, old] += delays(world, steps, 1.0, place, [one], 96, **change)
    length = worlds * days / 30
    table.alarms(f"false_{rows}", f"nothing changes, {rows:,} rows an hour: false alarms a month", counts, length, goal)
    print(f"    by kind {dict(kinds)}; KS p < 0.05 for each number: {sum(often) / length:,.0f} a month", flush=True)
    table.figures[f"usual_{rows}"] = sum(often) / length
    for what, (words, _) in CHANGES.items():
        for old in (False, True):
            told = f"{words}, {rows:,} rows, watch of {'30 days' if old else 'a day'}: windows, median / 95 of 100"
            table.delay(f"{what} {rows} {'old' if old else 'new'}", told, found[what, old], GOALS[rows][what])


def season(table: Table, budget: float, goal: float, seasons: int, runs: int, first: int) -> None:
    kinds: Counter[str] = Counter()
    counts, found = [], {"moved 0.5": list[float](), "moved 0.2": list[float]()}
    each = -(-runs // max(seasons, 1))
    for seed in range(first, first + seasons):
        world = World(500 + seed, 1000, 2 * 28 * 24, seasonal=True)
        steps = watched(world, budget)
        by_kind, _ = begun(steps, 28 * DAY_US)
        kinds += by_kind
        counts.append(by_kind.total())
        for what, late in found.items():
            for n in range(each):
                place = [28 * 24 + 1 + n * 37 % (3 * 7 * 24)]
                late += delays(world, steps, budget, place, [n * 7 % world.numbers], 168, **CHANGES[what][1])
    length = seasons * 28 * DAY_US / MONTH_US
    table.alarms(f"season_false_{budget:g}", f"season, budget {budget:g}: false alarms a month", counts, length, goal)
    print(f"    by kind {dict(kinds)}", flush=True)
    for what, late in found.items():
        words = f"season, budget {budget:g}, {CHANGES[what][0]}: windows, median / 95 of 100"
        table.delay(f"season {what} {budget:g}", words, late, 24 if what == "moved 0.5" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--months", type=int, default=12, help="of each number of rows")
    parser.add_argument("--runs", type=int, default=100, help="of each change")
    parser.add_argument("--seasons", type=int, default=8, help="of four weeks, for each budget")
    parser.add_argument("--first", type=int, default=0, help="seed of the first world")
    given = parser.parse_args()
    table = Table({"benchmark": "false_alarms", **vars(given)})
    started = time.process_time()
    if given.months:
        stationary(table, 1000, 1.0, given.months, given.runs, given.first)
        stationary(table, 200, 2.0, given.months, given.runs, given.first)
    for budget in (5.0, 1.0) if given.seasons else ():
        season(table, budget, budget, given.seasons, given.runs, given.first)
    table.figures["cpu_seconds"] = round(time.process_time() - started)
    print(json.dumps(table.figures))


if __name__ == "__main__":
    main()
