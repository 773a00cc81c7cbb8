"""Streams on Redis: what is read belongs to one consumer until it is settled, and is lost in no case."""

from __future__ import annotations

import msgspec
import pytest

from seatrial.stores.streams import BadStreamAddress, StreamDamaged, StreamRefused, StreamUnavailable, open_stream
from seatrial.stores.streams_redis import RedisStream


@pytest.fixture
def opened():
    streams = []

    def opened(server, name="sales", *, dead_after=0.0, group="tests", **how):
        streams.append(RedisStream(server.address() + f"/{name}", group=group, dead_after=dead_after, **how))
        return streams[-1]

    yield opened
    for stream in streams:
        stream.close()


def add(server, *texts, name="sales"):
    for text in texts:
        server.ask("XADD", name, "*", "row", text)


def read(stream, most=10):
    return [entry.fields[b"row"].decode() for entry in stream.read(most, wait_seconds=0)]


def test_entries_come_in_order_and_each_once(redis_server, opened):
    stream = opened(redis_server, dead_after=60.0)
    assert read(stream) == []
    add(redis_server, *"abcde")
    assert read(stream, 2) == ["a", "b"]
    assert read(stream) == ["c", "d", "e"]
    assert read(stream) == []


def test_a_stream_that_was_filled_before_anybody_read_it_is_read_from_its_start(redis_server, opened):
    add(redis_server, *"ab")
    assert read(opened(redis_server)) == ["a", "b"]


def test_every_group_has_all_entries_and_consumers_of_one_share_them(redis_server, opened):
    add(redis_server, *"ab")
    one, other, third = (opened(redis_server, group=group, dead_after=60.0) for group in ("g", "g", "h"))
    assert (read(one, 1), read(other, 1), read(third)) == (["a"], ["b"], ["a", "b"])


def test_what_was_not_settled_is_given_to_another_and_what_was_is_not(redis_server, opened):
    add(redis_server, *"abc")
    dead = opened(redis_server)
    first, *_ = dead.read(10, wait_seconds=0)
    dead.settle([first], [])
    assert (dead.pending(), dead.lag()) == (2, 2)
    assert read(opened(redis_server)) == ["b", "c"]


def test_a_consumer_that_lost_its_server_reads_what_it_had_in_hand_again(own_redis, opened):
    server = own_redis()
    add(server, *"ab")
    stream = opened(server, dead_after=60.0, wait_seconds=0.2)
    assert read(stream) == ["a", "b"]
    server.pause()
    with pytest.raises(StreamUnavailable):
        stream.read(10, wait_seconds=0)
    server.go_on()
    assert read(stream) == ["a", "b"]


def test_what_is_refused_is_kept_with_the_reason_and_counts_once(redis_server, opened):
    add(redis_server, *"ab")
    stream = opened(redis_server)
    good, bad = stream.read(10, wait_seconds=0)
    for _ in range(2):  # the first answer may have been lost
        stream.settle([good], [(bad, "no row")])
    assert stream.pending() == 0
    [(_, fields)] = redis_server.ask("XRANGE", "sales:refused", "-", "+")
    assert fields == [b"id", bad.id.encode(), b"reason", b"no row", b"row", b"b"]


@pytest.mark.parametrize("name", [b"id", b"reason", b"fields"])
def test_an_entrys_own_fields_hide_nothing_that_is_said_of_its_refusal(redis_server, opened, name):
    fields = {b"row": b"b", name: b"theirs"}
    redis_server.ask("XADD", "sales", "*", *(part for pair in fields.items() for part in pair))
    stream = opened(redis_server)
    [entry] = stream.read(10, wait_seconds=0)
    stream.settle([], [(entry, "no row")])
    [(_, copy)] = redis_server.ask("XRANGE", "sales:refused", "-", "+")
    assert copy[:5] == [b"id", entry.id.encode(), b"reason", b"no row", b"fields"]
    assert msgspec.msgpack.decode(copy[5]) == fields


def test_an_entry_that_was_deleted_since_it_was_read_holds_nobody_up(redis_server, opened):
    add(redis_server, *"ab")
    first, _ = opened(redis_server).read(10, wait_seconds=0)
    redis_server.ask("XDEL", "sales", first.id)
    assert read(opened(redis_server)) == ["b"]


def test_whoever_leaves_with_nothing_in_hand_is_no_consumer_any_more(redis_server, opened):
    add(redis_server, *"a")
    stream = opened(redis_server)
    stream.settle(stream.read(10, wait_seconds=0), [])
    stream.close()
    assert redis_server.ask("XINFO", "CONSUMERS", "sales", "tests") == []


def test_a_stream_that_is_deleted_meanwhile_is_begun_anew(redis_server, opened):
    stream = opened(redis_server)
    assert read(stream) == []
    redis_server.ask("DEL", "sales")
    add(redis_server, *"a")
    with pytest.raises(StreamUnavailable):
        read(stream)
    assert read(stream) == ["a"]


def test_something_else_under_its_name_is_told(redis_server, opened):
    redis_server.ask("SET", "sales", "theirs")
    with pytest.raises(StreamDamaged):
        read(opened(redis_server))


def test_a_server_that_wants_a_password_is_not_asked_again(own_redis, opened):
    server = own_redis("--requirepass", "hidden")
    with pytest.raises(StreamRefused):
        read(opened(server))


@pytest.mark.parametrize(
    "address", ["redis://h", "redis://h/0", "unix:///tmp/s?db=0", "kafka://h", "kafka://u:p@h/t", "sales"]
)
def test_an_address_without_a_stream_is_refused(address):
    if address == "redis://h/0":  # a stream may have any name, and the database may be left out
        assert repr(open_stream(address)) == "RedisStream('0' at redis://h/0)"
        return
    with pytest.raises(BadStreamAddress):
        open_stream(address)


def test_a_socket_names_the_stream_as_an_option(redis_server):
    add(redis_server, *"a")
    stream = open_stream(f"unix://{redis_server.socket}?db=0&stream=sales")
    assert read(stream) == ["a"]
    stream.close()


def test_a_refused_entry_of_very_many_fields_is_kept_and_holds_nobody_up(redis_server, opened):
    fields = {b"c%d" % i: b"%d" % i for i in range(9000)}
    redis_server.ask("XADD", "sales", "*", *(part for pair in fields.items() for part in pair))
    stream = opened(redis_server)
    (entry,) = stream.read(10, wait_seconds=0)
    stream.settle([], [(entry, "too wide")])
    assert stream.pending() == 0
    ((_, copy),) = redis_server.ask("XRANGE", "sales:refused", "-", "+")
    assert msgspec.msgpack.decode(copy[copy.index(b"fields") + 1]) == fields
