"""A year of retraining policies on real flights: what was retraining worth? Minutes long: `make long`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from seatrial import Project
from seatrial.core.clock import to_us
from seatrial.core.signature import as_floats
from seatrial.core.windows import Window
from seatrial.retraining.backtest import backtest
from seatrial.stats.metrics import log_loss
from seatrial.testing import FakeClock
from seatrial.verbs.inputs import columns

APRIL = datetime(2013, 4, 1, 4, tzinfo=UTC)
NEW_YEAR = datetime(2014, 1, 2, tzinfo=UTC)


@pytest.mark.long
def test_never_is_worse_than_on_alarm_and_that_than_every_week(tmp_path):
    with Project.init(tmp_path / "flights", "flights") as project:
        project.clock = FakeClock(NEW_YEAR)
        model = project.definitions.model("late")
        rows, _, request, _ = project._inputs.rows(model, window=Window(0, to_us(NEW_YEAR)))
        labels = as_floats(rows["late"].to_pylist())
        mondays = [to_us(APRIL + timedelta(days=7 * week)) for week in range(40)]
        policies = {
            "never": mondays[:1],
            "on alarm": [
                to_us(APRIL),
                to_us(datetime(2013, 4, 29, 4, tzinfo=UTC)),
                to_us(datetime(2013, 10, 7, 4, tzinfo=UTC)),
            ],
            "weekly": mondays,
        }
        losses = {}
        for name, instants in policies.items():
            scores = backtest(model, rows, request, instants, columns)
            known = (labels == labels) & (scores == scores)
            losses[name] = log_loss(labels[known], scores[known])
    assert losses["never"] == pytest.approx(0.478, abs=0.005)
    assert losses["on alarm"] == pytest.approx(0.462, abs=0.005)
    assert losses["weekly"] == pytest.approx(0.458, abs=0.005)
    assert losses["never"] > losses["on alarm"] > losses["weekly"]
