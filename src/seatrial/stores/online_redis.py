"""The online store on Redis: one string for each packed row, read by one MGET.

A row's key is `seatrial:PROJECT:VIEW:` and the entity's bytes. Beside them, the hash `seatrial:PROJECT` holds the
format of all this (`format`) and the number of rows of each view (`rows:VIEW`), kept in the same transactions.

A write is optimistic: what it reads it watches, and the server makes its writes only when none of that changed in
between; else it starts again. All of a change's reads are one round trip, and its writes are another.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from urllib.parse import quote

from seatrial.core.clock import monotonic
from seatrial.core.errors import Failed, Unavailable
from seatrial.stores.online import (
    WRITER_WAITS,
    Key,
    OnlineStoreBusy,
    OnlineStoreDamaged,
    OnlineStoreFull,
    OnlineStoreRefused,
    OnlineStoreTooNew,
    OnlineStoreUnavailable,
    Result,
    Rows,
)
from seatrial.stores.redis_server import Conversation, RedisFailed, RedisServer

FORMAT = 1
PREFIX = "seatrial:"
LONGEST_PAUSE = 0.1  # seconds between two attempts to write


class RedisOnlineStore:
    """Packed rows of one project in one database of a Redis server.

    address: see `open_online`. project: its name; rows of others in the same database are not seen.
    busy_seconds: how long connecting and each answer may take, and for how long a write that others keep coming
        between is tried again. lazy: the first call looks at the database, and raises what is wrong with it.
    One instance may be used by many threads, and in a child process after a fork.

    Rows must not be evicted or expire: their number would be wrong, and features silently missing.
    A value of another type under a row's key is told by `update`; to `get` it is a row that is not there.
    """

    def __init__(self, address: str, *, project: str, busy_seconds: float = WRITER_WAITS, lazy: bool = False) -> None:
        self._server = RedisServer(address, wait_seconds=busy_seconds)
        self._busy_seconds = busy_seconds
        self._about = (PREFIX + quote(project, safe="")).encode()
        self._starts: dict[str, bytes] = {}
        self._prepared = False
        if not lazy:
            self._prepare()

    def __repr__(self) -> str:
        return f"RedisOnlineStore({self._server.shown!r})"

    def get(self, keys: Sequence[Key]) -> list[bytes | None]:
        """The packed row of each key, in order; None where there is none. One MGET, one consistent state."""
        if not keys:
            return []
        if not self._prepared:
            self._prepare()
        try:
            [found] = self._server.ask(("MGET", *map(self.name_of, keys)))
        except RedisFailed as failed:
            raise self._explained(failed) from None
        return found  # type: ignore[no-any-return]

    def update(self, change: Callable[[Rows], Result]) -> Result:
        """Let `change` read and write rows in one transaction, all of its writes or none; what it returned.

        It is called again, from the start, when another writer changed what it read before its writes were made.
        Raises OnlineStoreBusy when that went on for `busy_seconds`.
        """
        if not self._prepared:
            self._prepare()
        started = monotonic()
        pause = 0.001
        while True:
            try:
                with self._server.conversation() as ask:
                    rows = _Rows(self, ask)
                    try:
                        result = change(rows)
                    except Exception:
                        if not rows.overtaken():  # it may have seen two states that were never there at once
                            raise
                    else:
                        if rows.write():
                            return result
            except RedisFailed as failed:
                raise self._explained(failed) from None
            if monotonic() - started > self._busy_seconds:
                raise OnlineStoreBusy(
                    f"the online store {self._server.shown} was written to by others all the time, for "
                    f"{self._busy_seconds:g} s.",
                    next="Try again; let fewer processes write the same entities at once.",
                )
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_PAUSE)

    def count(self, view: str) -> int:
        """Number of entities of a view: kept by every write, not counted anew."""
        if not self._prepared:
            self._prepare()
        try:
            [found] = self._server.ask(("HGET", self._about, _rows_of(view)))
        except RedisFailed as failed:
            raise self._explained(failed) from None
        return int(found or 0)

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def fitness(self) -> tuple[bool, str, str]:
        """Whether the server is fit to be an online store, what was found, and what to do.

        Raises what every call raises.
        """
        self._prepared = False
        self._prepare()
        try:
            [text] = self._server.ask(("INFO",))
        except RedisFailed as failed:
            if failed.kind != "refused":
                raise self._explained(failed) from None
            return True, f"{self._server.shown}: answers; this user may not ask for its memory and role", ""
        lines = (line.partition(":") for line in text.decode().splitlines())
        info = {name: value for name, _, value in lines}
        found = f"{self._server.shown}: format {FORMAT}, rows under {self._about.decode()}:, "
        found += f"Redis {info.get('redis_version', '?')}, {int(info.get('used_memory', 0)) / 1e6:,.1f} MB"
        most, policy = int(info.get("maxmemory", 0)), info.get("maxmemory_policy", "noeviction")
        if most:
            found += f" of {most / 1e6:,.1f} MB"
        if info.get("role") == "slave":
            return False, f"{found}, a replica, which takes no writes", "Name the primary in stores.online."
        if policy != "noeviction":
            return (
                False,
                f"{found}, maxmemory-policy {policy}: when memory is short, rows vanish without a word",
                "Set maxmemory-policy noeviction, so that a full server refuses writes instead.",
            )
        if most and int(info.get("used_memory", 0)) > 0.9 * most:
            return False, f"{found}: nearly full", "Raise maxmemory; when it is full, writes are refused."
        return True, found, ""

    def name_of(self, key: Key) -> bytes:
        """The name under which the server keeps a row."""
        view, entity = key
        start = self._starts.get(view)
        if start is None:
            start = self._starts[view] = self._about + f":{quote(view, safe='')}:".encode()
        return start + entity

    @property
    def about(self) -> bytes:
        """The name of the hash that tells of the project's rows."""
        return self._about

    def refuse_newer(self, found: bytes | None) -> None:
        """Raise OnlineStoreTooNew, or OnlineStoreDamaged, unless this version reads what is there."""
        if found is None or found == b"%d" % FORMAT:
            return
        if not found.isdigit():
            raise self._damaged(f"its format is {found[:20]!r}")
        if int(found) > FORMAT:
            raise OnlineStoreTooNew(
                f"the online store {self._server.shown} has format {int(found)}; this version reads up to {FORMAT}.",
                next="Update seatrial.",
            )

    def refuse_others(self, ask: Conversation, names: Sequence[bytes]) -> None:
        """Raise OnlineStoreDamaged when one of `names` is there, and no string."""
        for name, kind in zip(names, ask(*(("TYPE", name) for name in names)), strict=True):
            if kind not in (b"none", b"string"):
                raise self._damaged(f"{name[:120]!r} is a {kind.decode()}")

    def _prepare(self) -> None:
        try:
            [found] = self._server.ask(("HGET", self._about, b"format"))
        except RedisFailed as failed:
            raise self._explained(failed) from None
        self.refuse_newer(found)
        self._prepared = True

    def _damaged(self, why: str) -> OnlineStoreDamaged:
        return OnlineStoreDamaged(
            f"the online store {self._server.shown} holds what seatrial did not write: {why}.",
            expected=f"Everything named {PREFIX}* in this database is expected to be seatrial's.",
            next="Give seatrial a database of its own, or remove those keys and run `seatrial materialize`.",
        )

    def _explained(self, failed: RedisFailed) -> Failed | Unavailable:
        shown = self._server.shown
        if failed.kind == "damaged":
            return self._damaged(failed.why)
        if failed.kind == "full":
            return OnlineStoreFull(
                f"the online store {shown} is full: {failed.why}.",
                next="Raise its maxmemory, or free memory in it, and repeat the command; that is safe.",
            )
        if failed.kind == "refused":
            return OnlineStoreRefused(
                f"the online store {shown} does not let this user in: {failed.why}.",
                next="Correct user and password in stores.online (or the variable it names), or the user's rights.",
            )
        return OnlineStoreUnavailable(
            f"the online store {shown} did not answer: {failed.why}.",
            state="Repeating it is safe.",
            next="Try again; if it stays so, see `seatrial doctor`.",
        )


class _Rows:
    """`Rows` of one attempt: what was read is watched, what is written is kept back until `write`."""

    def __init__(self, store: RedisOnlineStore, ask: Conversation) -> None:
        self._store = store
        self._ask = ask
        self._found: dict[Key, bytes | None] = {}
        self._new: dict[Key, bytes | None] = {}
        self._reads = 0

    def get(self, keys: Sequence[Key]) -> list[bytes | None]:
        self._read([key for key in keys if key not in self._new])
        return [self._new[key] if key in self._new else self._found[key] for key in keys]

    def put(self, key: Key, packed: bytes) -> None:
        self._new[key] = packed

    def delete(self, key: Key) -> None:
        self._new[key] = None

    def overtaken(self) -> bool:
        """Whether another writer changed what was read, as far as that can matter."""
        return self._reads > 1 and self._ask(("MULTI",), ("PING",), ("EXEC",))[-1] is None

    def write(self) -> bool:
        """Make all the writes; False, and nothing is written, when another writer came between."""
        self._read(self._new)  # whether each was there decides how many there are
        puts: list[bytes] = []
        deletes: list[bytes] = []
        more: Counter[str] = Counter()
        for key, packed in self._new.items():
            was = self._found[key]
            if packed is not None:
                puts += (self._store.name_of(key), packed)
                more[key[0]] += was is None
            elif was is not None:
                deletes.append(self._store.name_of(key))
                more[key[0]] -= 1
        if not puts and not deletes:
            if self._reads > 1:
                return not self.overtaken()
            if self._reads:
                self._ask(("UNWATCH",))
            return True
        about = self._store.about
        done = self._ask(
            ("MULTI",),
            *([("MSET", *puts)] if puts else []),
            *([("DEL", *deletes)] if deletes else []),
            *(("HINCRBY", about, _rows_of(view), number) for view, number in more.items() if number),
            ("HSETNX", about, b"format", FORMAT),
            ("EXEC",),
        )
        return done[-1] is not None

    def _read(self, keys: Sequence[Key] | dict[Key, bytes | None]) -> None:
        """Watch and read those of `keys` that were not read yet, in one round trip."""
        fresh = [key for key in dict.fromkeys(keys) if key not in self._found]
        if not fresh:
            return
        names = [self._store.name_of(key) for key in fresh]
        _, found, there, format = self._ask(
            ("WATCH", *names), ("MGET", *names), ("EXISTS", *names), ("HGET", self._store.about, b"format")
        )
        self._reads += 1
        self._store.refuse_newer(format)
        if there != len(found) - found.count(None):
            self._store.refuse_others(self._ask, [name for name, row in zip(names, found, strict=True) if row is None])
        self._found.update(zip(fresh, found, strict=True))


def _rows_of(view: str) -> str:
    return f"rows:{view}"
