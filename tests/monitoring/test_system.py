from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from seatrial.monitoring.system import system
from tests.monitoring.worlds import a_sample


def with_columns(sample, **columns):
    rows = sample.rows
    for name, values in columns.items():
        rows = rows.set_column(rows.column_names.index(name), name, values)
    return type(sample)(sample.model, sample.task, rows, sample.labels)


def test_latencies_and_the_share_of_degraded_answers_are_of_the_rows_that_say():
    latencies = [*map(float, range(1, 100)), None]
    degraded = [True, None, False, False, *[None] * 96]
    found = system(
        with_columns(a_sample([0.5] * 100), latency_ms=pa.array(latencies), degraded=pa.array(degraded, pa.bool_())),
        error_rate=0.01,
    )
    assert (found.rows, found.p50_ms, found.degraded, found.error_rate) == (100, 50, pytest.approx(1 / 3), 0.01)
    assert found.p99_ms == pytest.approx(np.quantile(np.arange(1.0, 100), 0.99))
    assert found.note == ""


def test_what_the_log_does_not_hold_is_said():
    unknown = with_columns(a_sample([0.5] * 3), latency_ms=pa.nulls(3, pa.float64()), degraded=pa.nulls(3, pa.bool_()))
    found = system(unknown)
    assert (found.p50_ms, found.degraded, found.error_rate) == (None, None, None)
    assert "no latencies" in found.note
    assert "failed requests are not in the log" in found.note


def test_an_empty_window_has_no_figures():
    found = system(a_sample([]))
    assert (found.rows, found.p99_ms, found.degraded) == (0, None, None)
    assert "no predictions" in found.note
