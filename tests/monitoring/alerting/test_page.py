"""The operator's page docs/alerts.md: whatever can ring stands in its tables."""

from __future__ import annotations

import ast
import re

import pytest

from seatrial.export.prometheus import _monitoring
from seatrial.monitoring import looks
from seatrial.monitoring.alerting import rules
from seatrial.monitoring.alerting.cadence import NAMES, Cadence
from seatrial.monitoring.definition import OTHER, Alarm
from seatrial.monitoring.policy.watch import GROUPS
from tests.house.tree import ROOT

PAGE = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
SILENCES = [*NAMES.values(), Cadence("late", "view NAME", "missed", "").alarm]
PROMETHEUS = [rule["alert"] for rule in _monitoring()]


def named(heading):
    """What stands as code in the first cells of the table under this heading."""
    rows = PAGE.split(heading, 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    return {name for row in rows for name in re.findall(r"`([^`]*)`", row.split(" | ")[0])}


def hard_rules():
    """The names of all checks that can fail: their third argument is not just True."""
    for file in sorted((ROOT / "src/seatrial/monitoring" / looks.__name__.rpartition(".")[2]).glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Check":
                name, _, passed = node.args[:3]
                if not (isinstance(passed, ast.Constant) and passed.value is True):
                    yield ast.literal_eval(name)


@pytest.mark.parametrize(
    "name",
    [
        *(group.name for group in GROUPS),
        rules.NAME,
        *SILENCES,
        *PROMETHEUS,
        *sorted(OTHER),
        "missing:COLUMN",
        Alarm.calibration().name.partition(" above")[0],
    ],
)
def test_every_alarm_stands_in_the_table_of_what_to_do(name):
    assert name in named("| it says | it means | do first |")


def test_every_hard_rule_of_the_data_stands_in_their_table():
    found = set(hard_rules())
    assert {"values there", "type", "volume"} <= found
    assert named("| rule that failed | it means | do first |") == found
