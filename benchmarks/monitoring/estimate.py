"""How close do estimates without labels come to the performance that labels then show, and what can they not see?

Labelled predictions of before: 50,000 rows that the model was not trained on. Then windows of 5,000 rows from a world
that answers as before but asks otherwise (inputs shifted, inputs narrowed), and from one that answers otherwise.
Printed is the mean absolute error of the estimated area under the curve, F1 and accuracy over some windows:

    own          calibrated expected confusion matrix, weighted when the inputs moved (what a report shows)
    unweighted   the same without weights
    as before    believing that the performance of before still holds
    inside       how often the interval held the AUC that labels then showed
    true ratio   the same estimate with weights by the true density ratio, which only a simulation knows: what is left
                 is chance, of the window's labels and of the rows of before that are like it
    nannyml      CBPE of NannyML, with --nannyml PYTHON, an interpreter that has it (of an environment of its own)

A window's labels tell the area only to about a hundredth, so it is the mean over windows that is judged, with its 95 %
interval, and the same beside the area that 100,000 labels of that world show, which is all but free of chance.

    PYTHONPATH=src python benchmarks/monitoring/estimate.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seatrial.monitoring.looks import estimate as estimating
from seatrial.monitoring.rows.baseline import Baseline
from seatrial.monitoring.rows.sample import Sample
from seatrial.stats.expected import expected_binary
from seatrial.stats.isotonic import isotonic
from seatrial.stats.metrics import measure
from seatrial.stats.student import t_quantile

GOAL = 0.01
COLUMNS = 6
BEFORE, WINDOW, MANY, REPEATS = 50_000, 5_000, 100_000, 20
METRICS = ("roc_auc", "f1", "accuracy")
EFFECTS = np.array([1.2, -0.9, 0.7, 0.5, -0.4, 0.3])

Matrix = np.ndarray
Model = Callable[[Matrix], np.ndarray]


def answer(random: np.random.Generator, inputs: Matrix, effects: np.ndarray = EFFECTS) -> np.ndarray:
    """What happens: a logistic world with one interaction."""
    logit = inputs @ effects + 0.5 * inputs[:, 0] * inputs[:, 1] - 0.4
    return (random.random(len(inputs)) < 1 / (1 + np.exp(-logit))).astype(np.float64)


def linear(random: np.random.Generator) -> Model:
    from sklearn.linear_model import LogisticRegression

    inputs = random.normal(size=(20_000, COLUMNS))
    fitted = LogisticRegression().fit(inputs, answer(random, inputs))
    return lambda rows: fitted.predict_proba(rows)[:, 1]


def trees(random: np.random.Generator, *, rows: int = 20_000, leaves: int = 15, rounds: int = 100) -> Model:
    from sklearn.ensemble import HistGradientBoostingClassifier

    inputs = random.normal(size=(rows, COLUMNS))
    fitted = HistGradientBoostingClassifier(
        max_leaf_nodes=leaves, max_iter=rounds, early_stopping=False, random_state=0
    ).fit(inputs, answer(random, inputs))
    return lambda rows: fitted.predict_proba(rows)[:, 1]


def overfit(random: np.random.Generator) -> Model:
    return trees(random, rows=4_000, leaves=31, rounds=300)


def as_it_was(inputs: Matrix) -> Matrix:
    return inputs


def shifted(inputs: Matrix) -> Matrix:
    return inputs + np.array([1.0, 1.0, 0, 0, 0, 0])


def narrowed(inputs: Matrix) -> Matrix:
    return inputs / 2


WEAKER = np.array([0.7, 0.7, 1, 1, 1, 1])
MUCH_WEAKER = np.array([0.4, 0.4, 1, 1, 1, 1])
CASES: dict[str, tuple[Callable[[np.random.Generator], Model], Callable[[Matrix], Matrix], np.ndarray]] = {
    "trees, no change": (trees, as_it_was, EFFECTS),
    "trees, two inputs shift by 1 sd": (trees, shifted, EFFECTS),
    "linear, inputs narrow to half": (linear, narrowed, EFFECTS),
    "trees (overfit), inputs narrow to half": (overfit, narrowed, EFFECTS),
    "concept, linear: two effects 30 % weaker": (linear, as_it_was, EFFECTS * WEAKER),
    "concept, linear: two effects 60 % weaker": (linear, as_it_was, EFFECTS * MUCH_WEAKER),
}
COVARIATE = tuple(CASES)[:4]


def sample(inputs: Matrix, scores: np.ndarray, labels: np.ndarray | None, start_us: int = 0) -> Sample:
    """Predictions a second apart."""
    count = len(scores)
    instant = pa.timestamp("us", tz="UTC")
    columns = {
        "prediction_id": [f"p-{place:07}" for place in range(count)],
        "request_id": [f"r-{place:07}" for place in range(count)],
        "at": pa.array(start_us + np.arange(count) * 1_000_000, pa.int64()).cast(instant),
        "release": ["rel"] * count,
        "version": ["1"] * count,
        "score": pa.array(scores),
        "latency_ms": pa.nulls(count, pa.float64()),
        "degraded": pa.nulls(count, pa.bool_()),
        "label": pa.nulls(count, pa.float64()) if labels is None else pa.array(labels),
        "label_known_at": pa.nulls(count, instant),
    }
    columns |= {f"feature_x{place}": pa.array(column.copy()) for place, column in enumerate(inputs.T)}
    return Sample("m", "binary", pa.table(columns))


def ratio(case: str, old: Matrix) -> np.ndarray:
    """How much more often each row comes now than it came before: of normal inputs that shift or narrow."""
    ask = CASES[case][1]
    if ask is shifted:
        return np.exp(old[:, :2].sum(axis=1))
    return np.exp(-1.5 * (old**2).sum(axis=1)) if ask is narrowed else np.ones(len(old))


def window(case: str, seed: int, *, before: int = BEFORE, rows: int = WINDOW, many: int = 0) -> dict[str, Any]:
    """One window: realised metrics, estimates, and the rows for others. many: labels to tell the truth by."""
    build, ask, effects = CASES[case]
    random = np.random.default_rng(seed)
    model = build(random)
    old = random.normal(size=(before, COLUMNS))
    old_labels, old_scores = answer(random, old), model(old)
    now = ask(random.normal(size=(rows, COLUMNS)))
    labels, scores = answer(random, now, effects), model(now)
    base = Baseline("rows of before", sample(old, old_scores, old_labels), timed=False)
    current = sample(now, scores, None)
    own = estimating.estimate(current, base, "", seed=seed)
    plain = estimating.estimate(current, Baseline(base.name, _without_inputs(base.sample), timed=False), "", seed=seed)
    weights = ratio(case, old)
    oracle = isotonic(old_scores, old_labels, weights / weights.mean())
    asked = ask(random.normal(size=(many, COLUMNS)))
    return {
        "realised": measure("binary", labels, scores),
        "truth": measure("binary", answer(random, asked, effects), model(asked)) if many else {},
        "true ratio": expected_binary(oracle(scores), scores),
        "before": measure("binary", old_labels, old_scores),
        "own": own,
        "unweighted": plain,
        "rows": (old_scores, old_labels, scores, labels),
    }


def _without_inputs(found: Sample) -> Sample:
    from dataclasses import replace

    return replace(found, rows=found.rows.drop_columns([f"feature_x{place}" for place in range(COLUMNS)]))


def error(found: dict[str, Any], realised: dict[str, Any], metric: str) -> float:
    return abs(found[metric] - realised[metric])


def average(values: list[float]) -> tuple[float, float]:
    """The mean, and half of its 95 % interval (Student's t)."""
    half = t_quantile(0.95, len(values) - 1) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return float(np.mean(values)), half


def table(repeats: int, nannyml: str) -> dict[str, dict[str, Any]]:
    told: dict[str, dict[str, Any]] = {}
    for case in CASES:
        windows = [window(case, seed, many=MANY) for seed in range(repeats)]
        by = {
            "own": [one["own"].metrics for one in windows],
            "unweighted": [one["unweighted"].metrics for one in windows],
            "as before": [one["before"] for one in windows],
            "true ratio": [one["true ratio"] for one in windows],
        }
        if nannyml:
            by["nannyml"] = _nannyml(nannyml, [one["rows"] for one in windows])
        real = [one["realised"] for one in windows]
        inside = [
            low <= one["realised"]["roc_auc"] <= high
            for one in windows
            for low, high in [one["own"].intervals["roc_auc"]]
        ]
        told[case] = {
            "change": float(np.mean([one["realised"]["roc_auc"] - one["before"]["roc_auc"] for one in windows])),
            "errors": {
                name: [float(np.mean([error(f, r, metric) for f, r in zip(found, real, strict=True)]))
                       for metric in METRICS]
                for name, found in by.items()
            },
            "half": average([error(f, r, "roc_auc") for f, r in zip(by["own"], real, strict=True)])[1],
            "of the truth": {
                name: average([error(f, one["truth"], "roc_auc") for f, one in zip(found, windows, strict=True)])
                for name, found in (by | {"labels": real}).items()
            },
            "weighted": sum(one["own"].weighted for one in windows),
            "inside": sum(inside),
            "windows": len(windows),
        }  # fmt: skip
    return told


NANNY = """
import json, os, sys, warnings
os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
warnings.simplefilter("ignore")
import nannyml, pandas
names, told = ["roc_auc", "f1", "accuracy"], []
for place in range(int(sys.argv[2])):
    before, now = (pandas.read_parquet(f"{sys.argv[1]}/{place}-{name}.parquet") for name in ("before", "now"))
    cbpe = nannyml.CBPE(metrics=names, y_pred_proba="score", y_pred="said", y_true="label",
                        problem_type="classification_binary", chunk_size=len(now))
    found = cbpe.fit(before).estimate(now).filter(period="analysis").to_df()
    told.append({name: float(found[(name, "value")].iloc[0]) for name in names})
print(json.dumps(told))
"""


def _nannyml(python: str, windows: list[tuple[np.ndarray, ...]]) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        for place, (old, old_labels, new, labels) in enumerate(windows):
            for name, scores, told in (("before", old, old_labels), ("now", new, labels)):
                columns = {"score": scores, "said": (scores >= 0.5).astype(int), "label": told.astype(int)}
                pq.write_table(pa.table(columns), Path(folder) / f"{place}-{name}.parquet")
        command = [python, "-c", NANNY, folder, str(len(windows))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[dict[str, float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def verdict(found: dict[str, dict[str, Any]]) -> str:
    """The case of the covariate shift that is off most, beside the goal and beside what nobody can do better."""
    case = max(COVARIATE, key=lambda name: found[name]["errors"]["own"][0])
    told = found[case]
    off, half = told["errors"]["own"][0], told["half"]
    truth, chance = told["of the truth"]["own"]
    labels, ideal = told["of the truth"]["labels"][0], told["errors"]["true ratio"][0]
    word = "kept" if off <= GOAL else "MISSED"
    return "\n".join(
        [
            f"goal: on average within {GOAL} of the AUC that labels show, while the world answers as before",
            f"{word}: the worst is '{case}', off by {off:.4f}, 95 % interval {off - half:.4f} to {off + half:.4f}",
            f"with the true density ratio it would be off by {ideal:.4f}",
            f"of the AUC that {MANY:,} labels show it is off by {truth:.4f} +- {chance:.4f}, "
            f"and what the window's own labels show by {labels:.4f}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="windows of each case")
    parser.add_argument("--nannyml", default="", metavar="PYTHON", help="an interpreter that has nannyml")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.repeats < 2:
        parser.error("two windows at least: one has no interval")
    found = table(asked.repeats, asked.nannyml)
    if asked.json:
        print(json.dumps(found))
        return
    print(f"{'mean absolute error of AUC / F1 / accuracy':42} {'AUC changed':>11}  method")
    for case, told in found.items():
        for place, (name, errors) in enumerate(told["errors"].items()):
            head = f"{case:42} {told['change']:+11.4f}" if not place else " " * 54
            more = f"   weighted {told['weighted']}, inside {told['inside']} of {told['windows']}" if not place else ""
            print(f"{head}  {name:11} {' / '.join(f'{one:.4f}' for one in errors)}{more}")
    print(verdict(found))


if __name__ == "__main__":
    main()
