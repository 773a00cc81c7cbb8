"""A DuckDB session that is the same everywhere: UTC, no surprises from outside, no extension fetched.

Whatever runs SQL on source rows runs it here. With `files=False`, which is what SQL written by a user gets,
the session sees the given tables and nothing else: no file, no address, no variable of the program.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

LONGEST_WORDS = 300
ROW = "__row"
MEMORY = "128MiB"


@contextmanager
def session(
    tables: Mapping[str, pa.Table] | None = None,
    *,
    files: bool = False,
    threads: int = 1,
    spill: Path | None = None,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in memory that sees `tables` by name, closed at the end of the block.

    files: whether SQL may read files. threads: 1 keeps the row order of every result the same; only reading of
    files, which keeps it at any number, takes more. spill: a folder for what does not fit into MEMORY; None: nothing
    is written, and memory is as large as it takes.
    """
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": threads,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
    }
    if spill is not None:
        settings |= {"memory_limit": MEMORY, "temp_directory": str(spill)}
    connection = duckdb.connect(":memory:", config=settings)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")  # which would go to stdout, into the answer
        for name, table in (tables or {}).items():
            connection.register(name, table)
        if not files:
            connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection
    finally:
        connection.close()


def with_row_numbers(table: pa.Table) -> pa.Table:
    """`table` and a column `__row` with each row's position, from 0: how SQL answers "which rows"."""
    import numpy as np
    import pyarrow as pa

    return table.append_column(ROW, pa.array(np.arange(table.num_rows)))


def is_one_select(sql: str) -> bool:
    """Whether `sql` is exactly one statement, and that one only reads. Raises duckdb.Error when it cannot be parsed."""
    import duckdb

    statements = duckdb.extract_statements(sql)
    return len(statements) == 1 and statements[0].type == duckdb.StatementType.SELECT


def quoted(name: str) -> str:
    """A column or table name for SQL, in double quotes only where it needs them."""
    if re.fullmatch(r"[a-z_][a-z0-9_]*", name) and name not in _reserved():
        return name
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def in_one_line(error: Exception) -> str:
    """What a driver said, without its kind, its advice on options we do not offer, and its line breaks."""
    words = re.split(r"\n\s*(?:Possible |LINE \d|\s*file = )", str(error), maxsplit=1)[0]
    words = re.sub(r"^(?:[A-Z][A-Za-z-]* )+Error: ", "", " ".join(words.split()))
    return words if len(words) <= LONGEST_WORDS else words[: LONGEST_WORDS - 3] + "..."


_RESERVED: frozenset[str] = frozenset()


def _reserved() -> frozenset[str]:
    global _RESERVED
    if not _RESERVED:
        import duckdb

        with duckdb.connect(":memory:") as connection:
            words = connection.execute(
                "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
            )
            _RESERVED = frozenset(word for (word,) in words.fetchall())
    return _RESERVED
