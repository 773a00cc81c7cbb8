"""Hard rules of data quality, as an alarm: somebody is told when what reaches the model is broken."""

from __future__ import annotations

from typing import Literal

from seatrial.monitoring.report import AlarmResult, Report

NAME = "data broken"
METRIC = "rules"
MOST = 5


def of_rules(report: Report) -> AlarmResult:
    """All hard rules of a report as one alarm of severity high; not judged where there were no rows to look at."""
    failed = [check for check in report.quality if not check.passed]
    found = [f"{one.name}{f' of {one.column!r}' if one.column else ''}: {one.found}" for one in failed]
    more = [f"{len(found) - MOST} more"] if len(found) > MOST else []
    judged: Literal["fired", "quiet"] = "fired" if failed else "quiet"
    return AlarmResult(
        name=NAME,
        state=judged if report.quality else "not_enough_data",
        severity="high",
        metric=METRIC,
        value=float(len(failed)),
        threshold=0.0,
        window=report.window,
        rows=report.rows,
        labelled=report.performance.labelled,
        evidence="; ".join([*found[:MOST], *more]),
        action=report.next,
    )
