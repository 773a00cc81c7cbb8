"""What a model of several classes answers, what its log keeps, and what the document says of it."""

from __future__ import annotations

import functools
import json
import math

import msgspec
import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from seatrial.core.signature import Signature, encode
from seatrial.releases.named import open_graph
from seatrial.releases.native import capture, given
from seatrial.releases.onnx_export import to_onnx
from seatrial.releases.runtime import Runtime
from seatrial.serving.doors.pages import openapi
from seatrial.serving.meters.metrics import Metrics
from seatrial.serving.service import Service
from seatrial.stores.prediction_log import PredictionLog
from tests.serving.worlds import GOOD, REQUEST, SIGNATURE, columns, predictor, release

CLASSES = ("early", "late", "on time")
SEVERAL = msgspec.structs.replace(SIGNATURE, task="multiclass", classes=CLASSES)
NAMED = Signature("binary", REQUEST, SIGNATURE.inputs, SIGNATURE.categories, SIGNATURE.integers, layout="named")


@functools.cache
def score():
    x, _ = encode(SEVERAL, columns(300, 0))
    pipe = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    fitted = pipe.fit(x, np.digitize(x[:, 0], [1000, 2000]))
    return Runtime(to_onnx(capture(fitted, "multiclass"), 4)).score


def trips(**changes):
    return release(**{"signature": SEVERAL, "score": score()} | changes)


def ask(served, **body):
    answer = served.handle(json.dumps(body).encode())
    return answer.status, json.loads(answer.body)


def test_the_prediction_is_the_likeliest_class_and_the_probability_is_told_for_each():
    status, answer = ask(predictor(trips()), features=GOOD)
    assert status == 200
    assert tuple(answer["probability"]) == CLASSES
    assert answer["prediction"] == max(answer["probability"], key=answer["probability"].get)
    rows, _ = encode(SEVERAL, {name: [GOOD[name]] for name in SEVERAL.inputs})
    assert list(answer["probability"].values()) == score()(rows)[0].tolist()


def test_whole_numbers_are_answered_as_numbers_and_named_as_text():
    signature = msgspec.structs.replace(SEVERAL, classes=(-1, 0, 7))
    _, answer = ask(predictor(trips(signature=signature)), features=GOOD | {"distance": 3000.0})
    assert answer["prediction"] == 7
    assert tuple(answer["probability"]) == ("-1", "0", "7")


def test_many_rows_are_answered_one_by_one():
    rows = [GOOD | {"distance": distance} for distance in (100.0, 1500.0, 2900.0)]
    _, answer = ask(predictor(trips()), instances=rows)
    alone = [ask(predictor(trips()), features=row)[1] for row in rows]
    assert [one["prediction"] for one in answer["predictions"]] == list(CLASSES)
    for one, other in zip(answer["predictions"], alone, strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)


def test_what_is_answered_is_what_is_logged(tmp_path):
    log = PredictionLog(tmp_path)
    _, answer = ask(predictor(trips(), log=log), features=GOOD)
    (logged,) = log.rows().to_pylist()
    assert logged["predicted_class"] == answer["prediction"]
    assert {name: logged[f"probability_{name}"] for name in CLASSES} == answer["probability"]


def test_a_class_without_a_finite_probability_is_no_answer():
    status, answer = ask(predictor(trips(score=lambda rows: np.array([[0.5, math.nan, 0.5]]))), features=GOOD)
    assert (status, answer["code"]) == (422, "serving.no_score")


def test_the_document_lists_the_classes_and_of_many_only_their_number():
    few, many = (
        predictor(trips()),
        predictor(trips(signature=msgspec.structs.replace(SEVERAL, classes=tuple(range(500))))),
    )
    service = Service()
    service.predictors = {"few": few, "many": many}
    schemas = openapi(service, {"paths": {}})["components"]["schemas"]
    assert schemas["few_answer"]["properties"]["prediction"]["enum"] == list(CLASSES)
    assert schemas["many_answer"]["properties"]["prediction"] == {"type": "integer"}
    assert "500 classes" in schemas["many_answer"]["properties"]["probability"]["description"]


def test_arms_that_know_different_classes_promise_no_class():
    newer = trips(seed=1, signature=msgspec.structs.replace(SEVERAL, classes=("diverted", *CLASSES)))
    service = Service()
    service.predictors = {"late": predictor(trips(), newer)}
    told = openapi(service, {"paths": {}})["components"]["schemas"]["late_answer"]["properties"]
    assert told["probability"]["required"] == []
    assert told["prediction"]["enum"] == [*CLASSES, "diverted"]


# -- named inputs


@functools.cache
def named():
    """A pipeline that was fitted without missing numbers and takes no carrier that it does not know."""
    rows, _ = encode(NAMED, columns(300, 0))
    pipe = make_pipeline(
        make_column_transformer(("passthrough", ["distance", "seats", "night"]), (OneHotEncoder(), ["carrier"])),
        LogisticRegression(max_iter=2000),
    )
    kept = capture(pipe.fit(given(rows), rows.columns["distance"] > 1500), "binary")
    return open_graph(to_onnx(kept, 4, NAMED), NAMED).score


def by_name(**changes):
    strict = {"no_missing": (0, 1, 2, 3), "no_unseen": ("carrier",)}
    return predictor(release(signature=NAMED, score=named(), **strict | changes))


def test_named_columns_are_answered_from_the_request_as_it_came():
    status, answer = ask(by_name(), features=GOOD | {"distance": 2900.0}, return_features=True)
    assert (status, answer["prediction"]) == (200, 1)
    assert answer["features"] == {"distance": 2900.0, "seats": 150, "carrier": "DL", "night": False}


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"carrier": "ZZ"}, "runtime.unseen_not_accepted", "'carrier' is a category"),
        ({"carrier": None}, "runtime.missing_not_accepted", "'carrier' is missing"),
        ({"distance": None}, "runtime.missing_not_accepted", "'distance' is missing"),
        ({"seats": 2**24 + 1}, "request.number_out_of_range", "'seats'"),
    ],
)
def test_what_the_pipeline_refuses_is_refused_by_name(changes, code, words):
    status, answer = ask(by_name(), features=GOOD | changes)
    assert (status, answer["code"]) == (422, code)
    assert words in answer["detail"]
    assert "ZZ" not in answer["detail"]


def test_unknown_categories_are_counted():
    metrics = Metrics()
    served = predictor(release(signature=NAMED, score=named()), metrics=metrics)
    assert ask(served, features=GOOD | {"carrier": "ZZ"})[0] == 200
    counted = [line for line in metrics.render().decode().splitlines() if "unseen" in line and '"carrier"' in line]
    assert next(float(line.split()[-1]) for line in counted if not line.startswith("#")) == 1
