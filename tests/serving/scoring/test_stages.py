"""Where the time of a request goes: which stages are told, and that being watched changes nothing."""

from __future__ import annotations

import json

import pytest

from seatrial.releases.supervised import ChildRestarting
from seatrial.serving.meters.metrics import SAMPLED, STAGES, Metrics
from seatrial.serving.scoring.predictor import finish
from seatrial.serving.scoring.stages import Watched
from seatrial.stores.prediction_log import PredictionLog
from tests.serving.meters.test_metrics import body, samples, value
from tests.serving.worlds import DOUBLED, GOOD, WITH_FUNCTION, predictor, release


def stages(metrics: Metrics) -> dict[str, float]:
    """How many times each stage was timed."""
    found = samples(metrics.render())["model_prediction_stage_seconds_count"]
    return {dict(labels)["stage"]: count for labels, count in found.items()}


def test_one_request_in_so_many_has_its_stages_timed():
    metrics = Metrics()
    served = predictor(metrics=metrics)
    for _ in range(1 + 2 * SAMPLED):
        assert served.handle(body()).status == 200
    assert stages(metrics) == {"answer": 3, "log": 3, "read": 3, "score": 3}
    assert value(metrics.render(), "seatrial_requests_total", deployment="late", status="2xx") == 1 + 2 * SAMPLED


def test_stages_add_up_to_the_latency_of_the_request(tmp_path):
    log = PredictionLog(tmp_path)
    one = Watched(predictor(release(signature=WITH_FUNCTION, plan=DOUBLED), log=log))
    draft = one.draft(json.dumps({"instances": [GOOD, GOOD]}).encode())
    seen = []
    one._told = lambda _, draft, now: seen.append((one.seconds(draft, now), now - draft.start))
    assert finish(log, [draft])[0].status == 200
    [(seconds, latency)] = seen
    assert seconds.keys() == {"read", "look_up", "score", "answer", "log"} < set(STAGES)
    assert sum(seconds.values()) == pytest.approx(latency, abs=1e-5)
    assert all(taken >= 0 for taken in seconds.values())
    log.close()


def test_a_watched_answer_is_logged_and_counted_like_any_other(tmp_path):
    log, metrics = PredictionLog(tmp_path), Metrics()
    served = predictor(metrics=metrics, log=log)
    answers = [json.loads(served.handle(body()).body) for _ in range(3)]
    assert len({answer["probability"] for answer in answers}) == 1
    log.close()
    assert log.rows().num_rows == 3
    assert value(metrics.render(), "model_predictions_total", model_name="late", model_version="1") == 3


def test_a_watched_request_that_fails_is_refused_and_counted_once():
    metrics = Metrics()
    served = predictor(metrics=metrics)
    assert served.handle(b"{").status == 400
    assert stages(metrics) == {}
    assert value(metrics.render(), "seatrial_requests_total", deployment="late", status="4xx") == 1


def test_a_watched_request_waits_for_a_child_that_is_started_again_like_any_other():
    from concurrent.futures import Future

    started: Future = Future()
    started.set_result(None)
    scored = release().score
    calls = []

    def score(rows):
        calls.append(rows)
        if len(calls) == 1:
            raise ChildRestarting("it ended", started=started, died=True, retry_after=1)
        return scored(rows)

    metrics = Metrics()
    served = predictor(release(score=score), metrics=metrics)
    assert served.handle(body()).status == 200
    assert stages(metrics)["score"] == 1
    assert value(metrics.render(), "seatrial_child_restarts_total", model_name="late") == 1
