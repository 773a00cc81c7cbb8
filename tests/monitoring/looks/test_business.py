"""Numbers of the business: whose they are, what counts, and what is said when they cannot be read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from seatrial.data.sources import FrameSource
from seatrial.deployment.definition import Metric
from seatrial.features.definitions import BadDefinition
from seatrial.monitoring.definition import Monitor, is_metric
from seatrial.monitoring.looks.business import business
from tests.monitoring.worlds import DAY_US, START_US, instants

END_US = START_US + 30 * DAY_US


@dataclass(frozen=True)
class Rows:
    """The times that a source declares."""

    known_at: str | None = None
    event_timestamp: str | None = None


@dataclass(frozen=True)
class Kept:
    """What `deployment.Metric` says of a number."""

    name: str = "revenue"
    source: Rows = Rows()
    better: str = "higher"
    without_row: float | None = None


def asked(count=600, rows_each=1):
    place = np.arange(count * rows_each)
    return pa.table(
        {
            "prediction_id": [f"p-{n}" for n in place],
            "request_id": [f"r-{n // rows_each}" for n in place],
            "key": [f"k-{n}" for n in place],
            "at": instants(START_US + place * (7 * DAY_US // place.size)),
        }
    )


def told(count=600, **columns):
    values = np.arange(count, dtype=float)
    return pa.table({"request_id": [f"r-{n}" for n in range(count)], "revenue": values} | columns)


def of(rows, predictions=None, metric=None, key=("id",)):
    return business(metric or Kept(), rows, asked() if predictions is None else predictions, list(key), as_of_us=END_US)


def test_the_mean_is_that_of_the_requests_of_the_window():
    found = of(told())
    assert (found.rows, found.without) == (600, 0)
    assert found.mean == pytest.approx(299.5)
    assert found.total == pytest.approx(600 * 299.5)
    low, high = found.interval
    assert low < found.mean < high


def test_a_request_of_several_rows_counts_once():
    assert of(told(200), asked(200, rows_each=3)).rows == 200


def test_a_request_without_a_row_is_left_out_or_counts_as_was_said():
    assert (of(told(300)).rows, of(told(300)).without) == (300, 300)
    found = of(told(300), metric=Kept(without_row=0.0))
    assert found.rows == 600
    assert found.mean == pytest.approx(149.5 / 2)


def test_rows_may_be_named_by_the_models_key():
    rows = pa.table({"id": [f"k-{n}" for n in range(600)], "revenue": [2.0] * 600})
    assert of(rows).mean == 2


def test_what_was_not_known_yet_does_not_count():
    known = instants([END_US + 1 if n % 2 else END_US for n in range(600)])
    metric = Kept(source=Rows(known_at="known"))
    assert of(told(known=known), metric=metric).rows == 300


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        (pa.table({"request_id": ["r-1"], "other": [1.0]}), "has no column 'revenue'"),
        (pa.table({"name": ["r-1"], "revenue": [1.0]}), "do not say whose they are"),
        (pa.table({"request_id": ["r-1"], "revenue": ["a lot"]}), "numbers are expected"),
        (pa.table({"request_id": ["r-1", "r-1"], "revenue": [1.0, 2.0]}), "another row named: add them up"),
        (pa.table({"request_id": [["r-1"]], "revenue": [1.0]}), "a text or a number is expected"),
        (pa.table({"request_id": ["x"], "revenue": [1.0]}), "no request of the window has a row"),
        (told(0), "no request of the window has a row"),
        (pa.table({"request_id": ["r-1"], "revenue": [None]}), "no request of the window has a row"),
        (told(30), "30 of 50 requests"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_why(rows, note):
    assert note in of(rows).note


def test_numbers_without_measure_are_said_and_whole_ones_beyond_a_float_are_taken():
    place = told().column_names.index("revenue")
    found = of(told().set_column(place, "revenue", pa.array([1e308] * 600)))
    assert (found.mean, found.interval) == (None, None)
    assert "nothing is added up" in found.note
    whole = told().set_column(place, "revenue", pa.array([2**53 + 1] * 600))
    assert of(whole).mean == pytest.approx(2.0**53)


def test_an_empty_window_is_no_number():
    found = of(told(), asked(1).slice(0, 0))
    assert (found.rows, found.mean) == (0, None)
    assert "no predictions in this window" in found.note


def test_a_monitor_takes_the_metrics_of_a_deployment():
    metric = Metric("revenue", FrameSource({"request_id": [], "revenue": []}, name="orders"))
    assert is_metric(metric)
    assert Monitor("late", business=[metric]).business == (metric,)
    for wrong in (["revenue"], "revenue", [metric, metric]):
        with pytest.raises(BadDefinition):
            Monitor("late", business=wrong)
