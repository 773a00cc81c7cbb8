"""A score that is kept is the one that would be computed, and everything beside it happens as without."""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from seatrial.releases.runtime import Runtime
from seatrial.serving.scoring.cache import ScoreCache
from seatrial.stores.online_sqlite import SqliteOnlineStore
from seatrial.stores.prediction_log import PredictionLog
from seatrial.stores.routes import RouteFile
from tests.serving.meters.test_metrics import value
from tests.serving.scoring.test_predictor import ask, ask_many
from tests.serving.scoring.test_watched_store import service
from tests.serving.test_service import World
from tests.serving.worlds import DOUBLED, GOOD, SIGNATURE, WITH_FUNCTION, onnx, predictor, release

TELLS = ("prediction", "probability", "model_version", "release")


def told(body):
    return {name: body[name] for name in TELLS}


def test_the_same_inputs_are_scored_once_and_answered_logged_and_counted_each_time(tmp_path):
    log = PredictionLog(tmp_path / "log")
    plain, cached = predictor(), predictor(cache=10, log=log)
    ids = set()
    for _ in range(5):
        status, body = ask(cached, GOOD)
        assert status == 200
        assert told(body) == told(ask(plain, GOOD)[1])
        ids.add(body["prediction_id"])
    assert cached.cached == {"kept": 1, "hits": 4, "misses": 1}
    assert plain.cached is None
    metrics = cached._metrics.render()
    for outcome, number in (("hit", 4), ("miss", 1)):
        labels = {"model_name": "late", "model_version": "1", "outcome": outcome}
        assert value(metrics, "seatrial_score_cache_lookups_total", **labels) == number
    assert {row["prediction_id"] for row in log.rows().to_pylist()} == ids
    assert len(ids) == 5
    assert 'model_predictions_total{model_name="late",model_version="1"} 5.0' in cached._metrics.render().decode()


@pytest.mark.parametrize(
    "other", [{"distance": 545.0}, {"distance": None}, {"seats": 151}, {"night": True}, {"carrier": "AA"}]
)
def test_other_inputs_are_another_score(other):
    cached = predictor(cache=10)
    ask(cached, GOOD)
    assert told(ask(cached, GOOD | other)[1]) == told(ask(predictor(), GOOD | other)[1])
    assert cached.cached["hits"] == 0


def test_what_the_model_does_not_see_makes_no_difference_and_is_logged_as_it_came(tmp_path):
    log = PredictionLog(tmp_path / "log")
    cached = predictor(cache=10, log=log)
    for tail in ("N1", "N2"):
        ask(cached, GOOD | {"tail": tail})
    assert cached.cached["hits"] == 1
    assert sorted(log.rows()["field_tail"].to_pylist()) == ["N1", "N2"]


def test_a_category_that_was_never_seen_is_counted_each_time():
    cached = predictor(cache=10)
    for _ in range(3):
        ask(cached, GOOD | {"carrier": "ZZ"})
    assert 'model_unseen_categories_total{input="carrier",model_name="late",model_version="1"} 3.0' in (
        cached._metrics.render().decode()
    )


def test_no_more_scores_are_kept_than_it_was_given_and_the_oldest_go_first():
    cached = predictor(cache=3)
    for distance in (1.0, 2.0, 3.0, 1.0, 4.0, 1.0, 2.0):
        ask(cached, GOOD | {"distance": distance})
    assert cached.cached == {"kept": 3, "hits": 2, "misses": 5}


def test_each_release_has_its_own():
    cached = predictor(release(0), release(1, version="2"), cache=10)
    seen = {}
    for number in range(60):
        _, body = ask(cached, GOOD, request_id=f"r{number}")
        assert seen.setdefault(body["release"], told(body)) == told(body)
    assert len({one["probability"] for one in seen.values()}) == 2


def test_several_rows_are_scored_together_as_ever():
    cached = predictor(cache=10)
    rows = [GOOD, GOOD | {"distance": 90.0}]
    assert ask_many(cached, rows)[0] == 200
    assert cached.cached == {"kept": 0, "hits": 0, "misses": 0}


def test_a_computed_feature_is_part_of_the_key():
    changes = {"signature": WITH_FUNCTION, "plan": DOUBLED}
    cached = predictor(release(**changes), cache=10)
    for distance in (544.0, 545.0, 544.0):
        row = GOOD | {"distance": distance}
        assert told(ask(cached, row)[1]) == told(ask(predictor(release(**changes)), row)[1])
    assert cached.cached["hits"] == 1


def test_a_looked_up_value_that_changed_is_another_key(tmp_path):
    path = tmp_path / "online.db"
    SqliteOnlineStore(path).close()
    made = service(SqliteOnlineStore(path, busy_seconds=0.05, lazy=True), defaults={"plane__last": 900.0}, cache=10)

    def asked():
        answer = made.predictor("far").handle(json.dumps({"features": GOOD}).encode())
        return json.loads(answer.body)["probability"]

    found = [asked(), asked()]
    made.online.close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    found += [asked(), asked()]
    holder.close()
    assert found[0] == found[1] != found[2] == found[3]
    assert made.state()["deployments"]["far"]["cache"] == {"kept": 2, "hits": 2, "misses": 2}


def test_a_score_that_failed_is_not_kept():
    def score(rows):
        raise ValueError

    cache = ScoreCache(score, 10)
    served = predictor(release(score=score), cache=10)
    assert ask(served, GOOD)[0] == 500
    assert served.cached["kept"] == cache.kept == 0


def test_many_threads_at_once_get_right_scores():
    cached = predictor(cache=5)
    rows = [GOOD | {"distance": float(number % 12)} for number in range(600)]
    right = {row["distance"]: ask(predictor(), row)[1]["probability"] for row in rows[:12]}
    with ThreadPoolExecutor(6) as pool:
        for row, (_, body) in zip(rows, pool.map(lambda row: ask(cached, row), rows), strict=True):
            assert body["probability"] == right[row["distance"]]
    assert cached.cached["kept"] <= 5


def test_the_route_file_carries_it(tmp_path):
    world = World(tmp_path)
    arm = world.put()
    route = RouteFile("late", 1, "late", "salt", (arm,), cache=7)
    world.routes.write(route, world.keys.sign, world.keys.verify)
    made = world.service()
    made.refresh()
    ask(made.predictor("late"), GOOD)
    assert made.state()["deployments"]["late"]["cache"] == {"kept": 1, "hits": 0, "misses": 1}


def test_the_runtime_itself_is_not_asked_again():
    asked = []
    runtime = Runtime(onnx())

    def score(rows):
        asked.append(len(rows))
        return runtime.score(rows)

    served = predictor(release(score=score, signature=SIGNATURE), cache=2)
    for _ in range(4):
        ask(served, GOOD)
    assert asked == [1]
