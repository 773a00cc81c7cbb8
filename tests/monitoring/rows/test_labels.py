from __future__ import annotations

import math
import warnings
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.data.reading import DataWarning
from seatrial.monitoring.rows.labels import BadLabels, NoLabelColumn, join, keys, parse
from tests.monitoring.worlds import UTC_US, instants

KEY = ("flight", "carrier")


def predictions_of(rows):
    """rows: (prediction_id, request_id, at, flight, carrier)."""
    ids, requests, at, flights, carriers = zip(*rows, strict=True) if rows else ((),) * 5
    return pa.table(
        {
            "prediction_id": pa.array(ids, pa.string()),
            "request_id": pa.array(requests, pa.string()),
            "at": instants(at),
            "field_flight": pa.array(flights, pa.int64()),
            "field_carrier": pa.array(carriers, pa.string()),
        }
    )


def labels_of(rows):
    """rows: dictionaries with what was told; ids in the order given."""
    texts = {
        name: pa.array([row.get(name) for row in rows], pa.string()) for name in ("prediction_id", "request_id", "key")
    }
    return pa.table(
        {
            "id": pa.array([f"{place:04d}" for place in range(len(rows))], pa.string()),
            **texts,
            "at": instants([row.get("at") for row in rows]),
            "label": pa.array([row["label"] for row in rows], pa.float64()),
            "known_at": instants([row["known_at"] for row in rows]),
            "recorded_at": instants([row.get("recorded_at", 0) for row in rows]),
            "actor": pa.array(["tests"] * len(rows), pa.string()),
        }
    )


ONE = [("p-1", "r-1", 100, 7, "AA")]


def only(rows, labels, as_of=10_000):
    found = join(predictions_of(rows), labels_of(labels), KEY, as_of)
    return found.label.tolist(), found.counts


@pytest.mark.parametrize(
    "name",
    [
        {"prediction_id": "p-1"},
        {"request_id": "r-1"},
        {"key": "7|AA"},
        {"key": "7|AA", "at": 100},
    ],
)
def test_a_label_finds_its_prediction_by_each_of_its_names(name):
    labels, counts = only(ONE, [{**name, "label": 1, "known_at": 150}])
    assert labels == [1.0]
    assert (counts.matched, counts.unmatched) == (1, 0)


@pytest.mark.parametrize(
    "name",
    [
        {"prediction_id": "p-2"},
        {"prediction_id": "p-2", "request_id": "r-1"},
        {"request_id": "r-2"},
        {"key": "8|AA"},
        {"key": "7|AA", "at": 101},
    ],
)
def test_a_label_of_an_unknown_prediction_is_counted_as_unmatched(name):
    labels, counts = only(ONE, [{**name, "label": 1, "known_at": 150}])
    assert math.isnan(labels[0])
    assert (counts.matched, counts.unmatched) == (0, 1)


def test_one_label_for_a_request_of_several_rows_is_ambiguous_and_goes_to_none():
    rows = [("p-1", "r-1", 100, 7, "AA"), ("p-2", "r-1", 100, 8, "AA")]
    labels, counts = only(rows, [{"request_id": "r-1", "label": 1, "known_at": 150}])
    assert all(math.isnan(label) for label in labels)
    assert (counts.unmatched, counts.ambiguous) == (1, 1)


def test_a_key_without_an_instant_means_the_latest_prediction_before_it_was_known():
    rows = [(f"p-{at}", f"r-{at}", at, 7, "AA") for at in (300, 100, 200)]
    labels, _ = only(rows, [{"key": "7|AA", "label": 1, "known_at": 250}])
    assert [at for (_, _, at, _, _), label in zip(rows, labels, strict=True) if label == 1] == [200]


def test_the_request_id_is_the_key_when_the_request_did_not_carry_the_key_columns():
    predictions = predictions_of([("p-1", "7|AA", 100, 1, "x")]).drop_columns(["field_flight"])
    found = join(predictions, labels_of([{"key": "7|AA", "label": 0, "known_at": 150}]), KEY, 1000)
    assert found.label.tolist() == [0.0]


def test_a_row_whose_key_is_not_whole_has_its_request_id_as_key():
    rows = [("p-1", "7|AA", 100, None, "AA"), ("p-2", "r", 100, 7, "BB")]
    assert only(rows, [{"key": "7|AA", "label": 0, "known_at": 150}])[0][0] == 0.0


def test_the_same_value_told_again_is_a_duplicate_known_since_the_first():
    told = [{"prediction_id": "p-1", "label": 1, "known_at": at} for at in (150, 120, 170)]
    found = join(predictions_of(ONE), labels_of(told), KEY, 1000)
    assert (found.label.tolist(), found.known_at_us.tolist()) == ([1.0], [120])
    assert (found.counts.duplicate, found.counts.contradicting) == (2, 0)


def test_of_contradicting_labels_the_one_known_last_counts_whatever_was_told_last():
    told = [{"prediction_id": "p-1", "label": label, "known_at": at} for label, at in ((0, 170), (1, 150))]
    found = join(predictions_of(ONE), labels_of(told), KEY, 1000)
    assert (found.label.tolist(), found.known_at_us.tolist()) == ([0.0], [170])
    assert (found.counts.duplicate, found.counts.contradicting) == (0, 1)


def test_as_of_an_instant_labels_known_later_do_not_exist():
    told = [{"prediction_id": "p-1", "label": label, "known_at": at} for label, at in ((0, 170), (1, 150))]
    assert only(ONE, told, as_of=169)[0] == [1.0]
    assert only(ONE, told, as_of=170)[0] == [0.0]
    labels, counts = only(ONE, told, as_of=149)
    assert math.isnan(labels[0])
    assert (counts.matched, counts.contradicting, counts.predictions) == (0, 0, 1)


@pytest.mark.parametrize("name", [{"prediction_id": "p-1"}, {"key": "7|AA"}, {"key": "7|AA", "at": 100}])
def test_a_label_known_before_its_prediction_does_not_count(name):
    labels, counts = only(ONE, [{**name, "label": 1, "known_at": 99}])
    assert math.isnan(labels[0])
    assert (counts.before, counts.unmatched) == (1, 0)


def test_no_labels_and_no_predictions_are_fine():
    assert only([], [])[0] == []
    assert only([], [{"key": "7|AA", "label": 1, "known_at": 1}])[1].unmatched == 1
    assert join(predictions_of(ONE), None, KEY, 10).counts.matched == 0


times = st.integers(0, 12)
requests = st.sampled_from(["r-0", "r-1", "r-2", "1|AA"])
flights = st.sampled_from([1, 2, None])
told_rows = st.fixed_dictionaries(
    {
        "prediction_id": st.sampled_from([None, None, "p-0", "p-1", "p-9"]),
        "request_id": st.sampled_from([None, None, "r-0", "r-1", "r-9"]),
        "key": st.sampled_from([None, "1|AA", "2|AA", "r-2", "9|AA"]),
        "at": st.one_of(st.none(), times),
        "label": st.sampled_from([0.0, 1.0]),
        "known_at": times,
        "recorded_at": st.integers(0, 2),
    }
)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(requests, times, flights), max_size=7),
    st.lists(told_rows, max_size=14),
    times,
)
def test_the_join_equals_a_search_by_hand(drawn, told, as_of):
    rows = [(f"p-{place}", request, at, flight, "AA") for place, (request, at, flight) in enumerate(drawn)]
    found = join(predictions_of(rows), labels_of(told), KEY, as_of)
    label, known_at, duplicates, contradictions, counts = by_hand(rows, told, as_of)
    assert [None if math.isnan(value) else value for value in found.label] == label
    assert found.known_at_us.tolist() == known_at
    assert found.duplicates.tolist() == duplicates
    assert found.contradictions.tolist() == contradictions
    assert {name: getattr(found.counts, name) for name in counts} == counts
    c = found.counts
    existing = sum(one["known_at"] <= as_of for one in told)
    assert c.matched + c.unmatched + c.duplicate + c.contradicting + c.before == existing


def by_hand(rows, told, as_of):
    """The rules of the module's first lines, label by label, without any table."""
    belongs = {place: [] for place in range(len(rows))}
    counts = {"unmatched": 0, "before": 0, "ambiguous": 0}
    for order, one in enumerate(told):
        if one["known_at"] > as_of:
            continue
        place = None
        if one["prediction_id"] is not None:
            place = next((p for p, row in enumerate(rows) if row[0] == one["prediction_id"]), None)
        elif one["request_id"] is not None:
            hits = [p for p, row in enumerate(rows) if row[1] == one["request_id"]]
            counts["ambiguous"] += len(hits) > 1
            place = hits[0] if len(hits) == 1 else None
        elif one["key"] is not None:
            of_key = [p for p, row in enumerate(rows) if key_of(row) == one["key"]]
            if one["at"] is not None:
                hits = [p for p in of_key if rows[p][2] == one["at"]]
            else:
                hits = [p for p in of_key if rows[p][2] <= one["known_at"]]
                if of_key and not hits:
                    counts["before"] += 1
                    continue
            place = max(hits, key=lambda p: (rows[p][2], rows[p][0]), default=None)
        if place is None:
            counts["unmatched"] += 1
        elif one["known_at"] < rows[place][2]:
            counts["before"] += 1
        else:
            belongs[place].append((one["known_at"], one["recorded_at"], order, one["label"]))
    label, known_at, duplicates, contradictions = [], [], [], []
    for place in range(len(rows)):
        history = sorted(belongs[place])
        values = [value for *_, value in history]
        label.append(values[-1] if values else None)
        since = len(values)
        while since and values[since - 1] == values[-1]:
            since -= 1
        known_at.append(history[since][0] if values else 0)
        duplicates.append(max(0, sum(value == values[-1] for value in values) - 1) if values else 0)
        contradictions.append(sum(value != values[-1] for value in values) if values else 0)
    counts["matched"] = sum(value is not None for value in label)
    counts["duplicate"], counts["contradicting"] = sum(duplicates), sum(contradictions)
    return label, known_at, duplicates, contradictions, counts


def key_of(row):
    return row[1] if row[3] is None else f"{row[3]}|{row[4]}"


def test_keys_are_the_values_in_one_text():
    table = pa.table(
        {
            "at": pa.array([datetime(2013, 4, 1, 5, tzinfo=UTC)] * 3, UTC_US),
            "flight": pa.array([1.0, 2.5, None]),
            "carrier": pa.array(["AA", "", "UA"]).dictionary_encode(),
        }
    )
    assert keys(table, ["at", "flight", "carrier"]).to_pylist() == [
        "2013-04-01T05:00:00Z|1|AA",
        "2013-04-01T05:00:00Z|2.5|",
        None,
    ]


# Reading what was told

NOW = 1_000_000


def told_as(rows, **given):
    shape = {"model": "late", "task": "binary", "key": KEY, "target": "late", "now_us": NOW, "actor": "ann"}
    return parse(rows, **shape | given)


def test_rows_of_a_table_become_labels_with_the_key_in_one_text():
    (label,) = told_as(pa.table({"flight": [7], "carrier": ["AA"], "late": [True], "more": ["x"]}))
    assert (label.key, label.label, label.known_at_us, label.actor) == ("7|AA", 1.0, NOW, "ann")
    assert (label.prediction_id, label.request_id, label.at_us) == (None, None, None)


def test_times_come_from_the_declared_columns_or_the_plain_names():
    rows = [{"prediction_id": "p", "label": 0, "at": "1970-01-01T00:00:01Z", "known_at": "1970-01-01T01:00:02+01:00"}]
    (label,) = told_as(rows)
    assert (label.at_us, label.known_at_us) == (1_000_000, 2_000_000)
    table = pa.table({"prediction_id": ["p"], "late": [0], "arrived": instants([5]), "leaves": instants([3])})
    (label,) = told_as(table, event_timestamp="leaves", label_known_at="arrived")
    assert (label.at_us, label.known_at_us) == (3, 5)


def test_ids_of_one_telling_are_unique_and_in_order():
    ids = [label.id for label in told_as([{"request_id": "r", "late": 1}] * 12)]
    assert ids == sorted(set(ids))
    assert len(ids) == 12


@pytest.mark.parametrize(
    "times", [["1970-01-01T00:00:01"], pa.array([1_000_000], pa.timestamp("us")), [datetime(1970, 1, 1, 0, 0, 1)]]
)
def test_times_without_a_zone_are_read_as_utc_with_a_warning_that_names_them(times):
    with pytest.warns(DataWarning, match="known_at"):
        (label,) = told_as(pa.table({"prediction_id": ["p"], "late": [1], "known_at": times}))
    assert label.known_at_us == 1_000_000


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"prediction_id": "p", "late": 2}], "neither 0 nor 1"),
        ([{"prediction_id": "p", "late": 0.5}], "neither 0 nor 1"),
        ([{"prediction_id": "p", "late": 1.0}, {"prediction_id": "q", "late": math.nan}], "row 2"),
        ([{"prediction_id": "p", "late": math.inf}], "infinite"),
        ([{"prediction_id": "p", "late": None}], "no value"),
        ([{"prediction_id": "p", "late": 1}, {"prediction_id": "q", "late": None}], "no value"),
        ([{"prediction_id": "p", "late": "yes"}], "string"),
        ([{"prediction_id": "p", "late": 1}, {"prediction_id": "q", "late": "1"}], "no table"),
        ([{"prediction_id": None, "late": 1}], "which prediction"),
        ([{"flight": None, "carrier": "AA", "late": 1}], "which prediction"),
        ([{"prediction_id": "", "late": 1}], "which prediction"),
        ([{"prediction_id": "p", "late": 1, "known_at": "yesterday"}], "yesterday"),
        ([{"prediction_id": "p", "late": 1, "known_at": "2013-04-01T00:00:00Z"}, {"prediction_id": "p", "late": 1}],
         "no time in 'known_at'"),
    ],
)  # fmt: skip
def test_a_row_that_is_no_label_refuses_them_all_and_is_named(rows, words):
    with pytest.raises(BadLabels, match=words):
        told_as(rows)


@pytest.mark.parametrize("id", [["p"], {"p": 1}])
@pytest.mark.parametrize("column", ["prediction_id", "request_id"])
def test_an_id_that_is_no_text_or_number_is_refused(column, id):
    with pytest.raises(BadLabels, match=column):
        told_as([{column: id, "late": 1}])


@pytest.mark.parametrize("label", [math.nan, math.inf, -1e101])
def test_a_regression_takes_any_finite_number_and_no_other(label):
    assert told_as([{"prediction_id": "p", "late": -12.5}], task="regression")[0].label == -12.5
    with pytest.raises(BadLabels):
        told_as([{"prediction_id": "p", "late": label}], task="regression")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"late": 1}, "which predictions"),
        ({"late": 1, "flight": 7}, "flight, carrier"),
        ({"prediction_id": "p", "lat": 1}, "Did you mean 'lat'"),
    ],
)
def test_a_table_without_the_columns_that_matter_is_refused_with_what_is_there(row, words):
    with pytest.raises(NoLabelColumn) as caught:
        told_as([row])
    assert words in str(caught.value)


def test_no_rows_are_no_labels():
    assert told_as([]) == []
    assert told_as(pa.table({"prediction_id": pa.array([], pa.string()), "late": pa.array([], pa.int64())})) == []


def test_nothing_is_warned_of_when_times_have_a_zone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told_as([{"prediction_id": "p", "late": 1, "known_at": datetime(2013, 4, 1, tzinfo=UTC)}])
