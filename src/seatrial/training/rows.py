"""Which rows can be learned from, and what are their inputs and labels?

A training set comes as one Arrow table. Rows without a label, and rows whose label was not known by the cut-off,
are left out and counted; what could not be learned from honestly (a text target, an infinity, a label that was
known before its prediction) is refused by column and row. Nothing is repaired silently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import Failed, UsageError, did_you_mean, listed
from seatrial.core.signature import Class, Layout, Signature, Task, places, refuse_inexact
from seatrial.core.types import Field
from seatrial.core.windows import HOUR_US, hours_text
from seatrial.features.definitions import FeatureSelection, FeatureView
from seatrial.training.model import REQUEST, Model

AT = "at"
KNOWN_AT = "label_known_at"
FEWEST_ROWS = 20
USUAL = 0.95
UNLIKE = 1.5
"""Times the delay of the fastest outcome from which on the slowest is unlike it."""
APART = 0.01
"""By how much the share of an outcome may be off because of the newest rows."""
MOST_CLASSES = 1000

Indices = NDArray[np.intp]
Column = NDArray[Any]


class TrainingRefused(Failed):
    """The rows cannot be learned from as they are."""

    code = "training.refused"


class TrainingColumnMissing(TrainingRefused):
    """The training set lacks a column that the model names, or has one twice."""

    code = "training.column_missing"


class TooFewRows(TrainingRefused):
    """Too few labelled rows are left, in all or in one part of a split."""

    code = "training.too_few_rows"


class BadTarget(TrainingRefused):
    """The target holds values that the task cannot be about."""

    code = "training.bad_target"


class OneClass(TrainingRefused):
    """The target never changes, in all rows or in one part of a split."""

    code = "training.one_class"


class BadInput(TrainingRefused):
    """An input column is of a type that is no model input, or holds no value at all."""

    code = "training.bad_input"


class BadClasses(TrainingRefused):
    """A multiclass target has too few or too many classes, or a class of a single row."""

    code = "training.bad_classes"


class LabelBeforePrediction(TrainingRefused):
    """A label was known before the instant of its prediction: the times are wrong, or the label leaks."""

    code = "training.label_before_prediction"


class NullsInFeatures(TrainingRefused):
    """Features have missing values, and the caller allows none."""

    code = "training.nulls"


class TargetRateOutside(TrainingRefused):
    """The share of positives is outside the range that the caller allows."""

    code = "training.target_rate"


class CutoffWithoutTimes(UsageError):
    """A cut-off was given for labels that have no times."""

    code = "training.cutoff_without_times"


@dataclass(frozen=True)
class TrainingRows:
    """The rows that count, as arrays, ordered by `at`, then key, then as given.

    table: the rows themselves. labels: float64 (n,); 0 and 1 for binary, places among `classes` for multiclass.
    classes: of a multiclass target, sorted.
    columns: for each input (n,) float64 with NaN for missing, or objects (str or None) for categories.
    at_us, known_us: int64 (n,), when the prediction is made and when its label is known; None without times.
    integers: inputs that came as integers. counts: rows given and left out, and why.
    """

    table: pa.Table
    labels: NDArray[np.float64]
    columns: dict[str, Column]
    at_us: NDArray[np.int64] | None
    known_us: NDArray[np.int64] | None
    integers: tuple[str, ...]
    counts: dict[str, int]
    classes: tuple[Class, ...] = ()

    @property
    def size(self) -> int:
        return int(self.labels.size)

    @property
    def categories(self) -> tuple[str, ...]:
        """The inputs that are categories."""
        return tuple(name for name, column in self.columns.items() if column.dtype == object)

    @property
    def constant(self) -> tuple[str, ...]:
        """The inputs that have one and the same value in every row."""
        return tuple(name for name, column in self.columns.items() if (column == column[0]).all())

    @property
    def first_labels(self) -> str:
        """That the newest rows mislead, in words: outcomes are known at unlike ages, and what is known first stands for
        all of them. Empty where it does not matter, or is not known."""
        outcomes = np.unique(self.labels)
        if self.at_us is None or self.known_us is None or not 2 <= outcomes.size <= MOST_CLASSES:
            return ""
        delays = (self.known_us - self.at_us).astype(np.float64)
        ages = [np.quantile(delays[self.labels == one], USUAL, method="higher") for one in outcomes]
        old = self.at_us <= self.known_us.max() - max(ages)
        if max(ages) < UNLIKE * min(ages) or not FEWEST_ROWS <= old.sum() <= self.size - FEWEST_ROWS:
            return ""
        shares = [(self.labels == one).mean() - (self.labels[old] == one).mean() for one in outcomes]
        most = int(np.argmax(shares))
        if shares[most] <= APART:
            return ""
        newest, of = int((~old).sum()), [f"{(self.labels[part] == outcomes[most]).mean():.0%}" for part in (~old, old)]
        name = self.classes[int(outcomes[most])] if self.classes else f"{outcomes[most]:g}"
        first, last = (hours_text(one(ages) / HOUR_US) or "0h" for one in (min, max))
        return (
            f"labels that are known first mislead: {of[0]} of the newest {newest:,} rows are {name}, {of[1]} "
            f"of the older ones, because one outcome is known after {first} and another after {last}; let "
            "`label_known_at` be when either could be known"
        )

    def at(self, indices: Indices) -> dict[str, Column]:
        """The input columns of some rows."""
        return {name: column[indices] for name, column in self.columns.items()}

    def signature(self, task: Task, request: Sequence[Field], indices: Indices, layout: Layout = "packed") -> Signature:
        """The signature of a model that learns from these rows: their categories, sorted, and no others."""
        categories = {
            name: tuple(sorted({value for value in self.columns[name][indices] if value is not None}))
            for name in self.categories
        }
        return Signature(task, tuple(request), tuple(self.columns), categories, self.integers, self.classes, layout)


def training_rows(model: Model, table: pa.Table, *, cutoff_us: int | None) -> TrainingRows:
    """The rows of `table` that `model` can learn from at the cut-off.

    table: the model's inputs and target, its key, and for timed labels `at` and `label_known_at`
        (timestamp[us, UTC]; without the latter a label counts as known at once).
    cutoff_us: labels known later do not count; None: every label that is known at all counts.

    Raises a TrainingRefused that names column and row, counted from 0 in `table`.
    """
    _check_columns(model, table)
    at_us, known_us = _times(table, AT), _times(table, KNOWN_AT)
    if at_us is None and cutoff_us is not None:
        raise CutoffWithoutTimes(
            f"a cut-off at {iso(from_us(cutoff_us))} was given, but the labels of model '{model.name}' have no time.",
            expected="Labels with event_timestamp= can be cut off; labels without are one batch.",
        )
    target = table.column(model.target)
    classes = _classes(model, target) if model.task == "multiclass" else ()
    labels = places(target.to_pylist(), classes) if classes else _labels(model, target)
    labelled = ~np.isnan(labels)
    known = labelled.copy()
    if at_us is not None:
        at_us, known_us, known = _known(model, at_us, known_us, labelled, cutoff_us)
    counts = {
        "given": table.num_rows,
        "unlabelled": int((~labelled).sum()),
        "label_not_known": int((labelled & ~known).sum()),
        "used": int(known.sum()),
    }
    if counts["used"] < FEWEST_ROWS:
        raise TooFewRows(
            f"model '{model.name}' has {counts['used']} labelled rows to learn from: {counts['given']} were given, "
            f"{counts['unlabelled']} have no label, {counts['label_not_known']} have a label not known by the cut-off.",
            expected=f"At least {FEWEST_ROWS} are needed.",
            **counts,
        )
    columns, integers = _inputs(model, table, known)
    order = _order(model, table, at_us, known)
    if classes:
        classes, labels = _used_classes(model, classes, labels, order)
    else:
        _check_varies(model, labels[order])
    return TrainingRows(
        table=table.take(pa.array(order)),
        labels=labels[order],
        columns={name: column[order] for name, column in columns.items()},
        at_us=None if at_us is None else at_us[order],
        known_us=None if known_us is None else known_us[order],
        integers=integers,
        counts=counts,
        classes=classes,
    )


def input_names(model: Model) -> tuple[str, ...]:
    """The columns that are the model's inputs, in the order in which the model lists its features."""
    names: list[str] = []
    for feature in model.features:
        if isinstance(feature, str):
            names.append(feature.removeprefix(REQUEST))
        elif isinstance(feature, (FeatureView, FeatureSelection)):
            names.extend(feature.columns)
        else:
            names.append(feature.name)
    return tuple(names)


def refuse_nulls(table: pa.Table, columns: Sequence[str]) -> None:
    """Raise NullsInFeatures when one of `columns` has a null or a NaN; for callers that want complete rows."""
    missing = {name: _count_missing(table.column(name)) for name in columns}
    found = {name: count for name, count in missing.items() if count}
    if found:
        raise NullsInFeatures(
            f"{len(found)} of {len(columns)} features have missing values in {table.num_rows} rows: "
            f"{listed(f'{name} ({count})' for name, count in found.items())}.",
            expected="Complete features are expected here; fill them, or allow nulls.",
            missing=found,
        )


def refuse_target_rate(table: pa.Table, target: str, *, low: float, high: float) -> None:
    """Raise TargetRateOutside when the mean of the labels is not in [low, high]; null labels do not count.

    A target that is no number has no rate; that it is no target either is for `training_rows` to say.
    """
    column = table.column(target)
    if not _is_number(column.type):
        return
    labels = _floats(column)
    present = labels[~np.isnan(labels)]
    rate = float(present.mean()) if present.size else None
    if rate is None or not low <= rate <= high:
        raise TargetRateOutside(
            f"the rate of '{target}' is {'undefined' if rate is None else format(rate, '.4g')}.",
            expected=f"A rate in [{low:g}, {high:g}] is expected; allow another range if this one is right.",
            rate=rate,
        )


def _check_columns(model: Model, table: pa.Table) -> None:
    names = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TrainingColumnMissing(
            f"the training set of model '{model.name}' has two columns '{twice[0]}'.",
            expected="Every column needs a name of its own.",
            column=twice[0],
        )
    for name in (*input_names(model), model.target, *model.key):
        if name not in names:
            raise TrainingColumnMissing(
                f"the training set of model '{model.name}' has no column '{name}'.",
                expected=f"It has {listed(names)}. {did_you_mean(name, names)}".strip(),
                column=name,
            )


def _times(table: pa.Table, name: str) -> NDArray[np.int64] | None:
    """Microseconds of a time column; the smallest int64 where it is null; None without the column."""
    if name not in table.column_names:
        return None
    column = table.column(name)
    if not pa.types.is_timestamp(column.type) or column.type.tz is None:
        raise BadInput(
            f"column '{name}' of the training set is {column.type}.",
            expected="timestamp[us, tz=UTC] is expected.",
            column=name,
        )
    numbers = column.cast(pa.timestamp("us", "UTC"), safe=False).cast(pa.int64())
    filled: NDArray[np.int64] = pc.fill_null(numbers, np.iinfo(np.int64).min).to_numpy()
    return filled


def _labels(model: Model, column: pa.ChunkedArray) -> NDArray[np.float64]:
    """The target as float64, NaN where there is no label."""
    if not _is_number(column.type):
        raise BadTarget(
            f"the target '{model.target}' of model '{model.name}' is {column.type}.",
            expected="false/true or 0/1 is expected for a binary target."
            if model.task == "binary"
            else "A number is expected for regression.",
            next="Compute a numeric target in the label source, or declare the task 'multiclass'.",
        )
    labels = _floats(column)
    bad = np.isinf(labels)
    if model.task == "binary":
        bad = ~np.isnan(labels) & (labels != 0) & (labels != 1)
    if bad.any():
        row = int(np.argmax(bad))
        raise BadTarget(
            f"the target '{model.target}' is {labels[row]:g} in row {row} ({int(bad.sum())} such rows).",
            expected="A binary target is 0 or 1; a target of several classes has the task 'multiclass'."
            if model.task == "binary"
            else "A finite number is expected.",
            row=row,
        )
    return labels


def _classes(model: Model, column: pa.ChunkedArray) -> tuple[Class, ...]:
    """The target's distinct values, sorted: strings or whole numbers."""
    if not (_is_text(column.type) or pa.types.is_integer(column.type)):
        raise BadTarget(
            f"the target '{model.target}' of model '{model.name}' is {column.type}.",
            expected="false/true is a binary target: declare the task 'binary'."
            if pa.types.is_boolean(column.type)
            else "The classes of a multiclass target are strings or whole numbers.",
            next="" if pa.types.is_boolean(column.type) else "Compute such a target in the label source.",
        )
    found = pc.unique(column).drop_null().to_pylist()
    return tuple(sorted(found))


def _used_classes(
    model: Model, classes: tuple[Class, ...], labels: NDArray[np.float64], order: Indices
) -> tuple[tuple[Class, ...], NDArray[np.float64]]:
    """The classes that the used rows have, and the labels among these."""
    used, counts = np.unique(labels[order], return_counts=True)
    kept = tuple(classes[int(place)] for place in used)
    if not 3 <= len(kept) <= MOST_CLASSES:
        raise BadClasses(
            f"the target '{model.target}' of model '{model.name}' has {len(kept)} classes in {order.size} rows.",
            expected=f"From 3 to {MOST_CLASSES} are expected of a multiclass target; of two, compute a binary one."
            if len(kept) < 3
            else f"At most {MOST_CLASSES} classes are expected; so many are most often an identifier or a number.",
            next="" if len(kept) < 3 else "Put rare classes together in the label source.",
            classes=len(kept),
        )
    single = [name for name, count in zip(kept, counts, strict=True) if count == 1]
    if single:
        raise BadClasses(
            f"{len(single)} of {len(kept)} classes of the target '{model.target}' of model '{model.name}' have one "
            f"row each: {listed(str(name) for name in single)}.",
            expected="A class needs a row to learn from and another to be tested on.",
            next="Put rare classes together in the label source, or leave their target null.",
            single=single,
        )
    narrowed = np.full(labels.size, np.nan)
    narrowed[order] = np.searchsorted(used, labels[order])
    return kept, narrowed


def _known(
    model: Model,
    at_us: NDArray[np.int64],
    known_us: NDArray[np.int64] | None,
    labelled: NDArray[np.bool_],
    cutoff_us: int | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """`at`, when labels are known, and which labelled rows were known by the cut-off."""
    never = np.iinfo(np.int64).min
    if (labelled & (at_us == never)).any():
        row = int(np.argmax(labelled & (at_us == never)))
        raise BadInput(f"'{AT}' is null in row {row} of the training set.", expected="Every labelled row needs a time.")
    if known_us is None:
        known_us = at_us
    known = labelled & (known_us != never)
    early = known & (known_us < at_us)
    if early.any():
        row = int(np.argmax(early))
        raise LabelBeforePrediction(
            f"in row {row} of model '{model.name}' the label was known at {iso(from_us(int(known_us[row])))}, "
            f"before its prediction at {iso(from_us(int(at_us[row])))} ({int(early.sum())} such rows).",
            expected="A label becomes known at or after the instant of its prediction.",
            next="Correct event_timestamp or label_known_at of the label source, or set such rows aside.",
            row=row,
        )
    if cutoff_us is not None:
        known &= known_us <= cutoff_us
    return at_us, known_us, known


def _inputs(model: Model, table: pa.Table, used: NDArray[np.bool_]) -> tuple[dict[str, Column], tuple[str, ...]]:
    columns: dict[str, Column] = {}
    integers = []
    for name in input_names(model):
        column = table.column(name)
        if _is_text(column.type):
            columns[name] = column.cast(pa.string()).to_numpy()
            empty = not any(value is not None for value in columns[name][used])
        elif _is_number(column.type):
            numbers = _floats(column)
            integer = pa.types.is_integer(column.type)
            refuse_inexact(name, np.where(used, numbers, np.nan), integer=integer)
            if integer:
                integers.append(name)
            columns[name] = numbers
            empty = bool(np.isnan(numbers[used]).all())
        elif pa.types.is_null(column.type):
            empty = True
        else:
            raise BadInput(
                f"input '{name}' of model '{model.name}' is {column.type}.",
                expected="Numbers, bools and strings are model inputs; "
                "of a time take parts or differences, in the source or in a request-time function.",
                column=name,
            )
        if empty:
            raise BadInput(
                f"input '{name}' of model '{model.name}' has no value in any of {int(used.sum())} rows.",
                expected="At least one is needed to learn from it.",
                next="Check the keys and times of its source, or remove it from the model's features.",
                column=name,
            )
    return columns, tuple(integers)


def _order(model: Model, table: pa.Table, at_us: NDArray[np.int64] | None, used: NDArray[np.bool_]) -> Indices:
    """Indices of the used rows: by time and key, then as given; untimed rows as given."""
    if at_us is None:
        return np.flatnonzero(used)
    keys = [table.column(name).combine_chunks() for name in model.key if name != AT]
    sortable = [key for key in keys if not pa.types.is_nested(key.type)]
    times = pa.array(at_us)
    names = [str(position) for position in range(len(sortable) + 1)]
    columns = pa.table([times, *sortable], names=names)
    order: Indices = pc.sort_indices(columns, sort_keys=[(name, "ascending") for name in names]).to_numpy()
    order = order.astype(np.intp)
    return order[used[order]]


def _check_varies(model: Model, labels: NDArray[np.float64]) -> None:
    if labels.min() == labels.max():
        raise OneClass(
            f"the target '{model.target}' is {labels[0]:g} in all {labels.size} rows.",
            expected="At least two different values are needed to learn from.",
            value=float(labels[0]),
        )


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Numbers or bools as float64, null as NaN."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_decimal(column.type) or pa.types.is_float16(column.type):
        column = column.cast(pa.float64())
    return np.asarray(column.to_numpy(), dtype=np.float64).copy()


def _count_missing(column: pa.ChunkedArray) -> int:
    missing = column.null_count
    if pa.types.is_floating(column.type):
        missing += pc.sum(pc.is_nan(column)).as_py() or 0
    return int(missing)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )
