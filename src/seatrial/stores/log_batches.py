"""Batches: which Parquet files hold records of the prediction log, and what do they take the place of?

A batch is made aside and becomes visible, together with the names of the segments and batches that it replaces, by one
rename. It never changes: whoever wants other files makes another batch that replaces it. So a reader that takes
every batch that no other one replaces, and every segment that none replaces, sees each record once, wherever whoever
made a batch died.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import msgspec

from seatrial.core.errors import Conflict, Failed
from seatrial.core.identity import digest
from seatrial.stores.segments import LogTooNew

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 2
BATCH = "batch.json"
_MOST_OPEN = 200  # files that are written at once: a replayed year has one for each day and release
_LONGEST_NAME = 150


class LogBusy(Conflict):
    """Another process compacts, ships or prunes this log."""

    code = "log.compacting"


class LogDamaged(Failed):
    """What a batch of the log says of itself cannot be read."""

    code = "log.damaged"


class Part(msgspec.Struct, frozen=True):
    """One Parquet file of a batch: records of one model and day, all with the same columns.

    file: its place in the folder of its batch. key: of the object store, once it is shipped. recorded_us: the machine's
    time of the newest record. digest: BLAKE3 of the file, once it is shipped.
    """

    file: str
    model: str
    day: str
    records: int
    bytes: int
    recorded_us: int
    key: str = ""
    digest: str = ""


class Batch(msgspec.Struct, frozen=True):
    """Files that became visible together. replaces: names of segments ("ID.seg") and ids of batches.

    size: how often its records were put together with others: 0 of a compaction of segments.
    """

    format: int
    batch: str
    replaces: tuple[str, ...]
    parts: tuple[Part, ...]
    size: int = 0

    @property
    def records(self) -> int:
        return sum(part.records for part in self.parts)


def read_batch(data: bytes, folder: Path | str) -> Batch:
    """A batch as it was written. folder: where it lies, for a batch of the first version.

    Raises LogTooNew and LogDamaged.
    """
    name = Path(folder).name
    try:
        number = msgspec.json.decode(data, type=_Format).format
        if number == FORMAT:
            return msgspec.json.decode(data, type=Batch)
        if number == 1:  # it named its segments only
            first = msgspec.json.decode(data, type=_First)
            return Batch(1, name, first.replaces, tuple(_parts_of(Path(folder))))
    except msgspec.DecodeError as error:
        raise LogDamaged(
            f"what log batch {name} says of itself cannot be read: {error}.",
            state="Nothing was read and nothing was changed.",
            next=f"Bring {BATCH} of {name} back from a backup.",
        ) from None
    if number > FORMAT:
        raise LogTooNew(
            f"log batch {name} has format {number}; this version reads up to {FORMAT}.",
            state="Nothing was changed.",
            next="Update seatrial.",
        )
    raise LogDamaged(f"log batch {name} has format {number}, which never was one.", state="Nothing was changed.")


class _Format(msgspec.Struct):
    format: int


class _First(msgspec.Struct):
    replaces: tuple[str, ...]


def _parts_of(folder: Path) -> Iterator[Part]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("model=*/day=*/*.parquet")):
        records, recorded_us = 0, 0
        try:
            file = pq.read_metadata(path)
        except (pa.ArrowException, OSError):
            file = None  # readers tell of it
        if file is not None:
            records = file.num_rows
            column = file.schema.names.index("recorded_at")
            groups = [file.row_group(number).column(column).statistics for number in range(file.num_row_groups)]
            recorded_us = max((_us(one.max) for one in groups if one is not None and one.has_min_max), default=0)
        yield Part(
            file=str(path.relative_to(folder)),
            model=unquote(path.parent.parent.name.removeprefix("model=")),
            day=path.parent.name.removeprefix("day="),
            records=records,
            bytes=path.stat().st_size,
            recorded_us=recorded_us,
        )


def _us(value: Any) -> int:
    from seatrial.core.clock import to_us

    return to_us(value)


def folder_name(model: str) -> str:
    """The name of a model as that of a folder; of one that is too long the beginning and a digest."""
    quoted = quote(model, safe="")
    return quoted if len(quoted) <= _LONGEST_NAME else f"{quoted[:100]}%~{digest(model.encode())[:16]}"


def key_of(batch: str, part: str) -> str:
    """The key under which a part is kept in the object store: by model and day, and as readable as a key may be."""
    model, day, file = part.split("/")
    model = re.sub(r"[^A-Za-z0-9_=@+.-]", "@", model)
    return f"predictions/{model}/{day}/{batch}-{file}"


class BatchWriter:
    """The files of a new batch, written in a folder that nobody reads yet.

    A file is begun for each model, day and kind of record, and grows with every table that is given for it, so that no
    more than one table at a time is in memory.
    """

    def __init__(self, folder: Path, metadata: dict[str, str]) -> None:
        self._folder = folder
        self._metadata = metadata
        self._open: dict[tuple[str, str, str], _File] = {}
        self._names: dict[str, int] = {}
        self._parts: list[Part] = []

    def write(self, model: str, day: str, kind: str, table: pa.Table) -> None:
        """Put a table's records, all of one model, day and kind, behind those that came before."""
        key = (model, day, kind)
        file = self._open.get(key)
        table = table.replace_schema_metadata(self._metadata)
        if file is not None and not file.takes(table):
            self._parts.append(self._open.pop(key).close())
            file = None
        if file is None:
            if len(self._open) >= _MOST_OPEN:
                self._close_all()
            file = self._open[key] = self._begin(model, day, kind, table)
        file.write(table)

    def __enter__(self) -> BatchWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.abandon()

    def finish(self) -> tuple[Part, ...]:
        """Bring every file to the disk; what was written."""
        self._close_all()
        for folder in {(self._folder / part.file).parent for part in self._parts}:
            sync_folder(folder)
            sync_folder(folder.parent)
        return tuple(self._parts)

    def _begin(self, model: str, day: str, kind: str, table: pa.Table) -> _File:
        folder = f"model={folder_name(model)}/day={day}"
        (self._folder / folder).mkdir(parents=True, exist_ok=True)
        number = self._names.get(f"{folder}/{kind}", 0)
        self._names[f"{folder}/{kind}"] = number + 1
        name = f"{kind}-{number}" if number else kind
        return _File(self._folder, f"{folder}/{name}.parquet", model, day, table.schema)

    def _close_all(self) -> None:
        while self._open:
            self._parts.append(self._open.popitem()[1].close())


class _File:
    """One Parquet file that grows."""

    def __init__(self, root: Path, file: str, model: str, day: str, schema: pa.Schema) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._root, self._file, self._model, self._day = root, file, model, day
        self._records = self._recorded_us = 0
        self._sink = (root / file).open("wb")
        # words come again and again, ids never do
        words = [field.name for field in schema if pa.types.is_string(field.type)]
        words = [name for name in words if name not in ("prediction_id", "request_id")]
        self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd", use_dictionary=words)
        self._schema = schema

    def takes(self, table: pa.Table) -> bool:
        return bool(self._schema.equals(table.schema))

    def write(self, table: pa.Table) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self._writer.write_table(table)
        self._records += table.num_rows
        self._recorded_us = max(self._recorded_us, pc.max(table["recorded_at"].cast(pa.int64())).as_py() or 0)

    def abandon(self) -> None:
        self._sink.close()

    def close(self) -> Part:
        self._writer.close()
        self._sink.flush()
        os.fsync(self._sink.fileno())
        self._sink.close()
        size = (self._root / self._file).stat().st_size
        return Part(self._file, self._model, self._day, self._records, size, self._recorded_us)


def make_visible(aside: Path, batch: Batch, place: Path) -> None:
    """Write what a batch is beside its files and give it its name; from here on readers take it."""
    write_whole(aside / BATCH, msgspec.json.encode(batch))
    sync_folder(aside)
    aside.rename(place)
    sync_folder(place.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file and bring it to the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def standing(batches: Iterable[Batch]) -> tuple[list[Batch], set[str]]:
    """The batches that none of them replaces, in the order of their ids, and everything that is replaced."""
    batches = list(batches)
    replaced = {name for batch in batches for name in batch.replaces}
    return sorted((one for one in batches if one.batch not in replaced), key=lambda one: one.batch), replaced


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """The block has the lock to itself. Raises LogBusy when another one has it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LogBusy(
                "another process compacts this prediction log.",
                state="Nothing was changed.",
                next="Wait until it is done.",
            ) from None
        yield
