"""The reference's feature store: views over Parquet files, joined as of an instant, and looked up online.

A registered view becomes one `FeatureView` of last values for each ttl that its features have, over a query that
computes them; join, materialize, push and look-up are those of the feature room. Views are kept in the metadata store,
so another process that opens the same folder has them too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from seatrial.core.clock import Clock, as_utc, parse_time, to_us
from seatrial.core.errors import Failed, UsageError, did_you_mean, listed
from seatrial.core.identity import canonical_json, content_id
from seatrial.core.records import Record
from seatrial.core.windows import DAY_US
from seatrial.data.expressions import ROWS, wrong
from seatrial.data.sources import FrameSource, ParquetSource, QuerySource, require_columns
from seatrial.features.definitions import Entity, FeatureView, agg, check_name
from seatrial.features.plan import FeaturePlan, plan_view
from seatrial.project import Project
from seatrial.stores.redis_server import SCHEMES
from seatrial.verbs.inputs import Inputs

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.features.lookup import Lookup
    from seatrial.features.materialize import Written

EVENT = "event_timestamp"
CREATED = "created_timestamp"
KIND = "feature_view"
FORMAT = 1
STATISTICS = ("mean", "std", "min", "max", "null_rate", "p25", "p50", "p75")

FeatureDtype = Literal["float", "int", "string"]
KeyDtype = Literal["int", "string"]
DTYPES: tuple[FeatureDtype, ...] = ("float", "int", "string")
SQL_TYPES = {"float": "DOUBLE", "string": "VARCHAR"}


class BadFeature(UsageError):
    """A feature or a view of the reference's feature store is declared in a way that cannot work."""

    code = "surface.bad_feature"


class BadTransformation(UsageError):
    """A transformation is no SQL expression over one row of its source."""

    code = "surface.bad_transformation"


class UnknownFeature(UsageError):
    """A reference `view:feature` names nothing that is registered."""

    code = "surface.unknown_feature"


class BadEntityKeys(UsageError):
    """The entities to look up lack a key, or give one in another type than its view has."""

    code = "surface.bad_entity_keys"


class UnknownOnlineStore(UsageError):
    """An online store is configured that does not exist."""

    code = "surface.unknown_online_store"


class ViewTooNew(Failed):
    """A registered view was written by a newer version."""

    code = "surface.view_too_new"


@dataclass(frozen=True)
class FeatureDefinition:
    """One feature of a view.

    dtype: "float", "int" or "string"; a value that is none is refused, never rounded or guessed.
    entity: what it describes, one of its view's entities. source_table: where it comes from, for people.
    transformation: a DuckDB SQL expression over the columns of one row of the view's file; by default the column
        of the feature's own name.
    ttl_days: how old the latest row may be; the shorter of this and the view's counts.
    """

    name: str
    dtype: FeatureDtype
    description: str
    entity: str
    source_table: str
    transformation: str | None = None
    ttl_days: float = 90

    def __post_init__(self) -> None:
        check_name("feature", self.name)
        if self.dtype not in DTYPES:
            raise BadFeature(
                f"feature '{self.name}' has the dtype {self.dtype!r}.",
                expected=f"One of {listed(DTYPES)} is expected. {did_you_mean(str(self.dtype), DTYPES)}".strip(),
            )
        _check_days(f"feature '{self.name}'", self.ttl_days)


@dataclass(frozen=True)
class Registered:
    """A registered view.

    keys: its join columns and their types. features: by name. file: its rows as they are; computed: with the features.
    views: for each feature the view of last values that holds it; features with one ttl share one.
    """

    name: str
    entities: tuple[Entity, ...]
    features: dict[str, FeatureDefinition]
    file: ParquetSource
    computed: QuerySource
    ttl_days: float
    keys: dict[str, KeyDtype]
    views: dict[str, FeatureView]

    @property
    def distinct_views(self) -> list[FeatureView]:
        return list({view.name: view for view in self.views.values()}.values())


@dataclass(frozen=True)
class Chosen:
    """A feature that was asked for, and the column that it is answered in."""

    view: Registered
    feature: str
    column: str

    @property
    def looked_up(self) -> str:
        """The column under which join and look-up hold it."""
        return f"{self.view.views[self.feature].name}__{self.feature}"


class FeatureStore:
    """Features of entities, offline as of any instant and online as of now.

    repo_path: the folder whose `.seatrial` holds definitions and online store; relative paths of files start there.
    online_store_config: None or {"type": "sqlite"}: a file in that folder. {"type": "redis"}: a server, with
        "connection_string" (an address, or "HOST:PORT,db=0,password=...,ssl=true"), or "host", "port", "db",
        "username", "password" and "ssl"; or the address itself. `${VAR}` in them is taken from the environment.
    clock: where "now" comes from; the machine's by default.
    """

    def __init__(
        self,
        repo_path: str | Path,
        online_store_config: Mapping[str, Any] | str | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._online = _online_address(online_store_config)
        self._clock = clock
        Path(repo_path).mkdir(parents=True, exist_ok=True)
        self.project = Project(repo_path, clock=clock, definitions=(), online=self._online)
        self._built: dict[str, Registered] = {}  # by the id of their record

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the stores that were opened."""
        self.project.close()

    def register_feature_view(
        self,
        name: str,
        entities: Sequence[str | Entity] | str | Entity,
        features: Sequence[FeatureDefinition],
        source_path: str | Path,
        ttl_days: float = 90,
    ) -> None:
        """Declare a view over a Parquet file with `event_timestamp` and `created_timestamp`; again replaces it.

        entities: "customer" joins on the column customer_id; an `Entity` on its own keys; several on all of theirs.
        A row counts from its created_timestamp on, so that what was not known yet is never learned from.

        The file is read once, and everything about it checked. Raises BadFeature, BadTransformation, ColumnMissing
        and what reading raises; then nothing is registered.
        """
        given = [entities] if isinstance(entities, str | Entity) else list(entities)
        view = _registered(name, [_entity(one) for one in given], features, str(source_path), ttl_days, {})
        rows = _read(self.project, view.file)
        require_columns(view.file, rows, [key for entity in view.entities for key in entity.keys])
        for feature in view.features.values():
            _check_transformation(view, feature, rows)
        _read(self.project, view.computed, {view.file.name: rows})
        keys = {key: _key_dtype(view, key, rows) for entity in view.entities for key in entity.keys}
        self._keep(_registered(name, view.entities, features, str(source_path), ttl_days, keys))

    def get_training_data(self, entity_df: Any, feature_refs: Sequence[str], timestamp_column: str = EVENT) -> Any:
        """`entity_df` with one more column for each feature, as it was known at each row's own instant.

        entity_df: pandas frame with the views' keys and `timestamp_column`; its rows, order, index and columns stay.
        feature_refs: "view:feature". A column is named like its feature, or view__feature where that name is taken by
        another view asked for or by a column of `entity_df`. Numbers that are missing are NaN.

        Raises UnknownFeature, KeyMissing, and what reading raises.
        """
        from seatrial.data.reading import read
        from seatrial.features.join import as_of

        source = FrameSource(entity_df, name="entity_df", event_timestamp=timestamp_column)
        given = read(source, folder=self.project.folder).table
        chosen = self._chosen(feature_refs, taken=given.column_names)
        views = {view.name: view for one in chosen for view in [one.view.views[one.feature]]}
        events: dict[str, pa.Table] = {}
        for registered in {one.view.name: one.view for one in chosen}.values():
            rows = self._rows(registered)
            events |= {view.name: rows for view in registered.distinct_views}
        keys = dict.fromkeys(key for view in views.values() for key in view.entity.keys)
        need = given.select([timestamp_column, *(key for key in keys if key in given.column_names)])
        joined = as_of(need, views, events, at=timestamp_column, threads=self.project.settings.threads)
        result = entity_df.copy()
        for one in chosen:
            result[one.column] = joined[one.looked_up].to_pandas().array
        return result

    def get_online_features(
        self, entity_keys: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]], feature_refs: Sequence[str]
    ) -> dict[str, list[Any]]:
        """The features of some entities as of now: a list for each key and each feature, in the order asked.

        entity_keys: {"customer_id": [1, 2]} or [{"customer_id": 1}, {"customer_id": 2}].
        An entity that is not known, or whose latest row is older than the ttl, has None. Nothing is cached.
        Raises UnknownFeature or BadEntityKeys.
        """
        rows = _entities(entity_keys)
        given = list(rows[0]) if rows else []
        chosen = self._chosen(feature_refs, taken=given)
        _check_keys({key: kind for one in chosen for key, kind in one.view.keys.items()}, rows)
        lookup = self.lookup(chosen)
        at_us = self.project.now_us
        parts = (rows[first : first + 1000] for first in range(0, len(rows), 1000))
        found = [one.columns for part in parts for one in lookup.assemble_many(part, at_us)]
        keys: dict[str, list[Any]] = {key: [row[key] for row in rows] for key in given}
        return keys | {one.column: [columns[one.looked_up] for columns in found] for one in chosen}

    def materialize(self, end_date: datetime | str | None = None) -> list[Written]:
        """Bring the online store up to `end_date` (default: now) for every registered view. Repeating it is safe."""
        views = [view for one in self.views().values() for view in one.distinct_views]
        at = None if end_date is None else _instant(end_date, "end_date")
        with Project(self.project.folder, clock=self._clock, definitions=views, online=self._online) as project:
            return project.materialize(at=at)

    def push(self, view: str, rows: Any) -> list[Written]:
        """Take rows with the columns of the view's file into the online store, now; older ones change nothing.

        rows: a frame, a list of dicts, or the path of a file.
        """
        from seatrial.features.materialize import Writing, prepare

        registered = self._view(view)
        table = Inputs(self.project).given(registered.file, rows)
        computed = _read(self.project, registered.computed, {registered.file.name: table})
        prepared = [prepare(one, computed) for one in registered.distinct_views]
        writing = Writing(self.project.online)
        return [writing.take_in(one) for one in prepared]

    def compute_feature_statistics(
        self, view: str, start: datetime | str, end: datetime | str
    ) -> dict[str, dict[str, Any]]:
        """Of each numeric feature mean, std, min, max, null_rate, p25, p50 and p75 over the rows of a time span; also
        `distinct_count`, and `histogram` with `edges` and `counts` of up to 20 bins.

        start, end: rows with start <= event_timestamp < end count. std is the sample's; percentiles are interpolated.
        Without any value all numbers but null_rate are NaN; without any row null_rate is, too.
        """
        import numpy as np
        import pyarrow as pa

        registered = self._view(view)
        rows = self._rows(registered)
        at_us = rows[EVENT].cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy()
        inside = (at_us >= to_us(_instant(start, "start"))) & (at_us < to_us(_instant(end, "end")))
        rows = rows.filter(pa.array(inside))
        return {
            name: _statistics(rows[name]) for name, feature in registered.features.items() if feature.dtype != "string"
        }

    # What the model server asks

    def views(self) -> dict[str, Registered]:
        """Every registered view, by name, as they are now."""
        heads = {head.name: head.record_id for head in self.project.metadata.heads(KIND)}
        for id in heads.values():
            if id not in self._built:
                self._built[id] = _from_record(self.project.record(id))
        return {name: self._built[id] for name, id in heads.items()}

    def supplied(self, columns: Iterable[str]) -> dict[str, Chosen]:
        """Which of `columns` a view holds, named like `get_training_data` names them.

        A bare name that several views have is ambiguous, and in none of them.
        """
        found: dict[str, list[Chosen]] = {}
        for view in self.views().values():
            for feature in view.features:
                for column in (feature, f"{view.name}__{feature}"):
                    found.setdefault(column, []).append(Chosen(view, feature, column))
        return {column: found[column][0] for column in columns if len(found.get(column, ())) == 1}

    def lookup(self, chosen: Iterable[Chosen]) -> Lookup:
        """What reads these features of one entity in one round trip to the online store."""
        from seatrial.features.lookup import Lookup

        views = {view.name: view for one in chosen for view in [one.view.views[one.feature]]}
        return Lookup(FeaturePlan(tuple(plan_view(view) for view in views.values())), self.project.online)

    def _view(self, name: str) -> Registered:
        views = self.views()
        if name not in views:
            raise UnknownFeature(
                f"no feature view is registered as '{name}'.",
                expected=f"There is {listed(views)}. {did_you_mean(name, views)}".strip(),
                state="Nothing was read.",
            )
        return views[name]

    def _chosen(self, feature_refs: Sequence[str], taken: Iterable[str]) -> list[Chosen]:
        """The features asked for, each once, with the names that their columns get."""
        if isinstance(feature_refs, str) or not feature_refs:
            raise UnknownFeature(f"feature_refs is {feature_refs!r}.", expected="A list of 'view:feature' is expected.")
        asked: dict[tuple[str, str], Registered] = {}
        for ref in feature_refs:
            name, colon, feature = str(ref).partition(":")
            if not colon:
                raise UnknownFeature(f"{ref!r} names no feature.", expected="'view:feature' is expected.")
            view = self._view(name)
            if feature not in view.features:
                raise UnknownFeature(
                    f"view '{name}' has no feature '{feature}'.",
                    expected=f"It has {listed(view.features)}. {did_you_mean(feature, view.features)}".strip(),
                    state="Nothing was read.",
                )
            asked[name, feature] = view
        names = [feature for _, feature in asked]
        others = set(taken)
        return [
            Chosen(view, name, name if names.count(name) == 1 and name not in others else f"{view.name}__{name}")
            for (_, name), view in asked.items()
        ]

    def _rows(self, view: Registered) -> pa.Table:
        """The view's rows with its features computed."""
        return _read(self.project, view.computed)

    def _keep(self, view: Registered) -> None:
        known = {name: other for name, other in self.views().items() if name != view.name}
        names = {one.name: other.name for other in known.values() for one in other.distinct_views}
        for one in view.distinct_views:
            if one.name in names:
                raise BadFeature(
                    f"view '{view.name}' needs the name '{one.name}', which view '{names[one.name]}' has.",
                    expected="Give it another name.",
                    state="Nothing was registered.",
                )
        body = _as_plain(view)
        record = Record(content_id("view", canonical_json([view.name, body])), KIND, view.name, (), body, FORMAT)
        with self.project.metadata.transaction() as transaction:
            transaction.add(record)
            head = transaction.head(KIND, view.name)
            if head is None or head.record_id != record.id:
                transaction.move(KIND, view.name, record.id, expected=None)
                self.project.event(transaction, "feature_view.registered", record.id, {"view": view.name})


ProductionFeatureStore = FeatureStore


# From a declaration to views of last values


def _entity(given: str | Entity) -> Entity:
    return given if isinstance(given, Entity) else Entity(given, f"{given}_id")


def _registered(
    name: str,
    entities: Sequence[Entity],
    features: Sequence[FeatureDefinition],
    path: str,
    ttl_days: float,
    keys: dict[str, KeyDtype],
) -> Registered:
    """The view as the feature room knows it. keys: their types, empty while they are not known."""
    check_name("view", name)
    _check_days(f"view '{name}'", ttl_days)
    by_name = {feature.name: feature for feature in features}
    columns = list(dict.fromkeys(key for entity in entities for key in entity.keys))
    if not entities or not by_name:
        raise BadFeature(f"view '{name}' has no {'feature' if entities else 'entity'}.", expected="At least one.")
    if len(by_name) < len(features):
        raise BadFeature(f"view '{name}' has two features of one name.", expected="Every feature needs its own name.")
    for feature in features:
        if feature.entity not in {entity.name for entity in entities}:
            raise BadFeature(
                f"feature '{feature.name}' describes '{feature.entity}', view '{name}' is of "
                f"{listed(entity.name for entity in entities)}.",
                expected="A feature describes one of its view's entities.",
            )
        if feature.name in (*columns, EVENT, CREATED):
            raise BadFeature(
                f"feature '{feature.name}' of view '{name}' is named like a key or a time of its rows.",
                expected="Give the feature a name of its own.",
            )
    file = ParquetSource(path, name=name, event_timestamp=EVENT, known_at=CREATED)
    computed = QuerySource(
        _sql(columns, features), {ROWS: file}, name=f"{name}:computed", event_timestamp=EVENT, known_at=CREATED
    )
    entity = entities[0] if len(entities) == 1 else Entity("_".join(one.name for one in entities), columns)
    by_ttl: dict[float, list[FeatureDefinition]] = {}
    for feature in features:
        by_ttl.setdefault(min(feature.ttl_days, ttl_days), []).append(feature)
    views: dict[str, FeatureView] = {}
    for days, members in by_ttl.items():
        view = FeatureView(
            name=name if len(by_ttl) == 1 else f"{name}_ttl{_in_words(days)}",
            entity=entity,
            source=computed,
            features={feature.name: agg.last(feature.name) for feature in members},
            ttl_us=round(days * DAY_US),
        )
        views |= {feature.name: view for feature in members}
    return Registered(name, tuple(entities), by_name, file, computed, ttl_days, keys, views)


def _sql(keys: Sequence[str], features: Sequence[FeatureDefinition]) -> str:
    """The rows' times, keys and features, the latter in their declared types."""
    values = ", ".join(f"(\n{_expression(feature)}\n) AS __value_{n}" for n, feature in enumerate(features))
    columns = [EVENT, CREATED, *(_quoted(key) for key in keys)]
    columns += [f"{_typed(feature, f'__value_{n}')} AS {_quoted(feature.name)}" for n, feature in enumerate(features)]
    return f"SELECT {', '.join(columns)} FROM (SELECT *, {values} FROM {ROWS})"


def _quoted(name: str) -> str:
    """A column's name for SQL, always in quotes: which names need none only DuckDB knows, which serving never loads."""
    return '"' + name.replace('"', '""') + '"'


def _expression(feature: FeatureDefinition) -> str:
    return feature.transformation or _quoted(feature.name)


def _typed(feature: FeatureDefinition, value: str) -> str:
    """SQL for a value in its declared type. A whole number is never made by rounding."""
    if feature.dtype != "int":
        return f"CAST({value} AS {SQL_TYPES[feature.dtype]})"
    number = f"CAST({value} AS DOUBLE)"
    refusal = f"error('feature {feature.name} is declared int and holds ' || CAST({value} AS VARCHAR))"
    return (
        f"CASE WHEN isnan({number}) THEN NULL WHEN {number} <> trunc({number}) THEN {refusal} "
        f"ELSE CAST({value} AS BIGINT) END"
    )


def _check_transformation(view: Registered, feature: FeatureDefinition, rows: pa.Table) -> None:
    """Raise BadTransformation unless the expression is one, runs, and looks at nothing but columns of its own row."""
    if feature.transformation is None:
        require_columns(view.file, rows, [feature.name])
        return
    problem = wrong(feature.transformation, rows)
    if problem:
        raise BadTransformation(
            f"the transformation of feature '{feature.name}' of view '{view.name}' cannot be used: {problem}.",
            expected=f"A DuckDB expression over the columns of one row is expected: {listed(rows.column_names)}.",
            state="Nothing was registered.",
            feature=feature.name,
        )


def _key_dtype(view: Registered, key: str, rows: pa.Table) -> KeyDtype:
    import pyarrow as pa

    kind = rows[key].type
    if pa.types.is_integer(kind):
        return "int"
    if pa.types.is_string(kind):
        return "string"
    raise BadFeature(
        f"key '{key}' of view '{view.name}' is {kind}.",
        expected="Integers or strings name entities.",
        state="Nothing was registered.",
    )


def _check_days(what: str, days: float) -> None:
    if isinstance(days, bool) or not isinstance(days, int | float) or not 0 < days < 1e6:
        raise BadFeature(f"{what} has ttl_days={days!r}.", expected="A number of days above 0 is expected.")


def _in_words(days: float) -> str:
    """A ttl as part of a name: 7d, or in seconds when it is no whole number of days."""
    return f"{days:.0f}d" if days == int(days) else f"{round(days * 86_400)}s"


def _as_plain(view: Registered) -> dict[str, Any]:
    return {
        "entities": [{"name": entity.name, "keys": list(entity.keys)} for entity in view.entities],
        "features": [asdict(feature) for feature in view.features.values()],
        "path": view.file.path,
        "ttl_days": view.ttl_days,
        "keys": view.keys,
    }


def _from_record(record: Record) -> Registered:
    if record.format > FORMAT:
        raise ViewTooNew(
            f"feature view '{record.name}' has format {record.format}; this version reads up to {FORMAT}.",
            state="Nothing was read.",
            next="Update seatrial.",
        )
    body = record.body
    return _registered(
        record.name,
        [Entity(entity["name"], entity["keys"]) for entity in body["entities"]],
        [FeatureDefinition(**feature) for feature in body["features"]],
        body["path"],
        body["ttl_days"],
        body["keys"],
    )


# Reading


def _read(project: Project, source: ParquetSource | QuerySource, tables: Mapping[str, pa.Table] | None = None) -> Any:
    from seatrial.data.reading import read

    return read(source, folder=project.folder, tables=tables, threads=project.settings.threads).table


def _instant(given: datetime | str, name: str) -> datetime:
    return parse_time(given, name=name) if isinstance(given, str) else as_utc(given, name=name)


def _entities(given: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entity keys as one dict a row, numpy's scalars as Python's."""
    if isinstance(given, Mapping):
        columns = {key: list(values) for key, values in given.items() if not isinstance(values, str)}
        if len(columns) < len(given) or len({len(values) for values in columns.values()}) != 1:
            raise BadEntityKeys(
                "the entity keys are not lists of one length.",
                expected='{"customer_id": [1, 2], ...} is expected.',
                state="Nothing was looked up.",
            )
        given = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if not isinstance(given, Sequence) or not all(isinstance(row, Mapping) for row in given):
        raise BadEntityKeys(
            f"the entity keys are {type(given).__name__}.",
            expected='{"customer_id": [1, 2]} or [{"customer_id": 1}, {"customer_id": 2}] is expected.',
            state="Nothing was looked up.",
        )
    return [{key: _scalar(value) for key, value in row.items()} for row in given]


def _scalar(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _check_keys(keys: Mapping[str, KeyDtype], rows: Sequence[Mapping[str, Any]]) -> None:
    fits: dict[KeyDtype, Callable[[Any], bool]] = {
        "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
        "string": lambda value: isinstance(value, str),
    }
    for number, row in enumerate(rows):
        for key, kind in keys.items():
            if key not in row:
                raise BadEntityKeys(
                    f"row {number} of the entity keys has no '{key}'.",
                    expected=f"The views asked for are looked up by {listed(keys)}.",
                    state="Nothing was looked up.",
                )
            if row[key] is not None and not fits[kind](row[key]):
                raise BadEntityKeys(
                    f"'{key}' is {type(row[key]).__name__} in row {number} of the entity keys.",
                    expected=f"Its view has {kind}: a key in another type would find nothing.",
                    state="Nothing was looked up.",
                )


def _statistics(column: Any) -> dict[str, Any]:
    """The statistics of one column in the form of the surface: NaN where there is none, one number each."""
    import numpy as np
    import pyarrow as pa

    from seatrial.features.statistics import number_spread

    found = number_spread(np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64))
    numbers: dict[str, Any] = {name: math.nan if found.get(name) is None else float(found[name]) for name in STATISTICS}
    return numbers | {
        "distinct_count": found["distinct_count"],
        "histogram": {"edges": found.get("edges", []), "counts": found.get("counts", [])},
    }


def _online_address(config: Mapping[str, Any] | str | None) -> str | None:
    """The online store's address that a config means; None for the one of the folder's settings."""
    if isinstance(config, str):
        config = {"connection_string": config, "type": "redis"} if config.startswith(SCHEMES) else {"type": config}
    if not config:
        return None
    given = dict(config)
    kind = str(given.pop("type", "redis" if {"host", "connection_string"} & set(given) else "")).lower()
    if kind == "sqlite":
        return None
    if kind != "redis":
        raise UnknownOnlineStore(
            f"the online store is configured as {kind.partition('://')[0] or listed(config)!r}.",
            expected='None, {"type": "sqlite"} or {"type": "redis", ...} is expected.',
            state="Nothing was opened.",
        )
    text = str(given.pop("connection_string", ""))
    if "://" in text and not given:
        return text
    place, *options = text.split(",")  # as Feast writes it
    if place:
        given["host"], _, given["port"] = place.partition(":")
    given |= dict(option.strip().partition("=")[::2] for option in options)
    known = ("host", "port", "db", "username", "password", "ssl")
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UnknownOnlineStore(
            f"the online store's config has {listed(unknown)}.",
            expected=f"For Redis there is connection_string, or {listed(known)}.",
            state="Nothing was opened.",
            next=f"{did_you_mean(unknown[0], known)} An address takes every option of the driver.".strip(),
        )
    scheme = "rediss" if str(given.get("ssl", "")).lower() in ("true", "1", "yes") else "redis"
    user, password = (_in_address(str(given.get(name) or "")) for name in ("username", "password"))
    guard = f"{user}:{password}@" if user or password else ""
    where = f"{given.get('host') or 'localhost'}:{given.get('port') or 6379}"
    return f"{scheme}://{guard}{where}/{given.get('db') or 0}"


def _in_address(secret: str) -> str:
    """A user or password as it stands in an address; a `${VAR}` stays one."""
    return secret if secret.startswith("${") and secret.endswith("}") else quote(secret, safe="")
