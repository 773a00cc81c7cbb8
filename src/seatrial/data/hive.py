"""Hive partitions: which columns do the folders of a path hold, as in year=2013/month=4/part-0.parquet?

A column of whole numbers or of dates (2013-04-01) where every value is one, else of text; `%20` and its like are
decoded, and `__HIVE_DEFAULT_PARTITION__` is null. The columns follow those of the files, in the order of the path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from seatrial.core.errors import listed
from seatrial.data.sources import BadSource, ParquetSource

if TYPE_CHECKING:
    import pyarrow as pa

NULL = "__HIVE_DEFAULT_PARTITION__"
INT64 = range(-(2**63), 2**63)


def partitions(source: ParquetSource, paths: Sequence[Path], folder: Path) -> dict[str, pa.Array]:
    """Column -> its value for each of `paths`; none when the source has no partitions, or does not ask for them.

    Only folders below the project's folder count, or in the path as it is declared.
    Raises BadSource when some files have other partitions than the first, or `hive=True` finds none.
    """
    if source.hive is False or (source.hive is None and (folder / source.path) == paths[0]):
        return {}
    found = [_of(path.relative_to(folder) if path.is_relative_to(folder) else path) for path in paths]
    names = list(found[0])
    for path, values in zip(paths, found, strict=True):
        if list(values) != names:
            raise BadSource(
                f"the files of source '{source.name}' have different partitions: {paths[0]} has {listed(names)}, "
                f"{path} has {listed(values)}.",
                expected="Every file lies in folders of the same names, in the same order.",
                next="Correct the path, or give hive=False when the folders are no columns.",
                source=source.name,
            )
    if source.hive and not names:
        raise BadSource(
            f"source '{source.name}' is declared with hive=True, but {paths[0]} lies in no folder such as year=2013.",
            expected="Folders named column=value are expected.",
            next="Correct the path, or leave hive= out.",
            source=source.name,
        )
    return {name: _typed([values[name] for values in found]) for name in names}


def with_partitions(source: ParquetSource, table: pa.Table, values: Mapping[str, Any], path: Path) -> pa.Table:
    """`table`, read from `path`, and its partitions. A column that the file itself has must hold nothing else.

    values: column -> an Arrow scalar. Raises BadSource for a column in which file and path disagree.
    """
    import pyarrow as pa

    for name, value in values.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.repeat(value, table.num_rows))
        elif not _agrees(table[name], value):
            raise BadSource(
                f"column '{name}' of source '{source.name}' is in the path {path} as {value.as_py()!r}, and in the "
                f"file with other values.",
                expected="A column that both have must hold the value of the path in every row.",
                next="Correct the files, or give hive=False: then the column of the files counts.",
                source=source.name,
                column=name,
            )
    return table


def _of(path: PurePath) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for part in path.parts[:-1]:
        name, equals, text = part.partition("=")
        if equals and name:
            found[unquote(name)] = None if text == NULL else unquote(text)
    return found


def _typed(texts: Sequence[str | None]) -> pa.Array:
    import pyarrow as pa

    present = [text for text in texts if text is not None]
    if present and all(re.fullmatch(r"-?[0-9]{1,19}", text) and int(text) in INT64 for text in present):
        return pa.array([None if text is None else int(text) for text in texts], pa.int64())
    if present and all(_is_date(text) for text in present):
        return pa.array([None if text is None else date.fromisoformat(text) for text in texts], pa.date32())
    return pa.array(texts, pa.string())


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _agrees(column: pa.ChunkedArray, value: pa.Scalar) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not value.is_valid:
        return bool(column.null_count == len(column))
    try:
        plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        equal = pc.all(pc.equal(plain, value.cast(plain.type)), skip_nulls=False)
    except pa.ArrowException:
        return False
    return equal.as_py() is True or not len(column)
