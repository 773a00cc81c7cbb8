from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.core.windows import Window
from seatrial.monitoring.rows.labels import parse
from seatrial.monitoring.rows.sample import from_log
from seatrial.stores.labels import LabelStore
from seatrial.stores.prediction_log import PredictionLog
from seatrial.testing.prediction_log_suite import NOON_US, a_row, a_schema
from tests.monitoring.worlds import DAY_US, a_sample, week


@pytest.fixture
def log(tmp_path):
    return PredictionLog(tmp_path / "log")


def sample_of(log, labels=None, **given):
    shape = {"model": "late", "task": "binary", "key": ["flight", "carrier"], "as_of_us": NOON_US + DAY_US}
    return from_log(log.rows(), labels, **shape | given)


def test_a_logged_prediction_becomes_a_row_with_its_inputs(log):
    schema = a_schema()
    log.append(schema, a_row(schema, prediction_id="p", degraded=("online_store",), inputs=(None, "AA")))
    sample = sample_of(log)
    (row,) = sample.rows.to_pylist()
    assert (row["prediction_id"], row["score"], row["latency_ms"], row["degraded"]) == ("p", 0.75, 0.2, True)
    assert (row["feature_delay"], row["feature_carrier"], row["label"]) == (None, "AA", None)
    assert sample.features == ["delay", "carrier"]
    assert np.isnan(sample.label_values()).all()


def test_the_score_of_a_regression_is_the_prediction(log):
    schema = a_schema()
    log.append(schema, a_row(schema, prediction=7.5, probability=None))
    assert sample_of(log, task="regression").scores().tolist() == [7.5]
    assert np.isnan(sample_of(log).scores()).all()


def test_rows_are_in_the_order_of_their_instants_with_their_own_labels(log, tmp_path):
    schema = a_schema()
    ids = ["p-c", "p-a", "p-b"]
    for place, name in enumerate(ids):
        log.append(schema, a_row(schema, prediction_id=name, at_us=NOON_US + (place + 1) % 3))
    store = LabelStore(tmp_path / "labels")
    told = [{"prediction_id": name, "late": int(name == "p-b")} for name in ids]
    store.append("late", parse(told, model="late", task="binary", target="late", now_us=NOON_US + 9, actor="t"))
    rows = sample_of(log, store.read("late")).rows
    assert rows["prediction_id"].to_pylist() == ["p-b", "p-c", "p-a"]
    assert rows["label"].to_pylist() == [1.0, 0.0, 0.0]


def test_an_empty_log_is_an_empty_sample(log):
    sample = sample_of(log)
    assert sample.rows.num_rows == 0
    assert sample.within(Window(0, 10)).labels.predictions == 0
    assert sample.features == []


def test_a_window_holds_its_start_and_not_its_end():
    sample = a_sample([0.1, 0.2, 0.3], at_us=[10, 20, 30])
    assert sample.within(Window(10, 30)).scores().tolist() == [0.1, 0.2]


def test_labels_known_after_the_window_count_as_late():
    window = week()
    sample = a_sample(
        [0.1, 0.2, 0.3], [1, 0, np.nan], at_us=[window.start_us] * 3, known_us=[window.end_us, window.end_us - 1, 0]
    )
    counts = sample.within(window).labels
    assert (counts.predictions, counts.matched, counts.late) == (3, 2, 1)


def test_a_label_outside_of_the_window_of_its_prediction_counts_in_it(log, tmp_path):
    """It is the prediction's instant that decides where a label counts, not the label's."""
    schema = a_schema()
    log.append(schema, a_row(schema, prediction_id="p", at_us=NOON_US))
    store = LabelStore(tmp_path / "labels")
    late = NOON_US + 6 * 60 * 60_000_000
    told = [{"prediction_id": "p", "late": 1}]
    store.append("late", parse(told, model="late", task="binary", target="late", now_us=late, actor="t"))
    window = Window(NOON_US, NOON_US + 60_000_000)
    assert sample_of(log, store.read("late"), window=window).labels.late == 1
    assert sample_of(log, store.read("late"), window=window, as_of_us=late - 1).labels.matched == 0


def test_duplicates_and_contradictions_are_those_of_the_window(log, tmp_path):
    schema = a_schema()
    log.append(schema, a_row(schema, prediction_id="p", at_us=NOON_US))
    log.append(schema, a_row(schema, prediction_id="q", at_us=NOON_US + DAY_US))
    told = [{"prediction_id": name, "late": late} for name, late in [("p", 1), ("p", 1), ("p", 0), ("q", 1), ("q", 1)]]
    store = LabelStore(tmp_path / "labels")
    shape = {"model": "late", "task": "binary", "target": "late", "actor": "t"}
    store.append("late", parse(told, now_us=NOON_US + DAY_US, **shape))
    whole = sample_of(log, store.read("late"))
    assert (whole.labels.duplicate, whole.labels.contradicting) == (1, 2)
    second = whole.within(Window(NOON_US + DAY_US, NOON_US + 2 * DAY_US))
    assert (second.labels.duplicate, second.labels.contradicting) == (1, 0)


def test_a_label_without_a_prediction_counts_in_the_window_that_it_was_told_for(log, tmp_path):
    schema = a_schema()
    log.append(schema, a_row(schema, prediction_id="p", at_us=NOON_US))
    store = LabelStore(tmp_path / "labels")
    shape = {"model": "late", "task": "binary", "target": "late", "key": ["flight", "carrier"], "actor": "t"}
    at = ["2013-03-01T00:00:00Z", "2013-04-01T12:00:01Z", None]
    told = [{"flight": 9, "carrier": "ZZ", "late": 1, "at": one} for one in at]
    store.append("late", parse(told, now_us=NOON_US + DAY_US, **shape))
    whole = sample_of(log, store.read("late"))
    assert whole.labels.unmatched == 3
    assert whole.within(Window(NOON_US, NOON_US + DAY_US)).labels.unmatched == 1
    assert whole.within(Window(NOON_US + DAY_US, NOON_US + 2 * DAY_US)).labels.unmatched == 1


@given(st.lists(st.integers(0, 20), max_size=12), st.integers(0, 21), st.integers(0, 21))
def test_a_window_of_a_window_holds_what_a_look_at_each_row_finds(instants, start, end):
    at = sorted(instants)
    sample = a_sample(np.arange(len(at)), np.ones(len(at)), at_us=at, known_us=np.array(at, dtype=np.int64) + 3)
    inside = sample.within(Window(0, 15)).within(Window(start, end))
    assert inside.at_us().tolist() == [one for one in at if start <= one < end and one < 15]
    assert inside.labels.matched == inside.rows.num_rows
    assert inside.labels.late == sum(one + 3 >= end for one in inside.at_us().tolist())
