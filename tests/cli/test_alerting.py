"""How one alert reads in the terminal."""

from __future__ import annotations

import msgspec

from seatrial.cli.alerting import details
from seatrial.cli.render import Line
from seatrial.monitoring.alerting.alerts import Alert


def _shown(**evidence):
    words = ["alert_1", "late", "inputs have moved", "open", "low", "It moved.", "'age' +0.5 sd"]
    one = Alert(*words, evidence, "Ask.", "2024-01-01T00:00:00Z/2024-01-08T00:00:00Z", "rel_1", "rep_1", "2024-01-08")
    return "\n".join(block.text for block in details(msgspec.to_builtins(one)) if isinstance(block, Line))


def test_an_alarm_of_the_policy_shows_no_numbers_that_mean_nothing():
    assert "numbers" not in _shown(value=1.0, threshold=0.0, rows=0, labelled=0)
    assert "numbers   value 0.2, threshold 0.1, rows 900" in _shown(value=0.2, threshold=0.1, rows=900)
