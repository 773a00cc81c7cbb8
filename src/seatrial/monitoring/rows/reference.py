"""The reference: what the columns looked like in training, or in any rows that count as normal.

One numpy pass per column; what is kept is counts, a few kilobytes a column whatever the rows. It comes from the
profile of a release, or from a table: a past window, the rows that a model served elsewhere was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import Failed
from seatrial.core.personal import Treatment, pseudonym
from seatrial.monitoring.rows.sample import FEATURE
from seatrial.stats.profile import FORMAT, MOST_VALUES, counted_profile, numeric_profile, weekly_distances

if TYPE_CHECKING:
    import pyarrow as pa

TOLERATED = 0.05
"""The distance that counts as nothing when the reference's own weeks do not say more."""
SURE_OF_PLACE = 4.0
"""Standard errors by which a value must be more frequent than the least one that was kept, to stand alone."""


class ProfileTooNew(Failed):
    """The reference profile was written by a newer version."""

    code = "profile.too_new"


@dataclass(frozen=True)
class Numbers:
    """A column of numbers. cuts: the edges of the bins, ascending; counts: rows per bin, one more than cuts.

    The first and the last bin lie outside the reference's range and are empty in it: what comes to lie there has
    moved. rows: values that are there; missing: share of rows that are not. low, high: the range; NaN when all is
    missing.
    """

    cuts: NDArray[np.float64]
    counts: NDArray[np.int64]
    rows: int
    missing: float
    mean: float | None
    std: float | None
    low: float
    high: float
    tolerated: float = TOLERATED


@dataclass(frozen=True)
class Categories:
    """A column of strings. values: rows of each of the most frequent; other: rows of the rest.

    complete: every value that the reference has is among `values`.
    alone: (k,) which values are compared one by one. The others are pooled with the values that are not among `values`:
        which ones these are may be chance of these rows, and in other rows they would be fewer (of 1,000 values used
        alike the 200 that came first would seem to vanish). Where all values are kept all stand alone.
    """

    values: dict[str, int]
    other: int
    rows: int
    missing: float
    tolerated: float = TOLERATED

    @property
    def complete(self) -> bool:
        return self.other == 0

    @property
    def alone(self) -> NDArray[np.bool_]:
        counts = np.array([*self.values.values()], np.int64)
        if self.complete:
            return np.ones(counts.size, dtype=bool)
        sure: NDArray[np.bool_] = counts - counts.min(initial=self.rows) > SURE_OF_PLACE * np.sqrt(counts)
        return sure

    def compared(self, counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(c,) rows of the reference and (..., c) rows of `counts` by what is compared: the values that stand alone,
        then all others as one. counts: (..., k + 1), by value and of all others."""
        which = np.append(self.alone, False)
        whole = np.array([*self.values.values(), self.other], np.int64)
        rest = counts[..., ~which].sum(axis=-1, keepdims=True)
        return np.append(whole[which], whole[~which].sum()), np.concatenate([counts[..., which], rest], axis=-1)


Column = Numbers | Categories


@dataclass(frozen=True)
class Reference:
    """What to compare with. name: in words; rows_per_day: of the reference, when its times are known.
    predicted: of a multiclass model how often each class was predicted.

    together: by sets of columns (sorted) the share of rows that lack them all; None: nobody looked. usual: of past
    rows how old 95 of 100 stored features were, by the log's column, in seconds, and "label_delay_us", the median.
    """

    name: str
    rows: int
    columns: dict[str, Column]
    scores: Numbers | None = None
    rows_per_day: float | None = None
    predicted: Categories | None = None
    together: Mapping[tuple[str, ...], float] | None = None
    usual: Mapping[str, float] = field(default_factory=dict)

    def anonymous(self, personal: Mapping[str, Treatment], key: bytes | None) -> Reference:
        """As the log has it: without columns that are dropped, and of those that are hashed with pseudonyms for values;
        without them too when they are numbers, or when there is no key."""
        columns = dict(self.columns)
        for name, treatment in personal.items():
            column = columns.pop(name, None)
            if treatment == "hash" and key is not None and isinstance(column, Categories):
                values = {str(pseudonym(key, name, value)): count for value, count in column.values.items()}
                columns[name] = replace(column, values=values)
        return replace(self, columns=columns)

    def without(self, names: Sequence[str]) -> Reference:
        """The same without some columns."""
        return replace(self, columns={name: one for name, one in self.columns.items() if name not in names})

    @staticmethod
    def from_profile(profile: Mapping[str, Any], *, name: str = "the training rows") -> Reference:
        """Of a release's `profile.json` (see `training.profile`). Raises ProfileTooNew."""
        number = profile.get("format", 0)
        if number > FORMAT:
            raise ProfileTooNew(
                f"the reference profile has the format {number}; this version reads up to {FORMAT}.",
                state="Nothing was compared.",
                next="Update seatrial.",
            )
        scores = _column(profile["scores"]) if profile.get("scores", {}).get("count") else None
        predicted = _column(profile["predicted"]) if profile.get("predicted") else None
        return Reference(
            name,
            profile["rows"],
            {column: _column(plain) for column, plain in profile["inputs"].items()},
            scores if isinstance(scores, Numbers) else None,
            profile.get("rows_per_day"),
            predicted if isinstance(predicted, Categories) else None,
        )

    @staticmethod
    def from_table(table: pa.Table, columns: Sequence[str] | None = None, *, name: str = "the reference") -> Reference:
        """Of rows. columns: which (default: all `feature_NAME`); called as they are, or `feature_NAME`.

        With `at` (UTC) its weeks tell how far a normal week lies from the whole; with `score` the predictions are
        compared too.
        """
        import pyarrow as pa

        prefixed = [one for one in table.column_names if one.startswith(FEATURE)]
        chosen = list(columns) if columns is not None else [one.removeprefix(FEATURE) for one in prefixed]
        at_us = None
        if "at" in table.column_names:
            table = table.filter(table["at"].is_valid()) if table["at"].null_count else table
            at_us = table["at"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
        profiles = {}
        for column in chosen:
            values = table[f"{FEATURE}{column}" if f"{FEATURE}{column}" in prefixed else column]
            profiles[column] = profile_of(values, at_us)
        scores = numeric_profile(floats(table["score"])) if "score" in table.column_names else None
        plain: dict[str, Any] = {"format": FORMAT, "rows": table.num_rows, "inputs": profiles}
        plain["scores"] = scores or {}
        if at_us is not None and at_us.size:
            plain["rows_per_day"] = at_us.size / max((int(at_us.max()) - int(at_us.min())) / 86_400_000_000, 1.0)
        return Reference.from_profile(plain, name=name)


def profile_of(column: pa.ChunkedArray, at_us: NDArray[np.int64] | None) -> dict[str, Any]:
    """The plain profile of one column, with the distances of its weeks when times are known."""
    column = plain(column)
    values: NDArray[Any]
    if is_text(column):
        found = _text_profile(column)
        values = codes(column, found["values"]) if at_us is not None else np.empty(0)
    else:
        values = floats(column)
        found = numeric_profile(values)
    return found | {"weeks": weekly_distances(found, values, at_us)} if at_us is not None else found


def _text_profile(column: pa.ChunkedArray) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    counted = pc.value_counts(column.drop_null())
    table = pa.table({"value": counted.field("values"), "rows": counted.field("counts")})
    order = [("rows", "descending"), ("value", "ascending")]
    most = table.take(pc.select_k_unstable(table, min(MOST_VALUES, len(table)), order)) if len(table) else table
    values = dict(zip(most["value"].to_pylist(), most["rows"].to_pylist(), strict=True))
    return counted_profile(values, len(table), len(column) - column.null_count, len(column))


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without a dictionary."""
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def is_text(column: pa.ChunkedArray) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def codes(column: pa.ChunkedArray, known: Mapping[str, int]) -> NDArray[np.int32]:
    """`stats.profile.codes_of` for a column of strings, without an object for each."""
    import pyarrow as pa
    import pyarrow.compute as pc

    places = pc.index_in(column, value_set=pa.array(list(known), column.type))
    if places.null_count == column.null_count:  # nothing that is not known
        places = places.fill_null(-1)
    else:
        places = pc.if_else(column.is_valid(), places.fill_null(len(known)), pa.scalar(-1, pa.int32()))
    found: NDArray[np.int32] = places.to_numpy()
    return found


def values_of(column: pa.ChunkedArray) -> NDArray[Any]:
    """Values as monitoring compares them: float64 with NaN for missing, or objects (str or None)."""
    column = plain(column)
    if is_text(column):
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)
    return floats(column)


def floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """(n,) numbers, NaN for missing; an integer beyond 2**53 is rounded."""
    import pyarrow as pa

    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    values: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _column(plain: Mapping[str, Any]) -> Column:
    rows = plain["count"] - plain["missing"]
    missing = plain["missing"] / plain["count"] if plain["count"] else 0.0
    tolerated = max([TOLERATED, *plain.get("weeks", [])])
    if plain["type"] == "category":
        return Categories(dict(plain["values"]), plain["other"], rows, missing, tolerated)
    edges = np.asarray(plain["edges"], dtype=np.float64)
    if edges.size:
        edges = np.concatenate([edges[:1], edges[1:-1], [np.nextafter(plain["max"], np.inf)]])
    return Numbers(
        edges,
        np.array([0, *plain["counts"], 0] if edges.size else [0], dtype=np.int64),
        rows,
        missing,
        plain["mean"],
        plain["std"],
        float("nan") if plain["min"] is None else plain["min"],
        float("nan") if plain["max"] is None else plain["max"],
        tolerated,
    )
