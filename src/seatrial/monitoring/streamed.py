"""The inputs of a long log: read from Parquet in batches when they are counted, and never all at once.

A report on a million rows of 50 inputs then takes the memory of one batch for them, and of what it keeps of each row:
instant, score and label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.windows import Window
from seatrial.monitoring.reference import Reference, plain, profile_of
from seatrial.monitoring.sample import FEATURE
from seatrial.monitoring.tally import Tallies, add_up, batch_rows
from seatrial.stats.profile import FORMAT

if TYPE_CHECKING:
    import pyarrow as pa

LONG = 4_000_000
"""Values, which is rows times inputs, beyond which a log is streamed: 200,000 rows of 20 inputs."""
PAGE_BYTES = 1 << 16
EVER = Window(-(2**61), 2**61)


@dataclass(frozen=True)
class StreamedInputs:
    """Implements `sample.Inputs`.

    files: Parquet, in order. kinds: of each input, by its name. at_us, scores: of every row of all files, in their
    order. window: of the rows that count.
    """

    files: tuple[Path, ...]
    kinds: Mapping[str, pa.DataType]
    at_us: NDArray[np.int64] = field(repr=False)
    scores: NDArray[np.float64] = field(repr=False)
    window: Window = EVER
    _kept: list[tuple[Reference, Tallies]] = field(default_factory=list, repr=False)

    @property
    def names(self) -> Sequence[str]:
        return list(self.kinds)

    def within(self, window: Window) -> StreamedInputs:
        start_us, end_us = max(window.start_us, self.window.start_us), min(window.end_us, self.window.end_us)
        if (start_us, end_us) == (self.window.start_us, self.window.end_us):
            return self
        return replace(self, window=Window(start_us, max(start_us, end_us)), _kept=[])

    def counted(self, reference: Reference) -> Tallies:
        for one, found in self._kept:
            if one is reference:
                return found
        known = [name for name in self.kinds if name in reference.columns]
        found = replace(add_up(self.batches(known), reference), names=tuple(self.kinds))
        self._kept[:] = [(reference, found)]
        return found

    def reference(self, name: str) -> Reference:
        """What these rows are as a reference, one column after the other."""
        inside = self._inside(0, self.at_us.size)
        at_us = self.at_us[inside]
        profiles: dict[str, Any] = {one: profile_of(self.column(one), at_us) for one in self.kinds}
        plain = {"format": FORMAT, "rows": int(at_us.size), "inputs": profiles}
        return Reference.from_profile(plain, name=name)

    def column(self, name: str) -> pa.ChunkedArray:
        """All values of one input, in the order of the files."""
        import pyarrow as pa

        chunks = [chunk for batch in self.batches([name]) for chunk in plain(batch[FEATURE + name]).chunks]
        return pa.chunked_array(chunks, self.kinds[name])

    def drawn(self, names: Sequence[str], most: int) -> pa.Table:
        """At most so many rows, evenly spread over those of the window: inputs, `at` and `score`."""
        import pyarrow as pa

        rows = int(np.count_nonzero(self._inside(0, self.at_us.size)))
        step = max(1, -(-rows // most))
        parts, seen = [], 0
        for batch in self.batches(list(names), scores=True):
            places = np.arange(-seen % step, batch.num_rows, step)
            parts.append(batch.take(places))
            seen += batch.num_rows
        return pa.concat_tables([pa.table({name: plain(one[name]) for name in one.column_names}) for one in parts])

    def taken(self, places: NDArray[np.int64]) -> pa.Table:
        """The inputs of these rows, by their place among all rows of the files, in the order given."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        order = np.argsort(places, kind="stable")
        wanted = places[order]
        names = list(self.kinds)
        parts = [pa.table({FEATURE + name: pa.array([], kind) for name, kind in self.kinds.items()})]
        first = 0
        for path in self.files:
            with pq.ParquetFile(path, pre_buffer=False, buffer_size=PAGE_BYTES) as file:
                have = [name for name in names if name in file.schema_arrow.names]
                for group in range(file.num_row_groups):
                    rows = file.metadata.row_group(group).num_rows
                    start, end = np.searchsorted(wanted, [first, first + rows])
                    if start == end:
                        first += rows
                        continue
                    size = max(1, min(batch_rows(len(have)), rows))
                    for batch in file.iter_batches(size, row_groups=[group], columns=have, use_threads=False):
                        start, end = np.searchsorted(wanted, [first, first + batch.num_rows])
                        of_batch = batch.take(pa.array(wanted[start:end] - first))
                        chosen = pa.table(self._cast(of_batch, have, names))
                        parts.append(pa.table({name: plain(chosen[name]) for name in chosen.column_names}))
                        first += batch.num_rows
        back = np.empty(order.size, np.int64)
        back[order] = np.arange(order.size)
        return pa.concat_tables(parts).take(pa.array(back))

    def batches(self, names: Sequence[str], *, scores: bool = False) -> Iterator[pa.Table]:
        """The rows of the window, with `feature_NAME` and `at`; at least one batch, which may be empty."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        instant = pa.timestamp("us", tz="UTC")
        empty = {FEATURE + name: pa.array([], self.kinds[name]) for name in names}
        yield pa.table(
            empty | {"at": pa.array([], instant)} | ({"score": pa.array([], pa.float64())} if scores else {})
        )
        first = 0
        words = [name for name in names if pa.types.is_string(self.kinds[name])]
        for path in self.files:
            with pq.ParquetFile(path, pre_buffer=False, buffer_size=PAGE_BYTES, read_dictionary=words) as file:
                have = [name for name in names if name in file.schema_arrow.names]
                for group in range(file.num_row_groups):
                    rows = file.metadata.row_group(group).num_rows
                    if not self._inside(first, first + rows).any():
                        first += rows
                        continue
                    size = max(1, min(batch_rows(len(have)), rows))
                    for batch in file.iter_batches(size, row_groups=[group], columns=have, use_threads=False):
                        after = first + batch.num_rows
                        yield self._chosen(batch, have, names, first, after, scores=scores)
                        first = after

    def _inside(self, first: int, after: int) -> NDArray[np.bool_]:
        at_us = self.at_us[first:after]
        inside: NDArray[np.bool_] = (at_us >= self.window.start_us) & (at_us < self.window.end_us)
        return inside

    def _chosen(
        self, batch: pa.RecordBatch, have: Sequence[str], names: Sequence[str], first: int, after: int, *, scores: bool
    ) -> pa.Table:
        import pyarrow as pa

        columns = self._cast(batch, have, names)
        columns["at"] = pa.array(self.at_us[first:after], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
        if scores:
            columns["score"] = self.scores[first:after]
        table = pa.table(columns)
        inside = self._inside(first, after)
        return table if inside.all() else table.filter(pa.array(inside))

    def _cast(self, batch: pa.RecordBatch, have: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
        import pyarrow as pa

        columns: dict[str, Any] = {}
        for name in names:
            kind = self.kinds[name]
            values = batch.column(have.index(name)) if name in have else pa.nulls(batch.num_rows, kind)
            same = values.type == kind or (pa.types.is_dictionary(values.type) and values.type.value_type == kind)
            columns[FEATURE + name] = values if same else values.cast(kind, safe=False)
        return columns
