import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from seatrial.monitoring.looks.quality import quality
from seatrial.monitoring.rows.reference import Reference
from seatrial.monitoring.rows.sample import Sample
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
        "range",
        "each row once",
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


# What is noticed, and is no fault


def noticed(rows, reference=REFERENCE, **given):
    checks = quality(rows, reference, **given)
    assert not [check for check in checks if check.noticed and not check.passed]
    return {(check.name, check.column): check for check in checks if check.noticed}


def test_rows_like_the_reference_are_not_worth_a_word():
    assert noticed(sample()) == {}


def test_a_few_more_missing_values_are_noticed_and_the_same_share_as_before_is_not():
    assert list(noticed(sample(feature_size=with_missing(0.05)))) == [("values there", "size")]
    reference = Reference.from_table(pa.table(inputs(5000, feature_size=with_missing(0.05, 5000))))
    assert noticed(sample(feature_size=with_missing(0.05)), reference) == {}


@pytest.mark.parametrize(("share", "said"), [(0.005, False), (0.05, True)])
def test_values_outside_the_range_are_noticed_with_the_range(share, said):
    values = np.where(np.arange(1000) < share * 1000, 50.0, 0.5)
    found = noticed(sample(feature_size=pa.array(values)))
    assert list(found) == ([("range", "size")] if said else [])
    if said:
        assert found["range", "size"].found == "5.0% outside, from 0.5 to 50"


def test_columns_that_go_missing_together_are_named_and_those_that_do_by_chance_are_not():
    def three(together):
        dark = RANDOM.random(1000) < 0.04
        masks = [dark if together else RANDOM.random(1000) < 0.04 for _ in range(3)]
        return sample(
            **{f"feature_w{n}": pa.array(RANDOM.normal(size=1000), mask=mask) for n, mask in enumerate(masks)}
        )

    reference = Reference.from_table(three(False).rows.drop_columns(["at"]))
    found = noticed(three(True), reference)
    assert found["missing together", ""].found.startswith("w0, w1, w2: ")
    assert "by chance" in found["missing together", ""].expected
    assert ("missing together", "") not in noticed(three(False), reference)


def test_columns_that_were_missing_together_before_are_no_news():
    mask = np.arange(1000) < 40
    pair = {f"feature_w{n}": pa.array(np.zeros(1000), mask=mask) for n in range(2)}
    reference = dataclasses.replace(
        Reference.from_table(sample(**pair).rows.drop_columns(["at"])), together={("w0", "w1"): 0.04}
    )
    checks = {check.name: check for check in quality(sample(**pair), reference)}
    assert (checks["missing together"].noticed, checks["missing together"].expected) == (False, "4.0% before")


def test_rows_that_come_twice_are_noticed():
    once = sample().rows
    both = pa.concat_tables([once, once.slice(0, 100)]).sort_by("at")
    ids = pa.array([f"p{n}" for n in range(1100)])
    both = both.set_column(both.column_names.index("prediction_id"), "prediction_id", ids)
    found = noticed(Sample("late", "binary", both))
    assert found["each row once", ""].found == "100 of 1,100 are one before, in time and inputs"
    assert noticed(Sample("late", "binary", once)) == {}


def test_one_key_asked_twice_for_one_instant_is_noticed():
    rows = sample().rows
    again = rows.append_column("key", pa.array(np.arange(1000) // 2)).set_column(
        rows.column_names.index("at"), "at", rows["at"].take(np.arange(1000) // 2 * 2)
    )
    assert (
        noticed(Sample("late", "binary", again))["each key once", ""].found == "500 of 1,000 again for the same instant"
    )
    other = rows.append_column("key", pa.array(np.arange(1000) // 2))
    assert ("each key once", "") not in noticed(Sample("late", "binary", other))


def test_a_new_column_is_noticed_and_no_fault():
    found = noticed(sample(feature_more=pa.array([1.0] * 1000)))
    assert found["columns", ""].found == "2 columns; new: more"


@pytest.mark.parametrize(("rows", "said"), [(7000, False), (3000, True), (20_000, True)])
def test_half_or_twice_the_usual_rows_a_day_are_noticed(rows, said):
    reference = Reference.from_table(sample(7000).rows)
    at_us = np.linspace(0, 7 * 86_400_000_000, rows).astype(np.int64)
    found = noticed(a_sample(RANDOM.random(rows), at_us=at_us, **inputs(rows)), reference)
    assert (("volume", "") in found) == said


def test_a_log_that_has_fallen_silent_is_noticed():
    rows = sample()
    hour = 3_600_000_000
    last = int(rows.at_us()[-1])
    assert ("newest row", "") not in noticed(rows, until_us=last + hour // 2)
    found = noticed(rows, until_us=last + 24 * hour)
    assert found["newest row", ""].found == "24 hours old"
    assert ("newest row", "") not in {(one.name, one.column) for one in quality(rows, REFERENCE)}


def test_features_older_than_in_the_reference_are_noticed():
    ages = {"view_carrier_age_s": pa.array(RANDOM.uniform(0, 7200, 1000))}
    reference = dataclasses.replace(REFERENCE, usual={"view_carrier_age_s": 7000.0})
    assert noticed(sample(**ages), reference) == {}
    stale = {"view_carrier_age_s": pa.array(RANDOM.uniform(86_400, 90_000, 1000))}
    assert list(noticed(sample(**stale), reference)) == [("age of features", "carrier")]
    told = {one.name: one for one in quality(sample(**stale), REFERENCE)}["age of features"]
    assert (told.noticed, told.found.startswith("half up to 24.")) == (False, True)
    nothing = {"view_carrier_age_s": pa.nulls(1000, pa.float64())}
    assert noticed(sample(**nothing))["age of features", "carrier"].found == "none of the rows has any"


def test_labels_that_come_later_than_they_used_to_are_noticed():
    def labelled(days):
        return a_sample(
            RANDOM.random(1000),
            np.ones(1000),
            known_us=sample().at_us() + days * 86_400_000_000,
            **inputs(1000),
        )

    reference = dataclasses.replace(REFERENCE, usual={"label_delay_us": 86_400_000_000})
    assert noticed(labelled(1), reference) == {}
    found = noticed(labelled(5), reference)["label delay", ""]
    assert found.found == "half of 1,000 labels after 5 days, 95 of 100 after 5 days"
    assert found.expected == "half after 24 hours, as in the reference"
    assert noticed(labelled(5)) == {}
