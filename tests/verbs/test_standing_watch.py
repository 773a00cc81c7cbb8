"""The policy's standing from report to report, in a real metadata store."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from seatrial import Project
from seatrial.core.clock import from_us
from seatrial.monitoring.definition import Monitor
from seatrial.monitoring.policy import watch
from seatrial.testing import FakeClock
from seatrial.verbs.standing_watch import StandingWatch
from tests.monitoring.policy.test_watch import REFERENCE, TESTED, after, at_hour, rows
from tests.monitoring.worlds import START_US

HOURLY = Monitor("late", every="1h")


@pytest.fixture
def clock():
    return FakeClock(from_us(START_US).astimezone(UTC))


@pytest.fixture
def project(tmp_path, clock):
    with Project(tmp_path, actor="ada", clock=clock) as opened:
        opened.found()
        yield opened


def standing(project, sample, *, monitor=HOURLY, source=None):
    source = source or watch.source_of(sample, REFERENCE, TESTED)
    return StandingWatch(project, monitor, source, lambda window: sample.within(window).at_us())


def at(clock, hour) -> datetime:
    return clock.set(from_us(at_hour(hour)))


def generation(project) -> int:
    head = project.metadata.head("watch", "late")
    return 0 if head is None else head.generation


def test_any_cadence_of_reports_leaves_the_same_standing(project, clock, tmp_path):
    sample = after(rows(20, seed=51), rows(30, seed=52, moved=0.4, first=at_hour(20)))
    for hour in (3, 7, 7, 24, 50):
        at(clock, hour)
        state, _ = standing(project, sample).continued(keep=True)
    assert generation(project) == 4  # the second report of hour 7 had nothing to do
    (tmp_path / "other").mkdir()
    with Project(tmp_path / "other", actor="ada", clock=clock) as other:
        other.found()
        whole, _ = standing(other, sample).continued(keep=True)
    assert state.sums.steep_high == pytest.approx(whole.sums.steep_high)
    assert (state.cursor_us, set(state.firing)) == (whole.cursor_us, set(whole.firing))
    assert set(state.firing) == {"x0"}


def test_a_report_that_is_not_kept_leaves_no_standing(project, clock):
    at(clock, 10)
    state, _ = standing(project, rows(10, seed=53)).continued(keep=False)
    assert state.windows == 10
    assert generation(project) == 0


def test_without_a_prediction_there_is_no_standing(project, clock):
    at(clock, 10)
    assert standing(project, rows(0)).continued(keep=True) == (None, None)


def test_when_somebody_else_went_on_meanwhile_what_they_kept_counts(project, clock):
    sample = rows(10, seed=54)
    at(clock, 10)
    plain = watch.source_of(sample, REFERENCE, TESTED)
    others = []

    def read(window):
        if not others:
            others.append(None)
            others.append(standing(project, sample).continued(keep=True)[0])
        return plain.read(window)

    mine = watch.Source(read, plain.labelled, plain.compared)
    head = standing(project, sample, source=mine)
    state, _ = head.continued(keep=True)
    assert state == others[1]
    assert generation(project) == 1


def test_a_clock_that_jumped_ahead_and_back_does_not_stop_the_watch(project, clock):
    sample = after(rows(10, seed=55), rows(10, seed=56, moved=1.0, first=at_hour(10)))
    at(clock, 10)
    standing(project, sample.within(watch.Window(START_US, at_hour(10)))).continued(keep=True)
    at(clock, 24 * 400)
    ahead, _ = standing(project, sample.within(watch.Window(START_US, at_hour(10)))).continued(keep=True)
    assert ahead.cursor_us == at_hour(10)
    at(clock, 20)
    state, _ = standing(project, sample).continued(keep=True)
    assert (state.cursor_us, set(state.firing)) == (at_hour(20), {"x0"})


def test_windows_of_another_length_begin_a_watch_anew(project, clock):
    sample = rows(48, seed=57)
    at(clock, 48)
    standing(project, sample).continued(keep=True)
    state, _ = standing(project, sample, monitor=Monitor("late", every="6h")).continued(keep=True)
    assert (state.every_us, state.windows) == (6 * (at_hour(1) - START_US), 8)
    assert generation(project) == 2


def test_it_says_how_long_the_windows_are_that_are_watched(project, clock):
    pilot = rows(12 * 24, 1, seed=59)
    at(clock, 12 * 24)
    undeclared = Monitor("late")
    assert standing(project, pilot, monitor=undeclared).every == ""
    standing(project, pilot, monitor=undeclared).continued(keep=True)
    assert standing(project, pilot, monitor=undeclared).every == "7d"
    assert standing(project, pilot).every == "1h"


PARCELS = """
from seatrial import Deployment, Model, Monitor, ParquetSource

Model("late", task="binary", target="late", key=["parcel"],
      labels=ParquetSource("parcels.parquet", event_timestamp="at", label_known_at="known_at"),
      features=["request:size"], estimator="sklearn.linear_model.LogisticRegression")
Deployment("late")
Monitor("late")
"""


def test_a_rehearsal_takes_the_windows_that_are_watched(tmp_path, clock):
    (tmp_path / "project.py").write_text(PARCELS)
    with Project(tmp_path, actor="ada", clock=clock) as project:
        for hours in (*range(0, 12 * 24, 2), *np.arange(12 * 24, 13 * 24, 0.01)):
            when = from_us(at_hour(float(hours)))
            project.log.write(model="late", features={"size": 1.0}, prediction=0.0, probability=0.3, at=when)
        at(clock, 12 * 24)
        assert project.rehearse("late").every == "7d"
        at(clock, 13 * 24)
        assert project.rehearse("late").every == "1d"  # nothing is watched yet
        at(clock, 12 * 24)
        project.monitor("late")
        at(clock, 13 * 24)
        assert project.rehearse("late").every == "7d"


def test_what_is_usual_is_kept_once_and_known_again(project, clock):
    sample = rows(15 * 24, 60, seed=58, wave=0.5, numbers=1)
    for hour in (14 * 24, 14 * 24 + 6, 15 * 24):
        at(clock, hour)
        _, learned = standing(project, sample).continued(keep=True)
    assert "level:x0" in learned.usual
    seasons = {one.body["season"] for one in project.metadata.records("watch", "late")} - {""}
    assert len(seasons) == len(list(project.metadata.records("season", "late"))) == 1
