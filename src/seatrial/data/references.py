"""References: snapshots whose rows stay where they are, because the source keeps its old versions.

Such a snapshot has the id of its content like every other. Instead of a copy it keeps where the rows are (a Delta table
and its version) and what was declared of reading them. Whoever reads it reads that version again, and every value is
checked against the digests, so that a table that was written anew under the same version number is found out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatrial.core.errors import Failed
from seatrial.data.expectations import SetAside
from seatrial.data.snapshot import Content, SnapshotDamaged, content, diff
from seatrial.data.sources import DeltaSource, Source

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.data.reading import Reading


class SnapshotGone(Failed):
    """A snapshot refers to a version of a table that is no longer there."""

    code = "data.snapshot_gone"


def reference(source: Source, reading: Reading) -> dict[str, Any] | None:
    """Where the rows of `reading` stay, as plain values; None when they are to be copied."""
    if not isinstance(source, DeltaSource) or not source.by_reference:
        return None
    declared = ("name", "path", "event_timestamp", "known_at", "label_known_at", "timezone")
    return {
        "kind": "delta",
        "version": reading.versions[source.name],
        **{name: getattr(source, name) for name in declared},
        "event_key": list(source.event_key),
        "set_aside": [{"where": rule.where, "reason": rule.reason} for rule in source.set_aside],
    }


def load_reference(where: Mapping[str, Any], promised: Content, folder: Path) -> tuple[Content, pa.Table]:
    """The rows that a reference stands for, every value checked. folder: where relative paths start.

    Raises SnapshotGone when the version was vacuumed or the table is gone, SnapshotDamaged when it holds other data.
    """
    from seatrial.data.delta import VersionMissing
    from seatrial.data.reading import SourceMissing, SourceUnreadable, read

    given = {name: value for name, value in where.items() if name not in ("kind", "set_aside")}
    source = DeltaSource(**given, set_aside=[SetAside(**rule) for rule in where["set_aside"]], by_reference=True)
    what = f"version {where['version']} of the Delta table {where['path']!r}"
    try:
        table = read(source, folder=folder).table
    except (VersionMissing, SourceMissing, SourceUnreadable) as error:
        raise SnapshotGone(
            f"snapshot {promised.id} refers to {what}, which can no longer be read: {error.found}",
            expected="The version is kept while a snapshot that is needed refers to it.",
            next="Restore the table from a backup, keep versions longer than a vacuum does, or declare the source "
            "without by_reference=True, so that the next snapshot is a copy.",
            snapshot=promised.id,
        ) from None
    found = content(table)
    if found != promised:
        broken = ", ".join(change.name for change in diff(promised, found).changed) or "rows or columns"
        raise SnapshotDamaged(
            f"{what} holds other data than snapshot {promised.id}, which refers to it: {broken} changed.",
            next="The table was written anew. Restore it from a backup.",
            snapshot=promised.id,
        )
    return promised, table
