import numpy as np
import pyarrow as pa
import pytest

from seatrial.monitoring.quality import quality
from seatrial.monitoring.reference import Reference
from seatrial.monitoring.sample import Sample
from tests.monitoring.worlds import a_sample

RANDOM = np.random.default_rng(9)


def inputs(count=1000, **changes):
    columns = {
        "feature_size": pa.array(RANDOM.normal(size=count)),
        "feature_kind": pa.array(["a", "b", "c"] * count, pa.string())[:count],
    }
    return columns | changes


def sample(count=1000, *, scores=None, **changes) -> Sample:
    return a_sample(RANDOM.random(count) if scores is None else scores, **inputs(count, **changes))


REFERENCE = Reference.from_table(sample(5000).rows.drop_columns(["at"]))


def failed(rows, reference=REFERENCE):
    return [(check.name, check.column) for check in quality(rows, reference) if not check.passed]


def with_missing(share, count=1000):
    return pa.array(np.where(np.arange(count) < share * count, np.nan, RANDOM.normal(size=count)), from_pandas=True)


def test_rows_like_the_reference_pass_every_rule():
    checks = quality(sample(), REFERENCE)
    assert all(check.passed for check in checks)
    assert {check.name for check in checks} == {
        "columns",
        "each prediction once",
        "scores there",
        "scores are probabilities",
        "values there",
        "known categories",
    }


def test_no_row_passes_no_rule():
    assert quality(sample(0), REFERENCE) == []


def test_one_row_is_looked_at():
    assert failed(sample(1)) == []


def test_a_column_that_is_gone_is_named():
    rows = sample()
    gone = Sample("late", "binary", rows.rows.drop_columns(["feature_kind"]))
    assert failed(gone) == [("columns", "")]
    assert quality(gone, REFERENCE)[0].found == "kind missing"


def test_another_type_is_a_fault_and_is_said_in_words():
    text, numbers = pa.array(["1.0"] * 1000), pa.array([1.0] * 1000)
    assert failed(sample(feature_size=text)) == [("type", "size")]
    assert failed(sample(feature_kind=numbers)) == [("type", "kind")]
    assert failed(sample(feature_size=pa.array([1] * 1000))) == []
    assert failed(sample(feature_size=pa.array([True] * 1000))) == []


def test_a_dictionary_of_strings_is_text():
    assert failed(sample(feature_kind=inputs()["feature_kind"].dictionary_encode())) == []


@pytest.mark.parametrize("share", [0.0, 0.08, 0.2, 1.0])
def test_a_dark_column_fails_and_a_few_more_missing_values_do_not(share):
    found = failed(sample(feature_size=with_missing(share)))
    assert found == ([("values there", "size")] if share > 0.1 else [])


@pytest.mark.parametrize("nothing", [pa.nulls(1000), pa.nulls(1000, pa.string()), pa.nulls(1000, pa.float64())])
def test_an_all_missing_column_is_dark_and_not_of_another_type(nothing):
    assert failed(sample(feature_size=nothing)) == [("values there", "size")]
    assert failed(sample(feature_kind=nothing)) == [("values there", "kind")]


def test_what_was_missing_in_the_reference_may_be_missing():
    reference = Reference.from_table(pa.table(inputs(5000, feature_size=pa.nulls(5000, pa.float64()))))
    assert failed(sample(feature_size=pa.nulls(1000)), reference) == []


@pytest.mark.parametrize(("share", "fails"), [(0.05, False), (0.3, True)])
def test_categories_never_seen_fail_when_they_are_many(share, fails):
    kinds = ["new" if place < share * 1000 else "a" for place in range(1000)]
    assert failed(sample(feature_kind=pa.array(kinds))) == ([("known categories", "kind")] if fails else [])


def test_a_reference_that_keeps_only_some_values_knows_of_no_unseen_one():
    many = pa.array([f"v{place}" for place in range(5000)])
    reference = Reference.from_table(pa.table({"feature_kind": many}))
    assert failed(sample(feature_kind=pa.array(["new"] * 1000)), reference) == []


def test_missing_and_impossible_scores_are_counted():
    scores = np.array([0.5] * 990 + [np.nan] * 4 + [1.2, -0.1, np.inf, -np.inf, 0.0, 1.0])
    checks = {check.name: check for check in quality(sample(scores=scores), REFERENCE)}
    assert (checks["scores there"].passed, checks["scores there"].found) == (False, "4 of 1,000 without")
    assert (checks["scores are probabilities"].passed, checks["scores are probabilities"].found) == (False, "4 outside")


def test_a_regression_may_predict_any_number():
    rows = sample(scores=RANDOM.normal(100, 50, 1000))
    assert failed(Sample("late", "regression", rows.rows)) == []


def test_a_prediction_that_is_there_twice_is_a_fault():
    rows = sample().rows
    ids = pa.array(["same", "same", *rows["prediction_id"].to_pylist()[2:]])
    twice = rows.set_column(rows.column_names.index("prediction_id"), "prediction_id", ids)
    assert failed(Sample("late", "binary", twice)) == [("each prediction once", "")]


def test_a_tenth_of_the_usual_rows_is_too_few_and_half_is_not():
    day = 86_400_000_000
    usual = sample(7000)
    reference = Reference.from_table(usual.rows)
    assert failed(usual, reference) == []
    for count, names in ((3500, []), (500, [("volume", "")])):
        at_us = np.linspace(0, 7 * day, count).astype(np.int64)
        rows = a_sample(RANDOM.random(count), at_us=at_us, **inputs(count))
        assert failed(rows, reference) == names
    short = a_sample(RANDOM.random(300), at_us=np.arange(300), **inputs(300))
    assert "volume" not in {check.name for check in quality(short, reference)}
