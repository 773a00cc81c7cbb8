"""The online store on Redis: the conformance suite on a real server, and what is true of servers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from seatrial.stores.online import (
    OnlineStoreBusy,
    OnlineStoreDamaged,
    OnlineStoreFull,
    OnlineStoreRefused,
    OnlineStoreTooNew,
    OnlineStoreUnavailable,
)
from seatrial.stores.online_redis import RedisOnlineStore
from seatrial.stores.redis_server import BadRedisAddress
from seatrial.testing import OnlineStoreSuite
from seatrial.testing.online_suite import put

A = ("view", b"a")


@pytest.fixture
def opened():
    stores = []

    def opened(address, **how):
        stores.append(RedisOnlineStore(address, **{"project": "tests", "busy_seconds": 30.0} | how))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


class TestRedisOnlineStore(OnlineStoreSuite):
    @pytest.fixture
    def open_store(self, redis_server, opened):
        return lambda: opened(redis_server.address())


class TestOverASocket(OnlineStoreSuite):
    @pytest.fixture
    def open_store(self, redis_server, opened):
        return lambda: opened(redis_server.unix(database=3), project="a project: %s")


def test_projects_in_one_database_do_not_see_each_other(redis_server, opened):
    one, other = (opened(redis_server.address(), project=name) for name in ("one", "one:view"))
    put(one, {A: b"1"})
    assert other.get([A]) == [None]
    assert (one.count("view"), other.count("view")) == (1, 0)
    put(other, {A: b"2"})
    assert one.get([A]) == [b"1"]


def test_a_row_is_a_string_whose_name_says_whose_it_is(redis_server, opened):
    put(opened(redis_server.address()), {("0a1b", b"\x91\x01"): b"row"})
    assert redis_server.ask("GET", b"seatrial:tests:0a1b:\x91\x01") == b"row"
    assert redis_server.ask("HGETALL", "seatrial:tests") == [b"rows:0a1b", b"1", b"format", b"1"]


def test_a_change_takes_two_round_trips_whatever_its_size(redis_server, opened):
    store = opened(redis_server.address())
    keys = [("view", str(i).encode()) for i in range(500)]
    before = commands(redis_server)

    def change(rows):
        rows.get(keys)
        for key in keys:
            rows.put(key, b"1")

    store.update(change)
    done = {name: number - before.get(name, 0) for name, number in commands(redis_server).items()}
    done = {name: number for name, number in done.items() if number and name not in ("info", "client", "select")}
    assert done == dict.fromkeys(("watch", "mget", "exists", "hget", "multi", "mset", "hincrby", "hsetnx", "exec"), 1)


def test_a_look_up_is_one_command(redis_server, opened):
    store = opened(redis_server.address())
    before = commands(redis_server)
    store.get([("one", b"a"), ("other", b"a"), ("third", b"b")])
    after = commands(redis_server)
    assert sum(after.values()) - sum(before.values()) - (after["info"] - before["info"]) == 1


def commands(server):
    """How often each command was carried out, without what the question itself takes."""
    import redis

    with redis.Redis(port=server.port, protocol=2) as client:
        stats = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items() if "|" not in name}


class TestTheServer:
    def test_one_that_is_not_there_is_unavailable(self, own_redis, opened):
        server = own_redis()
        server.stop()
        with pytest.raises(OnlineStoreUnavailable, match="refused"):
            opened(server.address())
        lazy = opened(server.address(), lazy=True)
        for _ in range(2):
            with pytest.raises(OnlineStoreUnavailable):
                lazy.get([A])
        server.start()
        assert lazy.get([A]) == [None]

    def test_one_that_does_not_answer_is_not_waited_for_longer_than_said(self, own_redis, opened):
        server = own_redis()
        known, unknown = (opened(server.address(), busy_seconds=0.4, lazy=True) for _ in range(2))
        put(known, {A: b"1"})
        server.pause()
        for store in (known, unknown):
            with pytest.raises(OnlineStoreUnavailable, match=r"0\.4 s"):
                store.get([A])
        with pytest.raises(OnlineStoreUnavailable):
            put(known, {A: b"2"})
        server.go_on()
        assert known.get([A]) in ([b"1"], [b"2"])
        assert known.get([("view", b"b"), A])[0] is None  # no late answer is taken for that to another question

    def test_one_that_was_restarted_is_found_again_without_an_error(self, own_redis, opened):
        server = own_redis()
        store = opened(server.address())
        put(store, {A: b"1", ("view", b"b"): b"1"})
        server.stop()
        server.start()
        assert store.get([A]) == [None]
        put(store, {A: b"2"})
        assert store.count("view") == 1

    def test_one_that_is_full_refuses_the_whole_change_and_goes_on_answering(self, own_redis, opened):
        server = own_redis("--maxmemory-policy", "noeviction")
        store = opened(server.address())
        put(store, {A: b"1"})
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(OnlineStoreFull, match="maxmemory") as refused:
            put(store, {A: b"2", ("view", b"b"): b"2"})
        assert "Nothing was written." in str(refused.value)
        assert store.get([A, ("view", b"b")]) == [b"1", None]
        assert store.count("view") == 1
        server.ask("CONFIG", "SET", "maxmemory", "0")
        put(store, {A: b"2"})
        assert store.get([A]) == [b"2"]

    def test_a_replica_takes_no_writes_and_says_so(self, own_redis, opened):
        server = own_redis()
        store = opened(server.address())
        put(store, {A: b"1"})
        server.ask("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(OnlineStoreUnavailable, match="replica"):
            put(store, {A: b"2"})
        assert store.fitness()[0] is False

    @pytest.mark.parametrize("password", ["", "wrong one"])
    def test_a_password_that_is_missing_or_wrong_is_told_but_not_shown(self, own_redis, opened, password):
        server = own_redis("--requirepass", "s3cret/@:")
        with pytest.raises(OnlineStoreRefused, match="password") as refused:
            opened(server.address(password=password.replace(" ", "%20")))
        assert "wrong" not in str(refused.value).replace("WRONGPASS", "")

    def test_a_password_may_stand_in_a_variable_as_it_is(self, own_redis, opened, monkeypatch):
        server = own_redis("--requirepass", "s3cret/@:")
        monkeypatch.setenv("REDIS_PASSWORD", "s3cret/@:")
        store = opened(server.address(password="${REDIS_PASSWORD}"))
        put(store, {A: b"1"})
        assert store.get([A]) == [b"1"]
        assert "cret" not in repr(store)
        assert "cret" not in store.fitness()[1]
        server.stop()
        with pytest.raises(OnlineStoreUnavailable) as down:
            store.get([A])
        assert "cret" not in str(down.value)

    def test_a_user_without_rights_is_told_of_them(self, own_redis, opened):
        server = own_redis()
        server.ask("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+mget", "+hget")
        store = opened(server.address().replace("//", "//reader:pw@"))
        assert store.get([A]) == [None]
        with pytest.raises(OnlineStoreRefused, match="watch"):
            put(store, {A: b"1"})

    def test_what_may_be_evicted_is_not_fit_to_be_kept(self, own_redis, opened):
        server = own_redis()
        store = opened(server.address())
        assert store.fitness()[0] is True
        server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        passed, found, next = store.fitness()
        assert not passed
        assert "allkeys-lru" in found
        assert "noeviction" in next


class TestTheDatabase:
    def test_a_format_of_a_newer_version_is_refused(self, redis_server, opened):
        store = opened(redis_server.address())
        redis_server.ask("HSET", "seatrial:tests", "format", "99")
        with pytest.raises(OnlineStoreTooNew, match="99"):
            opened(redis_server.address())
        with pytest.raises(OnlineStoreTooNew, match="99"):
            put(store, {A: b"1"})
        assert store.get([A]) == [None]

    def test_something_else_under_its_names_is_told_and_left_as_it_is(self, redis_server, opened):
        store = opened(redis_server.address())
        redis_server.ask("RPUSH", "seatrial:tests:view:a", "theirs")
        with pytest.raises(OnlineStoreDamaged, match="is a list"):
            put(store, {A: b"1", ("view", b"b"): b"1"})
        assert redis_server.ask("LRANGE", "seatrial:tests:view:a", 0, -1) == [b"theirs"]
        assert store.get([("view", b"b")]) == [None]
        redis_server.ask("SET", "seatrial:tests", "theirs")
        with pytest.raises(OnlineStoreDamaged):
            put(store, {("view", b"b"): b"1"})
        with pytest.raises(OnlineStoreDamaged):
            opened(redis_server.address())

    def test_a_writer_that_others_always_overtake_gives_up_and_wrote_nothing(self, redis_server, opened):
        store, other = (opened(redis_server.address(), busy_seconds=0.2) for _ in range(2))

        def change(rows):
            rows.get([A])
            put(other, {A: os.urandom(8)})
            rows.put(A, b"mine")
            rows.put(("view", b"b"), b"mine")

        with pytest.raises(OnlineStoreBusy, match="others"):
            store.update(change)
        assert store.get([A]) != [b"mine"]
        assert store.get([("view", b"b")]) == [None]

    def test_a_change_that_failed_on_two_states_at_once_is_made_again(self, redis_server, opened):
        store, other = (opened(redis_server.address()) for _ in range(2))
        b = ("view", b"b")
        put(store, {A: b"1", b: b"1"})
        calls = []

        def change(rows):
            [first] = rows.get([A])
            if not calls:
                put(other, {A: b"2", b: b"2"})
            calls.append(1)
            [second] = rows.get([b])
            assert first == second
            rows.put(A, b"3")

        store.update(change)
        assert len(calls) == 2
        assert store.get([A]) == [b"3"]


@pytest.mark.parametrize(
    "address",
    ["redis://", "redis://h:port/0", "redis://h/first", "redis://:pw@h/0/x", "redis://h/0?socket_timeout=x",
     "redis://:pw@h/0?no_such_option=1"],
)  # fmt: skip
def test_an_address_that_cannot_be_understood_is_refused_without_its_password(address):
    with pytest.raises(BadRedisAddress) as refused:
        RedisOnlineStore(address, project="tests", lazy=True)
    assert "pw" not in str(refused.value)


def test_without_the_driver_it_is_said_what_to_install():
    """Asked in a fresh interpreter, where nothing has loaded it."""
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from seatrial.stores.online_redis import RedisOnlineStore\n"
        "RedisOnlineStore('redis://h/0', project='tests', lazy=True)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert "RedisExtraMissing [redis.extra_missing]" in done.stderr
    assert "pip install 'seatrial[redis]'" in done.stderr


def test_a_variable_that_is_not_set_is_named():
    with pytest.raises(BadRedisAddress, match="NO_SUCH_VARIABLE"):
        RedisOnlineStore("redis://:${NO_SUCH_VARIABLE}@h/0", project="tests", lazy=True)
