"""Streams: entries that others write, in order, read by a group of consumers that share the work.

An entry is delivered at least once: it belongs to the consumer that read it until that one has settled it. What a
consumer that died had in hand is delivered again, to another. So whatever is done with an entry must be idempotent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from seatrial.core.errors import Failed, Unavailable, UsageError
from seatrial.stores.redis_server import SCHEMES as REDIS

GROUP = "seatrial"


class Entry(NamedTuple):
    """One entry. id: its place in the stream; fields: its content, by name."""

    id: str
    fields: Mapping[bytes, bytes]


class Stream(Protocol):
    """A stream as one consumer of a group sees it. Used by one thread.

    Every method raises StreamUnavailable when the server did not answer; then calling again is safe, and what was
    in hand is read again. It raises StreamDamaged when there is something else than a stream under its name.
    """

    def read(self, most: int, *, wait_seconds: float) -> list[Entry]:
        """The next entries, at most so many; none when none came within the time.

        First what this consumer, or one that died, had read and not settled; then what nobody has read.
        """

    def settle(self, done: Sequence[Entry], refused: Sequence[tuple[Entry, str]]) -> None:
        """Tell that entries are done with. Of the refused a copy is kept for people to look at, with the reason."""

    def pending(self) -> int:
        """Number of entries that consumers of the group have read and not settled."""

    def lag(self) -> int | None:
        """Number of entries that are not settled: pending, or read by nobody yet. None when it is not known."""

    def close(self) -> None:
        """Leave the group, with nothing in hand; closing twice is no error."""


class StreamUnavailable(Unavailable):
    """The stream's server did not answer."""

    code = "stream.unavailable"


class StreamRefused(Unavailable):
    """The stream's server does not let this user in."""

    code = "stream.refused"


class StreamDamaged(Failed):
    """Under the stream's name there is something else."""

    code = "stream.damaged"


class BadStreamAddress(UsageError):
    """An address names no stream."""

    code = "stream.bad_address"


def open_stream(address: str, *, group: str = GROUP, wait_seconds: float = 10.0) -> Stream:
    """The stream at an address: `redis://[[USER]:PASSWORD@]HOST[:PORT]/DB/STREAM`, `rediss://...` (TLS) or
    `unix://[[USER]:PASSWORD@]/SOCKET?db=DB&stream=STREAM`; `${VAR}` in it is taken from the environment.

    group: consumers of one group share the entries; each group has all of them. Nothing is opened yet.
    Raises BadStreamAddress, BadRedisAddress and RedisExtraMissing.
    """
    if not address.startswith(REDIS):
        raise BadStreamAddress(
            f"the stream's address is of the kind '{address.partition('://')[0][:20]}'.",
            expected="redis://HOST:PORT/DB/STREAM is expected.",
        )
    from seatrial.stores.streams_redis import RedisStream

    return RedisStream(address, group=group, wait_seconds=wait_seconds)
