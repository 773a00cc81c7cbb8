"""Streams: entries that others write, in order, read by a group of consumers that share the work, and answers to them.

An entry is delivered at least once: it belongs to the consumer that read it until that one has settled it. What a
consumer that died had in hand is delivered again, to another. So whatever is done with an entry must be idempotent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from seatrial.core.errors import Failed, Unavailable, UsageError
from seatrial.stores.redis_server import SCHEMES as REDIS

GROUP = "seatrial"
KAFKA = ("kafka://",)


class Entry(NamedTuple):
    """One entry. id: its place in the stream; fields: its content, by name.

    deliveries: how often it was given to a consumer; more than once: something may have been done with it already.
    Where that is not known it is 2 for what may have been given before.
    """

    id: str
    fields: Mapping[bytes, bytes]
    deliveries: int = 1


class Stream(Protocol):
    """A stream as one consumer of a group sees it. Used by one thread. name: what it is called on its server.

    Every method raises StreamUnavailable when the server did not answer; then calling again is safe, and what was
    in hand is read again. It raises StreamDamaged when there is something else than a stream under its name.
    """

    name: str

    def read(self, most: int, *, wait_seconds: float) -> list[Entry]:
        """The next entries, at most so many; none when none came within the time.

        First what this consumer, or one that died, had read and not settled; then what nobody has read.
        """

    def keep(self, entries: Sequence[Entry]) -> None:
        """Tell that entries are still in hand, so that nobody takes them over meanwhile."""

    def settle(self, done: Sequence[Entry], refused: Sequence[tuple[Entry, str]]) -> None:
        """Tell that entries are done with. Of the refused a copy is kept for people to look at, with the reason."""

    def pending(self) -> int:
        """Number of entries that consumers of the group have read and not settled."""

    def lag(self) -> int | None:
        """Number of entries that are not settled: pending, or read by nobody yet. None when it is not known."""

    def close(self) -> None:
        """Leave the group, with nothing in hand; closing twice is no error."""


class Answers(Protocol):
    """A stream as one that writes to it sees it. Used by one thread; raises what `Stream` raises."""

    def send(self, answers: Sequence[tuple[str, bytes]]) -> None:
        """Append answers, each with the id of what it answers; all of them are there when this returns.

        When it raises some may be there; whoever sends them again makes them stand there twice, with the same id.
        """

    def close(self) -> None:
        """Close the connection; closing twice is no error."""


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
    """The stream at an address: `redis://[[USER]:PASSWORD@]HOST[:PORT]/DB/STREAM`, `rediss://...` (TLS),
    `unix://[[USER]:PASSWORD@]/SOCKET?db=DB&stream=STREAM` or `kafka://HOST:PORT[,HOST:PORT]/TOPIC[?OPTION=VALUE]` with
    librdkafka's options; `${VAR}` in it is taken from the environment.

    group: consumers of one group share the entries; each group has all of them. Nothing is opened yet.
    Raises BadStreamAddress, BadRedisAddress, RedisExtraMissing and KafkaExtraMissing.
    """
    if address.startswith(KAFKA):
        from seatrial.stores.streams_kafka import KafkaStream

        return KafkaStream(address, group=group, wait_seconds=wait_seconds)
    _refuse_others(address)
    from seatrial.stores.streams_redis import RedisStream

    return RedisStream(address, group=group, wait_seconds=wait_seconds)


def open_answers(address: str, *, wait_seconds: float = 10.0) -> Answers:
    """What appends answers to the stream at an address; see `open_stream`."""
    if address.startswith(KAFKA):
        from seatrial.stores.streams_kafka import KafkaAnswers

        return KafkaAnswers(address, wait_seconds=wait_seconds)
    _refuse_others(address)
    from seatrial.stores.streams_redis import RedisAnswers

    return RedisAnswers(address, wait_seconds=wait_seconds)


def _refuse_others(address: str) -> None:
    if not address.startswith(REDIS):
        raise BadStreamAddress(
            f"the stream's address is of the kind '{address.partition('://')[0][:20]}'.",
            expected="redis://HOST:PORT/DB/STREAM or kafka://HOST:PORT/TOPIC is expected.",
        )
