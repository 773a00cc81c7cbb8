"""The label store: what turned out to be true, as it was told, and by whom?

A label is never changed or taken back: who corrects one tells another; `monitoring.rows.labels` decides which counts.
Each call of `append` is one Parquet file, visible whole or not at all; once it returned, the disk has the labels.

    model=M/TELLING.parquet      one telling, or several merged into one

Many small files are merged into one. A merged file names the files that it replaces, and those are removed after it
is there: readers see every label once, whenever the merging process dies.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from seatrial.core.errors import Failed, Unavailable
from seatrial.core.identity import uuid7

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
CLASS = "class"
MOST_FILES = 64
SMALL_BYTES = 8 * 2**20
"""Files of this size and more are not merged again."""

_FORMAT_KEY = b"seatrial.labels.format"
_REPLACES_KEY = b"seatrial.labels.replaces"


class LabelsUnwritable(Unavailable):
    """The label store took no more labels: the disk is full or failing, or the folder may not be written."""

    code = "labels.unwritable"


class LabelsTooNew(Failed):
    """A file of the label store was written by a newer version."""

    code = "labels.too_new"


class LabelsDamaged(Failed):
    """A file of the label store is not what was written to it."""

    code = "labels.damaged"


@dataclass(frozen=True)
class LabelRow:
    """One label as it was told.

    id: of the telling, and the row in it; ids sort by the time of telling.
    prediction_id, request_id, key: what it belongs to, at least one of them. key: the values of the model's business
        key, joined by "|", times in ISO 8601.
    at_us: the instant that the prediction was for, when it was told.
    known_at_us: since when it can be known (domain time); recorded_at_us: when it was told (the machine's time).
    label: a number; of a multiclass model NaN, and `of_class` is the class that happened, as text.
    """

    id: str
    label: float
    known_at_us: int
    recorded_at_us: int
    actor: str
    prediction_id: str | None = None
    request_id: str | None = None
    key: str | None = None
    at_us: int | None = None
    of_class: str | None = None


class LabelStore:
    """The labels of every model under one folder; any number of processes may write and read at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def append(self, model: str, labels: Sequence[LabelRow]) -> None:
        """Keep `labels`, all of them or none. When this returns they survive a power failure.

        Raises LabelsUnwritable, with nothing kept.
        """
        if not labels:
            return
        folder = self._folder(model)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _sync_folder(self.root)
            _write(folder, _table(labels), replaces=())
        except OSError as error:
            raise LabelsUnwritable(
                f"the labels of model '{model}' cannot be written: {error.strerror or error}.",
                state="None of these labels was kept.",
                next="Make room on the disk, or give the rights to write, and tell them again.",
                model=model,
            ) from None
        if len(_names(folder)) > MOST_FILES:
            with suppress(LabelsDamaged, LabelsTooNew):  # these labels are kept; who reads is told of the others
                self.merge(model)

    def read(self, model: str) -> pa.Table:
        """Every label that was told of `model`, once, in the order of their ids; no rows when there is none.

        Columns: id, prediction_id, request_id, key (strings or null), at (UTC or null), label (float64), known_at,
        recorded_at (UTC), actor, class (string or null; of multiclass models, whose label is NaN). Raises LabelsTooNew,
        LabelsDamaged.
        """
        import pyarrow as pa

        folder = self._folder(model)
        if not folder.is_dir():
            return _schema().empty_table()
        with _locked(folder, fcntl.LOCK_SH):
            files, _ = _standing(folder)
        tables = [_schema().empty_table(), *(table for _, table in sorted(files.items()))]
        return pa.concat_tables(tables).sort_by("id")

    def merge(self, model: str) -> int:
        """Turn the small files of `model` into one; returns how many there were.

        Nothing happens when fewer than two are small, when others are reading or merging at this moment (the next
        one will), or when the disk has no room.
        """
        import pyarrow as pa

        folder = self._folder(model)
        if not folder.is_dir():
            return 0
        try:
            with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
                files, replaced = _standing(folder)
                # first what an earlier merge left behind: once its merged file is replaced nobody would know
                _remove(folder, replaced)
                for leftover in folder.glob(".tmp-*.merge"):
                    leftover.unlink(missing_ok=True)
                small = [name for name in files if (folder / name).stat().st_size < SMALL_BYTES]
                if len(small) < 2:
                    return 0
                _write(folder, pa.concat_tables([files[name] for name in sorted(small)]), replaces=small)
                _remove(folder, set(small))
                return len(small)
        except OSError:
            return 0

    def models(self) -> list[Path]:
        """The folders that hold labels, one for each model, sorted."""
        return sorted(path for path in self.root.glob("model=*") if path.is_dir())

    def _folder(self, model: str) -> Path:
        return self.root / f"model={quote(model, safe='')}"


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Readers share the folder; who removes files from it has it alone. The lock ends with the process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.parquet") if path.name[0] != ".")


def _standing(folder: Path) -> tuple[dict[str, pa.Table], set[str]]:
    """The files that count, by name, and the names of those here that a merged file replaces."""
    files, replaced = {}, set()
    for name in _names(folder):
        table, replaces = _read(folder / name)
        files[name] = table
        replaced |= replaces
    return {name: table for name, table in files.items() if name not in replaced}, replaced & files.keys()


def _read(path: Path) -> tuple[pa.Table, set[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        metadata = schema.metadata or {}
        number = int(metadata.get(_FORMAT_KEY, b"0"))
        if number > FORMAT:
            raise LabelsTooNew(
                f"the labels in {path.name} have the format {number}; this version reads up to {FORMAT}.",
                state="Nothing was changed.",
                next="Update seatrial.",
                file=path.name,
            )
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        if CLASS not in table.column_names:  # it was written before there were classes
            table = table.append_column(CLASS, pa.nulls(table.num_rows, pa.string()))
        table = table.select(_schema().names).cast(_schema())
        return table.replace_schema_metadata(None), set(json.loads(metadata.get(_REPLACES_KEY, b"[]")))
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:  # what cannot be unpacked is an OSError too
        raise LabelsDamaged(
            f"the labels in {path.parent.name}/{path.name} cannot be read: {str(error).splitlines()[0]}",
            state="Nothing was changed; the other files are as they were.",
            next="Bring the file back from a backup, or move it away and tell its labels again.",
            file=path.name,
        ) from None


def _write(folder: Path, table: pa.Table, *, replaces: Sequence[str]) -> None:
    """One file, first aside, then by one rename under its name; on the disk when this returns."""
    import pyarrow.parquet as pq

    name = uuid7()
    aside = folder / f".tmp-{name}{'.merge' if replaces else ''}"
    metadata = {_FORMAT_KEY: str(FORMAT), _REPLACES_KEY: json.dumps(sorted(replaces))}
    try:
        with aside.open("wb") as file:
            pq.write_table(table.replace_schema_metadata(metadata), file, compression="zstd", write_page_checksum=True)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(folder / f"{name}.parquet")
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _sync_folder(folder)


def _remove(folder: Path, names: set[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
    if names:
        _sync_folder(folder)


def _table(labels: Sequence[LabelRow]) -> pa.Table:
    import pyarrow as pa

    columns = {
        "id": [label.id for label in labels],
        "prediction_id": [label.prediction_id for label in labels],
        "request_id": [label.request_id for label in labels],
        "key": [label.key for label in labels],
        "at": [label.at_us for label in labels],
        "label": [label.label for label in labels],
        "known_at": [label.known_at_us for label in labels],
        "recorded_at": [label.recorded_at_us for label in labels],
        "actor": [label.actor for label in labels],
        CLASS: [label.of_class for label in labels],
    }
    return pa.table(columns, schema=_schema())


def _schema() -> pa.Schema:
    import pyarrow as pa

    instant, text = pa.timestamp("us", tz="UTC"), pa.string()
    return pa.schema(
        [
            pa.field("id", text, nullable=False),
            ("prediction_id", text),
            ("request_id", text),
            ("key", text),
            ("at", instant),
            pa.field("label", pa.float64(), nullable=False),
            pa.field("known_at", instant, nullable=False),
            pa.field("recorded_at", instant, nullable=False),
            pa.field("actor", text, nullable=False),
            (CLASS, text),
        ]
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
