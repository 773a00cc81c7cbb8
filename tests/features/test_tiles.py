"""Entities with so many events that their rows are kept in tiles: they say what one row would say, bit by bit."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.data.sources import FrameSource
from seatrial.features import join, lookup, materialize, packed, tiles
from seatrial.features.definitions import Entity, agg, feature_view
from seatrial.features.events import SumTooLarge
from seatrial.features.packed import AskedBeforeTail, PackedRowDamaged
from seatrial.features.plan import FeaturePlan, plan_view
from seatrial.stores.online_sqlite import SqliteOnlineStore
from tests.features.test_join import (
    HOUR,
    START,
    event,
    event_table,
    events,
    histories,
    joined,
    moments,
    question_table,
    questions,
    view_of,
)


@pytest.fixture
def few_are_many(monkeypatch):
    """Entities are in tiles from 9 events on."""
    monkeypatch.setattr(tiles, "MANY", 8)


@contextmanager
def online_store(folder):
    store = SqliteOnlineStore(folder / "online.db")
    try:
        yield store
    finally:
        store.close()


class Watched:
    """A store that notes the keys that are read, written and deleted."""

    def __init__(self, store):
        self._store = store
        self.reads, self.put, self.deleted = [], [], []

    def get(self, keys):
        self.reads.append(list(keys))
        return self._store.get(keys)

    def update(self, change):
        def watched(rows):
            self._rows = rows
            return change(self._Rows(self, rows))

        return self._store.update(watched)

    class _Rows:
        def __init__(self, watch, rows):
            self._watch, self._rows = watch, rows

        def get(self, keys):
            return self._rows.get(keys)

        def put(self, key, data):
            self._watch.put.append(key)
            self._rows.put(key, data)

        def delete(self, key):
            self._watch.deleted.append(key)
            self._rows.delete(key)


def follow(view, store):
    return lookup.Lookup(FeaturePlan(views=(plan_view(view),)), store)


def as_told(columns, view):
    return {column: columns[column] for column in view.columns}


def tiles_in(store, view):
    return store.count(f"{plan_view(view).digest}/tiles")


# mostly one entity, so that it comes to have many events
busy = st.lists(
    st.builds(
        lambda row, carrier, flight: row | {"carrier": carrier, "flight": flight},
        events,
        st.sampled_from(["AA", "AA", "AA", "UA"]),
        st.integers(0, 30),
    ),
    min_size=9,
    max_size=60,
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.one_of(busy, histories), questions, st.sampled_from([("carrier",), ("carrier", "origin")]), st.integers(1, 9))
def test_pushed_as_they_become_known_tiles_say_what_the_join_says_bit_by_bit(
    tmp_path_factory, history, asked, keys, repeats
):
    view = view_of(keys)
    history = [row for row in history if row["known"] is not None]
    offline = joined(view, history, asked).to_pylist()
    waiting = sorted(history, key=lambda row: row["known"])
    with pytest.MonkeyPatch.context() as patch, online_store(tmp_path_factory.mktemp("online")) as store:
        patch.setattr(tiles, "MANY", 8)
        reader = follow(view, store)
        for position in sorted(range(len(asked)), key=lambda i: asked[i]["at"]):
            question = asked[position]
            known = [row for row in waiting if row["known"] <= question["at"]]
            waiting = waiting[len(known) :]
            for batch in (known[i : i + repeats] for i in range(0, len(known), repeats)):
                materialize.write(view, event_table(batch), store)
                assert materialize.write(view, event_table(batch), store).written == 0
            for one in (reader, follow(view, store)):  # that has seen the entity, and that has not
                assert as_told(one.assemble(question, question["at"]).columns, view) == as_told(offline[position], view)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(busy, st.integers(1, 9), st.sampled_from([0, 1, HOUR // 3, HOUR - 1]))
def test_a_request_behind_the_pushes_is_answered_as_of_its_own_instant(tmp_path_factory, history, repeats, behind_us):
    view = view_of(ttl=None)
    history = sorted((row for row in history if row["known"] is not None), key=lambda row: row["known"])
    with pytest.MonkeyPatch.context() as patch, online_store(tmp_path_factory.mktemp("online")) as store:
        patch.setattr(tiles, "MANY", 8)
        reader = follow(view, store)
        for first in range(0, len(history), repeats):
            batch = history[first : first + repeats]
            materialize.write(view, event_table(batch), store)
            at = batch[-1]["known"] - behind_us
            question = {"at": at, "carrier": "AA", "origin": "EWR"}
            try:
                online = reader.assemble(question, at).columns
            except AskedBeforeTail:
                continue
            offline = joined(view, history[: first + repeats], [question]).to_pylist()[0]
            assert as_told(online, view) == as_told(offline, view)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(busy, moments)
def test_materialized_at_once_tiles_say_what_the_join_says(tmp_path_factory, history, at):
    view = view_of()
    with pytest.MonkeyPatch.context() as patch, online_store(tmp_path_factory.mktemp("online")) as store:
        patch.setattr(tiles, "MANY", 8)
        materialize.write(view, event_table(history), store, known_by_us=at)
        assert materialize.write(view, event_table(history), store, known_by_us=at).written == 0
        asked = [{"at": at, "carrier": carrier, "origin": "EWR"} for carrier in ("AA", "UA")]
        for question, row in zip(asked, joined(view, history, asked).to_pylist(), strict=True):
            assert as_told(follow(view, store).assemble(question, at).columns, view) == as_told(row, view)


def spaced(count, *, start=START, step=HOUR // 10):
    """Events of UA, each an hour's tenth after the one before."""
    rows = [event("UA", delay=float(number % 7)) for number in range(count)]
    times = [start + number * step for number in range(count)]
    return [
        row | {"flight": number, "event": us, "known": us}
        for number, (row, us) in enumerate(zip(rows, times, strict=True))
    ]


def test_a_restatement_moves_an_event_from_one_tile_to_another(tmp_path, few_are_many):
    view = view_of(ttl=None)
    history = spaced(60)
    moved = history[20] | {"event": history[40]["event"] + 1, "known": history[59]["known"] + 1, "delay": 99.0}
    with online_store(tmp_path) as store:
        materialize.write(view, event_table(history), store)
        reader = follow(view, store)
        for at in (moved["known"] - 1, moved["known"], moved["known"] + HOUR // 2):
            if at == moved["known"]:
                assert materialize.write(view, event_table([moved]), store).written == 1
            question = {"at": at, "carrier": "UA", "origin": "EWR"}
            offline = joined(view, [*history, moved], [question]).to_pylist()[0]
            assert as_told(reader.assemble(question, at).columns, view) == as_told(offline, view)


def test_an_event_that_is_news_rewrites_few_rows_and_a_late_one_its_tile(tmp_path, few_are_many):
    view = view_of(ttl=None)
    history = spaced(50)
    digest = plan_view(view).digest
    with online_store(tmp_path) as store:
        materialize.write(view, event_table(history), store)
        watched = Watched(store)
        later = spaced(1, start=history[-1]["event"] + 1)[0] | {"flight": 1000}
        materialize.write(view, event_table([later]), watched)
        assert [view for view, _ in watched.put] == [digest]
        watched.put.clear()
        late = later | {"flight": 1001, "event": history[25]["event"] + 1, "known": later["known"] + 1}
        materialize.write(view, event_table([late]), watched)
        assert sorted(view for view, _ in watched.put) == [digest, f"{digest}/tiles", f"{digest}/tiles/keys"]


def test_a_known_entity_in_tiles_is_read_in_one_round_trip(tmp_path, few_are_many):
    view = view_of(ttl=None)
    history = spaced(60)
    at = history[-1]["event"] + 1
    with online_store(tmp_path) as store:
        materialize.write(view, event_table(history), store)
        watched = Watched(store)
        reader = follow(view, watched)
        question = {"carrier": "UA", "origin": "EWR"}
        first = reader.assemble(question, at).columns
        assert len(watched.reads) == 2
        watched.reads.clear()
        assert reader.assemble(question, at).columns == first
        assert len(watched.reads) == 1


@pytest.mark.slow
def test_tiles_that_left_the_longest_window_are_deleted_and_the_entity_becomes_one_row(tmp_path, few_are_many):
    view = view_of(ttl=None)
    with online_store(tmp_path) as store:
        materialize.write(view, event_table(spaced(60)), store)
        full = tiles_in(store, view)
        assert full > 30
        assert store.count(plan_view(view).digest) == 1
        for number in range(60, 120):
            row = spaced(1, start=START + number * HOUR // 10)[0] | {"flight": number}
            materialize.write(view, event_table([row]), store)
        assert tiles_in(store, view) <= 64
        row = spaced(1, start=START + 100 * HOUR)[0] | {"flight": 1000}
        materialize.write(view, event_table([row]), store)
        assert tiles_in(store, view) == 0
        answer = follow(view, store).assemble({"carrier": "UA", "origin": "EWR"}, START + 100 * HOUR).columns
        assert answer["delays__rows_5h"] == 1.0


@pytest.mark.parametrize("fault", ["missing", "changed"])
def test_a_tile_that_is_missing_or_changed_is_a_clear_error_for_readers_and_writers(tmp_path, few_are_many, fault):
    view = view_of(ttl=None)
    history = spaced(60)
    at = history[-1]["event"] + 1
    digest = plan_view(view).digest
    key = (digest, lookup.entity_key(["UA"]))
    with online_store(tmp_path) as store:
        materialize.write(view, event_table(history), store)
        row = packed.unpack(store.get([key])[0], len(plan_view(view).tail_columns))
        hurt = [tiles.tile_key(key, tile.number) for tile in row.tiles]

        def hurting(rows):
            for one in hurt:
                if fault == "missing":
                    rows.delete(one)
                else:
                    rows.put(one, b"\1" * len(store.get([one])[0]))

        store.update(hurting)
        words = "is missing" if fault == "missing" else "not as it was written"
        with pytest.raises(PackedRowDamaged, match=words):
            follow(view, store).assemble({"carrier": "UA", "origin": "EWR"}, at)
        with pytest.raises(PackedRowDamaged, match=words):
            materialize.write(view, event_table(spaced(1, start=at)), store)


def test_a_row_from_the_far_future_does_not_make_every_push_rewrite_tiles(tmp_path, few_are_many):
    view = view_of(ttl=None)
    history = spaced(50)
    now = history[-1]["known"]
    with online_store(tmp_path) as store:
        materialize.write(view, event_table(history), store)
        mistaken = history[0] | {"flight": 999, "event": now + 10_000 * HOUR, "known": now + 1}
        materialize.write(view, event_table([mistaken]), store)
        watched = Watched(store)
        news = history[0] | {"flight": 1000, "event": now + 2, "known": now + 2}
        assert materialize.write(view, event_table([news]), watched).written == 1
        assert len(watched.put) == 1
        question = {"at": now + 2, "carrier": "UA", "origin": "EWR"}
        offline = joined(view, [*history, mistaken, news], [question]).to_pylist()[0]
        assert as_told(follow(view, store).assemble(question, now + 2).columns, view) == as_told(offline, view)


def test_an_entity_without_tiles_is_kept_as_it_always_was(tmp_path):
    view = view_of(ttl=None)
    key = (plan_view(view).digest, lookup.entity_key(["UA"]))
    with online_store(tmp_path) as store:
        materialize.write(view, event_table(spaced(20)), store)
        data = store.get([key])[0]
    assert data[:2] == b"\x97\x01"  # an array of seven parts, the first being format 1


def test_a_sum_of_tiles_beyond_64_bits_is_refused(tmp_path):
    view = view_of()
    rows = [row | {"delay": 2.8e8} for row in spaced(33_000, step=100_000)]
    at = rows[-1]["event"]
    question = {"at": at, "carrier": "UA", "origin": "EWR"}
    with online_store(tmp_path) as store:
        materialize.write(view, event_table(rows), store)
        assert tiles_in(store, view) > 0
        with pytest.raises(SumTooLarge):
            follow(view, store).assemble(question, at)


def test_sixty_thousand_events_of_one_entity_are_told_as_the_join_tells_them(tmp_path):
    source = FrameSource(None, name="scans", event_timestamp="event", known_at="known", event_key=("flight",))

    @feature_view(entity=Entity("thing", keys=("carrier",)), source=source)
    class scans:
        rows_3d = agg.count(window="3d")
        mean_3d = agg.mean("delay", window="3d")
        spread_1d = agg.std("delay", window="1d")
        most_3d = agg.max("delay", window="3d")
        kinds_3d = agg.count_distinct("status", window="3d")
        count_1h = agg.count("delay", window="1h")
        last_delay = agg.last("delay")

    many, more = 60_000, 40
    random = np.random.default_rng(7)
    event_us = START + np.sort(random.integers(0, 80 * HOUR, many + more))
    known_us = np.sort(event_us + random.integers(0, HOUR // 60, many + more))
    times = pa.timestamp("us", tz="UTC")
    table = pa.table(
        {
            "event": pa.array(event_us, times),
            "known": pa.array(known_us, times),
            "carrier": ["UA"] * (many + more),
            "flight": np.arange(many + more),
            "delay": random.normal(0, 1e6, many + more).round(2),
            "status": pa.array([f"s{i}" for i in random.integers(0, 50, many + more)]),
        }
    )
    with online_store(tmp_path) as store:
        materialize.write(scans, table.slice(0, many), store)
        assert 50 < tiles_in(store, scans) <= 66
        watched = Watched(store)
        for first in range(many, many + more, 10):
            assert materialize.write(scans, table.slice(first, 10), watched).written == 10
        assert len(watched.put) <= 8  # the row itself for each push, and now and then a tile that is complete
        reader = follow(scans, store)
        asked = [
            {"at": int(known_us[-1]) + later_us, "carrier": "UA", "origin": "EWR"}
            for later_us in (-HOUR // 2, -1, 0, 1, HOUR // 3, 5 * HOUR, 60 * HOUR, 200 * HOUR)
        ]
        offline = join.as_of(question_table(asked), {"scans": scans}, {"scans": table}).to_pylist()
        for question, row in zip(asked, offline, strict=True):
            assert as_told(reader.assemble(question, question["at"]).columns, scans) == as_told(row, scans)


def test_an_older_row_that_comes_late_is_not_taken_for_the_latest_among_rows_that_were_left_out(tmp_path):
    @feature_view(entity=Entity("carrier"), source=view_of(ttl=None).source)
    class newest:
        delay = agg.last("delay")

    history = spaced(10)
    late = history[4] | {"flight": 99, "event": history[4]["event"] + 1, "known": history[4]["event"] + 1}
    at = history[5]["event"] + 1
    with online_store(tmp_path) as store:
        materialize.write(newest, event_table(history), store, known_by_us=history[-1]["known"])
        materialize.write(newest, event_table([late]), store)
        with pytest.raises(AskedBeforeTail):  # the row of history[5], which was the latest then, is not there
            follow(newest, store).assemble({"carrier": "UA"}, at)
