"""Frozen views: what did a view say when something was first made with it, and what was changed since?

A view is named by the digest of what determines its values. `train` and `materialize` write it down once for each
digest, as a record of kind `view`: the plan, the definition in words, and all that is needed to read its rows again
without the project's code. The record proves itself: its digest is that of the definition in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.errors import Failed
from seatrial.core.identity import value_digest
from seatrial.core.records import Record
from seatrial.core.windows import duration_text
from seatrial.data.expectations import SetAside
from seatrial.data.sources import QuerySource, Source
from seatrial.features.definitions import Aggregation, FeatureView
from seatrial.features.plan import ViewPlan, plan_view

if TYPE_CHECKING:
    import pyarrow as pa

KIND = "view"
FROZEN = "view.frozen"
FORMAT = 1
_COMMON = Source().as_plain()
SHORTEST = 12
"""Hex digits of a digest that are shown, and the fewest that a reference gives."""


class FrozenDamaged(Failed):
    """The record of a frozen view is not what was frozen."""

    code = "features.frozen_damaged"


class FrozenTooNew(Failed):
    """The record of a frozen view was written by a newer version."""

    code = "features.frozen_too_new"


class FrozenSource(msgspec.Struct, frozen=True, omit_defaults=True):
    """A source as it was declared, and its columns as they were read.

    kind: the class. path: where its rows lie, without a password. sql, tables: of a query, and its sources by the names
    that the SQL gives them. set_aside: the conditions of rows that are taken out. columns: column -> Arrow type; empty
    where no rows had been read.
    """

    name: str
    kind: str
    event_timestamp: str | None = None
    known_at: str | None = None
    event_key: tuple[str, ...] = ()
    timezone: str | None = None
    set_aside: tuple[str, ...] = ()
    path: str = ""
    sql: str = ""
    tables: dict[str, FrozenSource] = {}
    columns: dict[str, str] = {}


class FrozenView(msgspec.Struct, frozen=True):
    """A view as it was frozen.

    definition: what the digest is the digest of. words: (feature, its aggregation as it was written), in the order of
        the class body, which JSON objects do not keep.
    declared_in: file and line, where they were known.
    """

    plan: ViewPlan
    definition: dict[str, Any]
    words: tuple[tuple[str, str], ...]
    entity: str
    source: FrozenSource
    owner: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    declared_in: str = ""

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def digest(self) -> str:
        return self.plan.digest

    @property
    def features(self) -> dict[str, Aggregation]:
        """The features in the order of the class body."""
        plans = self.plan.features
        return {name: Aggregation(**msgspec.structs.asdict(plans[name])) for name, _ in self.words if name in plans}


def record_of(view: FeatureView, schemas: Mapping[str, pa.Schema | None], declared_in: str = "") -> Record:
    """The record that freezes `view`. schemas: the columns of its source and of those below, by source name."""
    return Record(record_id(view.digest), KIND, view.name, (), _body(frozen(view, schemas, declared_in)), FORMAT)


def record_id(digest: str) -> str:
    """The id of the record of the view with this digest."""
    return f"{KIND}_{digest[:32]}"


def frozen(view: FeatureView, schemas: Mapping[str, pa.Schema | None], declared_in: str = "") -> FrozenView:
    """The frozen form of a view as it is declared now."""
    return FrozenView(
        plan=plan_view(view),
        definition=view.as_plain(),
        words=tuple((name, aggregation.describe()) for name, aggregation in view.features.items()),
        entity=view.entity.name,
        source=frozen_source(view.source, schemas),
        owner=view.owner,
        description=view.description,
        tags=tuple(view.tags),
        declared_in=declared_in,
    )


def thaw(record: Record) -> FrozenView:
    """The frozen view in a record. Raises FrozenTooNew, FrozenDamaged."""
    if record.format > FORMAT:
        raise FrozenTooNew(
            f"view '{record.name}' was frozen in format {record.format}; this version reads up to {FORMAT}.",
            state="Nothing was changed.",
            next="Update seatrial.",
        )
    try:
        view = msgspec.convert(record.body, FrozenView)
    except msgspec.ValidationError as error:
        raise FrozenDamaged(
            f"record '{record.id}' is no frozen view: {error}.", next="Put a backup of the metadata store in its place."
        ) from None
    if value_digest(view.definition) != view.digest or record_id(view.digest) != record.id:
        raise FrozenDamaged(
            f"view '{record.name}' in record '{record.id}' is not what was frozen: its definition has another digest.",
            expected=f"The digest {view.digest[:SHORTEST]} was frozen.",
            next="Put a backup of the metadata store in its place.",
        )
    return view


def thawed(source: FrozenSource, raw: Callable[[FrozenSource], Source | None]) -> Source | None:
    """The source as it was frozen, to be read. raw: what stands for a raw source; None where there is nothing."""
    if not source.sql:
        return raw(source)
    tables = {alias: thawed(table, raw) for alias, table in source.tables.items()}
    known = {alias: table for alias, table in tables.items() if table is not None}
    if len(known) < len(tables):
        return None
    return QuerySource(
        source.sql,
        known,
        name=source.name,
        event_timestamp=source.event_timestamp,
        known_at=source.known_at,
        event_key=source.event_key,
        timezone=source.timezone,
        set_aside=[SetAside(where, "as it was frozen") for where in source.set_aside],
    )


def changes(before: FrozenView, after: FrozenView) -> list[str]:
    """What `after` says otherwise, one line a difference; none when nothing that matters for people is other.

    The order of features and where the view stands in the project's files do not count.
    """
    found: list[str] = []
    for name in dict.fromkeys([*dict(before.words), *dict(after.words)]):
        old, new = (_feature(one, name) for one in (before, after))
        if old != new:
            found.append(f"feature {name}: {old or 'not there'} -> {new or 'gone'}")
    pairs: list[tuple[str, Any, Any]] = [
        ("keys", list(before.plan.keys), list(after.plan.keys)),
        ("ttl", _ttl(before), _ttl(after)),
        ("owner", before.owner, after.owner),
        ("description", before.description, after.description),
        ("tags", list(before.tags), list(after.tags)),
    ]
    found += [f"{what}: {_shown(old)} -> {_shown(new)}" for what, old, new in pairs if old != new]
    return found + source_changes(before.source, after.source)


def source_changes(before: FrozenSource, after: FrozenSource, where: str = "source") -> list[str]:
    """What is other about a source, one line a difference; columns only where both are known."""
    found = []
    for what in ("name", "kind", "event_timestamp", "known_at", "event_key", "timezone", "set_aside", "path", "sql"):
        old, new = getattr(before, what), getattr(after, what)
        if old != new:
            found.append(f"{where} {what}: {_shown(old)} -> {_shown(new)}")
    for alias in dict.fromkeys([*before.tables, *after.tables]):
        old, new = before.tables.get(alias), after.tables.get(alias)
        if old is None or new is None:
            found.append(f"{where} table {alias}: {_shown(old and old.name)} -> {_shown(new and new.name)}")
        else:
            found += source_changes(old, new, f"{where} table {alias}")
    if before.columns and after.columns:
        for column, kind in before.columns.items():
            if after.columns.get(column) != kind:
                found.append(f"{where} column {column}: {kind} -> {after.columns.get(column, 'gone')}")
    return found


def _feature(view: FrozenView, name: str) -> str:
    """A feature in words, with what the words leave out."""
    plan = view.plan.features.get(name)
    if plan is None:
        return ""
    resolution = f", resolution=1/{plan.scale:,}" if plan.scale not in (1, 10**6) else ""
    unit = f", unit={duration_text(plan.unit_us)}" if plan.unit_us != 1 else ""
    return f"{dict(view.words)[name]}{resolution}{unit}"


def _ttl(view: FrozenView) -> str:
    return duration_text(view.plan.ttl_us) if view.plan.ttl_us else ""


def _shown(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "none"
    return " ".join(str(value).split()) if value not in (None, "") else "none"


def frozen_source(source: Source, schemas: Mapping[str, pa.Schema | None]) -> FrozenSource:
    """The frozen form of a source as it is declared now. schemas: its columns and those of the sources below it."""
    schema = schemas.get(source.name)
    query = source if isinstance(source, QuerySource) else None
    return FrozenSource(
        name=source.name,
        kind=type(source).__name__,
        event_timestamp=source.event_timestamp,
        known_at=source.known_at,
        event_key=tuple(source.event_key),
        timezone=source.timezone,
        set_aside=tuple(rule.where for rule in source.set_aside),
        path=_place(source),
        sql=query.sql if query else "",
        tables={alias: frozen_source(table, schemas) for alias, table in query.tables.items()} if query else {},
        columns={field.name: str(field.type) for field in schema} if schema is not None else {},
    )


def _place(source: Source) -> str:
    """Where a source's rows lie: its path, or all that its kind adds to what every source says."""
    plain = source.as_plain()
    if "path" in plain or isinstance(source, QuerySource):
        return str(plain.get("path", ""))
    return " ".join(f"{what}={value}" for what, value in plain.items() if value and what not in _COMMON)


def _body(view: FrozenView) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(view)
    return plain
