"""The reference's training pipeline: from a data frame to a judged model version, in one call.

It is `Project.train` with a declared model behind it: the same snapshot, split, fit, gates, records and mirror. What
is its own are the refusals before anything is written, and the names under which results and MLflow see a run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from seatrial.core.clock import Clock, iso, machine_us
from seatrial.core.errors import UsageError
from seatrial.core.records import Record
from seatrial.data.reading import read
from seatrial.data.sources import FrameSource, Source, require_columns
from seatrial.project import Project
from seatrial.registry.mlflow import run_message
from seatrial.training.estimator import THREAD_PARAMETERS
from seatrial.training.gates import Gate
from seatrial.training.model import REQUEST, Model, Split
from seatrial.training.pipeline import Fitted
from seatrial.training.rows import refuse_nulls, refuse_target_rate

LARGEST_CV_STD = 0.1
LARGEST_GAP = 0.05
IMPORTANCE = "feature_importance.json"
HASH_DIGITS = 16

TESTED = {
    "test_auc": "roc_auc",
    "test_precision": "precision",
    "test_recall": "recall",
    "test_f1": "f1",
    "test_avg_precision": "average_precision",
}
"""The reference's names for metrics of the test part, and ours."""

Progress = Callable[[str, int, int], None]


class BadTrainingConfig(UsageError):
    """A training configuration holds a value that cannot work."""

    code = "surface.bad_training_config"


@dataclass(frozen=True)
class TrainingConfig:
    """What to train, and what it must reach.

    experiment_name: MLflow's experiment. model_name: letters, digits and single underscores.
    target_column: 0/1 or false/true; rows where it is null have no label and are left out.
    test_size: share of each class held back for the test. cv_folds: at least 2, on training rows only.
    random_state: seeds split, folds and, unless its parameters say otherwise, the estimator.
    min_auc_threshold: the ROC AUC on the test part from which a model passes.
    allow_nulls: whether features may have missing values. target_rate: the lowest and highest allowed share of 1.
    """

    experiment_name: str
    model_name: str
    target_column: str
    feature_columns: Sequence[str]
    test_size: float = 0.2
    random_state: int = 42
    cv_folds: int = 5
    min_auc_threshold: float = 0.7
    allow_nulls: bool = False
    target_rate: tuple[float, float] = (0.01, 0.99)

    def __post_init__(self) -> None:
        if isinstance(self.feature_columns, str):
            raise BadTrainingConfig(
                f"feature_columns is the text {self.feature_columns!r}.", expected="A list of columns is expected."
            )
        if not self.experiment_name or not isinstance(self.experiment_name, str):
            raise BadTrainingConfig(
                f"experiment_name is {self.experiment_name!r}.", expected="The name of MLflow's experiment is expected."
            )
        if self.cv_folds < 2:
            raise BadTrainingConfig(
                f"cv_folds is {self.cv_folds!r}.",
                expected="At least 2 folds are expected: a model passes on its spread over them, too.",
            )
        low, high = self.target_rate
        if not 0 <= low <= high <= 1:
            raise BadTrainingConfig(
                f"target_rate is {self.target_rate!r}.",
                expected="Two shares are expected: 0 <= lowest <= highest <= 1.",
            )


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to.

    run_id: of our store; MLflow's run carries it as the tag seatrial.run_id.
    model_version: the version's integer as text; None when the model did not pass, and then there is no version.
    data_hash: the first 16 hex digits of the data's snapshot id, which is `snap_` and 32 of them.
    feature_importance: heaviest first; empty when the estimator tells none.
    """

    run_id: str
    model_version: str | None
    metrics: dict[str, float]
    passed_validation: bool
    data_hash: str
    feature_importance: dict[str, float]


class TrainingPipeline:
    """Trains one configured model, as often as `run` is called.

    folder: where snapshots, runs and versions are kept, as by every other door of seatrial; need not be a project.
    clock: where the time of a run comes from; the machine's by default.
    """

    def __init__(self, config: TrainingConfig, folder: str | Path = ".", *, clock: Clock | None = None) -> None:
        self.config = config
        self._folder = folder
        self._clock = clock

    def run(
        self,
        data: Any,
        model_class: Any,
        model_params: Mapping[str, Any] | None = None,
        *,
        progress: Progress | None = None,
    ) -> TrainingResult:
        """Fit `model_class(**model_params)` on `data`, judge it, and make it a version if it passes.

        data: a frame of pandas, Arrow or polars with the configured columns; other columns are kept in the snapshot.
        model_class: a class with fit and predict_proba, its import path, or an unfitted estimator.
        model_params: threads among them (n_jobs=...) are taken as the run's threads; 1 without.

        Raises ColumnMissing, NullsInFeatures, TargetRateOutside and what else training refuses; then there is no run.
        """
        config = self.config
        source = FrameSource(data, name=config.model_name)
        table = read(source, folder=Path(self._folder)).table
        require_columns(source, table, [*config.feature_columns, config.target_column])
        if not config.allow_nulls:
            refuse_nulls(table, config.feature_columns)
        low, high = config.target_rate
        refuse_target_rate(table, config.target_column, low=low, high=high)
        model = _model(config, FrameSource(table, name=config.model_name), model_class, model_params or {})
        project = _Runs(self._folder, clock=self._clock, definitions=[model])
        project.config, project.model_class = config, _name(model_class)
        with project:
            trained = project.train(progress=progress)
            importance = project.objects.read(f"runs/{trained.run}/{IMPORTANCE}")
        return TrainingResult(
            run_id=trained.run,
            model_version=None if trained.version is None else str(trained.version),
            metrics=_metrics(trained.metrics, trained.cv or {}, trained.rows),
            passed_validation=trained.passed,
            data_hash=data_hash(trained.snapshots[0]),
            feature_importance=msgspec.json.decode(importance),
        )


MLTrainingPipeline = TrainingPipeline


def data_hash(snapshot: str) -> str:
    """The reference's 16 hex digits for the data with this snapshot id: equal for equal content, and only then."""
    return snapshot.removeprefix("snap_")[:HASH_DIGITS]


class _Runs(Project):
    """A project that tells MLflow of its runs under the reference's names."""

    config: TrainingConfig
    model_class: str

    @property
    def _experiment(self) -> str:
        return self.config.experiment_name

    def _run_message(self, record: Record, fitted: Fitted, started_us: int) -> dict[str, Any]:
        snapshot = record.inputs[1]
        cv = fitted.cv.as_plain() if fitted.cv else {}
        reference = {
            "data_hash": data_hash(snapshot),
            "model_class": self.model_class,
            "feature_count": len(self.config.feature_columns),
            "passed_validation": fitted.passed,
        }
        stage = {"stage": "candidate"} if fitted.passed else {}
        return run_message(
            record.id,
            experiment=self._experiment,
            name=f"{record.name} {iso(self.clock.now())}",
            started_us=started_us,
            ended_us=machine_us(),
            params={**fitted.estimator.get("params", {}), **reference},
            metrics=_metrics(fitted.metrics, cv, fitted.split),
            tags={"model": record.name, "training_set": record.inputs[0], "snapshot": snapshot, **stage},
            artifacts={name: str(self.objects.path(key)) for name, key in record.body["files"].items()},
        )


def _model(config: TrainingConfig, labels: Source, model_class: Any, params: Mapping[str, Any]) -> Model:
    """The declared model that a configuration stands for."""
    rest = {name: value for name, value in params.items() if name not in THREAD_PARAMETERS}
    return Model(
        config.model_name,
        task="binary",
        target=config.target_column,
        labels=labels,
        features=[f"{REQUEST}{column}" for column in config.feature_columns],
        estimator=_import_path(model_class) or model_class,
        params=rest,
        gates=[
            Gate.at_least("roc_auc", config.min_auc_threshold),
            Gate.cv_std_at_most(LARGEST_CV_STD),
            Gate.cv_gap_at_most(LARGEST_GAP),
        ],
        split=Split("stratified", config.test_size),
        cv_folds=config.cv_folds,
        seed=config.random_state,
        threads=_threads(params),
    )


def _threads(params: Mapping[str, Any]) -> int:
    """The threads that an estimator's parameters ask for; as in joblib, -1 is every processor, -2 all but one."""
    stated = [params[name] for name in THREAD_PARAMETERS if params.get(name) is not None]
    if not stated:
        return 1
    threads = stated[0]
    if not isinstance(threads, int) or isinstance(threads, bool):
        raise BadTrainingConfig(f"the model's parameters ask for {threads!r} threads.", expected="A whole number.")
    return threads if threads > 0 else max(1, (os.cpu_count() or 1) + 1 + (threads or -1))


def _import_path(model_class: Any) -> str | None:
    """Where a class can be imported from, so that the run's record names it; None when it cannot."""
    if not isinstance(model_class, type):
        return None
    module, name = model_class.__module__, model_class.__qualname__
    return f"{module}.{name}" if getattr(sys.modules.get(module), name, None) is model_class else None


def _name(model_class: Any) -> str:
    if isinstance(model_class, str):
        return model_class.rpartition(".")[2]
    return str(getattr(model_class, "__name__", type(model_class).__name__))


def _metrics(tested: Mapping[str, Any], cv: Mapping[str, Any], split: Mapping[str, Any]) -> dict[str, float]:
    """A run's metrics under the reference's names; one that the rows do not define is left out."""
    found = {name: tested.get(ours) for name, ours in TESTED.items()}
    found["cv_auc_mean"] = cv.get("mean", {}).get("roc_auc")
    found["cv_auc_std"] = cv.get("std", {}).get("roc_auc")
    for part in ("train", "test"):
        found[f"{part}_samples"] = split[part]["rows"]
        found[f"positive_rate_{part}"] = split[part]["label_mean"]
    return {name: value for name, value in found.items() if value is not None}
