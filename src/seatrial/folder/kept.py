"""Kept: what one project has read and worked out while the files below stayed as they are.

A look at a challenger, a report and a training read the same tables minutes apart. A file counts as the same while
its name, size, inode and time of change are, a Delta table while its log is; what was worked out from tables counts
while the very tables do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from seatrial.core.errors import SeatrialError
from seatrial.data.sources import CsvSource, DeltaSource, ParquetSource, Source

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.data.reading import Reading

Made = TypeVar("Made")
Seen = tuple[tuple[str, int, int, int], ...]


class Kept:
    """For one project; it lives and dies with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._readings: dict[str, tuple[Source, Seen, Reading]] = {}
        self._made: dict[tuple[Any, ...], tuple[tuple[Any, ...], Any]] = {}

    def reading(self, source: Source, read: Callable[[], Reading]) -> Reading:
        """What `source` holds: as read before when its files are the same, else as `read` reads it now."""
        seen = self._seen(source)
        kept = self._readings.get(source.name)
        if kept is not None and kept[0] is source and seen is not None and kept[1] == seen:
            return kept[2]
        reading = read()
        if seen is not None:
            if kept is not None:
                self._made.clear()  # it was worked out from rows that are no longer there
            self._readings[source.name] = (source, seen, reading)
        return reading

    def made(self, what: str, source: Source, tables: list[pa.Table], make: Callable[[], Made]) -> Made:
        """What `make` makes of `source` and these very tables, once."""
        key = (what, id(source), *(id(table) for table in tables))
        if key not in self._made:
            self._made[key] = ((source, tables), make())  # what is held cannot lose its identity to something else
        found: Made = self._made[key][1]
        return found

    def _seen(self, source: Source) -> Seen | None:
        """The files of a source as they are now; None for one that is no file, or whose files cannot be looked at."""
        from seatrial.data.reading import matching

        if not isinstance(source, ParquetSource | CsvSource | DeltaSource):
            return None
        try:
            paths = [self._folder / source.path]
            if isinstance(source, ParquetSource):
                paths = matching(source, self._folder)
            elif isinstance(source, DeltaSource):
                paths = sorted((self._folder / source.path / "_delta_log").iterdir())
            stats = [(path, path.stat()) for path in paths]
        except (OSError, SeatrialError):
            return None  # reading, which comes next, says why
        return tuple((str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino) for path, stat in stats) or None
