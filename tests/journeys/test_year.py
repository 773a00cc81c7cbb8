"""A year of retraining policies on real flights: what was retraining worth? Minutes long: `make long`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from seatrial import Project
from seatrial.cli.story import WEEK, WEEKLY, day, left_alone, when_asked
from seatrial.core.clock import to_us
from seatrial.core.signature import as_floats
from seatrial.core.windows import Window
from seatrial.retraining.backtest import backtest
from seatrial.stats.metrics import log_loss
from seatrial.testing import FakeClock
from seatrial.verbs.inputs import columns
from tests.journeys.pictures import note, rounded

pytestmark = pytest.mark.long
NEW_YEAR = datetime(2014, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def year(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """Every flight of the year, and what the model of the winter says of those since April."""
    with Project.init(tmp_path_factory.mktemp("year") / "flights", "flights") as project:
        project.clock = FakeClock(NEW_YEAR)
        model, retrain = project.definitions.model("late"), project.definitions.retrains["late"]
        rows, _, request, _ = project._inputs.rows(model, window=Window(0, to_us(NEW_YEAR)))
        labels = as_floats(rows["late"].to_pylist())

        def retrained(*instants: datetime) -> np.ndarray:
            return backtest(model, rows, request, [to_us(one) for one in instants], columns)

        winter = retrained(day(4, 1))
        known = ~np.isnan(labels) & ~np.isnan(winter)
        fired, on_alarm = when_asked(model, retrain, rows, request, winter)
        yield SimpleNamespace(
            rows=rows, retrain=retrain, retrained=retrained, winter=winter, fired=fired, on_alarm=on_alarm,
            loss=lambda scores: log_loss(labels[known], scores[known]),
        )  # fmt: skip


def test_asked_every_monday_the_trigger_fires_on_29_april_and_on_9_september(year):
    """Whatever is live is asked about by itself: for two weeks after a training there is not enough to say."""
    assert year.fired == [day(4, 29), day(9, 9)]


def test_never_is_worse_than_on_alarm_and_that_than_every_week(year):
    mondays = [day(4, 1) + WEEK * number for number in range(40)]
    losses = [year.loss(scores) for scores in (year.winter, year.on_alarm, year.retrained(*mondays))]
    assert losses == [pytest.approx(goal, abs=0.005) for goal in (0.478, 0.462, 0.458)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(WEEKLY, abs=0.0005)
    dates = [one.date() for one in year.fired]
    note("year", dict(zip(("never", "on alarm", "weekly"), map(rounded, losses), strict=True)) | {"fired": dates})


def test_the_challenger_of_29_april_would_have_been_shown_to_be_better_had_nobody_rejected_it_after_sixty_days(year):
    """The project lets one be judged for ninety; by the last day of June no look says better."""
    when, found = left_alone(year.retrain, year.rows, year.winter, year.retrained(day(4, 29)), day(4, 29))
    assert (when, found.verdict, len(found.days)) == (day(7, 15), "better", 76)
    note(
        "left alone",
        {"when": when.date(), "gain": rounded(found.gain), "low": rounded(found.low), "high": rounded(found.high)},
    )
