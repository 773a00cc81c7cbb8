import numpy as np
import pyarrow as pa
import pytest

from seatrial.core.clock import to_us
from seatrial.core.signature import InputNotExact, encode
from seatrial.features.definitions import Entity, agg, feature_view
from seatrial.features.request_time import on_request
from seatrial.training import rows as training
from seatrial.training.rows import input_names, refuse_nulls, refuse_target_rate, training_rows
from tests.training.factories import HOUR, START, TIME, labels_source, model, put, table


def used(declared, given, cutoff_us=None):
    return training_rows(declared, given, cutoff_us=cutoff_us)


def test_inputs_are_in_the_order_in_which_the_model_lists_its_features():
    @feature_view(entity=Entity("carrier"), source=labels_source())
    class delays:
        mean_24h = agg.mean("delay", window="24h")
        last = agg.last("delay")

    @on_request
    def twice(distance):
        return 2 * distance

    declared = model(features=["request:stops", delays, twice, "request:distance"])
    assert input_names(declared) == ("stops", "delays__mean_24h", "delays__last", "twice", "distance")


def test_rows_without_a_label_are_left_out_and_counted():
    given = table(100)
    labels = given["late"].to_pylist()
    labels[3] = labels[50] = None
    kept = used(model(), put(given, "late", labels, pa.bool_()))
    assert kept.counts == {"given": 100, "unlabelled": 2, "label_not_known": 0, "used": 98}
    assert kept.table.num_rows == kept.labels.size == 98
    assert "F00003" not in kept.table["flight"].to_pylist()


def test_a_nan_label_is_no_label():
    given = put(table(40), "late", [float("nan"), *[0.0, 1.0] * 19, 1.0])
    assert used(model(), given).counts["unlabelled"] == 1


def test_only_labels_known_by_the_cut_off_count_the_cut_off_included():
    given = table(100, lag=3 * HOUR)
    kept = used(model(), given, to_us(START + 50 * HOUR))
    assert kept.size == 48  # predictions of hours 0..47 were known by hour 50
    assert kept.counts["label_not_known"] == 52
    assert kept.known_us.max() == to_us(START + 50 * HOUR)


def test_a_label_that_is_never_known_does_not_count():
    given = table(100)
    known = given["label_known_at"].to_pylist()
    known[7] = None
    kept = used(model(), put(given, "label_known_at", known, TIME))
    assert kept.counts["label_not_known"] == 1


def test_without_a_known_time_a_label_counts_as_known_at_once():
    kept = used(model(), table(100).drop_columns(["label_known_at"]))
    assert (kept.known_us == kept.at_us).all()


def test_the_order_of_the_given_rows_does_not_matter_when_the_key_names_them():
    given = table(120)
    given = put(given, "at", [START + (hour // 4) * HOUR for hour in range(120)], TIME)  # ties in time
    shuffled = given.take(pa.array(np.random.default_rng(1).permutation(120)))
    assert used(model(), shuffled).table.equals(used(model(), given).table)


def test_a_cut_off_for_labels_without_times_is_a_usage_error():
    with pytest.raises(training.CutoffWithoutTimes) as caught:
        used(model(timed=False), table(timed=False), 0)
    assert caught.value.exit_code == 2


def test_a_label_known_before_its_prediction_is_refused_with_its_row():
    given = table(40)
    known = given["label_known_at"].to_pylist()
    known[17] = START
    with pytest.raises(training.LabelBeforePrediction, match=r"row 17 .* 2013-01-01T00:00:00Z.*T17:00:00Z"):
        used(model(), put(given, "label_known_at", known, TIME))


@pytest.mark.parametrize("count", [0, 3, 19])
def test_too_few_rows_are_refused_with_the_counts(count):
    with pytest.raises(training.TooFewRows, match=f"{count} labelled rows"):
        used(model(), table(40).slice(0, count))


def test_a_target_that_is_all_null_is_refused():
    with pytest.raises(training.TooFewRows, match="40 have no label"):
        used(model(), put(table(40), "late", [None] * 40, pa.bool_()))


def test_one_class_is_refused():
    with pytest.raises(training.OneClass, match="is 1 in all 40 rows"):
        used(model(), put(table(40), "late", [True] * 40))
    with pytest.raises(training.OneClass, match=r"is 2.5 in all 40 rows"):
        used(model(task="regression"), put(table(40), "late", [2.5] * 40))


@pytest.mark.parametrize(
    ("task", "values", "words"),
    [
        ("binary", ["yes", "no"] * 20, "is string"),
        ("binary", [0, 1, 2, 1] * 10, "is 2 in row 2"),
        ("binary", [0.0, 0.5] * 20, "is 0.5 in row 1"),
        ("regression", [1.0, float("inf")] * 20, "is inf in row 1"),
    ],
)
def test_a_target_that_the_task_cannot_be_about_is_refused(task, values, words):
    with pytest.raises(training.BadTarget, match=words):
        used(model(task=task), put(table(40), "late", values))


def test_zero_and_one_in_any_number_type_are_a_binary_target():
    given = table(40)
    expected = used(model(), given).labels
    for kind in (pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(5, 1)):
        target = given["late"].cast(pa.int8()).cast(kind)
        assert (used(model(), given.set_column(4, "late", target)).labels == expected).all()


@pytest.mark.parametrize("infinity", [float("inf"), float("-inf"), 1e39])
def test_an_infinity_is_refused_with_column_and_row(infinity):
    given = table(40)
    distances = given["distance"].to_pylist()
    distances[23] = infinity
    with pytest.raises(InputNotExact, match=r"'distance' .* row 23"):
        used(model(), put(given, "distance", distances))


def test_an_infinity_in_a_row_that_does_not_count_is_no_matter():
    given = table(100)
    distances = given["distance"].to_pylist()
    distances[99] = float("inf")
    assert used(model(), put(given, "distance", distances), to_us(START + 50 * HOUR)).size == 48


def test_an_integer_that_float32_would_round_is_refused():
    with pytest.raises(InputNotExact, match=r"'stops' .* 2\^24"):
        used(model(), put(table(40), "stops", [2**24 + 1] * 40))


def test_missing_numbers_are_nan_and_missing_strings_none():
    given = put(table(40), "stops", [None, 3] * 20)
    given = put(given, "carrier", [None, "ZZ"] * 20)
    kept = used(model(), given)
    assert np.isnan(kept.columns["stops"][0])
    assert kept.columns["stops"][1] == 3
    assert kept.columns["carrier"].tolist()[:2] == [None, "ZZ"]
    assert kept.integers == ("stops",)


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_every_arrow_spelling_of_strings_is_a_category(kind):
    given = table(40)
    cast = given.set_column(2, "carrier", given["carrier"].cast(kind))
    assert used(model(), cast).columns["carrier"].tolist() == used(model(), given).columns["carrier"].tolist()


def test_categories_are_those_of_the_training_rows_sorted():
    kept = used(model(), put(table(40), "carrier", ["c", "a"] * 10 + ["b", None] * 10))
    signature = kept.signature("binary", (), np.arange(20))
    assert signature.categories == {"carrier": ("a", "c")}
    inputs, unseen = encode(signature, kept.at(np.array([0, 1, 20, 21])))
    assert inputs[:2, 1].tolist() == [1.0, 0.0]
    assert np.isnan(inputs[2:, 1]).all()
    assert unseen == {"carrier": 1}


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ([START] * 40, TIME, "is timestamp"),
        ([[1.0]] * 40, None, "is list"),
        ([None] * 40, pa.float64(), "no value in any of 40 rows"),
        ([None] * 40, pa.null(), "no value in any of 40 rows"),
        ([None] * 40, pa.string(), "no value in any of 40 rows"),
        ([float("nan")] * 40, pa.float64(), "no value in any of 40 rows"),
    ],
)
def test_a_column_that_is_no_input_is_refused_by_name(values, kind, words):
    with pytest.raises(training.BadInput, match=f"'distance' .*{words}"):
        used(model(), put(table(40), "distance", values, kind))


def test_a_missing_column_is_named_with_the_nearest_one():
    with pytest.raises(training.TrainingColumnMissing) as caught:
        used(model(), table(40).rename_columns({"distance": "distanse"}))
    assert "Did you mean 'distanse'?" in str(caught.value)


def test_two_columns_of_one_name_are_refused():
    given = table(40)
    with pytest.raises(training.TrainingColumnMissing, match="two columns 'distance'"):
        used(model(), given.append_column("distance", given["distance"]))


def test_a_naive_time_column_is_refused():
    given = table(40)
    naive = given.set_column(given.column_names.index("at"), "at", given["at"].cast(pa.timestamp("us")))
    with pytest.raises(training.BadInput, match="'at'"):
        used(model(), naive)


def test_strict_callers_can_refuse_nulls_and_nan_by_column():
    given = put(table(40), "stops", [None, 3] * 20)
    given = put(given, "distance", [float("nan"), *[1.0] * 39])
    refuse_nulls(given, ["carrier"])
    with pytest.raises(training.NullsInFeatures, match=r"distance \(1\), stops \(20\)"):
        refuse_nulls(given, ["distance", "carrier", "stops"])


def test_strict_callers_can_refuse_a_target_rate():
    given = put(table(200), "late", [True] + [False] * 199)
    refuse_target_rate(given, "late", low=0.005, high=0.99)
    with pytest.raises(training.TargetRateOutside, match=r"0.005"):
        refuse_target_rate(given, "late", low=0.01, high=0.99)
