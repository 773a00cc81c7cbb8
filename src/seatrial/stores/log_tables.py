"""Records of the prediction log as tables: which columns does a record have, and in which files do they lie?"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import reduce
from operator import and_
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from seatrial.core.clock import from_us
from seatrial.core.windows import Window
from seatrial.stores.log_batches import Part
from seatrial.stores.segments import LoggedPrediction, LogSchema, LogWarning, log_schema

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

SHADOW = "~shadow"
"""What the name of a deployment ends with in the rows that it scored beside its answers, for nobody to see."""
OF_CLASS = "probability_"
EVERY_CLASS = f"{OF_CLASS}*"
INPUT = "feature_"
UNSEEN = ("row", "caller", "model", "deployment", "recorded_at")
"""Columns that nobody looks at where only inputs are apart."""
BATCH_ROWS = 1 << 16
_NAN = struct.pack("<d", float("nan"))


def day_of(us: int) -> str:
    """The day of an instant, in UTC."""
    return from_us(us).date().isoformat()


class Choice(NamedTuple):
    """Which records are asked for; None is any. See `PredictionLog.rows`; wanted: a prediction's or a request's id."""

    model: str | None = None
    window: Window | None = None
    deployment: str | None = None
    release: str | None = None
    wanted: str | None = None
    columns: Sequence[str] | None = None

    def may_hold(self, schema: LogSchema) -> bool:
        """Whether records of this schema are asked for."""
        return (
            self.model in (None, schema.model)
            and self.release in (None, schema.release)
            and self._of_deployment(schema.deployment)
        )

    def takes(self, row: LoggedPrediction) -> bool:
        """Whether a record is asked for, as far as it can tell without its schema."""
        if self.window is not None and not self.window.start_us <= row.at_us < self.window.end_us:
            return False
        return self.wanted is None or self.wanted in (row.prediction_id, row.request_id)

    def may_be_in(self, part: Part) -> bool:
        """Whether a file can have records that are asked for."""
        if self.window is not None:
            first, last = day_of(self.window.start_us), day_of(self.window.end_us - 1)
            if not first <= part.day <= last:
                return False
        return self.model in (None, part.model)

    def _of_deployment(self, named: str) -> bool:
        """Without any, shadows count as what nobody was answered."""
        if self.deployment is not None:
            return named == self.deployment
        return self.wanted is not None or not named.endswith(SHADOW)

    def condition(self) -> pc.Expression | None:
        """What a file's records must satisfy."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found = []
        if self.window is not None:
            start, end = (pa.scalar(us, pa.timestamp("us", "UTC")) for us in (self.window.start_us, self.window.end_us))
            found += [pc.field("at") >= start, pc.field("at") < end]
        found += [
            pc.field(name) == value
            for name, value in (("deployment", self.deployment), ("release", self.release))
            if value is not None
        ]
        if self.deployment is None and self.wanted is None:
            found.append(~pc.ends_with(pc.field("deployment"), SHADOW))
        if self.wanted is not None:
            found.append((pc.field("prediction_id") == self.wanted) | (pc.field("request_id") == self.wanted))
        return reduce(and_, found) if found else None

    def needed(self, there: Sequence[str]) -> list[str] | None:
        """Those of a file's columns that must be read; None for all."""
        if self.columns is None:
            return None
        events = [f"{name.removesuffix('_age_s')}_event_at" for name in self.columns if name.endswith("_age_s")]
        wanted = {"prediction_id", "at", *self.columns, *events}
        every = EVERY_CLASS in wanted
        return [name for name in there if name in wanted or (every and name.startswith(OF_CLASS))]


def read_part(path: Path, part: Part, choice: Choice) -> pa.Table | None:
    """The records of a file that are asked for; None, with a warning, when it cannot be read.

    Raises FileNotFoundError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = choice.needed(pq.read_schema(path).names) if choice.columns is not None else None
        return pq.read_table(path, columns=names, filters=choice.condition(), partitioning=None)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError):  # what cannot be unpacked is an OSError too
        warn_unreadable(part)
        return None


def read_in_batches(path: Path, part: Part, choice: Choice) -> Iterator[pa.Table]:
    """The records of a file that are asked for, some at a time; a file that cannot be read ends with a warning.

    Raises FileNotFoundError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    condition = choice.condition()
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16) as file:
            for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
                table = pa.Table.from_batches([batch])
                yield table if condition is None else table.filter(condition)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError):
        warn_unreadable(part)


class Copied:
    """Records parted into what is no input, in memory, and the inputs, in files of a folder: one for each source."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for old in folder.glob("*.parquet"):
            old.unlink()
        self._rest: list[pa.Table] = []
        self._files: list[Path] = []
        self._rows = 0

    def take(self, tables: Iterable[pa.Table]) -> None:
        """All tables of one kind. Raises OSError."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._folder / f"{len(self._files):06d}.parquet"
        with ExitStack() as stack:
            writer: pq.ParquetWriter | None = None
            for table in tables:
                if not table.num_rows:
                    continue
                table = with_ages(table.replace_schema_metadata(None))
                inputs = table.select([name for name in table.column_names if name.startswith(INPUT)])
                rest = table.drop_columns([*inputs.column_names, *(one for one in UNSEEN if one in table.column_names)])
                inputs = inputs.rename_columns([name.removeprefix(INPUT) for name in inputs.column_names])
                places = pa.array(np.arange(self._rows, self._rows + table.num_rows))
                self._rest.append(rest.append_column("place", places))
                self._rows += table.num_rows
                if not inputs.num_columns:  # rows of which there is no input are rows too
                    inputs = pa.table({"": pa.nulls(table.num_rows)})
                if writer is None:
                    writer = stack.enter_context(pq.ParquetWriter(path, inputs.schema, compression="lz4"))
                    self._files.append(path)
                writer.write_table(inputs)

    def finish(self) -> tuple[pa.Table, list[Path]]:
        return concatenated(self._rest), self._files


def warn_unreadable(part: Part) -> None:
    """Tell that a file's records are left out."""
    warnings.warn(
        f"the log file {part.file} cannot be read and is left out, with every prediction of '{part.model}' on "
        f"{part.day} in it; bring it back from a backup.",
        LogWarning,
        stacklevel=6,
    )


def as_table(schema: LogSchema, rows: Sequence[LoggedPrediction]) -> pa.Table:
    """Records of one schema as the columns of `PredictionLog.rows`, without ages."""
    import pyarrow as pa

    instant = pa.timestamp("us", "UTC")
    types = {
        "float": pa.float64(),
        "int": pa.int64(),
        "bool": pa.bool_(),
        "string": pa.string(),
        "category": pa.string(),
        "timestamp": instant,
    }
    # Parquet names the values of a list "element"; what comes from a segment must be of the very same type
    strings = pa.list_(pa.field("element", pa.string()))
    n = len(rows)

    def constant(value: str) -> pa.Array:
        return pa.repeat(pa.scalar(value, pa.string()), n)

    columns = {
        "prediction_id": pa.array([row.prediction_id for row in rows], pa.string()),
        "request_id": pa.array([row.request_id for row in rows], pa.string()),
        "row": pa.array([row.row for row in rows], pa.int32()),
        "caller": pa.array([row.caller for row in rows], pa.string()),
        "model": constant(schema.model),
        "version": constant(schema.version),
        "release": constant(schema.release),
        "deployment": constant(schema.deployment),
        "arm": pa.array([row.arm for row in rows], pa.string()),
        "at": pa.array([row.at_us for row in rows], instant),
        "recorded_at": pa.array([row.recorded_at_us for row in rows], instant),
        "prediction": pa.array([None if schema.classes else float(row.prediction) for row in rows], pa.float64()),
        "probability": pa.array([row.probability for row in rows], pa.float64()),
        "latency_ms": pa.array([row.latency_ms for row in rows], pa.float64()),
        "degraded": pa.array([list(row.degraded) for row in rows], strings),
    }
    if schema.classes:
        columns |= _of_classes(schema, rows)
    for name, inputs in zip(schema.inputs, zip(*(row.inputs for row in rows), strict=True), strict=True):
        if name in schema.categories:
            columns[f"feature_{name}"] = pa.array([None if v is None else str(v) for v in inputs], pa.string())
        else:
            columns[f"feature_{name}"] = pa.array([None if v is None else float(v) for v in inputs], pa.float64())
    for named, values in zip(schema.fields, zip(*(row.fields for row in rows), strict=True), strict=True):
        columns[f"field_{named.name}"] = pa.array(list(values), types[named.dtype])
    for view, looked in zip(schema.views, zip(*(row.views for row in rows), strict=True), strict=True):
        columns[f"view_{view}_status"] = pa.array([status for status, _ in looked], pa.string())
        columns[f"view_{view}_event_at"] = pa.array([event_us for _, event_us in looked], instant)
    return pa.table(columns)


def _of_classes(schema: LogSchema, rows: Sequence[LoggedPrediction]) -> dict[str, pa.Array]:
    """What a multiclass model answered: the likeliest class, and the probability of each."""
    import numpy as np
    import pyarrow as pa

    names = [str(name) for name in schema.classes]
    length = 8 * len(names)  # of what is damaged nothing is told
    told = b"".join(row.probabilities if len(row.probabilities) == length else _NAN * len(names) for row in rows)
    table = np.frombuffer(told, dtype="<f8").reshape(len(rows), len(names))
    columns = {"predicted_class": pa.array([names[int(row.prediction)] for row in rows], pa.string())}
    return columns | {
        f"{OF_CLASS}{name}": pa.array(np.ascontiguousarray(of), from_pandas=True)
        for name, of in zip(names, table.T, strict=True)
    }


def with_ages(table: pa.Table) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    at = table["at"].cast(pa.int64())
    for name in table.column_names:
        if name.startswith("view_") and name.endswith("_event_at"):
            age_us = pc.subtract(at, table[name].cast(pa.int64()))  # beyond 2**53, 285 years, it is rounded
            age = pc.divide(age_us.cast(pa.float64(), safe=False), 1e6)
            table = table.append_column(f"{name.removesuffix('_event_at')}_age_s", age)
    return table


def concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa

    if not tables:
        return as_table(log_schema(model="", version="", release="", deployment="", inputs=()), [])
    kinds: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for column in table.schema:
            kinds.setdefault(column.name, set()).add(column.type)
    mixed = {name for name, types in kinds.items() if len(types) > 1}
    alike = []
    for table in tables:
        for name in mixed & set(table.column_names):
            position = table.column_names.index(name)
            table = table.set_column(position, name, table[name].cast(pa.string()))
        alike.append(table.replace_schema_metadata(None))
    table = pa.concat_tables(alike, promote_options="default")
    groups = ("feature_", "field_", "view_")
    rest = [[name for name in table.column_names if name.startswith(group)] for group in groups]
    base = [name for name in table.column_names if not name.startswith(groups)]
    return table.select([*base, *(name for names in rest for name in names)])
