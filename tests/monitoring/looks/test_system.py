from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from seatrial.monitoring.looks.system import system
from seatrial.monitoring.report import Resources
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
        failed=1,
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


def test_what_was_promised_stands_beside_what_was_kept():
    from seatrial.core.objective import Objective

    sample = a_sample([0.5] * 100, latency_ms=pa.array([2.0] * 90 + [80.0] * 10))
    found = system(sample, failed=25, objective=Objective(availability=0.99, latency_ms=50, share=0.95))
    assert (found.availability, found.failed, found.prompt) == (0.8, 25, 0.9)
    assert found.promised == (0.99, 0.95, 50)
    assert [words.partition("%")[0] for words in found.broken] == ["80.00", "90.00"]
    kept = system(sample, failed=0, objective=Objective(availability=0.99, latency_ms=100, share=0.95))
    assert (kept.broken, kept.prompt) == ([], 1)


def test_when_every_request_failed_none_was_available():
    found = system(a_sample([]), failed=7)
    assert (found.availability, found.failed, found.prompt) == (0, 7, None)


def test_when_nobody_asked_there_is_no_share_of_failures():
    found = system(a_sample([]), failed=0)
    assert (found.error_rate, found.availability, found.failed) == (None, None, 0)


def test_the_share_of_failures_is_one_of_requests_that_somebody_waited_for():
    count = 1_000
    asked = np.arange(count) >= 990  # ten rows of two requests; the others were scored in a batch
    names = [f"asked-{n % 2}" if online else f"batch-{n}" for n, online in enumerate(asked)]
    rows = {"latency_ms": np.where(asked, 2.0, np.nan), "request_id": names}
    sample = with_columns(a_sample([0.5] * count), **{name: pa.array(values) for name, values in rows.items()})
    found = system(sample, failed=2)
    assert (found.rows, found.error_rate, found.availability) == (count, 0.5, 0.5)


def test_what_the_server_took_is_told_as_a_share_of_a_core_and_its_memory():
    found = system(a_sample([0.5] * 3), resources=Resources(7200, 360.0, 180_000_000))
    assert found.resources.words == "5.0 % of a core, 180 MB"
    assert Resources(3600, 1.8, None).words == "0.1 % of a core"
    assert system(a_sample([0.5] * 3)).resources is None
