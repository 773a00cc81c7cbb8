"""Who calls `mlflow models serve` today calls this server unchanged: MLflow's own client, and its forms by hand."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import warnings
from urllib.parse import urlsplit

import pandas as pd
import pytest

from seatrial.core.types import Field
from seatrial.serving.clients.client import Client
from seatrial.serving.doors.invocations import BadInvocation, WrongContentType, read
from seatrial.stores.prediction_log import PredictionLog
from tests.serving.worlds import GOOD, REQUEST, Keys, bundle, server

ROWS = [GOOD, GOOD | {"distance": None, "carrier": "ZZ"}, GOOD | {"seats": 2, "night": True}]
TIMED = "2024-01-01T10:00:00Z"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "late.seatrial").write_bytes(bundle(Keys(home / "keys").key))
    return home


@pytest.fixture(scope="module")
def url(home):
    with server(home, bundle=str(home / "late.seatrial")) as (_, url):
        yield url


@pytest.fixture(scope="module")
def expected(url):
    with Client(url) as client:
        return client.predict_many(ROWS)["predictions"]


@pytest.fixture
def mlflow_client(url):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a type hint of its own
        from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    parts = urlsplit(url)
    return ScoringServerClient(parts.hostname, parts.port)


def post(url, body, kind="application/json"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_client_of_mlflow_works_unchanged(mlflow_client, expected, home):
    mlflow_client.wait_server_ready(timeout=10)
    assert mlflow_client.get_version()
    frame = pd.DataFrame(ROWS).assign(never_heard_of=1)
    before = PredictionLog(home / "log").rows(columns=["prediction_id"]).num_rows
    assert list(mlflow_client.invoke(frame).get_predictions()[0]) == [row["prediction"] for row in expected]
    assert PredictionLog(home / "log").rows(columns=["prediction_id"]).num_rows == before + len(ROWS)
    proba = mlflow_client.invoke(frame, params={"predict_method": "predict_proba"}).get_predictions()
    for (_, found), row in zip(proba.iterrows(), expected, strict=True):
        assert list(found) == pytest.approx([1 - row["probability"], row["probability"]])


NAMES = [field.name for field in REQUEST][:4]
SPLIT = {"columns": NAMES[::-1], "data": [[row[name] for name in NAMES[::-1]] for row in ROWS], "index": [7, 8, 9]}


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": NAMES, "data": [[row[name] for name in NAMES] for row in ROWS]}},
        {"dataframe_split": SPLIT},
        {"dataframe_records": ROWS},
        {"instances": ROWS},
        {"inputs": ROWS},
        {"inputs": {name: [row[name] for row in ROWS] for name in NAMES}},
        {"dataframe_records": [row | {"seats": float(row["seats"])} for row in ROWS], "params": {}},
    ],
    ids=["split", "another order", "records", "instances", "inputs", "columns of inputs", "floats for integers"],
)  # fmt: skip
def test_every_form_of_mlflow_gives_the_same_answers(url, expected, body):
    status, found = post(f"{url}/invocations", body)
    assert (status, found) == (200, {"predictions": [row["prediction"] for row in expected]})
    assert post(f"{url}/models/late/invocations", body) == (status, found)


def test_a_csv_is_read_by_the_types_of_the_fields(url, expected):
    lines = [",".join(NAMES), *(",".join("" if row[n] is None else str(row[n]) for n in NAMES) for row in ROWS)]
    for newline in ("\n", "\r\n"):
        found = post(f"{url}/invocations", newline.join(lines).encode() + newline.encode(), "text/csv; charset=utf-8")
        assert found == (200, {"predictions": [row["prediction"] for row in expected]})


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (b"{", "application/json", 400, "not JSON"),
        ([1], "application/json", 400, "no JSON object"),
        ({}, "application/json", 400, "in one way"),
        ({"instances": ROWS, "inputs": ROWS}, "application/json", 400, "instances, inputs"),
        ({"instances": ROWS, "rows": 1}, "application/json", 400, "not known"),
        ({"instances": 5}, "application/json", 400, "no list of rows"),
        ({"dataframe_split": {"columns": NAMES}}, "application/json", 400, "'data'"),
        ({"dataframe_split": {"columns": NAMES, "data": [[1]]}}, "application/json", 400, "as many values"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, "application/json", 400, "each once"),
        ({"inputs": {"distance": [1], "seats": [1, 2]}}, "application/json", 400, "one length"),
        ({"instances": ROWS, "params": {"temperature": 1}}, "application/json", 400, "params"),
        ({"instances": ROWS, "params": {"predict_method": {}}}, "application/json", 400, "params"),
        ({"instances": []}, "application/json", 400, "0 rows"),
        ({"instances": [{"distance": 1.0}]}, "application/json", 400, "seats"),
        ({"instances": [GOOD | {"seats": "many"}]}, "application/json", 400, "seats"),
        (b'{"instances": [{"distance": NaN}]}', "application/json", 400, "seats"),
        (b'{"instances": [{"distance": Infinity, "x": "NaN"}]}', "application/json", 400, "not JSON"),
        (b'{"instances": [{"distance": 1e400, "x": "NaN"}]}', "application/json", 400, "no finite number"),
        (b'{"instances": [{"distance": 1e400}]}', "application/json", 400, "no"),
        (b'{"instances": [{"distance": ' + b"9" * 5000 + b', "x": "NaN"}]}', "application/json", 400, "beyond 2^53"),
        (b"[" * 100_000, "application/json", 400, "too deeply"),
        (b"distance,seats\n1", "text/csv", 400, "as many values"),
        (b"distance", "text/csv", 400, "no row"),
        (b"\xff\xfe", "text/csv", 400, "UTF-8"),
        (b"seats,night,carrier,distance\nmany,true,DL,1\n", "text/csv", 400, "seats"),
        (b"x", "text/html", 415, "text/csv is taken"),
        (b"{}", "application/x-www-form-urlencoded", 415, "Content-Type says that the body is a form"),
        ({"instances": [GOOD | {"seats": None}]}, "application/json", 400, "row 0 "),
        (b'{"instances": [], "instances": []}', "application/json", 400, "more than once"),
        (b'{"instances": [{"carrier": "\\ud800"}]}', "application/json", 400, "not JSON"),
    ],
)
def test_what_cannot_be_read_is_refused_as_mlflow_refuses(url, body, kind, status, said):
    found, problem = post(f"{url}/invocations", body, kind)
    assert found == status
    assert set(problem) == {"error_code", "message"}
    assert problem["error_code"] == "BAD_REQUEST"
    assert said in problem["message"]
    assert "Traceback" not in problem["message"]


def test_ping_says_whether_it_is_ready(url):
    with urllib.request.urlopen(f"{url}/ping", timeout=10) as answer:
        assert answer.status == 200


def test_a_model_that_is_not_served_is_not_found_in_the_same_form(url):
    status, found = post(f"{url}/models/other/invocations", {"instances": ROWS})
    assert (status, found["error_code"]) == (404, "BAD_REQUEST")


def test_values_keep_their_kind():
    fields = (
        Field("f", "float"),
        Field("i", "int"),
        Field("b", "bool"),
        Field("s", "category"),
        Field("t", "timestamp"),
    )
    row = {"f": 1, "i": 2.0, "b": True, "s": "", "t": TIMED, "extra": []}
    kept = json.loads(read("", json.dumps({"instances": [row]}).encode(), fields)[0])["instances"]
    assert kept == [{"f": 1, "i": 2, "b": True, "s": "", "t": TIMED}]
    text = f"f,i,b,s,t\n1,2,TRUE,x,{TIMED}\n,,,,\nnan,2.5,maybe,1,never\n".encode()
    first, second, third = json.loads(read("text/csv", text, fields)[0])["instances"]
    assert first == {"f": 1.0, "i": 2, "b": True, "s": "x", "t": TIMED}
    assert second == dict.fromkeys("fibst")
    assert (third["i"], third["b"], third["s"]) == (2.5, "maybe", "1")
    assert third["f"] is None
    with pytest.raises(BadInvocation, match="'f' is no finite number"):
        read("text/csv", b"f\n1e999\n", fields)


@pytest.mark.parametrize("kind", ["application/xml", "multipart/form-data"])
def test_other_types_are_refused(kind):
    with pytest.raises(WrongContentType):
        read(kind, b"{}", REQUEST)
    with pytest.raises(BadInvocation):
        read("application/json", b"{}", REQUEST)
