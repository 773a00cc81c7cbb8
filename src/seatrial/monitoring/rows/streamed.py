"""The inputs of a long log: read from Parquet when they are counted, one column of one row group at a time.

CSV, and a log that `PredictionLog` keeps, are copied to Parquet first, in batches too.

A report on a million rows of 50 inputs then takes the memory of one such piece for them, and of what it keeps of each
row: instant, score and label. All columns at once would each hold a page and a dictionary open.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
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
from seatrial.monitoring.rows.tally import Batch, Tallies, add_up
from seatrial.stats.profile import FORMAT

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

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
            if column.name:
                types.setdefault(column.name, set()).add(column.type)
    kinds = {name: found.pop() if len(found) == 1 else pa.string() for name, found in types.items()}
    at_us = rows["at"].cast(pa.int64()).to_numpy()  # in the order of their places
    return rows, StreamedInputs(tuple(files), kinds, at_us, copy=copy)


@dataclass(frozen=True)
class StreamedInputs:
    """Implements `sample.Inputs`.

    files: Parquet, in order. kinds: of each input, by its name. at_us: of every row of all files, in their order; a
    place in them is what the column `place` of the sample's rows holds. window: of the rows that count. copy: the
    folder of the files, when they are only there for this.
    """

    files: tuple[Path, ...]
    kinds: Mapping[str, pa.DataType]
    at_us: NDArray[np.int64] = field(repr=False)
    window: Window = EVER
    copy: Copy | None = field(default=None, repr=False)
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
        found = replace(add_up(self._batches(known), reference), names=tuple(self.kinds))
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

        chunks = [chunk for batch in self._batches([name]) for chunk in plain(batch[FEATURE + name]).chunks]
        return pa.chunked_array(chunks, self.kinds[name])

    def taken(self, names: Sequence[str], places: NDArray[np.int64]) -> pa.Table:
        """`feature_NAME` of the rows at these places of the files, in this order."""
        import pyarrow as pa

        order = np.argsort(places, kind="stable")
        wanted, parts = places[order], []
        for group in self._groups(names):
            first, after = np.searchsorted(wanted, [group.first, group.first + group.rows])
            if first < after:
                chosen = wanted[first:after] - group.first
                parts.append(pa.table({FEATURE + name: plain(group.read(name)).take(chosen) for name in names}))
        if not parts or not names:
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

    def _batches(self, names: Sequence[str]) -> Iterator[Batch]:
        """The rows of the window, with `feature_NAME` and `at`; at least one batch, which may be empty."""
        import pyarrow as pa

        empty = {FEATURE + name: pa.array([], self.kinds[name]) for name in names}
        yield pa.table(empty | {"at": _instants(np.empty(0, np.int64))})
        if not names:
            yield pa.table({"at": _instants(self.at_us[self._inside(0, self.at_us.size)])})
            return
        for group in self._groups(names):
            inside = self._inside(group.first, group.first + group.rows)
            if inside.any():
                yield _Inside(group, inside, _instants(self.at_us[group.first : group.first + group.rows][inside]))

    def _groups(self, names: Sequence[str]) -> Iterator[_Group]:
        """The row groups of all files. A group is read while it is the one at hand."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        first = 0
        words = [name for name in names if pa.types.is_string(self.kinds[name])]
        for path in self.files:
            with pq.ParquetFile(path, pre_buffer=False, buffer_size=PAGE_BYTES, read_dictionary=words) as file:
                have = [name for name in names if name in file.schema_arrow.names]
                for number in range(file.num_row_groups):
                    rows = file.metadata.row_group(number).num_rows
                    if rows:
                        yield _Group(file, number, first, rows, {name: self.kinds[name] for name in names}, have)
                    first += rows

    def _inside(self, first: int, after: int) -> NDArray[np.bool_]:
        at_us = self.at_us[first:after]
        inside: NDArray[np.bool_] = (at_us >= self.window.start_us) & (at_us < self.window.end_us)
        return inside


@dataclass(frozen=True)
class _Group:
    """A row group of a file. first: the place of its first row; kinds: of the columns; have: those that it has."""

    file: pq.ParquetFile
    number: int
    first: int
    rows: int
    kinds: Mapping[str, pa.DataType]
    have: Sequence[str]

    def read(self, name: str) -> pa.ChunkedArray:
        """One column, as its kind or as a dictionary of that."""
        import pyarrow as pa

        kind = self.kinds[name]
        if name not in self.have:
            return pa.chunked_array([pa.nulls(self.rows, kind)])
        values = self.file.read_row_group(self.number, columns=[name], use_threads=False)[name]
        same = values.type == kind or (pa.types.is_dictionary(values.type) and values.type.value_type == kind)
        return values if same else values.cast(kind, safe=False)


@dataclass(frozen=True)
class _Inside:
    """The rows of a row group that lie in the window. Implements `tally.Batch`."""

    group: _Group
    inside: NDArray[np.bool_]
    at: pa.Array

    @property
    def num_rows(self) -> int:
        return len(self.at)

    @property
    def column_names(self) -> list[str]:
        return [*(FEATURE + name for name in self.group.kinds), "at"]

    def __getitem__(self, name: str, /) -> pa.ChunkedArray:
        import pyarrow as pa

        if name == "at":
            return pa.chunked_array([self.at])
        values = self.group.read(name.removeprefix(FEATURE))
        return values if self.inside.all() else values.filter(pa.array(self.inside))


def _instants(us: NDArray[np.int64]) -> pa.Array:
    import pyarrow as pa

    return pa.array(us, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
