"""The online store: packed rows of bytes by (view digest, entity), read in one round trip.

What is in the bytes is the business of `features.packed`; a store keeps them. Which store it is, an address says:
`open_online` goes from one to the other. There is one file for each technology beside this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from seatrial.core.errors import Failed, Unavailable, UsageError
from seatrial.stores.redis_server import SCHEMES as REDIS
from seatrial.stores.redis_server import with_variables

SQLITE = "sqlite:///"
WRITER_WAITS = 30.0  # seconds

Key = tuple[str, bytes]
"""(view digest, canonical entity key)."""

Result = TypeVar("Result")


class Rows(Protocol):
    """The rows as one change sees them: what is there, with what the change itself has put already."""

    def get(self, keys: Sequence[Key]) -> list[bytes | None]:
        """The row of each key, in order; None where there is none."""

    def put(self, key: Key, packed: bytes) -> None:
        """Write a row, in the place of the one that is there."""

    def delete(self, key: Key) -> None:
        """Take a row away; one that is not there is no error."""


class OnlineStore(Protocol):
    """Packed rows by key, for every process of a project.

    One instance may be used by many threads at once, and many processes may have the same store open. What one of
    them has written, every later call of any of them sees. Rows are bytes that the store does not look into.

    Every method raises OnlineStoreUnavailable when the store did not answer in the time that the instance was
    given (then calling again is safe, and may help), OnlineStoreDamaged when it holds what no store writes, and
    OnlineStoreTooNew when a newer version wrote it. `seatrial.testing.OnlineStoreSuite` holds all of this as tests.
    """

    def get(self, keys: Sequence[Key]) -> list[bytes | None]:
        """The packed row of each key, in order; None where there is none.

        One round trip whatever the number of views, and one consistent state: never half of an update. It waits
        for no writer.
        """

    def update(self, change: Callable[[Rows], Result]) -> Result:
        """Let `change` read and write rows in one transaction, all of its writes or none; what it returned.

        It may be called again, from the start, when another writer came between; so it does nothing else than to
        compute and to use its rows. When it raises, nothing is written. A write that failed with
        OnlineStoreUnavailable may have been made or not, whole in either case.
        Raises OnlineStoreFull when there is no room, OnlineStoreBusy when other writers came between every time.
        """

    def count(self, view: str) -> int:
        """Number of entities of a view, exactly."""

    def close(self) -> None:
        """Give back connections and files, of every thread. Closing twice is no error."""


class OnlineStoreUnavailable(Unavailable):
    """The online store did not answer in time."""

    code = "online.unavailable"


class OnlineStoreBusy(OnlineStoreUnavailable):
    """Other writers came between every attempt to write to the online store."""

    code = "online.busy"


class OnlineStoreFull(OnlineStoreUnavailable):
    """The online store has no room for another row."""

    code = "online.full"


class OnlineStoreRefused(OnlineStoreUnavailable):
    """The online store's server does not let this user in: a password is wrong or missing, or a right is."""

    code = "online.refused"


class OnlineStoreDamaged(Failed):
    """The online store holds what no online store writes."""

    code = "online.damaged"


class OnlineStoreTooNew(Failed):
    """The online store was written by a newer version."""

    code = "online.too_new"


class BadOnlineAddress(UsageError):
    """The address of the online store names no store that there is."""

    code = "online.bad_address"


def open_online(
    address: str,
    *,
    folder: Path,
    project: str,
    busy_seconds: float = WRITER_WAITS,
    read_only: bool = False,
    lazy: bool = False,
) -> OnlineStore:
    """The store at an address: `sqlite:///PATH`, `redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]`, `rediss://...` (TLS)
    or `unix://[[USER]:PASSWORD@]/SOCKET[?db=DB]`.

    `${VAR}` in it is taken from the environment. folder: where a relative path starts. project: tells the rows of
    projects apart that share a database. busy_seconds: how long a call waits. read_only: makes no file. lazy: nothing
    is opened, and so nothing raised about what is there, before the first call.
    Raises BadOnlineAddress, BadRedisAddress, RedisExtraMissing, and what opening the store raises.
    """
    if address.startswith("${"):
        address = with_variables(address)  # which may hold the scheme
    if address.startswith(SQLITE):
        from seatrial.stores.online_sqlite import SqliteOnlineStore

        path = folder / with_variables(address).removeprefix(SQLITE)
        return SqliteOnlineStore(path, busy_seconds=busy_seconds, read_only=read_only, lazy=lazy)
    if address.startswith(REDIS):
        from seatrial.stores.online_redis import RedisOnlineStore

        return RedisOnlineStore(address, project=project, busy_seconds=busy_seconds, lazy=lazy)
    raise BadOnlineAddress(
        f"the online store's address is of the kind '{address.partition('://')[0][:20]}'.",
        expected="sqlite:///PATH, redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///SOCKET?db=DB is expected.",
        state="Nothing was opened.",
        next="Correct stores.online in seatrial.toml, or SEATRIAL_STORES_ONLINE.",
    )
