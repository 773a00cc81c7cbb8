"""Hard rules of data quality as an alarm: who is told that what reaches the model is broken?"""

from __future__ import annotations

import msgspec
import pytest

from seatrial.monitoring.alerting.alerts import settle
from seatrial.monitoring.alerting.rules import MOST, NAME, of_rules
from seatrial.monitoring.alerting.telling import TOPIC, title
from seatrial.monitoring.report import Check
from seatrial.stores.metadata import MetadataStore
from tests.monitoring.alerted import report_on
from tests.monitoring.worlds import DAY_US, START_US

DARK = Check("values there", "age", False, "60.0% missing of 700", "at most 10.0% (0.0% before)")


@pytest.fixture
def metadata(tmp_path):
    return MetadataStore(tmp_path / "seatrial.db")


def with_rules(day, *checks):
    """A report whose labels are as they should be, with these rules."""
    return msgspec.structs.replace(report_on(day, 0.3), quality=list(checks))


def told(metadata, day, *checks):
    return settle(metadata, with_rules(day, *checks), actor="ann", at_us=START_US + day * DAY_US)


def test_a_rule_that_failed_is_one_page_until_it_passes_again(metadata):
    passed = msgspec.structs.replace(DARK, passed=True)
    assert told(metadata, 8, passed) == []
    (alert,) = told(metadata, 9, DARK, msgspec.structs.replace(DARK, column="plan"))
    assert (alert.alarm, alert.severity, alert.state) == (NAME, "high", "open")
    assert "'age': 60.0% missing of 700" in alert.words
    assert "'plan'" in alert.words
    (_, message), *others = metadata.pending(TOPIC)
    assert (message["page"], others) == (True, [])
    assert title(message).startswith("[page] late: ")
    (again,) = told(metadata, 10, DARK)
    assert (again.id, again.seen) == (alert.id, 2)
    (over,) = told(metadata, 11, passed)
    assert (over.id, over.state) == (alert.id, "resolved")


def test_without_rows_no_rule_was_looked_at_and_nothing_is_over(metadata):
    (alert,) = told(metadata, 9, DARK)
    (same,) = told(metadata, 10)
    assert (same.id, same.state) == (alert.id, "open")


def test_its_words_stay_short_however_many_rules_failed():
    found = of_rules(with_rules(9, *[msgspec.structs.replace(DARK, column=f"c{n}") for n in range(300)]))
    assert found.value == 300
    assert found.evidence.endswith(f"; {300 - MOST} more")
    assert len(found.evidence) < 400
