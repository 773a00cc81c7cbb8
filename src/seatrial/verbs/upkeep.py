"""Upkeep: what do live and candidate releases look up, and can the project as it is declared now still feed it?

A release names the rows of the online store by the digest of the view as it was trained with. When the view is
changed or removed, that digest is no longer the project's, but the release goes on to answer from it. So what
writes to the online store writes these views too, as they were frozen, from the source of the same name.

That goes as long as a source of that name means what it meant. A change after which it does not would let a live
release answer from rows that grow old, or from rows that mean something else; it is refused, by the release's name,
before anything is written.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.errors import Conflict, Failed, UsageError, listed
from seatrial.data.expectations import Result, ValidationReport
from seatrial.features.plan import ViewPlan
from seatrial.features.shared import SharedView
from seatrial.folder.loading import view_lines
from seatrial.folder.workspace import Workspace
from seatrial.stores.online import OnlineStoreDamaged, OnlineStoreTooNew

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.core.records import Record
    from seatrial.data.sources import Source
    from seatrial.features.definitions import FeatureView
    from seatrial.features.frozen import FrozenSource
    from seatrial.features.materialize import Writing, Written


Schemas = Mapping[str, "pa.Schema | None"]
"""The columns of sources, by name; None where nothing is known of them yet."""


class BreaksLiveRelease(Conflict):
    """A change of the project would leave a live release without its features, or with others. facts: `broken`."""

    code = "project.breaks_live_release"


class ViewRetyped(Conflict):
    """The columns of a view have other types than when its online rows were made."""

    code = "project.view_retyped"


class NotKeptUp(UserWarning):
    """A live or candidate release looks up a view that nothing feeds any more."""


@dataclass(frozen=True)
class Needed:
    """A view as a release froze it.

    source: what the project now declares under its source's name; None: nothing. columns: the types of that source's
    columns when the release was trained, where they are known.
    """

    plan: ViewPlan
    release: str
    source: Source | None
    columns: Mapping[str, str]


@dataclass(frozen=True)
class Broken:
    """What keeps the project from feeding one view of a live release. differences: one sentence each."""

    release: str
    model: str
    deployments: tuple[str, ...]
    view: str
    differences: tuple[str, ...]

    @property
    def who(self) -> str:
        return f"release {self.release} of model '{self.model}', live in {listed(self.deployments)}"


@dataclass(frozen=True, kw_only=True)
class ReleaseReport(ValidationReport):
    """That a live release's view can no longer be fed, beside the other reports of `validate`. source: the release."""

    broken: Broken

    def as_plain(self) -> dict[str, Any]:
        return super().as_plain() | {"kind": "release"}


def broken(workspace: Workspace, tables: Mapping[str, pa.Table] | None = None) -> list[Broken]:
    """Each view of a live release that the project, as it is declared, can no longer feed.

    tables: rows of raw sources as they are now, by name: columns and types are compared for what can be read from
    them. Without tables only declarations are.
    """
    if not workspace.sqlite_path("metadata").exists():
        return []
    found = []
    for id, deployments in live_releases(workspace).items():
        release = workspace.record(id)
        for plain in release.body["manifest"]["plan"]["views"]:
            plan = msgspec.convert(plain, ViewPlan)
            differences = _differences(workspace, release, plan, tables or {}) if plan.source else []
            if differences:
                found.append(Broken(id, release.name, deployments, plan.name, tuple(differences)))
    return found


def refuse(workspace: Workspace, tables: Mapping[str, pa.Table] | None = None) -> None:
    """Raise BreaksLiveRelease when a live release's view can no longer be fed. tables: as for `broken`."""
    found = broken(workspace, tables)
    if found:
        raise breaking(found)


def reports(workspace: Workspace, tables: Mapping[str, pa.Table]) -> list[ReleaseReport]:
    """A report for each view of a live release that can no longer be fed. tables: as for `broken`."""
    found = []
    for one in broken(workspace, tables):
        what = f"view '{one.view}', live in {listed(one.deployments)}, can be fed"
        results = tuple(Result(what, passed=False, failing=None, detail=words) for words in one.differences)
        found.append(ReleaseReport(f"release {one.release}", 0, results, broken=one))
    return found


def breaking(found: Sequence[Broken]) -> BreaksLiveRelease:
    """The error that names every live release that would break, and what differs."""
    first = found[0]
    more = f" {len(found) - 1} more views of live releases cannot be fed either." if len(found) > 1 else ""
    lines = [f"  {one.who}, view '{one.view}': {words}" for one in found for words in one.differences]
    if len(found) == 1:
        lines = [f"  {words}" for words in first.differences]
    return BreaksLiveRelease(
        f"{first.who}, reads view '{first.view}' as it was frozen; as it is declared now, the project can no longer "
        f"feed it.{more}",
        expected="\n".join(lines),
        next="Keep the source under its old name and as it was, and declare the new one beside it under another name; "
        "take the old one out when a release of the new definition is live. Or deploy a release that needs neither.",
        broken=tuple(found),
    )


def live_releases(workspace: Workspace) -> dict[str, tuple[str, ...]]:
    """The ids of the live releases, each with the deployments that it is live in."""
    from seatrial.deployment.deploy import KIND

    found: dict[str, tuple[str, ...]] = {}
    for head in workspace.metadata.heads(KIND):
        for id in workspace.record(head.record_id).inputs:
            found[id] = (*found.get(id, ()), head.name)
    return found


def _trained_over(workspace: Workspace, release: Record, plan: ViewPlan) -> FrozenSource | None:
    """The source of a view as a release was trained over it; None for releases that are older than such records."""
    from seatrial.features.frozen import FrozenSource, record_id, thaw

    run = workspace.metadata.record(release.inputs[1]) if len(release.inputs) > 1 else None
    kept = run.body.get("sources", {}).get(plan.name) if run else None
    if kept is not None:
        return msgspec.convert(kept, FrozenSource)
    frozen = workspace.metadata.record(record_id(plan.digest))
    return thaw(frozen).source if frozen else None


def _differences(workspace: Workspace, release: Record, plan: ViewPlan, tables: Mapping[str, pa.Table]) -> list[str]:
    from seatrial.features.feeding import differences

    assert plan.source is not None
    before = _trained_over(workspace, release, plan)
    name, declared = plan.source.name, workspace.definitions
    for view in declared.views.values():
        if isinstance(view, SharedView) and view.stands_for(plan.digest):  # wherever its project lies now
            return differences(plan, before, {name: view.source}, _renamed(view, name, tables))
    return differences(plan, before, declared.sources_like(name), tables)


def _renamed(view: SharedView, name: str, tables: Mapping[str, pa.Table]) -> Mapping[str, pa.Table]:
    """The tables, in which that of a shared view's source has the name that it was frozen under too."""
    return {**tables, name: tables[view.source.name]} if view.source.name in tables else tables


def columns_needed(views: Sequence[FeatureView], frozen: Sequence[Needed], schema: pa.Schema | None) -> list[str]:
    """The columns of a source that a pushed row must have, if only as null: those that the views over it read.

    schema: the source's columns, None when they are not known; of a frozen view only those of them count.
    """
    from seatrial.features.plan import plan_view

    names = list(schema.names) if schema is not None else []
    needs = [column for view in views for column in plan_view(view).columns_read(names)]
    needs += [column for one in frozen if one.source for column in one.plan.columns_read(names) if column in names]
    return list(dict.fromkeys(needs))


def refuse_retyped(workspace: Workspace, views: Sequence[FeatureView], tables: Mapping[str, pa.Table]) -> None:
    """Raise ViewRetyped when a view's columns have other types than the rows that are online were made of."""
    from seatrial.features.feeding import column_differences, schema_of
    from seatrial.features.plan import plan_view

    for view in views:
        schema = schema_of(view.source, tables)
        told = workspace.metadata.events(subject=f"view/{view.name}", kind="features.materialized")
        own = [one.body["columns"] for one in told if one.body.get("digest") == view.digest and one.body.get("columns")]
        found = column_differences(plan_view(view), own[-1], view.source.name, schema) if own and schema else []
        if found and workspace.online.count(view.digest):
            raise ViewRetyped(
                f"the online rows of view '{view.name}' were made of other types. {' '.join(found)}",
                expected="One definition has one type for each of its columns.",
                next="Cast the column back in a QuerySource, which makes it another definition; or, when nothing reads "
                "what is online, move the online store away and materialize anew.",
            )


def types_read(view: FeatureView, schemas: Schemas) -> dict[str, str]:
    """The Arrow types of a source's columns, for `refuse_retyped`."""
    schema = schemas.get(view.source.name)
    return {field.name: str(field.type) for field in schema} if schema is not None else {}


def freeze(workspace: Workspace, views: Sequence[FeatureView], schemas: Schemas, by: str) -> list[str]:
    """Write down each view, once for each digest; the ids of the records that are new.

    schemas: the columns of the views' sources, raw and derived, by source name. by: the verb, for the audit log.
    """
    from seatrial.features.frozen import FROZEN, record_id, record_of

    new = [view for view in views if workspace.metadata.record(record_id(view.digest)) is None]
    if not new:
        return []
    files = workspace.definitions.files
    records = [record_of(view, schemas, next(iter(view_lines(files, view.name)), "")) for view in new]
    done = []
    with workspace.metadata.transaction() as transaction:
        for view, record in zip(new, records, strict=True):
            if workspace.metadata.record(record.id) is None:  # nobody was faster
                transaction.add(record)
                body = {"view": view.name, "digest": view.digest, "by": by}
                workspace.event(transaction, FROZEN, record.id, body)
                done.append(record.id)
    return done


def needed(workspace: Workspace, model: str | None = None) -> list[Needed]:
    """The views of live and candidate releases (of one model, or all) that the project does not declare like that."""
    if not workspace.sqlite_path("metadata").exists():
        return []
    views = workspace.definitions.views.values()
    shared = [view for view in views if isinstance(view, SharedView)]
    declared = {view.digest for view in views if not isinstance(view, SharedView)}
    found: dict[str, Needed] = {}
    for id in releases(workspace):
        release = workspace.record(id)
        if model not in (None, release.name):
            continue
        for plain in release.body["manifest"]["plan"]["views"]:
            plan = msgspec.convert(plain, ViewPlan)
            as_now = plan.digest in declared or any(view.stands_for(plan.digest) for view in shared)
            if not as_now and plan.digest not in found:
                name = plan.source.name if plan.source else ""
                source = workspace.definitions.sources_like(name).get(name)
                before = _trained_over(workspace, release, plan)
                found[plan.digest] = Needed(plan, id, source, before.columns if before else {})
    return list(found.values())


def write_needed(
    views: Sequence[Needed], tables: Mapping[str, pa.Table], writing: Writing, **how: Any
) -> list[Written]:
    """Take rows into the online store for each of `views`; one that cannot take them says why, and warns.

    tables: rows by source name. how: the times that `features.materialize.prepare` takes.
    """
    from seatrial.features.feeding import column_differences
    from seatrial.features.materialize import Written, prepare

    done = []
    for one in views:
        try:
            if one.source is None:
                raise UsageError(_unfed(one.plan))
            if one.source.name not in tables:
                raise UsageError(f"it takes rows of source '{one.source.name}', pushed under that name.")
            rows = tables[one.source.name]
            retyped = column_differences(one.plan, one.columns, one.source.name, rows.schema)
            if retyped:
                raise UsageError(" ".join(retyped))
            written = writing.take_in(prepare(one.plan, rows, **how))
        except (OnlineStoreDamaged, OnlineStoreTooNew):
            raise  # it is no matter of this view
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


def releases(workspace: Workspace) -> list[str]:
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
