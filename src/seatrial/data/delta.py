"""Delta: what are the rows of one version of a Delta table, and which version was that?

The rows come file by file, in the order in which the files were written (those of one moment by path), so that one
version gives the same table each time.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from seatrial.core.errors import Failed, did_you_mean, listed
from seatrial.data.reading import SourceMissing, unreadable
from seatrial.data.session import in_one_line
from seatrial.data.sources import DeltaSource, SourceExtraMissing, require_columns

if TYPE_CHECKING:
    import pyarrow as pa

LOG = "_delta_log"


class VersionMissing(Failed):
    """A Delta table does not have the version that its source names, or no longer."""

    code = "data.version_missing"


def rows(source: DeltaSource, folder: Path, only: Sequence[str] | None, threads: int) -> tuple[pa.Table, int]:
    """The rows of `source`, and the version that was read. only: the columns to read; None: all.

    Raises SourceExtraMissing, SourceMissing, VersionMissing, SourceUnreadable, ColumnMissing.
    """
    if importlib.util.find_spec("deltalake") is None:
        raise SourceExtraMissing(
            f"source '{source.name}' is a DeltaSource, which needs the package 'deltalake'; it is not installed.",
            next='Install seatrial with its extra: pip install "seatrial[delta]".',
        )
    import pyarrow as pa
    import pyarrow.dataset as ds
    from deltalake.exceptions import DeltaError

    path = _existing(source, folder)
    table = _opened(source, path)
    try:
        whole = table.to_pyarrow_dataset()
        require_columns(source, whole.schema.empty_table(), only or ())
        actions = pa.table(table.get_add_actions(flatten=True))
        written = dict(zip(actions["path"].to_pylist(), actions["modification_time"].to_pylist(), strict=True))
        moments = {unquote(name): moment for name, moment in written.items()} | written
        parts = sorted(whole.get_fragments(), key=lambda one: (moments.get(one.path, 0), one.path))
        ordered = ds.FileSystemDataset(parts, whole.schema, whole.format, whole.filesystem) if parts else whole
        names = whole.schema.names if only is None else [name for name in whole.schema.names if name in only]
        found = ordered.to_table(columns=names, use_threads=threads > 1).replace_schema_metadata(None)
    except FileNotFoundError:
        raise unreadable(
            source, f"has lost files of version {table.version()}, which a vacuum may have taken away", path
        ) from None
    except (DeltaError, pa.ArrowException, OSError) as error:
        raise unreadable(source, f"cannot be read in version {table.version()}: {in_one_line(error)}", path) from None
    return found, int(table.version())


def _existing(source: DeltaSource, folder: Path) -> Path:
    path = folder / source.path
    if (path / LOG).is_dir():
        return path
    beside = sorted(one.name for one in path.parent.iterdir() if (one / LOG).is_dir()) if path.parent.is_dir() else []
    where = f"is no Delta table, it has no folder {LOG}" if path.exists() else "is not there"
    raise SourceMissing(
        f"the Delta table {source.path!r} of source '{source.name}' {where} (looked for {path}).",
        expected=f"That folder has the Delta tables {listed(beside)}. {did_you_mean(path.name, beside)}".strip(),
        next=f"Correct the path of source '{source.name}' in project.py.",
        source=source.name,
        path=str(path),
    )


def _opened(source: DeltaSource, path: Path) -> Any:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        return DeltaTable(path, version=source.version)
    except (DeltaError, OSError, OverflowError, ValueError) as error:
        if source.version is None:
            raise unreadable(source, f"is no readable Delta table: {in_one_line(error)}", path) from None
        reason = in_one_line(error)
    known = _versions(source, path)
    if source.version in known:
        raise unreadable(source, f"cannot be opened in version {source.version}: {reason}", path)
    raise VersionMissing(
        f"the Delta table of source '{source.name}' has no version {source.version}.",
        expected=f"It has {_spans(known)}.",
        next="Name one of these as version=, or leave it out for the newest.",
        source=source.name,
        version=source.version,
        known=known,
    )


def _versions(source: DeltaSource, path: Path) -> list[int]:
    """The versions that can still be opened, ascending: those that the log has every step of, or a checkpoint."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    def opens(version: int) -> bool:
        try:
            DeltaTable(path, version=version)
        except (DeltaError, OSError, OverflowError, ValueError):
            return False
        return True

    try:
        newest = DeltaTable(path).version()
    except (DeltaError, OSError, ValueError) as error:
        raise unreadable(source, f"is no readable Delta table: {in_one_line(error)}", path) from None
    written = sorted(int(one.stem) for one in (path / LOG).glob("*.json") if one.stem.isdigit())
    first = next((version for version in written if opens(version)), newest)
    return list(range(first, newest + 1))


def _spans(versions: Sequence[int]) -> str:
    if len(versions) == 1:
        return f"version {versions[0]} alone"
    return f"the versions {versions[0]} to {versions[-1]}"
