"""`PredictionLog.write`: one call in a handler that was there before."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime

import numpy as np
import pytest

from seatrial.core.clock import NaiveTime
from seatrial.stores.prediction_log import LogValueWrong, PredictionLog

AT = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def log(tmp_path):
    log = PredictionLog(tmp_path / "log")
    yield log
    log.close()


def test_what_was_written_is_read_whatever_numbers_are_made_of(log):
    features = {"a": np.float32(1.5), "b": True, "c": "x", "d": None, "e": float("nan"), "f": np.int64(7)}
    name = log.write(
        model="m",
        features=features,
        prediction=True,
        probability=0.75,
        request_id="r",
        at=AT,
        version="3",
        latency_ms=2,
    )
    (row,) = log.rows(model="m").to_pylist()
    assert (row["prediction_id"], row["request_id"], row["version"]) == (name, "r", "3")
    assert (row["at"], row["prediction"], row["probability"], row["latency_ms"]) == (AT, 1.0, 0.75, 2.0)
    assert [row[f"feature_{one}"] for one in features] == [1.5, 1.0, "x", None, None, 7.0]


def test_text_that_is_missing_stays_text(log):
    for value in ("x", None, "y"):
        log.write(model="m", features={"a": value}, prediction=1.0, at=AT)
    assert log.rows()["feature_a"].to_pylist() == ["x", None, "y"]
    assert len(log._schemas) == 1


def test_without_an_instant_or_an_id_there_are_both(log):
    names = [log.write(model="m", features={}, prediction=0.5) for _ in range(3)]
    rows = log.rows().to_pylist()
    assert [row["prediction_id"] for row in rows] == [row["request_id"] for row in rows] == names
    assert rows[0]["at"] == rows[0]["recorded_at"]
    assert all(math.isnan(row["latency_ms"]) for row in rows)


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": {"a": [1]}},
        {"features": {"a": AT}},
        {"prediction": "yes"},
        {"probability": "1"},
        {"prediction": None},
    ],
)
def test_a_value_that_is_none_is_refused_before_anything_is_written(log, wrong):
    with pytest.raises(LogValueWrong):
        log.write(**({"model": "m", "features": {"a": 1}, "prediction": 0.5} | wrong))
    with pytest.raises(NaiveTime):
        log.write(model="m", features={}, prediction=0.5, at=datetime(2024, 1, 1))
    assert log.rows().num_rows == 0


def test_every_thread_may_write(log):
    def some(number: int) -> None:
        for n in range(200):
            log.write(model="m", features={f"a{number % 2}": n}, prediction=float(n))

    threads = [threading.Thread(target=some, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert log.rows().num_rows == 800


def test_prediction_logs_have_inputs_prediction_and_timestamp(log):
    for n in range(3):
        log.write(model="m", features={"a": n}, prediction=n > 1, probability=n / 4, at=AT.replace(day=3 - n))
    log.write(model="r", features={"b": 1}, prediction=17.5, at=AT)
    found = log.prediction_logs("m")
    assert found.column_names == ["feature_a", "prediction", "timestamp"]
    assert found["prediction"].to_pylist() == [0.5, 0.25, 0.0]
    assert found["timestamp"].to_pylist() == sorted(found["timestamp"].to_pylist())
    assert log.prediction_logs("r")["prediction"].to_pylist() == [17.5]
