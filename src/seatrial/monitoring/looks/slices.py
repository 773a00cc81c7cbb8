"""The worst slices: in which rows, of one input's value or of two at once, is the model worse than in all the others?

Each row has a loss; a slice is compared with the other labelled rows (Chung et al. 2019, "Slice Finder"), with the
variance of blocks of time. Among hundreds of slices the worst mean belongs to the unluckiest small one, so slices have
a least size, what is told is held to a share of 1 % of false finds (Benjamini-Hochberg, after Welch's one-sided test),
and the order is by how much worse a slice is after it was drawn towards nothing by as much as its own noise says
(empirical Bayes: Efron and Morris 1975). A pair is told only when it is worse than both of its values by themselves.
A loss is higher where the truth is harder to tell, for any model; so those slices come first in which what happened is
not what was said, and the others are called hard.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import Task
from seatrial.monitoring.figures import SliceFigure, Slices
from seatrial.monitoring.looks.calibration import blocks
from seatrial.monitoring.rows.baseline import chosen, labelled, some
from seatrial.monitoring.rows.reference import floats, is_text, plain
from seatrial.monitoring.rows.sample import FEATURE
from seatrial.stats.bootstrap import resample
from seatrial.stats.detectors import benjamini_hochberg
from seatrial.stats.metrics import losses
from seatrial.stats.parts import Means, means
from seatrial.stats.student import t_p_value, t_quantile

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.monitoring.rows.sample import Sample

FEWEST = 500
"""Labelled rows below which nothing is sliced."""
LEAST_ROWS = 100
LEAST_SHARE = 0.005
FALSE_FINDS = 0.01
LEAST_GAP = 0.02
"""Distance of what was said and what happened that is borne; of a regression in standard deviations of the label."""
MOST_ROWS = 100_000
MOST_VALUES = 20
NUMBERS = 10
"""Distinct numbers up to which each is a slice of its own; more are cut into quarters."""
PAIRED = 12
"""Columns, those whose slices differ most, of which pairs are made."""
MOST = 10
BETTER_TOLD = 1.1
"""How many times worse than its parts a pair must be to be told beside them."""
LOSSES: dict[Task, str] = {
    "binary": "log loss",
    "multiclass": "log loss",
    "regression": "absolute error",
}
MISSING, OTHER = "(missing)", "(other)"

Floats = NDArray[np.float64]


def slices(inside: Sample, *, seed: int = 0) -> Slices:
    """The slices in which the window's labelled predictions are worse than in the others."""
    if inside.answers is not None:
        return inside.answers.slices()
    sample = labelled(inside)
    loss_name = "share of wrong answers" if sample.decided_only else LOSSES[sample.task]
    count = sample.rows.num_rows
    if count < FEWEST:
        return Slices(loss_name, note=f"not enough data: {count:,} of {FEWEST} labels")
    sample = some(sample, MOST_ROWS)
    loss = _losses(sample)
    finite = np.isfinite(loss)
    if not finite.all():
        sample, loss = chosen(sample, finite), loss[finite]
    if loss.size < FEWEST:
        return Slices(loss_name, note=f"not enough data: {loss.size:,} of {FEWEST} labels with a loss")
    if not sample.features:
        return Slices(loss_name, note="the log holds no inputs to slice by")
    drawn = resample(loss.size, seed=seed, at_us=sample.at_us(), replicates=1)
    looked = _looked(sample, loss, drawn.cluster)
    singles = [one for name in looked.columns for one in looked.of((name,))]
    order = sorted(looked.columns, key=lambda name: -looked.spread(name))[:PAIRED]
    pairs = [one for names in combinations(sorted(order), 2) for one in looked.of(names)]
    every = [*singles, *pairs]
    facts: dict[str, Any] = {
        "loss": loss_name,
        "looked_at": len(every),
        "least_rows": looked.least,
        "columns": len(looked.columns),
    }
    unit = blocks(drawn)
    if not every:
        return Slices(**facts, unit=unit, note="no slice has enough rows")
    looked_at = sample.rows.num_rows
    note = "" if count <= looked_at else f"{looked_at:,} of {count:,} labelled rows, drawn evenly, were looked at"
    return Slices(**facts, unit=unit, worst=worst_of(every), note=note)


@dataclass(frozen=True)
class _Slice:
    """One slice: how much worse its loss is than that of the other rows, and how sure that is."""

    where: tuple[tuple[str, str], ...]
    rows: int
    loss: float
    others: float
    error: float
    degrees: float
    mean_score: float | None
    observed: float
    off_p_value: float

    @property
    def worse(self) -> float:
        return self.loss - self.others

    @property
    def p_value(self) -> float:
        if not np.isfinite(self.error) or self.degrees <= 0:
            return float("nan")
        if self.error == 0:
            return 0.0 if self.worse > 0 else 1.0
        half = t_p_value(self.worse / self.error, self.degrees) / 2
        return half if self.worse > 0 else 1 - half


@dataclass(frozen=True)
class Looked:
    """The labelled rows, (n,) each: loss, block of time, label, score, label minus score (both None where only classes
    were logged); and by each input the slice of each row, and what the slices are called.

    least_gap: of what was said and what happened that is borne.
    """

    loss: Floats
    cluster: NDArray[np.intp]
    labels: Floats
    scores: Floats | None
    rest: Floats | None
    least_gap: float
    codes: dict[str, tuple[NDArray[np.intp], list[str]]]

    @property
    def least(self) -> int:
        return least_rows(self.loss.size)

    @property
    def columns(self) -> list[str]:
        return list(self.codes)

    def spread(self, name: str) -> float:
        """How much the slices of one input differ in loss, by their rows."""
        place, names = self.codes[name]
        rows = np.bincount(place, minlength=len(names))
        mean = np.bincount(place, weights=self.loss, minlength=len(names)) / np.maximum(rows, 1)
        return float((rows * (mean - self.loss.mean()) ** 2).sum() / max(len(names) - 1, 1))

    def of(self, columns: tuple[str, ...]) -> list[_Slice]:
        """The slices of enough rows of one input, or of two."""
        place, names = self._crossed(columns)
        rows = np.bincount(place, minlength=len(names))
        wanted = np.flatnonzero((rows >= self.least) & (rows < self.loss.size))
        if not wanted.size:
            return []
        inside = means(self.loss, place, len(names), self.cluster)
        labels = np.bincount(place, weights=self.labels, minlength=len(names))
        scores = None
        if self.scores is not None:
            scores = np.bincount(place, weights=np.nan_to_num(self.scores), minlength=len(names))
        rest = None if self.rest is None else means(self.rest, place, len(names), self.cluster)
        total, count = float(self.loss.sum()), self.loss.size
        # the variance of slice minus others, blocks of time taken together: what a block does to both cancels
        size = int(self.cluster.max()) + 1
        cell = place.astype(np.int64) * size + self.cluster
        width = len(names) * size
        sums = np.bincount(cell, weights=self.loss, minlength=width).reshape(-1, size)
        counts = np.bincount(cell, minlength=width).reshape(-1, size)
        all_sums = np.bincount(self.cluster, weights=self.loss, minlength=size)
        all_counts = np.bincount(self.cluster, minlength=size)
        found = []
        for number in wanted.tolist():
            n = int(rows[number])
            others = (total - float(inside.mean[number]) * n) / (count - n)
            one = (sums[number] - inside.mean[number] * counts[number]) / n
            against = ((all_sums - sums[number]) - others * (all_counts - counts[number])) / (count - n)
            clusters = int((counts[number] > 0).sum())
            variance = float(((one - against) ** 2).sum()) * size / max(size - 1, 1)
            found.append(
                _Slice(
                    where=tuple(zip(columns, names[number], strict=True)),
                    rows=n,
                    loss=float(inside.mean[number]),
                    others=others,
                    error=float(np.sqrt(variance)) if clusters > 1 else float("nan"),
                    degrees=clusters - 1.0,
                    mean_score=None if scores is None else float(scores[number] / n),
                    observed=float(labels[number] / n),
                    off_p_value=float("nan") if rest is None else _off(rest, number, self.least_gap),
                )
            )
        return found

    def _crossed(self, columns: tuple[str, ...]) -> tuple[NDArray[np.intp], list[tuple[str, ...]]]:
        place, names = self.codes[columns[0]]
        told: list[tuple[str, ...]] = [(name,) for name in names]
        for column in columns[1:]:
            more, others = self.codes[column]
            place = place * len(others) + more
            told = [(*one, other) for one in told for other in others]
        return place, told


def least_rows(count: int) -> int:
    """Rows that a slice of so many has at least."""
    return max(LEAST_ROWS, int(LEAST_SHARE * count))


def _looked(sample: Sample, loss: Floats, cluster: NDArray[np.intp]) -> Looked:
    labels = sample.label_values()
    scores = None if sample.decided_only else sample.scores()
    rest = None if scores is None else np.nan_to_num(labels - scores)
    found: dict[str, tuple[NDArray[np.intp], list[str]]] = {}
    for name in sample.features:
        column = sample.rows[FEATURE + name]
        place, _, names = named_codes(name, column, column.slice(0, 0), prefixed=False)
        if len(names) > 1:
            found[name] = (place, names)
    least_gap = LEAST_GAP * (float(labels.std()) if sample.task == "regression" else 1.0)
    return Looked(loss, cluster, labels, scores, rest, least_gap, found)


def _off(rest: Means, number: int, least: float) -> float:
    """The p-value that what happened in a slice is what was said; 1 when they lie closer than what is borne."""
    mean, error = float(rest.mean[number]), float(np.sqrt(rest.variance[number]))
    if abs(mean) <= least or not np.isfinite(error):
        return 1.0
    return t_p_value(mean / error if error else float("inf"), float(rest.degrees[number]))


def worst_of(every: list[_Slice]) -> list[SliceFigure]:
    """Those that are worse beyond chance, across all that were looked at: the worst first."""
    p_values = np.array([one.p_value for one in every])
    sure = benjamini_hochberg(p_values, FALSE_FINDS)
    # how much slices differ beyond their noise (the moment estimate of the prior's variance)
    worse = np.array([one.worse for one in every])
    noise = np.array([one.error**2 for one in every])
    known = np.isfinite(noise)
    prior = max(float((worse[known] ** 2 - noise[known]).mean()), 0.0) if known.any() else 0.0
    shrunk = np.divide(worse * prior, prior + noise, out=np.zeros_like(worse), where=known & (prior + noise > 0))
    alone = {one.where[0]: float(drawn) for one, drawn in zip(every, shrunk, strict=True) if len(one.where) == 1}
    off = benjamini_hochberg(np.array([one.off_p_value for one in every]), FALSE_FINDS)
    found = []
    for place in np.lexsort((-shrunk, ~off)).tolist():
        one = every[place]
        if not sure[place] or shrunk[place] <= 0:
            continue
        if len(one.where) == 2 and shrunk[place] <= BETTER_TOLD * max(alone.get(part, 0.0) for part in one.where):
            continue
        half = t_quantile(0.95, one.degrees) * one.error
        found.append(
            SliceFigure(
                where=dict(one.where),
                rows=one.rows,
                loss=one.loss,
                interval=(one.loss - half, one.loss + half),
                others=one.others,
                shrunk=float(shrunk[place]),
                p_value=one.p_value,
                mean_score=one.mean_score,
                observed=one.observed,
                off=bool(off[place]),
            )
        )
    return found[:MOST]


def named_codes(
    name: str, old: pa.ChunkedArray, new: pa.ChunkedArray, *, prefixed: bool = True
) -> tuple[NDArray[np.intp], NDArray[np.intp], list[str]]:
    """The slice of each row by one input, and what each slice is called. Numbers are cut into the quarters of both."""
    old, new = plain(old), plain(new)
    start = f"{name} " if prefixed else ""
    if is_text(old) or is_text(new):
        first, second, names = _texts(old, new)
        return first, second, [f"{start}= {one}" if prefixed else one for one in names]
    values = [floats(column) for column in (old, new)]
    present = np.concatenate([one[np.isfinite(one)] for one in values])
    distinct = np.unique(present[:: max(1, present.size // 5000)])
    few = np.unique(present) if distinct.size <= NUMBERS else distinct
    if few.size <= NUMBERS:
        edges = few[1:]
        names = [f"{start}= {one:g}" if prefixed else f"{one:g}" for one in few]
    else:
        edges, names = quarters(name, np.quantile(present, [0.25, 0.5, 0.75]), start)
    names = [*(names or [f"any {name}"]), f"{start}{MISSING}"]
    places = [
        np.where(np.isnan(one), len(names) - 1, np.searchsorted(edges, one, side="right")).astype(np.intp)
        for one in values
    ]
    return places[0], places[1], names


def quarters(name: str, cuts: Floats, start: str = "") -> tuple[Floats, list[str]]:
    """The cuts between quarters of an input in three digits, and what the quarters are called."""
    edges = np.unique([float(f"{one:.3g}") for one in cuts])
    told = [f"{edge:g}" for edge in edges]
    names = [f"{start}below {told[0]}"] if told else [f"any {name}"]
    names += [f"{start}{low} to {high}" for low, high in pairwise(told)]
    names += [f"{start}{told[-1]} and more"] if told else []
    return edges, names


def _texts(old: pa.ChunkedArray, new: pa.ChunkedArray) -> tuple[NDArray[np.intp], NDArray[np.intp], list[str]]:
    from seatrial.monitoring.looks.shift import text_codes

    codes, kept = text_codes(old, new, MOST_VALUES)
    first, second = (one.astype(np.intp) for one in codes)
    return first, second, [*kept, OTHER, MISSING]


def _losses(sample: Sample) -> Floats:
    """(n,) of each row."""
    if sample.decided_only:
        wrong: Floats = 1 - sample.label_values()
        return wrong
    if sample.task == "multiclass" and sample.of_classes:
        return losses("multiclass", *sample.class_scores())
    if sample.task == "regression":
        return np.abs(sample.label_values() - sample.scores())
    return losses("binary", sample.label_values(), sample.scores())
