"""Talk: everything that goes to stderr. Progress, notes, warnings and problems; never data."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from seatrial.cli.streams import discard
from seatrial.core.clock import monotonic
from seatrial.core.errors import SeatrialError
from seatrial.core.inert import inert

if TYPE_CHECKING:
    from seatrial.verbs.results import TakenIn

BOLD_RED, DIM, RESET = "\x1b[1;31m", "\x1b[2m", "\x1b[0m"


class Held(io.StringIO):
    """Stands in for stderr under --json, where a failure is to be one document: what is said meanwhile is kept."""

    def __init__(self, stderr: TextIO) -> None:
        super().__init__()
        self._stderr = stderr
        self._released = False

    def write(self, text: str) -> int:
        return self._stderr.write(text) if self._released else super().write(text)

    def take(self) -> list[str]:
        """The lines that were kept; they are told elsewhere."""
        lines = [line for line in self.getvalue().splitlines() if line.strip()]
        self.seek(0)
        self.truncate()
        return lines

    def release(self) -> None:
        """Hand on what was kept, and from now on everything at once."""
        lines = self.take()
        self._released = True
        sys.stderr = self._stderr
        for line in lines:
            say(line)


@contextmanager
def held(as_json: bool) -> Iterator[Held]:
    """Keep what is said in the block until it ends or is released. as_json: False keeps nothing."""
    before = sys.stderr
    notes = Held(before)
    if as_json:
        sys.stderr = notes
    try:
        yield notes
    finally:
        notes.release()


def release() -> None:
    """Let what was said so far be seen now: a command that goes on for long is at work."""
    if isinstance(sys.stderr, Held):
        sys.stderr.release()


def say(text: str, *, colour: str = "") -> None:
    """One note for the person in front of the terminal, its first line in a colour. A stderr that takes nothing changes
    nothing."""
    first, *rest = inert(text).split("\n")
    try:
        print("\n".join([_coloured(first, colour) if colour else first, *rest]), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        discard(sys.stderr)


def warned(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """A Python warning as a note; takes the place of `warnings.showwarning`."""
    say(f"note: {message}" if issubclass(category, UserWarning) else f"{category.__name__}: {message}", colour=DIM)


def problem(error: SeatrialError, *, as_json: bool, notes: Sequence[str] = ()) -> None:
    """An error, for people: its first line stands out on a terminal. For programs: one JSON document, `notes` in it."""
    if as_json:
        say(json.dumps(document(error) | {"notes": list(notes)}, indent=2, ensure_ascii=False, default=str))
        return
    say(str(error), colour=BOLD_RED)


def document(error: SeatrialError) -> dict[str, object]:
    """The RFC 9457 problem of the error, with what only the command line adds: state, next step, exit code."""
    named = error.facts.get("reason")  # which of the ways in which this can go wrong it was
    reason = {"reason": named} if isinstance(named, str) else {}
    return error.as_problem() | {"state": error.state, "next": error.next, "exit_code": error.exit_code} | reason


class Progress:
    """A line on the terminal that says what is being done and how far it is; silent without a terminal.

    Called with (what, done, total); total 0 means that it is not known. Use as a context manager, so that the
    line is gone when the result is printed.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()
        self._last = -1.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown and self._last >= 0:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def __call__(self, what: str, done: int = 0, total: int = 0) -> None:
        if not self._shown:
            return
        now = monotonic()
        if done not in (0, total) and now - self._last < 0.1:
            return
        self._last = now
        width = os.get_terminal_size(self._stream.fileno()).columns or 80  # 0: the terminal does not say
        self._stream.write(f"\r\x1b[K{inert(progress_line(what, done, total))[: width - 1]}")
        self._stream.flush()


class TakingIn:
    """Tells how a stream is being taken in: a line on a terminal; elsewhere a line every some seconds, and one
    whenever a server is waited for, or answers again. Use as a context manager, so that the line is gone in the end."""

    EVERY = 10.0  # seconds

    def __init__(self) -> None:
        self._progress = Progress()
        self._last = -self.EVERY
        self._waiting = ""

    def __enter__(self) -> TakingIn:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.__exit__()

    def __call__(self, taken: TakenIn) -> None:
        self.line(f"{taken.rows:,} rows taken, {taken.refused:,} refused", taken.lag, taken.waiting)

    def line(self, line: str, lag: int | None, waiting: str) -> None:
        """Tell how far it is. lag: how much is to come; waiting: what does not answer."""
        line += "" if lag is None else f", {lag:,} to come"
        now = monotonic()
        if waiting != self._waiting:
            say(f"waiting: {waiting} Asking again." if waiting else f"It answers again; {line}.")
            self._waiting = waiting
        elif sys.stderr.isatty():
            self._progress(line)
        elif not waiting and now - self._last >= self.EVERY:
            self._last = now
            say(line)


def progress_line(what: str, done: int, total: int, *, width: int = 24) -> str:
    """What is done, a bar and the counts.

    >>> progress_line("reading", 5, 10, width=4)
    'reading  [##  ] 5 of 10'
    """
    if total <= 1:  # no length, or nothing between the start and the end
        return f"{what}  {done:,}" if done else what
    filled = width * min(done, total) // total
    return f"{what}  [{'#' * filled}{' ' * (width - filled)}] {done:,} of {total:,}"


def _coloured(text: str, colour: str) -> str:
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"{colour}{text}{RESET}"
