"""From an address to the online store: which it is, where it is, and what of an address may be seen."""

from __future__ import annotations

import pytest

from seatrial.stores.online import BadOnlineAddress, open_online
from seatrial.stores.online_redis import RedisOnlineStore
from seatrial.stores.online_sqlite import SqliteOnlineStore
from seatrial.stores.redis_server import BadRedisAddress, with_variables, without_secrets
from seatrial.testing.online_suite import put


def test_an_address_names_a_file_in_the_folder(tmp_path):
    store = open_online("sqlite:///state/online.db", folder=tmp_path, project="p")
    assert isinstance(store, SqliteOnlineStore)
    assert (tmp_path / "state" / "online.db").exists()
    store.close()


def test_an_address_names_a_server(tmp_path, redis_server):
    store = open_online(redis_server.address(), folder=tmp_path, project="p")
    assert isinstance(store, RedisOnlineStore)
    store.close()


def test_a_variable_may_hold_the_whole_address(tmp_path, redis_server, monkeypatch):
    for address in ("sqlite:///online.db", redis_server.address()):
        monkeypatch.setenv("ONLINE", address)
        store = open_online("${ONLINE}", folder=tmp_path, project="p")
        put(store, {("view", b"a"): b"1"})
        assert store.count("view") == 1
        store.close()


def test_another_kind_is_refused_without_what_follows_it(tmp_path):
    with pytest.raises(BadOnlineAddress, match="dynamodb") as refused:
        open_online("dynamodb://:secret@h/t", folder=tmp_path, project="p")
    assert "secret" not in str(refused.value)


def test_a_secret_in_a_variable_needs_no_escapes():
    address = with_variables("redis://${USER_}:${PW}@${HOST_}/0", {"USER_": "me", "PW": "a/b@c:d%", "HOST_": "h:1"})
    assert address == "redis://me:a%2Fb%40c%3Ad%25@h:1/0"
    with pytest.raises(BadRedisAddress, match="PW"):
        with_variables("redis://:${PW}@h/0", {})


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://me:secret@h:1/0?socket_timeout=5", "redis://h:1/0"),
        ("redis://:sec@ret@h:1/0", "redis://h:1/0"),
        ("unix://:secret@/run/redis.sock?db=3&password=secret", "unix:///run/redis.sock?db=3"),
        ("rediss://h", "rediss://h"),
    ],
)
def test_what_is_shown_of_an_address_holds_no_secret(address, shown):
    assert without_secrets(address) == shown
