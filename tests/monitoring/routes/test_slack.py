"""Slack: what it takes, in its sizes, and nothing that a model is called can call everybody."""

from __future__ import annotations

import pytest

from seatrial.monitoring.routes.slack import HEADER, SECTION, payload, send
from tests.monitoring.alerted import HERE, Hook

ALERT = {
    "id": "alert_1",
    "model": "late",
    "alarm": "f1 below 0.7 over 7d",
    "severity": "high",
    "headline": "Late flights are under-predicted",
    "words": "f1 0.5, bound 0.7",
    "action": "Look at the data",
    "window": "2013-04-16/2013-04-23",
    "owner": "flight-ops",
    "runbook": "docs/runbook.md",
    "explain": "seatrial explain p-1",
    "timeline": "seatrial incident alert_1",
    "at": "2013-04-23T00:00:00Z",
}


def message(**changes):
    alert = ALERT | changes
    return {"event": "opened", "page": True, "alert": alert, "alerts": [alert], "count": 1}


def texts(thing):
    return [thing["text"], *(block["text"]["text"] for block in thing["blocks"])]


def test_a_page_is_a_line_and_blocks_with_all_that_is_needed_at_night():
    line, head, body = texts(payload(message()))
    assert line == ":red_circle: [page] late: Late flights are under-predicted"
    assert head == "[page] late: Late flights are under-predicted"
    for part in (
        "Owner: flight-ops",
        "Runbook: docs/runbook.md",
        "`seatrial explain p-1`",
        "`seatrial incident alert_1`",
    ):
        assert part in body


def test_nothing_in_it_calls_anybody_or_hides_a_link():
    for text in texts(payload(message(headline="<!channel> & <https://evil.example|click>", words="<@U1>")))[::2]:
        assert "<" not in text
        assert "&lt;" in text


def test_it_is_cut_to_what_slack_takes():
    _, head, body = texts(payload(message(headline="x" * 500, words="y" * 9000)))
    assert (len(head), len(body)) == (HEADER, SECTION)


def test_a_resolved_one_says_so():
    thing = payload(message(reason="the alarm is quiet again") | {"event": "resolved", "page": False})
    assert thing["text"] == ":large_green_circle: [over] late: f1 below 0.7 over 7d: the alarm is quiet again"


@pytest.mark.parametrize(("status", "why"), [(200, ""), (404, "it answered 404")])
def test_it_is_posted_and_a_refusal_is_said(status, why):
    hook = Hook(status)
    assert send(f"slack+{hook.url}", message(), HERE, 5) == why
    hook.close()
    assert hook.got == [payload(message())]
