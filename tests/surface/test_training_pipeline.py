"""The reference's training pipeline: what it refuses, what it measures, what it keeps and tells."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from seatrial.core.identity import new_id
from seatrial.core.records import Record
from seatrial.data.reading import SourceUnreadable
from seatrial.data.sources import ColumnMissing
from seatrial.project import Project
from seatrial.registry.mlflow import TOPIC
from seatrial.registry.versions import UnknownModel
from seatrial.surface import TrainingPipeline
from seatrial.surface.training_pipeline import BadTrainingConfig
from seatrial.training.rows import NullsInFeatures, TargetRateOutside
from tests.surface.worlds import LOGISTIC, config, frame

METRICS = """
    test_auc test_precision test_recall test_f1 test_avg_precision cv_auc_mean cv_auc_std train_samples test_samples
    positive_rate_train positive_rate_test
""".split()


def run(folder, data=None, model_class=LogisticRegression, params=None, **changes):
    return TrainingPipeline(config(**changes), folder).run(frame() if data is None else data, model_class, params)


def scores_of(folder, result):
    """The labels and scores of the run's test part."""
    with Project(folder, definitions=()) as project:
        files = project.run_show(result.run_id)["files"]
        table = pq.read_table(project.objects.path(files["test_scores.parquet"]))
    return table["label"].to_numpy(), table["score"].to_numpy()


def test_a_run_has_the_metrics_of_the_reference_as_scikit_learn_computes_them(tmp_path):
    result = run(tmp_path)
    assert sorted(result.metrics) == sorted(METRICS)
    labels, scores = scores_of(tmp_path, result)
    decided = scores >= 0.5
    assert result.metrics["test_auc"] == pytest.approx(roc_auc_score(labels, scores))
    assert result.metrics["test_precision"] == pytest.approx(precision_score(labels, decided))
    assert result.metrics["test_recall"] == pytest.approx(recall_score(labels, decided))
    assert result.metrics["test_f1"] == pytest.approx(f1_score(labels, decided))
    assert result.metrics["test_avg_precision"] == pytest.approx(average_precision_score(labels, scores))
    assert result.metrics["train_samples"] + result.metrics["test_samples"] == 600
    assert result.metrics["test_samples"] == labels.size == pytest.approx(120, abs=1)
    assert result.metrics["positive_rate_test"] == labels.mean()


def test_the_split_keeps_the_classes_and_follows_test_size_and_seed(tmp_path):
    first = run(tmp_path, test_size=0.25)
    assert first.metrics["test_samples"] == pytest.approx(150, abs=1)
    assert first.metrics["positive_rate_test"] == pytest.approx(first.metrics["positive_rate_train"], abs=0.01)
    again = run(tmp_path, test_size=0.25)
    other = run(tmp_path, test_size=0.25, random_state=7)
    assert again.metrics == first.metrics
    assert other.metrics["test_auc"] != first.metrics["test_auc"]


def test_a_model_that_passes_is_a_version_that_can_be_released_and_deployed(tmp_path):
    result = run(tmp_path)
    assert (result.passed_validation, result.model_version) == (True, "1")
    with Project(tmp_path, definitions=()) as project:
        assert project.models()[0]["aliases"] == ["candidate"]
        released = project.release("churn_model@candidate")
        assert (released.version, released.semantic_version) == (1, "1.0.0")
        kept = project.run_show(result.run_id)
        assert kept["definition"]["estimator"].endswith(".LogisticRegression")


@pytest.mark.parametrize(
    ("reason", "data", "changes"),
    [
        ("the AUC is below the threshold", frame(), {"min_auc_threshold": 0.999}),
        ("folds spread by more than 0.1", frame(80, seed=3, signal=0.2), {"min_auc_threshold": 0.0}),
        ("test and folds differ by more than 0.05", frame(120, seed=5, signal=0.3), {"min_auc_threshold": 0.0}),
    ],
)
def test_a_model_that_does_not_pass_is_no_version(tmp_path, reason, data, changes):
    result = run(tmp_path, data, **changes)
    assert (result.passed_validation, result.model_version) == (False, None)
    with Project(tmp_path, definitions=()) as project:
        failed = [gate["gate"] for gate in project.run_show(result.run_id)["gates"] if not gate["passed"]]
        with pytest.raises(UnknownModel):
            project.registry.versions("churn_model")
    expected = {"AUC": "roc_auc", "folds spread": "spread", "test and folds": "gap"}
    assert any(word in gate for start, word in expected.items() if start in reason for gate in failed)


def test_refused_data_leaves_nothing_behind(tmp_path):
    data = frame()
    with pytest.raises(ColumnMissing, match="visitz"):
        run(tmp_path, data, feature_columns=["spend", "visitz"])
    with pytest.raises(ColumnMissing, match="gone"):
        run(tmp_path, data, target_column="gone")
    with pytest.raises(NullsInFeatures, match=r"spend \(1\)"):
        run(tmp_path, data.assign(spend=data["spend"].where(data.index > 0)))
    rare = data.assign(left=(data.index < 3).astype(int))
    with pytest.raises(TargetRateOutside, match=r"0\.005"):
        run(tmp_path, rare)
    with pytest.raises(TargetRateOutside):
        run(tmp_path, data.assign(left=1 - rare["left"]))
    with pytest.raises(SourceUnreadable, match="not a table"):
        run(tmp_path, [1, 2, 3])
    assert list(tmp_path.iterdir()) == []


def test_nulls_and_rare_targets_can_be_allowed(tmp_path):
    data = frame()
    holes = data.assign(spend=data["spend"].where(data.index % 10 > 0))
    histogram = "sklearn.ensemble.HistGradientBoostingClassifier"
    assert run(tmp_path, holes, histogram, {"max_iter": 20}, allow_nulls=True).passed_validation
    many = frame(2000)
    rare = many.assign(left=(many["spend"] > many["spend"].nlargest(16).min()).astype(int))
    with pytest.raises(TargetRateOutside):
        run(tmp_path, rare)
    result = run(tmp_path, rare, cv_folds=2, target_rate=(0.001, 0.5), min_auc_threshold=0)
    assert result.metrics["positive_rate_train"] < 0.01


@pytest.mark.parametrize(
    "changes",
    [{"feature_columns": "spend"}, {"cv_folds": 1}, {"target_rate": (0.5, 0.1)}, {"experiment_name": ""}],
)
def test_a_configuration_that_cannot_work_is_refused(changes):
    with pytest.raises(BadTrainingConfig):
        config(**changes)


# What was wrong in the reference


def test_cross_validation_sees_no_test_row(tmp_path):
    data = frame()
    first = run(tmp_path, data)
    rows = _test_rows(tmp_path, first, data)
    assert rows.size == first.metrics["test_samples"]
    spoiled = data.copy()
    spoiled.loc[rows, "spend"] *= -1  # the split looks at labels only, so the test part stays the same rows
    second = run(tmp_path, spoiled)
    assert second.metrics["test_auc"] < 0.5 < first.metrics["test_auc"]
    assert second.metrics["cv_auc_mean"] == first.metrics["cv_auc_mean"]
    assert second.metrics["cv_auc_std"] == first.metrics["cv_auc_std"]


def _test_rows(folder, result, data):
    """Which rows of the frame were the test part: parity rows begin with them."""
    with Project(folder, definitions=()) as project:
        files = project.run_show(result.run_id)["files"]
        table = pq.read_table(project.objects.path(files["parity_rows.parquet"]))
    spend = table["spend"].to_numpy()[: int(result.metrics["test_samples"])]
    return np.flatnonzero(np.isin(data["spend"].to_numpy().astype(np.float32), spend))


def test_the_model_is_seeded(tmp_path):
    forest = {"n_estimators": 5, "max_features": 1}
    path = "sklearn.ensemble.RandomForestClassifier"
    first, second = (run(tmp_path, model_class=path, params=forest) for _ in range(2))
    assert (scores_of(tmp_path, first)[1] == scores_of(tmp_path, second)[1]).all()
    assert first.feature_importance == second.feature_importance


def test_the_data_hash_sees_every_change_and_no_format(tmp_path):
    data = frame(100)
    tiny = data.copy()
    tiny.loc[0, "spend"] += 1e-12
    assert tiny.loc[0, "spend"] != data.loc[0, "spend"]
    hashes = [
        run(tmp_path, changed).data_hash
        for changed in (
            data,
            tiny,
            data.astype({"visits": "int32"}),
            data.astype({"spend": "float32"}),
            data.iloc[::-1],
        )
    ]
    assert len(set(hashes)) == len(hashes)
    assert all(len(digits) == 16 and int(digits, 16) >= 0 for digits in hashes)
    assert run(tmp_path, pa.Table.from_pandas(data)).data_hash == hashes[0]
    with Project(tmp_path, definitions=()) as project:
        assert project.snapshot_show(f"snap_{hashes[0]}")["rows"] == 100


def test_the_tenth_version_comes_after_the_ninth(tmp_path):
    with Project(tmp_path, definitions=()) as project:
        for _ in range(9):
            project.registry.create(Record(new_id("run"), "run", "churn_model"), actor="ada", at_us=1)
    assert run(tmp_path).model_version == "10"
    assert run(tmp_path).model_version == "11"


def test_importance_is_sorted_and_absolute(tmp_path):
    data = frame()
    data["saving"] = -data["spend"]
    result = run(tmp_path, data, feature_columns=["visits", "saving"])
    assert list(result.feature_importance) == ["saving", "visits"]
    weights = list(result.feature_importance.values())
    assert weights == sorted(weights, reverse=True)
    assert min(weights) > 0


def test_threads_among_the_parameters_are_the_runs_threads(tmp_path):
    result = run(
        tmp_path, model_class="sklearn.ensemble.RandomForestClassifier", params={"n_estimators": 5, "n_jobs": 2}
    )
    with Project(tmp_path, definitions=()) as project:
        assert project.run_show(result.run_id)["threads"] == 2
    with pytest.raises(BadTrainingConfig, match="threads"):
        run(tmp_path, params={"n_jobs": "all"})


def told(folder) -> list[dict]:
    """What waits for MLflow; that MLflow gets it as it is, tests of the mirror say."""
    with Project(folder, definitions=()) as project:
        return [message for _, message in project.metadata.pending(TOPIC)]


def test_mlflow_is_told_of_the_run_under_the_references_names(tmp_path):
    result = run(tmp_path, model_class=LOGISTIC)
    (message,) = told(tmp_path)
    assert message["experiment"] == "churn"
    assert message["run_id"] == result.run_id
    assert message["metrics"] == result.metrics
    reference = {
        "data_hash": result.data_hash,
        "model_class": "LogisticRegression",
        "feature_count": "2",
        "passed_validation": "True",
    }
    assert reference.items() <= message["params"].items()
    assert message["params"]["max_iter"] == "100"
    assert message["tags"]["stage"] == "candidate"
    assert (message["model"], message["version"], message["aliases"]) == ("churn_model", 1, ["candidate"])
    kept = json.loads(Path(message["artifacts"]["feature_importance.json"]).read_text())
    assert list(kept.items()) == list(result.feature_importance.items())


def test_mlflow_is_told_of_a_run_that_did_not_pass_and_of_no_version(tmp_path):
    result = run(tmp_path, min_auc_threshold=0.9999)
    (message,) = told(tmp_path)
    assert message["params"]["passed_validation"] == "False"
    assert message["metrics"] == result.metrics
    assert "stage" not in message["tags"]
    assert "version" not in message
