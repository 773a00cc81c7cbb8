"""Snapshots: which data was it, exactly, and what changed since?

A snapshot's id is a digest of its content: the number of rows, and for each column, in order, its name, type
and values. How the table happens to lie in memory or on disk does not count: chunks, slices, row groups,
dictionary encoding, string or large_string, bytes under nulls, -0.0 or 0.0, which NaN. Everything else does: a
change of 1e-12 in one cell, int32 instead of int64, the order of rows and of columns, a null for a zero.

Each column has its own digest, so two snapshots tell which column changed without their data at hand.

The hash, tag `c1:`. A column's digest is BLAKE3 over the JSON array of tag, type and row count, followed by the
BLAKE3 digests (32 bytes each) of three streams: validity (one byte a row, 1 = present), lengths (text, bytes and
lists: int64 a row, 0 under null) and values (fixed-width: little-endian with 0 under null; text and bytes: the
bytes of the present values; booleans: one byte a row). Lists and structs follow with the digests of their
children: a list's child holds the elements of all present lists, a struct's child is null where the struct is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from seatrial.core.errors import Failed, listed
from seatrial.core.identity import canonical_json, content_id
from seatrial.data.text import cell

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from seatrial.data.keyed import KeyedDiff

FORMAT = 1
HASH = "c1"
METADATA_KEY = b"seatrial.snapshot"
BLOCK_ROWS = 1 << 16  # a block of float64 stays in the processor's cache
ROW_GROUP_ROWS, ROW_GROUP_CELLS, ROW_GROUP_BYTES = 1 << 17, 1 << 22, 1 << 25
PAGE_BYTES, PIECE_BYTES = 1 << 20, 1 << 22  # read at once of a file that may be larger than memory
FEW_ROWS = 1 << 12
EXAMPLES = 5


class ColumnTypeUnsupported(Failed):
    """A column has a type that no snapshot can hold."""

    code = "data.column_type_unsupported"


class SnapshotDamaged(Failed):
    """A snapshot file does not hold the content that its id promises."""

    code = "data.snapshot_damaged"


class NotReadBack(Failed):
    """What was written of a snapshot does not read as what was to be kept."""

    code = "data.not_read_back"


class SnapshotTooNew(Failed):
    """A snapshot was written in a format that this version does not know."""

    code = "data.snapshot_too_new"


@dataclass(frozen=True)
class ColumnDigest:
    """digest: `c1:` and 64 hex digits over the column's type and values; the name is not part of it."""

    name: str
    type: str
    digest: str


@dataclass(frozen=True)
class Content:
    """What a table holds, without the table."""

    rows: int
    columns: tuple[ColumnDigest, ...]
    format: ClassVar[int] = FORMAT

    @cached_property
    def id(self) -> str:
        """`snap_` and 32 hex digits: equal content, equal id."""
        columns = [[column.name, column.type, column.digest] for column in self.columns]
        return content_id("snap", canonical_json({"hash": HASH, "rows": self.rows, "columns": columns}))

    def as_plain(self) -> dict[str, Any]:
        """The content as plain values for JSON."""
        columns = [{"name": c.name, "type": c.type, "digest": c.digest} for c in self.columns]
        return {"format": self.format, "id": self.id, "rows": self.rows, "columns": columns}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Content:
        """The content that `as_plain` described. Raises SnapshotTooNew, SnapshotDamaged."""
        try:
            number = int(plain["format"])
            if number <= FORMAT:
                columns = tuple(
                    ColumnDigest(str(c["name"]), str(c["type"]), str(c["digest"])) for c in plain["columns"]
                )
                content = cls(int(plain["rows"]), columns)
                promised = plain["id"]
        except (KeyError, TypeError, ValueError):
            raise SnapshotDamaged("the description of a snapshot cannot be read.") from None
        if number > FORMAT:
            raise SnapshotTooNew(
                f"a snapshot has format {number}.",
                expected=f"This version of seatrial reads formats up to {FORMAT}.",
                next="Install a newer seatrial.",
                format=number,
            )
        if content.id != promised:
            raise SnapshotDamaged(f"the description of snapshot {promised} has the content of {content.id}.")
        return content


@dataclass(frozen=True)
class ColumnChange:
    """A column whose values differ. cells: how many, of the rows that both have; None when not compared.

    examples: (row from 0, before, after) of the first cells that differ.
    """

    name: str
    cells: int | None = None
    examples: tuple[tuple[int, Any, Any], ...] = ()


@dataclass(frozen=True)
class SnapshotDiff:
    """What is different in `after`. Columns are compared by name.

    retyped: (name, type before, type after). reordered: the common columns stand in another order.
    compared: rows whose cells were compared, position by position; None when no tables were given.
    keyed: the rows compared by a key, when one was given.
    """

    before: str
    after: str
    rows_before: int
    rows_after: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    retyped: tuple[tuple[str, str, str], ...] = ()
    changed: tuple[ColumnChange, ...] = ()
    reordered: bool = False
    compared: int | None = None
    keyed: KeyedDiff | None = None
    format: ClassVar[int] = FORMAT

    @property
    def same(self) -> bool:
        return self.before == self.after

    def __str__(self) -> str:
        if self.same:
            return f"{self.before}: no difference."
        lines = [f"{self.before} -> {self.after}"]
        if self.rows_before != self.rows_after:
            lines.append(f"rows: {self.rows_before:,} -> {self.rows_after:,}")
        lines += [f"removed: {name}" for name in self.removed]
        lines += [f"added: {name}" for name in self.added]
        lines += [f"retyped: {name}, {before} -> {after}" for name, before, after in self.retyped]
        for change in self.changed if self.keyed is None else ():
            cells = "" if change.cells is None else f", {change.cells:,} of {self.compared:,} cells"
            lines.append(f"changed: {change.name}{cells}")
            lines += [f"  row {row}: {cell(before)} -> {cell(after)}" for row, before, after in change.examples]
        if self.reordered:
            lines.append("the columns stand in another order")
        if self.keyed is not None:
            lines += self.keyed.lines()
        return "\n".join(lines)

    def as_plain(self) -> dict[str, Any]:
        """The difference as plain values for JSON; examples as text."""
        return {
            "format": self.format,
            "before": self.before,
            "after": self.after,
            "same": self.same,
            "rows_before": self.rows_before,
            "rows_after": self.rows_after,
            "added": list(self.added),
            "removed": list(self.removed),
            "retyped": [{"name": name, "before": old, "after": new} for name, old, new in self.retyped],
            "changed": [
                {
                    "name": change.name,
                    "cells": change.cells,
                    "examples": [
                        {"row": row, "before": cell(old), "after": cell(new)} for row, old, new in change.examples
                    ],
                }
                for change in self.changed
            ],
            "reordered": self.reordered,
            "compared": self.compared,
            "keyed": None if self.keyed is None else self.keyed.as_plain(),
        }


def content(table: pa.Table) -> Content:
    """The content of `table`. Reads it in blocks, one column after another.

    Raises ColumnTypeUnsupported for what Parquet cannot hold: a union, an interval of months, a struct without fields.
    """
    hasher = Hasher(table.schema)
    hasher.feed(table)
    return hasher.content()


class Hasher:
    """The content of rows that come in tables of one schema, one after another.

    Raises ColumnTypeUnsupported as `content` does.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._kinds = [(field.type, _held_type(field.type)) for field in schema]
        self._streams = [
            (field.name, _stream(field.name, held)) for field, (_, held) in zip(schema, self._kinds, strict=True)
        ]
        self._rows = 0

    def feed(self, table: pa.Table) -> None:
        self._rows += table.num_rows
        for (name, stream), (kind, held), column in zip(self._streams, self._kinds, table.columns, strict=True):
            for chunk in column.chunks:
                for start in range(0, len(chunk), BLOCK_ROWS):
                    block = chunk.slice(start, BLOCK_ROWS)
                    stream.feed(block if kind == held else _cast(block, held, name))

    def content(self) -> Content:
        columns = (ColumnDigest(name, stream.type, f"{HASH}:{stream.digest().hex()}") for name, stream in self._streams)
        return Content(self._rows, tuple(columns))


def content_of_parquet(path: Path) -> Content:
    """The content of a Parquet file as it stands, which may be larger than memory.

    Column after column is read in small pieces, so that memory holds one piece beside a page of the file. The id is
    that of `content(pyarrow.parquet.read_table(path))`.

    Raises ColumnTypeUnsupported; SnapshotDamaged for a file that is no readable Parquet; FileNotFoundError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = []
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=PAGE_BYTES) as file:
            for field in file.schema_arrow:
                stream = _stream(field.name, field.type)
                for piece in _pieces(file, field):
                    stream.feed(piece)
                columns.append(ColumnDigest(field.name, stream.type, f"{HASH}:{stream.digest().hex()}"))
            return Content(file.metadata.num_rows, tuple(columns))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise SnapshotDamaged(f"the file {path.name} is no readable Parquet: {' '.join(str(error).split())}") from None


def _pieces(file: pq.ParquetFile, field: pa.Field) -> Iterator[pa.Array]:
    """A top-level column of a Parquet file in pieces of about PIECE_BYTES, at most BLOCK_ROWS rows each."""
    import pyarrow as pa

    fixed = pa.types.is_primitive(field.type)
    leaves = [i for i in range(file.metadata.num_columns) if _lies_in(file.schema.column(i).path, field.name)]
    for group in range(file.num_row_groups):
        found = file.metadata.row_group(group)
        size = sum(found.column(leaf).total_uncompressed_size for leaf in leaves)
        most = BLOCK_ROWS if fixed else FEW_ROWS  # a dictionary hides how large its texts are
        rows = max(1, min(most, PIECE_BYTES * max(1, found.num_rows) // max(1, size)))
        for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=[field.name], use_threads=False):
            yield batch.column(batch.schema.get_field_index(field.name))


def _lies_in(path: str, column: str) -> bool:
    return path == column or path.startswith(f"{column}.")


def write(content: Content, table: pa.Table, path: Path) -> None:
    """Write `table`, whose content is `content`, as Parquet; nothing half-written is ever at `path`.

    The file holds the plain layout and, as its only metadata, the content's description: tables of equal content
    give equal bytes with one version of Arrow. Raises OSError when the disk refuses, and as `Writer.finish` does.
    """
    with Writer(path, table.schema) as writer:
        writer.feed(table)
        writer.finish(content)


class Writer:
    """Writes a snapshot's file from tables of one schema, one after another: the bytes are those of one table.

    A row group holds at most ROW_GROUP_ROWS rows, ROW_GROUP_CELLS cells, and little more text than ROW_GROUP_BYTES. The
    file is at `path` after `finish`, and never half-written.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        for one in schema:
            _stream(one.name, one.type)  # which refuses what no file can hold
        self._schema = pa.schema([pa.field(field.name, plain_type(field.type)) for field in schema])
        self._step = max(1, min(FEW_ROWS, ROW_GROUP_CELLS // max(1, len(schema))))
        self._most = max(self._step, min(ROW_GROUP_ROWS, ROW_GROUP_CELLS // max(1, len(schema))))
        self._texts = [field.name for field in self._schema if _is_text(field.type)]
        self._pending: list[pa.Table] = []
        self._rows = self._bytes = 0
        self._file = self._partial.open("wb")
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd", version="2.6")

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):  # what was not finished is thrown away
            self._writer.close()
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def feed(self, table: pa.Table) -> None:
        start = 0
        while start < table.num_rows:
            length = min(self._step - self._rows % self._step, table.num_rows - start)
            part = table.slice(start, length)
            self._pending.append(part)
            self._rows += length
            self._bytes += sum(_text_bytes(part[name]) for name in self._texts)
            start += length
            at_step = self._rows % self._step == 0
            if at_step and (self._rows + self._step > self._most or self._bytes >= ROW_GROUP_BYTES):
                self._flush()

    def finish(self, content: Content) -> None:
        """Write what is left and the description of the content, and read it all back before it counts.

        Raises NotReadBack when the file does not hold the content.
        """
        if self._pending:
            self._flush()
        self._writer.add_key_value_metadata({METADATA_KEY: canonical_json(content.as_plain())})
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._require_read_back(content)
        self._partial.replace(self._path)

    def _require_read_back(self, content: Content) -> None:
        try:
            found = content_of_parquet(self._partial)
        except SnapshotDamaged as damaged:
            columns, how = list(self._schema.names), damaged.found
        else:
            if found == content:
                return
            pairs = list(zip(content.columns, found.columns, strict=False))
            columns = [promised.name for promised, there in pairs if promised != there]
            how = "other values come back"
        types = [f"'{field.name}' ({field.type})" for field in self._schema if field.name in columns]
        raise NotReadBack(
            f"what was written of {listed(types)} does not read back as it was: {how}",
            expected="A Parquet file that holds every value is expected.",
            state="Nothing was kept.",
            next="Give the column another type where the data is made; if it is a plain one, look at the disk.",
            columns=columns,
        )

    def _flush(self) -> None:
        import pyarrow as pa

        rows = pa.concat_tables(self._pending)
        self._pending, self._rows, self._bytes = [], 0, 0
        columns = [plain(column) for column in rows.columns]
        self._writer.write_table(pa.table(columns, schema=self._schema), row_group_size=ROW_GROUP_ROWS)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _text_bytes(column: pa.ChunkedArray) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = plain_type(column.type)
    if column.type != kind and not pa.types.is_large_string(column.type):
        column = pa.chunked_array([plain(column)], kind)
    return pc.sum(pc.binary_length(column)).as_py() or 0


def load(path: Path) -> tuple[Content, pa.Table]:
    """The snapshot in a file that `write` made, with every value checked against its digest.

    Raises SnapshotDamaged, SnapshotTooNew; FileNotFoundError when it is not there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            described = msgspec.json.decode((file.metadata.metadata or {})[METADATA_KEY])
            promised = Content.from_plain(described)
            table = file.read().replace_schema_metadata(None)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, KeyError, msgspec.DecodeError, TypeError) as error:
        raise SnapshotDamaged(f"the file {path.name} is no readable snapshot: {' '.join(str(error).split())}") from None
    found = content(table)
    if found != promised:
        broken = ", ".join(change.name for change in diff(promised, found).changed) or "its columns"
        raise SnapshotDamaged(
            f"the file {path.name} of snapshot {promised.id} holds other data: {broken} changed.",
            next="Make the snapshot again from its sources, or take the file from a backup.",
            snapshot=promised.id,
        )
    return promised, table


def described(path: Path) -> Content:
    """The content that a snapshot's file says it has. Raises SnapshotDamaged, SnapshotTooNew."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        told = (pq.read_metadata(path).metadata or {})[METADATA_KEY]
        return Content.from_plain(msgspec.json.decode(told))
    except (pa.ArrowException, OSError, KeyError, msgspec.DecodeError, TypeError) as error:
        raise SnapshotDamaged(f"the file {path.name} is no readable snapshot: {' '.join(str(error).split())}") from None


def diff(
    before: Content, after: Content, table_before: pa.Table | None = None, table_after: pa.Table | None = None
) -> SnapshotDiff:
    """What is different in `after`; with both tables also which cells.

    Cells are compared position by position in the rows that both have, by the hash's own equality: null equals
    null, NaN equals NaN, -0.0 equals 0.0. Rows put in front of others therefore change every cell.
    """
    old, new = _by_name(before), _by_name(after)
    places = {name: (list(old).index(name), list(new).index(name)) for name in old if name in new}
    common = [name for name in old if name in new]
    same_type = [name for name in common if old[name].type == new[name].type]
    changed = [name for name in same_type if old[name].digest != new[name].digest]
    both = None if table_before is None or table_after is None else (table_before, table_after)
    compared = min(before.rows, after.rows)
    return SnapshotDiff(
        before=before.id,
        after=after.id,
        rows_before=before.rows,
        rows_after=after.rows,
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        retyped=tuple((name, old[name].type, new[name].type) for name in common if name not in same_type),
        changed=tuple(
            ColumnChange(name)
            if both is None
            else _changed_cells(name, both[0].column(places[name][0]), both[1].column(places[name][1]), compared)
            for name in changed
        ),
        reordered=common != [name for name in new if name in old],
        compared=None if both is None else compared,
    )


def _by_name(content: Content) -> dict[str, ColumnDigest]:
    """The columns by name; of a name that several have, the second is told as "name (2)"."""
    found: dict[str, ColumnDigest] = {}
    for column in content.columns:
        name, number = column.name, 1
        while name in found:
            number += 1
            name = f"{column.name} ({number})"
        found[name] = column
    return found


def _changed_cells(name: str, before: pa.ChunkedArray, after: pa.ChunkedArray, rows: int) -> ColumnChange:
    cells = 0
    examples: list[tuple[int, Any, Any]] = []
    for start in range(0, rows, BLOCK_ROWS):
        length = min(BLOCK_ROWS, rows - start)
        old = plain(before.slice(start, length))
        new = plain(after.slice(start, length))
        positions = differing(old, new)
        cells += len(positions)
        for position in positions[: EXAMPLES - len(examples)]:
            examples.append((start + position, old[position].as_py(), new[position].as_py()))
    return ColumnChange(name, cells, tuple(examples))


def differing(old: pa.Array, new: pa.Array) -> list[int]:
    """Positions at which two plain arrays of one type and length differ."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    old, new = _decoded(old), _decoded(new)
    if pa.types.is_float16(old.type):
        old, new = old.cast(pa.float32()), new.cast(pa.float32())
    if pa.types.is_nested(old.type):
        values = zip(old.to_pylist(), new.to_pylist(), strict=True)
        return [position for position, (a, b) in enumerate(values) if not _equal(a, b)]
    if pa.types.is_null(old.type):
        return []
    differ = pc.fill_null(pc.not_equal(old, new), False).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(old.type):
        both_nan = pc.and_(pc.is_nan(old), pc.is_nan(new))
        differ = differ & ~pc.fill_null(both_nan, False).to_numpy(zero_copy_only=False)
    one_null = old.is_null().to_numpy(zero_copy_only=False) != new.is_null().to_numpy(zero_copy_only=False)
    positions: list[int] = np.flatnonzero(differ | one_null).tolist()
    return positions


def _equal(old: Any, new: Any) -> bool:
    """Whether two cells of a nested column are equal as the hash has it: NaN equals NaN, -0.0 equals 0.0."""
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return len(old) == len(new) and all(map(_equal, old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        return list(old) == list(new) and all(map(_equal, old.values(), new.values()))
    return bool(old == new) or (old != old and new != new)


# The hash


@dataclass
class _Stream:
    """Takes the blocks of one column, or of one child of a nested column, in order.

    kind: how values are fed.
    """

    type: str
    kind: Literal["null", "fixed", "bool", "bytes", "list", "map", "struct"]
    children: list[_Stream] = field(default_factory=list)
    rows: int = 0

    def __post_init__(self) -> None:
        import blake3

        self._validity, self._lengths, self._values = (blake3.blake3() for _ in range(3))

    def digest(self) -> bytes:
        import blake3

        whole = blake3.blake3(canonical_json([HASH, self.type, self.rows]))
        for part in (self._validity, self._lengths, self._values):
            whole.update(part.digest())
        for child in self.children:
            whole.update(child.digest())
        return whole.digest()

    def feed(self, block: pa.Array) -> None:
        if not len(block):
            return
        block = _decoded(block)
        self.rows += len(block)
        present = None if self.kind == "null" or not block.null_count else _present(block)
        self._validity.update(_ones(len(block)) if present is None else present)
        match self.kind:
            case "fixed":
                self._values.update(_fixed(block, present))
            case "bool":
                self._values.update(_bits(block, present))
            case "bytes":
                self._feed_bytes(block, present)
            case "list":
                self._feed_list(block)
            case "map":
                self._feed_list(block.cast(_entries_type(block.type)))
            case "struct":
                for child, values in zip(self.children, block.flatten(), strict=True):
                    child.feed(values)

    def _feed_bytes(self, block: pa.Array, present: Any) -> None:
        import numpy as np
        import pyarrow as pa

        types = pa.types
        if types.is_string_view(block.type) or types.is_binary_view(block.type):
            block = block.cast(pa.large_binary())
        lengths, start, stop = _spans(block)
        if present is not None and lengths[present == 0].any():  # bytes lie under nulls
            block = block.drop_null()
            _, start, stop = _spans(block)
            lengths = np.multiply(lengths, present)
        self._lengths.update(lengths.view(np.uint8))
        if stop > start:
            self._values.update(memoryview(block.buffers()[2])[start:stop])

    def _feed_list(self, block: pa.Array) -> None:
        import numpy as np
        import pyarrow.compute as pc

        lengths = pc.list_value_length(block).fill_null(0).to_numpy().astype(np.int64)
        self._lengths.update(lengths.view(np.uint8))
        elements = block.flatten()
        for start in range(0, len(elements), BLOCK_ROWS):
            self.children[0].feed(elements.slice(start, BLOCK_ROWS))


def _stream(name: str, kind: pa.DataType) -> _Stream:
    """An empty stream for a column of this type. The type's text leaves out what is only layout."""
    import pyarrow as pa

    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        inner = _stream(name, kind.storage_type)
        said = {name: getattr(kind, name, None) for name in ("shape", "dim_names", "permutation")}  # of a tensor
        told = canonical_json(said).decode() if any(one is not None for one in said.values()) else ""
        inner.type = f"{kind.extension_name}{told}<{inner.type}>"
        return inner
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _stream(name, kind.value_type)
    if types.is_null(kind):
        return _Stream("null", "null")
    if types.is_boolean(kind):
        return _Stream("bool", "bool")
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _Stream("string", "bytes")
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return _Stream("binary", "bytes")
    if types.is_map(kind):
        entry = _stream(name, _entries_type(kind).value_type)
        return _Stream(f"map<{entry.type}>", "map", [entry])
    if types.is_fixed_size_list(kind):
        item = _stream(name, kind.value_type)
        return _Stream(f"list<{item.type}>[{kind.list_size}]", "list", [item])
    if types.is_list(kind) or types.is_large_list(kind) or types.is_list_view(kind) or types.is_large_list_view(kind):
        item = _stream(name, kind.value_type)
        return _Stream(f"list<{item.type}>", "list", [item])
    if types.is_struct(kind) and kind.num_fields:
        members = [_stream(name, member.type) for member in kind.fields]
        names = [canonical_json(member.name).decode() for member in kind.fields]
        text = ", ".join(f"{key}: {member.type}" for key, member in zip(names, members, strict=True))
        return _Stream(f"struct<{text}>", "struct", members)
    if types.is_fixed_size_binary(kind) and kind.byte_width:
        return _Stream(str(kind), "fixed")
    if (types.is_primitive(kind) and not types.is_interval(kind)) or types.is_decimal(kind):
        return _Stream(str(kind), "fixed")
    raise ColumnTypeUnsupported(
        f"column '{name}' is {kind}, which no snapshot can hold.",
        expected="Numbers, text, bytes, booleans, times, decimals, lists and structs of these are expected.",
        column=name,
        type=str(kind),
    )


def _entries_type(kind: pa.DataType) -> pa.DataType:
    """The list of key-value structs that a map is."""
    import pyarrow as pa

    return pa.list_(pa.struct([pa.field("key", kind.key_type), pa.field("value", kind.item_type)]))


def _decoded(block: pa.Array) -> pa.Array:
    """The block without dictionary, run-end or extension dress."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(block, pa.ExtensionArray):
        return _decoded(block.storage)
    if isinstance(block, pa.DictionaryArray):
        values = block.dictionary
        if pa.types.is_string_view(values.type) or pa.types.is_binary_view(values.type):  # which cannot be taken from
            values = values.cast(plain_type(values.type))
        return _decoded(values.take(block.indices))
    if isinstance(block, pa.RunEndEncodedArray):
        return _decoded(pc.run_end_decode(block))
    return block


def _fixed(block: pa.Array, present: Any) -> Any:
    """The bytes of a fixed-width block: 0 under nulls, -0.0 as 0.0, one NaN. uint8 [rows * width]."""
    import numpy as np

    return _canonical_values(block, present).reshape(-1).view(np.uint8)


def _canonical_values(block: pa.Array, present: Any) -> Any:
    """A fixed-width block's values as numpy: floats as floats, the rest as unsigned integers or rows of bytes."""
    import numpy as np
    import pyarrow as pa

    width = block.type.bit_width // 8
    if width in (1, 2, 4, 8):
        values = _view(block, np.dtype(f"u{width}"))
    else:
        values = _view(block, np.dtype("u1"), width).reshape(-1, width)
    if present is not None:
        values = values * (present if values.ndim == 1 else present[:, None])
    if not pa.types.is_floating(block.type):
        return values
    floats = values.view(f"f{width}")
    with np.errstate(invalid="ignore"):
        floats = floats + floats.dtype.type(0)  # -0.0 + 0.0 is 0.0
        if np.isnan(floats.min()):
            floats[np.isnan(floats)] = np.nan
    return floats


def _bits(block: pa.Array, present: Any) -> Any:
    values = _unpacked(block.buffers()[1], block.offset, len(block))
    return values if present is None else values * present


def _present(block: pa.Array) -> Any:
    """1 for each row that has a value, else 0; uint8 [rows]. The block has at least one null."""
    return _unpacked(block.buffers()[0], block.offset, len(block))


def _unpacked(bitmap: pa.Buffer, offset: int, rows: int) -> Any:
    """Bits `offset` to `offset + rows` of an Arrow bitmap as bytes; uint8 [rows]."""
    import numpy as np

    first, skip = divmod(offset, 8)
    packed = np.frombuffer(bitmap, np.uint8, count=(skip + rows + 7) // 8, offset=first)
    return np.unpackbits(packed, count=skip + rows, bitorder="little")[skip:]


def _spans(block: pa.Array) -> tuple[Any, int, int]:
    """The byte lengths (int64 [rows]) of a block of text or bytes, and where its bytes begin and end."""
    import numpy as np
    import pyarrow as pa

    if not len(block):
        return np.zeros(0, np.int64), 0, 0
    large = pa.types.is_large_string(block.type) or pa.types.is_large_binary(block.type)
    dtype = np.dtype(np.int64 if large else np.int32)
    offsets = np.frombuffer(block.buffers()[1], dtype, count=len(block) + 1, offset=block.offset * dtype.itemsize)
    return np.subtract(offsets[1:], offsets[:-1], dtype=np.int64), int(offsets[0]), int(offsets[-1])


def _view(block: pa.Array, dtype: Any, per_row: int = 1) -> Any:
    import numpy as np

    start = block.offset * dtype.itemsize * per_row
    return np.frombuffer(block.buffers()[1], dtype, count=len(block) * per_row, offset=start)


def _ones(rows: int) -> memoryview:
    return memoryview(_ALL_PRESENT)[:rows]


_ALL_PRESENT = b"\x01" * BLOCK_ROWS


# The plain layout of a file


def plain_type(kind: pa.DataType, *, sized: bool = True) -> pa.DataType:
    """The type in which a file holds a column, and everything in it.

    sized: whether lists of a fixed size stay so; Arrow cannot read them from Parquet when one is null.
    """
    import pyarrow as pa

    types = pa.types
    inside = partial(plain_type, sized=sized)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return inside(kind.value_type)
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    if types.is_fixed_size_list(kind) and sized:
        return pa.list_(kind.value_field.with_type(inside(kind.value_type)), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_list_view(kind) or types.is_large_list_view(kind):
        return pa.list_(kind.value_field.with_type(inside(kind.value_type)))
    if types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(inside(kind.value_type)))
    return _of_parts(_coarse(kind), inside)


def _held_type(kind: pa.DataType) -> pa.DataType:
    """`kind` with the units that Parquet has: seconds are milliseconds there, and dates days; else as it is."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        held = _held_type(kind.value_type)
        return kind if held == kind.value_type else held
    if types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_held_type(kind.value_type)), kind.list_size)
    for is_kind, make in (
        (types.is_list, pa.list_),
        (types.is_large_list, pa.large_list),
        (types.is_list_view, pa.list_view),
        (types.is_large_list_view, pa.large_list_view),
    ):
        if is_kind(kind):
            return make(kind.value_field.with_type(_held_type(kind.value_type)))
    return _of_parts(_coarse(kind), _held_type)


def _coarse(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if pa.types.is_time32(kind):
        return pa.time32("ms")
    if pa.types.is_date64(kind):
        return pa.date32()
    return pa.timestamp("ms", kind.tz) if pa.types.is_timestamp(kind) and kind.unit == "s" else kind


def _of_parts(kind: pa.DataType, inside: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """A struct or map of what `inside` makes of its parts; anything else as it is."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return pa.struct([member.with_type(inside(member.type)) for member in kind.fields])
    if pa.types.is_map(kind):
        key, item = kind.key_field, kind.item_field
        return pa.map_(key.with_type(inside(key.type)), item.with_type(inside(item.type)))
    return kind


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column that comes in, as its Parquet file would give it; lists of a fixed size as lists."""
    import pyarrow as pa

    kind = plain_type(column.type, sized=False)
    if kind == column.type:
        return column
    return pa.chunked_array([_cast(chunk, kind, "") for chunk in column.chunks], kind)


def _cast(block: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    """`block` as `kind`, also where Arrow has no direct way, as between lists of categories and of text."""
    import pyarrow as pa

    if not isinstance(block, pa.ExtensionArray):
        block = _decoded(block)
    if block.type == kind:
        return block
    if pa.types.is_list(kind) and pa.types.is_nested(block.type):
        return _listed(block, kind, name)
    if pa.types.is_struct(kind) and pa.types.is_struct(block.type):
        parts = [_cast(part, inner.type, name) for part, inner in zip(block.flatten(), kind.fields, strict=True)]
        return pa.StructArray.from_arrays(parts, fields=kind.fields, mask=block.is_null())
    try:
        return block.cast(kind)
    except pa.ArrowInvalid as error:
        raise ColumnTypeUnsupported(
            f"column '{name}' is {block.type}, and holds what Parquet cannot: {error}",
            column=name,
            type=str(block.type),
        ) from None
    except pa.ArrowNotImplementedError:
        return pa.array(block.to_pylist(), kind)


def _listed(block: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    """Lists of any layout as lists; Arrow's own cast of list views gives arrays that end the process when written."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.list_value_length(block).fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = _cast(block.flatten(), kind.value_type, name)
    mask = block.is_null() if block.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=kind, mask=mask)


def plain(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece, as its digest sees it: decoded, one layout of text and bytes, one zero, one NaN."""
    import pyarrow as pa

    kind = plain_type(column.type)
    if column.type != kind:
        column = pa.chunked_array([_cast(chunk, kind, "") for chunk in column.chunks], kind)
    block = column.combine_chunks()
    if pa.types.is_floating(kind) and len(block):
        present = _present(block) if block.null_count else None
        return pa.array(_canonical_values(block, present), mask=None if present is None else present == 0)
    return block
