"""A report in the terminal: the verdict and the next step first, nothing said where there is nothing to say."""

from __future__ import annotations

import io

import msgspec

from seatrial.cli import render
from seatrial.cli.report import monitor_lines
from seatrial.monitoring.report import Day, Drift, Performance, System
from tests.monitoring.pages.test_page import report


def shown(one) -> str:
    out = io.StringIO()
    render.write(monitor_lines(one), out)
    return out.getvalue()


def test_the_verdict_and_the_next_step_come_first():
    lines = shown(report()).splitlines()
    assert lines[0] == "ACT: Late flights are under-predicted: 42 % were late, the model said 22 %."
    assert lines[1] == "Next: Find out what changed in the world."


def test_labels_days_alarms_inputs_and_failed_checks_are_shown():
    text = shown(report())
    assert "6,300 predictions; 84 % of their labels have arrived (5,280)" in text
    assert "2013-04-22          900     880       0.22      0.57" in text
    assert "FIRED" in text
    assert "1 of 2 inputs moved, against training rows" in text
    assert "not enough data: 0 of 200 rows" in text
    assert "✗ range of temp: 12 % outside; expected: at most 1 %" in text
    assert "p99 3000 ms, degraded 1.0 %" in text


def test_a_day_that_is_there_in_part_is_marked_and_where_days_begin_is_said():
    days = [
        Day("2026-11-21T02:29:00Z", 20, 10, 0.2, 0.2, 0.3, "2026-11-22T00:00:00Z", True),
        Day("2026-11-22T00:00:00Z", 30, 10, 0.2, 0.2, 0.3, "2026-11-23T00:00:00Z"),
    ]
    text = shown(with_days(days))
    assert "2026-11-21 (part)" in text
    assert "2026-11-22  " in text
    assert "days begin" not in text
    evening = Day("2026-11-21T18:00:00Z", 20, 10, 0.2, 0.2, 0.3, "2026-11-22T18:00:00Z")
    text = shown(with_days([evening]))
    assert "2026-11-22  " in text
    assert "days begin at 18:00 UTC, as the window does" in text


def with_days(days):
    one = report()
    return msgspec.structs.replace(one, performance=msgspec.structs.replace(one.performance, days=days))


def test_a_report_on_nothing_is_short():
    nothing = Performance(0, 0, {}, {}, {}, None, None, None, [], [], {})
    empty = msgspec.structs.replace(
        report(),
        verdict="unknown",
        quality=[],
        alarms=[],
        performance=nothing,
        drift=Drift("", [], None, "no reference"),
        system=System(0, None, None, None, None, None),
    )
    text = shown(empty)
    assert text.startswith("NOT KNOWN: ")
    assert "no predictions in this window" in text
    assert "no reference" in text
    assert len(text.splitlines()) < 10
