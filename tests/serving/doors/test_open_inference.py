"""Who speaks the Open Inference Protocol calls this server unchanged: Triton's client, and its forms by hand."""

from __future__ import annotations

import functools
import gzip
import json
import urllib.error
import urllib.request
import zlib

import msgspec
import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from seatrial.core.signature import Signature, encode
from seatrial.core.types import Field
from seatrial.releases.native import capture
from seatrial.releases.onnx_export import to_onnx
from seatrial.releases.runtime import Runtime
from seatrial.serving.clients.client import Client
from seatrial.serving.service import Service
from seatrial.stores.prediction_log import PredictionLog
from tests.serving.worlds import GOOD, SIGNATURE, columns, in_thread, predictor, release

NUMBERS = Signature(
    "regression",
    (Field("distance", "float"), Field("seats", "int", nullable=False), Field("night", "bool", nullable=False)),
    ("distance", "seats", "night"),
    integers=("seats",),
)
CLASSES = ("early", "late", "on time")
SEVERAL = msgspec.structs.replace(SIGNATURE, task="multiclass", classes=CLASSES)
ROWS = [GOOD, GOOD | {"distance": 2900.0, "carrier": "ZZ"}, GOOD | {"seats": 2, "night": True}]


@functools.cache
def several():
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    x, _ = encode(SEVERAL, columns(300, 0))
    fitted = make_pipeline(SimpleImputer(), LogisticRegression(max_iter=5000)).fit(x, np.digitize(x[:, 0], [900, 1900]))
    return Runtime(to_onnx(capture(fitted, "multiclass"), 4)).score


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return PredictionLog(tmp_path_factory.mktemp("home") / "log")


@pytest.fixture(scope="module")
def service(log):
    service = Service(log=log)
    share = {"metrics": service.metrics, "log": log}
    service.serve("late", predictor(release(), **share))
    service.serve("fare", predictor(release(signature=NUMBERS, model="fare"), **share))
    service.serve("when", predictor(release(signature=SEVERAL, score=several(), model="when"), **share))
    both = [release(model="two"), release(1, "2", model="two")]
    service.serve("two", predictor(*both, **share))
    service.prove()
    return service


@pytest.fixture(scope="module")
def url(service):
    with in_thread(service) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    with triton.InferenceServerClient(url.removeprefix("http://"), concurrency=4) as client:
        yield client


@pytest.fixture(scope="module")
def expected(url):
    with Client(url) as client:
        return client.predict_many(ROWS, model="late")["predictions"]


def tensor(name, values, datatype, *, binary=True, shape=None):
    array = np.array(values, dtype=object if datatype == "BYTES" else None)
    array = array.astype(
        {"FP64": "f8", "FP32": "f4", "INT64": "i8", "INT32": "i4", "BOOL": "?", "BYTES": object}[datatype]
    )
    found = triton.InferInput(name, list(shape or array.shape), datatype)
    found.set_data_from_numpy(array.reshape(shape or array.shape), binary_data=binary)
    return found


def inputs(rows=ROWS, **options):
    return [
        tensor("distance", [row["distance"] for row in rows], "FP64", **options),
        tensor("seats", [row["seats"] for row in rows], "INT64", **options),
        tensor("night", [row["night"] for row in rows], "BOOL", **options),
        tensor("carrier", [row["carrier"] for row in rows], "BYTES", **options),
    ]


def ask(url, path, body=None, method=None, **headers):
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def refusal(url, path, body=None, method=None, **headers):
    status, answer, _ = ask(url, path, body, method, **headers)
    found = json.loads(answer)
    assert set(found) == {"error"}
    assert "4711" not in found["error"]
    return status, found["error"]


class TestTritonsClient:
    def test_it_is_told_of_health_and_of_what_is_served(self, client):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("late")
        assert client.is_model_ready("late", "1")
        assert not client.is_model_ready("late", "7")
        assert not client.is_model_ready("early")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data", "model_repository_index"]
        index = client.get_model_repository_index()
        assert {(one["name"], one["version"], one["state"]) for one in index} == {
            ("late", "1", "READY"),
            ("fare", "1", "READY"),
            ("when", "1", "READY"),
            ("two", "1", "READY"),
            ("two", "2", "READY"),
        }

    def test_it_is_told_of_the_tensors(self, client):
        found = client.get_model_metadata("late")
        assert found["versions"] == ["1"]
        told = {one["name"]: (one["datatype"], one["shape"]) for one in found["inputs"]}
        assert told["distance"] == ("FP64", [-1])
        assert told["seats"] == ("INT64", [-1])
        assert told["night"] == ("BOOL", [-1])
        assert told["carrier"] == told["leaves"] == ("BYTES", [-1])
        assert found["outputs"][0] == {"name": "prediction", "datatype": "INT64", "shape": [-1]}
        assert "parameters" not in found
        wide = client.get_model_metadata("fare")
        assert [one["name"] for one in wide["inputs"]] == ["distance", "seats", "night"]
        assert wide["parameters"]["wide_input"] == "input-0"
        assert json.loads(wide["parameters"]["wide_columns"]) == ["distance", "seats", "night"]
        assert client.get_model_metadata("when")["outputs"][1]["shape"] == [-1, 3]

    @pytest.mark.parametrize("binary", [True, False])
    def test_its_tensors_are_answered_as_predict_answers(self, client, expected, log, binary):
        found = client.infer("late", inputs(binary=binary), request_id=f"triton {binary}")
        assert found.get_response()["id"] == f"triton {binary}"
        assert found.get_response()["model_version"] == "1"
        assert found.as_numpy("prediction").tolist() == [row["prediction"] for row in expected]
        assert found.as_numpy("probability").tolist() == [row["probability"] for row in expected]
        logged = log.find(f"triton {binary}")
        assert sorted(row["prediction_id"].encode() for row in logged) == sorted(found.as_numpy("prediction_id"))

    def test_its_rows_are_counted_as_those_of_predict_are(self, client, url):
        def count(line):
            text = ask(url, "/metrics")[1].decode()
            return sum(float(one.split()[-1]) for one in text.splitlines() if one.startswith(line))

        lines = ('model_predictions_total{model_name="fare"', "model_prediction_errors_total")
        before = [count(line) for line in lines]
        client.infer("fare", [tensor("input-0", [[500.0, 100, 0]] * 7, "FP32")])
        with pytest.raises(InferenceServerException):
            client.infer("fare", [tensor("input-0", [[500.0]], "FP32")])
        assert [count(line) for line in lines] == [before[0] + 7, before[1] + 1]

    def test_only_what_is_asked_for_is_answered(self, client):
        wanted = [triton.InferRequestedOutput("probability", binary_data=False)]
        found = client.infer("late", inputs(), outputs=wanted)
        assert [one["name"] for one in found.get_response()["outputs"]] == ["probability"]
        assert found.get_response()["outputs"][0]["data"] == found.as_numpy("probability").tolist()
        assert found.as_numpy("prediction") is None

    @pytest.mark.parametrize("there", ["gzip", "deflate", None])
    @pytest.mark.parametrize("back", ["gzip", "deflate", None])
    def test_tensors_may_be_packed_on_both_ways(self, client, expected, there, back):
        found = client.infer("late", inputs(), request_compression_algorithm=there, response_compression_algorithm=back)
        assert found.as_numpy("probability").tolist() == [row["probability"] for row in expected]

    def test_many_may_be_asked_at_once(self, client, expected):
        waiting = [client.async_infer("late", inputs(), request_id=str(number)) for number in range(20)]
        for number, one in enumerate(waiting):
            found = one.get_result()
            assert found.get_response()["id"] == str(number)
            assert found.as_numpy("prediction").tolist() == [row["prediction"] for row in expected]

    def test_narrower_numbers_and_columns_of_shape_n_1_are_taken(self, client, expected):
        rows = len(ROWS)
        given = inputs()
        given[0] = tensor("distance", [row["distance"] for row in ROWS], "FP32", shape=(rows, 1))
        given[1] = tensor("seats", [float(row["seats"]) for row in ROWS], "FP64", shape=(rows, 1))
        found = client.infer("late", given).as_numpy("probability").tolist()
        assert found == [row["probability"] for row in expected]

    @pytest.mark.parametrize("binary", [True, False])
    def test_a_model_of_numbers_takes_one_matrix(self, client, url, binary):
        rows = [[500.0, 100, 0], [1500.0, 200, 1]]
        ways = [[tensor(name, rows, "FP32", binary=binary)] for name in ("input-0", "input-1")]
        wide, other = (client.infer("fare", one).as_numpy("prediction").tolist() for one in ways)
        assert wide == other
        names = [field.name for field in NUMBERS.request]
        with Client(url) as native:
            given = [dict(zip(names, [row[0], int(row[1]), bool(row[2])], strict=True)) for row in rows]
            assert wide == [row["prediction"] for row in native.predict_many(given, model="fare")["predictions"]]

    def test_what_is_missing_is_nan(self, client, url):
        rows = [GOOD | {"distance": None}]
        given = inputs([GOOD])
        given[0] = tensor("distance", [np.nan], "FP32")
        with Client(url) as native:
            (row,) = native.predict_many(rows, model="late")["predictions"]
        assert client.infer("late", given).as_numpy("probability").tolist() == [row["probability"]]
        given = [tensor("input-0", [[500.0, np.nan, 0]], "FP32")]
        with pytest.raises(InferenceServerException, match="'seats'"):
            client.infer("fare", given)

    @pytest.mark.parametrize("binary", [True, False])
    def test_classes_are_named_beside_their_probabilities(self, client, url, binary):
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("prediction", "probability")]
        found = client.infer("when", inputs(), outputs=wanted)
        with Client(url) as native:
            rows = native.predict_many(ROWS, model="when")["predictions"]
        assert [name if isinstance(name, str) else name.decode() for name in found.as_numpy("prediction")] == [
            row["prediction"] for row in rows
        ]
        assert found.as_numpy("probability").tolist() == [list(row["probability"].values()) for row in rows]
        assert json.loads(found.get_output("probability")["parameters"]["classes"]) == list(CLASSES)

    def test_a_version_that_is_asked_for_answers_and_says_nothing_of_the_split(self, client, url, log):
        for version in ("1", "2"):
            found = client.infer("two", inputs([GOOD] * 20), model_version=version, request_id=f"asked {version}")
            assert found.get_response()["model_version"] == version
            rows = log.find(f"asked {version}")
            assert {(row["version"], row["arm"]) for row in rows} == {(version, "asked")}
        answered = {client.infer("two", inputs()).get_response().get("model_version") for _ in range(40)}
        assert answered == {"1", "2"}
        assert client.get_model_metadata("two", "2")["versions"] == ["1", "2"]

    @pytest.mark.parametrize(
        ("model", "given", "said"),
        [
            ("early", inputs(), "no deployment"),
            ("late", inputs()[:2], "night"),
            ("late", [*inputs(), tensor("never", [1.0] * 3, "FP64")], "none of the model's"),
            ("late", [tensor("distance", ["4711"] * 3, "BYTES"), *inputs()[1:]], "'distance' is BYTES"),
            ("late", [tensor("distance", [1.0], "FP64"), *inputs()[1:]], "one number of rows"),
            ("late", [tensor("distance", [[1.0, 2.0]] * 3, "FP64"), *inputs()[1:]], "shape"),
            ("late", [tensor("distance", [np.inf] * 3, "FP64"), *inputs()[1:]], "finite"),
            ("late", [*inputs()[:1], tensor("seats", [2.5] * 3, "FP64"), *inputs()[2:]], "'seats'"),
            ("fare", [tensor("input-0", [[1.0, 2.0]], "FP32")], "[n, 3]"),
            ("fare", [tensor("input-0", [[1.0, 2.0, 0.5]], "FP32")], "'night'"),
            ("late", [tensor("input-0", [[1.0, 2.0]], "FP32")], "none of the model's"),
        ],
    )
    def test_it_is_told_what_is_wrong(self, client, model, given, said):
        with pytest.raises(InferenceServerException) as error:
            client.infer(model, given)
        assert error.value.status() == ("404" if model == "early" else "400")
        assert said in error.value.message()
        assert "4711" not in error.value.message()

    def test_what_it_asks_beyond_the_protocol_is_refused_in_words_that_it_reads(self, client):
        for call in (client.get_trace_settings, client.get_log_settings, client.get_system_shared_memory_status):
            with pytest.raises(InferenceServerException, match="nothing is served"):
                call()
        with pytest.raises(InferenceServerException, match="nothing is served"):
            client.load_model("late")


def one(name="distance", shape=(1,), datatype="FP64", data=(544.0,), **more):
    return {"name": name, "shape": list(shape), "datatype": datatype, "data": list(data)} | more


REST = [
    one("seats", datatype="INT64", data=[150]),
    one("night", datatype="BOOL", data=[False]),
    one("carrier", datatype="BYTES", data=["DL"]),
]


def test_health_is_told_with_both_words(url):
    for what in ("live", "ready"):
        status, answer, _ = ask(url, f"/v2/health/{what}")
        assert (status, json.loads(answer)) == (200, {"live": True, "ready": True})


def test_a_server_that_is_not_ready_says_so():
    service = Service()
    with in_thread(service) as url:
        service.drain()
        status, answer, _ = ask(url, "/v2/health/ready")
        assert (status, json.loads(answer)["ready"]) == (503, False)
        assert ask(url, "/v2/health/live")[0] == 200
        assert refusal(url, "/v2/models/late/infer", {"inputs": []})[0] == 503
        assert refusal(url, "/v2/models/late")[0] == 503


def test_what_is_wrong_is_told_in_the_words_of_tensors(url):
    def infer(**given):
        data = {
            "distance": ("FP64", 1.0),
            "seats": ("INT64", 150),
            "night": ("BOOL", False),
            "carrier": ("BYTES", "DL"),
        }
        tensors = [
            {"name": name, "datatype": kind, "shape": [1], "data": [given.get(name, value)]}
            for name, (kind, value) in data.items()
            if given.get(name, value) is not ...
        ]
        status, body, _ = ask(url, "/v2/models/late/infer", {"inputs": tensors})
        return status, json.loads(body)["error"]

    status, error = infer(seats=..., night=...)
    assert status == 400
    assert error.startswith("the inputs lack 'seats', 'night'.")
    status, error = infer(seats=None)
    assert (status, "instances" in error, "row 0" in error) == (400, False, True)


def test_data_may_be_nested_or_flat_and_null_is_what_is_missing(url):
    column = one(shape=(2, 1), data=[[544.0], [90.0]])
    flat = column | {"data": [544.0, 90.0]}
    rest = [each | {"shape": [2], "data": each["data"] * 2} for each in REST]
    answers = [json.loads(ask(url, "/v2/models/late/infer", {"inputs": [each, *rest]})[1]) for each in (column, flat)]
    assert answers[0]["outputs"][1]["data"] == answers[1]["outputs"][1]["data"]
    status, answer, _ = ask(url, "/v2/models/late/infer", {"inputs": [one(data=[None]), *REST]})
    assert status == 200
    assert set(json.loads(answer)) == {"model_name", "model_version", "id", "outputs", "parameters"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        (b'{"id": "a", "id": "b"}', "more than once"),
        (b'{"inputs": [NaN]}', "not JSON"),
        (b"[" * 100_000, "deep"),
        (b'{"id": "\\ud800"}', "not JSON"),
        ([], "not a JSON object"),
        ({}, "'inputs'"),
        ({"inputs": [], "secret-4711": 1}, "1 members"),
        ({"inputs": [5]}, "input 0"),
        ({"inputs": [one() | {"4711": 1}]}, "input 0"),
        ({"inputs": [one("4711")]}, "none of the model's"),
        ({"inputs": [one(), one()]}, "more than once"),
        ({"inputs": [one(datatype="FP8")]}, "no datatype"),
        ({"inputs": [one(shape=[-1])]}, "no shape"),
        ({"inputs": [one(shape=[1.0])]}, "no shape"),
        ({"inputs": [one(shape=[])]}, "0 dimensions"),
        ({"inputs": [one(shape=[2])]}, "not as many values"),
        ({"inputs": [one(shape=[2**40, 2**40])]}, "not as many values"),
        ({"inputs": [one(shape=[0], data=[])]}, "0 rows"),
        ({"inputs": [one(shape=(2, 1), data=[[1.0]])]}, "not of its shape"),
        ({"inputs": [one(data=["4711"])]}, "no FP64"),
        ({"inputs": [one(data=[True])]}, "no FP64"),
        (b'{"inputs": [{"name": "distance", "shape": [1], "datatype": "FP64", "data": [1e400]}]}', "no finite"),
        ({"inputs": [one(), one("seats", datatype="INT8", data=[200])]}, "no INT8"),
        (b'{"inputs": [{"name": "seats", "shape": [1], "datatype": "INT64", "data": [%b]}]}' % (b"9" * 10**6), "no "),
        ({"inputs": [one(data=[10**30]), *REST]}, "2^53"),
        ({"inputs": [one(data=[2**60]), *REST]}, "'distance'"),
        ({"inputs": [one(), *REST], "id": ""}, "'id'"),
        ({"inputs": [one(), *REST], "id": "a" * 201}, "'id'"),
        ({"inputs": [one(), *REST], "parameters": {"a": {}}}, "'parameters'"),
        ({"inputs": [one(), *REST], "parameters": {"binary_data_output": 1}}, "'binary_data_output'"),
        ({"inputs": [one(), *REST], "outputs": [{"name": "4711"}]}, "none of the model's"),
        ({"inputs": [one(), *REST], "outputs": [{"name": "prediction"}] * 2}, "more than once"),
        ({"inputs": [one(), *REST], "outputs": [{"name": "prediction", "parameters": {"classification": 2}}]}, "ext"),
        ({"inputs": [one(parameters={"binary_data_size": 8}), *REST]}, "neither or both"),
        ({"inputs": [one(shape=[1001], data=[0.0] * 1001)]}, "1001 rows"),
    ],
)  # fmt: skip
def test_what_is_no_request_of_the_protocol_is_refused(url, body, said):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, told = refusal(url, "/v2/models/late/infer", data)
    assert status == 400
    assert said in told


RAW = {"name": "distance", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}}


class TestRawTensors:
    HEAD = json.dumps({"inputs": [RAW, *REST]}).encode()

    def post(self, url, raw, length, head=HEAD):
        return ask(url, "/v2/models/late/infer", head + raw, **{"Inference-Header-Content-Length": str(length)})

    def test_they_follow_the_json(self, url):
        status, answer, _ = self.post(url, np.array([544.0]).tobytes(), len(self.HEAD))
        assert status == 200
        assert json.loads(answer)["outputs"][0]["name"] == "prediction"

    @pytest.mark.parametrize("raw", [b"", bytes(7), bytes(9), np.array([np.inf]).tobytes()])
    def test_of_another_length_they_are_refused(self, url, raw):
        status, answer, _ = self.post(url, raw, len(self.HEAD))
        assert (status, list(json.loads(answer))) == (400, ["error"])

    @pytest.mark.parametrize("length", ["-1", "x", 10**9, "9" * 40, 3, 0])
    def test_a_length_that_is_wrong_is_refused(self, url, length):
        assert self.post(url, bytes(8), length)[0] == 400

    @pytest.mark.parametrize(
        "raw",
        [b"\x02\0\0\0DL\0", b"\x03\0\0\0DL", b"\xff\xff\xff\xffDL", b"\x02\0\0\0\xff\xfe", b"\x02", b""],
    )
    def test_strings_that_are_none_are_refused(self, url, raw):
        text = {"name": "carrier", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
        head = json.dumps({"inputs": [one(), *REST[:2], text]}).encode()
        assert self.post(url, raw, len(head), head)[0] == 400

    def test_a_flag_is_0_or_1(self, url):
        flag = {"name": "night", "shape": [1], "datatype": "BOOL", "parameters": {"binary_data_size": 1}}
        head = json.dumps({"inputs": [one(), REST[0], flag, REST[2]]}).encode()
        assert [self.post(url, raw, len(head), head)[0] for raw in (b"\0", b"\1", b"\2")] == [200, 200, 400]


class TestPackedBodies:
    BODY = json.dumps({"inputs": [one(), *REST]}).encode()

    def bare(self, data):
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return packer.compress(data) + packer.flush()

    def test_each_way_of_packing_is_unpacked(self, url):
        half = len(self.BODY) // 2
        twice = gzip.compress(self.BODY[:half]) + gzip.compress(self.BODY[half:])
        ways = [("gzip", gzip.compress(self.BODY)), ("gzip", twice), ("deflate", zlib.compress(self.BODY))]
        ways += [("deflate", self.bare(self.BODY)), ("identity", self.BODY)]
        for encoding, data in ways:
            assert ask(url, "/v2/models/late/infer", data, **{"Content-Encoding": encoding})[0] == 200

    def test_what_is_not_packed_as_it_says_is_refused(self, url):
        wrong = [b"\x1f\x8b4711", b"", self.BODY, gzip.compress(self.BODY)[:-4], gzip.compress(b"") * 40_000]
        for data in wrong:
            for encoding in ("gzip", "deflate"):
                assert refusal(url, "/v2/models/late/infer", data, **{"Content-Encoding": encoding})[0] == 400
        for encoding in ("br", "gzip, gzip"):
            assert refusal(url, "/v2/models/late/infer", self.BODY, **{"Content-Encoding": encoding})[0] == 415

    @pytest.mark.parametrize("encoding", ["gzip", "deflate"])
    def test_a_bomb_is_unpacked_no_further_than_a_body_may_be(self, url, encoding):
        data = bytes(50 * 2**20)
        bomb = gzip.compress(data, 9) if encoding == "gzip" else zlib.compress(data, 9)
        assert refusal(url, "/v2/models/late/infer", bomb, **{"Content-Encoding": encoding})[0] == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/late/infer", 405),
        ("PUT", "/v2/models/late/infer", 405),
        ("POST", "/v2/models/late", 405),
        ("POST", "/v2/health/live", 405),
        ("DELETE", "/v2", 405),
        ("GET", "/v2/repository/index", 405),
        ("GET", "/v2/nowhere-4711", 404),
        ("GET", "/v2/models/secret-4711", 404),
        ("GET", "/v2/models/late/versions/4711", 404),
        ("GET", "/v2/models/../late", 404),
        ("POST", "/v2/models/secret-4711/infer", 404),
        ("POST", "/v2/models/late/versions/4711/infer", 404),
    ],
)
def test_other_paths_and_methods_are_refused_in_the_same_form(url, method, path, status):
    data = b"{}" if method in ("POST", "PUT") else None
    assert refusal(url, path, data, method)[0] == status


def test_the_index_may_be_asked_for_what_is_ready(url):
    for body in (b"", {}, {"ready": True}):
        assert ask(url, "/v2/repository/index", body)[0] == 200
    for body in ([], {"ready": 1}, {"x": True}, b"{"):
        assert refusal(url, "/v2/repository/index", body)[0] == 400


def test_a_body_that_is_too_large_is_refused_in_the_same_form(url):
    assert refusal(url, "/v2/models/late/infer", b" " * (2**20 + 1))[0] == 413
