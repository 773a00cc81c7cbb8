"""The contracts of Vertex AI and SageMaker, by the process that their container would start."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from seatrial.serving.doors.container import BadPlatform, platform
from seatrial.serving.service import Service
from seatrial.stores.objects import ObjectStore
from seatrial.stores.prediction_log import PredictionLog
from tests.serving.worlds import GOOD, Keys, bundle, in_thread, predictor, release

NAMES = ["distance", "seats", "carrier", "night"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """What the image's folder holds: the signer's key and a release."""
    home = tmp_path_factory.mktemp("app")
    (home / "release.seatrial").write_bytes(bundle(Keys(home / ".seatrial" / "keys").key))
    return home


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def started(home, *words, **environment):
    """The container's process with a platform's variables, and what it said when it listened."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    command = [sys.executable, "-m", "seatrial", "serve", *words]
    process = subprocess.Popen(
        command, cwd=home, env=kept | {"HOME": str(home)} | environment, stderr=subprocess.PIPE, text=True
    )
    try:
        said = ""
        while "Serving at" not in said and process.poll() is None:
            said += process.stderr.readline()
        yield process, said
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data, {"Content-Type": "application/json"}), timeout=10
        ) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_vertex_ai_is_answered_where_and_how_it_asks(home):
    port = free_port()
    routes = {"AIP_HEALTH_ROUTE": "/v1/models/late", "AIP_PREDICT_ROUTE": "/v1/models/late:predict"}
    words = ("--bundle", "release.seatrial", "--host", "127.0.0.1", "--port", "1")
    with started(home, *words, AIP_HTTP_PORT=str(port), **routes) as (process, said):
        assert f"As Vertex AI says: 0.0.0.0:{port}, health /v1/models/late, predictions /v1/models/late:predict" in said
        url = f"http://127.0.0.1:{port}"
        assert ask(f"{url}/v1/models/late")[0] == 200
        listed = [GOOD[name] for name in NAMES] + [None, None]
        for sent in ({"instances": [GOOD, listed]}, {"instances": [GOOD, listed], "parameters": {}}):
            status, answer = ask(f"{url}/v1/models/late:predict", sent)
            assert status == 200
            assert list(answer) == ["predictions"]
            first, second = answer["predictions"]
            assert first["probability"] == second["probability"]
        status, refused = ask(f"{url}/v1/models/late:predict", {"instances": [GOOD | {"secret-4711": 1}]})
        assert (status, refused["code"]) == (422, "request.unknown_field")
        assert ask(f"{url}/predict", {"features": GOOD})[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    state = home / ".seatrial"
    log = PredictionLog(state / "log", objects=ObjectStore(state / "objects"))
    ids = log.rows(columns=["prediction_id"])["prediction_id"].to_pylist()
    assert {first["prediction_id"], second["prediction_id"]} <= set(ids)


def test_sagemaker_starts_it_with_one_word_and_has_put_the_model_into_its_folder(home, tmp_path):
    model, port = tmp_path / "model", free_port()
    model.mkdir()
    shutil.copyfile(home / "release.seatrial", model / "late.seatrial")
    with started(home, SM_MODEL_DIR=str(model), SAGEMAKER_BIND_TO_PORT=str(port)) as (process, said):
        assert (
            f"As SageMaker says: 0.0.0.0:{port}, health /ping, predictions /invocations, release late.seatrial" in said
        )
        url = f"http://127.0.0.1:{port}"
        assert ask(f"{url}/ping")[0] == 200
        assert ask(f"{url}/invocations", {"instances": [GOOD]})[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


class TestRoutesOfVertexAI:
    """They may be ours."""

    @pytest.fixture
    def url(self):
        service = Service()
        service.serve("late", predictor(release()))
        service.prove()
        with in_thread(service, platform=platform(VERTEX)) as url:
            yield url

    def test_predictions_are_then_told_as_it_wants_them(self, url):
        status, answer = ask(f"{url}/predict", {"instances": [GOOD], "parameters": None})
        assert (status, list(answer)) == (200, ["predictions"])
        assert ask(f"{url}/predict", {"features": GOOD})[0] == 422
        assert ask(f"{url}/models/late/predict", {"features": GOOD})[0] == 200

    @pytest.mark.parametrize(
        "body",
        [
            [],
            {},
            {"instances": 1},
            {"instances": []},
            {"instances": [[1]]},
            {"instances": [GOOD], "parameters": {"a": 1}},
        ],
    )
    def test_what_is_none_of_its_forms_is_a_problem_document(self, url, body):
        status, answer = ask(f"{url}/predict", body)
        assert status == 422
        assert answer["code"].startswith("request.")

    def test_other_methods_are_refused(self, url):
        assert ask(f"{url}/predict")[0] == 405
        assert ask(f"{url}/ready", {})[0] == 405
        assert ask(f"{url}/ready") == (200, {})


VERTEX = {"AIP_HTTP_PORT": "8080", "AIP_HEALTH_ROUTE": "/ready", "AIP_PREDICT_ROUTE": "/predict"}


def test_a_container_that_is_not_ready_is_not_healthy():
    service = Service()
    with in_thread(service, platform=platform(VERTEX)) as url:
        service.drain()
        assert ask(f"{url}/ready")[0] == 503
        assert ask(f"{url}/predict", {"instances": [GOOD]})[0] == 503


def test_without_their_variables_and_models_there_is_no_platform(tmp_path):
    nowhere = {"SM_MODEL_DIR": str(tmp_path / "none")}
    assert platform(nowhere) is None
    assert platform(nowhere | {"AIP_HTTP_PORT": "8080"}).told.endswith("health /ping, predictions /invocations.")
    assert platform({"SM_MODEL_DIR": str(tmp_path)}) is None
    assert platform({"SM_MODEL_DIR": str(tmp_path), "SAGEMAKER_BIND_TO_PORT": "9000"}).bundle is None
    (tmp_path / "late.seatrial").touch()
    assert platform({"SM_MODEL_DIR": str(tmp_path)}).port == 8080
    assert platform({"SM_MODEL_DIR": str(tmp_path)}).bundle == tmp_path / "late.seatrial"


def test_what_a_platform_cannot_mean_is_a_clear_error(tmp_path):
    for port in ("0", "x", "70000", "-1", "٣"):
        with pytest.raises(BadPlatform, match="AIP_HTTP_PORT"):
            platform({"AIP_HTTP_PORT": port})
    with pytest.raises(BadPlatform, match="AIP_PREDICT_ROUTE"):
        platform(VERTEX | {"AIP_PREDICT_ROUTE": "predict"})
    for name in "ab":
        (tmp_path / f"{name}.seatrial").touch()
    with pytest.raises(BadPlatform, match="2 releases"):
        platform({"SM_MODEL_DIR": str(tmp_path)})
