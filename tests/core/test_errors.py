"""Errors: one shape in text and in problem documents, one exit code for each kind."""

from __future__ import annotations

import pytest

from seatrial.core import errors
from seatrial.core.errors import SeatrialError, did_you_mean, listed


class ColumnMissing(errors.Failed):
    """For this test."""

    code = "test.column_missing"


def test_an_error_says_found_expected_next_and_state():
    error = ColumnMissing(
        "there is no 'a'.", expected="It has b.", next="Run x.", state="Nothing was written.", column="a"
    )
    assert str(error) == (
        "ColumnMissing [test.column_missing]: there is no 'a'.\nIt has b.\nRun x. Nothing was written."
    )
    assert error.facts == {"column": "a"}


def test_an_error_without_more_to_say_has_no_empty_lines():
    assert str(ColumnMissing("gone.", state="")) == "ColumnMissing [test.column_missing]: gone."


def test_a_problem_document_has_the_code_and_status_and_no_state():
    problem = ColumnMissing("gone.", expected="It has b.", secret="s").as_problem()
    assert problem["status"] == 422
    assert problem["code"] == "test.column_missing"
    assert problem["detail"] == "gone. It has b."
    assert "secret" not in str(problem)


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [("Failed", 1), ("UsageError", 2), ("GateRefused", 3), ("NotAllowed", 4), ("Conflict", 5), ("Unavailable", 6)],
)
def test_a_kind_fixes_the_exit_code(kind, exit_code):
    raised = getattr(errors, kind)
    assert issubclass(raised, SeatrialError)
    assert raised.exit_code == exit_code
    assert 400 <= raised.http_status < 600


def test_the_nearest_known_name_is_proposed():
    assert did_you_mean("dep_dealy", ["dest", "dep_delay"]) == "Did you mean 'dep_delay'?"
    assert did_you_mean("x", ["dest", "dep_delay"]) == ""


def test_lists_in_messages_stay_short():
    assert listed([]) == "none"
    assert listed("abc") == "a, b, c"
    assert listed("abcdefgh", most=3) == "a, b, c and 5 more"
