"""The workspace: one folder, its settings, its definitions and its stores, each opened when it is first needed."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from seatrial.core.clock import Clock, MachineClock, to_us
from seatrial.core.errors import Failed, NotInThisVersion, UsageError, listed
from seatrial.core.records import Event, Record
from seatrial.core.settings import LOCAL, BadSettings, Settings, read_settings
from seatrial.core.windows import duration_us
from seatrial.folder.loading import Definitions, NotAProject, UnknownName, collect, load_definitions, project_files

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.data.snapshot import Content
    from seatrial.registry.versions import Registry
    from seatrial.releases.keyring import Source
    from seatrial.releases.signing import KeyRing, SigningKey
    from seatrial.stores.labels import LabelStore
    from seatrial.stores.log_keeper import Keeper
    from seatrial.stores.metadata import MetadataStore, Transaction
    from seatrial.stores.objects import ObjectStore
    from seatrial.stores.online import OnlineStore
    from seatrial.stores.prediction_log import PredictionLog
    from seatrial.stores.routes import RouteStore, Sign, Verify
    from seatrial.training.model import Model

STATE = ".seatrial"
SQLITE = "sqlite:///"
SERVING_WAITS = 0.1  # seconds for which a server waits for a store that another process holds
SHIP_SECONDS = 60.0  # between two looks at a prediction log that is not shipped, twice
READING_WAITS = 5.0  # and a person who wants to see what is there


class NoFolder(UsageError):
    """The project's folder does not exist."""

    code = "project.no_folder"


class StateEmptied(Failed):
    """The metadata store's file has lost its content, while what it told of is still there."""

    code = "project.state_emptied"


class Workspace:
    """A folder with a project file, opened.

    clock: where domain time comes from; the machine's by default. env: the environment of seatrial.toml.
    actor: who acts; by default SEATRIAL_ACTOR or the user of the operating system (recorded as asserted).
    definitions: the project's objects, instead of its project file.
    online: the online store's address, instead of the settings'.

    Opening reads seatrial.toml and nothing else.
    """

    def __init__(
        self,
        folder: str | Path = ".",
        *,
        clock: Clock | None = None,
        env: str | None = None,
        actor: str | None = None,
        definitions: Sequence[object] | None = None,
        online: str | None = None,
    ) -> None:
        self.folder = Path(folder).resolve()
        if not self.folder.is_dir():
            raise NoFolder(f"the folder {folder} does not exist.", next="Name the project's folder, or make it.")
        self.clock: Clock = clock or MachineClock()
        self.env = env or os.environ.get("SEATRIAL_ENV") or LOCAL
        self.actor = (actor or "").strip() or os.environ.get("SEATRIAL_ACTOR", "").strip() or _os_user()
        self.settings = self._read_settings()
        if online is not None:
            self.settings = structs.replace(self.settings, stores=structs.replace(self.settings.stores, online=online))
        self._given = definitions
        self._founded = False
        self._service_key: SigningKey | None = None
        self._read_whole: dict[str, tuple[int, int, int]] = {}

    def close(self) -> None:
        """Close every store that was opened."""
        for name in ("metadata", "online"):
            store = self.__dict__.pop(name, None)
            if store is not None:
                store.close()

    @cached_property
    def definitions(self) -> Definitions:
        """What the project file defines; nothing where models were only brought in from elsewhere.

        Raises NotAProject or BrokenProject.
        """
        if self._given is not None:
            return collect(self._given, folder=self.folder)
        try:
            return load_definitions(self.folder)
        except NotAProject:
            if self._founded or self._holds("adoption") or self._holds("logged"):
                return collect((), folder=self.folder)
            raise

    def found(self) -> None:
        """Keep something in this folder though no project file is in it."""
        self._founded = True

    def _holds(self, kind: str) -> bool:
        """Whether the metadata store is there and has a head of this kind."""
        return self.sqlite_path("metadata").exists() and bool(self.metadata.heads(kind))

    @cached_property
    def metadata(self) -> MetadataStore:
        from seatrial.stores.metadata import MetadataStore

        path = self.sqlite_path("metadata")
        if not path.exists():
            if self._given is None and not self._founded:
                project_files(self.folder)
        elif not path.stat().st_size:
            self._refuse_emptied(path)
        return MetadataStore(path, make=False)

    def _refuse_emptied(self, path: Path) -> None:
        places = (self._folder_of("objects"), self.folder / STATE / "routes")
        left = [place for place in places if place.is_dir() and any(place.iterdir())]
        if left:
            raise StateEmptied(
                f"the metadata store {path} is empty (0 bytes), but there is something in {listed(map(str, left))}.",
                expected="Whatever is kept there was told of in the metadata store.",
                state="Nothing was changed.",
                next=f"Put a backup in the place of {path.name}. If there is none, move {path.parent} away and start "
                "anew; what is live goes on being served until its route files are moved.",
            )

    @cached_property
    def objects(self) -> ObjectStore:
        from seatrial.stores.objects import ObjectStore

        return ObjectStore(self._folder_of("objects"))

    @cached_property
    def online(self) -> OnlineStore:
        return self._open_online()

    def online_for_serving(self) -> OnlineStore:
        """The online store as a server asks it: opened by the first look-up, and not waited for."""
        return self._open_online(busy_seconds=SERVING_WAITS, lazy=True)

    def online_to_read(self) -> OnlineStore | None:
        """The online store for whoever only looks at it, and makes none; None where none was made yet."""
        if self.settings.stores.online.startswith(SQLITE) and not self.sqlite_path("online").exists():
            return None
        return self._open_online(busy_seconds=READING_WAITS, read_only=True)

    def _open_online(self, **how: Any) -> OnlineStore:
        from seatrial.stores.online import open_online

        return open_online(self.settings.stores.online, folder=self.folder, project=self.name, **how)

    @cached_property
    def log(self) -> PredictionLog:
        from seatrial.stores.prediction_log import PredictionLog

        return PredictionLog(
            self._folder_of("log"),
            fsync=self.settings.log_fsync,
            objects=self.objects,
            ships=self.ships_log,
            personal_key=lambda: self.personal_key,
            when_full=self.settings.log_full,
        )

    @property
    def personal_key(self) -> bytes | None:
        """The key for pseudonyms of personal columns; None when there is none."""
        from seatrial.stores.personal_key import read_personal_key

        return read_personal_key(self.keys, os.environ)

    def without_persons(self, model: Model, table: pa.Table, *, prefix: str = "") -> pa.Table:
        """A table with pseudonyms where the model's requests are logged with them, so that its key finds its rows.

        prefix: of the columns' names in the table. Raises PersonalKeyMissing.
        """
        if not model.personal:
            return table
        from seatrial.serving.scoring.personal import hashed

        return hashed(table, model.personal, self.personal_key, prefix=prefix)

    @property
    def ships_log(self) -> bool:
        """Whether the prediction log is shipped to the object store."""
        return self.settings.log_ship != "never"

    def keeping_log(self) -> Keeper:
        """A block during which another process compacts, ships and prunes the prediction log; see `Keeper`."""
        from seatrial.stores.log_keeper import Keeper, Orders

        settings = self.settings
        orders = Orders(
            root=str(self.log.root),
            objects=str(self.objects.root) if self.ships_log else "",
            ship_seconds=duration_us(settings.log_ship) / 1e6 if self.ships_log else SHIP_SECONDS,
            retention_us=duration_us(settings.log_retention) if settings.log_retention else 0,
            metadata=str(self.sqlite_path("metadata")),
            actor=self.actor,
        )
        return Keeper(orders)

    @cached_property
    def labels(self) -> LabelStore:
        from seatrial.stores.labels import LabelStore

        return LabelStore(self._folder_of("log") / "labels")

    @property
    def alert_routes(self) -> dict[str, str]:
        """Where alerts are sent, by name; an address that a variable or file should hold, but does not, is left out."""
        from seatrial.monitoring.routes.delivery import expanded

        declared = self.settings.webhooks | self.settings.routes
        found = {name: expanded(address, os.environ, self.folder) for name, address in declared.items()}
        return {name: address for name, address in found.items() if address}

    @cached_property
    def registry(self) -> Registry:
        from seatrial.registry.versions import Registry

        return Registry(self.metadata, mirrored=True)

    @cached_property
    def routes(self) -> RouteStore:
        from seatrial.stores.routes import RouteStore

        return RouteStore(self.folder / STATE / "routes")

    @property
    def keys(self) -> Path:
        """The folder of the signing key and of the keys that are trusted."""
        return self.folder / STATE / "keys"

    @property
    def name(self) -> str:
        """The project's name: of seatrial.toml, or the folder's."""
        return self.settings.name or self.folder.name

    @property
    def signing_key(self) -> SigningKey:
        """The project's key: as `[signing] key` says, of SEATRIAL_SIGNING_KEY, or a file that is made on first use."""
        from seatrial.releases.keyring import open_key

        if self._service_key is not None:
            return self._service_key
        key = open_key(self.keys, self.settings.signing.key, os.environ, cwd=self.folder)
        if self.key_source == "service":
            self._service_key = key  # it asks another program, once
        return key

    def forget_key(self) -> None:
        """Ask a key service anew which key it holds."""
        self._service_key = None

    @property
    def key_source(self) -> Source:
        """Where the key that signs is kept."""
        from seatrial.releases.keyring import source_of

        return source_of(self.settings.signing.key, os.environ)

    @property
    def trusted(self) -> KeyRing:
        """The public keys whose releases and routes count: those in keys/trusted, and the project's own."""
        from seatrial.releases.keyring import KeyRevoked
        from seatrial.releases.signing import KEY_FILE, trusted_keys

        file = self.folder / self.settings.signing.key if self.settings.signing.key else self.keys / KEY_FILE
        source = self.key_source
        if source == "service" or (source == "file" and not os.access(file, os.R_OK)):
            return trusted_keys(self.keys)  # whoever only reads needs no key of their own
        with suppress(KeyRevoked):
            key = self.signing_key
            ring = trusted_keys(self.keys)
            ring[key.keyid] = key.public
            return ring
        return trusted_keys(self.keys)

    @property
    def signer(self) -> tuple[Sign, Verify]:
        """How route files are signed, and how their signatures are checked."""
        from seatrial.releases.signing import is_signed

        key = self.signing_key
        trusted = self.trusted
        return key.sign, lambda data, signature: is_signed(data, signature, trusted)

    @property
    def now_us(self) -> int:
        """The domain's present, in microseconds since 1970 (UTC)."""
        return to_us(self.clock.now())

    def event(self, transaction: Transaction, kind: str, subject: str, body: dict[str, Any]) -> Event:
        """Append what this workspace's actor did to the audit log, in `transaction`, after the records it is about."""
        return transaction.event(kind, subject, actor=self.actor, at_us=self.now_us, body=body)

    def record(self, id: str) -> Record:
        """The record of an id that is known to exist."""
        record = self.metadata.record(id)
        if record is None:
            raise UnknownName(f"no record '{id}' is kept.", state="Nothing was changed.")
        return record

    def resolved(self, id: str, kind: str) -> Record:
        """The record of a kind that a person means: its id, or the start of it."""
        from seatrial.governance.lineage import resolve

        record = resolve(self.metadata, id)
        if record.kind != kind:
            raise UnknownName(f"'{record.id}' is a {record.kind}, not a {kind}.", state="Nothing was changed.")
        return record

    def keeps_table(self, key: str, content: Content | None = None) -> bool:
        """Whether a Parquet file is kept under `key`, whole.

        content: that it must have; its values are then read, once in a process for a file that is not changed. Without
        it only the footer is looked at, which a file that was cut off has lost.
        """
        if not self.objects.exists(key):
            return False
        path = self.objects.path(key)
        if content is None:
            return _is_table(path)
        status = path.stat()
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        if self._read_whole.get(key) != seen:
            if not _holds(path, content):
                return False
            self._read_whole[key] = seen
        return True

    def snapshot_table(self, record: Record) -> tuple[Content, pa.Table]:
        """The rows of a snapshot, every value checked: its copy, else the version of a table that it refers to.

        Raises SnapshotDamaged, SnapshotTooNew, SnapshotGone; ObjectMissing or FileNotFoundError without either.
        """
        from seatrial.data.references import load_reference
        from seatrial.data.snapshot import Content, load

        if not self.objects.exists(record.body["object"]):
            events = self.metadata.events(subject=record.id, kind="snapshot.taken")
            where = [event.body["reference"] for event in events if event.body.get("reference")]
            if where:
                return load_reference(where[-1], Content.from_plain(record.body["content"]), self.folder)
        return load(self.objects.path(record.body["object"]))

    def keep_table(self, key: str, write: Callable[[Path], None], content: Content | None = None) -> None:
        """Put the Parquet file that `write` makes under `key`, unless it is there, whole; one that is not is replaced.

        content: as for `keeps_table`.
        """
        if self.keeps_table(key, content):
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "object"
            write(path)
            whole = _is_table if content is None else partial(_holds, content=content)
            self.objects.put_file(key, path, whole=whole)

    def _read_settings(self) -> Settings:
        file = self.folder / "seatrial.toml"
        try:
            text = file.read_text(encoding="utf-8") if file.is_file() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise BadSettings(f"seatrial.toml cannot be read: {error}.", expected="UTF-8 text is expected.") from None
        return read_settings(text, env=self.env, variables=os.environ)

    def sqlite_path(self, store: str) -> Path:
        """The file of a store that is kept in SQLite."""
        url: str = getattr(self.settings.stores, store)
        if not url.startswith(SQLITE):
            raise _not_yet(store, url, f"{SQLITE}PATH")
        return self.folder / url.removeprefix(SQLITE)

    def _folder_of(self, store: str) -> Path:
        """The folder of a store that is kept in files."""
        url: str = getattr(self.settings.stores, store)
        if "://" in url:
            raise _not_yet(store, url, "a folder")
        return self.folder / url


def _not_yet(store: str, url: str, what: str) -> NotInThisVersion:
    """The error for a store of a kind that is planned; an address may hold a password, so only its kind is told."""
    kind = url.partition("://")[0]
    return NotInThisVersion(f"the {store} store is of the kind '{kind}'.", expected=f"{what} is expected.")


def _is_table(path: Path) -> bool:
    """Whether a file is a Parquet file to its end."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except pa.ArrowInvalid:
        return False
    return True


def _holds(path: Path, content: Content) -> bool:
    """Whether a snapshot's file says that it holds this content, and does."""
    from seatrial.data.snapshot import SnapshotDamaged, content_of_parquet, described

    try:
        return described(path) == content == content_of_parquet(path)
    except (SnapshotDamaged, OSError):
        return False


def _os_user() -> str:
    """The user of the operating system, or its number where it has no name, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"
