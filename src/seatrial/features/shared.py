"""Shared views: a view that another project has frozen, used here without its code.

`shared_view` names the other project's folder, the view, and the digest that was frozen there. Nothing is looked up
before the view is first used. Then its definition is the frozen one, and its rows are those of the other project's
newest snapshots; a derived source is made from them by the frozen SQL. The other project is only read, and none of
its code is run. What is made of the view (snapshots, training sets, online rows) belongs to the project that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn
from urllib.parse import unquote, urlsplit

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.declared import declare
from seatrial.core.errors import Failed, NotAllowed, NotInThisVersion, UsageError, did_you_mean, listed
from seatrial.core.settings import LOCAL, Settings, read_settings
from seatrial.data.sources import FrameSource, Source
from seatrial.features.definitions import BadDefinition, Entity, FeatureView, check_name
from seatrial.features.frozen import FROZEN, KIND, SHORTEST, FrozenSource, FrozenView, thaw, thawed

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.core.records import Record
    from seatrial.stores.metadata import MetadataStore

AT = "@"
"""Between the name of a source and that of the project that it is from."""

_SQLITE = "sqlite:///"
_LATER = frozenset({"entity", "source", "features", "ttl_us", "owner", "description", "tags", "every_us", "_digest"})


class SharedProjectMissing(Failed):
    """The project that a shared view is from is not where it is said to be, or has frozen nothing."""

    code = "features.shared_project_missing"


class SharedViewUnknown(UsageError):
    """The other project has frozen no view of this name and digest."""

    code = "features.shared_view_unknown"


class SharedRowsMissing(Failed):
    """The other project keeps no rows of the source of a shared view."""

    code = "features.shared_rows_missing"


class SharedReadOnly(NotAllowed):
    """Rows were to be pushed to a view of another project."""

    code = "features.shared_read_only"


def shared_view(url: str, name: str, *, digest: str) -> FeatureView:
    """The view `name` of another project as it was frozen there, to be used like one of this project's.

    url: the other project's folder, absolute or from this project's folder, or a file:// URL.
    digest: at least the first 12 hex digits of what `seatrial features show NAME` says there.
    Reads nothing; the first use raises SharedProjectMissing, SharedViewUnknown, and what a damaged or newer metadata
    store raises. Raises BadDefinition, and NotInThisVersion for other kinds of URL.
    """
    return SharedView(url, name, digest)


class SharedView(FeatureView):
    """See `shared_view`. Everything but the name is looked up when it is first asked for."""

    url: str
    wanted: str

    def __init__(self, url: str, name: str, digest: str) -> None:
        check_name("view", name)
        place = _place(url, name)
        hexadecimal = isinstance(digest, str) and set(digest) <= set("0123456789abcdef")
        if not hexadecimal or not SHORTEST <= len(digest) <= 64:
            raise BadDefinition(
                f"shared view '{name}' is given the digest {digest!r}.",
                expected=f"{SHORTEST} to 64 hex digits are expected, as `seatrial features show {name}` says them in "
                "the other project.",
            )
        facts = {"name": name, "url": url, "wanted": digest, "_place": place, "_folder": Path(), "_found": None}
        for what, value in facts.items():
            object.__setattr__(self, what, value)
        declare(self)

    def __getattribute__(self, what: str) -> Any:
        if what in _LATER:
            self._look_up()
        return object.__getattribute__(self, what)

    def __repr__(self) -> str:
        return f"shared_view({self.url!r}, {self.name!r}, digest={self.wanted!r})"

    def __hash__(self) -> int:
        return hash((self.name, self.wanted))

    def bind(self, folder: Path) -> None:
        """Say which folder a relative address starts at: that of the project that uses the view."""
        object.__setattr__(self, "_folder", folder)

    @property
    def project(self) -> OtherProject:
        """Where the view is from."""
        return OtherProject((object.__getattribute__(self, "_folder") / self.__dict__["_place"]).resolve())

    def as_plain(self) -> dict[str, Any]:
        """The definition as it was frozen, features in the order in which they are declared."""
        definition = dict(self._look_up().definition)
        return definition | {"features": {name: definition["features"][name] for name in self.features}}

    def stands_for(self, digest: str) -> bool:
        """Whether a full digest is the view's; looks nothing up."""
        return digest.startswith(self.wanted)

    def refuse_rows(self) -> NoReturn:
        """Raise SharedReadOnly."""
        raise SharedReadOnly(
            f"view '{self.name}' belongs to the project in {self.project.folder}.",
            expected="Its rows come from that project's snapshots.",
            next=f"Push them there, take a snapshot there, then run `seatrial materialize {self.name}` here.",
        )

    def _look_up(self) -> FrozenView:
        known: FrozenView | None = self.__dict__["_found"]
        if known is not None:
            return known
        project = self.project
        found = project.view(self.name, self.wanted)
        source = project.source(found.source)
        facts = {
            "entity": Entity(found.entity, found.plan.keys),
            "source": source,
            "features": found.features,
            "ttl_us": found.plan.ttl_us,
            "owner": found.owner,
            "description": found.description,
            "tags": found.tags,
            "_digest": found.digest,
            "_found": found,
        }
        for what, value in facts.items():
            object.__setattr__(self, what, value)
        return found


@dataclass(frozen=True, eq=False, kw_only=True)
class SharedSource(FrameSource):
    """A raw source of another project, as its newest snapshot there holds it. path: the project's folder."""

    path: str

    def as_plain(self) -> dict[str, Any]:
        return super().as_plain() | {"path": self.path, "source": self.name}


@dataclass(frozen=True)
class SharedRows:
    """The rows of a source's newest snapshot in another project: an Arrow stream, read when it is asked for."""

    project: OtherProject
    source: str

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.project.rows(self.source).__arrow_c_stream__(requested_schema)


@dataclass(frozen=True)
class OtherProject:
    """Another project's folder, to be read only."""

    folder: Path
    env: ClassVar[str] = LOCAL

    @property
    def settings(self) -> Settings:
        """Its seatrial.toml, without this process's variables. Raises SharedProjectMissing, BadSettings."""
        if not self.folder.is_dir():
            raise SharedProjectMissing(
                f"there is no folder {self.folder}, from which views are shared.",
                expected="The folder of a seatrial project is expected.",
                next="Correct the first argument of shared_view().",
            )
        file = self.folder / "seatrial.toml"
        try:
            text = file.read_text(encoding="utf-8") if file.is_file() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise SharedProjectMissing(f"{file} cannot be read: {error}.") from None
        return read_settings(text, env=self.env, variables={})

    @property
    def name(self) -> str:
        return self.settings.name or self.folder.name

    def metadata(self) -> MetadataStore:
        """Its metadata store, opened to read. Raises SharedProjectMissing, and what a store that is damaged does."""
        from seatrial.stores.metadata import MetadataStore

        url = self.settings.stores.metadata
        if not url.startswith(_SQLITE):
            raise _other_kind("the metadata store of a project that shares views", url)
        path = self.folder / url.removeprefix(_SQLITE)
        if not path.is_file() or not path.stat().st_size:
            raise SharedProjectMissing(
                f"the project in {self.folder} keeps nothing yet: {path} is not there.",
                expected="A project that was trained or materialized there is expected.",
                next="Correct the first argument of shared_view(), or run `seatrial materialize` there.",
            )
        return MetadataStore(path, read_only=True)

    def view(self, name: str, digest: str) -> FrozenView:
        """The view of that name whose digest starts so. Raises SharedViewUnknown, FrozenDamaged, FrozenTooNew."""
        with closing(self.metadata()) as metadata:
            records = metadata.records(KIND)
            same = [one for one in records if one.name == name]
            found = [one for one in same if str(_digest(one)).startswith(digest)]
            if len(found) == 1:
                return thaw(found[0])
            when = {event.subject: iso(from_us(event.at_us)) for event in metadata.events(kind=FROZEN)}
        versions = [f"{_digest(one)[:SHORTEST]} (frozen {when.get(one.id, 'some time ago')})" for one in same]
        if len(found) > 1:
            raise SharedViewUnknown(
                f"the digest '{digest}' stands for {len(found)} versions of view '{name}' in {self.folder}.",
                next="Give more of its digits in shared_view().",
            )
        if same:
            raise SharedViewUnknown(
                f"the project in {self.folder} has frozen view '{name}', but not as {digest}.",
                expected=f"There it is {listed(reversed(versions))}.",
                next=f"Compare them with `seatrial features show {name}` there, and give the digest of one of them.",
            )
        names = list(dict.fromkeys(one.name for one in records))
        raise SharedViewUnknown(
            f"the project in {self.folder} has frozen no view '{name}'.",
            expected=f"It has {listed(names)}. {did_you_mean(name, names)}".strip(),
            next="`seatrial materialize` there freezes what it declares.",
        )

    def source(self, frozen: FrozenSource) -> Source:
        """A frozen source, to be read from this project's snapshots; its name says which project it is from."""
        found = thawed(_named(frozen, self.name), self._raw)
        assert found is not None
        return found

    def rows(self, source: str) -> pa.Table:
        """The rows of the newest snapshot of a raw source. Raises SharedRowsMissing, SnapshotDamaged."""
        from seatrial.data.snapshot import load

        with closing(self.metadata()) as metadata:
            head = metadata.head("snapshot", source)
            record = metadata.record(head.record_id) if head else None
        again = f"Run `seatrial snapshot {source}` in {self.folder}."
        if record is None:
            raise SharedRowsMissing(f"the project in {self.folder} has no snapshot of source '{source}'.", next=again)
        objects = self.settings.stores.objects
        if "://" in objects:
            raise _other_kind("the object store of a project that shares views", objects)
        try:
            return load(self.folder / objects / record.body["object"])[1]
        except FileNotFoundError:
            raise SharedRowsMissing(
                f"snapshot {record.id} of source '{source}' is no longer in {self.folder / objects}.", next=again
            ) from None

    def snapshot_id(self, source: str) -> str:
        """The id of the newest snapshot of a raw source; empty when there is none."""
        with closing(self.metadata()) as metadata:
            head = metadata.head("snapshot", source)
        return head.record_id if head else ""

    def _raw(self, source: FrozenSource) -> Source:
        """A raw source whose times are in UTC already, and from which rows were taken out already."""
        return SharedSource(
            SharedRows(self, source.name.removesuffix(f"{AT}{self.name}")),
            path=str(self.folder),
            name=source.name,
            event_timestamp=source.event_timestamp,
            known_at=source.known_at,
            event_key=source.event_key,
        )


def _place(url: object, name: str) -> Path:
    """The folder that an address names, maybe relative. Raises BadDefinition, NotInThisVersion."""
    if not isinstance(url, str) or not url or "\0" in url:
        raise BadDefinition(
            f"shared view '{name}' is given {url!r} as its project.",
            expected="A folder such as '../flights', or file:///projects/flights, is expected.",
        )
    if "://" not in url:
        return Path(url)
    parts = urlsplit(url)
    if parts.scheme != "file":
        raise _other_kind(f"the project of shared view '{name}'", url)
    if parts.netloc not in ("", "localhost"):
        raise BadDefinition(
            f"shared view '{name}' names the host '{parts.netloc}' in a file:// address.",
            expected="file:///folder, with three strokes, is expected.",
        )
    return Path(unquote(parts.path))


def _other_kind(what: str, url: str) -> NotInThisVersion:
    """The error for an address of a kind that is planned; it may hold a password, so only its kind is told."""
    return NotInThisVersion(
        f"{what} is of the kind '{url.partition('://')[0]}'.", expected="A folder, or a file:// address, is expected."
    )


def _named(source: FrozenSource, project: str) -> FrozenSource:
    """The source and those below it under names that say which project they are from."""
    tables = {alias: _named(table, project) for alias, table in source.tables.items()}
    return msgspec.structs.replace(source, name=f"{source.name}{AT}{project}", tables=tables)


def _digest(record: Record) -> str:
    plan = record.body.get("plan")
    return str(plan.get("digest", "")) if isinstance(plan, Mapping) else ""
