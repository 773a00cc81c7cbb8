"""The reference's names: both forms of each, the calls and the fields as they were."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from seatrial import surface
from tests.house.test_names import in_a_fresh_interpreter


def parameters(thing) -> list[str]:
    return [name for name in inspect.signature(thing).parameters if name != "self"]


def test_every_name_is_there_and_both_forms_are_one_thing():
    assert sorted(surface.__all__) == surface.__all__
    assert all(getattr(surface, name).__doc__ for name in surface.__all__)
    assert set(surface.__all__) <= set(dir(surface))
    assert surface.MLTrainingPipeline is surface.TrainingPipeline
    assert surface.ProductionFeatureStore is surface.FeatureStore


def test_calls_are_those_of_the_reference():
    assert parameters(surface.TrainingPipeline)[:1] == ["config"]
    assert parameters(surface.TrainingPipeline.run)[:3] == ["data", "model_class", "model_params"]
    assert parameters(surface.FeatureStore)[:2] == ["repo_path", "online_store_config"]
    register = ["name", "entities", "features", "source_path", "ttl_days"]
    assert parameters(surface.FeatureStore.register_feature_view) == register
    join = ["entity_df", "feature_refs", "timestamp_column"]
    assert parameters(surface.FeatureStore.get_training_data) == join
    assert parameters(surface.FeatureStore.get_online_features) == ["entity_keys", "feature_refs"]
    assert parameters(surface.FeatureStore.compute_feature_statistics) == ["view", "start", "end"]
    assert parameters(surface.ModelServer)[:2] == ["model_name", "feature_store"]
    monitor = surface.ModelMonitor
    assert parameters(monitor)[:3] == ["model_name", "baseline_start", "baseline_end"]
    assert parameters(monitor.compute_baseline) == ["prediction_logs"]
    assert parameters(monitor.detect_data_drift) == ["current", "threshold"]
    assert parameters(monitor.detect_prediction_drift)[:1] == ["current"]
    degradation = ["actuals", "predictions", "baseline_auc", "threshold_pct"]
    assert parameters(monitor.detect_performance_degradation) == degradation


def test_configurations_have_the_fields_and_defaults_of_the_reference():
    fields = dataclasses.fields(surface.TrainingConfig)
    assert [field.name for field in fields][:8] == [
        "experiment_name",
        "model_name",
        "target_column",
        "feature_columns",
        "test_size",
        "random_state",
        "cv_folds",
        "min_auc_threshold",
    ]
    assert [field.default for field in fields][4:8] == [0.2, 42, 5, 0.7]
    names = {
        "TrainingResult": "run_id model_version metrics passed_validation data_hash feature_importance",
        "FeatureDefinition": "name dtype description entity source_table transformation ttl_days",
        "ABTestConfig": "control_version treatment_version treatment_percentage",
        "PredictionRequest": "features request_id",
        "PredictionResponse": "prediction probability model_version request_id latency_ms",
        "DriftAlert": "drift_type feature_name severity current_value baseline_value drift_score detected_at "
        "recommended_action",
    }
    for name, expected in names.items():
        assert [field.name for field in dataclasses.fields(getattr(surface, name))] == expected.split()


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="ModelServant"):
        surface.ModelServant  # noqa: B018


def test_the_surface_loads_no_library_until_it_is_used():
    loaded = in_a_fresh_interpreter("from seatrial.surface import FeatureStore, ModelMonitor, ModelServer")
    assert [name for name in ("duckdb", "mlflow", "pandas", "pyarrow", "sklearn") if name in loaded] == []
