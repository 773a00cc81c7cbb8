"""The reference's model server: versions, splits, enrichment, the log, and the same JSON over HTTP."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from seatrial.core.routing import BUCKETS
from seatrial.project import Project
from seatrial.registry.versions import UnknownModel, UnknownVersion
from seatrial.releases.native import NativeModel
from seatrial.serving.clients.client import Client
from seatrial.serving.scoring.requests import NumberOutOfRange
from seatrial.stores.online_sqlite import SqliteOnlineStore
from seatrial.surface import (
    ABTestConfig,
    FeatureStore,
    ModelServer,
    PredictionRequest,
    PredictionResponse,
    TrainingPipeline,
)
from seatrial.surface.enrichment import FeatureTypeDiffers
from seatrial.surface.model_server import BadSplit, NothingLoaded
from seatrial.verbs.answering import PredictionRefused
from tests.house.test_names import in_a_fresh_interpreter
from tests.surface.worlds import CLOCK, LOGISTIC, NOON, at, config, feature, frame, write

GOOD = {"spend": 0.5, "visits": 3}
HISTORY = [
    {"customer_id": 1, "event": at("03-09T00:00"), "spend": 2.0, "visits": 9},
    {"customer_id": 2, "event": at("03-09T00:00"), "spend": -2.0, "visits": 0},
    {"customer_id": 3, "event": at("01-09T00:00"), "spend": 2.0, "visits": 9},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with three versions of one model; the third is of more rows and another seed."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_STORES_MLFLOW", "")
        for seed in range(3):
            pipeline = TrainingPipeline(config(random_state=seed, min_auc_threshold=0.5), folder)
            assert pipeline.run(frame(600, seed), LOGISTIC, {"C": 10.0**-seed}).model_version == str(seed + 1)
    return folder


@pytest.fixture
def server(folder):
    with ModelServer("churn_model", folder=folder, clock=CLOCK) as server:
        yield server


@pytest.fixture
def store(tmp_path):
    path = write(tmp_path / "customers.parquet", HISTORY)
    with FeatureStore(tmp_path / "repo", clock=CLOCK) as store:
        store.register_feature_view("customers", ["customer"], [feature("spend"), feature("visits", "int")], path, 30)
        store.materialize()
        yield store


@pytest.fixture
def enriched(folder, store):
    with ModelServer("churn_model", store, folder, clock=CLOCK) as server:
        server.load_model(1)
        yield server


def ask(server, request_id=None, **features) -> PredictionResponse:
    return server.predict(PredictionRequest(features or GOOD, request_id))


def logged(folder, request_id) -> dict:
    with Project(folder, definitions=()) as project:
        (row,) = project.log.find(request_id)
    return row


def test_a_version_is_released_when_it_is_first_loaded_and_answers(folder, server):
    assert server.load_model("1") == "1"
    response = ask(server, "first")
    assert (response.model_version, response.request_id) == ("1", "first")
    assert response.prediction in (0, 1)
    assert 0 < response.probability < 1
    assert response.prediction == (response.probability >= 0.5)
    assert response.latency_ms > 0
    with Project(folder, definitions=()) as project:
        released = [entry["release"] for entry in project.models()]
        assert released[0] is not None
        again = ModelServer("churn_model", folder=folder)
        again.load_model("1")
        again.close()
        assert [entry["release"] for entry in project.models()] == released


def test_versions_are_named_by_number_by_alias_or_as_the_newest(server):
    assert [server.load_model(version) for version in (2, "3", "candidate", "latest", None)] == [
        "2",
        "3",
        "3",
        "3",
        "3",
    ]
    with pytest.raises(UnknownVersion):
        server.load_model(9)
    assert ask(server).model_version == "3"


def test_a_model_that_is_not_there_or_not_loaded_is_told(folder, server):
    with pytest.raises(NothingLoaded, match="load_model"):
        ask(server)
    with ModelServer("churn_modle", folder=folder) as other, pytest.raises(UnknownModel, match="Did you mean"):
        other.load_model()


def test_the_probability_is_that_of_the_model(folder, server):
    server.load_model(1)
    with Project(folder, definitions=()) as project:
        run = project.registry.versions("churn_model")[0].body["run"]
        files = project.run_show(run)["files"]
        native = NativeModel("skops", project.objects.read(files["native.skops"]), "binary").scorer()
        rows = pq.read_table(project.objects.path(files["parity_rows.parquet"])).slice(0, 20)
    expected = native(np.column_stack([column.to_numpy() for column in rows.columns]).astype(np.float32))
    answered = [ask(server, **row | {"visits": int(row["visits"])}).probability for row in rows.to_pylist()]
    assert answered == pytest.approx(expected.tolist(), abs=1e-6)


def test_numbers_of_numpy_are_numbers_and_what_json_cannot_hold_is_refused(server):
    server.load_model(1)
    plain = ask(server, spend=0.5, visits=3)
    assert ask(server, spend=np.float32(0.5), visits=np.int64(3)).probability == plain.probability
    with pytest.raises(NumberOutOfRange, match="spend"):
        ask(server, spend=math.inf, visits=3)
    for wrong in ({"spend": "0.5", "visits": 3}, {"spend": math.nan, "visits": 3}, {"spend": 0.5}, GOOD | {"more": 1}):
        with pytest.raises(PredictionRefused) as refused:
            ask(server, **wrong)
        assert refused.value.facts["problem"]["status"] == 422
    with pytest.raises(PredictionRefused, match="JSON"):
        ask(server, spend=object(), visits=3)


# A/B tests


def test_the_split_is_sticky_and_of_its_share(folder, server):
    server.set_ab_test(ABTestConfig("1", "2", 20))
    arms = {f"r{n}": ask(server, f"r{n}").model_version for n in range(1000)}
    assert Counter(arms.values())["2"] == pytest.approx(200, abs=50)
    with ModelServer("churn_model", folder=folder) as restarted:
        restarted.set_ab_test(ABTestConfig(1, 2, 20))
        assert all(ask(restarted, name).model_version == arm for name, arm in list(arms.items())[:100])
        restarted.set_ab_test(ABTestConfig(1, 2, 60))
        assert all(ask(restarted, name).model_version == "2" for name, arm in arms.items() if arm == "2")


def test_two_tests_do_not_split_alike(server):
    names = [f"r{n}" for n in range(400)]
    server.set_ab_test(ABTestConfig("1", "2", 50))
    first = {name for name in names if ask(server, name).model_version == "2"}
    server.set_ab_test(ABTestConfig("1", "3", 50))
    second = {name for name in names if ask(server, name).model_version == "3"}
    assert len(first & second) == pytest.approx(100, abs=40)


@pytest.mark.parametrize(("percentage", "share"), [(0, 0), (0.01, 1), (0.29, 29), (12.34, 1234), (100, BUCKETS)])
def test_shares_are_of_a_hundredth_of_a_percent(server, percentage, share):
    server.set_ab_test(ABTestConfig("1", "2", percentage))
    arms = server.app.service.state()["deployments"]["churn_model"]["arms"]
    assert [arm["share"] for arm in arms] == [BUCKETS - share, share]


@pytest.mark.parametrize("percentage", [-1, 100.01, 0.001, math.nan, "10", True])
def test_a_share_that_cannot_be_served_is_refused(server, percentage):
    with pytest.raises(BadSplit):
        server.set_ab_test(ABTestConfig("1", "2", percentage))


def test_a_test_outlasts_a_load_and_its_end_brings_the_loaded_version(folder, server):
    server.load_model("1")
    server.set_ab_test(ABTestConfig("1", "2", 100))
    server.load_model("3")
    assert ask(server, "during").model_version == "2"
    assert logged(folder, "during")["arm"] == "treatment"
    server.set_ab_test(None)
    assert ask(server).model_version == "3"


def test_without_a_request_id_one_is_made(server):
    server.load_model(1)
    made = [ask(server).request_id for _ in range(3)]
    assert len(set(made)) == 3


# Enrichment


def test_a_request_with_an_entity_key_gets_that_entitys_features(folder, enriched):
    known, other = ask(enriched, "e1", customer_id=1), ask(enriched, "e2", customer_id=2)
    assert known.probability > 0.9 > 0.1 > other.probability
    assert known.probability == ask(enriched, spend=2.0, visits=9).probability
    row = logged(folder, "e1")
    assert (row["feature_spend"], row["feature_visits"]) == (2.0, 9)


def test_the_entity_key_never_reaches_the_model_or_its_log(folder, enriched):
    ask(enriched, "keyed", customer_id=1)
    assert not [name for name, value in logged(folder, "keyed").items() if "customer" in name and value is not None]
    (share,) = enriched._service.predictor("churn_model").shares
    assert share.release.signature.inputs == ("spend", "visits")


def test_what_the_request_carries_counts_more_than_what_the_store_holds(enriched):
    both = ask(enriched, customer_id=1, spend=-1.0)
    assert both.probability == ask(enriched, spend=-1.0, visits=9).probability
    everything = ask(enriched, customer_id=1, spend=-1.0, visits=2)
    assert everything.probability == ask(enriched, spend=-1.0, visits=2).probability


def test_the_requests_features_are_not_changed(enriched):
    features = {"customer_id": 1, "spend": None}
    request = PredictionRequest(features, "unchanged")
    enriched.predict(request)
    assert features == {"customer_id": 1, "spend": None}


@pytest.mark.parametrize("features", [{"customer_id": 99}, {"customer_id": 3}, {"customer_id": None}, {"spend": 1.0}])
def test_a_value_that_nobody_has_is_refused_by_name(enriched, features):
    with pytest.raises(PredictionRefused, match="visits") as refused:
        ask(enriched, **features)
    assert refused.value.facts["problem"]["code"] == "request.missing_field"


def test_a_model_that_takes_nulls_gets_null_for_an_unknown_entity(tmp_path, store):
    data = frame()
    data["spend"] = data["spend"].where(data.index % 10 > 0)
    data["visits"] = data["visits"].where(data.index % 7 > 0)
    pipeline = TrainingPipeline(config(allow_nulls=True, min_auc_threshold=0.5), tmp_path)
    trained = pipeline.run(data, "sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 10})
    assert trained.passed_validation
    with ModelServer("churn_model", store, tmp_path, clock=CLOCK) as server:
        server.load_model()
        unknown = ask(server, "unknown", customer_id=99)
        assert unknown.probability == ask(server, spend=None, visits=None).probability
        assert unknown.probability != ask(server, customer_id=1).probability


def test_features_of_models_that_declare_none_come_fresh_from_the_store(enriched, store):
    before = ask(enriched, customer_id=1)
    times = {"event_timestamp": NOON, "created_timestamp": NOON}
    store.push("customers", [{"customer_id": 1, "spend": -3.0, "visits": 0} | times])
    assert ask(enriched, customer_id=1).probability < 0.1 < before.probability


class Slow(SqliteOnlineStore):
    """A store that answers after 40 ms."""

    def get(self, keys):
        time.sleep(0.04)
        return super().get(keys)


def test_enrichment_counts_in_the_latency_that_is_answered_logged_and_counted(folder, store):
    store.project.online = Slow(store.project.sqlite_path("online"))
    with ModelServer("churn_model", store, folder, clock=CLOCK) as server:
        server.load_model(1)
        response = ask(server, "slow", customer_id=1)
        counted = dict(line.rsplit(" ", 1) for line in server.metrics().splitlines() if not line.startswith("#"))
    assert response.latency_ms >= 40
    assert logged(folder, "slow")["latency_ms"] == response.latency_ms
    assert float(counted['model_prediction_latency_seconds_sum{model_name="churn_model"}']) >= 0.04


def test_a_store_that_is_down_is_told_and_nothing_is_made_up(folder, store):
    with ModelServer("churn_model", store, folder, clock=CLOCK) as server:
        server.load_model(1)
        store.project.online._connection().execute("DROP TABLE rows")
        with pytest.raises(PredictionRefused) as refused:
            ask(server, customer_id=1)
        assert refused.value.facts["problem"]["code"] == "serving.online_store_down"
        assert ask(server, **GOOD).model_version == "1"


def test_a_feature_of_another_type_than_the_models_field_is_refused_when_loaded(folder, store, tmp_path):
    path = write(tmp_path / "text.parquet", HISTORY)
    features = [feature("spend", "string"), feature("visits", "int")]
    store.register_feature_view("customers", ["customer"], features, path, 30)
    with ModelServer("churn_model", store, folder) as server, pytest.raises(FeatureTypeDiffers, match="spend"):
        server.load_model(1)


def test_a_name_that_two_views_have_is_not_guessed(folder, store, tmp_path):
    path = write(tmp_path / "more.parquet", HISTORY)
    store.register_feature_view("more", ["customer"], [feature("spend")], path, 30)
    with ModelServer("churn_model", store, folder, clock=CLOCK) as server:
        server.load_model(1)
        with pytest.raises(PredictionRefused, match="spend"):
            ask(server, customer_id=1)
        assert ask(server, customer_id=1, spend=2.0).probability > 0.9


# The log, the metrics and the other door


def test_every_prediction_is_logged_with_its_release(folder, server):
    server.load_model("2")
    response = ask(server, "kept")
    row = logged(folder, "kept")
    assert (row["model"], row["version"], row["arm"]) == ("churn_model", "2", "live")
    assert row["probability"] == response.probability
    assert row["at"] == NOON
    with Project(folder, definitions=()) as project:
        kinds = {node.kind for node in project.lineage("kept").nodes}
    assert {"release", "run", "snapshot"} <= kinds


def test_metrics_have_the_names_of_the_reference(server):
    server.set_ab_test(ABTestConfig("1", "2", 50))
    for n in range(20):
        ask(server, f"m{n}")
    text = server.metrics()
    counted = {
        version: float(
            text.split(f'model_predictions_total{{model_name="churn_model",model_version="{version}"}} ')[1].split()[0]
        )
        for version in "12"
    }
    assert sum(counted.values()) == 20
    assert 'model_prediction_latency_seconds_count{model_name="churn_model"} 20.0' in text


def over_http(app, body: dict, path="/predict") -> tuple[int, dict]:
    """One request through the ASGI application."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(app({"type": "http", "method": "POST", "path": path, "headers": []}, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_the_same_json_is_answered_over_http(folder, enriched):
    status, answer = over_http(enriched.app, {"features": {"customer_id": 1}, "request_id": "http"})
    assert status == 200
    direct = ask(enriched, "http2", customer_id=1)
    assert (answer["prediction"], answer["probability"]) == (direct.prediction, direct.probability)
    assert set(PredictionResponse.__dataclass_fields__) <= set(answer)
    assert logged(folder, "http")["feature_spend"] == 2.0
    status, answer = over_http(enriched.app, {"features": {"customer_id": 99}})
    assert (status, answer["code"]) == (422, "request.missing_field")
    many = {"instances": [{"customer_id": 1}, {"customer_id": 99}]}
    assert over_http(enriched.app, many)[1]["row"] == 1
    status, answer = over_http(enriched.app, {"instances": [{"customer_id": 1}, GOOD]})
    assert [row["model_version"] for row in answer["predictions"]] == ["1", "1"]


def test_answering_needs_no_library_of_training_or_tables(folder, server, store):
    server.load_model(1)
    code = f"""
from seatrial.surface import FeatureStore, ModelServer, PredictionRequest
with FeatureStore({str(store.project.folder)!r}) as store, ModelServer("churn_model", store, {str(folder)!r}) as server:
    server.load_model(1)
    server.predict(PredictionRequest({GOOD | {"customer_id": 1}}))
    store.get_online_features({{"customer_id": [1]}}, ["customers:spend"])
"""
    loaded = in_a_fresh_interpreter(code)
    heavy = ("duckdb", "lightgbm", "mlflow", "onnx", "pandas", "pyarrow", "skl2onnx", "sklearn")
    assert [name for name in heavy if name in loaded] == []


SERVER = """
import sys
from seatrial.surface import ModelServer
with ModelServer("churn_model", folder=sys.argv[1]) as server:
    server.load_model(1)
    server.serve(0, on_ready=lambda url: print(url, flush=True))
"""


def test_serve_answers_until_it_is_told_to_stop(folder, server):
    server.load_model(1)
    expected = ask(server).probability
    with subprocess.Popen([sys.executable, "-c", SERVER, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        try:
            with Client(process.stdout.readline().strip()) as client:
                assert client.predict(GOOD)["probability"] == expected
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
