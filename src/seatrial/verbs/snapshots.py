"""Snapshots, looked at: which there are, what one holds, what came of its expectations, what changed since the last.

Everything is read from what was kept when they were taken; no row is read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seatrial.core.clock import from_us, iso
from seatrial.core.records import Event, Record
from seatrial.folder.workspace import Workspace

TOLD = ("profile", "notes", "expectations")


def listed(workspace: Workspace, source: str | None) -> list[dict[str, Any]]:
    """Every snapshot that was taken, oldest first, each compared with the one before it of the same source."""
    contents: dict[str, Mapping[str, Any]] = {}
    last: dict[str, str] = {}
    found = []
    for event in workspace.metadata.events(kind="snapshot.taken"):
        name, id = event.body["source"], event.subject
        if source not in (None, name):
            continue
        if id not in contents:
            contents[id] = workspace.record(id).body["content"]
        before = contents.get(last.get(name, ""))
        found.append(
            {
                "source": name,
                "id": id,
                "rows": contents[id]["rows"],
                "columns": len(contents[id]["columns"]),
                "changed_columns": None if before is None else changed(before, contents[id]),
                "warnings": sum(note["severity"] == "warn" for note in event.body.get("notes", []))
                + sum(not one["passed"] for one in event.body.get("expectations", [])),
                "taken_at": iso(from_us(event.recorded_at_us)),
                "actor": event.actor,
            }
        )
        last[name] = id
    return found


def shown(workspace: Workspace, record: Record) -> dict[str, Any]:
    """One snapshot: its columns, where it came from, and of the last time that it was taken (`source`, `taken_at`) its
    profile, what came of the expectations, and what changed against the snapshot before (`before`).

    profile, expectations: None in snapshots of versions that did not keep them.
    """
    events = workspace.metadata.events(subject=record.id, kind="snapshot.taken")
    newest = events[-1]
    before = _before(workspace, newest)
    return {
        "id": record.id,
        **record.body["content"],
        "source": newest.body["source"],
        "taken_at": iso(from_us(newest.recorded_at_us)),
        "actor": newest.actor,
        "before": before,
        "notes": newest.body.get("notes", []),
        "expectations": newest.body.get("expectations"),
        "profile": newest.body.get("profile"),
        "taken": [{name: value for name, value in event.body.items() if name not in TOLD} for event in events],
    } | ({} if before is None else _against(workspace.record(before).body["content"], record.body["content"]))


def _before(workspace: Workspace, event: Event) -> str | None:
    """The snapshot that the same source had when this one was taken."""
    earlier = [
        one
        for one in workspace.metadata.events(kind="snapshot.taken")
        if one.seq < event.seq and one.body["source"] == event.body["source"] and one.subject != event.subject
    ]
    return earlier[-1].subject if earlier else None


def _against(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    return {"rows_before": before["rows"], "changed_columns": changed(before, after)}


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Sequence[str]:
    """The columns that came, went, or hold something else."""
    from seatrial.data.snapshot import Content, diff

    found = diff(Content.from_plain(before), Content.from_plain(after))
    names = [*found.added, *found.removed, *(name for name, _, _ in found.retyped), *(c.name for c in found.changed)]
    return list(dict.fromkeys(names))
