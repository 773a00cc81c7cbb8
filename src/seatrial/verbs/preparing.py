"""Preparing: from raw data to features. Validate, snapshot, materialize, push, join."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import msgspec

from seatrial.core.clock import as_utc, from_us, iso, machine_us, to_us
from seatrial.core.errors import UsageError, did_you_mean, listed
from seatrial.core.records import Record
from seatrial.core.settings import Engine
from seatrial.core.windows import Window
from seatrial.folder.loading import UnknownName
from seatrial.verbs.inputs import CLOCKS_DIFFER_US, Inputs, TimeInFuture
from seatrial.verbs.nouns import Nouns
from seatrial.verbs.results import LookedUp, Progress, Taken, TakenIn

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.data.expectations import ValidationReport
    from seatrial.data.proposals import Proposed
    from seatrial.data.sources import Source
    from seatrial.features.definitions import FeatureView
    from seatrial.features.leaks import LeakReport
    from seatrial.features.materialize import Written
    from seatrial.features.statistics import Statistics
    from seatrial.verbs.check import Looked
    from seatrial.verbs.feature_rows import Views
    from seatrial.verbs.upkeep import Needed

PATIENCE = 60.0  # seconds for which a command that is to end waits for a server


class Preparing(Nouns):
    """The verbs from raw data to features."""

    @cached_property
    def _fitting(self) -> set[tuple[str, str]]:
        """Digests of views and the columns that were found to fit their online rows."""
        return set()

    @cached_property
    def _inputs(self) -> Inputs:
        return Inputs(self)

    def validate(self, *sources: str) -> list[ValidationReport]:
        """Check the expectations of the sources (all, or those named). Reads only; writes nothing.

        Without names also whether each model, view and deployment names what is there, whether live releases can still
        be fed, and which features exist already, which is only a note. Raises BadPersonal.
        """
        from seatrial.verbs.check import check_all_personal
        from seatrial.verbs.reuse import Reuse
        from seatrial.verbs.upkeep import reports

        if not sources:
            check_all_personal(self.definitions)
        releases: list[ValidationReport] = []
        found = self._inputs.reports(sources, lambda tables: releases.extend(reports(self, tables)))
        return found if sources else [*found, *releases, *Reuse(self).reports()]

    def check(self) -> list[Looked]:
        """Whether the definitions would train, as far as that can be told without data, servers and stores.

        Loads the definitions, makes the estimators with their parameters, tries request-time functions on made-up
        numbers and looks names up. Opens no store and reads no source.
        """
        from seatrial.verbs.check import check

        return check(self)

    def propose(self, *sources: str) -> list[Proposed]:
        """Expectations that would fit the sources (all raw ones, or those named), as code to edit. Writes nothing."""
        return self._inputs.proposals(sources)

    def snapshot(self, *sources: str, progress: Progress | None = None) -> list[Taken]:
        """Keep the rows of the raw sources (all, or those named), by content.

        Raises DataRefused, and writes nothing, when any of them breaks an expectation.
        """
        return self._inputs.kept(self._inputs.raw(sources), progress)

    def materialize(self, *views: str, at: datetime | None = None, progress: Progress | None = None) -> list[Written]:
        """Bring the online store up to `at` (default: now) for all views, or those named. Repeating it is safe.

        Views as live and candidate releases froze them are kept up too, where the project declares them otherwise now;
        `problem` says of such a view that it cannot be, and a warning with it. When it is a live release's, and the
        project was changed so that nothing can feed it, BreaksLiveRelease is raised before anything is written.
        """
        from seatrial.features.materialize import Writing, prepare
        from seatrial.verbs.upkeep import freeze, needed, refuse, refuse_retyped, types_read, write_needed

        refuse(self)
        at_us = to_us(as_utc(at)) if at else self.now_us
        present_us = min(self.now_us, machine_us())  # a project's clock may be set back, to replay, but not ahead
        if at_us > present_us + CLOCKS_DIFFER_US:
            raise TimeInFuture(
                f"the online store cannot be brought up to {iso(from_us(at_us))}: it is {iso(from_us(present_us))}.",
                expected="A time that has come is expected; without one, now.",
                state="Nothing was written.",
            )
        frozen = [one for one in needed(self) if not views or one.plan.name in views]
        gone = {one.plan.name for one in frozen} - set(self.definitions.views)
        chosen = [self._inputs.view(name) for name in views or self.definitions.views if name not in gone]
        sources = [view.source for view in chosen] + [one.source for one in frozen if one.source]

        def inspect(raw: Mapping[str, pa.Table]) -> None:
            refuse(self, raw)
            refuse_retyped(self, chosen, raw)

        tables, snapshots = self._inputs.tables(sources, progress, inspect)
        schemas = self._inputs.schemas([view.source for view in chosen])
        freeze(self, chosen, schemas, "materialize")
        made_of = {view.name: {"digest": view.digest, "columns": types_read(view, schemas)} for view in chosen}
        writing = Writing(self.online, progress)
        prepared = [prepare(view, tables[view.source.name], known_by_us=at_us) for view in chosen]
        written = [writing.take_in(one) for one in prepared]
        written += write_needed(frozen, tables, writing, known_by_us=at_us)
        with self.metadata.transaction() as transaction:
            for report in written:
                body = msgspec.to_builtins(report) | {"through_us": at_us, "snapshots": snapshots}
                body |= {} if report.release else made_of[report.view]
                self.event(transaction, "features.materialized", f"view/{report.view}", body)
        return written

    def push(self, name: str, rows: object) -> list[Written]:
        """Take rows into the online store, now.

        name: a view, or a source: then every view over it takes them. rows: a path (.parquet, .csv, .jsonl), an
        Arrow table or other frame, or a list of dicts with the source's columns, of which those that a view reads are
        there in each row, if only as null: else ColumnLacking. A row that is there already
        changes nothing. Views as live and candidate releases froze them take the rows too. Raises SharedReadOnly for a
        view of another project.
        """
        from seatrial.verbs.upkeep import columns_needed

        views, frozen, source = self._fed_by(name)
        if source is None:
            return self._pushed(views, frozen, None)
        needs = columns_needed(views, frozen, self._inputs.schema(source))
        return self._pushed(views, frozen, self._inputs.given(source, rows, needs))

    def push_stream(
        self,
        name: str,
        address: str,
        *,
        group: str = "seatrial",
        until_empty: bool = False,
        stopped: Callable[[], bool] = lambda: False,
        tell: Callable[[TakenIn], None] | None = None,
    ) -> TakenIn:
        """Take rows from a stream into the online store, as `push` does, until `stopped` or until it is empty.

        address: redis://HOST:PORT/DB/STREAM; see `stores.streams.open_stream`. An entry holds a JSON object in its
        field `row`, or one field for each column. group: the consumers that share the work. An entry is acknowledged
        when its row is online; a row that cannot be taken goes to STREAM:refused, with the reason.
        tell: called after each batch, and while a server that does not answer is waited for; for a minute at most
        when it is to go on until the stream is empty.
        """
        from seatrial.features.materialize import require_event_key
        from seatrial.stores.streams import open_stream
        from seatrial.verbs.intake import complete, row_of, take_in
        from seatrial.verbs.upkeep import columns_needed

        views, frozen, source = self._fed_by(name)
        if source is None:
            raise UsageError(f"nothing is declared any more that feeds view '{name}'.", state="Nothing was read.")
        for view in views:
            require_event_key(view)
        schema = self._inputs.schema(source)
        keys = [tuple(view.entity.keys) for view in views] + [one.plan.keys for one in frozen]
        needs = columns_needed(views, frozen, schema)

        def write(rows: list[Mapping[str, Any]]) -> int:
            return sum(one.written for one in self._pushed(views, frozen, self._inputs.given(source, rows, needs)))

        with closing(open_stream(address, group=group)) as stream:
            return take_in(
                stream,
                write,
                lambda entry: complete(row_of(entry, schema), schema, needs, keys),
                until_empty=until_empty,
                stopped=stopped,
                tell=tell,
                patience_seconds=PATIENCE if until_empty else None,
            )

    def _fed_by(self, name: str) -> tuple[list[FeatureView], list[Needed], Source | None]:
        """The views that rows pushed under a view's or source's name go to, those that are frozen too, and the source.

        Raises UnknownName.
        """
        from seatrial.verbs.upkeep import needed

        self._refuse_shared(name)
        declared = self.definitions.views
        views = [view for view in declared.values() if name in (view.name, self._own_source(view))]
        frozen = [one for one in needed(self) if name in (one.plan.name, one.plan.source and one.plan.source.name)]
        sources = [view.source for view in views] + [one.source for one in frozen if one.source]
        if not views and not frozen:
            known = [*declared, *(source for view in declared.values() if (source := self._own_source(view)))]
            raise UnknownName(
                f"no view and no view's source is named '{name}'.",
                expected=f"There is {listed(dict.fromkeys(known))}. {did_you_mean(name, known)}".strip(),
            )
        return views, frozen, sources[0] if sources else None

    def _pushed(self, views: list[FeatureView], frozen: list[Needed], rows: pa.Table | None) -> list[Written]:
        """Take rows of one source into the online store, for each of the views."""
        from seatrial.features.materialize import Writing, prepare
        from seatrial.verbs.upkeep import refuse_retyped, write_needed

        names = [view.source.name for view in views] + [one.source.name for one in frozen if one.source]
        tables = {names[0]: rows} if rows is not None else {}
        for source in [view.source for view in views[:1]] + [one.source for one in frozen[:1] if one.source]:
            if source.name in tables:
                self._inputs.check_happened(source, tables[source.name])
        seen = {(view.digest, tables[view.source.name].schema.to_string()) for view in views}
        if not seen <= self._fitting:  # asked once, and not for every row of a stream
            refuse_retyped(self, views, tables)
            self._fitting.update(seen)
        writing = Writing(self.online)
        prepared = [prepare(view, tables[view.source.name], now_us=self.now_us) for view in views]
        written = [writing.take_in(one) for one in prepared]
        return written + write_needed(frozen, tables, writing, now_us=self.now_us)

    def _own_source(self, view: FeatureView) -> str:
        """The name of a view's source; empty for a view of another project, which is not looked up."""
        from seatrial.features.shared import SharedView

        return "" if isinstance(view, SharedView) else view.source.name

    def _refuse_shared(self, name: str) -> None:
        """Raise when `name` is a view of another project, or a source of one."""
        from seatrial.features.shared import AT, SharedView

        for view in self.definitions.views.values():
            if isinstance(view, SharedView) and (name == view.name or (AT in name and name == view.source.name)):
                view.refuse_rows()

    def feature_join(
        self,
        rows: object,
        views: Views = (),
        *,
        model: str | None = None,
        at: str = "at",
        engine: Engine | None = None,
        out: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """`rows` with features as of each row's `at`, through snapshots as in training, as the kind that they came as.

        rows: a path (.parquet, .csv, .jsonl; an Arrow table comes back), a frame of Arrow, pandas or polars, or a list
        of dicts, with the views' entity keys and `at`. Every row comes back, in its place. views: views and
        request-time functions, or their names (default: all views). model: also what this model learns from.
        engine: "local" or "spark" (default: the settings'); the values are the same. out: a file to write them to as
        well, .parquet or .csv.
        """
        from seatrial.verbs import feature_rows

        declared = self.definitions.model(model) if model is not None else None
        return feature_rows.join(self._inputs, rows, views, declared, at=at, engine=engine, out=out, progress=progress)

    def feature_lookup(
        self, rows: object, views: Views = (), *, model: str | None = None, at: datetime | str | None = None
    ) -> Any:
        """`rows` with the features of their entities as they are online, as of `at` (default: now).

        rows, views, model: as in `feature_join`; rows need the entity keys, and the fields that request-time functions
        take. All are looked up in one round trip (5,000 rows at a time), as a request of that instant would. For each
        view `view__status` says "present", "missing" or "expired". Nothing is logged.
        """
        from seatrial.verbs import feature_rows

        declared = self.definitions.model(model) if model is not None else None
        at_us = feature_rows.instant_us(at, self.now_us)
        return feature_rows.lookup(self._inputs, self.online, rows, views, declared, at_us=at_us)

    @overload
    def feature_get(
        self, view: str | FeatureView, keys: Mapping[str, Any], *, at: datetime | str | None = None
    ) -> LookedUp: ...

    @overload
    def feature_get(
        self, view: list[str] | list[FeatureView], keys: Mapping[str, Any], *, at: datetime | str | None = None
    ) -> list[LookedUp]: ...

    def feature_get(
        self,
        view: str | FeatureView | list[str] | list[FeatureView],
        keys: Mapping[str, Any],
        *,
        at: datetime | str | None = None,
    ) -> LookedUp | list[LookedUp]:
        """What the online store says of one entity: the view's features, as a request of `at` (default: now) gets them.

        view: one view, or several of which `keys` has all the keys; then a list. keys: a value for each key of the
        view's entity; text is taken for a number where the source's column is one. at: a datetime, or ISO 8601 text.
        """
        from seatrial.features.definitions import FeatureView
        from seatrial.verbs import feature_rows

        named = view if isinstance(view, list) else [view]
        views = [one if isinstance(one, FeatureView) else self._inputs.view(one) for one in named]
        at_us = feature_rows.instant_us(at, self.now_us)
        found = feature_rows.get(self._inputs, self.online, views, keys, at_us)
        return found if isinstance(view, list) else found[0]

    def feature_leaks(self, model: str | None = None, *, progress: Progress | None = None) -> LeakReport:
        """Whether a model's columns change when they are computed again from what was known at their rows' instants.

        What `train` does first, on the rows whose label is known now. Reads only.
        """
        from seatrial.verbs.feature_quality import leaks

        declared = self.definitions.model(model)
        timed = declared.labels.event_timestamp is not None
        known_by_us = to_us(self.clock.now()) if timed else None
        rows, plan, _, _ = self._inputs.rows(declared, known_by_us=known_by_us, progress=progress)
        return leaks(self._inputs, declared, plan, rows)

    def feature_stats(
        self, view: str, window: Window, *, by: str | None = None, progress: Progress | None = None
    ) -> Statistics:
        """How a view's values are spread over the events of a window; kept by content, so repeating gives the same id.

        by: also for each piece of this length, such as "1d". The values are the view's own at each of its events.
        """
        from seatrial.core.windows import duration_us
        from seatrial.features.statistics import view_statistics

        declared = self._inputs.view(view)
        by_us = duration_us(by) if by else None
        tables, snapshots = self._inputs.tables([declared.source], progress)
        rows = tables[declared.source.name]
        found = view_statistics(declared, rows, window, by_us=by_us, threads=self.settings.threads)
        record = Record(found.id, "statistics", declared.name, (), msgspec.to_builtins(found))
        with self.metadata.transaction() as transaction:
            if transaction.add(record):
                body = {"view": view, "window": str(window), "snapshots": snapshots}
                self.event(transaction, "statistics.computed", found.id, body)
        return found
