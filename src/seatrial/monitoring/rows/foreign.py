"""A foreign log: its predictions, labels and reference, read by a map of its columns, whole or in batches.

A Parquet or CSV file, a folder of Parquet files, or a folder that `PredictionLog(...).write(...)` made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seatrial.core.errors import Failed, SeatrialError, did_you_mean, listed
from seatrial.core.windows import DAY_US, Window
from seatrial.data.in_batches import take
from seatrial.data.reading import Times, csv_header, read
from seatrial.data.sources import CsvSource, FrameSource
from seatrial.monitoring.rows.baseline import Baseline, labelled
from seatrial.monitoring.rows.labels import FIELD, LabelCounts, parse, prediction_keys
from seatrial.monitoring.rows.mapping import BadMap, ColumnMap
from seatrial.monitoring.rows.reference import floats
from seatrial.monitoring.rows.sample import FEATURE, OF_CLASS, Sample, from_log, joined, places
from seatrial.monitoring.rows.streamed import EVER, LONG, Copy, StreamedInputs, copying, of_log
from seatrial.monitoring.rows.tally import tallies
from seatrial.stores.prediction_log import PredictionLog

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.monitoring.rows.reference import Categories, Reference

NEVER_US = -(2**62)
BYTES_OF_VALUE = 4
"""Of a CSV file that is long for sure: a digit or two, a point and a comma."""
COPY = "rows.parquet"
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
FARTHEST_US = 10_000 * 365 * DAY_US


class LogMissing(Failed):
    """A file to monitor is not there, or is no log."""

    code = "monitor.log_missing"


class LogColumnNotThere(Failed):
    """The map names a column that the file does not have."""

    code = "monitor.column_not_there"


class LogColumnWrong(Failed):
    """A column of a foreign log does not hold what the map says that it is."""

    code = "monitor.column_wrong"


@dataclass(frozen=True)
class Imported:
    """Predictions from elsewhere. left_out: columns that nobody looks at, and why."""

    sample: Sample
    left_out: tuple[str, ...] = ()


def read_log(
    log: Path, columns: ColumnMap, *, labels: Path | None = None, as_of_us: int, long: int | None = None
) -> Imported:
    """The predictions of a log until `as_of_us`, with the labels known by then.

    long: the inputs of a Parquet log with more values than that stay where they are, and are read in batches.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if _is_ours(log):
        return _ours(log, columns, labels, as_of_us)
    copied = as_parquet(log, columns, LONG if long is None else long)
    if copied is not None:
        return _of_copy(copied, log, columns, labels=labels, as_of_us=as_of_us)
    several = columns.task == "multiclass"
    for role in ("timestamp", "prediction" if several else "score"):
        said = columns.predicted or columns.probabilities if role == "prediction" else getattr(columns, role)
        if not said:
            raise BadMap(
                f"the map {columns.path} does not say `{role}`.",
                expected=f"The column of {log} that holds it is expected"
                + (", or [probabilities] with a column for each class." if role == "prediction" else "."),
                state="Nothing was read.",
                next="Correct the map.",
            )
    elsewhere = ("label", "label_known_at") if labels is not None else ()
    streamed = _is_long(log, columns, LONG if long is None else long)
    table, left_out = _read(log, columns, without=elsewhere, inputs=not streamed)
    until = pa.scalar(as_of_us, pa.timestamp("us", tz="UTC"))
    missing = table["at"].null_count
    if missing:
        raise LogColumnWrong(
            f"column '{columns.timestamp}' of {log} is empty in {missing:,} of {table.num_rows:,} rows.",
            expected="Every prediction needs its time.",
        )
    inputs = None
    if streamed:
        inputs, left_out = _streamed(log, columns, table)
        table = table.append_column("place", pa.array(np.arange(table.num_rows)))
        inputs = inputs.within(Window(EVER.start_us, as_of_us + 1))
    if not pc.all(pc.less_equal(table["at"], until)).as_py():
        table = table.filter(pc.less_equal(table["at"], until))
    sample = Sample(columns.model, columns.task, table, decided_only=columns.decided_only, inputs=inputs)
    if labels is not None:
        told = _told(labels, columns, as_of_us)
        sample = joined(sample, table, told, key=columns.key, as_of_us=as_of_us)
        return Imported(_without_fields(sample, columns.key), left_out)
    table, counts = _known(table, as_of_us)
    table = _in_order(table)
    return Imported(_without_fields(replace(sample, rows=table, labels=counts), columns.key), left_out)


def as_parquet(path: Path, columns: ColumnMap, values: int) -> Copy | None:
    """A copy of a long CSV file as `rows.parquet`; None when it is none. values: as of `_is_long`."""
    if not path.exists() or not _is_csv(path) or path.stat().st_size <= BYTES_OF_VALUE * values:
        return None
    with copying(str(path)) as copy:
        source = CsvSource(name=path.name, path=str(path.absolute()), timezone=columns.timezone)
        take(source, folder=Path(), path=copy.path / COPY)
    return copy


def _of_copy(copy: Copy, log: Path, columns: ColumnMap, *, labels: Path | None, as_of_us: int) -> Imported:
    """The log that was copied. What is said of the copy is said of the log."""
    path = copy.path / COPY
    try:
        found = read_log(path, columns, labels=labels, as_of_us=as_of_us, long=-1)
    except SeatrialError as error:
        for part in ("found", "expected", "next"):
            setattr(error, part, getattr(error, part).replace(str(path), str(log)))
        raise
    inputs = found.sample.inputs
    assert isinstance(inputs, StreamedInputs)
    left_out = tuple(words.replace(str(path), str(log)) for words in found.left_out)
    return Imported(replace(found.sample, inputs=replace(inputs, copy=copy)), left_out)


def read_reference(path: Path, columns: ColumnMap, sample: Sample, *, long: int | None = None) -> Reference:
    """Rows to compare with; their scores too, where they have them."""
    from seatrial.monitoring.rows.against import shares_together
    from seatrial.monitoring.rows.reference import Reference

    inputs = None
    if _is_ours(path):
        table = PredictionLog(path).rows(model=columns.model)
        rows = from_log(table, None, model=columns.model, task=columns.task, as_of_us=2**62).rows
    elif _is_long(path, columns, LONG if long is None else long):
        rows, _ = _read(path, columns, required=False, inputs=False)
        inputs, _ = _streamed(path, columns, rows)
    else:
        rows, _ = _read(path, columns, required=False)
    predicted = _shares(rows) if columns.task == "multiclass" else None
    if not (inputs.names if inputs else any(name.startswith(FEATURE) for name in rows.column_names)):
        raise LogColumnNotThere(
            f"the reference {path} has none of the inputs of '{columns.model}'.",
            expected=f"Some of {listed(sample.features)} are expected.",
            state="Nothing was compared.",
        )
    rows = rows.drop_columns([name for name in ("at", "score") if rows[name].null_count == rows.num_rows])
    if "at" in rows.column_names:
        rows = rows.filter(rows["at"].is_valid())
    reference = replace(Reference.from_table(rows, name=path.name), predicted=predicted)
    if inputs is not None:
        reference = replace(reference, columns=inputs.reference(path.name).columns)
    found = tallies(rows.drop_columns([name for name in ("at",) if name in rows.column_names]), reference)
    if inputs is not None:
        found = inputs.counted(reference)
    return replace(reference, together=shares_together(found))


def _is_long(path: Path, columns: ColumnMap, values: int) -> bool:
    """Whether the inputs of a file, or of a folder of files, are too many to be read at once."""
    import pyarrow as pa

    if _is_ours(path) or _is_csv(path) or not path.exists():
        return False
    try:
        return _count(path) * len(_inputs(columns, _header(path))) > values
    except (pa.ArrowException, OSError) as error:
        raise _no_parquet(path, error) from None


def _count(path: Path) -> int:
    import pyarrow.parquet as pq

    return sum(int(pq.read_metadata(file).num_rows) for file in _files(path))


def _streamed(path: Path, columns: ColumnMap, table: pa.Table) -> tuple[StreamedInputs, tuple[str, ...]]:
    """The inputs of a long log, and what is left out of them. table: its other columns, in the order of the files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = _files(path)
    try:
        schemas = [pq.read_schema(file).remove_metadata() for file in files]
        schema = pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowException, OSError) as error:
        raise _no_parquet(path, error) from None
    kinds, left_out = {}, []
    for name in _inputs(columns, schema.names):
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            kind = pa.string()
        if pa.types.is_string(kind):
            kinds[name] = kind
        elif pa.types.is_null(kind) or _is_number(kind):
            kinds[name] = pa.float64() if not pa.types.is_boolean(kind) else pa.bool_()
        else:
            left_out += _not_compared(path, columns, name, kind)
    never = 0 if table["at"].null_count == len(table) else NEVER_US  # rows without a time among others do not count
    at_us = table["at"].cast(pa.int64()).fill_null(never).to_numpy()
    return StreamedInputs(tuple(files), kinds, at_us), tuple(left_out)


def _inputs(columns: ColumnMap, have: Sequence[str]) -> list[str]:
    """The names of the inputs that are there, in the order of the map, or of the file."""
    if columns.features is not None:
        return [name for name in columns.features if name in have]
    taken = {*columns.named().values(), *columns.without}
    return [name for name in have if name not in taken]


def _not_compared(path: Path, columns: ColumnMap, name: str, kind: pa.DataType) -> list[str]:
    if columns.features is None:
        return [f"column '{name}' is {kind} and no input that can be compared; it was left out"]
    raise LogColumnWrong(
        f"column '{name}' of {path} is {kind}, and the map says that it is an input.",
        expected="Numbers or text are expected.",
        next="Take it out of `features`.",
    )


def _in_order(table: pa.Table) -> pa.Table:
    """By time, and where that is the same by id. A log that is in order already is not copied."""
    import pyarrow as pa

    at_us = table["at"].cast(pa.int64()).to_numpy()
    if bool((at_us[1:] > at_us[:-1]).all()):
        return table
    if table["prediction_id"].null_count == len(table):
        if bool((at_us[1:] >= at_us[:-1]).all()):
            return table
        return table.take(np.argsort(at_us, kind="stable"))
    return table.sort_by([("at", "ascending"), ("prediction_id", "ascending")])


def _shares(rows: pa.Table) -> Categories | None:
    """How often each class was predicted; None when the rows do not say."""
    import numpy as np

    from seatrial.monitoring.rows.reference import Reference
    from seatrial.stats.profile import category_profile

    column = rows["predicted_class"]
    if column.null_count == rows.num_rows:
        return None
    values = category_profile(np.array(column.to_pylist(), dtype=object))
    return Reference.from_profile({"rows": rows.num_rows, "inputs": {}, "predicted": values}).predicted


def read_labelled(path: Path, columns: ColumnMap) -> Baseline | None:
    """The rows of the reference that have a score and a label, to compare answers with; None when it has none."""
    import pyarrow as pa

    if _is_ours(path):
        return None
    have = _header(path)
    roles = {columns.label, columns.score or columns.predicted, *list(columns.probabilities.values())[:1]}
    if not columns.label or not {name for name in roles if name} <= set(have):
        return None
    long = _is_long(path, columns, LONG)
    rows, _ = _read(path, columns, required=False, inputs=not long)
    inputs = None
    if long:
        inputs, _ = _streamed(path, columns, rows)
        rows = rows.append_column("place", pa.array(np.arange(rows.num_rows)))
    timed = rows["at"].null_count == 0
    if not timed:
        at = pa.array(np.zeros(rows.num_rows, np.int64)).cast(rows["at"].type)
        rows = rows.set_column(rows.column_names.index("at"), "at", at)
    sample = Sample(columns.model, columns.task, rows.sort_by("at"), decided_only=columns.decided_only, inputs=inputs)
    found = labelled(sample.few())
    return Baseline(f"labelled rows of {path.name}", found, timed) if found.rows.num_rows else None


def _is_ours(log: Path) -> bool:
    return log.is_dir() and any((log / name).is_dir() for name in ("segments", "compacted", "shipped"))


def _ours(log: Path, columns: ColumnMap, labels: Path | None, as_of_us: int) -> Imported:
    import pyarrow as pa
    import pyarrow.compute as pc

    long = of_log(PredictionLog(log), model=columns.model)
    table, inputs = long or (PredictionLog(log).rows(model=columns.model), None)
    if not table.num_rows:
        models = sorted(set(PredictionLog(log).rows(columns=["model"])["model"].to_pylist()))
        if models:
            raise LogMissing(
                f"the log {log} has no prediction of the model '{columns.model}'.",
                expected=f"It has {listed(models)}. {did_you_mean(columns.model, models)}".strip(),
                next="Correct `model` in the map.",
            )
    table = table.filter(pc.less_equal(table["at"], pa.scalar(as_of_us, pa.timestamp("us", tz="UTC"))))
    if columns.task == "binary" and table.num_rows and table["probability"].null_count == table.num_rows:
        table = table.set_column(table.column_names.index("probability"), "probability", table["prediction"])
    wanted = columns.features
    have = [name.removeprefix(FEATURE) for name in table.column_names] if inputs is None else list(inputs.names)
    if wanted is not None:
        _require(log, have, dict(zip(wanted, wanted, strict=True)))
    if inputs is not None:
        inputs = inputs.only(_inputs(columns, have)).within(Window(EVER.start_us, as_of_us + 1))
    drop = [
        name
        for name in table.column_names
        if name.startswith(FEATURE)
        and (name[len(FEATURE) :] in columns.without or (wanted is not None and name[len(FEATURE) :] not in wanted))
    ]
    told = None if labels is None else _told(labels, columns, as_of_us)
    sample = from_log(
        table.drop_columns(drop), told, model=columns.model, task=columns.task, key=columns.key, as_of_us=as_of_us
    )
    return Imported(replace(sample, inputs=inputs))


def _read(
    path: Path,
    columns: ColumnMap,
    *,
    required: bool = True,
    without: Sequence[str] = (),
    inputs: bool = True,
) -> tuple[pa.Table, tuple[str, ...]]:
    """The rows in the columns of a Sample. required: whether every mapped column must be there.

    without: roles that this file does not have. inputs: whether to read them; without them the rows that have no id get
    none either.
    """
    import pyarrow as pa

    named = {role: name for role, name in columns.named().items() if role not in without}
    have = _header(path)
    if required:
        _require(path, have, named | {f"features {name}": name for name in columns.features or ()})
    wanted = _inputs(columns, have) if inputs else []
    there = {role: name for role, name in named.items() if name in have}
    keyed = [name for name in columns.key if name in have]
    twice = [name for name in [*there.values(), *wanted, *keyed] if list(have).count(name) > 1]
    if twice:
        raise LogColumnWrong(
            f"{path} has the column '{twice[0]}' twice.",
            expected="Every column that is looked at needs a name of its own.",
            state="Nothing was read.",
            next="Rename one where the log is made, or leave both out with `without`.",
        )
    raw = _rows(path, columns, [*dict.fromkeys([*there.values(), *wanted, *keyed])], there)
    count = raw.num_rows
    instant = pa.timestamp("us", tz="UTC")
    ids = pa.array([f"row-{n:012d}" for n in range(count)], pa.string()) if inputs else pa.nulls(count, pa.string())
    if "prediction_id" in there:
        import pyarrow.compute as pc

        ids = pc.coalesce(_text(raw[there["prediction_id"]]), ids)
    nothing = pa.nulls(count, pa.string())
    found: dict[str, pa.Array | pa.ChunkedArray] = {
        "prediction_id": ids,
        "request_id": _text(raw[there["request_id"]]) if "request_id" in there else nothing,
        "at": raw[there["timestamp"]] if "timestamp" in there else pa.nulls(count, instant),
        "release": nothing,
        "version": _text(raw[there["version"]]) if "version" in there else nothing,
        "latency_ms": _number(path, raw, there.get("latency_ms"), "a latency"),
        "degraded": pa.nulls(count, pa.bool_()),
        **_classified(path, raw, there, columns),
        "label_known_at": raw[there["label_known_at"]] if "label_known_at" in there else pa.nulls(count, instant),
    }
    if "label" in there and "label_known_at" not in there:
        found["label_known_at"] = found["at"]
    left_out = []
    for name in wanted:
        column = raw[name]
        kind = column.type
        if pa.types.is_string(kind):
            found[FEATURE + name] = column
        elif pa.types.is_null(kind):
            found[FEATURE + name] = pa.nulls(count, pa.float64())
        elif _is_number(kind):
            found[FEATURE + name] = pa.array(floats(column), from_pandas=True) if count else pa.nulls(0, pa.float64())
        else:
            left_out += _not_compared(path, columns, name, kind)
    found |= {FIELD + name: raw[name] for name in keyed}
    return pa.table(found), tuple(left_out)


def _header(path: Path) -> list[str]:
    """The names of the file's columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        beside = sorted(one.name for one in path.parent.iterdir()) if path.parent.is_dir() else []
        raise LogMissing(
            f"the file {path} is not there.", expected=did_you_mean(path.name, beside), state="Nothing was read."
        )
    if _is_csv(path):
        return csv_header(CsvSource(path=str(path)), path)[0]
    try:
        return list(pq.read_schema(_files(path)[0]).names)
    except (pa.ArrowException, OSError) as error:
        raise _no_parquet(path, error) from None


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(one for one in path.rglob("*.parquet") if not one.name.startswith((".", "_")))
    if not files:
        raise LogMissing(
            f"the folder {path} holds no log.",
            expected="A folder with Parquet files, or one that PredictionLog wrote, is expected; or a single file.",
        )
    return files


def _is_csv(path: Path) -> bool:
    return path.is_file() and path.name.removesuffix(".gz").endswith((".csv", ".tsv", ".txt"))


def _rows(path: Path, columns: ColumnMap, names: Sequence[str], there: dict[str, str]) -> pa.Table:
    """These columns of the file, times in UTC, text as `string`, NaN as null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = FrameSource(name=path.name, frame=None, timezone=columns.timezone)
    times = Times(source)
    timed = [there[role] for role in ("timestamp", "label_known_at") if role in there]
    if _is_csv(path):
        table = read(CsvSource(name=path.name, path=str(path), timezone=columns.timezone), folder=Path()).table
        table = table.select(names)
    else:
        try:
            tables = []
            for file in _files(path):  # a column that only some files have is missing in the others
                have = [name for name in names if name in pq.read_schema(file).names]
                tables.append(pq.read_table(file, columns=have, partitioning=None))
            table = pa.concat_tables(
                [one.replace_schema_metadata(None) for one in tables], promote_options="permissive"
            )
        except (pa.ArrowException, OSError) as error:
            raise _no_parquet(path, error) from None
    if not names:
        table = pa.table({"": pa.nulls(table.num_rows if _is_csv(path) else _count(path))})
    for place, name in enumerate(table.column_names):
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
            column = column.cast(pa.string())
        if name in timed:
            column = _instants(path, name, column, columns, times)
        table = table.set_column(place, name, column)
    table = times.read(table)
    times.warn()
    return table


def _instants(path: Path, name: str, column: pa.ChunkedArray, columns: ColumnMap, times: Times) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return column
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column), pa.timestamp("us", tz="UTC"))])
    if pa.types.is_string(kind):
        return times.parse(name, column, must=True)
    if columns.timestamp_unit and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        numbers = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        missing = np.isnan(numbers)
        far = np.abs(np.where(missing, 0.0, numbers)) * UNITS[columns.timestamp_unit] > FARTHEST_US
        if far.any():
            raise LogColumnWrong(
                f"column '{name}' of {path} holds {numbers[int(np.argmax(far))]:.6g}, which is no time in "
                f"'{columns.timestamp_unit}' since 1970.",
                expected="Seconds have 10 digits now, milliseconds 13, microseconds 16.",
                next="Correct `timestamp_unit` in the map.",
            )
        if pa.types.is_integer(kind):
            us = pc.multiply(column.cast(pa.int64()), UNITS[columns.timestamp_unit])
        else:
            floored = np.floor(np.where(missing, 0.0, numbers) * UNITS[columns.timestamp_unit])
            us = pa.chunked_array([pa.array(floored.astype(np.int64), mask=missing)])
        return us.cast(pa.timestamp("us", tz="UTC"))
    raise LogColumnWrong(
        f"column '{name}' of {path} is {kind}, and the map says that it is a time.",
        expected="A timestamp, a date or ISO 8601 text is expected; or numbers with `timestamp_unit` in the map.",
        next='For seconds since 1970 add timestamp_unit = "s" to the map.',
    )


def _require(path: Path, have: Sequence[str], named: dict[str, str]) -> None:
    """Every mapped column must be there; all that are not are told at once."""
    lacking = {role: name for role, name in named.items() if name not in have}
    if not lacking:
        return
    words = [f"'{name}' ({role.partition(' ')[0]})" for role, name in lacking.items()]
    hints = [f"'{name}': {hint}" for name in lacking.values() if (hint := did_you_mean(name, have))]
    one = len(words) == 1
    raise LogColumnNotThere(
        f"{path} has no {'column' if one else 'columns'} {listed(words)}, which the map names.",
        expected=" ".join(
            [f"It has {listed(have, most=20)}.", *(hints if not one else [h.partition(": ")[2] for h in hints])]
        ),
        state="Nothing was reported.",
        next="Correct the map.",
    )


def _number(path: Path, raw: pa.Table, name: str | None, role: str) -> pa.Array | pa.ChunkedArray:
    """A column as float64, NaN as null."""
    import pyarrow as pa

    if name is None or not raw.num_rows:
        return pa.nulls(raw.num_rows, pa.float64())
    column = raw[name]
    if not (_is_number(column.type) or pa.types.is_null(column.type)):
        first = next((value for value in column.to_pylist() if value is not None), None)
        raise LogColumnWrong(
            f"column '{name}' of {path} is {column.type}, first {first!r}, and the map says that it is {role}.",
            expected="Numbers are expected.",
        )
    return pa.array(floats(column), from_pandas=True)


def _classified(
    path: Path, raw: pa.Table, there: dict[str, str], columns: ColumnMap
) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Score and label; of several classes also the classes themselves and their probabilities, as `Sample` has them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    score = _number(path, raw, there.get("score"), "the score")
    label = _label(path, raw, there.get("label"), columns)
    if columns.task != "multiclass":
        return {"score": score, "label": label}
    names = {one: there[f"probability of {one}"] for one in columns.probabilities if f"probability of {one}" in there}
    found: dict[str, pa.Array | pa.ChunkedArray] = {
        OF_CLASS + one: _number(path, raw, name, f"the probability of {one!r}") for one, name in names.items()
    }
    predicted = _class_texts(path, raw, there.get("predicted"), "the predicted class")
    if len(names) == len(columns.probabilities) > 0 and raw.num_rows:
        table = np.column_stack([values.to_numpy(zero_copy_only=False) for values in found.values()])
        whole = ~np.isnan(table).any(axis=1)
        if "predicted" not in there:
            likeliest = pa.array(np.where(whole, table.argmax(axis=1), 0), mask=~whole)
            predicted = pa.array(list(names), pa.string()).take(likeliest)
        place = pc.index_in(predicted, value_set=pa.array(list(names), pa.string()))
        strange = predicted.filter(pc.and_(predicted.is_valid(), place.is_null())).unique().to_pylist()
        if strange:
            raise LogColumnWrong(
                f"column '{there['predicted']}' of {path} holds {strange[0]!r}, a class without a probability.",
                expected=f"The map has {listed(names)} in [probabilities]. {did_you_mean(strange[0], names)}".strip(),
            )
        of_class = np.take_along_axis(table, place.fill_null(0).to_numpy().astype(np.intp)[:, None], axis=1)[:, 0]
        score = pa.array(of_class, mask=~whole | place.is_null().to_numpy(zero_copy_only=False))
    found |= {"score": score, "predicted_class": predicted, "label_class": label}
    return found | {"label": pc.equal(predicted, label).cast(pa.float64())}


def _class_texts(path: Path, raw: pa.Table, name: str | None, role: str) -> pa.Array | pa.ChunkedArray:
    """Classes as text, as labels are: whole numbers may have come as floats."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if name is None or not raw.num_rows:
        return pa.nulls(raw.num_rows, pa.string())
    column = raw[name]
    kind = column.type
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
        try:
            column = column.cast(pa.int64())
        except pa.ArrowInvalid:
            kind = pa.null()
    if not (pa.types.is_string(kind) or _is_number(kind)) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        if raw[name].null_count == len(raw[name]):
            return pa.nulls(raw.num_rows, pa.string())
        first = next(value for value in raw[name].to_pylist() if value is not None)
        raise LogColumnWrong(
            f"column '{name}' of {path} is {raw[name].type}, first {first!r}, and the map says that it is {role}.",
            expected="Classes are texts or whole numbers.",
        )
    return _text(column)


def _label(path: Path, raw: pa.Table, name: str | None, columns: ColumnMap) -> pa.Array | pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if columns.task == "multiclass":
        return _class_texts(path, raw, name, "the label")
    if name is None or not raw.num_rows:
        return pa.nulls(raw.num_rows, pa.float64())
    if columns.positive is not None:
        text = _text(raw[name])
        wanted = columns.positive
        wanted = str(wanted).lower() if isinstance(wanted, bool) else str(wanted)
        same = pc.equal(text, wanted)
        if not pc.any(same).as_py() and text.null_count < len(text):
            seen = sorted({value for value in text.to_pylist() if value is not None})[:20]
            raise LogColumnWrong(
                f"column '{name}' of {path} is never {columns.positive!r}, which the map says is the positive label.",
                expected=f"It holds {listed(seen)}. {did_you_mean(wanted, seen)}".strip(),
            )
        return same.cast(pa.float64())
    values = _number(path, raw, name, "the label; say `positive` when it is text")
    if columns.task == "binary":
        wrong = pc.unique(values.filter(pc.invert(pc.is_in(values, value_set=pa.array([0.0, 1.0])))).drop_null())
        if len(wrong):
            raise LogColumnWrong(
                f"column '{name}' of {path} holds {wrong[0].as_py():g}, and the map says that it is the label.",
                expected="0 and 1 are expected; or say `positive`, the value that counts as 1.",
            )
    return values


def _told(path: Path, columns: ColumnMap, as_of_us: int) -> pa.Table:
    """A file of labels as `LabelStore.read` would give them."""
    import pyarrow as pa

    target = columns.label or "label"
    have = _header(path)
    _require(path, have, {"label": target})
    timed = {"label_known_at": columns.label_known_at or "known_at", "timestamp": "at"}
    timed = {role: name for role, name in timed.items() if name in have}
    if columns.label_known_at and "label_known_at" not in timed:
        _require(path, have, {"label_known_at": columns.label_known_at})
    raw = _rows(path, columns, have, timed)
    raw = raw.set_column(raw.column_names.index(target), "label", _label(path, raw, target, columns))
    own = {columns.prediction_id: "prediction_id", columns.request_id: "request_id"}
    raw = raw.rename_columns([own.get(name, name) if name else name for name in raw.column_names])
    raw = raw.filter(raw["label"].is_valid())
    rows = parse(
        raw,
        model=columns.model,
        task=columns.task,
        key=columns.key,
        label_known_at=columns.label_known_at or None,
        now_us=as_of_us,
        actor="",
    )
    instant = pa.timestamp("us", tz="UTC")
    kinds = {"label": pa.float64(), "known_at": instant, "recorded_at": instant, "at": instant}
    source = {"known_at": "known_at_us", "recorded_at": "recorded_at_us", "at": "at_us"}
    source["class"] = "of_class"
    names = ("id", "prediction_id", "request_id", "key", "at", "label", "class", "known_at", "recorded_at", "actor")
    return pa.table(
        {
            name: pa.array([getattr(row, source.get(name, name)) for row in rows], kinds.get(name, pa.string()))
            for name in names
        }
    )


def _known(table: pa.Table, as_of_us: int) -> tuple[pa.Table, LabelCounts]:
    """Labels of the log itself that are known by now; those known before their prediction do not count."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known_at = table["label_known_at"]
    labels = table["label_class" if "label_class" in table.column_names else "label"]
    known = pc.fill_null(pc.less_equal(known_at, pa.scalar(as_of_us, known_at.type)), False)
    told = pc.and_(labels.is_valid(), known)
    before = pc.and_(told, pc.fill_null(pc.less(known_at, table["at"]), False))
    counts = pc.and_not(told, before)
    rows = table
    for name in [one for one in ("label", "label_class", "label_known_at") if one in rows.column_names]:
        column = rows[name]
        rows = rows.set_column(
            rows.column_names.index(name), name, pc.if_else(counts, column, pa.scalar(None, column.type))
        )
    rows = rows.append_column("label_before", before.cast(pa.int64()))
    number = int(pc.sum(counts).as_py() or 0)
    return rows, LabelCounts(matched=number, before=int(pc.sum(before).as_py() or 0), predictions=table.num_rows)


def _without_fields(sample: Sample, key: Sequence[str]) -> Sample:
    """Without the columns of the key; what is left of them is a number for each."""
    rows = sample.rows
    fields = [name for name in rows.column_names if name.startswith(FIELD)]
    if key and len(rows) and all(FIELD + name in fields for name in key):
        rows = rows.append_column("key", places(prediction_keys(rows, key)))
    return replace(sample, rows=rows.drop_columns(fields))


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    return column.cast(pa.string())


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind))


def _no_parquet(path: Path, error: Exception) -> LogMissing:
    return LogMissing(
        f"{path} is not readable as Parquet: {str(error).splitlines()[0]}.",
        expected="A Parquet file, or a CSV file whose name ends with .csv, is expected.",
        state="Nothing was read.",
    )
