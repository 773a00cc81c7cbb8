"""Models of several classes: kept, exported, compared, replayed."""

from __future__ import annotations

import re

import msgspec
import numpy as np
import pytest
from lightgbm import LGBMClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from seatrial.releases import golden, parity
from seatrial.releases.bundle import Bundle
from seatrial.releases.golden import GoldenMismatch, GoldenUnreadable, choose, read_golden, replay
from seatrial.releases.native import NotCaptured, capture
from seatrial.releases.onnx_export import to_onnx
from seatrial.releases.runtime import Runtime
from tests.releases.factories import BINARY, manifest_and_files, rows, values

CLASSES = ("cheap", "dear", "fair", "steep")
SIGNATURE = msgspec.structs.replace(BINARY, task="multiclass", classes=CLASSES)
ESTIMATORS = {
    "lightgbm": lambda: LGBMClassifier(n_estimators=15, n_jobs=1, verbose=-1),
    "hist": lambda: HistGradientBoostingClassifier(max_iter=4),
    "logistic": lambda: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
    "forest": lambda: RandomForestClassifier(n_estimators=10, max_depth=6, random_state=0),
}


def labels():
    return np.digitize(values(), np.quantile(values(), [0.2, 0.5, 0.8]))


def native(name):
    return capture(ESTIMATORS[name]().fit(rows(), labels()), "multiclass")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_class_is_answered_like_the_trained_model_answers(name):
    kept = native(name)
    model = to_onnx(kept, 4)
    scores = Runtime(model).score(rows())
    assert scores.shape == (1500, 4)
    np.testing.assert_allclose(scores, kept.scorer()(rows()), atol=1e-6)
    found = parity.compare(kept, model, rows(), SIGNATURE)
    assert found.passed, found.worst
    assert (found.flipped, found.threshold) == (0, None)
    assert to_onnx(kept, 4) == model


def test_one_row_is_scored_like_many_and_none_gives_no_rows_of_four():
    runtime = Runtime(to_onnx(native("lightgbm"), 4))
    np.testing.assert_allclose(runtime.score(rows()[7:8]), runtime.score(rows())[7:8], atol=1e-7)
    assert runtime.score(rows()[:0]).shape == (0, 4)


def test_a_graph_of_another_model_differs_by_class_and_flips_decisions():
    other = to_onnx(capture(ESTIMATORS["lightgbm"]().fit(rows(), (labels() + 1) % 4), "multiclass"), 4)
    found = parity.compare(native("lightgbm"), other, rows(), SIGNATURE)
    assert not found.passed
    assert found.flipped > 1000
    with pytest.raises(parity.ParityRefused, match="rows otherwise"):
        parity.require(found, "price")


def test_classes_that_are_equally_likely_are_no_decision_that_could_flip():
    # leaves of two rows each: exact ties, which float32 may break either way
    tied = DecisionTreeClassifier(random_state=0).fit(
        np.repeat(rows(missing=False)[:400], 2, axis=0), np.arange(800) % 4
    )
    kept = capture(tied, "multiclass")
    found = parity.compare(kept, to_onnx(kept, 4), rows(missing=False), SIGNATURE)
    assert found.flipped == 0
    assert found.passed, found.worst


def test_lightgbm_fitted_one_against_the_rest_is_not_kept():
    apart = LGBMClassifier(n_estimators=3, objective="multiclassova", verbose=-1).fit(rows(), labels())
    with pytest.raises(NotCaptured, match="add up to 1"):
        capture(apart, "multiclass")


def bundle(model, data):
    manifest, _ = manifest_and_files()
    return Bundle("rel_1", manifest, {"model.onnx": model, "golden.json": data}, "key", 1)


def test_golden_rows_hold_every_class_and_are_replayed():
    model = to_onnx(native("logistic"), 4)
    data = golden.record("multiclass", rows(), Runtime(model))
    kept = read_golden(data)
    assert (kept.format, kept.classes, kept.wanted().shape) == (2, 4, (200, 4))
    assert set(kept.wanted().argmax(axis=1)) == {0, 1, 2, 3}
    assert replay(bundle(model, data), Runtime(model)) == 200
    off = kept.wanted().copy()
    off[17, 2] += 1e-4
    told = golden._base64(off, "<f8")
    with pytest.raises(GoldenMismatch, match="golden row 17"):
        replay(bundle(model, msgspec.json.encode(msgspec.structs.replace(kept, scores=told))), Runtime(model))
    with pytest.raises(GoldenUnreadable):
        read_golden(re.sub(rb'"classes":4', b'"classes":3', data)).given()


def test_of_many_classes_fewer_rows_are_kept():
    given = rows(missing=False)[:1000]
    kept = capture(GaussianNB().fit(given, np.arange(1000) % 500), "multiclass")
    found = read_golden(golden.record("multiclass", given, Runtime(to_onnx(kept, 4))))
    assert found.wanted().shape == (40, 500)


def test_golden_rows_are_spread_over_the_classes():
    scores = np.repeat(np.eye(5), 100, axis=0)
    assert set(choose(rows(missing=False)[:500], scores, most=10) // 100) == {0, 1, 2, 3, 4}
