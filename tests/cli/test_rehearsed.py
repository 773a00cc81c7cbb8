"""A rehearsal in the terminal: whether the budget is met, what rang, what would be found, and what to declare."""

from __future__ import annotations

import io

import msgspec
import pytest

from seatrial.cli import rehearsed, render
from seatrial.monitoring.policy.rehearsal import FORMAT, Incident, Raised, Rehearsal

FROM, UNTIL = "2024-02-07T00:00:00Z", "2024-03-06T00:00:00Z"
FOUND = Incident("an input moves by 0.5 sd", 8, 8, 1.0, 2.4, 48)
LOST = Incident("scores move by 0.25 sd", 4, 0, None, None, 48)
NOWHERE = Incident("scores move by 0.25 sd", 0, 0, None, None, 48)


def told(**changes) -> str:
    plain = Rehearsal(
        FORMAT, "late", FROM, UNTIL, "1d", 28, 9, 0, 1.0, [], 0, 0.0, 3, 3.2, True, [FOUND, LOST], {}, 0, (0, 0.0), "",
        [],
    )  # fmt: skip
    out = io.StringIO()
    render.write(rehearsed.lines(msgspec.structs.replace(plain, **changes)), out)
    return out.getvalue()


def test_a_quiet_past_is_within_the_budget_and_needs_no_other_thresholds():
    assert told().splitlines() == [
        "WITHIN THE BUDGET: 0 alarms began, 0.0 a month; the budget is 1 a month",
        "KS p < 0.05 for each input would have begun 3 alarms, 3 a month",
        "",
        "late, 2024-02-07 00:00 to 2024-03-06 00:00, 28 windows of 1d, 9 series, of 0 the season is known",
        "",
        "planted                   found   half of them within   95 % within",
        "an input moves by 0.5 sd  8 of 8  1 window              2 windows",
        "scores move by 0.25 sd    0 of 4  more than 48 windows  more than 48 windows",
        "",
        "The thresholds can stay as they are.",
    ]


def test_a_past_in_which_nothing_planted_is_found_may_be_quiet_because_nothing_is_seen():
    text = told(incidents=[LOST, LOST])
    assert "It may be quiet because it sees nothing: none of 8 planted incidents was found." in text
    assert "The thresholds can stay as they are." not in text


def test_where_nothing_could_be_planted_nothing_is_said_of_being_blind():
    text = told(incidents=[NOWHERE])
    assert "scores move by 0.25 sd  nowhere: in alarm already  -" in text
    assert "sees nothing" not in text


@pytest.mark.parametrize(
    ("proposed", "words"), [(0, "none of them remains"), (1, "1 of them remains"), (2, "2 of them remain")]
)
def test_thresholds_that_meet_the_budget_can_be_pasted(proposed, words):
    snippet = 'Monitor("late", every="1d", false_alarms_per_month=1,\n        thresholds={"size": 8.79})'
    rang = [Raised("2024-02-22T00:00:00Z", "size", "'size' +1.22 sd")]
    text = told(
        within=False, alarms=rang, raised=1, a_month=1.1, thresholds={"size": 8.79}, proposed=proposed, snippet=snippet
    )
    assert text.startswith("OVER THE BUDGET: 1 alarm began, 1.1 a month; the budget is 1 a month\n")
    assert "2024-02-22 00:00  size   'size' +1.22 sd\n" in text
    assert f'With these thresholds {words}:\n  Monitor("late", every="1d"' in text
