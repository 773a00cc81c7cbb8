"""Unlogged: what leaves when the log's disk is full, by the policy that was declared?"""

from __future__ import annotations

import json
import resource
from urllib.request import Request, urlopen

import pytest

from seatrial.core.windows import Window
from seatrial.releases.signing import signing_key
from seatrial.serving.clients.client import Client
from seatrial.serving.doors.container import platform
from seatrial.serving.scoring.predictor import Share
from seatrial.serving.service import Service
from seatrial.stores.prediction_log import PredictionLog
from tests.disks import fill_up, small_disk
from tests.serving.worlds import GOOD, bundle, in_thread, predictor, release, server

EVER = Window(0, 10**17)


def ask(served, *rows):
    body = {"features": rows[0]} if len(rows) == 1 else {"instances": list(rows)}
    answer = served.handle(json.dumps(body).encode())
    return answer.status, json.loads(answer.body)


@pytest.fixture
def blocked(tmp_path):
    """A log that cannot be written, until the file that stands in its way is gone."""
    (tmp_path / "log").write_text("in the way")
    return PredictionLog(tmp_path / "log", when_full="serve_unlogged")


def test_answers_leave_with_a_flag_and_are_counted(blocked, tmp_path):
    served = predictor(log=blocked)
    status, one = ask(served, GOOD)
    assert (status, one["degraded"]) == (200, ["prediction_log"])
    assert 0 < one["probability"] < 1
    status, many = ask(served, GOOD, GOOD)
    assert (status, many["degraded"], len(many["predictions"])) == (200, ["prediction_log"], 2)
    metrics = served._metrics.render().decode()
    assert 'seatrial_unlogged_predictions_total{model_name="late",model_version="1"} 3.0' in metrics
    assert 'model_predictions_total{model_name="late",model_version="1"} 3.0' in metrics


def test_they_are_flagged_at_every_door(blocked):
    service = Service(log=blocked)
    service.serve("late", service.make_predictor("late", [Share("live", release())]))
    service.prove()
    vertex = platform({"AIP_HTTP_PORT": "8080", "AIP_HEALTH_ROUTE": "/healthy", "AIP_PREDICT_ROUTE": "/vertex"})
    rows = {"instances": [GOOD, GOOD]}
    tensors = {
        "inputs": [
            {"name": name, "datatype": datatype, "shape": [1], "data": [GOOD[name]]}
            for name, datatype in (("distance", "FP64"), ("seats", "INT64"), ("night", "BOOL"), ("carrier", "BYTES"))
        ]
    }
    with in_thread(service, platform=vertex) as url:

        def asked(path, body):
            request = Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
            with urlopen(request) as answer:
                return json.load(answer)

        assert asked("/predict", {"features": GOOD})["degraded"] == ["prediction_log"]
        assert [row["degraded"] for row in asked("/predict", rows)["predictions"]] == [["prediction_log"]] * 2
        assert [row["degraded"] for row in asked("/vertex", rows)["predictions"]] == [["prediction_log"]] * 2
        assert asked("/invocations", rows)["degraded"] == ["prediction_log"]
        assert asked("/v2/models/late/infer", tensors)["parameters"]["degraded"] == "prediction_log"
        with Client(url) as client:
            assert [one.degraded for one in client.predict_many([GOOD, GOOD]).predictions] == [["prediction_log"]] * 2


def test_the_loss_is_recorded_when_the_disk_takes_something_again(blocked, tmp_path):
    served = predictor(log=blocked)
    ask(served, GOOD, GOOD)
    (tmp_path / "log").unlink()
    assert "degraded" not in ask(served, GOOD)[1]
    blocked.close()
    reader = PredictionLog(tmp_path / "log")
    assert reader.unlogged.count(window=EVER, deployment="late") == 2
    assert reader.failures.count(window=EVER) == 0
    assert reader.rows().num_rows == 1


def test_by_default_it_is_refused(tmp_path):
    (tmp_path / "log").write_text("in the way")
    log = PredictionLog(tmp_path / "log")
    assert ask(predictor(log=log), GOOD)[0] == 503
    assert log.failures.count(window=EVER) == 0  # not written yet
    (tmp_path / "log").unlink()
    log.close()
    assert (log.failures.count(window=EVER), log.unlogged.count(window=EVER)) == (1, 0)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "late.seatrial").write_bytes(bundle(signing_key(tmp_path / "keys")))
    return tmp_path


def test_a_server_with_that_policy_answers_through_a_full_disk(home):
    with server(home, bundle=str(home / "late.seatrial"), when_full="serve_unlogged") as (process, url):
        with Client(url) as client:
            logged = [client.predict(GOOD)["prediction_id"]]
            (segment,) = (home / "log" / "segments").glob("*.seg")
            _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (segment.stat().st_size + 100, hard))
            for _ in range(3):
                assert client.predict(GOOD)["degraded"] == ["prediction_log"]
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
            logged.append(client.predict(GOOD)["prediction_id"])
        process.terminate()
        process.wait()
    log = PredictionLog(home / "log")
    assert log.rows(columns=["prediction_id"])["prediction_id"].to_pylist() == logged
    assert log.unlogged.count(window=EVER) == 3


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as folder:
        yield folder


@pytest.mark.parametrize("policy", ["refuse", "serve_unlogged"])
def test_on_a_disk_that_is_full_nothing_that_was_logged_is_lost(disk, policy):
    log = PredictionLog(disk / "log", when_full=policy)
    served = predictor(log=log)
    logged = [ask(served, GOOD)[1]["prediction_id"]]
    other = fill_up(disk)
    statuses = []
    for _ in range(40):
        status, found = ask(served, GOOD)
        statuses.append(status)
        if status == 200 and "degraded" not in found:
            logged.append(found["prediction_id"])  # what was left of the last page
    assert set(statuses[-5:]) == ({200} if policy == "serve_unlogged" else {503})
    other.unlink()
    logged.append(ask(served, GOOD)[1]["prediction_id"])
    log.close()
    assert log.rows(columns=["prediction_id"])["prediction_id"].to_pylist() == logged
    lost = 42 - len(logged)
    assert log.unlogged.count(window=EVER) == (lost if policy == "serve_unlogged" else 0)
    assert log.failures.count(window=EVER) == (0 if policy == "serve_unlogged" else lost)
    assert log.verify()[0].torn == 0


class TestReady:
    """A server whose log cannot be written would refuse every request."""

    @pytest.fixture
    def blocked(self, tmp_path):
        (tmp_path / "log").write_text("in the way")
        return tmp_path / "log"

    def service(self, log):
        made = Service(log=log)
        made.serve("late", made.make_predictor("late", [Share("live", release())]))
        made.prove()
        return made

    def test_a_server_is_not_ready_until_its_log_can_be_written(self, blocked):
        made = self.service(PredictionLog(blocked))
        assert (made.state()["ready"], "[log.unwritable]" in made.state()["reason"]) == (False, True)
        blocked.unlink()
        made._look_at_log()
        assert made.state()["ready"]
        assert list((blocked / "segments").iterdir()) == []
        assert made.predictor("late").handle(b"{}").status == 422

    def test_one_that_answers_unlogged_by_policy_is_ready(self, blocked):
        assert self.service(PredictionLog(blocked, when_full="serve_unlogged")).state()["ready"]
