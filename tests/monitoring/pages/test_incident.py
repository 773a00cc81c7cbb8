"""The page of an incident: what to do is said of what rings."""

from __future__ import annotations

import msgspec

from seatrial.monitoring.alerting.alerts import alerts, settle
from seatrial.monitoring.alerting.incident import incident
from seatrial.monitoring.pages.incident import html
from seatrial.stores.metadata import MetadataStore
from tests.monitoring.alerted import report_on
from tests.monitoring.worlds import DAY_US, START_US

NOON = START_US + 10 * DAY_US


def test_what_to_do_is_that_of_the_alert_whose_headline_it_stands_under(tmp_path):
    metadata = MetadataStore(tmp_path / "metadata.db")
    base = report_on(10)
    alarms = [
        msgspec.structs.replace(base.alarms[0], name=name, severity=severity, evidence=f"{name} fires", action=action)
        for name, severity, action in (("a", "low", "Wait until Monday."), ("b", "high", "Roll back now."))
    ]
    settle(metadata, msgspec.structs.replace(base, alarms=alarms), actor="ann", at_us=NOON)
    every = alerts(metadata)
    found = incident(metadata, every, every[0], now_us=NOON)
    assert (found.headline, found.action) == ("b fires", "Roll back now.")
    assert '<p class="next">Roll back now.</p>' in html(found)
    assert "Monday" not in html(found)
