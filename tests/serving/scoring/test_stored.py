"""Stored predictions: the latest of each key, in either kind of online store."""

from __future__ import annotations

import msgspec
import pytest

from seatrial.core.clock import from_us
from seatrial.serving.clients.client import Client, ServerRefused, ServerUnable
from seatrial.serving.scoring.predictor import Share
from seatrial.serving.scoring.stored import ROWS, StoredPrediction, read, write
from seatrial.serving.service import Service
from seatrial.stores.online import OnlineStoreDamaged, OnlineStoreTooNew, open_online
from tests.serving.meters.test_metrics import value
from tests.serving.worlds import in_thread, release

OF = {"release": "rel_1", "model_version": "3"}


@pytest.fixture(params=["sqlite", "redis"])
def online(request, tmp_path):
    address = "sqlite:///online.db"
    if request.param == "redis":
        address = request.getfixturevalue("redis_server").address()
    store = open_online(address, folder=tmp_path, project="p")
    yield store
    store.close()


def test_what_was_written_is_read_back_by_model_and_key(online):
    assert write(online, "late", ["a|1", "b"], [(1, 0.75), (0, 0.25)], [1_000_000, 2_000_000], **OF) == 2
    assert read(online, "late", "a|1") == StoredPrediction(1, 0.75, "rel_1", "3", from_us(1_000_000))
    assert read(online, "late", "c") is None
    assert read(online, "other", "b") is None


@pytest.mark.parametrize("answered", [(1.5, None), ("blue", {"blue": 0.75, "red": 0.25}), (7, {"7": 1.0})])
def test_each_kind_of_answer_comes_back_as_it_was(online, answered):
    write(online, "m", ["k"], [answered], [5], **OF)
    found = read(online, "m", "k")
    assert (found.prediction, found.probability) == answered
    assert type(found.prediction) is type(answered[0])


def test_an_earlier_instant_never_overwrites_a_later_one(online):
    write(online, "m", ["k"], [(2.0, None)], [20], **OF)
    assert write(online, "m", ["k"], [(1.0, None)], [10], **OF) == 0
    assert read(online, "m", "k").prediction == 2.0
    assert write(online, "m", ["k", "k", "k"], [(3.0, None), (4.0, None), (1.0, None)], [30, 30, 10], **OF) == 1
    assert read(online, "m", "k").prediction == 4.0


def test_the_same_batch_twice_writes_nothing_the_second_time(online):
    keys = [str(number) for number in range(ROWS + 5)]
    given = (online, "m", keys, [(float(key), None) for key in keys], [7] * len(keys))
    assert write(*given, **OF) == ROWS + 5
    assert write(*given, **OF) == 0
    assert read(online, "m", str(ROWS + 4)).prediction == ROWS + 4


def test_a_new_release_overwrites_what_another_said_of_the_same_instant(online):
    write(online, "m", ["k"], [(2.0, None)], [20], **OF)
    write(online, "m", ["k"], [(2.0, None)], [20], release="rel_2", model_version="4")
    assert read(online, "m", "k").release == "rel_2"


def test_what_cannot_be_read_is_told(online):
    online.update(lambda rows: rows.put(("predictions/m", b"new"), msgspec.msgpack.encode([99, 1])))
    online.update(lambda rows: rows.put(("predictions/m", b"odd"), b"\xc1"))
    with pytest.raises(OnlineStoreTooNew):
        read(online, "m", "new")
    with pytest.raises(OnlineStoreDamaged):
        read(online, "m", "odd")


class TestTheDoor:
    """What GET /predictions/MODEL/KEY tells."""

    @pytest.fixture
    def url(self, online):
        service = Service(online=online, now_us=lambda: 100_000_000)
        with in_thread(service) as url:
            yield url

    def test_it_tells_the_prediction_and_its_age(self, online, url):
        write(online, "late", ["2013-04-01|DL|17/3 é%"], [(1, 0.75)], [40_500_000], **OF)
        with Client(url) as client:
            found = client.stored("late", "2013-04-01|DL|17/3 é%")
        assert (found.prediction, found.probability, found.release, found.model_version) == (1, 0.75, "rel_1", "3")
        assert (found.as_of, found.age_seconds) == (from_us(40_500_000), 59.5)

    def test_what_is_said_of_an_instant_to_come_has_no_age(self, online, url):
        write(online, "late", ["k"], [("a", {"a": 1.0})], [200_000_000], **OF)
        with Client(url) as client:
            assert (client.stored("late", "k").age_seconds, client.stored("late", "k")["prediction"]) == (0, "a")

    def test_a_key_of_which_nothing_was_said_is_not_found(self, online, url):
        write(online, "late", ["k"], [(1, 0.75)], [1], **OF)
        with Client(url) as client:
            for model, key in (("late", "secret-4711"), ("other-4711", "k"), ("late", ""), ("late", "k/")):
                with pytest.raises(ServerRefused, match="no prediction of this key") as error:
                    client.stored(model, key)
                assert error.value.facts == {"status": 404, "code": "serving.nothing_stored"}
                assert "4711" not in str(error.value)

    def test_a_model_that_is_not_served_is_told_from_a_key_that_is_not_known(self, online):
        made = Service(online=online)
        made.serve("late", made.make_predictor("late", [Share("live", release())]))
        made.prove()
        online.update(lambda rows: rows.put(("predictions/late", b"damaged"), b"damaged"))
        write(online, "retired", ["k"], [(1, 0.75)], [1], **OF)
        with in_thread(made) as url, Client(url, retries=0) as client:
            with pytest.raises(ServerRefused, match="no prediction of this key"):
                client.stored("late", "k")
            with pytest.raises(ServerRefused, match=r"no model of this name.*There are late\.") as error:
                client.stored("latte-4711", "k")
            assert error.value.facts == {"status": 404, "code": "http.not_found"}
            assert "4711" not in str(error.value)
            assert client.stored("retired", "k").prediction == 1
            with pytest.raises(ServerUnable):
                client.stored("late", "damaged")
            metrics = client.get("/metrics")
        name = "seatrial_stored_prediction_requests_total"
        assert value(metrics, name, model_name="late", status="4xx") == 1
        assert value(metrics, name, model_name="late", status="5xx") == 1
        assert value(metrics, name, model_name="", status="4xx") == 1
        assert value(metrics, name, model_name="", status="2xx") == 1
        failures = {"model_name": "late", "code": "online.damaged"}
        assert value(metrics, "seatrial_online_store_failures_total", **failures) == 1
        assert b'seatrial_requests_total{deployment="",' not in metrics  # which pages
        assert b"latte" not in metrics

    def test_what_cannot_be_read_is_unavailable(self, online, url):
        online.update(lambda rows: rows.put(("predictions/late", b"k"), b"damaged"))
        with Client(url) as client, pytest.raises(ServerUnable) as error:
            client.stored("late", "k")
        assert error.value.facts == {"status": 503, "code": "serving.online_store_down"}


def test_a_server_without_an_online_store_has_none():
    with in_thread(Service()) as url, Client(url) as client, pytest.raises(ServerRefused, match="no online store"):
        client.stored("late", "k")
