"""Inputs: from declared sources to tables, through validation and snapshots, to the rows that a model learns from."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from seatrial.core.clock import from_us, iso, monotonic
from seatrial.core.errors import Failed, SeatrialError, UsageError, did_you_mean, listed
from seatrial.core.records import Record
from seatrial.core.settings import Engine
from seatrial.core.types import Dtype, Field
from seatrial.core.windows import Window
from seatrial.folder.kept import Kept
from seatrial.folder.loading import UnknownName
from seatrial.folder.workspace import Workspace
from seatrial.verbs.results import Progress, Taken

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.data.expectations import ValidationReport
    from seatrial.data.in_batches import Streamed
    from seatrial.data.profile import DataNote, Profile, Tables
    from seatrial.data.proposals import Proposed
    from seatrial.data.reading import Reading, Removed
    from seatrial.data.snapshot import Content
    from seatrial.data.sources import ParquetSource, Source
    from seatrial.features.definitions import FeatureView
    from seatrial.features.plan import FeaturePlan
    from seatrial.training.model import Model
    from seatrial.training.sample import Sample
    from seatrial.training.steps import Steps


Inspect = Callable[[Mapping[str, "pa.Table"]], None]
"""Looks at rows by source name, and may raise."""


CLOCKS_DIFFER_US = 5 * 60_000_000


class BadRows(Failed):
    """Rows handed to a verb cannot be read."""

    code = "project.bad_rows"


class TimeInFuture(UsageError):
    """Something is said to have happened, or is asked for, after the present."""

    code = "project.time_in_future"


class Inputs:
    """Reads the sources of a workspace's definitions."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._kept = Kept(workspace.folder)
        self._places: dict[str, Source] = {}

    def raw(self, names: Sequence[str]) -> dict[str, Source]:
        """The raw sources of these names, or all of them."""
        from seatrial.data.sources import QuerySource

        definitions = self._workspace.definitions
        own = {name: one for name, one in definitions.own_sources.items() if not isinstance(one, QuerySource)}
        raw = own if names and own.keys() >= set(names) else definitions.raw  # which asks other projects
        return {name: raw[self._known(name, raw)] for name in names or raw}

    def reports(self, names: Sequence[str], inspect: Inspect) -> list[ValidationReport]:
        """What came of the expectations of these sources, raw or derived; by default of every one that matters.

        Without names also a report of each view, model and deployment that names columns that are not there.
        inspect: is given the rows of the raw sources, by name.
        """
        from seatrial.data.reading import read
        from seatrial.data.sources import raw_sources

        known = self._workspace.definitions.sources
        chosen = [known[self._known(name, known)] for name in names]
        if not names:
            raw = self._workspace.definitions.raw
            chosen = [source for name, source in known.items() if name in raw or source.expectations]
        readings = self.read_raw({one.name: one for source in chosen for one in raw_sources(source)})
        for source in chosen:
            if source.name not in readings:
                tables = {name: reading.table for name, reading in readings.items()}
                readings[source.name] = read(source, folder=self._workspace.folder, tables=tables)
        reports = [self.check(source, readings) for source in chosen]
        inspect({name: reading.table for name, reading in readings.items() if name in self._workspace.definitions.raw})
        return reports if names else [*reports, *self._differing(readings)]

    def proposals(self, names: Sequence[str]) -> list[Proposed]:
        """Expectations that would fit these sources, raw or derived; by default every raw one."""
        from seatrial.data.proposals import propose

        known = self._workspace.definitions.sources
        chosen = [known[self._known(name, known)] for name in names or self._workspace.definitions.raw]
        return [propose(source, self.uncut(source)) for source in chosen]

    def _differing(self, readings: Mapping[str, Reading]) -> Sequence[ValidationReport]:
        """Reports of the declarations that name columns which their sources, as read, do not have."""
        from seatrial.data.reading import query_schema
        from seatrial.data.sources import QuerySource
        from seatrial.folder.declarations import differing

        schemas = {name: reading.table.schema for name, reading in readings.items()}

        def schema(source: Source) -> pa.Schema:
            if source.name not in schemas:
                assert isinstance(source, QuerySource)  # every other one was read
                below = {table.name: schema(table) for table in source.tables.values()}
                schemas[source.name] = query_schema(source, below)
            return schemas[source.name]

        definitions = self._workspace.definitions
        return differing(definitions, {name: schema(source) for name, source in definitions.sources.items()})

    def _known(self, name: str, sources: Mapping[str, Source]) -> str:
        if name not in sources:
            raise UnknownName(
                f"no source is named '{name}'.",
                expected=f"There is {listed(sources)}. {did_you_mean(name, sources)}".strip(),
            )
        return name

    def read_raw(self, sources: Mapping[str, Source]) -> dict[str, Reading]:
        from seatrial.data.reading import read

        folder, threads = self._workspace.folder, self._workspace.settings.threads
        return {
            name: self._kept.reading(source, partial(read, source, folder=folder, threads=threads))
            for name, source in ((name, self._placed(source)) for name, source in sources.items())
        }

    def _placed(self, source: Source) -> Source:
        """A raw source, or the file that the settings have it read from here; its rules were applied to that."""
        from seatrial.data.sources import ParquetSource, QuerySource

        path = self._workspace.settings.sources.get(source.name)
        if path is None or isinstance(source, QuerySource):
            return source
        if source.name not in self._places:
            said = ("name", "event_timestamp", "known_at", "event_key", "label_known_at", "timezone", "expectations")
            self._places[source.name] = ParquetSource(path, **{what: getattr(source, what) for what in said})
        return self._places[source.name]

    def check(self, source: Source, readings: dict[str, Reading]) -> ValidationReport:
        """The report of one source; sources that it refers to are read when they have not been."""
        from seatrial.data.expectations import Known, beside_rows, check, referenced

        readings |= self.read_raw({o.name: o for o in referenced(source) if o.name not in readings})
        reading = readings[source.name]
        others = {name: reading.table for name, reading in readings.items()}
        tables = [reading.table, *(others[one.name] for one in referenced(source))]
        make = partial(check, source, reading.table, others, removed=reading.set_aside)
        if beside_rows(source):  # the same rows may be stale tomorrow
            before = self._snapshot_of(source.name)
            return make(known=Known(from_us(self._workspace.now_us), before.rows if before else None))
        return self._kept.made("report", source, tables, make)

    def snapshots(
        self, sources: Mapping[str, Source], progress: Progress | None, inspect: Inspect | None = None
    ) -> tuple[list[Taken], dict[str, pa.Table]]:
        """Read, check and keep raw sources: what was taken, and the rows by source name.

        inspect: is given the rows before anything is kept, and may raise.
        """
        from seatrial.data.expectations import refused

        readings: dict[str, Reading] = {}
        for done, (name, source) in enumerate(sources.items()):
            if progress:
                progress(f"read {name}", done, len(sources))
            readings |= self.read_raw({name: source})
        reports = [self.check(source, readings) for source in sources.values()]
        if not all(report.passed for report in reports):
            raise refused(*reports)
        if inspect is not None:
            inspect({name: reading.table for name, reading in readings.items() if name in sources})
        taken = [
            self._taken_in(sources[name], partial(self._of_reading, sources[name], readings[name]), report)
            for name, report in zip(sources, reports, strict=True)
        ]
        return taken, {name: readings[name].table for name in sources}

    def kept(self, sources: Mapping[str, Source], progress: Progress | None) -> list[Taken]:
        """Read, check and keep raw sources, as `snapshots` does; files are never a table in memory where it can be
        helped."""
        from seatrial.data import in_batches
        from seatrial.data.expectations import refused

        with tempfile.TemporaryDirectory() as folder:
            readings: dict[str, Reading] = {}
            streamed: dict[str, Streamed] = {}
            for done, (name, source) in enumerate(sources.items()):
                if progress:
                    progress(f"read {name}", done, len(sources))
                path = Path(folder) / f"{done}.parquet"
                rows = (
                    in_batches.take(self._placed(source), folder=self._workspace.folder, path=path)
                    if in_batches.can_check(source)
                    else None
                )
                if rows is None:
                    readings |= self.read_raw({name: source})
                else:
                    streamed[name] = rows
            reports = [
                self._check_file(source, streamed[name], streamed) if name in streamed else self.check(source, readings)
                for name, source in sources.items()
            ]
            if not all(report.passed for report in reports):
                raise refused(*reports)
            return [
                self._taken_in(
                    source,
                    partial(_of_file, streamed[name])
                    if name in streamed
                    else partial(self._of_reading, source, readings[name]),
                    report,
                )
                for (name, source), report in zip(sources.items(), reports, strict=True)
            ]

    def _check_file(self, source: Source, rows: Streamed, streamed: Mapping[str, Streamed]) -> ValidationReport:
        """The report of one source whose rows are in a file; of those that it refers to, only the columns are read."""
        from seatrial.data import in_batches
        from seatrial.data.expectations import Known

        before = self._snapshot_of(source.name)
        known = Known(from_us(self._workspace.now_us), before.rows if before else None)
        return in_batches.check(source, rows, self._looked_up(source, streamed), known=known)

    def _looked_up(self, source: Source, streamed: Mapping[str, Streamed]) -> dict[str, pa.Table]:
        """The different values of the columns to which the expectations of `source` refer, by source."""
        from seatrial.data import in_batches
        from seatrial.data.expectations import References

        found: dict[str, pa.Table] = {}
        for one in source.expectations:
            if isinstance(one, References):
                values = self._column(one.source, one.to, streamed)
                found[one.source.name] = in_batches.beside(found.get(one.source.name), values)
        return found

    def _column(self, source: Source, column: str, streamed: Mapping[str, Streamed]) -> pa.Table:
        """The different values of a column of `source`; where it has no such column, no row of those that it has."""
        import pyarrow as pa

        from seatrial.data import in_batches
        from seatrial.data.reading import read
        from seatrial.data.sources import ColumnMissing, QuerySource

        if source.name in streamed:
            return in_batches.values_of(streamed[source.name].tables(), column)
        if isinstance(source, QuerySource):
            return in_batches.values_of([self.uncut(source)], column)
        try:
            table = read(self._placed(source), folder=self._workspace.folder, columns=[column]).table
        except ColumnMissing as missing:
            return pa.table({name: pa.nulls(0) for name in cast("list[str]", missing.facts["known"])})
        return in_batches.values_of([table], column)

    def _taken_in(self, source: Source, made: Callable[[], _Rows], report: ValidationReport) -> Taken:
        """Keep the rows of a source that passed, unless they are kept."""
        from seatrial.verbs.snapshots import changed

        started = monotonic()
        rows = made()
        content = rows.content
        before = self._snapshot_of(source.name)
        new = before is None or before.id != content.id
        if new or not self._is_kept(source, rows):
            self._keep_snapshot(source, rows, report, compared=new)
        return Taken(
            source=source.name,
            id=content.id,
            rows=content.rows,
            columns=len(content.columns),
            new=new,
            set_aside={removed.rule.where: removed.count for removed in rows.set_aside},
            changed_columns=[] if before is None or not new else list(changed(before.as_plain(), content.as_plain())),
            seconds=round(monotonic() - started, 3),
            notes=[*self._warned(report), *self.notes_of(source.name, content.id)],
        )

    def _of_reading(self, source: Source, reading: Reading) -> _Rows:
        from seatrial.data import snapshot
        from seatrial.data.references import reference

        made = partial(snapshot.content, reading.table)
        content = self._kept.made("content", source, [reading.table], made)
        return _Rows(
            content,
            set_aside=reading.set_aside,
            facts=_facts(reading) | ({"versions": dict(reading.versions)} if reading.versions else {}),
            reference=reference(source, reading),
            tables=lambda columns=None: [reading.table.select(columns) if columns else reading.table],
            write=lambda path: snapshot.write(content, reading.table, path),
        )

    def _snapshot_of(self, source: str) -> Content | None:
        """The content of a source's newest snapshot."""
        from seatrial.data.snapshot import Content

        head = self._workspace.metadata.head("snapshot", source)
        record = self._workspace.metadata.record(head.record_id) if head else None
        return Content.from_plain(record.body["content"]) if record else None

    def notes_of(self, source: str, snapshot: str) -> list[DataNote]:
        """What was otherwise in a snapshot of a source than in the one before, as noted when it was taken."""
        from seatrial.data.profile import DataNote

        taken = self._taken(source, snapshot)
        return msgspec.convert(taken.get("notes", []), list[DataNote])

    def _taken(self, source: str, snapshot: str) -> Mapping[str, Any]:
        """The newest event of a snapshot of a source; empty when there is none."""
        events = self._workspace.metadata.events(subject=snapshot, kind="snapshot.taken")
        return next((event.body for event in reversed(events) if event.body["source"] == source), {})

    def _warned(self, report: ValidationReport) -> list[DataNote]:
        """The expectations that do not hold and only warn."""
        from seatrial.data.profile import DataNote

        return [DataNote("warn", "expectation", "", str(result)) for result in report.warnings]

    def _compared(self, source: Source, profile: Profile) -> list[DataNote]:
        """What is otherwise than in the source's newest snapshot; nothing for the first, or one without a profile."""
        from seatrial.data.profile import Profile, compare

        before = self._workspace.metadata.head("snapshot", source.name)
        kept = self._taken(source.name, before.record_id).get("profile") if before else None
        return compare(msgspec.convert(kept, Profile), profile) if kept else []

    def _is_kept(self, source: Source, rows: _Rows) -> bool:
        """Whether the rows are kept as the source declares it: as a copy, or as a reference to the version read."""
        if rows.reference is None:
            return self._workspace.keeps_table(_snapshot_key(rows.content), rows.content)
        return bool(self._taken(source.name, rows.content.id).get("reference") == rows.reference)

    def _keep_snapshot(self, source: Source, rows: _Rows, report: ValidationReport, *, compared: bool) -> None:
        from seatrial.data.profile import profile_of

        content = rows.content
        key = _snapshot_key(content)
        seen = profile_of(rows.tables, source.event_timestamp)
        if rows.reference is None:
            self._workspace.keep_table(key, rows.write, content)
        notes = self._compared(source, seen) if compared else self.notes_of(source.name, content.id)
        body = {"source": source.name, **rows.facts}
        body |= {"profile": msgspec.to_builtins(seen), "notes": msgspec.to_builtins(notes)}
        body |= {"expectations": [result.as_plain() for result in report.results]}
        body |= {"reference": rows.reference} if rows.reference else {}
        record = Record(content.id, "snapshot", "", (), {"content": content.as_plain(), "object": key})
        with self._workspace.metadata.transaction() as transaction:
            transaction.add(record)
            transaction.move("snapshot", source.name, content.id, expected=None)
            self._workspace.event(transaction, "snapshot.taken", content.id, body)

    def view(self, name: str) -> FeatureView:
        views = self._workspace.definitions.views
        if name not in views:
            raise UnknownName(
                f"no view is named '{name}'.",
                expected=f"There is {listed(views)}. {did_you_mean(name, views)}".strip(),
            )
        return views[name]

    def tables(
        self, sources: Sequence[Source], progress: Progress | None, inspect: Inspect | None = None
    ) -> tuple[dict[str, pa.Table], list[str]]:
        """The rows of sources, raw or derived, by name, read through fresh snapshots; and the snapshots' ids.

        inspect: is given the rows of the raw sources before anything is kept, and may raise.
        """
        from seatrial.data.expectations import refused
        from seatrial.data.reading import read
        from seatrial.data.sources import raw_sources

        raw = {one.name: one for source in sources for one in raw_sources(source)}
        taken, tables = self.snapshots(raw, progress, inspect)
        for source in sources:
            if source.name not in tables:
                below = [tables[one.name] for one in raw_sources(source)]
                make = partial(read, source, folder=self._workspace.folder, tables=tables)
                reading = self._kept.made("rows", source, below, make)
                report = self.check(source, {source.name: reading})
                if not report.passed:
                    raise refused(report)
                tables[source.name] = reading.table
        return tables, [one.id for one in taken]

    @property
    def workspace(self) -> Workspace:
        return self._workspace

    def uncut(self, source: Source) -> pa.Table:
        """The rows of a source, raw or derived, as they are now; not checked, and no snapshot of them taken."""
        from seatrial.data.reading import read
        from seatrial.data.sources import QuerySource, raw_sources

        if not isinstance(source, QuerySource):
            return self.read_raw({source.name: source})[source.name].table
        tables = {one.name: self.uncut(one) for one in raw_sources(source)}
        make = partial(read, source, folder=self._workspace.folder, tables=tables)
        return self._kept.made("rows", source, list(tables.values()), make).table

    def as_table(self, rows: object) -> pa.Table | list[dict[str, Any]]:
        """Rows handed to a verb, as they are: a path (.parquet, .csv, .jsonl), a frame or table, or a list of dicts."""
        from seatrial.data.reading import frame_table, read
        from seatrial.data.sources import CsvSource, FrameSource, ParquetSource

        if isinstance(rows, list):
            return rows
        if not isinstance(rows, str | Path):
            return frame_table(FrameSource(rows, name="rows"))
        path = Path(rows)
        if path.suffix == ".jsonl":
            return _json_lines(path)
        kind = ParquetSource if path.suffix == ".parquet" else CsvSource
        return read(kind(str(path)), folder=Path.cwd()).table

    def given(self, source: Source, rows: object, needs: Sequence[str] = ()) -> pa.Table:
        """Rows handed to a verb, as a table with the columns of `source` and their types, times in UTC.

        needs: the columns that each row must have, if only as null. Raises ColumnLacking for a row that lacks one,
        RowWrongType for a value that the source's column cannot hold, and DataRefused for rows that break an
        expectation that each row must meet.
        """
        from seatrial.data.expectations import check_rows, refused
        from seatrial.data.given import conform, lacking, require, table_of
        from seatrial.data.reading import frame_table, read
        from seatrial.data.sources import ColumnMissing, FrameSource

        schema = self.schema(source)
        if isinstance(rows, str | Path) and Path(rows).suffix == ".jsonl":
            rows = _json_lines(Path(rows))
        if isinstance(rows, list):
            if not all(isinstance(row, Mapping) for row in rows):
                raise BadRows(f"the rows for source '{source.name}' are not all objects with a value for each column.")
            require(rows, source, needs)
            rows = table_of(rows, source, schema)
        shared = {
            name: getattr(source, name)
            for name in ("name", "event_timestamp", "known_at", "event_key", "label_known_at", "timezone")
        }
        if isinstance(rows, str | Path):
            try:
                rows = read(_file_source(source, Path(rows), shared, schema), folder=Path.cwd()).table
            except ColumnMissing as missing:
                column, known = missing.facts["column"], missing.facts["known"]
                raise lacking(0, source, str(column), cast("list[str]", known)) from None
        rows = frame_table(FrameSource(rows, name=source.name))
        require(rows, source, needs)
        if schema is not None:
            rows = conform(rows, source, schema)
        table = read(FrameSource(rows, set_aside=source.set_aside, **shared), folder=self._workspace.folder).table
        report = check_rows(source, _with_nulls(table, schema))
        if not report.passed:
            error = refused(report)
            error.next = "Correct the rows and push them again."
            raise error
        return table

    def check_happened(self, source: Source, rows: pa.Table) -> None:
        """Raise TimeInFuture for rows that happen after the present; with a known_at they may be foreseen.

        Clocks of two machines may differ by five minutes.
        """
        import pyarrow.compute as pc

        if source.event_timestamp is None or source.known_at is not None:
            return
        present_us = self._workspace.now_us
        times = rows[source.event_timestamp]
        late = pc.greater(times, instant(present_us + CLOCKS_DIFFER_US))
        ahead = pc.sum(late).as_py() or 0
        if ahead:
            place = pc.index(late, True).as_py()
            raise TimeInFuture(
                f"{ahead} of {len(rows)} rows for source '{source.name}' happen in the future: row {place + 1} has "
                f"'{source.event_timestamp}' {iso(times[place].as_py())}, and it is {iso(from_us(present_us))}.",
                expected="A row is pushed when it has happened. What is foreseen needs a known_at.",
                state="Nothing was written.",
                next="Look at the unit and the zone of the time.",
            )

    def schema(self, source: Source) -> pa.Schema | None:
        """The columns of a source's rows: of its newest snapshot, else of its rows; None while it has neither."""
        import pyarrow.parquet as pq

        from seatrial.data.reading import BadQuery, DataWarning, SourceEmpty, SourceMissing, query_schema, read
        from seatrial.data.sources import QuerySource

        if isinstance(source, QuerySource):
            below = {table.name: self.schema(table) for table in source.tables.values()}
            try:
                known = {name: schema for name, schema in below.items() if schema is not None}
                return query_schema(source, known) if len(known) == len(below) else None
            except BadQuery:
                pass  # the snapshots may be older than the query
        else:
            content = self._snapshot_of(source.name)
            key = _snapshot_key(content) if content else ""
            if key and self._workspace.keeps_table(key):
                return pq.read_schema(self._workspace.objects.path(key)).remove_metadata()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            try:
                return read(self._placed(source), folder=self._workspace.folder).table.schema
            except (SourceMissing, SourceEmpty):
                return None

    def known_schemas(self, sources: Sequence[Source]) -> dict[str, pa.Schema | None]:
        """As `schemas`; empty when the sources cannot be read now, which stops nothing that only shows them."""
        try:
            return self.schemas(sources)
        except SeatrialError:
            return {}

    def schemas(self, sources: Sequence[Source]) -> dict[str, pa.Schema | None]:
        """The columns of sources and of those below them, by name: see `schema`."""
        from seatrial.data.sources import QuerySource

        found: dict[str, pa.Schema | None] = {}
        for source in sources:
            if source.name not in found:
                found[source.name] = self.schema(source)
                if isinstance(source, QuerySource):
                    found |= self.schemas([table for table in source.tables.values() if table.name not in found])
        return found

    def rows(
        self,
        model: Model,
        *,
        known_by_us: int | None = None,
        window: Window | None = None,
        progress: Progress | None = None,
        left_out: dict[str, int] | None = None,
        engine: Engine | None = None,
        inspect: Inspect | None = None,
        steps: Steps | None = None,
        sample: Sample | None = None,
    ) -> tuple[pa.Table, FeaturePlan, tuple[Field, ...], list[str]]:
        """The rows of a model's labels with every feature, the plan, the request's fields, the snapshots used.

        known_by_us: only rows whose label was known by then; window: only rows predicted in it, labelled or not.
        left_out: is told how many rows `known_by_us` left out because they have no label, or none known by then.
        engine: where they are joined (default: as the settings say); the rows are the same.
        inspect: as for `tables`. steps: take the joined rows from where they were kept, when nothing was changed.
        sample: join only so many of the rows, chosen by a seed; they stay in their order.
        """
        import pyarrow.compute as pc

        from seatrial.data.sources import require_columns
        from seatrial.features import training_set
        from seatrial.features.join import as_of
        from seatrial.features.materialize import require_event_key
        from seatrial.features.plan import make_plan

        plan = make_plan(model.features, self._workspace.definitions.views)
        views = {
            view.name: self._workspace.definitions.views.get(view.name) or _own(model, view.name) for view in plan.views
        }
        for view in plan.views:
            require_event_key(view)  # a model is of no use whose features cannot be kept online
        tables, snapshots = self.tables([model.labels, *(view.source for view in views.values())], progress, inspect)
        labels = tables[model.labels.name]
        names = list(dict.fromkeys([*plan.request_columns, *model.request_features]))
        require_columns(model.labels, labels, [*model.key, *names, model.target])
        if model.target in names:
            raise UsageError(
                f"model '{model.name}' would be given its own target '{model.target}' with every request.",
                expected="A feature, a key or an argument of a request-time function cannot be what is predicted.",
            )
        if window is not None and model.labels.event_timestamp is None:
            raise UsageError(
                f"the labels of model '{model.name}' have no times, so no window of them can be taken.",
                next="Leave the window out.",
            )
        if plan.views and model.labels.event_timestamp is None:
            raise UsageError(
                f"model '{model.name}' uses feature views, but its label source '{model.labels.name}' has no times.",
                expected="Features are looked up as of an instant.",
                next="Give event_timestamp= to the label source.",
            )
        times = {
            training_set.AT: model.labels.event_timestamp,
            training_set.LABEL_KNOWN_AT: model.labels.label_known_at,
        }
        described = [name for name in model.described_by if name not in plan.feature_columns]
        require_columns(model.labels, labels, described)
        asked = [gate.by for gate in self._workspace.definitions.gates if gate.by in labels.column_names]
        kept = [*model.key, *names, *described, *asked, model.target]
        taken = {training_set.AT, training_set.LABEL_KNOWN_AT} & set(kept)
        if any(times[name] != name for name in taken):
            raise UsageError(
                f"model '{model.name}' uses a column named '{min(taken)}' of source '{model.labels.name}'.",
                expected="The names 'at' and 'label_known_at' stand for the times of a training set.",
                next="Name the column otherwise in the source.",
            )
        rows = training_set.select(labels, kept, times)
        if known_by_us is not None:
            known_at = training_set.LABEL_KNOWN_AT if model.labels.label_known_at else training_set.AT
            known = pc.fill_null(pc.less_equal(rows[known_at], instant(known_by_us)), False)
            labelled = pc.invert(pc.is_null(rows[model.target], nan_is_null=True))
            if left_out is not None:
                left_out["unlabelled"] = rows.num_rows - (pc.sum(labelled).as_py() or 0)
                left_out["label_not_known"] = pc.sum(pc.and_(labelled, pc.invert(known))).as_py() or 0
            rows = rows.filter(pc.and_(known, labelled))
        if window is not None:
            at = rows[training_set.AT]
            rows = rows.filter(
                pc.and_(pc.greater_equal(at, instant(window.start_us)), pc.less(at, instant(window.end_us)))
            )
        if sample is not None:
            rows = sample.of(rows)
        if progress:
            progress("join features", 0, 1)
        events = {name: tables[view.source.name] for name, view in views.items()}
        settings = self._workspace.settings
        join = partial(self._on_spark, snapshots) if (engine or settings.engine) == "spark" else as_of
        if steps is None:
            joined = training_set.build(rows, plan, views, events, threads=settings.threads, join=join)
        else:
            joined = self._joined_before(steps, rows, plan, views, events, join, self._made_of(views, snapshots))
        request = tuple(_field(name, labels[name], model) for name in names)
        return joined, plan, request, snapshots

    def _joined_before(
        self,
        steps: Steps,
        rows: pa.Table,
        plan: FeaturePlan,
        views: Mapping[str, FeatureView],
        events: Mapping[str, pa.Table],
        join: Callable[..., pa.Table],
        made_of: Mapping[str, Any],
    ) -> pa.Table:
        """The joined rows, as a step of what determines them: label rows, plan, views and the snapshots below."""
        from seatrial.core.identity import value_digest
        from seatrial.data.snapshot import content
        from seatrial.features import training_set
        from seatrial.training.steps import TABLE, Input

        in_order = {name: list(view.columns) for name, view in views.items()}
        given = {
            "rows": Input(content(rows).id, lambda: rows),
            "plan": Input(value_digest([msgspec.to_builtins(plan), in_order]), lambda: plan),
            "views": Input(value_digest({name: view.as_plain() for name, view in views.items()}), lambda: views),
            "events": Input(value_digest(made_of), lambda: events),
            "threads": Input("any: the rows are the same", lambda: self._workspace.settings.threads),
            "join": Input("any: the rows are the same", lambda: join),
        }
        table: pa.Table = steps.run(training_set.build, inputs=given, form=TABLE, name="join features").value
        return table

    def _made_of(self, views: Mapping[str, FeatureView], snapshots: Sequence[str]) -> dict[str, Any]:
        """What the rows of the views' sources are made of: their declarations, and the snapshots below them."""
        return {"snapshots": list(snapshots), "sources": {name: one.source.as_plain() for name, one in views.items()}}

    def raw_names(self, model: Model, plan: FeaturePlan) -> list[str]:
        """The names of the raw sources that `rows` reads for a model, in the order of the snapshots that it gives."""
        from seatrial.data.sources import raw_sources

        views = self._workspace.definitions.views
        sources = [model.labels, *((views.get(view.name) or _own(model, view.name)).source for view in plan.views)]
        return list(dict.fromkeys(one.name for source in sources for one in raw_sources(source)))

    def joined(
        self,
        rows: pa.Table,
        views: Mapping[str, FeatureView],
        *,
        at: str,
        engine: Engine | None = None,
        progress: Progress | None = None,
    ) -> pa.Table:
        """`rows` with the features of `views`, from fresh snapshots of their sources."""
        from seatrial.features.join import as_of

        tables, snapshots = self.tables([view.source for view in views.values()], progress)
        settings = self._workspace.settings
        join = partial(self._on_spark, snapshots) if (engine or settings.engine) == "spark" else as_of
        events = {name: tables[view.source.name] for name, view in views.items()}
        return join(rows, views, events, at=at, threads=settings.threads)

    def entity(self, view: FeatureView, keys: Mapping[str, Any]) -> dict[str, Any]:
        """A value for each key of a view's entity, in the type that its source has.

        Raises BadRows for a key that is missing, or not the view's, or no such value.
        """
        import pyarrow as pa

        wanted = listed(view.entity.keys)
        for key in (*view.entity.keys, *keys):
            if key not in keys or key not in view.entity.keys:
                problem = "is not given" if key in view.entity.keys else "is none of its keys"
                raise BadRows(f"view '{view.name}' is looked up by {wanted}; '{key}' {problem}.")
        schema = self.schema(view.source)
        found: dict[str, Any] = {}
        for key in view.entity.keys:
            value = keys[key]
            kind = schema.field(key).type if schema is not None else pa.string()
            if value is not None and not _is_text(kind):
                try:
                    value = _as_key(value, kind)
                except (pa.ArrowException, ValueError, TypeError, OverflowError):
                    raise BadRows(
                        f"key '{key}' of view '{view.name}' is given {value!r}.",
                        expected="It is a whole number."
                        if pa.types.is_integer(kind)
                        else f"It is {kind} in the source.",
                    ) from None
            found[key] = value
        return found

    def _on_spark(
        self,
        snapshots: Sequence[str],
        rows: pa.Table,
        views: Mapping[str, FeatureView],
        events: Mapping[str, pa.Table],
        *,
        at: str,
        **_: Any,
    ) -> pa.Table:
        """The join on Spark, whose workers read what these snapshots froze; other tables are handed over."""
        from seatrial.features.spark import as_of_spark

        given = {name: self._frozen(view.source, snapshots) or events[name] for name, view in views.items()}
        return as_of_spark(rows, views, given, at=at, master=self._workspace.settings.spark.master)

    def _frozen(self, source: Source, snapshots: Sequence[str]) -> ParquetSource | None:
        """A raw source's rows in the file of their snapshot, which holds them as they are when read."""
        from seatrial.data.sources import ParquetSource

        content = self._snapshot_of(source.name)
        if content is None or content.id not in snapshots:
            return None
        times = {name: getattr(source, name) for name in ("event_timestamp", "known_at", "event_key")}
        return ParquetSource(str(self._workspace.objects.path(_snapshot_key(content))), name=source.name, **times)


@dataclass(frozen=True)
class _Rows:
    """Rows that may become a snapshot, in memory or in a file.

    facts: how they were obtained, for the event. reference: where they stay instead of being copied. tables: gives the
    rows, or some columns of them, one table after another. write: makes the snapshot's file, once.
    """

    content: Content
    set_aside: Sequence[Removed]
    facts: Mapping[str, Any]
    reference: Mapping[str, Any] | None
    tables: Tables
    write: Callable[[Path], None]


def _of_file(rows: Streamed) -> _Rows:
    def move(path: Path) -> None:
        rows.path.replace(path)

    return _Rows(
        rows.content,
        set_aside=rows.set_aside,
        facts=_facts(rows),
        reference=None,
        tables=rows.tables,
        write=move,
    )


def _facts(rows: Reading | Streamed) -> dict[str, Any]:
    return {
        "files": [msgspec.to_builtins(file) for file in rows.files],
        "set_aside": [part.as_plain() for part in rows.set_aside if part.count],
        "truncated": dict(rows.truncated),
    }


def _snapshot_key(content: Content) -> str:
    return f"snapshots/{content.id}.parquet"


def _own(model: Model, name: str) -> FeatureView:
    return next(view for view in model.views if view.name == name)


def instant(us: int) -> pa.Scalar:
    import pyarrow as pa

    return pa.scalar(us, pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def _field(name: str, column: pa.ChunkedArray, model: Model) -> Field:
    """A request field, typed as the label source's column."""
    import pyarrow as pa

    kind = column.type
    dtype: Dtype
    if pa.types.is_boolean(kind):
        dtype = "bool"
    elif pa.types.is_integer(kind):
        dtype = "int"
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        dtype = "float"
    elif pa.types.is_string(kind):
        dtype = "category" if name in model.request_features else "string"
    else:
        raise UsageError(
            f"column '{name}' of label source '{model.labels.name}' is {kind}; a request cannot carry it.",
            expected="Numbers, booleans and strings are expected; of a time take parts or differences.",
        )
    return Field(name, dtype, nullable=column.null_count > 0)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    inside = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any((pa.types.is_string(inside), pa.types.is_large_string(inside), pa.types.is_null(inside)))


def _as_key(value: Any, kind: pa.DataType) -> Any:
    """A key's value as online rows have it. Raises what conversions raise."""
    import pyarrow as pa

    from seatrial.features.events import as_kept

    if pa.types.is_timestamp(kind) and isinstance(value, str | date):
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
        value = at.astimezone(UTC) if isinstance(at, datetime) and at.tzinfo else pa.scalar(at).cast(pa.timestamp("us"))
        value = value if isinstance(value, datetime) else value.as_py().replace(tzinfo=UTC)
    return as_kept(pa.chunked_array([pa.array([value]).cast(kind)]))[0].as_py()


def _json_lines(path: Path) -> list[dict[str, Any]]:
    try:
        rows = [msgspec.json.decode(line) for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise BadRows(f"the file '{path}' cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRows(f"the file '{path}' is not JSON, a line a row: {error}.") from None
    if not all(isinstance(row, dict) for row in rows):
        raise BadRows(f"the file '{path}' has lines that are no JSON objects.")
    return rows


def _file_source(source: Source, path: Path, shared: dict[str, Any], schema: pa.Schema | None) -> Source:
    """The file of rows for `source`, to be read with what it says of nulls and types."""
    from seatrial.data.given import csv_types
    from seatrial.data.reading import csv_header
    from seatrial.data.sources import CsvSource, ParquetSource

    if path.suffix == ".parquet":
        return ParquetSource(str(path), **shared)
    nulls = source.nulls if isinstance(source, CsvSource) else ("",)
    types = source.types if isinstance(source, CsvSource) else None
    file = CsvSource(str(path), nulls=nulls, types=types, **shared)
    if schema is None or not path.is_file():
        return file
    return replace(file, types=csv_types(source, csv_header(file, path)[0], schema))


def _with_nulls(table: pa.Table, schema: pa.Schema | None) -> pa.Table:
    """`table` with the source's columns that it lacks, as nulls."""
    import pyarrow as pa

    for field in schema or ():
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


def columns(rows: pa.Table, names: Sequence[str]) -> dict[str, Any]:
    """Columns as `core.signature.encode` takes them: numbers as float64 with NaN, strings as objects."""
    import pyarrow as pa

    found: dict[str, Any] = {}
    for name in names:
        column = rows[name]
        text = pa.types.is_string(column.type)
        found[name] = column.to_pylist() if text else column.cast(pa.float64()).to_numpy()
    return found
