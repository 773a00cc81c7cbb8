from __future__ import annotations

import io
import tracemalloc
from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from seatrial.cli import rehearsed, render
from seatrial.core.clock import from_us as instant
from seatrial.core.clock import iso
from seatrial.core.windows import DAY_US, HOUR_US
from seatrial.monitoring.definition import Monitor
from seatrial.monitoring.policy import rehearsal as rehearsal_module
from seatrial.monitoring.policy import watch
from seatrial.monitoring.policy.rehearsal import Rehearsal, rehearse
from seatrial.monitoring.rows.reference import Reference
from seatrial.monitoring.rows.sample import FEATURE
from tests.monitoring.policy.test_watch import REFERENCE, TESTED, after, at_hour, rows, run
from tests.monitoring.worlds import START_US

NARROW = Reference("x0", 20_000, {"x0": REFERENCE.columns["x0"]})


def rehearsal(sample, *, monitor=None, reference=REFERENCE, from_us=START_US, until_us=None, **more):
    monitor = monitor or Monitor("late", every="1h")
    state = watch.begin("rel_1", START_US, HOUR_US)
    until_us = until_us or int(sample.at_us()[-1]) + HOUR_US
    return rehearse(
        monitor, state, watch.source_of(sample, reference, TESTED), from_us=from_us, until_us=until_us, **more
    )


@pytest.fixture(scope="module")
def calm():
    return rehearsal(rows(8 * 24, 400, seed=21))


@pytest.fixture(scope="module")
def stormy():
    """Three of twelve days on which an input is elsewhere."""
    moved = {1: 1.5, 5: 1.5, 10: 1.5}
    parts = [rows(24, 60, seed=day, moved=moved.get(day, 0.0), first=at_hour(24 * day)) for day in range(12)]
    return after(*parts)


def test_a_calm_past_is_within_the_budget_and_needs_no_other_thresholds(calm):
    assert (calm.raised, calm.within, calm.thresholds, calm.snippet) == (0, True, {}, "")
    assert calm.usual > 10
    assert (calm.windows, calm.every) == (192, "1h")


def test_planted_incidents_are_found_and_it_is_said_how_soon(calm):
    moved, missing, scores = calm.incidents
    assert (moved.words, moved.planted, moved.found) == ("an input moves by 0.5 sd", 12, 12)
    assert moved.p95 <= 2
    assert missing.found == missing.planted == 16
    assert scores.found == scores.planted == 4
    assert 1 <= missing.median <= missing.p95 <= 20


def test_alarms_are_told_with_their_hour_and_the_proposed_thresholds_meet_the_budget(stormy):
    monitor = Monitor("late", every="1h", false_alarms_per_month=3)
    found = rehearsal(stormy, monitor=monitor)
    assert not found.within
    first = found.alarms[0]
    assert first.subject == "x0"
    assert at_hour(25) <= _us(first.at) <= at_hour(28)
    assert set(found.thresholds) == {"level:x0"}
    assert first.series == ["level:x0"]
    assert found.proposed <= 1
    again = Monitor("late", every="1h", false_alarms_per_month=3, thresholds=found.thresholds)
    assert rehearsal(stormy, monitor=again).raised == found.proposed
    assert f'thresholds={{"level:x0": {found.thresholds["level:x0"]:g}}}' in found.snippet


@pytest.mark.parametrize("declared", [{"*": 2}, {"level": 2}, {"level:x0": 2}, {"x0": 2}, {"x0": 9, "level:x0": 2}])
def test_thresholds_are_raised_from_what_is_declared_under_the_name_of_the_series(stormy, declared):
    monitor = Monitor("late", every="1h", false_alarms_per_month=0.1, thresholds=declared)
    found = rehearsal(stormy, monitor=monitor)
    assert set(found.thresholds) == {"level:x0"}
    assert 2 < found.thresholds["level:x0"] < 50
    assert found.proposed == 0


def test_a_threshold_that_names_nothing_is_said(calm):
    monitor = Monitor("late", every="1h", thresholds={"missing_x0": 3, "error": 2, "kind": 2, "*": 1})
    found = rehearsal(rows(12, 200, seed=21), monitor=monitor)
    told = [note for note in found.notes if "multiplies nothing" in note]
    words = "the threshold of 'missing_x0' multiplies nothing: no series has the name. Did you mean 'missing:x0'?"
    assert told == [words]
    mended, _ = run(rows(13, 200, seed=21), state=run(rows(12, 200, seed=21), monitor=monitor)[0])
    assert not any("multiplies nothing" in note for note in mended.notes)


def test_no_threshold_is_proposed_for_an_alert_that_is_open_nor_for_the_error(stormy):
    monitor = Monitor("late", every="1h", false_alarms_per_month=3)
    found = rehearsal(stormy, monitor=monitor, open_alerts=("inputs have moved",))
    assert (found.within, found.thresholds, found.snippet, found.proposed) == (False, {}, "", found.raised)
    assert found.kept == found.raised
    assert "no threshold is proposed to silence them" in text_of(found)
    assert "Whether an alarm of the past was false only you know." in text_of(found)
    wrong = [rows(24, 60, seed=day, **_turned(day), first=at_hour(24 * day)) for day in range(12)]
    found = rehearsal(after(*wrong), monitor=Monitor("late", every="1h", false_alarms_per_month=0.1))
    assert "error" in {one.subject for one in found.alarms}
    assert "error" not in found.thresholds


def _turned(day):
    """On one day nothing is as it was said."""
    return {"label": pa.array(np.random.default_rng(day).integers(0, 2, 24 * 60).astype(float))} if day == 5 else {}


def _us(text):
    from seatrial.core.clock import parse_time, to_us

    return to_us(parse_time(text))


def test_the_snippet_is_python_that_declares_this_monitor(stormy):
    found = rehearsal(stormy, monitor=Monitor("late", every="1h", false_alarms_per_month=3))
    assert eval(found.snippet, {"Monitor": Monitor}).thresholds == found.thresholds


def test_only_the_asked_for_time_is_counted(stormy):
    later = rehearsal(stormy, from_us=at_hour(24 * 8))
    assert {one.at >= iso(instant(at_hour(24 * 8))) for one in later.alarms} == {True}
    assert later.windows == 96


def test_what_began_before_and_still_rings_is_told_beside_the_headline_and_not_counted(stormy):
    midday = rehearsal(stormy, from_us=at_hour(24 * 5 + 12), until_us=at_hour(24 * 6))
    assert (midday.raised, midday.within) == (0, True)
    assert [one.subject for one in midday.earlier] == ["x0"]
    assert at_hour(24 * 5) < _us(midday.earlier[0].at) <= at_hour(24 * 5 + 4)
    began = f"x0 since {midday.earlier[0].at[:16].replace('T', ' ')}"
    first, second, *_ = text_of(midday).splitlines()
    assert first.startswith("WITHIN THE BUDGET: 0 alarms began")
    assert second == f"1 alarm that began before still rang: {began}"
    whole = rehearsal(stormy)
    assert whole.earlier == []
    assert midday.earlier[0].at in {one.at for one in whole.alarms}


def test_where_no_window_is_over_it_says_so():
    found = rehearsal(rows(1, 10), until_us=START_US + HOUR_US // 2)
    assert (found.windows, found.within) == (0, False)
    assert "nothing to rehearse on" in found.notes[0]
    assert "NOTHING TO REHEARSE" in text_of(found)


def test_without_a_reference_or_numbers_no_incident_is_made_up():
    sample = rows(48, 60, seed=22)
    assert rehearsal(sample, reference=None).incidents == []
    words = Reference.from_table(sample.rows, columns=["kind"])
    only = rehearsal(sample, reference=Reference("words", 9, words.columns))
    assert [one.words for one in only.incidents] == ["3% more of an input is missing"]


def test_a_rehearsal_outlives_json_and_reads_well(calm, stormy):
    assert msgspec.json.decode(msgspec.json.encode(calm), type=Rehearsal) == calm
    assert "WITHIN THE BUDGET: 0 alarms began, 0.0 a month" in text_of(calm)
    over = text_of(rehearsal(stormy))
    assert "OVER THE BUDGET" in over
    assert "thresholds={" in over


def text_of(found):
    out = io.StringIO()
    render.write(rehearsed.lines(found), out)
    return out.getvalue()


def memory(days):
    """The most bytes of Python, numpy and Arrow at once while so many days are rehearsed, whose rows are made when they
    are read."""

    def read(window):
        hours = (window.end_us - window.start_us) // HOUR_US
        return rows(hours, 40, seed=window.start_us // HOUR_US, numbers=1, first=window.start_us)

    source = watch.Source(read, lambda _: rows(0), lambda _: (NARROW, {}))
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        state = watch.begin("rel_1", START_US, HOUR_US)
        rehearse(Monitor("late", every="1h"), state, source, from_us=START_US, until_us=at_hour(24 * days))
        return tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


def test_the_memory_of_a_rehearsal_does_not_grow_with_the_rows():
    assert memory(21) < 1.15 * memory(7)


def test_columns_of_constants_are_no_place_for_an_incident():
    sample = rows(48, 60, feature_x0=pa.array(np.ones(48 * 60)))
    found = rehearsal(sample, reference=Reference.from_table(sample.rows))
    assert found.incidents[0].planted == 8


def test_incidents_are_planted_where_as_many_windows_follow_as_are_looked_at(monkeypatch):
    seen = []
    real = rehearsal_module._delay

    def delay(kind, place, runs, monitor, source, horizon):
        left = sum(len(part.windows) for part, _, _ in runs[place[0] :]) - place[1]
        seen.append((place, left, horizon))
        return real(kind, place, runs, monitor, source, horizon)

    monkeypatch.setattr(rehearsal_module, "_delay", delay)
    sample = rows(28 * 24, 10, numbers=1, seed=23)
    state = watch.begin("rel_1", START_US, DAY_US)
    source = watch.source_of(sample, REFERENCE, {})
    found = rehearse(
        Monitor("late", every="1d"), state, source, from_us=START_US, until_us=at_hour(28 * 24)
    )  # fmt: skip
    assert {one.horizon for one in found.incidents} == {14}
    assert all(left >= 14 == horizon for _, left, horizon in seen)
    assert len({place for place, _, _ in seen}) == 4
    short = rehearsal(rows(20, 60, numbers=1, seed=23))
    assert {one.horizon for one in short.incidents} == {10}


def test_of_several_classes_no_incident_is_planted_in_scores_that_nobody_watches():
    sample = rows(96, 200, seed=24)
    said = sample.rows[f"{FEATURE}kind"]
    sample = replace(sample, task="multiclass", rows=sample.rows.append_column("predicted_class", said))
    reference = replace(REFERENCE, predicted=REFERENCE.columns["kind"])
    words = [one.words for one in rehearsal(sample, reference=reference).incidents]
    assert words == ["an input moves by 0.5 sd", "3% more of an input is missing"]


def test_an_input_that_is_far_all_the_time_begins_once_by_the_usual_rule():
    monitor = Monitor("late", every="1h", false_alarms_per_month=100)
    found = rehearsal(rows(9 * 24, 60, numbers=1, moved=3.0, seed=25), monitor=monitor, reference=NARROW)
    assert found.usual == 1


@pytest.mark.parametrize("from_hours", [12, 30])
def test_a_time_in_which_nothing_came_has_nothing_to_rehearse_on(from_hours):
    found = rehearsal(rows(12, 60, seed=26), from_us=at_hour(from_hours), until_us=at_hour(40))
    assert (found.windows, found.within, found.raised) == (0, False, 0)
    assert "nothing came after 2013-04-01T12:00:00Z, so there is nothing to rehearse on" in found.notes
    assert found.from_ < found.until
