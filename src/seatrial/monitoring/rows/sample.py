"""The predictions of one model with the labels known so far: what every report looks at, whatever served them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from seatrial.core.signature import Task
from seatrial.core.windows import Window
from seatrial.monitoring.rows.labels import FIELD, LabelCounts, join, prediction_keys

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.monitoring.figures import Slices
    from seatrial.monitoring.report import Performance
    from seatrial.monitoring.rows.reference import Column, Reference
    from seatrial.monitoring.rows.tally import Tallies

FEATURE = "feature_"
OF_CLASS = "probability_"


class Inputs(Protocol):
    """The features of rows that are too many to lie in memory."""

    @property
    def names(self) -> Sequence[str]: ...

    def within(self, window: Window) -> Inputs: ...

    def counted(self, reference: Reference) -> Tallies: ...

    def reference(self, name: str) -> Reference: ...

    def few(self, sample: Sample) -> Sample: ...

    def with_input(self, rows: pa.Table, name: str) -> pa.Table: ...

    def missing(self, name: str) -> float: ...


@dataclass(frozen=True)
class Times:
    """When predictions were made, in microseconds. whole: days from the first one that are over; of_days: rows in
    these. longest: the longest pause between two rows."""

    first_us: int
    last_us: int
    rows: int
    whole: int
    of_days: int
    longest_us: int


@dataclass(frozen=True)
class Places:
    """A column of w windows. text: whether it is, None without a value. counts: (w, b) by the bins of a reference, of
    no use where the types are not the same. total: (w,) rows, those without a value too."""

    text: bool | None
    counts: NDArray[np.int64]
    total: NDArray[np.int64]


@dataclass(frozen=True)
class Error:
    """Losses of w windows, each (w,): how many, their mean, and the mean of their squares; NaN without any."""

    rows: NDArray[np.int64]
    mean: NDArray[np.float64]
    square: NDArray[np.float64]


class Answers(Protocol):
    """Scores and labels that stay where they are, and are measured there; see `monitoring.answers`."""

    def within(self, window: Window) -> Answers: ...

    def measured(self, threshold: float, quantile: float) -> tuple[dict[str, float | None], str]: ...

    def means(self) -> tuple[float, float] | None: ...

    def gap(self) -> float | None: ...

    def counted(self, window: Window) -> tuple[int, LabelCounts]: ...

    def performance(self, found: Performance, threshold: float, quantile: float, window: Window) -> Performance: ...

    def latencies(self) -> tuple[float | None, float | None, float | None]: ...

    def times(self) -> Times | None: ...

    def label_delays(self) -> tuple[int, float, float]: ...

    def rows_by(
        self, start_us: int, every_us: int, windows: int
    ) -> tuple[NDArray[np.int64], tuple[dict[str, int], ...]]: ...

    def placed(self, name: str, known: Column, start_us: int, every_us: int, windows: int) -> Places | None: ...

    def errors_by(self, start_us: int, every_us: int, windows: int) -> Error: ...

    def slices(self) -> Slices: ...


@dataclass(frozen=True)
class Sample:
    """Predictions and their labels.

    rows: one row per prediction, ordered by `at`, with the columns

        prediction_id (string), request_id (string or null), at (timestamp[us, UTC]), release, version (string),
        arm         string or null: the arm of the deployment; "batch" of what was scored in batch
        score       float64: P(positive), or the value of a regression; null when there was none
        latency_ms  float64 or null
        degraded    bool or null: answered with something missing
        label       float64 or null
        label_known_at  timestamp[us, UTC] or null
        feature_NAME    float64 or string, one per input of the model; null is missing

    Where the log tells it, there are `view_NAME_age_s` (float64: how old the features of a view were) and `key` (int64,
    the same for the same business key); of a long log `place` (int64), where the inputs of the row lie.

    Of a multiclass model `score` is the probability of the class that was predicted and `label` whether that was right
    (1.0 or 0.0), so that mean score and mean label are sureness and accuracy; and there are

        predicted_class, label_class  string or null: the classes themselves
        probability_CLASS             float64, one per class, when the model's inputs were read; null where a release
                                      does not know it

    and, when labels were joined, label_duplicates and label_contradictions (int64): how often the row's label was
    told again, and how many other values were told.
    and, where labels stand in the log itself, label_before (int64): 1 where the row's label was known before the row
    was, and does not count.

    labels: what became of the labels; see `LabelCounts`.
    decided_only: the log says which class was predicted and never how sure the model was: scores are null, and what is
        measured is decisions.
    loose: the labels that belong to no prediction, see `monitoring.rows.labels.Joined`; None: not known one by one.
    threshold: from which score on the live release of a binary model decides "positive". quantile: which one a
        regression predicts.
    inputs: of a long log the features, which are then not among `rows` and are read in batches when they are counted.
    answers: where no row may leave: `rows` then stand for them, right to a hundredth of the score, and what is exact is
        asked of these.
    """

    model: str
    task: Task
    rows: pa.Table = field(repr=False, compare=False)
    labels: LabelCounts = field(default_factory=LabelCounts)
    loose: pa.Table | None = field(default=None, repr=False, compare=False)
    threshold: float = 0.5
    quantile: float = 0.5
    decided_only: bool = False
    inputs: Inputs | None = field(default=None, repr=False, compare=False)
    answers: Answers | None = field(default=None, repr=False, compare=False)

    def counted(self, reference: Reference) -> Tallies:
        """The rows as counts in the reference's bins, whether their inputs are in `rows` or are read for it."""
        from seatrial.monitoring.rows.tally import tallies

        if self.inputs is None:
            return tallies(self.rows, reference)
        told = [name for name in ("score", "predicted_class") if name in self.rows.column_names]
        answers = tallies(self.rows.select(told), reference)
        found = self.inputs.counted(reference)
        return replace(found, scores=found.scores or answers.scores, predicted=answers.predicted)

    def few(self) -> Sample:
        """The same with its inputs in `rows`: all rows, or of a long log every so many-th. Where the inputs can only be
        counted, there are none of them."""
        return self if self.inputs is None else self.inputs.few(self)

    def with_input(self, rows: pa.Table, name: str) -> pa.Table:
        """rows: of this sample; with `feature_NAME`, which may have to be read. Unchanged where there is none."""
        return rows if self.inputs is None or name not in self.features else self.inputs.with_input(rows, name)

    @property
    def of_classes(self) -> bool:
        """Whether there is a probability of each class."""
        return any(name.startswith(OF_CLASS) for name in self.rows.column_names)

    @property
    def features(self) -> list[str]:
        """The names of the model's inputs, without `feature_`."""
        if self.inputs is not None:
            return list(self.inputs.names)
        return [name.removeprefix(FEATURE) for name in self.rows.column_names if name.startswith(FEATURE)]

    def within(self, window: Window) -> Sample:
        """The predictions whose `at` lies in the window, with the counts of their labels.

        A label that belongs to no prediction counts where its prediction should have been, or else, when nobody told
        for which instant it is, where it was known.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        end = pa.scalar(window.end_us, pa.timestamp("us", tz="UTC"))
        first, after = np.searchsorted(self.at_us(), [window.start_us, window.end_us]).tolist()
        rows = self.rows.slice(first, after - first)  # no copy: a report cuts the rows once for each alarm
        labels = replace(
            self.labels,
            predictions=len(rows),
            matched=len(rows) - rows["label"].null_count,
            duplicate=_total(rows, "label_duplicates", self.labels.duplicate),
            contradicting=_total(rows, "label_contradictions", self.labels.contradicting),
            before=_total(rows, "label_before", self.labels.before),
            late=int(pc.sum(pc.greater_equal(rows["label_known_at"], end)).as_py() or 0),
        )
        loose = self.loose
        if loose is not None:
            inside = pc.and_(pc.greater_equal(loose["us"], window.start_us), pc.less(loose["us"], window.end_us))
            loose = loose.filter(inside)
            before = int(pc.sum(loose["before"]).as_py() or 0)
            ambiguous = int(pc.sum(loose["ambiguous"]).as_py() or 0)
            labels = replace(labels, unmatched=len(loose) - before, before=before, ambiguous=ambiguous)
        inputs = None if self.inputs is None else self.inputs.within(window)
        answers = None if self.answers is None else self.answers.within(window)
        return replace(self, rows=rows, labels=labels, loose=loose, inputs=inputs, answers=answers)

    def scores(self) -> NDArray[np.float64]:
        """(n,) scores; NaN where there is none."""
        return _floats(self.rows["score"])

    def label_values(self) -> NDArray[np.float64]:
        """(n,) labels; NaN where there is none."""
        return _floats(self.rows["label"])

    def answered(self) -> NDArray[np.bool_]:
        """(n,) which rows hold an answer: a score, or, where only classes were logged, a class."""
        import numpy as np

        if self.decided_only:
            valid: NDArray[np.bool_] = self.rows["predicted_class"].is_valid().to_numpy()
            return valid
        return np.isfinite(self.scores())

    def class_scores(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of a multiclass model: (n,) labels as places among C classes, NaN where there is none, and (n, C)
        probabilities, 0 for a class that a row's release does not know; where only the predicted class was logged, 1
        for that one. The classes are those of the predictions and of the labels, sorted by their text; which place is
        whose does not matter to a metric."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        names = [name.removeprefix(OF_CLASS) for name in self.rows.column_names if name.startswith(OF_CLASS)]
        happened = pc.unique(self.rows["label_class"]).drop_null().to_pylist()
        predicted = [] if names else pc.unique(self.rows["predicted_class"]).drop_null().to_pylist()
        classes = sorted({*names, *predicted, *happened})
        table = np.zeros((self.rows.num_rows, len(classes)))
        for place, name in enumerate(classes):
            if name in names:
                table[:, place] = np.nan_to_num(_floats(self.rows[OF_CLASS + name]))
            elif name in predicted:
                table[:, place] = pc.equal(self.rows["predicted_class"], name).fill_null(False).to_numpy()
        labels = pc.index_in(self.rows["label_class"], value_set=pa.array(classes, pa.string()))
        return labels.cast(pa.float64()).to_numpy(zero_copy_only=False), table

    def at_us(self) -> NDArray[np.int64]:
        """(n,) instants that the predictions are for, in microseconds since 1970, ascending."""
        import pyarrow as pa

        at: NDArray[np.int64] = self.rows["at"].cast(pa.int64()).to_numpy()
        return at

    def label_delays_us(self) -> NDArray[np.int64]:
        """(k,) microseconds from predictions to when their labels were known, of those that have one."""
        import numpy as np
        import pyarrow as pa

        known = self.rows["label_known_at"]
        if known.null_count == len(known):
            return np.empty(0, np.int64)
        known_us = known.cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy()
        told = known_us != np.iinfo(np.int64).min
        delays: NDArray[np.int64] = known_us[told] - self.at_us()[told]
        return delays


def from_log(
    log_table: pa.Table,
    labels: pa.Table | None,
    *,
    model: str,
    task: Task,
    key: Sequence[str] = (),
    window: Window | None = None,
    as_of_us: int,
    threshold: float = 0.5,
    quantile: float = 0.5,
) -> Sample:
    """The sample of a prediction log.

    log_table: what `PredictionLog.rows` gives, of one model: also of some time before the window, because a label of
        the window without a prediction among them counts as unmatched.
    labels: what `LabelStore.read` gives; None: nobody told any. Only those known at `as_of_us` or before count.
    key: the columns of the model's business key. threshold, quantile: see `Sample`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    count = log_table.num_rows
    source = "prediction" if task == "regression" else "probability"
    degraded = pa.nulls(count, pa.bool_())
    if "degraded" in log_table.column_names and not pa.types.is_null(log_table["degraded"].type):
        degraded = pc.greater(pc.list_value_length(log_table["degraded"]), 0)
    instant = pa.timestamp("us", tz="UTC")
    columns: dict[str, pa.ChunkedArray] = {
        "prediction_id": _column(log_table, "prediction_id", pa.string()),
        "request_id": _column(log_table, "request_id", pa.string()),
        "at": _column(log_table, "at", instant),
        "release": _column(log_table, "release", pa.string()),
        "version": _column(log_table, "version", pa.string()),
        "arm": _column(log_table, "arm", pa.string()),
        "score": _column(log_table, source, pa.float64()),
        "latency_ms": _column(log_table, "latency_ms", pa.float64()),
        "degraded": degraded,
    }
    if task == "multiclass":
        columns["predicted_class"] = _column(log_table, "predicted_class", pa.string())
        columns |= {name: log_table[name] for name in log_table.column_names if name.startswith(OF_CLASS)}
    kept = [name for name in log_table.column_names if name.startswith(FEATURE) or _is_age(name) or name == "place"]
    columns |= {name: log_table[name] for name in kept}
    if key and count and all(FIELD + name in log_table.column_names for name in key):
        columns["key"] = places(prediction_keys(log_table, key))
    sample = Sample(model, task, pa.table(columns), threshold=threshold, quantile=quantile)
    return joined(sample, log_table, labels, key=key, window=window, as_of_us=as_of_us)


def joined(
    sample: Sample,
    predictions: pa.Table,
    labels: pa.Table | None,
    *,
    key: Sequence[str] = (),
    window: Window | None = None,
    as_of_us: int,
) -> Sample:
    """`sample` with its labels, ordered by `at`, cut to the window.

    predictions: row by row those of the sample, with the columns that `monitoring.rows.labels.join` reads.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    found = join(predictions, labels, key, as_of_us)
    rows = sample.rows
    label = pa.array(found.label, from_pandas=True)
    if sample.task == "multiclass":
        happened = _names(found.label, found.classes)
        rows = rows.drop_columns([name for name in ("label_class",) if name in rows.column_names])
        rows = rows.append_column("label_class", happened)
        label = pc.equal(rows["predicted_class"], happened).cast(pa.float64())
    for name, column in (
        ("label", label),
        ("label_known_at", _instants(found.known_at_us, ~np.isnan(found.label))),
        ("label_duplicates", pa.array(found.duplicates)),
        ("label_contradictions", pa.array(found.contradictions)),
    ):
        rows = rows.drop_columns([name]) if name in rows.column_names else rows
        rows = rows.append_column(name, column)
    rows = rows.sort_by([("at", "ascending"), ("prediction_id", "ascending")])
    whole = replace(sample, rows=rows, labels=found.counts, loose=found.loose)
    return whole if window is None else whole.within(window)


def _is_age(name: str) -> bool:
    return name.startswith("view_") and name.endswith("_age_s")


def places(keys: pa.ChunkedArray) -> pa.ChunkedArray:
    """A number for each key, the same for the same one."""
    import pyarrow as pa

    encoded = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
    return encoded.dictionary_encode().indices.cast(pa.int64()).fill_null(-1)


def _names(places: NDArray[np.float64], classes: Sequence[str]) -> pa.Array:
    """The class at each place, null where there is none; also where numbers were told, which are no classes."""
    import numpy as np
    import pyarrow as pa

    if not classes:
        return pa.nulls(places.size, pa.string())
    known = ~np.isnan(places)
    indices = pa.array(np.where(known, places, 0).astype(np.int64), mask=~known)
    return pa.array(classes, pa.string()).take(indices)


def _instants(us: NDArray[np.int64], valid: NDArray[np.bool_]) -> pa.Array:
    import pyarrow as pa

    return pa.array(us, pa.int64(), mask=~valid).cast(pa.timestamp("us", tz="UTC"))


def _column(table: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    """The column in the wanted type, null when the table has none."""
    import pyarrow as pa

    if name not in table.column_names:
        return pa.chunked_array([pa.nulls(table.num_rows, kind)])
    return table[name].cast(kind)


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    import pyarrow as pa

    values: NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values


def _total(rows: pa.Table, name: str, otherwise: int) -> int:
    import pyarrow.compute as pc

    return int(pc.sum(rows[name]).as_py() or 0) if name in rows.column_names else otherwise
