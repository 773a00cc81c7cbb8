"""What comes together is looked up together, and each is answered as if it had come alone."""

from __future__ import annotations

import json

import pytest

from seatrial.features.lookup import entity_key
from seatrial.features.packed import LastRow, Packed, pack
from seatrial.serving.meters.metrics import SAMPLED
from seatrial.serving.scoring.predictor import Later, drafted
from seatrial.stores.online_redis import RedisOnlineStore
from seatrial.stores.online_sqlite import SqliteOnlineStore
from tests.serving.scoring.test_watched_store import probability, service
from tests.serving.worlds import GOOD

DIGEST = "d" * 64


class Counting:
    """A store that tells how often, and for how much, it was asked."""

    def __init__(self, store):
        self.store, self.asked = store, []

    def get(self, keys):
        self.asked.append(len(keys))
        return self.store.get(keys)

    def __getattr__(self, name):
        return getattr(self.store, name)


def filled(store):
    """Planes N0 to N19, the last flight of each as far as its number says."""

    def put(rows):
        for number in range(20):
            row = LastRow(0, 0, (), (100.0 * number,))
            rows.put((DIGEST, entity_key([f"N{number}"])), pack(Packed((row,), newest_known_us=0)))

    store.update(put)
    return Counting(store)


def body(tail, **more):
    return json.dumps({"features": GOOD | {"tail": tail}, "return_features": True} | more).encode()


def together(made, bodies):
    predictor = made.predictor("far")
    return [json.loads(one.answer.body) for one in drafted([Later(predictor, one, "", 0.0) for one in bodies])]


def test_requests_that_come_together_cost_one_round_trip_and_are_answered_as_alone(tmp_path):
    store = filled(SqliteOnlineStore(tmp_path / "online.db"))
    made = service(store)
    bodies = [body(f"N{number}") for number in (3, 7, 3, 19, 99)]
    alone = [together(made, [one])[0] for one in bodies]
    store.asked.clear()
    found = together(made, bodies)
    assert store.asked == [4]  # the same plane once
    for one, same, last in zip(found, alone, (300.0, 700.0, 300.0, 1900.0, None), strict=True):
        assert one["features"]["plane__last"] == same["features"]["plane__last"] == last
        assert one["probability"] == same["probability"] == probability(last)
        assert one.get("views") == same.get("views")


@pytest.mark.needs("redis-server")
def test_on_redis_it_is_one_command(own_redis):
    store = filled(RedisOnlineStore(own_redis().address(), project="p"))
    made = service(store)
    store.asked.clear()
    found = together(made, [body(f"N{number}") for number in range(20)])
    assert [one["features"]["plane__last"] for one in found] == [100.0 * number for number in range(20)]
    assert store.asked == [20]


def test_what_is_wrong_with_one_of_them_is_told_to_that_one(tmp_path):
    made = service(filled(SqliteOnlineStore(tmp_path / "online.db")))
    found = together(made, [body("N1"), b"{", body("N2", features=GOOD | {"tail": 5}), body("N4")])
    assert found[0]["features"]["plane__last"] == 100.0
    assert found[1]["code"] == "request.not_json"
    assert found[2]["code"] == "request.bad_field"
    assert found[3]["features"]["plane__last"] == 400.0


def test_a_row_that_was_written_since_is_seen_by_the_next_turn(tmp_path):
    store = filled(SqliteOnlineStore(tmp_path / "online.db"))
    made = service(store)
    together(made, [body("N1"), body("N2")])
    row = pack(Packed((LastRow(0, 0, (), (5.0,)),), newest_known_us=0))
    store.update(lambda rows: rows.put((DIGEST, entity_key(["N1"])), row))
    assert together(made, [body("N1")])[0]["features"]["plane__last"] == 5.0
    assert together(made, [body("N1"), body("N2")])[0]["features"]["plane__last"] == 5.0


def test_a_request_whose_stages_are_timed_counts_the_look_up_that_it_shared(tmp_path):
    made = service(filled(SqliteOnlineStore(tmp_path / "online.db")))
    for _ in range(SAMPLED):
        drafts = drafted([Later(made.predictor("far"), body(f"N{number}"), "", 0.0) for number in range(2)])
        for draft in drafts:
            draft.predictor.count(draft, draft.start + 1.0)
    assert 'stage="look_up"' in made.metrics.render().decode()


def test_without_the_store_each_is_answered_as_its_deployment_declares(tmp_path):
    store = filled(SqliteOnlineStore(tmp_path / "online.db"))
    made = service(store, defaults={"plane__last": 700.0})
    store.store.close()
    (tmp_path / "online.db").write_bytes(b"no database at all, and longer than a header of one hundred bytes" * 9)
    found = together(made, [body("N1"), body("N2")])
    assert [one["degraded"] for one in found] == [["online_store"]] * 2
    assert [one["features"]["plane__last"] for one in found] == [700.0] * 2
