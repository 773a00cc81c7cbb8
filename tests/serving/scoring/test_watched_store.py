"""An online store that hangs stops nobody: who needs it is answered in time, everybody else as ever."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time

import pytest

from seatrial.core.signature import encode
from seatrial.features.plan import AggregationPlan, FeaturePlan, ViewPlan
from seatrial.releases.runtime import Runtime
from seatrial.serving.doors.http import Front
from seatrial.serving.scoring.defaults import DefaultWrong
from seatrial.serving.scoring.watched_store import RETRY_SECONDS, WatchedStore
from seatrial.serving.service import Service
from seatrial.stores.online import OnlineStoreUnavailable
from seatrial.stores.online_redis import RedisOnlineStore
from seatrial.stores.online_sqlite import SqliteOnlineStore
from seatrial.stores.prediction_log import PredictionLog
from seatrial.stores.routes import RouteFile
from tests.serving.worlds import GOOD, REQUEST, SIGNATURE, onnx, release

VIEW = ViewPlan("plane", "d" * 64, ("tail",), None, {"last": AggregationPlan("last", "distance")})
LOOKS_UP = SIGNATURE.__class__(
    "binary", REQUEST, ("plane__last", "seats", "carrier", "night"), SIGNATURE.categories, SIGNATURE.integers
)
BODY = json.dumps({"features": GOOD | {"tail": "N1"}, "return_features": True}).encode()
KEY = ("d" * 64, b"N1")


def service(store, log=None, *, failure="missing", **beside) -> Service:
    """Two deployments: "near" needs no store, "far" looks a feature up."""
    from seatrial.serving.scoring.predictor import Share

    made = Service(online=store, log=log)
    far = release(plan=FeaturePlan((VIEW,)), signature=LOOKS_UP, score=Runtime(onnx()).score)
    route = RouteFile("far", 1, "late", "salt", (), on_store_failure=failure, **beside)
    made.serve("far", made.make_predictor("far", [Share("live", far)], route))
    made.serve("near", made.make_predictor("near", [Share("live", release(1))]))
    made.prove()
    return made


def probability(last):
    rows, _ = encode(LOOKS_UP, {"plane__last": [last], "seats": [150], "carrier": ["DL"], "night": [False]})
    return Runtime(onnx()).score(rows)[0]


def asked(front: Front, name: str):
    return asyncio.create_task(front._draft(name, BODY, ""))


async def while_it_hangs(front: Front, many: int = 40):
    """What who needs the store is answered, when everybody else has been answered before."""
    waiting = [asked(front, "far") for _ in range(many)]
    for _ in range(50):
        assert (await asked(front, "near")).answer.status == 200
    assert not all(one.done() for one in waiting)
    found = [(await one).answer for one in waiting]
    return [(answer.status, json.loads(answer.body)) for answer in found]


@pytest.fixture
def held(tmp_path):
    """A SQLite store that another process keeps for itself, and that would be waited for for a minute."""
    store = SqliteOnlineStore(tmp_path / "online.db")
    store.close()
    holder = sqlite3.connect(tmp_path / "online.db", isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    store = SqliteOnlineStore(tmp_path / "online.db", busy_seconds=5.0, lazy=True)
    yield store
    holder.close()


def test_a_store_that_hangs_keeps_nobody_else_waiting_and_is_answered_without(held):
    front = Front(service(held))
    for status, body in asyncio.run(while_it_hangs(front)):
        assert status == 200
        assert body["degraded"] == ["online_store"]
        assert body["probability"] == probability(None)


def test_where_nothing_is_answered_without_the_store_it_is_503_in_time(held):
    front = Front(service(held, failure="refuse"))
    for status, body in asyncio.run(while_it_hangs(front)):
        assert (status, body["code"]) == (503, "serving.online_store_down")


def test_declared_values_stand_for_what_cannot_be_looked_up_and_are_logged_as_degraded(held, tmp_path):
    log = PredictionLog(tmp_path / "log")
    made = service(held, log, defaults={"plane__last": 700.0})

    async def ask():
        return await Front(made)._draft("far", BODY, "")

    draft = asyncio.run(ask())
    body = json.loads(draft.answer.body)
    assert body["degraded"] == ["online_store"]
    assert body["features"]["plane__last"] == 700.0
    assert body["probability"] == probability(700.0)
    ((_, row),) = draft.rows
    assert row.degraded == ("online_store",)
    assert row.inputs[0] == 700.0


@pytest.mark.needs("redis-server")
def test_a_redis_server_that_was_stopped_is_asked_again_and_back_when_it_goes_on(own_redis):
    server = own_redis()
    store = WatchedStore(RedisOnlineStore(server.address(), project="p", busy_seconds=0.1), lambda: None)
    assert store.get([KEY]) == [None]
    assert not store.slow
    server.pause()
    for _ in range(50):
        with pytest.raises(OnlineStoreUnavailable):
            store.get([KEY])
    assert store.slow
    server.go_on()
    time.sleep(RETRY_SECONDS)
    for _ in range(100):
        try:
            assert store.get([KEY]) == [None]
            break
        except OnlineStoreUnavailable:
            time.sleep(0.05)
    else:
        raise AssertionError("it did not come back")


@pytest.mark.needs("redis-server")
def test_while_a_store_fails_it_is_asked_by_one_request_at_a_time(own_redis):
    server = own_redis()
    real = RedisOnlineStore(server.address(), project="p", busy_seconds=0.05)
    times = []
    get = real.get
    real.get = lambda keys: times.append(1) or get(keys)
    store = WatchedStore(real, lambda: None)
    server.pause()
    for _ in range(1000):
        with pytest.raises(OnlineStoreUnavailable):
            store.get([KEY])
    assert len(times) < 20


def test_a_store_that_is_quick_is_asked_where_the_request_is_answered(tmp_path):
    made = service(SqliteOnlineStore(tmp_path / "online.db"))
    assert made.elsewhere == {"far"}
    for _ in range(200):
        assert made.predictor("far").handle(BODY).status == 200
        if not made.elsewhere:
            break
    assert made.elsewhere == frozenset()


@pytest.mark.parametrize(
    ("defaults", "said"),
    [
        ({"plane__lst": 1.0}, "Did you mean 'plane__last'"),
        ({"carrier": "AA"}, "does not look up"),
        ({"plane__last": "long"}, "is a text"),
    ],
)
def test_a_default_for_what_is_not_looked_up_or_of_another_type_is_refused(tmp_path, defaults, said):
    with pytest.raises(DefaultWrong, match=said):
        service(SqliteOnlineStore(tmp_path / "online.db"), defaults=defaults)
