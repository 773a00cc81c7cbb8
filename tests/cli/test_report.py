"""A report in the terminal: the verdict and the next step first, nothing said where there is nothing to say."""

from __future__ import annotations

import io

import msgspec

from seatrial.cli import render
from seatrial.cli.report import listing, monitor_lines
from seatrial.monitoring.figures import Estimate
from seatrial.monitoring.looks.estimate import BLIND
from seatrial.monitoring.pages.page import html
from seatrial.monitoring.report import Day, Drift, Performance, System
from tests.monitoring.pages.test_page import report


def shown(one, **how) -> str:
    return written(monitor_lines(one, **how))


def written(blocks) -> str:
    out = io.StringIO()
    render.write(blocks, out)
    return out.getvalue()


def test_the_verdict_and_the_next_step_come_first():
    lines = shown(report()).splitlines()
    assert lines[0] == "ACT: Late flights are under-predicted: 42 % were late, the model said 22 %."
    assert lines[1] == "Next: Find out what changed in the world."


def test_labels_days_alarms_inputs_and_failed_checks_are_shown():
    text = shown(report())
    assert "6,300 predictions; 84 % of their labels have arrived (5,280)" in text
    assert "2013-04-22          900     880      0.220     0.570" in text
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


def guessed(**changes):
    """A report with an estimate."""
    one = Estimate({"roc_auc": 0.71}, {"roc_auc": (0.68, 0.74)}, {"roc_auc": 0.75}, BLIND, "the test part", 6300)
    return msgspec.structs.replace(report(), estimate=msgspec.structs.replace(one, **changes))


def test_what_an_estimate_cannot_see_stands_beside_it_on_the_terminal_and_on_the_page():
    assert "only labels can" in BLIND
    for detail in (False, True):
        estimate, below, *_ = shown(guessed(), detail=detail).split("estimate:")[1].splitlines()
        assert estimate.strip().startswith("roc_auc 0.71 [0.68, 0.74], of all 6,300 rows, without their labels")
        assert below.strip() == f"! {BLIND}"
    page = html(guessed())
    assert f"; {BLIND}." in page
    assert f'<p class="blind">{BLIND[0].upper()}{BLIND[1:]}.</p>' in page


def test_where_there_is_no_estimate_the_reason_stands_in_its_place():
    text = shown(guessed(metrics={}, intervals={}, note="nothing to calibrate on: no rows"))
    assert "estimate:    nothing to calibrate on: no rows" in text
    assert BLIND not in text


def test_labels_that_are_odd_are_counted_in_words():
    one = report()
    odd = msgspec.structs.replace(one.performance, labels={"unmatched": 1, "duplicate": 2, "late": 0})
    text = shown(msgspec.structs.replace(one, performance=odd))
    assert "  1 label without a prediction\n  2 labels told again\n" in text
    assert "window's end" not in text


def test_the_metrics_of_a_report_stand_in_one_order_whether_it_was_kept_or_not():
    one = report()
    metrics = [("recall", 0.5), ("accuracy", 0.8), ("roc_auc", 0.7)]
    first, again = (
        msgspec.structs.replace(one, performance=msgspec.structs.replace(one.performance, metrics=dict(order)))
        for order in (metrics, sorted(metrics))
    )
    assert shown(first) == shown(again)
    text = shown(first)
    assert text.index("roc_auc") < text.index("accuracy") < text.index("recall")


def test_kept_reports_are_listed_with_their_verdict_and_the_newest_is_what_to_look_at_next():
    one = {"id": "rep_1", "model": "late", "as_of": "2013-04-29T04:00:00Z", "verdict": "unknown"}
    one |= {"headline": "No rows."}
    assert written(listing([one, one | {"id": "rep_2", "verdict": "ok", "headline": "All is well."}])).splitlines() == [
        "2013-04-29 04:00  late  rep_1",
        "  NOT KNOWN: No rows.",
        "2013-04-29 04:00  late  rep_2",
        "  OK: All is well.",
        "Next: seatrial reports show rep_2",
    ]
    assert written(listing([])) == "no report was kept\n"


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
