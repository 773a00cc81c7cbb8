"""Small fitted models, and releases made of them, for the tests of the releases room."""

from __future__ import annotations

import zipfile
from functools import cache
from io import BytesIO
from typing import Any

import msgspec
import numpy as np
from lightgbm import LGBMClassifier, LGBMRegressor
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from seatrial.core.signature import Signature
from seatrial.core.types import Field
from seatrial.features.plan import FeaturePlan, FunctionPlan
from seatrial.releases import bundle, golden, parity
from seatrial.releases.formats import model_file
from seatrial.releases.manifest import Lineage, Manifest, file_entries
from seatrial.releases.native import NativeModel, capture
from seatrial.releases.onnx_export import to_onnx
from seatrial.releases.runtime import Runtime
from seatrial.releases.signing import SigningKey, signing_key
from seatrial.releases.supervised import SupervisedRuntime

INPUTS = ("age", "dose", "year", "share")
BINARY = Signature("binary", tuple(Field(name, "float") for name in INPUTS), INPUTS)
REGRESSION = msgspec.structs.replace(BINARY, task="regression")

CLASSIFIERS: dict[str, Any] = {
    "lightgbm": lambda: LGBMClassifier(n_estimators=40, n_jobs=1, verbose=-1),
    "hist": lambda: HistGradientBoostingClassifier(max_iter=30),
    "logistic": lambda: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
    "forest": lambda: RandomForestClassifier(n_estimators=20, max_depth=8, random_state=0),
}
REGRESSORS: dict[str, Any] = {
    "lightgbm": lambda: LGBMRegressor(n_estimators=40, n_jobs=1, verbose=-1),
    "hist": lambda: HistGradientBoostingRegressor(max_iter=30),
    "ridge": lambda: make_pipeline(SimpleImputer(), StandardScaler(), Ridge()),
}


@cache
def rows(*, missing: bool = True) -> NDArray[np.float32]:
    """1,500 rows of columns with unlike means and spreads; one value in twelve is missing."""
    random = np.random.default_rng(7)
    made = random.normal(size=(1500, 4)) * (1, 10, 5, 0.01) + (0, 5, 2013, 0.5)
    if missing:
        made[random.random(made.shape) < 1 / 12] = np.nan
    return made.astype(np.float32)


@cache
def labels() -> NDArray[np.int64]:
    full = np.nan_to_num(rows())
    return (full[:, 0] + full[:, 1] / 10 + np.random.default_rng(8).normal(size=len(full)) > 0.5).astype(np.int64)


@cache
def values() -> NDArray[np.float64]:
    full = np.nan_to_num(rows()).astype(np.float64)
    return 100 + 30 * full[:, 0] + full[:, 1] + np.random.default_rng(9).normal(size=len(full))


@cache
def classifier(name: str) -> tuple[Any, NativeModel]:
    estimator = CLASSIFIERS[name]().fit(rows(), labels())
    return estimator, capture(estimator, "binary")


@cache
def regressor(name: str) -> tuple[Any, NativeModel]:
    estimator = REGRESSORS[name]().fit(rows(), values())
    return estimator, capture(estimator, "regression")


@cache
def exported(name: str, task: str = "binary") -> bytes:
    return to_onnx((classifier if task == "binary" else regressor)(name)[1], 4)


def key(tmp_path: Any) -> SigningKey:
    return signing_key(tmp_path / "keys")


@cache
def own_format(name: str) -> tuple[Manifest, dict[str, bytes]]:
    """A release of a classifier in its own format, as if it had no ONNX form."""
    manifest, files = manifest_and_files()
    native = classifier(name)[1]
    kept = {file: data for file, data in files.items() if file != bundle.MODEL} | {
        model_file(native.format): native.data,
        bundle.GOLDEN: golden.record("binary", rows(), SupervisedRuntime(native.format, native.data, "binary", 4)),
    }
    told = msgspec.structs.replace(manifest.parity, refused="It splits on sets.", refuses_missing=())
    return (
        msgspec.structs.replace(manifest, model_format=native.format, parity=told, files=file_entries(kept)),
        kept,
    )


def crashing() -> tuple[NativeModel, NDArray[np.float32], NDArray[np.float32]]:
    """A model of one input, a row that kills the process which scores it, and one that does not.

    It is a tree whose left child is far outside of its nodes, as a forged file could have it.
    """
    native = capture(DecisionTreeClassifier(max_depth=1).fit(rows(missing=False)[:, :1], labels()), "binary")
    tree = native.load().tree_
    threshold, left = tree.threshold[0], tree.children_left
    forged = BytesIO()
    with zipfile.ZipFile(BytesIO(native.data)) as given, zipfile.ZipFile(forged, "w") as made:
        for name in given.namelist():
            data = given.read(name)
            if name.endswith(".npy") and b"left_child" in data:
                at = data.index(b"\n") + 1
                assert np.frombuffer(data[at : at + 8], "<i8")[0] == left[0]
                data = data[:at] + np.array([1 << 40], "<i8").tobytes() + data[at + 8 :]
            made.writestr(name, data)
    at_left, at_right = (np.array([[threshold + by]], np.float32) for by in (-1, 1))
    return NativeModel("skops", forged.getvalue(), "binary"), at_left, at_right


@cache
def manifest_and_files() -> tuple[Manifest, dict[str, bytes]]:
    """A release of the logistic model, with golden rows and a lock."""
    _, native = classifier("logistic")
    model = exported("logistic")
    files = {
        bundle.MODEL: model,
        bundle.GOLDEN: golden.record("binary", rows(), Runtime(model)),
        bundle.LOCK: b"numpy==2.4.0\n",
    }
    manifest = Manifest(
        model="late",
        version=3,
        semantic_version="1.0.0",
        explanation="First release.",
        signature=BINARY,
        plan=FeaturePlan(functions=(FunctionPlan("double", ("dose",), "def double(dose): return dose * 2"),)),
        threshold=0.5,
        estimator="sklearn.linear_model.LogisticRegression",
        parameters={"C": 1, "tags": ("a", "b")},
        parity=parity.compare(native, model, rows(), BINARY),
        metrics={"roc_auc": 0.75, "n": 3, "undefined": None},
        gates=({"gate": "roc_auc at least 0.7", "passed": True},),
        lineage=Lineage(run="run_1", snapshots=("snap_1",), definitions="d1"),
        files=file_entries(files),
        owner="flight-ops",
    )
    return manifest, files
