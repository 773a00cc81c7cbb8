"""Streams on Redis: a consumer group over one stream; what is refused goes to the stream `NAME:refused`."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec

from seatrial.core.clock import monotonic
from seatrial.core.errors import Failed, Unavailable
from seatrial.core.identity import new_id
from seatrial.stores.redis_server import Command, RedisFailed, RedisServer, without_secrets
from seatrial.stores.streams import BadStreamAddress, Entry, StreamDamaged, StreamRefused, StreamUnavailable

DEAD_AFTER = 5.0  # seconds after which what a consumer has in hand is given to another; both may then do it
SUSPECT = 3  # after so many deliveries an entry is taken over alone: it may be what its consumers die of
LONGEST_BLOCK = 1.0  # seconds: a server is asked again, so that whoever wants to stop can

MOST_FIELDS = 1000  # that a script can take apart
OURS = frozenset((b"id", b"reason", b"fields"))  # what a copy of a refused entry says itself

# an entry that is not pending any more was refused before: of it there is a copy already
REFUSE = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1) == 1 then
  redis.call('XADD', KEYS[2], '*', 'id', ARGV[2], 'reason', ARGV[3], unpack(ARGV, 4))
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
end
"""


class RedisStream:
    """One consumer of a group. See `open_stream` for the address.

    dead_after: seconds after which entries that another consumer has in hand are taken over.
    """

    def __init__(self, address: str, *, group: str, wait_seconds: float = 10.0, dead_after: float = DEAD_AFTER) -> None:
        server, self.name = _divided(address)
        self._server = RedisServer(server, wait_seconds=wait_seconds)
        self._wait_seconds = wait_seconds
        self._shown = f"'{self.name}' at {self._server.shown}"
        self._group = group
        self._me = f"{socket.gethostname()}-{os.getpid()}-{new_id('consumer')[-8:]}"
        self._dead_after = dead_after
        self._joined = False
        self._left_over = False  # whether this consumer may have been given entries that it does not know of
        self._claimed: float | None = None  # when nothing of a dead consumer was found last

    def __repr__(self) -> str:
        return f"RedisStream({self._shown})"

    def read(self, most: int, *, wait_seconds: float) -> list[Entry]:
        """The next entries; see `Stream`."""
        if not self._joined:
            self._join()
        if self._left_over:
            entries = self._read_from("0", most)
            if entries:
                return [entry._replace(deliveries=2) for entry in entries]
            self._left_over = False
        if self._claimed is None or monotonic() - self._claimed >= self._dead_after:
            found = self._take_over(most)
            if found:
                return found
            self._claimed = monotonic()
        block_ms = int(1000 * min(wait_seconds, LONGEST_BLOCK, self._wait_seconds / 2))
        return self._read_from(">", most, *(("BLOCK", block_ms) if block_ms else ()))

    def keep(self, entries: Sequence[Entry]) -> None:
        """Begin anew to count the time after which entries are another's."""
        if entries:
            self._ask("XCLAIM", self.name, self._group, self._me, 0, *(entry.id for entry in entries), "JUSTID")

    def settle(self, done: Sequence[Entry], refused: Sequence[tuple[Entry, str]]) -> None:
        """Acknowledge entries, and keep a copy of the refused in `NAME:refused`; all of it or nothing.

        Of more than MOST_FIELDS fields, or where one of them is named as one of ours, the copy is one field `fields`: a
        MessagePack map of them.
        """
        commands: list[Command] = []
        if done:
            commands.append(("XACK", self.name, self._group, *(entry.id for entry in done)))
        for entry, reason in refused:
            told = entry.fields
            if len(told) > MOST_FIELDS or not OURS.isdisjoint(told):
                told = {b"fields": msgspec.msgpack.encode(told)}
            fields = (part for pair in told.items() for part in pair)
            keys = (self.name, f"{self.name}:refused")
            commands.append(("EVAL", REFUSE, 2, *keys, self._group, entry.id, reason, *fields))
        if commands:
            self._ask_all(("MULTI",), *commands, ("EXEC",))

    def pending(self) -> int:
        """Number of entries in some consumer's hand."""
        return int(self._ask("XPENDING", self.name, self._group)[0])

    def lag(self) -> int | None:
        """Number of entries that are not settled."""
        for group in self._ask("XINFO", "GROUPS", self.name):
            about = dict(zip(group[::2], group[1::2], strict=True))
            if about[b"name"] == self._group.encode():
                unread = about.get(b"lag")  # Redis 7, and not after entries were deleted
                return None if unread is None else int(unread) + int(about[b"pending"])
        return None

    def close(self) -> None:
        """Leave the group, unless something is in hand or the server is away."""
        try:
            if self._joined and not self._read_from("0", 1):
                self._ask("XGROUP", "DELCONSUMER", self.name, self._group, self._me)
        except (Unavailable, Failed):
            pass
        self._server.close()
        self._begin()

    def _begin(self) -> None:
        self._joined = False
        self._left_over = False
        self._claimed = None

    def _join(self) -> None:
        try:
            self._ask("XGROUP", "CREATE", self.name, self._group, "0", "MKSTREAM")
        except StreamUnavailable as error:
            if "BUSYGROUP" not in error.found:
                raise
        self._joined = self._left_over = True

    def _take_over(self, most: int) -> list[Entry]:
        """What consumers that died, or are stuck, have in hand."""
        idle_ms = int(self._dead_after * 1000)
        waiting = self._ask("XPENDING", self.name, self._group, "IDLE", idle_ms, "-", "+", most)
        if not waiting:
            return []
        counts = {id.decode(): int(count) for id, _, _, count in waiting}
        suspect = next((id for id, count in counts.items() if count >= SUSPECT), None)
        start, most = ("0-0", most) if suspect is None else (suspect, 1)
        _, found, *_ = self._ask("XAUTOCLAIM", self.name, self._group, self._me, idle_ms, start, "COUNT", most)
        return [entry._replace(deliveries=counts.get(entry.id, 1) + 1) for entry in _entries(found)]

    def _read_from(self, start: str, most: int, *options: Any) -> list[Entry]:
        found = self._ask(
            "XREADGROUP", "GROUP", self._group, self._me, "COUNT", most, *options, "STREAMS", self.name, start
        )
        return _entries(found[0][1]) if found else []

    def _ask(self, *command: Any) -> Any:
        return self._ask_all(command)[0]

    def _ask_all(self, *commands: Command) -> list[Any]:
        try:
            return self._server.ask(*commands)
        except RedisFailed as failed:
            self._begin()  # the group may be gone, and what was delivered on the way is read again
            raise explained(failed, self._shown) from None


class RedisAnswers:
    """Appends answers to a stream, each with its id in the field `id` and what it says in `prediction`."""

    def __init__(self, address: str, *, wait_seconds: float = 10.0) -> None:
        server, self._name = _divided(address)
        self._server = RedisServer(server, wait_seconds=wait_seconds)
        self._shown = f"'{self._name}' at {self._server.shown}"

    def send(self, answers: Sequence[tuple[str, bytes]]) -> None:
        """Append answers, all of them or none."""
        added: list[Command] = [("XADD", self._name, "*", "id", id, "prediction", said) for id, said in answers]
        try:
            self._server.ask(("MULTI",), *added, ("EXEC",))
        except RedisFailed as failed:
            raise explained(failed, self._shown) from None

    def close(self) -> None:
        """Close the connection."""
        self._server.close()


def explained(failed: RedisFailed, shown: str) -> Failed | Unavailable:
    """What went wrong with a stream. shown: which one, without secrets."""
    if failed.kind == "damaged":
        return StreamDamaged(f"{shown} is no stream: {failed.why}.", next="Name another stream.")
    if failed.kind == "refused":
        return StreamRefused(
            f"the server of stream {shown} does not let this user in: {failed.why}.",
            next="Correct user and password in the address (or the variable it names), or the user's rights.",
        )
    return StreamUnavailable(
        f"the server of stream {shown} did not answer: {failed.why}.",
        state="What was not acknowledged is delivered again.",
        next="Try again.",
    )


def _divided(address: str) -> tuple[str, str]:
    """The address of the server's database, and the stream's name."""
    start, _, query = address.partition("?")
    options = [option for option in query.split("&") if option]
    named = [option.removeprefix("stream=") for option in options if option.startswith("stream=")]
    if not named and not address.startswith("unix://"):
        found = re.fullmatch(r"(\w+://[^/]+)/(?:(\d+)/)?([^/]+)", start)
        if found:
            start, named = f"{found[1]}/{found[2] or 0}", [found[3]]
    if not named:
        raise BadStreamAddress(
            f"the address {without_secrets(address)} names no stream.",
            expected="redis://HOST:PORT/DB/STREAM, or unix:///SOCKET?db=DB&stream=STREAM, is expected.",
        )
    rest = "&".join(option for option in options if not option.startswith("stream="))
    return start + (f"?{rest}" if rest else ""), unquote(named[0])


def _entries(found: Iterable[Any]) -> list[Entry]:
    """Entries as the server tells them: id, and names and values in turn; nothing for one that was deleted since."""
    return [
        Entry(id.decode(), dict(zip(fields[::2], fields[1::2], strict=True)) if fields else {}) for id, fields in found
    ]
