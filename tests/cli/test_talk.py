"""Talk: progress and problems are for people in front of a terminal, and silent or plain elsewhere."""

from __future__ import annotations

import io
import os
import pty
import select

import pytest

from seatrial.cli import talk
from seatrial.core.errors import Conflict


@pytest.fixture
def terminal():
    """A real terminal: (stream to write to, function that reads what was shown)."""
    shown, end = pty.openpty()
    with os.fdopen(end, "w", encoding="utf-8") as stream:

        def read() -> str:
            seen = b""
            while select.select([shown], [], [], 0.2)[0]:  # one read gives what one write wrote
                seen += os.read(shown, 65536)
            return seen.decode()

        yield stream, read
    os.close(shown)


def test_progress_is_silent_without_a_terminal():
    stream = io.StringIO()
    with talk.Progress(stream) as progress:
        progress("reading", 1, 2)
    assert stream.getvalue() == ""


def test_progress_is_one_line_that_is_gone_at_the_end(terminal):
    stream, shown = terminal
    with talk.Progress(stream) as progress:
        progress("reading", 0, 2)
        progress("reading", 2, 2)
    seen = shown()
    assert "2 of 2" in seen
    assert "\n" not in seen
    assert seen.endswith("\r\x1b[K")


def test_progress_of_unknown_length_counts():
    assert talk.progress_line("rows", 1200, 0) == "rows  1,200"
    assert talk.progress_line("rows", 0, 0) == "rows"


def test_the_first_line_of_a_problem_stands_out_on_a_terminal(terminal, monkeypatch):
    stream, shown = terminal
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.delenv("NO_COLOR", raising=False)
    talk.problem(Conflict("found.", expected="more."), as_json=False)
    first, second, *_ = shown().splitlines()
    assert first == "\x1b[1;31mConflict [conflict]: found.\x1b[0m"
    assert second == "more."


def test_no_color_is_respected(terminal, monkeypatch):
    stream, shown = terminal
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("NO_COLOR", "1")
    talk.problem(Conflict("found."), as_json=False)
    assert "\x1b" not in shown()
