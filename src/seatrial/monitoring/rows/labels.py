"""Labels: which told label belongs to which prediction, and which of several counts?

A told label is matched by the strongest name that it carries:

1. prediction_id: that prediction;
2. else request_id: the one row of that request. With several rows it is ambiguous, and counts as unmatched;
3. else key: with `at` the prediction of that key for that instant (the newest when there are several), without
   it the latest prediction of that key at or before the label was known.

A label known before the instant of its prediction is no outcome of it: counted as `before`, not used. Of several
labels of one prediction the one with the newest known_at counts (then recorded_at, then id). The same value told
again is a duplicate, another value a contradiction; both stay in the store. As of an instant, labels known later do
not exist yet.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from seatrial.core.clock import from_us, iso, machine_us, to_us
from seatrial.core.errors import Failed, UsageError, did_you_mean, listed
from seatrial.core.identity import uuid7
from seatrial.core.signature import Task
from seatrial.stores.labels import LabelRow

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

FIELD = "field_"
LARGEST = 1e100
"""Beyond it the square of an error is not finite."""


class BadLabels(Failed):
    """Labels that were told cannot be taken: a value that is no label, or a row that says not whose it is."""

    code = "labels.bad"


class NoLabelColumn(UsageError):
    """The table of labels has no column with the label, or none that says which prediction it belongs to."""

    code = "labels.no_column"


@dataclass(frozen=True)
class LabelCounts:
    """What became of the labels that were told of these `predictions`.

    matched: predictions that have a label. unmatched: told labels that belong to no known prediction; ambiguous: those
    of them whose request has several rows. duplicate: told again with the same value. contradicting: told with another
    value than the one that counts. late: of the matched, known only after the window's end. before: known before
    their prediction was made. Every told label is one of matched, unmatched, duplicate, contradicting and before.
    """

    matched: int = 0
    unmatched: int = 0
    duplicate: int = 0
    contradicting: int = 0
    late: int = 0
    before: int = 0
    ambiguous: int = 0
    predictions: int = 0

    def as_plain(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class Joined:
    """For each prediction, in order: its label (NaN: none), since when that label stands (0: none), how often it was
    told again, and how many other values were told.

    classes: of a multiclass model the classes that were told, and a label is the place of one among them.
    loose: the labels that belong to no prediction, with `us` (the instant told for their prediction, else the one at
    which they were known) and the booleans `before` and `ambiguous`.
    """

    label: NDArray[np.float64] = field(repr=False)
    known_at_us: NDArray[np.int64] = field(repr=False)
    duplicates: NDArray[np.int64] = field(repr=False)
    contradictions: NDArray[np.int64] = field(repr=False)
    counts: LabelCounts
    loose: pa.Table | None = field(default=None, repr=False, compare=False)
    classes: tuple[str, ...] = ()


def join(predictions: pa.Table, labels: pa.Table | None, key: Sequence[str], as_of_us: int) -> Joined:
    """The label of each prediction.

    predictions: with prediction_id, request_id, at and, where the request carried them, `field_COLUMN` for the columns
        of `key`; a row without all of them has its request_id as its key. Any order.
    labels: columns as `LabelStore.read` gives them; None: none were told.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    count = predictions.num_rows
    joined = Joined(
        np.full(count, np.nan),
        np.zeros(count, np.int64),
        np.zeros(count, np.int64),
        np.zeros(count, np.int64),
        LabelCounts(predictions=count),
    )
    if labels is None or not labels.num_rows:
        return joined
    labels = labels.filter(pc.less_equal(labels["known_at"].cast(pa.int64()), as_of_us))
    # in the order in which a later label outdoes an earlier one
    labels = labels.sort_by([("known_at", "ascending"), ("recorded_at", "ascending"), ("id", "ascending")])
    place, before, ambiguous = _matched(predictions, labels, key)
    known_at = _us(labels["known_at"])
    early = place >= 0
    early[early] = known_at[early] < _us(predictions["at"])[place[early]]
    before |= early
    place[before] = -1
    none = place < 0
    told_for = pc.coalesce(labels["at"], labels["known_at"]).cast(pa.int64())
    loose = pa.table({"us": told_for, "before": before, "ambiguous": ambiguous}).filter(pa.array(none))

    rows = np.flatnonzero(place >= 0)
    rows = rows[np.argsort(place[rows], kind="stable")]  # by prediction, each in the order of outdoing
    of = place[rows]
    every, classes = _told(labels)
    values = every[rows]
    last = np.flatnonzero(np.diff(of, append=-1))
    winners = of[last]
    joined.label[winners] = values[last]
    # since when: the first of the equal values at the end
    begins = np.ones(rows.size, dtype=bool)
    begins[1:] = (of[1:] != of[:-1]) | (values[1:] != values[:-1])
    start_of_run = np.maximum.accumulate(np.where(begins, np.arange(rows.size), 0))
    joined.known_at_us[winners] = known_at[rows][start_of_run[last]]
    same = values == joined.label[of]
    np.add.at(joined.duplicates, of[same], 1)
    joined.duplicates[winners] -= 1  # the one that counts
    np.add.at(joined.contradictions, of[~same], 1)
    counts = LabelCounts(
        matched=int(winners.size),
        unmatched=int(np.count_nonzero(none & ~before)),
        duplicate=int(joined.duplicates.sum()),
        contradicting=int(joined.contradictions.sum()),
        before=int(np.count_nonzero(before)),
        ambiguous=int(np.count_nonzero(ambiguous)),
        predictions=count,
    )
    return Joined(joined.label, joined.known_at_us, joined.duplicates, joined.contradictions, counts, loose, classes)


def keys(rows: pa.Table, columns: Sequence[str], *, prefix: str = "") -> pa.ChunkedArray:
    """The business key of each row as one text: its values joined by "|", times in ISO 8601; null when one is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = [_texts(rows[prefix + name]) for name in columns]
    if not texts:
        return pa.chunked_array([pa.nulls(rows.num_rows, pa.string())])
    return pc.binary_join_element_wise(*texts, "|")


def parse(
    rows: pa.Table | Sequence[Mapping[str, Any]],
    *,
    model: str,
    task: Task,
    key: Sequence[str] = (),
    target: str = "label",
    event_timestamp: str | None = None,
    label_known_at: str | None = None,
    now_us: int,
    actor: str,
) -> list[LabelRow]:
    """Told labels as rows for the store; all of them or, when one is wrong, none.

    rows: a table or a list of dictionaries with the label (column `label`, or the model's target) and, of
        `prediction_id`, `request_id` and the columns of the key, what says whose it is. Optional: `at` (or the
        model's event_timestamp), the instant that the prediction was for, and `known_at` (or the declared
        label_known_at), since when the label can be known; without it `now_us`. Other columns are left alone.
    Times without a zone are read as UTC with one DataWarning. Raises NoLabelColumn, BadLabels.
    """
    import pyarrow as pa

    table = _as_table(rows, model)
    if not table.num_rows:
        return []
    names = table.column_names
    value = next((name for name in ("label", target) if name in names), None)
    if value is None:
        raise NoLabelColumn(
            f"the labels of model '{model}' have no column 'label' or '{target}'.",
            expected=f"They have {listed(names)}. {did_you_mean(target, names)}".strip(),
        )
    keyed = bool(key) and all(name in names for name in key)
    if not keyed and not {"prediction_id", "request_id"} & set(names):
        ways = "prediction_id, request_id" + (f", or the key: {', '.join(key)}" if key else "")
        raise NoLabelColumn(
            f"the labels of model '{model}' do not say which predictions they belong to: they have {listed(names)}.",
            expected=f"One of these is expected: {ways}.",
        )
    at = next((name for name in ("at", event_timestamp) if name and name in names), None)
    known_at = next((name for name in ("known_at", label_known_at) if name and name in names), None)
    table = _with_times(
        table.select([n for n in names if n in {value, at, known_at, *key, *_IDS}]), [at, known_at], model
    )
    labels, classes = _values(table[value], value, model, task)
    for name in {*_IDS, *(key if keyed else ())} & set(names):
        if pa.types.is_nested(table[name].type):
            raise _bad(model, 0, f"has a {table[name].type} in '{name}'", "An id or a key is a text or a number.")
    empty = [None] * table.num_rows
    ids = {name: _texts(table[name]).to_pylist() if name in names else empty for name in _IDS}
    key_texts = keys(table, key).to_pylist() if keyed else empty
    at_us = table[at].cast(pa.int64()).to_pylist() if at else empty
    known_us = table[known_at].cast(pa.int64()).to_pylist() if known_at else [now_us] * table.num_rows
    telling, recorded_us = uuid7(), machine_us()
    told = []
    for place, label in enumerate(labels):
        identity = (ids["prediction_id"][place], ids["request_id"][place], key_texts[place])
        if not any(identity):
            raise _bad(model, place, "does not say which prediction it belongs to: its ids and its key are null")
        if known_us[place] is None:
            raise _bad(model, place, f"has no time in '{known_at}'", "Say since when the label is known.")
        told.append(
            LabelRow(
                f"{telling}-{place:08d}",
                label,
                known_us[place],
                recorded_us,
                actor,
                *identity,
                at_us=at_us[place],
                of_class=classes[place],
            )
        )
    return told


_IDS = ("prediction_id", "request_id")


# Matching


def _matched(
    predictions: pa.Table, labels: pa.Table, key: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Per label: the place of its prediction (-1: none), whether it came before any, whether it is ambiguous."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    place = np.full(labels.num_rows, -1, np.int64)
    by_id = _there(labels["prediction_id"])
    by_request = ~by_id & _there(labels["request_id"])
    by_key = ~by_id & ~by_request & _there(labels["key"])

    if by_id.any():
        wanted = labels["prediction_id"].filter(pa.array(by_id))
        known = predictions["prediction_id"].combine_chunks()
        place[by_id] = pc.fill_null(pc.index_in(wanted, value_set=known), -1).to_numpy()

    ambiguous = np.zeros(labels.num_rows, dtype=bool)
    if by_request.any():
        codes, wanted_codes, distinct = _coded(
            predictions["request_id"], labels["request_id"].filter(pa.array(by_request))
        )
        rows = np.bincount(codes[codes >= 0], minlength=distinct)
        first = np.full(distinct, -1, np.int64)
        first[codes[codes >= 0]] = np.flatnonzero(codes >= 0)
        place[by_request] = np.where(rows[wanted_codes] == 1, first[wanted_codes], -1)
        ambiguous[by_request] = rows[wanted_codes] > 1

    before = np.zeros(labels.num_rows, dtype=bool)
    if by_key.any():
        place[by_key], before[by_key] = _by_key(predictions, labels.filter(pa.array(by_key)), key)
    return place, before, ambiguous


def _by_key(predictions: pa.Table, labels: pa.Table, key: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The latest prediction of the label's key at or before an instant: one search in (key, at) order."""
    import numpy as np
    import pyarrow.compute as pc

    codes, wanted, distinct = _coded(prediction_keys(predictions, key), labels["key"])
    told_at = _there(labels["at"])
    until = np.where(told_at, _us(pc.coalesce(labels["at"], labels["known_at"])), _us(labels["known_at"]))
    at = _us(predictions["at"])
    instants = np.unique(np.concatenate([at, until]))
    span = instants.size
    rank = np.empty(codes.size, np.int64)
    rank[pc.sort_indices(predictions["prediction_id"]).to_numpy()] = np.arange(codes.size)
    order = np.lexsort((rank, at, codes))
    order = order[codes[order] >= 0]
    sorted_places = codes[order] * span + np.searchsorted(instants, at[order])
    found = np.searchsorted(sorted_places, wanted * span + np.searchsorted(instants, until), side="right") - 1
    if not order.size:
        return np.full(wanted.size, -1, np.int64), np.zeros(wanted.size, dtype=bool)
    place = np.where(found >= 0, order[found], -1)
    hit = (place >= 0) & (codes[place] == wanted) & (~told_at | (at[place] == until))
    seen = np.zeros(distinct, dtype=bool)
    seen[codes[codes >= 0]] = True
    return np.where(hit, place, -1), ~hit & ~told_at & seen[wanted]


def prediction_keys(predictions: pa.Table, key: Sequence[str]) -> pa.ChunkedArray:
    """The business key of each prediction as one text: of the request's fields when it carried every column of the
    key, else its request_id."""
    import pyarrow.compute as pc

    requests = predictions["request_id"]
    if not key or any(FIELD + name not in predictions.column_names for name in key):
        return requests
    return pc.coalesce(keys(predictions, key, prefix=FIELD), requests)


def _coded(have: pa.ChunkedArray, want: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Both columns as numbers, equal for equal texts; -1 for null; and how many numbers there are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    both = pa.concat_arrays([part.cast(pa.string()).combine_chunks() for part in (have, want)]).dictionary_encode()
    codes = pc.fill_null(both.indices, -1).to_numpy().astype("int64")
    return codes[: len(have)], codes[len(have) :], len(both.dictionary)


def _there(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = column.is_valid().to_numpy().copy()
    return valid


def _us(column: pa.ChunkedArray) -> NDArray[np.int64]:
    import pyarrow as pa

    us: NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
    return us


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Each distinct value is turned into text once."""
    import pyarrow as pa

    if pa.types.is_string(column.type):
        return column
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    encoded = column.combine_chunks().dictionary_encode()
    texts = pa.array([_text(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([texts.take(encoded.indices)])


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of whole numbers with nulls often arrives as floats
    return str(value)


# Reading what was told


def _as_table(rows: pa.Table | Sequence[Mapping[str, Any]], model: str) -> pa.Table:
    import pyarrow as pa

    if isinstance(rows, pa.Table):
        return rows
    try:
        names = list(dict.fromkeys(name for row in rows for name in row))
        return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise BadLabels(
            f"the labels of model '{model}' are no table: {str(error).splitlines()[0]}",
            expected="One type in each column is expected.",
        ) from None


def _with_times(table: pa.Table, columns: Sequence[str | None], model: str) -> pa.Table:
    """`table` with the named columns, and every other time, as timestamp[us, UTC]."""
    from pathlib import Path

    import pyarrow as pa

    from seatrial.data.reading import read
    from seatrial.data.sources import FrameSource

    for name in {name for name in columns if name is not None}:
        if pa.types.is_string(table[name].type):
            parsed = pa.array(_parsed(table[name].to_pylist(), name, model), pa.timestamp("us", tz="UTC"))
            table = table.set_column(table.column_names.index(name), name, parsed)
    at, known_at = columns
    source = FrameSource(table, name=f"labels of {model}", event_timestamp=at, label_known_at=known_at)
    return read(source, folder=Path()).table


def _parsed(texts: Sequence[str | None], name: str, model: str) -> list[datetime | None]:
    from datetime import UTC

    from seatrial.data.reading import DataWarning

    times: list[datetime | None] = []
    naive = False
    for place, text in enumerate(texts):
        try:
            at = None if text is None else datetime.fromisoformat(text)
        except ValueError:
            raise _bad(model, place, f"has the time {text!r} in '{name}'", "ISO 8601 is expected.") from None
        if at is not None and at.tzinfo is None:
            naive, at = True, at.replace(tzinfo=UTC)
        times.append(None if at is None else from_us(to_us(at)))
    if naive:
        warnings.warn(f"labels of {model}: {name} carries no time zone, read as UTC.", DataWarning, stacklevel=4)
    return times


def _told(labels: pa.Table) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """What was told: numbers, or, when any is a class, the places of classes among all that were told, sorted."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers: NDArray[np.float64] = labels["label"].to_numpy()
    if "class" not in labels.column_names or labels["class"].null_count == labels.num_rows:
        return numbers, ()
    classes = sorted(pc.unique(labels["class"]).drop_null().to_pylist())
    found = pc.index_in(labels["class"], value_set=pa.array(classes, pa.string()))
    return found.cast(pa.float64()).to_numpy(zero_copy_only=False), tuple(classes)


def _values(column: pa.ChunkedArray, name: str, model: str, task: Task) -> tuple[list[float], list[str | None]]:
    """The labels as floats, each checked, and their classes; of a multiclass model the floats are NaN."""
    import numpy as np
    import pyarrow as pa

    kind = column.type
    if pa.types.is_null(kind):
        raise _bad(model, 0, f"has no value in '{name}'", "Leave rows out whose outcome is not known.")
    if task == "multiclass":
        return [float("nan")] * len(column), _classes(column, name, model)
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise _bad(model, 0, f"has a {kind} in '{name}'", "Labels are numbers; of a binary model 0 and 1.")
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    for wrong, found, expected in (
        (np.isnan(values), "has no value in", "Leave rows out whose outcome is not known."),
        (np.isinf(values), "is infinite in", "Labels are finite numbers."),
        (np.abs(values) > LARGEST, "is too large to reckon with in", f"Labels lie within {LARGEST:g} of 0."),
        (
            (values != 0) & (values != 1) & (task == "binary"),
            "is neither 0 nor 1 in",
            "Labels of a binary model are 0 and 1.",
        ),
    ):
        if wrong.any():
            place = int(np.argmax(wrong))
            more = f" ({int(wrong.sum()):,} of {values.size:,} rows)" if wrong.sum() > 1 else ""
            raise _bad(model, place, f"{found} '{name}'{more}", expected)
    told: list[float] = values.tolist()
    return told, [None] * len(told)


def _classes(column: pa.ChunkedArray, name: str, model: str) -> list[str | None]:
    """Classes as text, each checked; a whole number may have come as a float."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type):
        try:
            column = column.cast(pa.int64())
        except pa.ArrowInvalid:
            raise _bad(model, 0, f"has a {column.type} in '{name}'", "Classes are texts or whole numbers.") from None
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if not (text or pa.types.is_integer(column.type)):
        raise _bad(model, 0, f"has a {column.type} in '{name}'", "Classes are texts or whole numbers.")
    if column.null_count:
        place = int(pc.index(pc.is_null(column), True).as_py())
        raise _bad(model, place, f"has no value in '{name}'", "Leave rows out whose outcome is not known.")
    told: list[str | None] = column.cast(pa.string()).to_pylist()
    return told


def _bad(model: str, place: int, what: str, expected: str = "") -> BadLabels:
    return BadLabels(
        f"row {place + 1} of the labels of model '{model}' {what}.",
        expected=expected,
        state="None of these labels was kept.",
        row=place + 1,
    )
