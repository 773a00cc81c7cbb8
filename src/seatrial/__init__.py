"""seatrial takes a tabular model from a notebook to a production service that can be trusted.

The public names, each loaded when it is first used: `import seatrial` by itself loads nothing else.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for typing.TYPE_CHECKING, whose import would cost every start
if TYPE_CHECKING:
    from seatrial.core.card import ModelCard as ModelCard
    from seatrial.core.errors import SeatrialError as SeatrialError
    from seatrial.core.objective import Objective as Objective
    from seatrial.data.expectations import SetAside as SetAside
    from seatrial.data.expectations import expect as expect
    from seatrial.data.sources import CsvSource as CsvSource
    from seatrial.data.sources import DeltaSource as DeltaSource
    from seatrial.data.sources import FrameSource as FrameSource
    from seatrial.data.sources import ParquetSource as ParquetSource
    from seatrial.data.sources import PostgresSource as PostgresSource
    from seatrial.data.sources import QuerySource as QuerySource
    from seatrial.deployment.definition import ABTest as ABTest
    from seatrial.deployment.definition import BlueGreen as BlueGreen
    from seatrial.deployment.definition import Canary as Canary
    from seatrial.deployment.definition import Deployment as Deployment
    from seatrial.deployment.definition import Guardrail as Guardrail
    from seatrial.deployment.definition import Metric as Metric
    from seatrial.deployment.definition import Shadow as Shadow
    from seatrial.embedded import load as load
    from seatrial.features.definitions import Entity as Entity
    from seatrial.features.definitions import agg as agg
    from seatrial.features.definitions import feature_view as feature_view
    from seatrial.features.definitions import sql as sql
    from seatrial.features.join import point_in_time_join as point_in_time_join
    from seatrial.features.request_time import on_request as on_request
    from seatrial.features.shared import shared_view as shared_view
    from seatrial.monitoring.definition import Alarm as Alarm
    from seatrial.monitoring.definition import Monitor as Monitor
    from seatrial.notebook import log_run as log_run
    from seatrial.project import Project as Project
    from seatrial.retraining.definition import Retrain as Retrain
    from seatrial.retraining.definition import Trigger as Trigger
    from seatrial.scheduling.definition import Schedule as Schedule
    from seatrial.serving.clients.async_client import AsyncClient as AsyncClient
    from seatrial.serving.clients.client import Client as Client
    from seatrial.stores.prediction_log import PredictionLog as PredictionLog
    from seatrial.training.gates import Gate as Gate
    from seatrial.training.gates import ProjectGates as ProjectGates
    from seatrial.training.model import Model as Model
    from seatrial.training.model import Split as Split
    from seatrial.training.space import Tune as Tune
    from seatrial.training.threshold import Costs as Costs

__version__ = "0.1.0"

_HOME = {
    "ABTest": "seatrial.deployment.definition",
    "Alarm": "seatrial.monitoring.definition",
    "AsyncClient": "seatrial.serving.clients.async_client",
    "BlueGreen": "seatrial.deployment.definition",
    "Canary": "seatrial.deployment.definition",
    "Client": "seatrial.serving.clients.client",
    "Costs": "seatrial.training.threshold",
    "CsvSource": "seatrial.data.sources",
    "DeltaSource": "seatrial.data.sources",
    "Deployment": "seatrial.deployment.definition",
    "Entity": "seatrial.features.definitions",
    "FrameSource": "seatrial.data.sources",
    "Gate": "seatrial.training.gates",
    "Guardrail": "seatrial.deployment.definition",
    "Metric": "seatrial.deployment.definition",
    "Model": "seatrial.training.model",
    "ModelCard": "seatrial.core.card",
    "Monitor": "seatrial.monitoring.definition",
    "Objective": "seatrial.core.objective",
    "ParquetSource": "seatrial.data.sources",
    "PostgresSource": "seatrial.data.sources",
    "PredictionLog": "seatrial.stores.prediction_log",
    "Project": "seatrial.project",
    "ProjectGates": "seatrial.training.gates",
    "QuerySource": "seatrial.data.sources",
    "Retrain": "seatrial.retraining.definition",
    "Schedule": "seatrial.scheduling.definition",
    "SeatrialError": "seatrial.core.errors",
    "SetAside": "seatrial.data.expectations",
    "Shadow": "seatrial.deployment.definition",
    "Split": "seatrial.training.model",
    "Trigger": "seatrial.retraining.definition",
    "Tune": "seatrial.training.space",
    "agg": "seatrial.features.definitions",
    "expect": "seatrial.data.expectations",
    "feature_view": "seatrial.features.definitions",
    "load": "seatrial.embedded",
    "log_run": "seatrial.notebook",
    "on_request": "seatrial.features.request_time",
    "point_in_time_join": "seatrial.features.join",
    "shared_view": "seatrial.features.shared",
    "sql": "seatrial.features.definitions",
}

__all__ = [
    "ABTest",
    "Alarm",
    "AsyncClient",
    "BlueGreen",
    "Canary",
    "Client",
    "Costs",
    "CsvSource",
    "DeltaSource",
    "Deployment",
    "Entity",
    "FrameSource",
    "Gate",
    "Guardrail",
    "Metric",
    "Model",
    "ModelCard",
    "Monitor",
    "Objective",
    "ParquetSource",
    "PostgresSource",
    "PredictionLog",
    "Project",
    "ProjectGates",
    "QuerySource",
    "Retrain",
    "Schedule",
    "SeatrialError",
    "SetAside",
    "Shadow",
    "Split",
    "Trigger",
    "Tune",
    "agg",
    "expect",
    "feature_view",
    "load",
    "log_run",
    "on_request",
    "point_in_time_join",
    "shared_view",
    "sql",
]


# names of the reference architecture, for code that was written against them; see docs/migration.md
_SURFACE = frozenset(
    {
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
    }
)


def __getattr__(name: str) -> object:
    if name in _SURFACE:
        from seatrial import surface

        return getattr(surface, name)
    if name not in _HOME:
        raise AttributeError(f"module 'seatrial' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
