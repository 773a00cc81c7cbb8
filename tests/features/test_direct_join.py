"""The join without a project: frames in, the same frames with features out."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Entity, FrameSource, ParquetSource, agg, feature_view, point_in_time_join, sql
from seatrial.data.reading import SourceEmpty
from seatrial.data.snapshot import content
from seatrial.data.sources import ColumnMissing
from seatrial.features.events import EventTimeOutOfRange, TypeNotKept
from seatrial.features.join import NameTaken
from seatrial.features.lookup import entity_key
from tests.features.test_join import START, event, event_table, question_table, view_of

HOUR = 3_600_000_000
TIMES = pa.timestamp("us", tz="UTC")


@pytest.fixture
def departures(tmp_path):
    rows = pa.table(
        {
            "carrier": ["UA", "UA", "AA"],
            "left_at": pa.array([START, START + HOUR, START + 2 * HOUR], TIMES),
            "delay": [10.0, None, 30.0],
            "wheels_off": [5.0, 6.0, 7.0],
            "never_read": ["x", "y", "z"],
        }
    )
    pq.write_table(rows, tmp_path / "departures.parquet")
    source = ParquetSource("departures.parquet", event_timestamp="left_at")

    @feature_view(entity=Entity("carrier"), source=source, ttl="3h")
    class delays:
        last = agg.last("delay")
        mean = agg.mean(sql("delay + wheels_off"), window="2h")

    return delays


def asked():
    return pd.DataFrame(
        {
            "carrier": ["AA", "UA", "UA", None],
            "at": pd.to_datetime([START + 2 * HOUR, START, START + HOUR, START], unit="us", utc=True),
            "mine": [1, 2, 3, 4],
        },
        index=[7, 3, 3, 0],
    )


EXPECTED = {"delays__last": [30.0, 10.0, None, None], "delays__mean": [37.0, 15.0, 15.0, None]}


def test_a_pandas_frame_keeps_its_rows_its_order_and_its_index(departures, tmp_path):
    frame = asked()
    joined = point_in_time_join(frame, [departures], folder=tmp_path)
    pd.testing.assert_frame_equal(joined[["carrier", "at", "mine"]], frame)
    found = {name: [None if pd.isna(x) else x for x in joined[name]] for name in EXPECTED}
    assert found == EXPECTED


@pytest.mark.parametrize("kind", [pl.DataFrame, pa.Table])
def test_other_frames_come_back_as_what_they_were(departures, tmp_path, kind):
    times = pa.array([START + 2 * HOUR, START, START + HOUR, START], TIMES)
    table = pa.table({"carrier": ["AA", "UA", "UA", None], "at": times})
    frame = table if kind is pa.Table else pl.DataFrame(table)
    joined = point_in_time_join(frame, [departures], folder=tmp_path)
    assert isinstance(joined, kind)
    columns = joined.to_dict(as_series=False) if kind is pl.DataFrame else joined.to_pydict()
    assert {name: columns[name] for name in EXPECTED} == EXPECTED


def test_times_of_any_zone_are_the_same_instants_and_naive_ones_are_utc_with_a_warning(departures, tmp_path):
    frame = asked()
    there = frame.assign(at=frame["at"].dt.tz_convert("America/New_York"))
    naive = frame.assign(at=frame["at"].dt.tz_localize(None))
    expected = point_in_time_join(frame, [departures], folder=tmp_path)[list(EXPECTED)]
    pd.testing.assert_frame_equal(point_in_time_join(there, [departures], folder=tmp_path)[list(EXPECTED)], expected)
    with pytest.warns(UserWarning, match="at carries no time zone"):
        joined = point_in_time_join(naive, [departures], folder=tmp_path)
    pd.testing.assert_frame_equal(joined[list(EXPECTED)], expected)


def test_no_instant_and_no_rows_are_said_in_words(departures, tmp_path):
    with pytest.raises(ColumnMissing, match="no column 'when'"):
        point_in_time_join(asked(), [departures], at="when", folder=tmp_path)
    with pytest.raises(SourceEmpty, match="no rows"):
        point_in_time_join(asked().iloc[:0], [departures], folder=tmp_path)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_instants_of_every_resolution_are_taken(departures, tmp_path, unit):
    frame = asked().assign(at=asked()["at"].dt.as_unit(unit))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        joined = point_in_time_join(frame, [departures], folder=tmp_path)
    assert [None if pd.isna(x) else x for x in joined["delays__last"]] == EXPECTED["delays__last"]


def test_the_digest_of_a_set_is_the_same_at_one_two_and_four_threads():
    history = [event(f"c{n % 50}", known=START + n % 7 * HOUR, delay=n / 7) | {"flight": n % 11} for n in range(5000)]
    questions = question_table(
        [{"at": START + n % 9 * HOUR, "carrier": f"c{n % 60}", "origin": "EWR"} for n in range(999)]
    )
    rows = event_table(history)
    digests = set()
    for threads in (1, 2, 4):
        views = []
        for name in ("one", "two", "three"):
            view = view_of()
            source = FrameSource(rows, name="flights", event_timestamp="event", known_at="known", event_key=["flight"])
            object.__setattr__(view, "name", name)
            object.__setattr__(view, "source", source)
            views.append(view)
        joined = point_in_time_join(questions, views, threads=threads)
        digests.add(content(joined).id)
    assert len(digests) == 1


def joined(column, **features):
    """Features of one column over three events of one key, two of which tie; asked after all of them."""
    table = pa.table({"k": [1, 1, 1], "ts": pa.array([START, START, START - HOUR], TIMES), "c": column})
    source = FrameSource(table, name="ev", event_timestamp="ts")
    view = feature_view(entity=Entity("k"), source=source)(type("v", (), features))
    asked = pa.table({"k": [1], "at": pa.array([START + HOUR], TIMES)})
    return point_in_time_join(asked, [view])


def test_integers_beyond_what_floats_hold_are_reckoned_with_as_the_nearest():
    column = pa.array([2**53 + 1, 2, 3])
    found = joined(column, most=agg.max("c", window="1d"), last=agg.last("c"))
    assert found["v__most"].to_pylist() == [float(2**53)]
    assert found["v__last"].to_pylist() == [2**53 + 1]


def test_the_least_integer_is_a_value_among_different_ones():
    column = pa.array([-(2**63), 2, 2])
    assert joined(column, n=agg.count_distinct("c", window="1d"))["v__n"].to_pylist() == [2.0]


@pytest.mark.parametrize("kind", [pa.float16(), pa.list_(pa.float64(), 2), pa.decimal128(5, 2)])
def test_ties_of_every_type_that_is_kept_are_decided(kind):
    values = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]] if pa.types.is_fixed_size_list(kind) else [1, 2, 3]
    column = pa.array(np.array(values, np.float16)) if kind == pa.float16() else pa.array(values, kind)
    assert joined(column, last=agg.last("c"))["v__last"].to_pylist() == [values[1]]


@pytest.mark.parametrize("inside", [TIMES, pa.date32(), pa.decimal128(5, 2), pa.float16()])
def test_lists_that_would_not_be_the_same_online_are_refused_by_column(inside):
    column = pa.array([[], [], []], pa.list_(inside))
    with pytest.raises(TypeNotKept, match="column 'c'"):
        joined(column, last=agg.last("c"))


@pytest.mark.parametrize("values", [[0.0, -0.0, 1.0], [-0.0, 0.0, 1.0]])
def test_minus_zero_is_zero(values):
    (found,) = joined(pa.array(values), last=agg.last("c"))["v__last"].to_pylist()
    assert str(found) == "0.0"
    assert entity_key([-0.0]) == entity_key([0.0])


def test_an_event_before_all_time_is_refused():
    table = pa.table({"k": [1], "ts": pa.array([-(2**63) + 1], TIMES), "c": [1.0]})
    view = feature_view(entity=Entity("k"), source=FrameSource(table, name="ev", event_timestamp="ts"))(
        type("v", (), {"last": agg.last("c")})
    )
    with pytest.raises(EventTimeOutOfRange, match="1 of 1 rows"):
        point_in_time_join(pa.table({"k": [1], "at": pa.array([START], TIMES)}), [view])


def test_a_column_that_the_rows_have_and_a_view_named_twice_are_refused(departures):
    asked = pa.table({"carrier": ["UA"], "at": pa.array([START], TIMES), "delays__last": [1.0]})
    for rows, views in ((asked, [departures]), (asked.drop_columns("delays__last"), [departures, departures])):
        with pytest.raises(NameTaken, match="delays__last"):
            point_in_time_join(rows, views)
