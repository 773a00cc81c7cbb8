"""How do common models release: in which format, how fast, how large, and against MLflow's folder of the same model?

Thirty pipelines as people write them (scikit-learn, LightGBM, XGBoost) and some others are fitted with scikit-learn's
defaults on 1,000 rows of 6 columns, and released as `seatrial release` does it, without a second try. For six kinds
of models the time to pack (export, parity, golden rows, sign) and to verify (signature, digests, load, golden rows)
stands beside MLflow's to save and to load the same model with its requirements given; both in this process, medians of
three. Prints two tables and one JSON line; --write puts them into benchmarks/RESULTS.md and docs/releases.md.

    PYTHONPATH=src python benchmarks/training/export.py --write
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from seatrial.core.clock import monotonic
from seatrial.core.errors import SeatrialError
from seatrial.core.signature import Signature, Task
from seatrial.core.types import Field
from seatrial.features.plan import FeaturePlan
from seatrial.releases.bundle import GOLDEN, open_bundle, pack
from seatrial.releases.formats import model_file
from seatrial.releases.golden import record, replay
from seatrial.releases.ladder import choose
from seatrial.releases.manifest import Lineage, Manifest, file_entries
from seatrial.releases.native import NativeModel, capture
from seatrial.releases.signing import SigningKey, signing_key

ROOT = Path(__file__).parents[2]
MARKS = "<!-- from benchmarks/training/export.py: {} -->", "<!-- end of {} -->"
ROWS, COLUMNS = 1000, 6
NAMES = tuple(f"x{place}" for place in range(COLUMNS))
BINARY = Signature("binary", tuple(Field(name, "float") for name in NAMES), NAMES)
KINDS = (
    "StandardScaler, LogisticRegression",
    "RandomForestClassifier",
    "HistGradientBoostingClassifier",
    "LGBMClassifier",
    "XGBClassifier",
    "CatBoostClassifier",
)


def rows(*, missing: bool) -> np.ndarray:
    random = np.random.default_rng(3)
    made = random.normal(size=(ROWS, COLUMNS)) * np.geomspace(0.1, 100, COLUMNS) + np.linspace(0, 50, COLUMNS)
    made[:, 4] = random.integers(0, 12, ROWS)
    if missing:
        made[random.random(made.shape) < 0.05] = np.nan
        made[:, 4] = random.integers(0, 12, ROWS)
    return made.astype(np.float32)


def target(task: Task) -> np.ndarray:
    full = rows(missing=False).astype(np.float64)
    full = (full - full.mean(axis=0)) / full.std(axis=0)
    signal = full[:, 0] + full[:, 1] * full[:, 2] + np.sin(full[:, 4]) + np.random.default_rng(4).normal(size=ROWS)
    return (signal > 0).astype(np.int64) if task == "binary" else 200 + 20 * signal


def pipelines() -> tuple[dict[str, tuple[Any, Task, bool]], dict[str, tuple[Any, Task, bool]]]:
    """name -> (unfitted estimator, task, whether its rows have missing values): thirty common ones, and others."""
    import catboost
    import lightgbm
    import sklearn.calibration as calibration
    import sklearn.compose as compose
    import sklearn.discriminant_analysis as discriminant
    import sklearn.ensemble as ensemble
    import sklearn.impute as impute
    import sklearn.linear_model as linear
    import sklearn.naive_bayes as bayes
    import sklearn.neighbors as neighbors
    import sklearn.neural_network as neural
    import sklearn.preprocessing as pre
    import sklearn.svm as svm
    import sklearn.tree as tree
    import xgboost
    from sklearn.pipeline import make_pipeline as line

    def logistic() -> Any:
        return linear.LogisticRegression(max_iter=1000)

    def lgbm(**given: Any) -> Any:
        return lightgbm.LGBMClassifier(n_jobs=1, verbose=-1, **given)

    def forest() -> Any:
        return ensemble.RandomForestClassifier(random_state=0)

    quiet = {"allow_writing_files": False, "verbose": False, "thread_count": 1, "iterations": 200}
    numbers = line(impute.SimpleImputer(strategy="median"), pre.StandardScaler())
    rest = [place for place in range(COLUMNS) if place != 4]
    columns = compose.make_column_transformer((numbers, rest), (pre.OneHotEncoder(handle_unknown="ignore"), [4]))
    one: Task = "binary"
    value: Task = "regression"
    common = {
        "StandardScaler, LogisticRegression": (line(pre.StandardScaler(), logistic()), one, False),
        "SimpleImputer, StandardScaler, LogisticRegression": (
            line(impute.SimpleImputer(), pre.StandardScaler(), logistic()), one, True),
        "SimpleImputer(add_indicator), StandardScaler, LogisticRegression": (
            line(impute.SimpleImputer(add_indicator=True), pre.StandardScaler(), logistic()), one, True),
        "ColumnTransformer(impute, scale, one-hot), LogisticRegression": (line(columns, logistic()), one, True),
        "DecisionTreeClassifier": (tree.DecisionTreeClassifier(max_depth=8, random_state=0), one, False),
        "RandomForestClassifier": (forest(), one, False),
        "RandomForestClassifier, missing values": (forest(), one, True),
        "ExtraTreesClassifier": (ensemble.ExtraTreesClassifier(random_state=0), one, False),
        "GradientBoostingClassifier": (ensemble.GradientBoostingClassifier(random_state=0), one, False),
        "HistGradientBoostingClassifier": (ensemble.HistGradientBoostingClassifier(random_state=0), one, True),
        "HistGradientBoostingClassifier(categorical_features)": (
            ensemble.HistGradientBoostingClassifier(categorical_features=[4], random_state=0), one, True),
        "SimpleImputer, StandardScaler, HistGradientBoostingClassifier": (
            line(impute.SimpleImputer(), pre.StandardScaler(), ensemble.HistGradientBoostingClassifier()), one, True),
        "SimpleImputer, RandomForestClassifier": (line(impute.SimpleImputer(), forest()), one, True),
        "AdaBoostClassifier": (ensemble.AdaBoostClassifier(random_state=0), one, False),
        "VotingClassifier(soft)": (
            ensemble.VotingClassifier([("a", forest()), ("b", line(pre.StandardScaler(), logistic()))], voting="soft"),
            one, False),
        "StackingClassifier": (
            ensemble.StackingClassifier([("a", forest()), ("b", tree.DecisionTreeClassifier(max_depth=5))], cv=3),
            one, False),
        "CalibratedClassifierCV(sigmoid)": (calibration.CalibratedClassifierCV(forest(), cv=3), one, False),
        "CalibratedClassifierCV(isotonic)": (
            calibration.CalibratedClassifierCV(
                ensemble.HistGradientBoostingClassifier(max_iter=30), method="isotonic", cv=3), one, False),
        "StandardScaler, LinearDiscriminantAnalysis": (
            line(pre.StandardScaler(), discriminant.LinearDiscriminantAnalysis()), one, False),
        "StandardScaler, KNeighborsClassifier": (
            line(pre.StandardScaler(), neighbors.KNeighborsClassifier()), one, False),
        "StandardScaler, MLPClassifier": (
            line(pre.StandardScaler(), neural.MLPClassifier((16,), max_iter=400, random_state=0)), one, False),
        "StandardScaler, Ridge": (line(pre.StandardScaler(), linear.Ridge()), value, False),
        "StandardScaler, PolynomialFeatures, Lasso": (
            line(pre.StandardScaler(), pre.PolynomialFeatures(2), linear.Lasso(0.1)), value, False),
        "RandomForestRegressor": (ensemble.RandomForestRegressor(random_state=0), value, False),
        "HistGradientBoostingRegressor": (ensemble.HistGradientBoostingRegressor(random_state=0), value, True),
        "LGBMClassifier": (lgbm(), one, True),
        "SimpleImputer, LGBMClassifier": (line(impute.SimpleImputer(), lgbm()), one, True),
        "LGBMRegressor": (lightgbm.LGBMRegressor(n_jobs=1, verbose=-1), value, True),
        "XGBClassifier": (xgboost.XGBClassifier(n_jobs=1), one, True),
        "XGBRegressor": (xgboost.XGBRegressor(n_jobs=1, n_estimators=300), value, True),
    }  # fmt: skip
    others = {
        "CatBoostClassifier": (catboost.CatBoostClassifier(**quiet), one, True),
        "CatBoostRegressor": (catboost.CatBoostRegressor(**quiet), value, True),
        "CatBoostClassifier(grow_policy=Depthwise)": (
            catboost.CatBoostClassifier(grow_policy="Depthwise", **quiet), one, True),
        "StandardScaler, SVR": (line(pre.StandardScaler(), svm.SVR()), value, False),
        "StandardScaler, GaussianNB": (line(pre.StandardScaler(), bayes.GaussianNB()), one, False),
        "PowerTransformer, LogisticRegression": (line(pre.PowerTransformer(), logistic()), one, False),
        "KNNImputer, LogisticRegression": (line(impute.KNNImputer(), pre.StandardScaler(), logistic()), one, True),
        "FunctionTransformer(log1p of abs), LogisticRegression": (
            line(pre.FunctionTransformer(np.abs), pre.FunctionTransformer(np.log1p), logistic()), one, False),
        "TransformedTargetRegressor(log1p)": (
            compose.TransformedTargetRegressor(linear.Ridge(), func=np.log1p, inverse_func=np.expm1), value, False),
        "LGBMClassifier(boosting_type=rf)": (
            lgbm(boosting_type="rf", bagging_freq=1, bagging_fraction=0.7), one, True),
        "LGBMClassifier in CalibratedClassifierCV": (calibration.CalibratedClassifierCV(lgbm(), cv=3), one, True),
        "XGBClassifier(booster=gblinear)": (xgboost.XGBClassifier(n_jobs=1, booster="gblinear"), one, False),
    }  # fmt: skip
    return common, others


def packed(native: NativeModel, given: np.ndarray, key: SigningKey) -> tuple[bytes, Manifest]:
    """The bundle of a model: what `seatrial release` does, without its project."""
    signature = BINARY if native.task == "binary" else msgspec.structs.replace(BINARY, task="regression")
    form = choose(native, given, signature, "model", threshold=0.5)
    files = {model_file(form.format): form.data, GOLDEN: record(native.task, given, form.runtime)}
    manifest = Manifest(
        model="model",
        version=1,
        semantic_version="1.0.0",
        explanation="First release.",
        model_format=form.format,
        signature=signature,
        plan=FeaturePlan(),
        threshold=0.5 if native.task == "binary" else None,
        estimator="",
        parameters={},
        parity=form.parity,
        metrics={},
        gates=(),
        lineage=Lineage(),
        files=file_entries(files),
    )
    return pack(manifest, files, key), manifest


def verified(data: bytes, key: SigningKey) -> None:
    bundle = open_bundle(data, {key.keyid: key.public})
    replay(bundle, bundle.runtime())


def tried(name: str, made: tuple[Any, Task, bool], key: SigningKey) -> dict[str, Any]:
    """What became of one pipeline at the first try."""
    estimator, task, missing = made
    given = rows(missing=missing)
    try:
        _, manifest = packed(capture(estimator.fit(given, target(task)), task), given, key)
        print(f"{manifest.model_format:9} {name}", file=sys.stderr, flush=True)
    except SeatrialError as error:
        return {"name": name, "format": "", "largest": None, "why": error.found}
    parity = manifest.parity
    return {"name": name, "format": manifest.model_format, "largest": parity.largest, "why": parity.refused}


def middle(work: Callable[[], object], repeat: int = 3) -> float:
    took = []
    for _ in range(repeat):
        started = monotonic()
        work()
        took.append(monotonic() - started)
    return float(np.median(took))


def measured(name: str, made: tuple[Any, Task, bool], key: SigningKey) -> dict[str, Any]:
    """Seconds and bytes of ours and of MLflow's for one model."""
    estimator, task, missing = made
    given = rows(missing=missing)
    fitted = estimator.fit(given, target(task))
    native = capture(fitted, task)
    data, manifest = packed(native, given, key)
    save_s, load_s, folder_bytes = mlflows(fitted)
    return {
        "name": name,
        "format": manifest.model_format,
        "pack_s": middle(lambda: packed(native, given, key)),
        "verify_s": middle(lambda: verified(data, key)),
        "bytes": len(data),
        "mlflow_save_s": save_s,
        "mlflow_load_s": load_s,
        "mlflow_bytes": folder_bytes,
    }


def mlflows(fitted: Any) -> tuple[float, float, int]:
    """Seconds to save and to load with MLflow's flavour for the model, and the bytes of its folder."""
    import mlflow

    package = type(fitted).__module__.partition(".")[0]
    flavour = getattr(mlflow, package if package in ("lightgbm", "xgboost", "catboost") else "sklearn")
    named = {"lightgbm": "lgb_model", "xgboost": "xgb_model", "catboost": "cb_model"}.get(package, "sk_model")
    given: dict[str, Any] = {named: fitted}
    if package == "sklearn":
        given["serialization_format"] = "cloudpickle"
    with tempfile.TemporaryDirectory() as folder:
        places = iter(Path(folder, str(number)) for number in range(100))

        def save() -> None:
            flavour.save_model(path=str(next(places)), pip_requirements=[package], **given)

        save_s = middle(save)
        first = Path(folder, "0")
        load_s = middle(lambda: mlflow.pyfunc.load_model(str(first)))
        size = sum(file.stat().st_size for file in first.rglob("*") if file.is_file())
    return save_s, load_s, size


def table_of_kinds(found: list[dict[str, Any]]) -> list[str]:
    lines = ["| estimator or pipeline | released as | largest difference | why not ONNX |", "|---|---|---|---|"]
    for one in found:
        why = re.sub(r"^.*?cannot be exported to ONNX: ", "", one["why"]).removeprefix("As ONNX it ")
        why = why.partition("; the worst")[0].replace("|", "/")
        why = why if len(why) <= 90 else f"{why[:90]}..."
        largest = "" if one["largest"] is None else f"{one['largest']:.0e}" if one["largest"] else "0"
        lines.append(f"| {one['name']} | {one['format'] or 'refused'} | {largest} | {why} |")
    return lines


def table_of_times(found: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| model | released as | pack | verify | bundle | MLflow save | MLflow load | MLflow folder |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['name']} | {one['format']} | {one['pack_s']:.2f} s | {one['verify_s'] * 1000:.0f} ms | "
        f"{one['bytes'] / 1000:,.0f} kB | {one['mlflow_save_s']:.2f} s | {one['mlflow_load_s'] * 1000:.0f} ms | "
        f"{one['mlflow_bytes'] / 1000:,.0f} kB |"
        for one in found
    ]
    return lines


def write(path: Path, mark: str, lines: list[str]) -> None:
    """Put `lines` between the marks of that name in a page."""
    begin, end = (one.format(mark) for one in MARKS)
    text = path.read_text()
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    path.write_text("\n".join([before + begin, *lines, end]) + after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help="put the tables into the pages")
    parser.add_argument("--only", choices=("kinds", "times"))
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when scikit-learn is loaded, which is later
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    warnings.simplefilter("ignore")
    common, others = pipelines()
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        key = signing_key(Path(folder, "keys"))
        if asked.only != "times":
            kinds = [tried(name, made, key) for name, made in common.items()]
            formats = [one["format"] for one in kinds]
            counted = ", ".join(f"{formats.count(one)} {one}" for one in dict.fromkeys(formats) if one)
            words = f"{sum(map(bool, formats))} of {len(kinds)} common pipelines release at the first try: {counted}."
            kinds += [tried(name, made, key) for name, made in others.items()]
            lines = [words, "", *table_of_kinds(kinds)]
            print("\n".join(lines), flush=True)
            told["released"] = {"of": len(common), "formats": {one: formats.count(one) for one in set(formats)}}
            if asked.write:
                write(ROOT / "docs" / "releases.md", "kinds", lines)
                write(ROOT / "benchmarks" / "RESULTS.md", "released kinds", [words])
        if asked.only != "kinds":
            every = common | others
            times = [measured(name, every[name], key) for name in KINDS]
            print("\n".join(table_of_times(times)), flush=True)
            told["times"] = times
            if asked.write:
                write(ROOT / "benchmarks" / "RESULTS.md", "times of releases", table_of_times(times))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
