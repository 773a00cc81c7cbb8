"""Upkeep: which views do live and candidate releases look up that the project no longer declares like that?

A release names the rows of the online store by the digest of the view as it was trained with. When the view is
changed or removed, that digest is no longer the project's, but the release goes on to answer from it. So what
writes to the online store writes these views too, as they were frozen, from the source of the same name.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.errors import Failed, UsageError
from seatrial.features.plan import ViewPlan
from seatrial.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.data.sources import Source
    from seatrial.features.definitions import FeatureView
    from seatrial.features.materialize import Written
    from seatrial.stores.online import SqliteOnlineStore


Schemas = Mapping[str, "pa.Schema | None"]
"""The columns of sources, by name; None where nothing is known of them yet."""


class NotKeptUp(UserWarning):
    """A live or candidate release looks up a view that nothing feeds any more."""


@dataclass(frozen=True)
class Needed:
    """A view as a release froze it. source: what the project now declares under its source's name; None: nothing."""

    plan: ViewPlan
    release: str
    source: Source | None


def freeze(workspace: Workspace, views: Sequence[FeatureView], schemas: Schemas, by: str) -> list[str]:
    """Write down each view, once for each digest; the ids of the records that are new.

    schemas: the columns of the views' sources, raw and derived, by source name. by: the verb, for the audit log.
    """
    from seatrial.features.frozen import FROZEN, record_id, record_of

    new = [view for view in views if workspace.metadata.record(record_id(view.digest)) is None]
    if not new:
        return []
    records = [record_of(view, schemas, declared_in(workspace, view.name)) for view in new]
    done = []
    with workspace.metadata.transaction() as transaction:
        for view, record in zip(new, records, strict=True):
            if workspace.metadata.record(record.id) is None:  # nobody was faster
                transaction.add(record)
                body = {"view": view.name, "digest": view.digest, "by": by}
                workspace.event(transaction, FROZEN, record.id, body)
                done.append(record.id)
    return done


def declared_in(workspace: Workspace, view: str) -> str:
    """File and line of a view's declaration, as "project.py:12"; empty where they are not known."""
    pattern = re.compile(rf"""^\s*class\s+{view}\b|\bshared_view\([^)]*["']{view}["']""", re.MULTILINE)
    for file in workspace.definitions.files:
        text = file.read_text(encoding="utf-8", errors="replace")
        if match := pattern.search(text):
            return f"{file.name}:{text.count(chr(10), 0, match.end()) + 1}"
    return ""


def needed(workspace: Workspace, model: str | None = None) -> list[Needed]:
    """The views of live and candidate releases (of one model, or all) that the project does not declare like that."""
    if not workspace.sqlite_path("metadata").exists():
        return []
    declared = {view.digest for view in workspace.definitions.views.values()}
    found: dict[str, Needed] = {}
    for id in _releases(workspace):
        release = workspace.record(id)
        if model not in (None, release.name):
            continue
        for plain in release.body["manifest"]["plan"]["views"]:
            plan = msgspec.convert(plain, ViewPlan)
            if plan.digest not in declared and plan.digest not in found:
                source = workspace.definitions.sources.get(plan.source.name) if plan.source else None
                found[plan.digest] = Needed(plan, id, source)
    return list(found.values())


def write_needed(
    views: Sequence[Needed], tables: Mapping[str, pa.Table], store: SqliteOnlineStore, **how: Any
) -> list[Written]:
    """Take rows into the online store for each of `views`; one that cannot take them says why, and warns.

    tables: rows by source name. how: the times that `features.materialize.write` takes.
    """
    from seatrial.features.materialize import Written, write

    done = []
    for one in views:
        try:
            if one.source is None:
                raise UsageError(_unfed(one.plan))
            if one.source.name not in tables:
                raise UsageError(f"it takes rows of source '{one.source.name}', pushed under that name.")
            written = write(one.plan, tables[one.source.name], store, **how)
        except (Failed, UsageError) as error:
            written = Written(one.plan.name, 0, 0, 0, 0, 0, problem=error.found)
            warnings.warn(
                f"release {one.release} looks up view '{one.plan.name}' as it was frozen there; its online features "
                f"were not brought up to date: {error.found} Declare the source as it was, or deploy a release of the "
                "views as they are now.",
                NotKeptUp,
                stacklevel=3,
            )
        done.append(msgspec.structs.replace(written, release=one.release))
    return done


def _releases(workspace: Workspace) -> list[str]:
    """The ids of the live releases, then of those of candidates, each once."""
    from seatrial.deployment.deploy import KIND
    from seatrial.registry.versions import CANDIDATE

    metadata = workspace.metadata
    found = [id for head in metadata.heads(KIND) for id in workspace.record(head.record_id).inputs]
    for head in metadata.heads("alias"):
        release = metadata.head("version_release", head.record_id) if head.name.endswith(f"@{CANDIDATE}") else None
        found += [release.record_id] if release else []
    return list(dict.fromkeys(found))


def _unfed(plan: ViewPlan) -> str:
    if plan.source is None:
        return f"the release was packed before releases named the source of view '{plan.name}'."
    return f"source '{plan.source.name}' is no longer declared."
