from __future__ import annotations

import io
import os
import pty

import pytest

from seatrial.cli import render, talk
from seatrial.core.errors import UsageError
from seatrial.core.inert import inert
from seatrial.monitoring.alerting.telling import lines, title
from seatrial.monitoring.routes.mail import compose, read

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202etxt.exe\x00"


def test_nothing_that_a_terminal_obeys_is_left_and_all_else_stays():
    assert inert(EVIL) == r"\x1b]0;owned\x07\x1b[2J\x9b31m\x0d\u202etxt.exe\x00"
    plain = "Zürich, 東京 ✓ 🚢\n\tindented"
    assert inert(plain) == plain


@pytest.mark.parametrize(
    "block",
    [render.Line(f"owner {EVIL}"), render.Table(("owner", EVIL), [[EVIL, f"1{EVIL}"]])],
    ids=["a line", "a table"],
)
def test_what_is_printed_holds_no_sequence_of_others(block):
    out = io.StringIO()
    render.write([block], out)
    assert not set(out.getvalue()) & set("\x1b\x07\x9b\r\u202e\x00")
    assert r"\x1b]0;owned\x07" in out.getvalue()


def test_on_a_terminal_too():
    mine, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as out:
        render.write([render.Line(f"owner {EVIL}", "red"), render.Table(("owner",), [[EVIL]])], out)
        out.flush()
        shown = os.read(mine, 100_000).decode()
    os.close(mine)
    assert "\x1b]0;" not in shown
    assert "\x1b[2J" not in shown
    assert "\u202e" not in shown


def test_an_error_is_shown_and_not_obeyed(capsys):
    talk.problem(UsageError(f"'{EVIL}' is no model."), as_json=False)
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert r"'\x1b]0;owned\x07" in said


def test_a_mail_and_a_title_hold_nothing_that_is_obeyed():
    facts = ("model", "alarm", "headline", "words", "action", "runbook", "owner", "window", "at", "explain", "timeline")
    alert = dict.fromkeys(facts, EVIL) | {"id": "alert_1", "severity": "high"}
    message = {"event": "opened", "page": True, "alert": alert, "alerts": [alert], "count": 1, "id": "msg_1"}
    letter = compose(message, read("smtp://h?to=a@example.org&from=b@example.org"))
    for shown in (title(message), *lines(message), str(letter["Subject"]), letter.get_content()):
        assert not set(shown) & set("\x1b\x07\x9b\r\u202e\x00")
    assert letter.keys().count("Subject") == 1
