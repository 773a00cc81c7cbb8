"""How good is the fit on each part of its test rows: by carrier, by region, by size?

A good mean hides a bad minority. For each column asked for, the test rows are parted by its value, every part is
measured by itself, and the worst one is named. A part with few rows is measured too, but flagged, and never named:
among many small parts the worst one is mostly the unluckiest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seatrial.core.errors import did_you_mean, listed
from seatrial.stats.metrics import MAIN, METRICS
from seatrial.training.rows import Indices, TrainingColumnMissing, TrainingRefused

if TYPE_CHECKING:
    from seatrial.core.signature import Task
    from seatrial.training.model import Model
    from seatrial.training.rows import TrainingRows

Measured = Callable[[NDArray[np.float64], NDArray[np.float64]], Mapping[str, float | None]]

FEW = 100
"""Rows below which a slice is too small to be judged."""
MOST = 50
"""Slices of one column that are told; the rest, the smallest, are one slice together."""
NUMBERS = 20
"""Distinct numbers up to which each is a slice; with more they are cut into quarters of the training part."""
MISSING, OTHER = "(missing)", "(other)"


class NotSliced(TrainingRefused):
    """A column to slice by holds lists, structures or bytes, of which no slice has a name."""

    code = "training.not_sliced"


@dataclass(frozen=True)
class Slice:
    """The test rows of one value.

    positives: the share of positive decisions; None but for a binary model. metrics: None where they are not defined.
    """

    value: str
    rows: int
    metrics: Mapping[str, float | None]
    positives: float | None = None

    @property
    def too_few(self) -> bool:
        return self.rows < FEW

    def as_plain(self) -> dict[str, Any]:
        plain = {"value": self.value, "rows": self.rows, "too_few": self.too_few, "metrics": dict(self.metrics)}
        return plain if self.positives is None else plain | {"positive_rate": self.positives}


@dataclass(frozen=True)
class Sliced:
    """The slices of one column, the largest first."""

    by: str
    metric: str
    higher: bool
    slices: tuple[Slice, ...]

    def worst(self, metric: str | None = None, *, higher: bool | None = None, min_rows: int = FEW) -> Slice | None:
        """The slice of at least `min_rows` rows with the worst value of a metric; None when none has any."""
        name, higher = metric or self.metric, self.higher if higher is None else higher
        found = [(value, one) for one in self.slices if (value := one.metrics.get(name)) is not None]
        found = [(value, one) for value, one in found if one.rows >= min_rows]
        if not found:
            return None
        return min(found, key=lambda pair: pair[0] if higher else -pair[0])[1]

    def as_plain(self) -> dict[str, Any]:
        worst = self.worst()
        return {
            "metric": self.metric,
            "worst": worst.value if worst else None,
            "slices": [one.as_plain() for one in self.slices],
        }


def sliced(
    model: Model,
    rows: TrainingRows,
    columns: Sequence[str],
    parts: tuple[Indices, Indices],
    measured: Measured,
    scores: NDArray[np.float64],
    threshold: float,
) -> dict[str, Sliced]:
    """The slices of the test part by each column; see `slices_of`.

    Raises as `check_columns`.
    """
    check_columns(f"model '{model.name}'", rows.table, columns)
    return slices_of(model.task, rows.table, rows.labels, columns, parts, measured, scores, threshold)


def slices_of(
    task: Task,
    table: pa.Table,
    labels: NDArray[np.float64],
    columns: Sequence[str],
    parts: tuple[Indices, Indices],
    measured: Measured,
    scores: NDArray[np.float64],
    threshold: float,
) -> dict[str, Sliced]:
    """The slices of the test part by each of these columns of the table.

    labels: (n,), of the table's rows. parts: indices of the training and of the test part. scores: (m,) or (m,
    classes), of the test part. measured: called with labels and scores of a slice, gives its metrics.
    """
    train, test = parts
    main = METRICS[task][MAIN[task]]
    found = {}
    for name in columns:
        values = slice_values(table.column(name), train, test)
        names, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        made = []
        for number in np.argsort(-counts, kind="stable"):
            of_slice = place == number
            metrics = measured(labels[test][of_slice], scores[of_slice])
            positives = float((scores[of_slice] >= threshold).mean()) if task == "binary" else None
            made.append(Slice(str(names[number]), int(counts[number]), metrics, positives))
        found[name] = Sliced(name, main.name, main.better == "higher", tuple(made))
    return found


def check_columns(whose: str, table: pa.Table, columns: Sequence[str]) -> None:
    """Raise TrainingColumnMissing for a column that the training set does not have, NotSliced for one of no plain
    values. It is called before anything is fitted."""
    for name in columns:
        if name not in table.column_names:
            raise TrainingColumnMissing(
                f"the training set of {whose} has no column '{name}' to slice by.",
                expected=f"It has {listed(table.column_names)}. {did_you_mean(name, table.column_names)}",
                column=name,
            )
        column = table.column(name)
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        try:
            column.cast(kind).cast(pa.string())
        except pa.ArrowException:
            what = (
                "bytes that are no UTF-8" if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else str(kind)
            )
            raise NotSliced(
                f"{whose} is to be sliced by '{name}', which is {what}.",
                expected="A column of text, numbers, truths or times is expected.",
                next="Make the part of it that tells the slices a column of the label source.",
                column=name,
            ) from None


def slice_values(column: pa.ChunkedArray, train: Indices, test: Indices) -> NDArray[np.str_]:
    """What slice each test row is in, as text, (m,). train, test: indices of rows; many numbers are cut into quarters
    of those of `train`."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_boolean(column.type):
        column = pc.if_else(column, "true", "false")
    tested = column.take(pa.array(test))
    numeric = pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_decimal(column.type)
    if numeric and pc.count_distinct(tested).as_py() > NUMBERS:
        return _quarters(column.cast(pa.float64()), train, test)
    texts = pc.fill_null(tested.cast(pa.string()), MISSING).to_numpy().astype(np.str_)
    names, place, counts = np.unique(texts, return_inverse=True, return_counts=True)
    if names.size > MOST:
        names = names.astype(object)
        names[np.argsort(-counts, kind="stable")[MOST - 1 :]] = OTHER
    return np.asarray(names[place]).astype(np.str_)


def _told_apart(edges: NDArray[np.float64]) -> list[str]:
    """Edges, all different, in as few digits as keep them so, six at least."""
    told = [f"{edge:g}" for edge in edges]
    digits = 6
    while len(set(told)) < len(told):
        digits += 1
        told = [np.format_float_positional(edge, precision=digits, fractional=False, trim="-") for edge in edges]
    return told


def _quarters(column: pa.ChunkedArray, train: Indices, test: Indices) -> NDArray[np.str_]:
    """Numbers by the quartiles of the training part."""
    numbers = np.asarray(column.to_numpy(), dtype=np.float64)
    known = numbers[train]
    known = known[np.isfinite(known)]
    edges = np.unique(np.quantile(known, [0.25, 0.5, 0.75])) if known.size else known
    bounds = _told_apart(edges)
    names = [f"up to {bounds[0]}"] if bounds else ["all"]
    names += [f"{low} to {high}" for low, high in pairwise(bounds)]
    names += [f"above {bounds[-1]}"] if bounds else []
    tested = numbers[test]
    place = np.searchsorted(edges, tested)
    return np.where(np.isnan(tested), MISSING, np.array(names)[np.minimum(place, len(names) - 1)])
