"""The inputs of a long log: read from Parquet in batches when they are counted, and never all at once.

CSV, and a log that `PredictionLog` keeps, are copied to Parquet first, in batches too.

A report on a million rows of 50 inputs then takes the memory of one batch for them, and of what it keeps of each row:
instant, score and label.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import Unavailable
from seatrial.core.windows import Window
from seatrial.monitoring.rows.reference import Reference, floats, is_text, plain, profile_of
from seatrial.monitoring.rows.sample import FEATURE, Sample
from seatrial.monitoring.rows.tally import Tallies, add_up, batch_rows
from seatrial.stats.profile import FORMAT

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.stores.prediction_log import PredictionLog

LONG = 4_000_000
"""Values, which is rows times inputs, beyond which a log is streamed: 200,000 rows of 20 inputs."""
FEW = 2_000_000
"""Values that are read at once where rows are needed and not counts."""
PAGE_BYTES = 1 << 16
EVER = Window(-(2**61), 2**61)


class CopyUnwritable(Unavailable):
    """A long log is copied as Parquet while it is reported on, and the copy could not be written."""

    code = "monitor.copy_unwritable"


class Copy:
    """A folder for the copy of a long log, readable by nobody else, and gone with this object."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="seatrial-log-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@contextmanager
def copying(what: str) -> Iterator[Copy]:
    """A new folder. Raises CopyUnwritable."""
    try:
        yield Copy()
    except OSError as error:
        raise CopyUnwritable(
            f"{what} is long, and its copy in {tempfile.gettempdir()} cannot be written: {error.strerror}.",
            expected="Room for about as many bytes as the log has is expected there while the report is made.",
            state="Nothing was reported.",
            next="Make room, or name another folder in TMPDIR.",
        ) from None


def of_log(log: PredictionLog, *, model: str, window: Window | None = None) -> tuple[pa.Table, StreamedInputs] | None:
    """The rows of a long prediction log without their inputs, and these; None when the log is not long."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if log.values(model=model, window=window) <= LONG:
        return None
    with copying("the prediction log") as copy:
        rows, files = log.apart(copy.path, model=model, window=window)
    types: dict[str, set[pa.DataType]] = {}
    for file in files:
        for column in pq.read_schema(file):
            if column.name.startswith(FEATURE):
                types.setdefault(column.name.removeprefix(FEATURE), set()).add(column.type)
    kinds = {name: found.pop() if len(found) == 1 else pa.string() for name, found in types.items()}
    at_us = rows["at"].cast(pa.int64()).to_numpy()  # in the order of their places
    return rows, StreamedInputs(tuple(files), kinds, at_us, copy=copy, prefix=FEATURE)


@dataclass(frozen=True)
class StreamedInputs:
    """Implements `sample.Inputs`.

    files: Parquet, in order. kinds: of each input, by its name. at_us: of every row of all files, in their order; a
    place in them is what the column `place` of the sample's rows holds. window: of the rows that count. copy: the
    folder of the files, when they are only there for this. prefix: what their columns have before the inputs' names.
    """

    files: tuple[Path, ...]
    kinds: Mapping[str, pa.DataType]
    at_us: NDArray[np.int64] = field(repr=False)
    window: Window = EVER
    copy: Copy | None = field(default=None, repr=False)
    prefix: str = ""
    _kept: list[tuple[Reference, Tallies]] = field(default_factory=list, repr=False)

    @property
    def names(self) -> Sequence[str]:
        return list(self.kinds)

    def only(self, names: Sequence[str]) -> StreamedInputs:
        """Some of the inputs."""
        return replace(self, kinds={name: kind for name, kind in self.kinds.items() if name in names}, _kept=[])

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

    def taken(self, names: Sequence[str], places: NDArray[np.int64]) -> pa.Table:
        """`feature_NAME` of the rows at these places of the files, in this order."""
        import pyarrow as pa

        order = np.argsort(places, kind="stable")
        wanted, parts = places[order], []

        def inside(first: int, after: int) -> NDArray[np.int64]:
            return wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, after)]

        for batch, have, first in self._read(names, lambda first, after: bool(inside(first, after).size)):
            chosen = inside(first, first + batch.num_rows) - first
            if chosen.size:
                table = pa.table(self._features(batch, have, names)).take(chosen)
                parts.append(pa.table({name: plain(table[name]) for name in table.column_names}))
        if not parts:
            return pa.table({FEATURE + name: pa.array([], self.kinds[name]) for name in names})
        back = np.empty(order.size, np.int64)
        back[order] = np.arange(order.size)
        return pa.concat_tables(parts).take(back)

    def with_input(self, rows: pa.Table, name: str) -> pa.Table:
        return rows.append_column(FEATURE + name, self.taken([name], rows["place"].to_numpy())[FEATURE + name])

    def missing(self, name: str) -> float:
        column = self.column(name)
        return float(np.isnan(floats(column)).mean() if not is_text(column) else column.null_count / len(column))

    def few(self, sample: Sample) -> Sample:
        rows, names = sample.rows, self.names
        step = max(1, -(-rows.num_rows * len(names) // FEW))
        rows = rows.take(np.arange(0, rows.num_rows, step))
        features = self.taken(names, rows["place"].to_numpy())
        for name in features.column_names:
            rows = rows.append_column(name, features[name])
        return replace(sample, rows=rows, inputs=None)

    def batches(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of the window, with `feature_NAME` and `at`; at least one batch, which may be empty."""
        import pyarrow as pa

        instant = pa.timestamp("us", tz="UTC")
        empty = {FEATURE + name: pa.array([], self.kinds[name]) for name in names}
        yield pa.table(empty | {"at": pa.array([], instant)})
        if not names:
            yield pa.table({"at": pa.array(self.at_us[self._inside(0, self.at_us.size)], pa.int64()).cast(instant)})
            return
        for batch, have, first in self._read(names, lambda first, after: bool(self._inside(first, after).any())):
            inside = self._inside(first, first + batch.num_rows)
            at = pa.array(self.at_us[first : first + batch.num_rows], pa.int64()).cast(instant)
            table = pa.table(self._features(batch, have, names) | {"at": at})
            yield table if inside.all() else table.filter(pa.array(inside))

    def _read(
        self, names: Sequence[str], wanted: Callable[[int, int], bool]
    ) -> Iterator[tuple[pa.RecordBatch, list[str], int]]:
        """Batches of the row groups that are wanted, the names that they have, and the place of their first row."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        first = 0
        words = [self.prefix + name for name in names if pa.types.is_string(self.kinds[name])]
        for path in self.files:
            with pq.ParquetFile(path, pre_buffer=False, buffer_size=PAGE_BYTES, read_dictionary=words) as file:
                there = file.schema_arrow.names
                have = [name for name in names if self.prefix + name in there]
                for group in range(file.num_row_groups):
                    rows = file.metadata.row_group(group).num_rows
                    if not rows or not wanted(first, first + rows):
                        first += rows
                        continue
                    size = max(1, min(batch_rows(len(have)), rows))
                    read = [self.prefix + name for name in have] or there[
                        :1
                    ]  # rows of which no column is wanted are rows too
                    for batch in file.iter_batches(size, row_groups=[group], columns=read, use_threads=False):
                        yield batch, have, first
                        first += batch.num_rows

    def _inside(self, first: int, after: int) -> NDArray[np.bool_]:
        at_us = self.at_us[first:after]
        inside: NDArray[np.bool_] = (at_us >= self.window.start_us) & (at_us < self.window.end_us)
        return inside

    def _features(self, batch: pa.RecordBatch, have: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
        import pyarrow as pa

        columns: dict[str, Any] = {}
        for name in names:
            kind = self.kinds[name]
            values = batch.column(have.index(name)) if name in have else pa.nulls(batch.num_rows, kind)
            same = values.type == kind or (pa.types.is_dictionary(values.type) and values.type.value_type == kind)
            columns[FEATURE + name] = values if same else values.cast(kind, safe=False)
        return columns
