"""The point-in-time join against the rules written as loops, on histories made to be nasty."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.core.identity import canonical_json
from seatrial.data.sources import FrameSource
from seatrial.features import join, lookup, materialize
from seatrial.features.definitions import Entity, FeatureView, agg, feature_view, sql
from seatrial.features.events import EventKeyMissing, SumTooLarge
from seatrial.features.packed import AskedBeforeTail
from seatrial.features.plan import FeaturePlan, plan_view
from seatrial.stores.online_sqlite import SqliteOnlineStore
from tests.features import brute_force

HOUR = 3_600_000_000
START = 1_362_873_600_000_000  # 2013-03-10T00:00Z, the day on which New York's clocks go forward

# few distinct times and keys, so that ties, repeats and exact window edges are the rule and not the exception
moments = st.one_of(st.integers(0, 12).map(lambda h: START + h * HOUR), st.integers(0, 12 * HOUR).map(START.__add__))
nudges = st.sampled_from([-1, 0, 0, 0, 1])
events = st.fixed_dictionaries(
    {
        "event": st.builds(int.__add__, moments, nudges),
        "known": st.none() | st.builds(int.__add__, moments, nudges),
        "carrier": st.sampled_from(["AA", "UA", None]),
        "origin": st.sampled_from(["EWR", "JFK"]),
        "flight": st.integers(0, 3),
        "delay": st.none() | st.floats(-60, 900).map(lambda x: round(x, 2)) | st.integers(-5, 5).map(float),
        "status": st.none() | st.sampled_from(["late", "on time"]),
        "gates": st.none() | st.lists(st.integers(0, 2), max_size=2),
    }
)
histories = st.lists(events, max_size=25)
questions = st.lists(
    st.fixed_dictionaries(
        {
            "at": st.builds(int.__add__, moments, nudges),
            "carrier": st.sampled_from(["AA", "UA", "never seen", None]),
            "origin": st.sampled_from(["EWR", "JFK"]),
        }
    ),
    max_size=12,
)


def event_table(rows):
    times = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "event": pa.array([r["event"] for r in rows], times),
            "known": pa.array([r["known"] for r in rows], times),
            "carrier": pa.array([r["carrier"] for r in rows], pa.string()),
            "origin": pa.array([r["origin"] for r in rows], pa.string()),
            "flight": pa.array([r["flight"] for r in rows], pa.int64()),
            "delay": pa.array([r["delay"] for r in rows], pa.float64()),
            "status": pa.array([r["status"] for r in rows], pa.string()),
            "gates": pa.array([r.get("gates") for r in rows], pa.list_(pa.int64())),
        }
    )


def question_table(rows):
    return pa.table(
        {
            "at": pa.array([r["at"] for r in rows], pa.timestamp("us", tz="UTC")),
            "carrier": pa.array([r["carrier"] for r in rows], pa.string()),
            "origin": pa.array([r["origin"] for r in rows], pa.string()),
        }
    )


def view_of(keys=("carrier",), event_key=("flight",), ttl="3h") -> FeatureView:
    source = FrameSource(None, name="flights", event_timestamp="event", known_at="known", event_key=event_key)

    @feature_view(entity=Entity("thing", keys=keys), source=source, ttl=ttl)
    class delays:
        mean_2h = agg.mean("delay", window="2h")
        sum_2h = agg.sum("delay", window="2h")
        count_2h = agg.count("delay", window="2h")
        rows_5h = agg.count(window="5h")
        mean_5h = agg.mean("delay", window="5h")
        last_delay = agg.last("delay")
        last_status = agg.last("status")
        hours_since = agg.age()
        least_2h = agg.min("delay", window="2h")
        most_2h = agg.max("delay", window="2h")
        most_5h = agg.max(sql("delay * 2 - flight"), window="5h")
        spread_2h = agg.std("delay", window="2h")
        spread_5h = agg.std("delay", window="5h")
        flights_2h = agg.count_distinct("flight", window="2h")
        delays_5h = agg.count_distinct("delay", window="5h")
        said_5h = agg.count_distinct("status", window="5h")
        statuses_5h = agg.count("status", window="5h")
        total_5h = agg.sum(sql("delay * 2 - flight"), window="5h", resolution=1)
        last_1h = agg.last("delay", window="1h")
        last_gates = agg.last("gates")
        last_net = agg.last(sql("delay * 2 - flight"))

    return delays


def joined(view, history, asked, threads=1):
    return join.as_of(question_table(asked), {"delays": view}, {"delays": event_table(history)}, threads=threads)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(histories, questions, st.sampled_from([("carrier",), ("carrier", "origin")]), st.sampled_from([(), ("flight",)]))
def test_every_feature_equals_the_rules_written_as_loops(history, asked, keys, event_key):
    view = view_of(keys, event_key)
    result = joined(view, history, asked).to_pylist()
    for question, row in zip(asked, result, strict=True):
        expected = brute_force.features(view, history, question, question["at"])
        assert about({name: row[f"delays__{name}"] for name in view.features}) == about(expected)


def about(values):
    """Spreads are compared to 14 digits: the rules take them from fractions, and not from sums."""
    return {
        name: float(f"{x:.14g}") if name.startswith("spread") and x is not None else x for name, x in values.items()
    }


@settings(max_examples=60, deadline=None)
@given(histories, questions, st.sampled_from([(), ("flight",)]), st.sampled_from([None, "3h"]))
def test_the_time_of_the_latest_row_that_counts_is_told_on_request(history, asked, event_key, ttl):
    view = view_of(event_key=event_key, ttl=ttl)
    result = join.as_of(question_table(asked), {"delays": view}, {"delays": event_table(history)}, event_times=True)
    times = result["delays__event_timestamp"].cast(pa.int64()).to_pylist()
    assert times == [brute_force.latest_event(view, history, question, question["at"]) for question in asked]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(histories, questions, st.randoms(use_true_random=False))
def test_the_order_of_the_history_and_the_number_of_threads_change_nothing(history, asked, random):
    view = view_of()
    before = joined(view, history, asked)
    random.shuffle(history)
    assert joined(view, history, asked, threads=2).equals(before)


@settings(max_examples=60, deadline=None)
@given(histories, questions)
def test_rows_come_back_in_number_and_order_as_they_were_given(history, asked):
    result = joined(view_of(), history, asked)
    assert result.select(["at", "carrier", "origin"]).equals(question_table(asked))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(histories, questions, st.sampled_from([("carrier",), ("carrier", "origin")]), st.integers(1, 4))
def test_pushed_as_they_become_known_online_equals_offline_bit_by_bit(tmp_path_factory, history, asked, keys, repeats):
    view = view_of(keys)
    history = [row for row in history if row["known"] is not None]
    store = SqliteOnlineStore(tmp_path_factory.mktemp("online") / "online.db")
    follow = lookup.Lookup(FeaturePlan(views=(plan_view(view),)), store)
    offline = joined(view, history, asked).to_pylist()
    waiting = sorted(history, key=lambda row: row["known"])
    for position in sorted(range(len(asked)), key=lambda i: asked[i]["at"]):
        question = asked[position]
        known = [row for row in waiting if row["known"] <= question["at"]]
        waiting = waiting[len(known) :]
        for batch in (known[i : i + repeats] for i in range(0, len(known), repeats)):
            materialize.write(view, event_table(batch), store)
            assert materialize.write(view, event_table(batch), store).written == 0  # a repeated push changes nothing
        online = follow.assemble(question, question["at"]).columns
        for column in view.columns:
            assert online[column] == offline[position][column]
    store.close()


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(histories, questions, moments)
def test_materialized_up_to_an_instant_online_equals_offline_at_that_instant(tmp_path_factory, history, asked, at):
    view = view_of()
    store = SqliteOnlineStore(tmp_path_factory.mktemp("online") / "online.db")
    first = materialize.write(view, event_table(history), store, known_by_us=at)
    again = materialize.write(view, event_table(history), store, known_by_us=at)
    assert (first.rows, again.written, again.unknown) == (len(history), 0, first.unknown)
    follow = lookup.Lookup(FeaturePlan(views=(plan_view(view),)), store)
    asked = [question | {"at": at} for question in asked]
    for question, row in zip(asked, joined(view, history, asked).to_pylist(), strict=True):
        online = follow.assemble(question, at).columns
        assert {column: online[column] for column in view.columns} == {column: row[column] for column in view.columns}
    store.close()


def event(carrier, *, known=START, delay=1.0):
    """An event of flight 1 at the start."""
    times = {"event": START, "known": known}
    return times | {"carrier": carrier, "origin": "EWR", "flight": 1, "delay": delay, "status": None}


@pytest.mark.parametrize("versions", [2, 3, 10])
def test_of_a_thousand_restated_entities_the_latest_known_version_wins_in_any_order(versions):
    rows = [
        event(f"c{entity}", known=START + version * HOUR, delay=float(version))
        for entity in range(1000)
        for version in range(versions)
    ]
    random.Random(versions).shuffle(rows)
    at = START + versions * HOUR
    asked = [{"at": at, "carrier": f"c{entity}", "origin": "EWR"} for entity in range(1000)]
    result = joined(view_of(ttl=None), rows, asked)
    assert result["delays__last_delay"].to_pylist() == [versions - 1.0] * 1000
    early = [question | {"at": START + HOUR} for question in asked]  # when only two of them are known
    assert joined(view_of(ttl=None), rows, early)["delays__mean_2h"].to_pylist() == [1.0] * 1000


ZONES = [None, "UTC", "America/New_York", "Asia/Kolkata"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::seatrial.data.reading.DataWarning")
@settings(max_examples=60, deadline=None)
@given(
    histories.filter(bool),
    questions.filter(bool),
    st.sampled_from(["us", "ns", "ms", "date"]),
    st.sampled_from(ZONES),
    st.sampled_from(ZONES),
    st.booleans(),
)
def test_columns_of_any_unit_and_zone_say_the_same_instants_also_when_clocks_are_changed(
    history, asked, unit, theirs, ours, leak_free
):
    """New York's clocks go forward within the history. A column without a zone is read as UTC; ns are cut to us."""
    step = {"us": 1, "ns": 1, "ms": 1000, "date": 24 * HOUR}[unit]

    def coarse(us):
        return None if us is None else us // step * step

    def times(values, zone):
        if unit == "date":
            return pa.array([None if us is None else us // (24 * HOUR) for us in values], pa.int32()).cast(pa.date32())
        exact = {"us": (1, 1), "ns": (1000, 1), "ms": (1, 1000)}[unit]
        sub = 999 if unit == "ns" else 0  # nanoseconds are cut toward the past
        numbers = [None if us is None else us * exact[0] // exact[1] + sub for us in values]
        return pa.array(numbers, pa.timestamp(unit, tz=zone))

    rows = event_table(history)
    for name in ("event", "known"):
        rows = rows.set_column(rows.column_names.index(name), name, times([row[name] for row in history], theirs))
    table = question_table(asked)
    table = table.set_column(0, "at", pa.array([q["at"] for q in asked], pa.timestamp("us", tz=ours)))
    source = FrameSource(rows, name="flights", event_timestamp="event", event_key=["flight"])
    source = replace(source, known_at="known" if leak_free else None)
    view = replace(view_of(), source=source)
    result = join.point_in_time_join(table, [view]).to_pylist()
    for question, row in zip(asked, result, strict=True):
        read = [past | {"event": coarse(past["event"]), "known": coarse(past["known"])} for past in history]
        read = read if leak_free else [past | {"known": past["event"]} for past in read]
        expected = brute_force.features(view, read, question, question["at"])
        assert about({name: row[f"delays__{name}"] for name in view.features}) == about(expected)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(histories, questions, st.sampled_from(["1h", "3h", None]), st.integers(1, 3))
def test_several_views_of_one_history_each_keep_their_own_ttl(history, asked, ttl, repeats):
    """Rows that are asked twice are answered twice, in their places."""
    asked = asked * repeats
    views = {
        name: replace(view_of(keys, ttl=other), name=name)
        for name, keys, other in (
            ("a", ("carrier",), ttl),
            ("b", ("origin",), "2h"),
            ("c", ("carrier", "origin"), None),
        )
    }
    result = join.as_of(question_table(asked), views, dict.fromkeys(views, event_table(history))).to_pylist()
    for question, row in zip(asked, result, strict=True):
        for name, view in views.items():
            expected = brute_force.features(view, history, question, question["at"])
            assert about({feature: row[f"{name}__{feature}"] for feature in view.features}) == about(expected)


def test_an_event_counts_to_the_microsecond(tmp_path):
    at = START + 10 * HOUR
    asked = [{"at": at, "carrier": "UA", "origin": "EWR"}]
    for age_us, in_ttl, in_window in (
        (0, 1, 1),
        (-1, 0, 0),
        (2 * HOUR - 1, 1, 1),
        (2 * HOUR, 1, 0),
        (2 * HOUR + 1, 0, 0),
    ):
        row = event("UA", known=START) | {"event": at - age_us}
        said = joined(view_of(ttl="2h"), [row], asked)
        assert (said["delays__last_delay"].null_count, said["delays__count_2h"].to_pylist()) == (
            1 - in_ttl,
            [in_window],
        )
    late = event("UA", known=at + 1) | {"event": START + 9 * HOUR}
    assert joined(view_of(ttl=None), [late], asked)["delays__last_delay"].to_pylist() == [None]


def test_a_key_of_another_type_is_an_error_that_names_it():
    rows = pa.table({"at": pa.array([START], pa.timestamp("us", tz="UTC")), "carrier": [17]})
    with pytest.raises(join.KeyMissing, match="'carrier' is integer in the rows and string"):
        join.as_of(rows, {"delays": view_of()}, {"delays": event_table([event("17")])})


def test_a_plan_says_the_same_after_it_went_through_a_release(tmp_path):
    """JSON keeps no order of an object's names; an online row's columns must not hang on it."""
    view = view_of()
    store = SqliteOnlineStore(tmp_path / "online.db")
    materialize.write(view, event_table([event("UA", delay=7.0)]), store)
    plan = FeaturePlan(views=(plan_view(view),))
    carried = msgspec.json.decode(canonical_json(plan), type=FeaturePlan)
    question = {"carrier": "UA", "origin": "EWR"}
    answers = [lookup.Lookup(one, store).assemble(question, START + HOUR).columns for one in (plan, carried)]
    assert answers[0] == answers[1]
    assert answers[1]["delays__last_delay"] == 7.0
    store.close()


def test_a_row_known_only_in_the_future_waits_and_disturbs_nothing(tmp_path):
    view = view_of(ttl=None)
    store = SqliteOnlineStore(tmp_path / "online.db")
    now = START + 2 * HOUR
    materialize.write(view, event_table([event("UA", delay=7.0)]), store, known_by_us=now)
    later = event("UA", known=START + 10_000 * HOUR, delay=9.0) | {"event": START + 10_000 * HOUR, "flight": 2}
    materialize.write(view, event_table([later]), store, now_us=now)
    follow = lookup.Lookup(FeaturePlan(views=(plan_view(view),)), store)
    answer = follow.assemble({"carrier": "UA", "origin": "EWR"}, now).columns
    assert (answer["delays__last_delay"], answer["delays__rows_5h"]) == (7.0, 1.0)
    after = follow.assemble({"carrier": "UA", "origin": "EWR"}, START + 10_000 * HOUR).columns
    assert (after["delays__last_delay"], after["delays__rows_5h"]) == (9.0, 1.0)
    store.close()


def test_a_latest_row_that_is_gone_is_refused_and_not_answered_with_null(tmp_path):
    view = view_of(ttl=None)
    store = SqliteOnlineStore(tmp_path / "online.db")
    history = [event("UA", delay=1.0), event("UA", known=START + 8 * HOUR, delay=2.0) | {"event": START + 8 * HOUR}]
    materialize.write(view, event_table(history), store, known_by_us=START + 9 * HOUR)
    follow = lookup.Lookup(FeaturePlan(views=(plan_view(view),)), store)
    assert follow.assemble({"carrier": "UA", "origin": "EWR"}, START + 9 * HOUR).columns["delays__last_delay"] == 2.0
    with pytest.raises(AskedBeforeTail, match="kept from 2013-03-10T08:00:00Z on"):
        follow.assemble({"carrier": "UA", "origin": "EWR"}, START + 7 * HOUR)
    store.close()


def test_a_request_just_behind_a_push_is_answered_as_of_its_own_instant(tmp_path):
    view = view_of(ttl=None)
    store = SqliteOnlineStore(tmp_path / "online.db")
    for hours, delay in ((0, 1.0), (1, 2.0)):
        moment = START + hours * HOUR
        row = event("UA", known=moment, delay=delay) | {"event": moment, "flight": hours}
        materialize.write(view, event_table([row]), store)
    follow = lookup.Lookup(FeaturePlan(views=(plan_view(view),)), store)
    behind = follow.assemble({"carrier": "UA", "origin": "EWR"}, START + HOUR - 1).columns
    assert behind["delays__last_delay"] == 1.0
    store.close()


def test_a_value_does_not_hang_on_the_other_rows_that_are_asked():
    first = event("UA") | {"event": START + 9 * HOUR, "known": START + 9 * HOUR}
    restated = first | {"event": START + 20 * HOUR, "known": START + 10 * HOUR}
    asked = {"at": START + 12 * HOUR, "carrier": "UA", "origin": "EWR"}
    alone = joined(view_of(), [first, restated], [asked])["delays__rows_5h"].to_pylist()
    both = joined(view_of(), [first, restated], [asked, asked | {"at": START + 23 * HOUR}])
    assert alone == [0.0] == both["delays__rows_5h"].to_pylist()[:1]


def test_a_sum_beyond_64_bits_is_refused_online_and_offline(tmp_path):
    view = view_of()
    rows = [event("UA", delay=2.8e8) | {"flight": number} for number in range(33_000)]
    asked = [{"at": START, "carrier": "UA", "origin": "EWR"}]
    with pytest.raises(SumTooLarge):
        joined(view, rows, asked)
    store = SqliteOnlineStore(tmp_path / "online.db")
    materialize.write(view, event_table(rows), store)
    with pytest.raises(SumTooLarge):
        lookup.Lookup(FeaturePlan(views=(plan_view(view),)), store).assemble(asked[0], START)
    store.close()


def test_rows_without_an_event_key_are_refused():
    with pytest.raises(EventKeyMissing, match="'flight'"):
        joined(view_of(), [event("UA") | {"flight": None}], [])
