"""Statistics: how are a feature's values spread over a stretch of time?

A view's values are those at its own events: each row of its source that happened in the stretch asks the view about its
entity, at the instant from which the row was known. So a windowed feature is described as a model meets it, and a
last-value feature by the rows themselves. The mathematics is here for every door: numbers have moments, quartiles and a
histogram, texts their most frequent values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import UsageError
from seatrial.core.identity import canonical_json, content_id
from seatrial.core.windows import Window, duration_text
from seatrial.features.join import as_of
from seatrial.features.times import is_time, time_columns, time_text, with_times

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.features.definitions import FeatureView

BINS = 20
FAR = 2  # times the middle 98 % of the values; beyond it, extremes get bins of their own
MOST_VALUES = 10
MOST_BUCKETS = 1_000
INSTANT = "__at"


class NoRowsInRange(UsageError):
    """No event of the view happened in the stretch that statistics are asked of."""

    code = "features.no_rows_in_range"


class Spread(msgspec.Struct, frozen=True):
    """The values of one feature in one stretch.

    count: rows, with or without a value. null_rate: share without; None without rows. distinct_count: different values.
    mean, std (the sample's), min, p25, p50, p75 (interpolated), max: of numbers; None where there are none. Of times
    there are min and max, the first and the last, as ISO 8601 text.
    edges, counts: up to 20 bins from min to max, see `histogram`; the last one is closed on both sides.
    most: the most frequent texts and how often each came, the most frequent first.
    """

    start: str
    end: str
    count: int
    null_rate: float | None
    distinct_count: int
    mean: float | None = None
    std: float | None = None
    min: float | str | None = None
    p25: float | None = None
    p50: float | None = None
    p75: float | None = None
    max: float | str | None = None
    edges: list[float] = []
    counts: list[int] = []
    most: list[tuple[str, int]] = []


class FeatureSpread(msgspec.Struct, frozen=True):
    """One feature. kind: "number", "text" or "time". definition: as it was written. buckets: the pieces of time."""

    feature: str
    kind: str
    definition: str
    whole: Spread
    buckets: list[Spread] = []


class Statistics(msgspec.Struct, frozen=True):
    """A view's features over a stretch of time. id: of the content, so the same values have the same id.

    digest: of the view as it was declared. by: the length of a bucket; empty without any. rows: of the source.
    """

    id: str
    view: str
    digest: str
    start: str
    end: str
    by: str
    rows: int
    features: list[FeatureSpread]


def view_statistics(
    view: FeatureView, events: pa.Table, window: Window, *, by_us: int | None = None, threads: int = 1
) -> Statistics:
    """The statistics of every feature of a view over the events with start <= event time < end.

    events: the rows of the view's source. by_us: also for each piece of this length, counted from the start.
    Raises NoRowsInRange, and UsageError for more than 1,000 pieces.
    """
    values, event_us = values_at_events(view, events, window, threads=threads)
    if not len(event_us):
        raise NoRowsInRange(
            f"no row of source '{view.source.name}' of view '{view.name}' happened in {window}.",
            expected="Statistics need at least one.",
            state="Nothing was kept.",
            next="Give --start and --end that hold rows.",
        )
    buckets = _buckets(window, by_us)
    features = []
    for name, aggregation in view.features.items():
        column = values[f"{view.name}__{name}"]
        kind = "text" if is_text(column) else "time" if is_time(column.type) else "number"
        pieces = [
            spread(column.filter((event_us >= piece.start_us) & (event_us < piece.end_us)), piece) for piece in buckets
        ]
        whole = spread(column, window)
        features.append(FeatureSpread(name, kind, aggregation.describe(), whole, pieces))
    found = Statistics(
        "",
        view.name,
        view.digest,
        iso(window.start),
        iso(from_us(window.end_us)),
        duration_text(by_us) if by_us else "",
        len(event_us),
        features,
    )
    plain = msgspec.to_builtins(found)
    return msgspec.structs.replace(found, id=content_id("stat", canonical_json(plain)))


def values_at_events(
    view: FeatureView, events: pa.Table, window: Window, *, threads: int = 1
) -> tuple[pa.Table, NDArray[np.int64]]:
    """The view's features at each event of the window, and the events' times in microseconds.

    A row that is never known asks nothing.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    instant = pa.timestamp("us", tz="UTC")
    source = view.source
    assert source.event_timestamp is not None  # a view's source has one
    happened = events[source.event_timestamp].cast(instant)
    start, end = (pa.scalar(us, pa.int64()).cast(instant) for us in (window.start_us, window.end_us))
    inside = pc.and_(pc.greater_equal(happened, start), pc.less(happened, end))
    known = events[source.known_at].cast(instant) if source.known_at else happened
    inside = pc.fill_null(pc.and_(inside, pc.is_valid(known)), False)
    asking = events.filter(inside)
    later = pc.greater(known, happened)
    at = pc.if_else(later, known, happened).filter(inside)
    keys = list(dict.fromkeys(view.entity.keys))
    rows = pa.table({INSTANT: at, **{key: asking[key] for key in keys}})
    joined = as_of(rows, {view.name: view}, {view.name: events}, at=INSTANT, threads=threads)
    joined = with_times(joined, time_columns({view.name: view}, {view.name: events.schema}))
    return joined.select(list(view.columns)), happened.filter(inside).cast(pa.int64()).to_numpy()


def spread(column: pa.ChunkedArray, window: Window) -> Spread:
    """The statistics of one column of values, of numbers, texts or times."""
    facts: Mapping[str, Any]
    if is_text(column):
        facts = text_spread(column.to_pylist())
    else:
        facts = time_spread(column) if is_time(column.type) else number_spread(_floats(column))
    return Spread(iso(window.start), iso(from_us(window.end_us)), **facts)


def number_spread(values: NDArray[np.float64]) -> dict[str, Any]:
    """count, null_rate, distinct_count, moments, quartiles and histogram. values: (n,), NaN where missing.

    Without any value all but count, null_rate and distinct_count are None or empty; without any row null_rate is None
    as well. The histogram is of the finite values.

    >>> found = number_spread(np.array([1.0, 2.0, 2.0, 5.0, np.nan]))
    >>> found["count"], found["null_rate"], found["distinct_count"], found["mean"], found["p50"]
    (5, 0.2, 3, 2.5, 2.0)
    """
    present = values[~np.isnan(values)]
    found: dict[str, Any] = {
        "count": int(values.size),
        "null_rate": (values.size - present.size) / values.size if values.size else None,
        "distinct_count": int(np.unique(present).size),
    }
    if not present.size:
        return found
    with np.errstate(over="ignore", invalid="ignore"):
        found |= {"mean": float(present.mean()), "min": float(present.min()), "max": float(present.max())}
        found["std"] = float(present.std(ddof=1)) if present.size > 1 else None
        found |= {f"p{q}": float(np.percentile(present, q)) for q in (25, 50, 75)}
    edges, counts = histogram(present)
    return found | {"edges": edges, "counts": counts}


@np.errstate(over="ignore", invalid="ignore")
def histogram(values: NDArray[np.float64]) -> tuple[list[float], list[int]]:
    """Edges and counts of 20 bins over the finite values; one bin where they are all equal.

    Bins have equal widths. Where few values lie far out, the first and the last bin reach out to them, and the others
    share the middle 98 % of the values, so that one value cannot hide all others in one bin.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return [], []
    low, high = float(finite.min()), float(finite.max())
    edges = np.linspace(low, high, BINS + 1) if np.isfinite(high - low) else np.array([low, high])
    left, right = (float(np.percentile(finite, q)) for q in (1, 99))
    if left < right and np.isfinite(high - low) and high - low > FAR * (right - left):
        inner = np.linspace(left, right, BINS - 1)
        edges = np.concatenate([[low] if low < left else [], inner, [high] if right < high else []])
    if low == high or (np.diff(edges) <= 0).any():  # no 20 numbers lie between them
        return [low, high], [int(finite.size)]
    counts, _ = np.histogram(finite, edges)
    return edges.tolist(), counts.tolist()


def text_spread(values: Sequence[Any]) -> dict[str, Any]:
    """count, null_rate, distinct_count and the 10 most frequent values, equal ones in the order of their text."""
    present = [str(value) for value in values if value is not None]
    kinds, counts = np.unique(np.array(present, dtype=object).astype(str), return_counts=True)
    ranked = sorted(zip(kinds.tolist(), counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    return {
        "count": len(values),
        "null_rate": (len(values) - len(present)) / len(values) if values else None,
        "distinct_count": len(ranked),
        "most": ranked[:MOST_VALUES],
    }


def time_spread(column: pa.ChunkedArray) -> dict[str, Any]:
    """count, null_rate, distinct_count, and the first and last time as min and max. column: times."""
    import pyarrow as pa
    import pyarrow.compute as pc

    instants = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    ends = pc.min_max(instants).as_py()
    return {
        "count": len(column),
        "null_rate": column.null_count / len(column) if len(column) else None,
        "distinct_count": pc.count_distinct(instants).as_py(),
        "min": time_text(ends["min"]),
        "max": time_text(ends["max"]),
    }


def is_text(column: pa.ChunkedArray) -> bool:
    """Whether values are described as texts: all that are no numbers, booleans or times."""
    import pyarrow as pa

    types, kind = pa.types, column.type
    numbers = (types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_temporal)
    return not (types.is_null(kind) or any(matches(kind) for matches in numbers))


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Numbers, bools as 0 and 1; null as NaN."""
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _buckets(window: Window, by_us: int | None) -> list[Window]:
    if by_us is None:
        return []
    pieces = -(-(window.end_us - window.start_us) // by_us)
    if pieces > MOST_BUCKETS:
        raise UsageError(
            f"{window} has {pieces:,} pieces of {duration_text(by_us)}.",
            expected=f"At most {MOST_BUCKETS:,} are described.",
            state="Nothing was kept.",
        )
    edges = [*range(window.start_us, window.end_us, by_us), window.end_us]
    return [Window(start, end) for start, end in pairwise(edges)]
