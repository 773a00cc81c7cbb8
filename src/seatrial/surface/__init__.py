"""The reference surface: the names of the reference architecture, over the same parts as everything else.

For code that was written against those names. Each is loaded when it is first used; `docs/migration.md` documents
them, and says what is different.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for typing.TYPE_CHECKING
if TYPE_CHECKING:
    from seatrial.surface.feature_store import FeatureDefinition as FeatureDefinition
    from seatrial.surface.feature_store import FeatureStore as FeatureStore
    from seatrial.surface.feature_store import ProductionFeatureStore as ProductionFeatureStore
    from seatrial.surface.model_monitor import DriftAlert as DriftAlert
    from seatrial.surface.model_monitor import ModelMonitor as ModelMonitor
    from seatrial.surface.model_server import ABTestConfig as ABTestConfig
    from seatrial.surface.model_server import ModelServer as ModelServer
    from seatrial.surface.model_server import PredictionRequest as PredictionRequest
    from seatrial.surface.model_server import PredictionResponse as PredictionResponse
    from seatrial.surface.training_pipeline import MLTrainingPipeline as MLTrainingPipeline
    from seatrial.surface.training_pipeline import TrainingConfig as TrainingConfig
    from seatrial.surface.training_pipeline import TrainingPipeline as TrainingPipeline
    from seatrial.surface.training_pipeline import TrainingResult as TrainingResult

_HOME = {
    "ABTestConfig": "model_server",
    "DriftAlert": "model_monitor",
    "FeatureDefinition": "feature_store",
    "FeatureStore": "feature_store",
    "MLTrainingPipeline": "training_pipeline",
    "ModelMonitor": "model_monitor",
    "ModelServer": "model_server",
    "PredictionRequest": "model_server",
    "PredictionResponse": "model_server",
    "ProductionFeatureStore": "feature_store",
    "TrainingConfig": "training_pipeline",
    "TrainingPipeline": "training_pipeline",
    "TrainingResult": "training_pipeline",
}

__all__ = [
    "ABTestConfig",
    "DriftAlert",
    "FeatureDefinition",
    "FeatureStore",
    "MLTrainingPipeline",
    "ModelMonitor",
    "ModelServer",
    "PredictionRequest",
    "PredictionResponse",
    "ProductionFeatureStore",
    "TrainingConfig",
    "TrainingPipeline",
    "TrainingResult",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'seatrial.surface' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"seatrial.surface.{_HOME[name]}"), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
