"""The reference's model monitor: what moved is found, what chance does is not, and nothing is passed in silence."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import seatrial
from seatrial.core.clock import FixedClock, NaiveTime
from seatrial.core.errors import UsageError
from seatrial.data.reading import DataWarning
from seatrial.data.sources import ColumnMissing
from seatrial.stores.prediction_log import PredictionLog
from seatrial.surface.model_monitor import BadBaseline, BadOutcomes, DriftAlert, ModelMonitor

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 3, 1, tzinfo=UTC)


def logs(count=2000, *, shift=0.0, seed=0, **columns) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    plain = {
        "feature_age": random.normal(shift, 1, count),
        "feature_plan": random.choice(["a", "b"], count),
        "prediction": random.random(count),
        "timestamp": pd.to_datetime(START) + pd.to_timedelta(np.arange(count), unit="min"),
    }
    return pd.DataFrame(plain | columns)


@pytest.fixture
def monitor():
    monitor = ModelMonitor("m", START, START + timedelta(days=30), clock=FixedClock(NOW))
    monitor.compute_baseline(logs())
    return monitor


def test_an_input_that_moved_is_found_and_no_other(monitor):
    (alert,) = monitor.detect_data_drift(logs(seed=1, shift=1.0))
    assert (alert.drift_type, alert.feature_name, alert.severity) == ("data", "feature_age", "high")
    assert alert.current_value == pytest.approx(1, abs=0.1)
    assert alert.baseline_value == pytest.approx(0, abs=0.1)
    assert alert.detected_at == NOW
    assert alert.recommended_action
    assert monitor.not_compared == {}


@pytest.mark.parametrize(("shift", "severity"), [(0.25, "low"), (0.6, "medium"), (1.0, "high")])
def test_the_severity_is_by_distance(monitor, shift, severity):
    (alert,) = monitor.detect_data_drift(logs(seed=1, shift=shift))
    assert alert.severity == severity


def test_text_that_moved_is_found(monitor):
    (alert,) = monitor.detect_data_drift(logs(seed=1, feature_plan=["b"] * 1900 + ["new"] * 100))
    assert alert.feature_name == "feature_plan"
    assert alert.drift_score == pytest.approx(0.5, abs=0.05)


def test_fifty_stable_inputs_are_left_in_peace_over_a_hundred_windows():
    random = np.random.default_rng(0)
    wide = {f"feature_{n}": random.normal(size=5000) for n in range(50)}
    monitor = ModelMonitor("m", START, START + timedelta(days=30), clock=FixedClock(NOW))
    monitor.compute_baseline(logs(5000, **wide))
    windows = [pd.DataFrame({name: random.normal(size=500) for name in wide}) for _ in range(100)]
    assert sum(len(monitor.detect_data_drift(one)) for one in windows) <= 2  # KS p < 0.05 would be about 250


def test_a_smaller_threshold_never_alerts_more(monitor):
    current = logs(400, seed=1, shift=0.28)
    found = [len(monitor.detect_data_drift(current, threshold)) for threshold in (1e-9, 0.05, 1.0)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 1)
    with pytest.raises(UsageError):
        monitor.detect_data_drift(current, 0)


@pytest.mark.parametrize("kind", ["float32", "int32", "Int64", "bool"])
def test_every_width_of_number_is_compared(kind):
    values = (np.arange(1000) % 2).astype(kind.lower() if kind == "Int64" else kind)
    series = pd.Series(values).astype(kind)
    monitor = ModelMonitor("m", START, "2024-02-01")
    monitor.compute_baseline(logs(1000, feature_x=series))
    moved = monitor.detect_data_drift(pd.DataFrame({"feature_x": series * 0 if kind != "bool" else series & False}))
    assert [one.feature_name for one in moved] == ["feature_x"]
    assert "feature_age" in monitor.not_compared


def test_the_prediction_is_compared_as_a_table_or_as_values(monitor):
    low = np.random.default_rng(5).random(500) * 0.5
    for current in (pd.DataFrame({"prediction": low}), pa.table({"prediction": low}), low, pd.Series(low), list(low)):
        alert = monitor.detect_prediction_drift(current)
        assert isinstance(alert, DriftAlert)
        assert (alert.drift_type, alert.feature_name, alert.severity) == ("prediction", "prediction", "high")
    assert monitor.detect_prediction_drift(logs(seed=3)) is None


def test_too_little_is_not_compared_and_said(monitor):
    assert monitor.detect_data_drift(logs(29, shift=9.0)) == []
    assert monitor.not_compared["feature_age"] == "not enough data: 29 of 30 values in the current rows"
    assert monitor.detect_prediction_drift(np.zeros(29)) is None
    assert list(monitor.not_compared) == ["prediction"]
    gone = logs().assign(feature_age=np.nan, feature_plan=1.0, feature_new=2.0)
    assert monitor.detect_data_drift(gone) == []
    assert set(monitor.not_compared) == {"feature_age", "feature_plan", "feature_new"}


def test_performance_is_judged_from_a_hundred_labels_on(monitor):
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 2000)
    good, bad = labels + random.normal(0, 0.5, 2000), labels + random.normal(0, 3, 2000)
    assert monitor.detect_performance_degradation(labels, good, 0.92) is None
    alert = monitor.detect_performance_degradation(pd.Series(labels), pa.array(bad), 0.92)
    assert (alert.drift_type, alert.severity, alert.baseline_value) == ("performance", "high", 0.92)
    assert alert.drift_score == pytest.approx((0.92 - alert.current_value) / 0.92)
    slightly = monitor.detect_performance_degradation(labels, bad, alert.current_value / 0.93)
    assert slightly.severity == "medium"
    assert monitor.detect_performance_degradation(labels, bad, alert.current_value / 0.93, threshold_pct=8) is None
    assert monitor.detect_performance_degradation(labels[:99], bad[:99], 0.92) is None
    assert monitor.not_compared == {"auc": "not enough data: 99 of 100 labels"}
    assert monitor.detect_performance_degradation(np.ones(200), bad[:200], 0.92) is None
    assert "auc" in monitor.not_compared
    late = np.where(np.arange(2000) < 1950, np.nan, labels)
    assert monitor.detect_performance_degradation(late, bad, 0.92) is None
    for wrong in ((labels, bad[:10], 0.9), (labels, bad, 0.0), (labels, bad, float("nan"))):
        with pytest.raises(BadOutcomes):
            monitor.detect_performance_degradation(*wrong)


def test_the_baseline_is_the_rows_of_its_time_alone():
    frame = logs(2880)  # two days
    monitor = ModelMonitor("m", date(2024, 1, 1), "2024-01-02")
    assert monitor.compute_baseline(frame)["feature_age"]["count"] == 1440
    with pytest.raises(BadBaseline, match="no row"):
        ModelMonitor("m", "2025-01-01", "2025-01-02").compute_baseline(frame)
    with pytest.raises(BadBaseline, match="before it starts"):
        ModelMonitor("m", NOW, START)
    with pytest.raises(BadBaseline, match="not computed"):
        ModelMonitor("m", START, NOW).detect_data_drift(frame)
    with pytest.raises(NaiveTime):
        ModelMonitor("m", datetime(2024, 1, 1), NOW)
    with pytest.raises(ColumnMissing, match="timestamp"):
        ModelMonitor("m", START, NOW).compute_baseline(frame.drop(columns="timestamp"))


def test_times_without_a_zone_are_read_as_utc_with_a_warning():
    frame = logs(100)
    frame["timestamp"] = frame["timestamp"].dt.tz_localize(None)
    with pytest.warns(DataWarning, match="timestamp carries no time zone"):
        assert ModelMonitor("m", START, NOW).compute_baseline(frame)["prediction"]["count"] == 100


def test_the_prediction_log_feeds_it_as_it_is(tmp_path):
    log = PredictionLog(tmp_path)
    random = np.random.default_rng(0)
    for n in range(600):
        features = {"x": random.normal(3.0 * (n >= 300)), "kind": "ab"[n % 2]}
        log.write(
            model="m", features=features, prediction=n % 2, probability=random.random(), at=START + timedelta(hours=n)
        )
    log.close()
    rows = log.prediction_logs("m")
    monitor = seatrial.ModelMonitor("m", START, START + timedelta(hours=300))
    monitor.compute_baseline(rows)
    assert [one.feature_name for one in monitor.detect_data_drift(rows.slice(300))] == ["feature_x"]
    assert monitor.detect_prediction_drift(rows.slice(300)) is None
