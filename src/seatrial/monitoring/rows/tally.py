"""Tallies: a window of rows as counts in the reference's bins, all that data quality and drift need to know of it.

A tally of a column is a few kilobytes whatever the rows, and two of them add up. So a window can be counted from a
table in memory, from batches of a long log, or by a database that gives no row away, and the rest is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seatrial.monitoring.rows.reference import Categories, Column, Numbers, Reference, codes, floats, is_text, plain
from seatrial.monitoring.rows.sample import FEATURE
from seatrial.stats.profile import LARGEST, moments, sorted_bin_counts, value_counts

if TYPE_CHECKING:
    import pyarrow as pa

PLAIN = 1e290
"""Numbers below it can be added up without a thought of overflow."""
RARE = 1_000
"""Rows of a batch of which one must lack a set of columns for it to be counted."""
KEYS_SEED = 20130101
STEP = 65_536
"""Rows that are counted at once."""


@dataclass(frozen=True)
class Tally:
    """One column of a window.

    total: rows; missing: those without a value. text: whether values are strings; None when there is none.
    counts: in the bins of `Numbers`, or by the values of `Categories` and one more for all others; empty when the type
        is not the reference's.
    low, high: the range, NaN without a number. mean: of the finite numbers, None where it overflows; finite: their
        number. outside: numbers out of the reference's range; below, above: by how much, summed, infinite ones not.
    """

    total: int = 0
    missing: int = 0
    text: bool | None = None
    counts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    low: float = float("nan")
    high: float = float("nan")
    mean: float | None = None
    finite: int = 0
    infinite: int = 0
    outside: int = 0
    below: float = 0.0
    above: float = 0.0

    @property
    def present(self) -> int:
        return self.total - self.missing

    def __add__(self, other: Tally) -> Tally:
        """Of both together. Strings in one and numbers in the other make the whole a column of strings."""
        if self.text is None or other.text is None:
            known, rest = (other, self) if self.text is None else (self, other)
            return replace(known, total=known.total + rest.total, missing=known.missing + rest.missing)
        whole = Tally(self.total + other.total, self.missing + other.missing, self.text or other.text)
        if self.text != other.text:
            return whole
        finite = self.finite + other.finite
        mean = None
        if not finite or not other.finite or not self.finite:
            mean = self.mean if self.finite else other.mean
        elif self.mean is not None and other.mean is not None:
            mean = self.mean + (other.mean - self.mean) * (other.finite / finite)
        return replace(
            whole,
            counts=self.counts + other.counts,
            low=float(np.fmin(self.low, other.low)),
            high=float(np.fmax(self.high, other.high)),
            mean=mean,
            finite=finite,
            infinite=self.infinite + other.infinite,
            outside=self.outside + other.outside,
            below=self.below + other.below,
            above=self.above + other.above,
        )


@dataclass(frozen=True)
class Tallies:
    """A window. rows: of it; columns: by the names of inputs, those of the reference that the window has; names: of
    every input that it has; scores, predicted: as far as the reference has them.

    patterns: which inputs went missing together: rows by the set of their names, two or more, most rows first. Sets
        that fewer than one row in 1,000 of a batch lacks are not counted in it.
    repeated: rows that are the same as one before, in their instant and in every input that the reference has (values
        of categories beyond those that it keeps count as one); None when the rows carry no instant.
    ids_again: rows whose prediction_id is another's too, where only somebody else can tell.
    """

    rows: int
    columns: Mapping[str, Tally]
    names: tuple[str, ...] = ()
    scores: Tally | None = None
    predicted: Tally | None = None
    patterns: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    repeated: int | None = None
    ids_again: int | None = None

    @property
    def together(self) -> dict[tuple[str, ...], int]:
        """`patterns` of the columns that have any value at all, most rows first."""
        found: dict[tuple[str, ...], int] = {}
        for names, rows in self.patterns.items():
            kept = tuple(name for name in names if self.columns[name].present)
            if len(kept) > 1:
                found[kept] = found.get(kept, 0) + rows
        return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def tally(values: pa.ChunkedArray, reference: Column) -> Tally:
    """One column counted. Nothing is made for each string, so that a long window costs little memory."""
    return _tally(values, reference).tally


class Batch(Protocol):
    """Some rows of a window, of which one column after the other is asked for: a table, or a part of a file."""

    @property
    def num_rows(self) -> int: ...

    @property
    def column_names(self) -> list[str]: ...

    def __getitem__(self, name: str, /) -> pa.ChunkedArray: ...


def tallies(rows: pa.Table, reference: Reference) -> Tallies:
    """A table with `feature_NAME` columns and `score`, and `predicted_class` where there are several classes."""
    return add_up((rows.slice(first, STEP) for first in range(0, max(1, rows.num_rows), STEP)), reference)


def add_up(batches: Iterable[Batch], reference: Reference) -> Tallies:
    """The tallies of all batches together, in the memory of one column of one of them. At least one is expected."""
    columns: dict[str, Tally] = {}
    names: dict[str, None] = {}
    answers: dict[str, Tally] = {}
    together, again = _Together(), _Again()
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        together.begin(batch.num_rows)
        again.begin(batch)
        for name in batch.column_names:
            if not name.startswith(FEATURE):
                continue
            name = name.removeprefix(FEATURE)
            names[name] = None
            if name in reference.columns:
                for first, looked in _in_steps(batch[FEATURE + name], reference.columns[name]):
                    columns[name] = columns[name] + looked.tally if name in columns else looked.tally
                    together.see(name, first, looked.absent)
                    again.see(name, first, looked.values)
        together.close()
        for name, known in (("predicted_class", reference.predicted), ("score", reference.scores)):
            if known is not None and name in batch.column_names:
                for _, looked in _in_steps(batch[name], known):
                    answers[name] = answers[name] + looked.tally if name in answers else looked.tally
    ordered = {name: columns[name] for name in reference.columns if name in columns}
    scores, predicted = answers.get("score"), answers.get("predicted_class")
    return Tallies(rows, ordered, tuple(names), scores, predicted, together.found(), again.count())


def _in_steps(values: pa.ChunkedArray, reference: Column) -> Iterator[tuple[int, _Looked]]:
    """A column counted, so many rows at a time, which stay in the cache; each part with its first row."""
    for first in range(0, max(1, len(values)), STEP):
        yield first, _tally(values.slice(first, STEP), reference)


@dataclass(frozen=True)
class _Looked:
    """absent: which rows have no value; None when all have one. values: what tells rows apart; None without any."""

    tally: Tally
    absent: NDArray[np.bool_] | None = None
    values: NDArray[np.float64] | NDArray[np.int32] | None = None


def _tally(values: pa.ChunkedArray, reference: Column) -> _Looked:
    total = len(values)
    encoded = _encoded(values)
    if encoded is not None and isinstance(reference, Categories):
        places = np.concatenate([_places(chunk, reference.values) for chunk in encoded.chunks])
        unknown: NDArray[np.bool_] = places < 0
        missing = int(np.count_nonzero(unknown))
        if missing == total:
            return _Looked(Tally(total, missing), unknown)
        counts = value_counts(places, reference.values)
        return _Looked(Tally(total, missing, True, counts), unknown if missing else None, places)
    values = plain(values)
    if is_text(values):
        missing = values.null_count
        absent = values.is_null().to_numpy() if missing else None
        if missing == total:
            return _Looked(Tally(total, missing), absent)
        if isinstance(reference, Numbers):
            return _Looked(Tally(total, missing, True), absent)
        places = codes(values, reference.values)
        return _Looked(Tally(total, missing, True, value_counts(places, reference.values)), absent, places)
    numbers = floats(values)
    ordered = np.sort(numbers)  # NaN last
    present = ordered[: int(np.searchsorted(ordered, np.nan))]
    absent = None if present.size == total else np.isnan(numbers)
    if not present.size:
        return _Looked(Tally(total, total), absent)
    if not isinstance(reference, Numbers):
        return _Looked(Tally(total, total - present.size, False), absent, numbers)
    return _Looked(_numbers(present, total, reference), absent, numbers)


def _encoded(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """The column, when it is a dictionary of strings and has rows."""
    import pyarrow as pa

    of_words = pa.types.is_dictionary(values.type) and (
        pa.types.is_string(values.type.value_type) or pa.types.is_large_string(values.type.value_type)
    )
    return values if of_words and len(values) else None


def _places(chunk: pa.DictionaryArray, known: Mapping[str, int]) -> NDArray[np.int32]:
    """`reference.codes` of a chunk, looked up once for each value of its dictionary."""
    import pyarrow as pa

    words = chunk.dictionary
    of_word = np.append(codes(pa.chunked_array([words]), known), np.int32(-1))
    indices = chunk.indices
    if indices.null_count:
        indices = indices.cast(pa.int64()).fill_null(len(words))
    found: NDArray[np.int32] = of_word[indices.to_numpy()]
    return found


def _numbers(present: NDArray[np.float64], total: int, reference: Numbers) -> Tally:
    """present: (n,) ascending, n >= 1."""
    low, high, infinite, finite = float(present[0]), float(present[-1]), 0, present.size
    if max(-low, high) < PLAIN:
        mean: float | None = float(present.mean())
    else:
        mean, _ = moments(present)
        infinite = int(np.isinf(present).sum())
        finite -= infinite
        present = np.clip(present, -LARGEST, LARGEST)
    counts = sorted_bin_counts(present, reference.cuts)
    under = present[: int(np.searchsorted(present, reference.low)) if low < reference.low else 0]
    over = present[int(np.searchsorted(present, reference.high, side="right")) :]
    with np.errstate(over="ignore"):
        below = float((reference.low - under[under > -PLAIN]).sum())
        above = float((over[over < PLAIN] - reference.high).sum())
    return Tally(
        total,
        total - present.size,
        False,
        counts,
        low,
        high,
        mean,
        finite,
        infinite,
        under.size + over.size,
        below,
        above,
    )


class _Together:
    """Counts which columns are missing in the same rows: a random key for each column, added up by row."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(KEYS_SEED)
        self._keys: dict[str, int] = {}
        self._rows: dict[int, int] = {}
        self._names: dict[int, tuple[str, ...]] = {}
        self.begin(0)

    def begin(self, rows: int) -> None:
        self._sums, self._several = np.zeros(rows, np.uint64), np.zeros(rows, np.uint16)
        self._absent: dict[str, list[tuple[int, NDArray[np.uint8]]]] = {}

    def see(self, name: str, first: int, absent: NDArray[np.bool_] | None) -> None:
        """first: the row of the batch with which `absent` begins."""
        if name not in self._keys:
            self._keys[name] = int(self._random.integers(1, 2**63))
        if absent is not None:
            places = np.flatnonzero(absent) + first
            self._sums[places] += np.uint64(self._keys[name])
            self._several[places] += np.uint16(1)
            self._absent.setdefault(name, []).append((first, np.packbits(absent)))

    def close(self) -> None:
        """The batch is over."""
        places = np.flatnonzero(self._several > 1)
        if places.size:
            found, at, counts = np.unique(self._sums[places], return_index=True, return_counts=True)
            often = counts * RARE >= self._sums.size
            for key, place, count in zip(
                found[often].tolist(), places[at[often]].tolist(), counts[often].tolist(), strict=True
            ):
                self._rows[key] = self._rows.get(key, 0) + count
                if key not in self._names:
                    self._names[key] = tuple(name for name, parts in self._absent.items() if _has(parts, place))
        self.begin(0)

    def found(self) -> dict[tuple[str, ...], int]:
        order = sorted(self._rows, key=lambda key: (-self._rows[key], self._names[key]))
        return {self._names[key]: self._rows[key] for key in order}


def _has(parts: list[tuple[int, NDArray[np.uint8]]], place: int) -> bool:
    """Whether the bit of a row is set. parts: packed, each with its first row; ascending."""
    for first, bits in reversed(parts):
        if place >= first:
            byte, bit = divmod(place - first, 8)
            return byte < bits.size and bool(bits[byte] >> (7 - bit) & 1)
    return False


class _Again:
    """Counts rows that are the same as another: 64 bits of each, a random multiple of every value added up."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(KEYS_SEED)
        self._keys: dict[str, int] = {}
        self._sums: NDArray[np.uint64] | None = None
        self._rows: list[NDArray[np.uint64]] = []

    def begin(self, batch: Batch) -> None:
        import pyarrow as pa

        self._sums = None
        if "at" in batch.column_names:
            self._sums = np.zeros(batch.num_rows, np.uint64)
            self._rows.append(self._sums)
            self.see("", 0, batch["at"].cast(pa.int64()).fill_null(0).to_numpy())

    def see(self, name: str, first: int, values: NDArray[Any] | None) -> None:
        """first: the row of the batch with which `values` begin."""
        if name not in self._keys:
            self._keys[name] = int(self._random.integers(1, 2**63)) * 2 + 1
        if values is not None and self._sums is not None:
            bits = values.view(np.uint64) if values.itemsize == 8 else values.astype(np.uint64)
            self._sums[first : first + bits.size] += (bits ^ (bits >> np.uint64(32))) * np.uint64(self._keys[name])

    def count(self) -> int | None:
        if not self._rows:
            return None
        every = np.concatenate(self._rows)
        self._rows = []
        every.sort()
        return int(np.count_nonzero(every[1:] == every[:-1]))
