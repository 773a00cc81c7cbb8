"""What every stream must satisfy, as tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import pytest

from seatrial.core.clock import monotonic
from seatrial.stores.streams import Answers, Entry, Stream

PATIENCE = 30.0  # seconds for which a group may take to share its entries anew


class Server(Protocol):
    """A server of streams, as the tests see it."""

    field: bytes
    """The field of an entry that holds what was added."""

    def stream(self, name: str, group: str) -> Stream:
        """One more consumer of a group; what others leave is given to it at once."""

    def answers(self, name: str) -> Answers:
        """What appends to a stream."""

    def add(self, name: str, texts: Sequence[str]) -> None:
        """Append entries."""

    def refused(self, name: str) -> list[tuple[str, str, str]]:
        """(text, id, reason) of what was refused of a stream."""

    def answered(self, name: str) -> list[tuple[str, bytes]]:
        """(id, answer) of what was appended to a stream."""


class StreamSuite:
    """Inherit, and give `server`: a server on which the streams that a test names are not there yet."""

    @pytest.fixture
    def server(self) -> Server:
        raise NotImplementedError("give a fixture `server`")

    @pytest.fixture
    def opened(self, server: Server) -> Iterator[Callable[..., Stream]]:
        streams: list[Stream] = []

        def open_one(name: str, group: str = "g") -> Stream:
            streams.append(server.stream(name, group))
            return streams[-1]

        yield open_one
        for stream in streams:
            stream.close()

    def test_each_entry_comes_once_and_is_pending_until_it_is_settled(
        self, server: Server, opened: Callable[..., Stream]
    ) -> None:
        server.add("once", ["a", "b", "c"])
        stream = opened("once")
        entries = until(stream, 3)
        assert sorted(texts(server, entries)) == ["a", "b", "c"]
        assert len({entry.id for entry in entries}) == 3
        assert (stream.pending(), stream.lag()) == (3, 3)
        stream.keep(entries)
        stream.settle(entries, [])
        assert (stream.pending(), stream.lag()) == (0, 0)
        assert stream.read(10, wait_seconds=0.1) == []

    def test_what_was_not_settled_is_given_to_another_who_is_told_that_it_comes_again(
        self, server: Server, opened: Callable[..., Stream]
    ) -> None:
        server.add("again", ["a", "b"])
        gone = opened("again")
        first = until(gone, 2)
        gone.close()
        stream = opened("again")
        second = until(stream, 2)
        assert sorted(entry.id for entry in second) == sorted(entry.id for entry in first)
        assert all(entry.deliveries > 1 for entry in second)
        stream.settle(second, [])
        assert stream.lag() == 0

    def test_what_is_refused_is_kept_with_its_id_and_the_reason_and_is_settled(
        self, server: Server, opened: Callable[..., Stream]
    ) -> None:
        server.add("bad", ["good", "bad"])
        stream = opened("bad")
        entries = until(stream, 2)
        told = dict(zip(texts(server, entries), entries, strict=True))
        stream.settle([told["good"]], [(told["bad"], "it is bad")])
        assert server.refused("bad") == [("bad", told["bad"].id, "it is bad")]
        assert stream.lag() == 0

    def test_two_consumers_of_a_group_share_and_each_group_has_all(
        self, server: Server, opened: Callable[..., Stream]
    ) -> None:
        server.add("shared", [f"{number}" for number in range(40)])
        one, other = opened("shared"), opened("shared")
        found: dict[str, list[str]] = {"one": [], "other": []}
        ends = monotonic() + PATIENCE
        extra = 0
        while monotonic() < ends and not (all(found.values()) and len({*found["one"], *found["other"]}) >= 40):
            for name, stream in (("one", one), ("other", other)):
                entries = stream.read(5, wait_seconds=0.1)
                stream.settle(entries, [])
                found[name] += texts(server, entries)
            if len({*found["one"], *found["other"]}) >= 40 + extra:  # one of them was alone until now
                server.add("shared", [f"{40 + extra + number}" for number in range(8)])
                extra += 8
        assert all(found.values())
        assert {f"{number}" for number in range(40)} <= {*found["one"], *found["other"]}

    def test_answers_are_there_when_they_are_sent(self, server: Server) -> None:
        answers = server.answers("answers")
        answers.send([("id-1", b'{"a":1}'), ("id-2", b"\x00\xff")])
        answers.send([("id-1", b'{"a":1}')])
        answers.close()
        answers.close()
        assert sorted(server.answered("answers")) == [
            ("id-1", b'{"a":1}'),
            ("id-1", b'{"a":1}'),
            ("id-2", b"\x00\xff"),
        ]


def until(stream: Stream, number: int) -> list[Entry]:
    """So many entries, or what came of them while anybody would wait."""
    found: list[Entry] = []
    ends = monotonic() + PATIENCE
    while len(found) < number and monotonic() < ends:
        found += stream.read(number - len(found), wait_seconds=0.2)
    return found


def texts(server: Server, entries: Sequence[Entry]) -> list[str]:
    return [entry.fields[server.field].decode() for entry in entries]
