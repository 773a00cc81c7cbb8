"""Which inputs moved the predictions: against models of which it is known, with the model and without."""

from __future__ import annotations

from itertools import permutations

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.core.errors import Failed
from seatrial.monitoring.looks.attribution import _weighted, attribution, put_back, quantiles
from seatrial.monitoring.looks.drift import drift
from seatrial.monitoring.monitor import kept, make_report
from seatrial.monitoring.rows.reference import Reference
from tests.monitoring.worlds import a_sample, week

RANDOM = np.random.default_rng(31)
KIND = {"a": 0.0, "b": 0.2}


def inputs(count=3000, *, x=0.0, y=0.0, b=0.5, mixed=0.0):
    one = RANDOM.normal(size=count)
    two = mixed * one + np.sqrt(1 - mixed**2) * RANDOM.normal(size=count)
    return {"x": one + x, "y": two + y, "kind": np.where(RANDOM.random(count) < b, "b", "a").astype(object)}


def linear(rows):
    kind = np.array([KIND.get(value, 0.0) for value in rows["kind"]])
    return 0.3 + 0.1 * np.nan_to_num(rows["x"]) + 0.05 * np.nan_to_num(rows["y"]) + kind


def sample_of(rows, model=linear):
    columns = {f"feature_{name}": pa.array(values.tolist(), from_pandas=True) for name, values in rows.items()}
    return a_sample(model(rows), task="regression", **columns)


def told(before, now, score=linear, model=linear):
    reference = Reference.from_table(sample_of(before, model).rows.drop_columns(["at"]))
    window = sample_of(now, model)
    found = attribution(window, drift(window, reference), reference, score)
    return found, {part.name: part.moved for part in found.parts} if found else {}


def test_of_a_linear_model_each_input_moved_its_slope_times_its_shift():
    found, parts = told(inputs(), inputs(x=0.8, y=-0.6, b=0.9))
    assert parts["x"] == pytest.approx(0.08, abs=0.01)
    assert parts["y"] == pytest.approx(-0.03, abs=0.01)
    assert parts["kind"] == pytest.approx(0.2 * 0.4, abs=0.012)
    assert found.moved == pytest.approx(0.13, abs=0.02)
    assert found.rest == pytest.approx(found.moved - sum(parts.values()))
    assert abs(found.rest) < 0.01
    assert (found.method, found.rows) == ("rescoring", 1000)


def test_an_input_that_the_model_does_not_read_moved_nothing_though_it_goes_with_one_that_it_does():
    def of_x(rows):
        return 0.1 * rows["x"]

    before, now = inputs(mixed=0.9), inputs(mixed=0.9, x=0.8, y=0.8)
    _, with_model = told(before, now, of_x, of_x)
    assert with_model["y"] == pytest.approx(0.0, abs=1e-12)
    assert with_model["x"] == pytest.approx(0.08, abs=0.01)
    found, without = told(before, now, None, of_x)
    assert without["y"] > 0.04  # what the way without a model cannot tell, and says
    assert "go together" in found.note


def test_what_inputs_do_together_is_shared_and_adds_up():
    def product(rows):
        return rows["x"] * rows["y"]

    found, parts = told(inputs(), inputs(x=1.0, y=1.0), product, product)
    assert parts["x"] == pytest.approx(0.5, abs=0.15)
    assert parts["y"] == pytest.approx(0.5, abs=0.15)
    assert sum(parts.values()) + found.rest == pytest.approx(found.moved)


def test_shares_are_the_mean_over_every_order_in_which_inputs_are_put_back():
    before, now = inputs(), inputs(x=0.7, y=0.7, b=0.9)

    def model(rows):
        return np.tanh(linear(rows)) * rows["x"]

    reference = Reference.from_table(sample_of(before, model).rows.drop_columns(["at"]))
    window = sample_of(now, model)
    moved = drift(window, reference)
    found = attribution(window, moved, reference, model)
    random = np.random.default_rng(7)
    rows = {name: values[::3] for name, values in now.items()}
    names = [one.name for one in moved.columns if one.drifted]
    back = {name: put_back(rows[name], reference.columns[name], random) for name in names}
    expected = dict.fromkeys(names, 0.0)
    for order in permutations(names):
        current = dict(rows)
        for name in order:
            was = model(current).mean()
            current[name] = back[name]
            expected[name] += (was - model(current).mean()) / 6
    assert {part.name: part.moved for part in found.parts} == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 400), st.floats(0, 0.5), st.floats(0, 0.5), st.integers(0, 2**32))
def test_put_back_numbers_have_the_spread_and_the_missing_share_of_the_reference(count, dark, dark_before, seed):
    random = np.random.default_rng(seed)
    before = np.where(random.random(5000) < dark_before, np.nan, random.normal(3, 2, 5000))
    column = Reference.from_table(pa.table({"feature_x": pa.array(before, from_pandas=True)})).columns["x"]
    values = np.where(random.random(count) < dark, np.nan, random.random(count))
    found = put_back(values, column, random)
    assert np.isnan(found).sum() == round(column.missing * count)
    both = ~np.isnan(values) & ~np.isnan(found)
    order = np.argsort(values[both])
    assert (np.diff(found[both][order]) >= 0).all()  # ranks stay
    assert ((found[~np.isnan(found)] >= column.low) & (found[~np.isnan(found)] <= np.nextafter(column.high, 9e9))).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", "new", None]), min_size=1, max_size=80), st.integers(0, 2**32))
def test_put_back_categories_have_the_shares_of_the_reference_with_few_rows_changed(values, seed):
    words = ["a"] * 60 + ["b"] * 30 + [None] * 10
    column = Reference.from_table(pa.table({"feature_x": pa.array(words)})).columns["x"]
    before = np.array(values, dtype=object)
    found = put_back(before, column, np.random.default_rng(seed))
    for value, share in (("a", 0.6), ("b", 0.3), (None, 0.1)):
        have = sum(one is value or one == value for one in found)
        assert abs(have - share * before.size) < 1
    assert not {"c", "new"} & set(found.tolist())


def test_numbers_that_are_whole_stay_whole():
    column = Reference.from_table(pa.table({"feature_x": RANDOM.poisson(3, 2000)})).columns["x"]
    found = put_back(RANDOM.poisson(9, 300).astype(float), column, RANDOM)
    assert (found == np.round(found)).all()
    assert found.mean() == pytest.approx(3, abs=0.4)


def test_the_quantiles_of_a_reference_are_those_of_its_values():
    values = np.where(RANDOM.random(20_000) < 0.4, 0.0, RANDOM.exponential(size=20_000))
    column = Reference.from_table(pa.table({"feature_x": values})).columns["x"]
    shares = np.linspace(0.01, 0.99, 50)
    np.testing.assert_allclose(quantiles(column, shares), np.quantile(values, shares), atol=0.02)


def test_without_a_model_one_input_that_moved_is_what_weights_would_say():
    found, parts = told(inputs(), inputs(x=0.5), None)
    assert found.method == "association"
    assert parts["x"] == pytest.approx(0.05, abs=0.012)
    assert found.rest is None
    assert "drift times association" in found.words


def test_weights_cannot_bring_back_what_the_window_does_not_have():
    column = Reference.from_table(pa.table({"feature_x": ["a"] * 50 + ["b"] * 50})).columns["x"]
    assert _weighted(np.array(["a"] * 30, dtype=object), RANDOM.random(30), column) is None
    found, parts = told(inputs(), inputs(x=9.0), None)
    assert (parts, "x" in found.note) == ({}, True)


def test_a_model_that_cannot_score_the_rows_is_said_and_the_other_way_taken():
    def failing(_rows):
        raise Failed("the model is gone.", state="", next="")

    def other(rows):
        return rows["never logged"]

    for score, words in ((failing, "the model is gone"), (other, "'never logged', which was not logged")):
        found, parts = told(inputs(), inputs(x=0.5), score)
        assert (found.method, "x" in parts) == ("association", True)
        assert words in found.note


def test_nothing_is_told_where_nothing_moved_and_little_where_there_is_little():
    assert told(inputs(), inputs())[0] is None
    assert attribution(sample_of(inputs(100)), drift(sample_of(inputs(100)), Reference("", 0, {})), None) is None


def test_a_report_kept_before_has_no_attribution():
    reference = Reference.from_table(sample_of(inputs()).rows)
    report = make_report(sample_of(inputs(x=0.8)), window=week(), as_of_us=week().end_us, reference=reference)
    body = msgspec.to_builtins(report)
    assert kept(body).attribution == report.attribution is not None
    del body["attribution"]
    assert kept(body).attribution is None


def test_no_more_than_six_inputs_are_told_one_by_one():
    def wide(shift):
        return {f"c{n}": RANDOM.normal(shift, size=2000) for n in range(9)}

    def total(rows):
        return sum(rows[f"c{n}"] for n in range(9)) / 90

    found, parts = told(wide(0.0), wide(1.0), total, total)
    assert len(parts) == 7
    assert parts[""] == pytest.approx(3 / 90, abs=0.01)
    assert "the others that moved +0.03" in found.words
