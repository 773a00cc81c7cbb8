"""Reuse: which features are there, who uses them, and which of them are one feature declared twice?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import SeatrialError, UsageError, did_you_mean, listed
from seatrial.core.records import Record
from seatrial.data.expectations import Result, ValidationReport
from seatrial.data.sources import FrameSource, QuerySource, Source
from seatrial.features import catalogue
from seatrial.features.definitions import FeatureView
from seatrial.features.frozen import (
    FROZEN,
    KIND,
    SHORTEST,
    FrozenSource,
    FrozenView,
    changes,
    frozen,
    frozen_source,
    thaw,
)
from seatrial.features.plan import FeaturePlan, ViewPlan
from seatrial.features.request_time import RequestFunction
from seatrial.features.shared import AT, SharedRows, SharedSource, SharedView
from seatrial.folder.workspace import Workspace
from seatrial.verbs.upkeep import live_releases, releases

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.training.model import Model

LIVE, CANDIDATE = "live", "candidate"


class UnknownFeature(UsageError):
    """No view, feature, request-time function or source has this name."""

    code = "project.unknown_feature"


class ReleaseUse(msgspec.Struct, frozen=True):
    """A release that reads it. state: live or candidate; as_declared: it reads the view as it is declared now."""

    release: str
    model: str
    version: int
    state: str
    deployments: list[str]
    as_declared: bool


class Use(msgspec.Struct, frozen=True):
    """Who uses it. kind: view, feature, function or source. views: those over a source, or that have the feature."""

    name: str
    kind: str
    views: list[str]
    functions: list[str]
    models: list[str]
    releases: list[ReleaseUse]
    deployments: list[str]


class Version(msgspec.Struct, frozen=True):
    """A view as it was frozen. by: the verb that froze it; declared: the project declares it like that now."""

    digest: str
    frozen_at: str
    by: str
    declared_in: str
    declared: bool


@dataclass(frozen=True)
class ReuseReport(ValidationReport):
    """That a view's features exist already; a note that stops nothing. source: the view."""

    def as_plain(self) -> dict[str, Any]:
        return super().as_plain() | {"kind": "reuse"}


class Reuse:
    """Looks at what a workspace declares, froze and released, once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @cached_property
    def unreadable(self) -> dict[str, SeatrialError]:
        """The shared views that cannot be looked up now, and why."""
        found = {}
        for name, view in self._workspace.definitions.views.items():
            try:
                _ = view.digest
            except SeatrialError as error:
                found[name] = error
        return found

    @cached_property
    def views(self) -> dict[str, FeatureView]:
        """The declared views that can be read."""
        return {name: v for name, v in self._workspace.definitions.views.items() if name not in self.unreadable}

    @cached_property
    def functions(self) -> dict[str, RequestFunction]:
        """The request-time functions that the project declares, whether a model has them or not."""
        return self._workspace.definitions.functions

    @cached_property
    def frozen(self) -> list[tuple[FrozenView, str, str]]:
        """Every version of every view that was frozen here: (view, when, by which verb), oldest first."""
        metadata = self._workspace.metadata
        told = {event.subject: event for event in metadata.events(kind=FROZEN)}
        found = []
        for record in metadata.records(KIND):
            event = told.get(record.id)
            when = iso(from_us(event.at_us)) if event else ""
            found.append((thaw(record), when, str(event.body.get("by", "")) if event else ""))
        return found

    @cached_property
    def _released(self) -> list[tuple[Record, str, tuple[str, ...], FeaturePlan]]:
        """Live releases, then candidates: (record, state, deployments, plan)."""
        live = live_releases(self._workspace)
        found = []
        for id in releases(self._workspace):
            record = self._workspace.record(id)
            plan = msgspec.convert(record.body["manifest"]["plan"], FeaturePlan)
            found.append((record, LIVE if id in live else CANDIDATE, live.get(id, ()), plan))
        return found

    # Who uses it

    def use(self, name: str) -> Use:
        """Who uses a view, a feature by its column, a request-time function or a source. Raises UnknownFeature."""
        kind = self._kind(name)
        views = self._views_of(name, kind)
        functions = self._functions_of(name, kind, views)
        models = [
            model.name
            for model in self._workspace.definitions.models.values()
            if self._model_uses(model, name, kind, views, functions)
        ]
        used = []
        for record, state, deployments, plan in self._released:
            found = [view for view in plan.views if _reads(view, plan, record, name, kind)]
            called = kind == "function" and any(one.name == name for one in plan.functions)
            if found or called:
                now = [self.views[view.name].digest for view in found if view.name in self.views]
                as_declared = sorted(now) == sorted(view.digest for view in found)
                version = int(record.body["version"])
                used.append(ReleaseUse(record.id, record.name, version, state, list(deployments), as_declared))
        deployed = list(dict.fromkeys(one for use in used for one in use.deployments))
        shown = views if kind in ("source", "feature") else []
        return Use(name, kind, shown, functions, models, used, deployed)

    def _kind(self, name: str) -> str:
        declared = self._workspace.definitions
        known = {view.name: "view" for *_, plan in self._released for view in plan.views}
        known |= {
            f"{v.name}__{one}": "feature" for *_, plan in self._released for v in plan.views for one in v.features
        }
        known |= {one.name: "function" for *_, plan in self._released for one in plan.functions}
        known |= dict.fromkeys(declared.own_sources, "source")
        known |= {one.name: "source" for view in self.views.values() for one in _sources(view.source)}
        known |= dict.fromkeys(self.functions, "function")
        known |= {column: "feature" for view in self.views.values() for column in view.columns}
        known |= dict.fromkeys(declared.views, "view")
        if name not in known:
            raise UnknownFeature(
                f"no view, feature, function or source is named '{name}'.",
                expected=f"There is {listed(known)}. {did_you_mean(name, known)}".strip(),
                state="Nothing was changed.",
                next=f"Run `seatrial features search {name}`.",
            )
        return known[name]

    def _views_of(self, name: str, kind: str) -> list[str]:
        if kind == "source":
            return [view.name for view in self.views.values() if name in [one.name for one in _sources(view.source)]]
        return [name.partition("__")[0] if kind == "feature" else name] if kind != "function" else []

    def _functions_of(self, name: str, kind: str, views: Sequence[str]) -> list[str]:
        if kind in ("feature", "function"):
            return [one.name for one in self.functions.values() if name in one.args]
        return [one.name for one in self.functions.values() if {arg.partition("__")[0] for arg in one.args} & {*views}]

    def _model_uses(self, model: Model, name: str, kind: str, views: Sequence[str], functions: Sequence[str]) -> bool:
        from seatrial.training.rows import input_names

        listed_here = {view.name for view in model.views} | {function.name for function in model.functions}
        if kind == "feature":
            return name in input_names(model) or bool(listed_here & {*functions})
        if kind == "source" and name in [one.name for one in _sources(model.labels)]:
            return True
        return bool(listed_here & {*views, *functions}) or (kind == "function" and name in listed_here)

    # What it was

    def versions(self, view: str) -> list[Version]:
        """The versions of a view that were frozen here, newest first."""
        now = self.views[view].digest if view in self.views else ""
        return [
            Version(one.digest, when, by, one.declared_in, one.digest == now)
            for one, when, by in reversed(self.frozen)
            if one.name == view
        ]

    def changed(self, view: str, schemas: dict[str, pa.Schema | None]) -> list[str]:
        """What the declared view says otherwise than its newest frozen version; empty when none was frozen."""
        before = [one for one, _, _ in self.frozen if one.name == view]
        return changes(before[-1], frozen(self.views[view], schemas)) if before and view in self.views else []

    def live(self, view: str) -> list[str]:
        """The deployments whose live release reads a view; those that read an earlier version say which."""
        now = self.views[view].digest if view in self.views else ""
        found = []
        for _, _, deployments, plan in self._released:
            for one in plan.views:
                if one.name == view:
                    earlier = "" if one.digest == now else f" (as {one.digest[:SHORTEST]})"
                    found += [f"{name}{earlier}" for name in deployments]
        return found

    # Is it there already

    @cached_property
    def same(self) -> dict[str, str]:
        """Features that exist already: column -> the column of the equal feature that was there first.

        Views of other projects come first, then the project's own in order, then what was frozen here under another
        name and is no longer declared.
        """
        shared = [view for view in self.views.values() if isinstance(view, SharedView)]
        own = [view for view in self.views.values() if not isinstance(view, SharedView)]
        groups = [
            (f"{view.name}__{name}", {catalogue.identity(view.entity.keys, rows, view.ttl_us, one) for rows in told})
            for view in (*shared, *own)
            for told in [self._rows(view.source)]
            for name, one in view.features.items()
        ]
        found = catalogue.first_of(groups)
        before: dict[str, str] = {}
        for view, when, _ in self.frozen:
            if view.name not in self._workspace.definitions.views and _has_place(view.source):
                rows = catalogue.plain_rows(view.definition["source"])
                for name, one in view.features.items():
                    words = f"{view.name}__{name} (frozen {when}, no longer declared)"
                    before[catalogue.identity(view.plan.keys, rows, view.plan.ttl_us, one)] = words
        for column, identities in groups:
            known = next((before[one] for one in sorted(identities) if one in before), None)
            if known is not None:
                found.setdefault(column, known)
        return found

    def notes(self, views: Sequence[str] | None = None) -> list[str]:
        """A sentence for each feature (of these views, or all) that exists already."""
        return [
            f"{column} is {known} again: the same function of the same rows; use that one."
            for column, known in self.same.items()
            if views is None or column.partition("__")[0] in views
        ]

    def reports(self) -> list[ReuseReport]:
        """The notes as reports, one a view, beside the others of `validate`."""
        found: dict[str, list[Result]] = {}
        for column, known in self.same.items():
            view, _, feature = column.partition("__")
            what = f"feature '{feature}' is no other feature again"
            words = f"{column} is {known} again; use that one"
            found.setdefault(view, []).append(Result(what, passed=True, failing=None, detail=words))
        return [ReuseReport(f"view {view}", 0, tuple(results)) for view, results in found.items()]

    def _rows(self, source: Source) -> set[str]:
        """What tells the rows of a source: its declaration where that names a place, and its newest snapshots."""
        held = self._held(source)
        found = {f"held:{catalogue.plain_rows(held)}"} if held is not None else set()
        if AT not in source.name:
            found.add(f"named:{source.name}")
        if _has_place(frozen_source(source, {})):
            found.add(catalogue.plain_rows(source.as_plain()))
        return found

    def _held(self, source: Source) -> dict[str, Any] | None:
        """What a source's rows were when they were last kept, as plain values; None when they never were."""
        times = {what: getattr(source, what) for what in ("event_timestamp", "known_at")}
        times["event_key"] = list(source.event_key)
        if isinstance(source, QuerySource):
            tables = {alias: self._held(table) for alias, table in source.tables.items()}
            if None in tables.values():
                return None
            aside = [rule.where for rule in source.set_aside]
            return times | {"sql": " ".join(source.sql.split()), "tables": tables, "set_aside": aside}
        if isinstance(source, SharedSource) and isinstance(source.frame, SharedRows):
            snapshot = source.frame.project.snapshot_id(source.frame.source)
        else:
            head = self._workspace.metadata.head("snapshot", source.name)
            snapshot = head.record_id if head else ""
        return times | {"snapshot": snapshot} if snapshot else None

    # What is it called

    def entries(self) -> Iterator[catalogue.Entry]:
        """Everything that can be searched for: features, and request-time functions."""
        for view in self.views.values():
            for name, one in view.features.items():
                texts = {
                    "name": f"{view.name}__{name}",
                    "feature": name,
                    "view": view.name,
                    "tags": " ".join(view.tags),
                    "column": one.column or "",
                    "entity": " ".join((view.entity.name, *view.entity.keys)),
                    "owner": view.owner,
                    "source": " ".join(source.name for source in _sources(view.source)),
                    "definition": one.describe(),
                    "description": f"{view.description} {view.entity.description}",
                }
                yield catalogue.Entry(texts["name"], texts)
        for function in self.functions.values():
            yield catalogue.Entry(
                function.name,
                {
                    "name": function.name,
                    "column": " ".join(function.args),
                    "definition": function.source,
                    "description": function.description,
                },
            )


def _reads(view: ViewPlan, plan: FeaturePlan, release: Record, name: str, kind: str) -> bool:
    """Whether a release reads this view for `name`."""
    if kind == "source":
        return view.source is not None and view.source.name == name
    if kind != "feature":
        return kind == "view" and view.name == name
    columns = [f"{view.name}__{one}" for one in view.features]
    inputs = release.body["manifest"]["signature"]["inputs"]
    return name in columns and (name in inputs or any(name in one.args for one in plan.functions))


def _has_place(source: FrozenSource) -> bool:
    """Whether a source's declaration says where its rows lie: not for frames, nor for rows of another project."""
    if source.tables:
        return all(map(_has_place, source.tables.values()))
    return source.kind not in (FrameSource.__name__, SharedSource.__name__)


def _sources(source: Source) -> list[Source]:
    """A source and those below it."""
    below = source.tables.values() if isinstance(source, QuerySource) else ()
    return [source, *(one for table in below for one in _sources(table))]
