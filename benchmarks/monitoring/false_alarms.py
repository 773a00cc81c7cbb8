"""How often does monitoring cry wolf, and how late is it when something did move?

The whole policy is simulated, by the code that watches (`monitoring.watch`): distances, levels, missing values,
unseen categories, predictions and errors together, an alarm counted when it begins.

    stationary  50 features (40 numbers, 10 categories, 2 % missing), scores, labels an hour later; hourly windows of
                1,000 and of 200 rows; a reference of 100,000 rows. Beside it KS p < 0.05 for each feature, counted the
                same way. The season is learned after two weeks, as always.
    season      25 features with a daily wave of 0.3 sd, a weekend of 0.2 sd and a level that wanders (first-order
                autoregression, 0.8, 0.15 sd); four weeks to learn from, four to watch. Counts are doubled for 50.
    delays      windows until one changed feature of 50 is in alarm, the change known to nobody.

    PYTHONPATH=src python benchmarks/monitoring/false_alarms.py [--months 4] [--runs 40] [--seasons 6]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seatrial.core.windows import Window
from seatrial.monitoring.definition import Monitor
from seatrial.monitoring.policy.judgement import DAY_US, HOUR_US, MONTH_US, Sums, judge, onsets, thresholds
from seatrial.monitoring.policy.series import windows_of
from seatrial.monitoring.policy.watch import Source, advance, begin
from seatrial.monitoring.rows.reference import Reference
from seatrial.monitoring.rows.sample import Sample

REFERENCE_ROWS = 100_000
NEVER = 999
WEEKEND = 5


@dataclass
class World:
    """Rows that can be asked for again: those of a window depend on the seed and the window alone.

    moved: standard deviations by which the first number moves, and missing the share of its values that are not there,
    both from `since_us` on.
    """

    seed: int
    rows: int
    numbers: int
    categories: int = 0
    seasonal: bool = False
    moved: float = 0.0
    missing: float = 0.02
    since_us: int = 2**62
    _levels: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    def sample(self, window: Window) -> Sample:
        """The predictions of whole hours."""
        first, end = window.start_us // HOUR_US, window.end_us // HOUR_US
        tables = [self._hour(hour, self.rows) for hour in range(first, end)]
        return Sample("simulated", "binary", pa.concat_tables(tables) if tables else self._hour(0, 0))

    def reference(self) -> Reference:
        """Of rows that were there before; a seasonal world's are those of all its hours."""
        if self.seasonal:
            return Reference.from_table(pa.concat_tables([self._hour(hour, 150) for hour in range(28 * 24)]))
        return Reference.from_table(self._hour(-1, REFERENCE_ROWS))

    def source(self) -> Source:
        reference, tested = self.reference(), {"brier": float(np.mean(self._brier()))}
        return Source(self.sample, self._labelled, lambda _: (reference, tested))

    def _labelled(self, window: Window) -> Sample:
        return self.sample(Window(max(window.start_us, window.end_us - 8 * DAY_US), window.end_us))

    def _brier(self) -> NDArray[np.float64]:
        scores = np.random.default_rng(0).beta(2, 5, REFERENCE_ROWS)
        return scores * (1 - scores)

    def _hour(self, hour: int, rows: int) -> pa.Table:
        random = np.random.default_rng([self.seed, hour + 1, rows])
        begun = hour * HOUR_US >= self.since_us
        level = self._level(hour) if self.seasonal and hour >= 0 else np.zeros(self.numbers)
        columns: dict[str, pa.Array] = {}
        for n in range(self.numbers):
            values = random.normal(size=rows) + level[n] + (self.moved if begun and n == 0 else 0.0)
            absent = random.random(rows) < (self.missing if begun and n == 0 else 0.02)
            columns[f"feature_x{n:02}"] = pa.array(values, mask=absent)
        words = pa.array([f"value {n}" for n in range(8)])
        for n in range(self.categories):
            drawn = np.minimum(random.geometric(0.35, rows) - 1, 7)
            columns[f"feature_c{n:02}"] = words.take(pa.array(drawn, mask=random.random(rows) < 0.02))
        scores = random.beta(2, 5, rows)
        labels = (random.random(rows) < scores).astype(float)
        at = hour * HOUR_US + np.arange(rows) * (HOUR_US // max(rows, 1))
        utc = pa.timestamp("us", tz="UTC")
        return pa.table(
            {
                "at": pa.array(at).cast(utc),
                "release": pa.array([""] * rows, pa.string()),
                "version": pa.array([""] * rows, pa.string()),
                "score": scores,
                "label": labels,
                "label_known_at": pa.array(at + HOUR_US).cast(utc),
                **columns,
            }
        )

    def _level(self, hour: int) -> NDArray[np.float64]:
        """Daily wave, weekend, and the autoregression up to this hour."""
        if hour not in self._levels:
            random = np.random.default_rng([self.seed, 0])
            phase, sign = random.uniform(0, 2 * np.pi, self.numbers), random.choice([-1.0, 1.0], self.numbers)
            wander = random.normal(size=self.numbers) * 0.15
            for n in range(70 * 24):
                wander = 0.8 * wander + random.normal(size=self.numbers) * 0.15 * 0.6
                weekend = (n // 24 + 3) % 7 >= WEEKEND
                self._levels[n] = 0.3 * np.sin(2 * np.pi * n / 24 + phase) + 0.2 * sign * weekend + wander
        return self._levels[hour]


def watched(world: World, budget: float, *, until_us: int, from_us: int = 0) -> tuple[dict[str, int], int, int | None]:
    """Alarms that began by kind, those of the usual rule, and the end of the window that first named 'x00'."""
    source, monitor = world.source(), Monitor("simulated", every="1h", false_alarms_per_month=budget)
    found: dict[str, int] = {}
    usual, first = 0, None
    state = begin("", 0, HOUR_US)
    usual_before: NDArray[np.bool_] | None = None
    for step in advance(monitor, state, None, source, until_us=until_us):
        subjects, fired = step.judged.subjects, step.judged.fired
        began = onsets(fired, np.array([one in state.firing for one in subjects]))
        counted = step.windows.ends > from_us
        for n in np.flatnonzero(began[counted].any(axis=0)):
            kind = subjects[n].partition(":")[0]
            kind = kind if kind in ("missing", "unseen", "error", "prediction") else "input"
            found[kind] = found.get(kind, 0) + int(began[counted][:, n].sum())
        chosen = [
            n for n, one in enumerate(step.windows.series) if one.kind == "distance" and one.column != "prediction"
        ]
        beyond = np.nan_to_num(step.windows.p_value[:, chosen], nan=1.0) < 0.05
        usual += int(onsets(beyond, beyond[0] if usual_before is None else usual_before)[counted].sum())
        usual_before = beyond[-1]
        for name in ("x00", "missing:x00"):
            if name in subjects and (hits := np.flatnonzero(fired[:, subjects.index(name)] & counted)).size:
                first = min(first or 2**62, int(step.windows.ends[hits[0]]))
        state = step.state
    return found, usual, first


def delays(world: World, runs: int, hours: int, subject: str) -> list[float]:
    """Windows until the changed feature is in alarm, after a day in which nothing changed."""
    reference, quiet = world.reference(), 24
    found = []
    for run in range(runs):
        one = replace(world, seed=1000 + run, since_us=quiet * HOUR_US, _levels={})
        span = Window(0, (quiet + hours) * HOUR_US)
        windows = windows_of(one.sample(span), span, HOUR_US, reference)
        limits = thresholds(1.0, windows.series, HOUR_US, {})
        judged = judge(windows, limits, Sums(), {})
        fired = np.flatnonzero(judged.fired[quiet:, judged.subjects.index(subject)])
        found.append(float(fired[0]) + 1 if fired.size else NEVER)
    return found


def told(values: list[float], at: Callable[[list[float]], float]) -> str:
    number = at(values)
    return f">{NEVER - 1}" if number >= NEVER else f"{number:.0f}"


def line(what: str, figure: str, goal: str, reached: bool) -> None:
    print(f"{what:<66} {figure:>16}   goal {goal:<6} {'reached' if reached else 'MISSED'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--months", type=int, default=4)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--seasons", type=int, default=6)
    parser.add_argument("--first", type=int, default=0, help="seed of the first month")
    given = parser.parse_args()
    figures: dict[str, object] = {"benchmark": "false_alarms", "months": given.months, "runs": given.runs}
    for rows, goal in ((1000, 1.0), (200, 2.0)):
        counts, usual, kinds = [], [], dict[str, int]()
        for seed in range(given.first, given.first + given.months):
            found, often, _ = watched(World(seed, rows, 40, 10), 1.0, until_us=MONTH_US)
            counts.append(sum(found.values()))
            usual.append(often)
            kinds = {kind: kinds.get(kind, 0) + found.get(kind, 0) for kind in {*kinds, *found}}
        mean = float(np.mean(counts)) if counts else 0.0
        what = f"false alarms a month, {rows:,} rows an hour ({sum(counts)} in {len(counts)})"
        line(what, f"{mean:.2f}", f"{goal:g}", mean <= goal)
        print(f"    by kind {kinds}; KS p < 0.05 for each feature: {np.mean(usual):,.0f}", flush=True)
        figures[f"false_a_month_{rows}"] = mean
        figures[f"usual_a_month_{rows}"] = float(np.mean(usual))
    goals = {(1000, "moved", 0.5): 1, (1000, "moved", 0.2): 4, (1000, "missing", 0.05): 3}
    goals |= {(200, "moved", 0.5): 3, (200, "moved", 0.2): 11, (200, "missing", 0.05): 8}
    for (rows, what, size), goal in goals.items():
        world = World(1, rows, 40, 10, **{what: size})
        found = delays(world, given.runs, 24 if goal < 8 else 48, "x00" if what == "moved" else "missing:x00")
        late = float(np.quantile(found, 0.95))
        words = f"moved by {size:g} sd" if what == "moved" else "2 % to 5 % missing"
        words = f"{words}, {rows:,} rows: windows until found, median / 95 of 100"
        line(words, f"{told(found, np.median)} / {late:.0f}", f"{goal}", late <= goal)
        figures[f"delay_{what}_{size:g}_{rows}"] = late
    for budget in (5.0, 1.0):
        month, counts, late_ones = 28 * DAY_US, [], []
        for seed in range(given.first, given.first + given.seasons):
            world = World(seed, 1000, 25, seasonal=True)
            found, _, _ = watched(world, budget / 2, until_us=2 * month, from_us=month)
            counts.append(sum(found.values()) * 2 * 30 / 28)
        for seed in range(given.first, given.first + 2 * given.seasons):
            world = World(500 + seed, 1000, 5, seasonal=True, moved=0.5, since_us=month)
            _, _, first = watched(world, budget / 10, until_us=month + 7 * DAY_US, from_us=month)
            late_ones.append(NEVER if first is None else (first - month) / HOUR_US)
        mean, late = float(np.mean(counts or [0])), float(np.quantile(late_ones or [0], 0.95))
        line(f"season, budget {budget:g}: false alarms a month", f"{mean:.1f}", f"{budget:g}", mean <= budget)
        words = "    moved by 0.5 sd: windows until found, median / 95 of 100"
        line(words, f"{told(late_ones, np.median)} / {late:.0f}", "24", late <= 24)
        figures |= {f"season_false_{budget:g}": mean, f"season_delay_{budget:g}": late}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
