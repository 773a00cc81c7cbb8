"""Scores and labels that may not leave their database, measured there: metrics, days, latencies, and windows of the
policy, each an aggregate that PostgreSQL computes.

The metrics are those of `stats.metrics`, not estimates of them: the area under the curve and the average precision come
from window functions over the distinct scores, the others from sums. A metric that the rows do not define is None, as
there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import Task
from seatrial.core.windows import DAY_US, HOUR_US, Window
from seatrial.monitoring.figures import Slices
from seatrial.monitoring.looks.calibration import blocks
from seatrial.monitoring.looks.performance import (
    BINS,
    MOST_DAYS,
    NO_PROBABILITIES,
    OF_DECISIONS,
    day,
    first_day_us,
    measure,
)
from seatrial.monitoring.looks.slices import (
    FEWEST,
    LEAST_GAP,
    LOSSES,
    MISSING,
    MOST_VALUES,
    NUMBERS,
    OTHER,
    Looked,
    least_rows,
    quarters,
    worst_of,
)
from seatrial.monitoring.report import Bin, Day, Performance
from seatrial.monitoring.rows.labels import LabelCounts
from seatrial.monitoring.rows.reference import Categories, Column
from seatrial.monitoring.rows.sample import Error, Places, Times
from seatrial.stats.bootstrap import BLOCKS, CLUSTERS, Resampling
from seatrial.stats.bootstrap import FEWEST as FEWEST_BLOCKS
from seatrial.stats.metrics import METRICS
from seatrial.stats.profile import LARGEST

EPSILON = float(np.finfo(np.float64).eps)
CALIBRATION_BINS = 10

Ints = NDArray[np.int64]


class Ask(Protocol):
    """`what` of the rows of a window, called w. rest: what follows the FROM; source: in place of w, made of it."""

    def __call__(self, what: str, window: Window, rest: str = "", source: str = "w") -> list[tuple[Any, ...]]: ...


@dataclass(frozen=True)
class DatabaseAnswers:
    """Implements `sample.Answers`.

    ask: of rows with the columns at_us, score, y (the label where it is known, 1 or 0 of several classes: whether the
        prediction was right), known_us, early (whether a label was known before its prediction), version, latency, and
        of several classes predicted, happened (text), likeliest (text, by probability) and p0, p1, ...: the probability
        of each of `classes`.
    decided_only: there is no score. kinds: of the inputs, by name: their SQL name, and whether they are text.
    """

    ask: Ask = field(repr=False)
    task: Task
    classes: Sequence[str]
    decided_only: bool
    inputs: dict[str, tuple[str, bool]]
    literal: Callable[[Any], str] = field(repr=False)
    window: Window
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    def within(self, window: Window) -> DatabaseAnswers:
        start_us, end_us = max(window.start_us, self.window.start_us), min(window.end_us, self.window.end_us)
        return replace(self, window=Window(start_us, max(start_us, end_us)))

    @property
    def _answered(self) -> str:
        return "predicted IS NOT NULL" if self.decided_only else f"abs(score) <= {LARGEST!r}"

    @property
    def _known(self) -> str:
        return f"y IS NOT NULL AND {self._answered}"

    # How right

    def measured(self, threshold: float, quantile: float) -> tuple[dict[str, float | None], str]:
        """As `performance.measure_sample` of the rows that have a label and an answer."""
        key = (self.window, threshold, quantile)
        if key not in self._kept:
            found = {
                "binary": lambda: self._binary(threshold),
                "regression": lambda: self._regression(quantile),
                "multiclass": self._multiclass,
            }[self.task]()
            self._kept[key] = found
        metrics, why = self._kept[key]
        return dict(metrics), why

    def means(self) -> tuple[float, float] | None:
        """Mean score and mean label of the labelled rows; None without any, or without scores."""
        sure, observed, _ = self._levels()
        return None if sure is None or observed is None else (sure, observed)

    def gap(self) -> float | None:
        """As `alarms.calibration_gap`."""
        said, observed, spread = self._levels()
        if said is None or observed is None:
            return None
        if self.task != "regression":
            return said - observed
        return (said - observed) / spread if spread else None

    def counted(self, window: Window) -> tuple[int, LabelCounts]:
        """How many rows have a label and an answer, and what became of the labels of `window`."""
        rows, labelled, matched, late, before = self.ask(
            f"count(*), count(*) FILTER (WHERE {self._known}), count(y), "
            f"count(*) FILTER (WHERE y IS NOT NULL AND known_us >= {window.end_us}), count(*) FILTER (WHERE early)",
            self.window,
        )[0]
        return int(labelled), LabelCounts(int(matched), late=int(late), before=int(before), predictions=int(rows))

    def performance(self, found: Performance, threshold: float, quantile: float, window: Window) -> Performance:
        """The figures, with what was made of stand-ins put right."""
        metrics, _ = self.measured(threshold, quantile)
        said, observed, _ = self._levels()
        return msgspec.structs.replace(
            found,
            metrics=metrics,
            constant=self._constant(threshold, quantile, observed),
            mean_score=said,
            observed=observed,
            gap=None if said is None or observed is None else said - observed,
            bins=self._bins(),
            days=self._days(window),
        )

    def _levels(self) -> tuple[float | None, float | None, float | None]:
        """Mean score, mean label, and the label's standard deviation, of labelled rows."""
        key = (self.window, "levels")
        if key not in self._kept:
            said, observed, spread = self.ask("avg(score), avg(y), stddev_pop(y)", self.window, f"WHERE {self._known}")[
                0
            ]
            self._kept[key] = (None if self.decided_only else said, observed, spread)
        levels: tuple[float | None, float | None, float | None] = self._kept[key]
        return levels

    def _undefined(self, labels: Sequence[float], scores: Sequence[float], **given: float) -> tuple[set[str], str]:
        """Which metrics rows of these extremes do not define, and why."""
        metrics, why = measure(self.task, np.array(labels), np.array(scores), **given)
        return {name for name, value in metrics.items() if value is None}, why

    def _nothing(self) -> dict[str, float | None]:
        return dict.fromkeys(METRICS[self.task])

    def _binary(self, threshold: float) -> tuple[dict[str, float | None], str]:
        p = f"least(greatest(score, {EPSILON!r}), {1 - EPSILON!r})"
        decided = f"score >= {float(threshold)!r}"
        row = self.ask(
            f"count(*), sum(y), min(score), max(score), -avg(CASE WHEN y = 1 THEN ln({p}) ELSE ln(1 - {p}) END), "
            f"avg((score - y) ^ 2), sum(y) FILTER (WHERE {decided}), count(*) FILTER (WHERE {decided})",
            self.window,
            f"WHERE {self._known}",
        )[0]
        rows, positive, low, high, log_loss, brier = int(row[0]), row[1], *row[2:6]
        if not rows:
            return self._nothing(), ""
        hits, decisions = float(row[6] or 0), int(row[7])
        extremes = [0.0, 1.0] if 0 < positive < rows else [float(positive > 0)] * 2
        without, why = self._undefined(extremes, [low, high], threshold=threshold)
        misses = positive - hits
        found = {
            "log_loss": log_loss,
            "brier": brier,
            "expected_calibration_error": self._calibration_error(rows),
            "accuracy": (rows - (decisions - hits) - misses) / rows,
            "precision": hits / decisions if decisions else 0.0,
            "recall": hits / positive if positive else None,
            "f1": 2 * hits / (decisions + positive) if positive else None,
        }
        if "roc_auc" not in without or "average_precision" not in without:
            area, precision = self._curves("score", "y", positive, rows)
            found |= {"roc_auc": area, "average_precision": precision}
        return {name: None if name in without else found[name] for name in METRICS["binary"]}, why

    def _curves(self, score: str, y: str, positive: float, rows: int) -> tuple[float | None, float | None]:
        """Area under the curve and average precision, from the rows and positives at each distinct score."""
        by_score = (
            f"SELECT {score} AS s, count(*)::float8 AS n, sum({y})::float8 AS p FROM w WHERE {self._known} GROUP BY 1"
        )
        above = "sum(p) OVER (ORDER BY s DESC) AS hits, sum(n) OVER (ORDER BY s DESC) AS seen"
        above = f"SELECT n, p, {above} FROM ({by_score}) AS g"
        pairs, gained = self.ask(
            "sum((n - p) * (hits - p / 2)), sum(p * hits / seen)", self.window, "", f"({above}) AS c"
        )[0]
        negative = rows - positive
        area = float(pairs / (positive * negative)) if positive and negative else None
        return area, float(gained / positive) if positive else None

    def _calibration_error(self, rows: int) -> float:
        """A bin holds its upper edge: what is counted is the edges below a score."""
        inner = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
        place = f"{inner.size} - width_bucket(-score, {array(-inner[::-1])})"
        found = self.ask(f"{place}, sum(score - y), count(*)", self.window, f"WHERE {self._known} GROUP BY 1")
        return float(sum(abs(gap) for _, gap, _ in found) / rows)

    def _regression(self, quantile: float) -> tuple[dict[str, float | None], str]:
        over = "(y - score)"
        q = float(quantile)
        rows, absolute, squared, pinball, spread, low, high = self.ask(
            f"count(*), avg(abs({over})), avg({over} ^ 2), avg(greatest({q!r} * {over}, {q - 1!r} * {over})), "
            "var_pop(y), min(y), max(y)",
            self.window,
            f"WHERE {self._known}",
        )[0]
        if not rows:
            return self._nothing(), ""
        without, why = self._undefined([low, high], [low, high], quantile=quantile)
        found = {
            "r2": 1 - squared / spread if spread else None,
            "mae": absolute,
            "rmse": float(np.sqrt(squared)),
            "quantile_loss": pinball,
        }
        return {name: None if name in without else found[name] for name in METRICS["regression"]}, why

    def _multiclass(self) -> tuple[dict[str, float | None], str]:
        decided = "predicted" if not self.classes else "likeliest"
        pairs = self.ask(f"happened, {decided}, count(*)", self.window, f"WHERE {self._known} GROUP BY 1, 2")
        if not pairs:
            return self._nothing(), ""
        names = sorted({*self.classes, *(one for row in pairs for one in row[:2])})
        place = {name: number for number, name in enumerate(names)}
        counts = np.zeros((len(names), len(names)))
        for happened, said, rows in pairs:
            counts[place[happened], place[said]] = rows
        hits, of_labels, of_decisions = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
        there = of_labels + of_decisions > 0
        hits, total = hits[there], float(counts.sum())
        happened, said = of_labels[there], of_decisions[there]
        found: dict[str, float | None] = self._nothing() | {
            "accuracy": float(hits.sum() / total),
            "precision": float(np.mean(hits / np.maximum(said, 1))),
            "recall": float(np.mean(hits / np.maximum(happened, 1))),
            "f1": float(np.mean(2 * hits / (happened + said))),
        }
        if not self.classes:
            metrics = {name: found[name] if name in OF_DECISIONS else None for name in found}
            return metrics, NO_PROBABILITIES
        shares, given = self._shares, self._given
        low, high, log_loss, brier = self.ask(
            f"min(least({', '.join(shares)})), max(greatest({', '.join(shares)})), "
            f"-avg(ln(least(greatest({given}, {EPSILON!r}), {1 - EPSILON!r}))), "
            f"avg({' + '.join(f'{one} ^ 2' for one in shares)} - 2 * {given} + 1)",
            self.window,
            f"WHERE {self._known}",
        )[0]
        there_are = np.flatnonzero(of_labels)
        tiny = np.zeros((2, len(names)))
        tiny[0, 0], tiny[1, 0] = low, high
        ends = [float(there_are[0]), float(there_are[-1])]
        without, why = self._undefined(ends, tiny)  # type: ignore[arg-type]
        areas: list[float] = []
        if "roc_auc" not in without:
            for number in there_are.tolist():
                score = shares[self.classes.index(names[number])] if names[number] in self.classes else "0"
                area, _ = self._curves(
                    score,
                    f"(happened = {self.literal(names[number])})::int",
                    float(of_labels[number]),
                    int(total),
                )
                areas += [] if area is None else [area]
        found |= {"roc_auc": float(np.mean(areas)) if areas else None, "log_loss": log_loss, "brier": brier}
        told = {name: None if name in without else found[name] for name in METRICS["multiclass"]}
        return {name: None if value is None else float(value) for name, value in told.items()}, why

    @property
    def _shares(self) -> list[str]:
        return [f"coalesce(p{number}, 0)" for number in range(len(self.classes))]

    @property
    def _given(self) -> str:
        """The probability given to the class that happened."""
        given = " ".join(
            f"WHEN {self.literal(name)} THEN {one}" for name, one in zip(self.classes, self._shares, strict=True)
        )
        return f"CASE happened {given} ELSE 0 END"

    @property
    def _sure(self) -> str:
        return f"least(greatest(score, 1e-15), {1 - 1e-15!r})"

    def _constant(self, threshold: float, quantile: float, observed: float | None) -> dict[str, float | None]:
        """The metrics of the rows' own mean label, or class shares, as every prediction."""
        if observed is None:
            return self._nothing()
        if self.task == "regression":
            over = f"(y - {float(observed)!r})"
            q = float(quantile)
            absolute, squared, pinball, low, high = self.ask(
                f"avg(abs({over})), avg({over} ^ 2), avg(greatest({q!r} * {over}, {q - 1!r} * {over})), min(y), max(y)",
                self.window,
                f"WHERE {self._known}",
            )[0]
            r2 = 0.0 if low < high else None
            return {"r2": r2, "mae": absolute, "rmse": float(np.sqrt(squared)), "quantile_loss": pinball}
        of_label = "happened" if self.task == "multiclass" else "y"
        found = self.ask(f"{of_label}, count(*)", self.window, f"WHERE {self._known} GROUP BY 1 ORDER BY 1")
        counts = np.array([int(rows) for _, rows in found])
        labels = np.repeat(np.arange(counts.size, dtype=np.float64), counts)
        if self.task == "binary":
            labels = np.repeat([float(value) for value, _ in found], counts)
            return measure("binary", labels, np.full(labels.size, observed), threshold=threshold)[0]
        every = sorted({*self.classes, *(name for name, _ in found)})
        shares = np.array([dict(found).get(name, 0) for name in every]) / counts.sum()
        labels = np.repeat([float(every.index(name)) for name, _ in found], counts)
        return measure("multiclass", labels, np.broadcast_to(shares, (labels.size, shares.size)))[0]

    def _bins(self) -> list[Bin]:
        """As `performance.calibration_bins`."""
        if self.decided_only:
            return []
        low, high = self.ask("min(score), max(score)", self.window, f"WHERE {self._known}")[0]
        if low is None:
            return []
        if self.task != "regression" and low >= 0 and high <= 1:
            edges = np.linspace(0, 1, BINS + 1)
        else:
            shares = array(np.linspace(0, 1, BINS + 1))
            asked = f"percentile_cont({shares}) WITHIN GROUP (ORDER BY score)"
            edges = np.unique(self.ask(asked, self.window, f"WHERE {self._known}")[0][0])
        last = max(edges.size - 2, 0)
        place = f"least(greatest(width_bucket(score, {array(edges)}) - 1, 0), {last})"
        found = self.ask(
            f"{place}, count(*), avg(score), avg(y)", self.window, f"WHERE {self._known} GROUP BY 1 ORDER BY 1"
        )
        return [
            Bin(
                low=float(edges[one]),
                high=float(edges[min(one + 1, edges.size - 1)]),
                rows=int(rows),
                mean_score=float(said),
                observed=float(observed),
            )
            for one, rows, said, observed in found
        ]

    def _days(self, window: Window) -> list[Day]:
        sure = f"abs(score) <= {LARGEST!r}"
        origin = first_day_us(window)
        found = self.ask(
            f"(at_us - {origin}) / {DAY_US}, count(*), count(*) FILTER (WHERE {self._known}), "
            f"avg(score) FILTER (WHERE {sure}), avg(score) FILTER (WHERE {self._known}), "
            f"avg(y) FILTER (WHERE {self._known})",
            self.window,
            "GROUP BY 1 ORDER BY 1",
        )
        by_day = {int(row[0]): row for row in found}
        count = -(-(window.end_us - origin) // DAY_US)
        names = ("rows", "labelled", "mean_score", "mean_score_labelled", "observed")
        none = (0, 0, 0, None, None, None)
        return [
            day(window, number, **dict(zip(names, by_day.get(number, none)[1:], strict=True)))
            for number in (range(count) if count <= MOST_DAYS else sorted(by_day))
        ]

    # Where it is worst

    def slices(self) -> Slices:
        """As `looks.slices.slices`, of single values of one input."""
        loss_name = "share of wrong answers" if self.decided_only else LOSSES[self.task]
        count, first = self.ask("count(*), min(at_us)", self.window, f"WHERE {self._known}")[0]
        if count < FEWEST:
            return Slices(loss_name, note=f"not enough data: {count:,} of {FEWEST} labels")
        block = self._block(int(first))
        if block is None:
            return Slices(loss_name, note="all rows lie within an hour, or in too many weeks to tell one from another")
        hours, clusters, unit = block
        place = f"(at_us - {first}) / {hours * HOUR_US}"
        drawn = Resampling(np.empty(0, np.intp), np.empty((1, clusters), np.float32), unit, clusters < FEWEST_BLOCKS)
        spread = self._levels()[2] if self.task == "regression" else 1.0
        looked: list[Looked] = []
        for name, (column, text) in self.inputs.items():
            coded = self._sliced(name, column, text)
            if coded is not None:
                code, names = coded
                looked.append(self._looked(name, code, names, place, float(spread or 0.0)))
        every = [one for each in looked for name in each.columns for one in each.of((name,))]
        least = least_rows(int(count))
        note = "of rows that stay in their database single values of one input are sliced, not pairs"
        facts: dict[str, Any] = {
            "loss": loss_name,
            "looked_at": len(every),
            "least_rows": least,
            "columns": sum(len(each.columns) for each in looked),
            "unit": blocks(drawn),
            "note": note if every else f"no slice has enough rows; {note}",
        }
        return Slices(**facts, worst=worst_of(every) if every else [])

    def _block(self, first_us: int) -> tuple[int, int, str] | None:
        """As `stats.bootstrap` takes blocks of time: hours, how many there are, and what they are called."""
        sizes = [f"count(DISTINCT (at_us - {first_us}) / {hours * HOUR_US})" for _, hours in BLOCKS]
        found = self.ask(", ".join(sizes), self.window, f"WHERE {self._known}")[0]
        taken, most = None, 1
        for (name, hours), size in zip(BLOCKS, found, strict=True):
            if size >= (FEWEST_BLOCKS if hours < 7 * 24 else CLUSTERS // 7):
                return (hours, int(size), name) if size <= CLUSTERS else None
            if size > most:
                taken, most = (hours, int(size), name), size
        return taken

    def _sliced(self, name: str, column: str, text: bool) -> tuple[str, list[str]] | None:
        """The slice of each row by one input, as SQL, and what the slices are called: as `looks.slices.named_codes`."""
        if text:
            most = self.ask(
                f"{column}, count(*)",
                self.window,
                f'WHERE {self._known} AND {column} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, {column} COLLATE "C" '
                f"LIMIT {MOST_VALUES}",
            )
            kept = [str(word) for word, _ in most]
            values = self.literal(kept)
            code = f"coalesce(array_position({values}::text[], {column}) - 1, {len(kept)})"
            return f"CASE WHEN {column} IS NULL THEN {len(kept) + 1} ELSE {code} END", [*kept, OTHER, MISSING]
        finite = f"WHERE {self._known} AND abs({column}) <= {LARGEST!r}"
        few = self.ask(f"{column}, count(*)", self.window, f"{finite} GROUP BY 1 ORDER BY 1 LIMIT {NUMBERS + 1}")
        if len(few) > NUMBERS:
            asked = f"percentile_cont(ARRAY[0.25, 0.5, 0.75]) WITHIN GROUP (ORDER BY {column})"
            edges, names = quarters(name, np.array(self.ask(asked, self.window, finite)[0][0], np.float64))
        else:
            edges, names = np.array([value for value, _ in few[1:]], np.float64), [f"{value:g}" for value, _ in few]
        names = [*(names or [f"any {name}"]), MISSING]
        code = f"width_bucket({clipped(column)}, {array(edges)})" if edges.size else "0"
        return f"CASE WHEN {column} IS NULL THEN {len(names) - 1} ELSE {code} END", names

    def _looked(self, name: str, code: str, names: list[str], place: str, spread: float) -> Looked:
        """The rows of each slice and block as sums; what is made of them has the same sums, and the same spread of what
        was said and what happened."""
        y, said = "y", "NULL::float8" if self.decided_only else "score"
        if self.task == "regression":
            loss = "abs(y - score)"
        elif self.decided_only:
            loss = "1 - y"
        else:
            given = f"CASE WHEN y = 1 THEN {self._sure} ELSE 1 - {self._sure} END"
            if self.task == "multiclass" and self.classes:
                given = f"least(greatest({self._given}, 1e-15), {1 - 1e-15!r})"
            loss = f"-ln({given})"
        found = self.ask(
            f"{code}, {place}, count(*), avg({loss}), avg({y}), avg({said}), coalesce(var_pop(y - {said}), 0)",
            self.window,
            f"WHERE {self._known} GROUP BY 1, 2 ORDER BY 1, 2",
        )
        rows = np.array([row[2] for row in found], np.int64)
        slice_of, blocks = (np.repeat([int(row[one]) for row in found], rows) for one in (0, 1))
        means = np.array([[row[3], row[4], row[5] or 0.0] for row in found], np.float64)
        loss_of, labels, scores = (np.repeat(means[:, one], rows) for one in range(3))
        rest = None if self.decided_only else labels - scores
        if rest is not None:  # half of a cell's rows above and half below their mean, by their standard deviation
            pairs = rows // 2
            away = np.sqrt(np.array([row[6] for row in found], np.float64) * rows / np.maximum(2 * pairs, 1))
            number = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
            sign = np.where(number >= np.repeat(2 * pairs, rows), 0.0, np.where(number % 2, 1.0, -1.0))
            rest = rest + sign * np.repeat(away, rows)
        _, cluster = np.unique(blocks, return_inverse=True)
        slices = slice_of.astype(np.intp)
        least_gap = LEAST_GAP * (spread if self.task == "regression" else 1.0)
        return Looked(
            loss_of, cluster.astype(np.intp), labels, None if self.decided_only else scores, rest, least_gap,
            {name: (slices, names)},
        )  # fmt: skip

    # How it was served

    def latencies(self) -> tuple[float | None, float | None, float | None]:
        """p50, p95 and p99, in milliseconds."""
        asked = "percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY latency)"
        found = self.ask(asked, self.window, f"WHERE abs(latency) <= {LARGEST!r}")[0][0]
        return (float(found[0]), float(found[1]), float(found[2])) if found else (None, None, None)

    def times(self) -> Times | None:
        """None without rows."""
        first, last, rows = self.ask("min(at_us), max(at_us), count(*)", self.window)[0]
        if not rows:
            return None
        whole = int((last - first) // DAY_US)
        of_days = self.ask("count(*)", self.window, f"WHERE at_us < {first + whole * DAY_US}")[0][0]
        pauses = "SELECT at_us - lag(at_us) OVER (ORDER BY at_us) AS pause FROM w"
        longest = self.ask("max(pause)", self.window, "", f"({pauses}) AS p")[0][0]
        return Times(int(first), int(last), int(rows), whole, int(of_days), int(longest or 0))

    def label_delays(self) -> tuple[int, float, float]:
        """How many labels are known, and the median and the 95th percentile of how long they took, in microseconds."""
        asked = "count(*), percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY (known_us - at_us)::float8)"
        rows, found = self.ask(asked, self.window, "WHERE y IS NOT NULL")[0]
        return (int(rows), *found) if rows else (0, 0.0, 0.0)

    # Windows of the policy

    def rows_by(self, start_us: int, every_us: int, windows: int) -> tuple[Ints, tuple[dict[str, int], ...]]:
        """(w,) rows of each window, and by version."""
        rows, versions = np.zeros(windows, np.int64), tuple(dict[str, int]() for _ in range(windows))
        for place, version, count in self._by(
            "coalesce(version, ''), count(*)", start_us, every_us, windows, "GROUP BY 1, 2"
        ):
            rows[place] += count
            versions[place][version] = int(count)
        return rows, versions

    def placed(self, name: str, known: Column, start_us: int, every_us: int, windows: int) -> Places | None:
        """An input (or "score", or "predicted") by window and bin of the reference; None when it is not there."""
        column, text = {"score": ("score", False), "predicted": ("predicted", True)}.get(name) or self.inputs.get(
            name, ("", False)
        )
        if not column:
            return None
        of_words = isinstance(known, Categories)
        width = len(known.values) + 1 if isinstance(known, Categories) else known.counts.size
        counts = np.zeros((windows, width), np.int64)
        total = np.zeros(windows, np.int64)
        bin_of = "0" if text != of_words else place_in(column, known, self.literal)
        found = self._by(
            f"CASE WHEN {column} IS NOT NULL THEN {bin_of} END, count(*)", start_us, every_us, windows, "GROUP BY 1, 2"
        )
        for place, one, count in found:
            total[place] += count
            if one is not None:
                counts[place, one] += count
        return Places(text if counts.any() else None, counts, total)

    def errors_by(self, start_us: int, every_us: int, windows: int) -> Error:
        """The losses of the rows whose label became known in each window: rows, sum, sum of squares."""
        loss = {"binary": "(y - score) ^ 2", "regression": "abs(y - score)", "multiclass": "1 - y"}[self.task]
        place = f"(known_us - {start_us}) / {every_us}"
        inside = f"known_us >= {start_us} AND known_us < {start_us + windows * every_us}"
        finite = "" if self.task == "multiclass" else f" AND abs(score) <= {LARGEST!r}"
        found = self.ask(
            f"{place}, count(*), avg({loss}), avg(({loss}) ^ 2)",
            self.window,
            f"WHERE y IS NOT NULL{finite} AND {inside} GROUP BY 1",
        )
        error = Error(np.zeros(windows, np.int64), np.full(windows, np.nan), np.full(windows, np.nan))
        for at, rows, mean, square in found:
            error.rows[at], error.mean[at], error.square[at] = rows, mean, square
        return error

    def _by(self, what: str, start_us: int, every_us: int, windows: int, rest: str) -> list[tuple[Any, ...]]:
        inside = f"WHERE at_us >= {start_us} AND at_us < {start_us + windows * every_us}"
        return self.ask(f"(at_us - {start_us}) / {every_us}, {what}", self.window, f"{inside} {rest}")


def place_in(column: str, known: Column, literal: Callable[[Any], str]) -> str:
    """The bin of the reference, or the place among its values, of what is not null."""
    if isinstance(known, Categories):
        return f"coalesce(array_position({literal(list(known.values))}::text[], {column}) - 1, {len(known.values)})"
    return f"width_bucket({clipped(column)}, {array(known.cuts)})" if known.cuts.size else "0"


def clipped(column: str) -> str:
    """With an infinite value as the largest number; least() and greatest() would make a number of null."""
    return f"CASE WHEN {column} IS NOT NULL THEN least(greatest({column}, {-LARGEST!r}), {LARGEST!r}) END"


def array(values: NDArray[np.float64]) -> str:
    """The numbers as SQL."""
    return "ARRAY[" + ", ".join(repr(float(one)) for one in values) + "]::float8[]"
