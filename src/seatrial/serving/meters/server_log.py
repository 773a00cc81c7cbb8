"""The server's own log: what was not answered with a prediction, and what went wrong beside it.

It says of a request who was asked (deployment, release), why it was not answered (code, status) and by which ids it is
found elsewhere (request, prediction, trace), and nothing of what it held. A storm of requests of one code writes a few
lines a while, and then how many were left out: a log that fills the disk would stop the answers, too.

As JSON each line is one object with `time`, `level`, `event` and, of requests, the fields above; `left_out` counts what
was not written since the line before of this code.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from seatrial.core.clock import iso, machine_time, monotonic

Form = Literal["text", "json"]

MOST_LINES = 10
"""Of one code, in WINDOW_SECONDS."""
MOST_TRACES = 3
"""Of an unforeseen failure at one place of the code, in WINDOW_SECONDS; MOST_PLACES are told apart."""
MOST_PLACES = 100
WINDOW_SECONDS = 10.0
LONGEST = 200
"""Characters of a name that a caller chose."""
FIELDS = ("deployment", "model", "release", "code", "status", "request_id", "prediction_id", "trace_id", "left_out")

_LOGGER = logging.getLogger("seatrial.serving")
_REFUSED, _FAILED = "request refused", "request failed"


@dataclass
class _Window:
    """What of one code was written since `began`, a monotonic instant."""

    began: float
    written: int = 0
    left_out: int = 0


class Refusals:
    """Requests that got no prediction, as lines of the log; at most MOST_LINES of one code in WINDOW_SECONDS."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._windows: dict[tuple[str, int], _Window] = {}

    def tell(self, code: str, status: int, **fields: str) -> None:
        """Write a line, or count it as left out. fields: of FIELDS; empty ones are not written."""
        now = self._now()
        window = self._windows.setdefault((code, status), _Window(now))
        if now - window.began >= WINDOW_SECONDS:
            self._end(code, status, window, now)
        if window.written >= MOST_LINES:
            window.left_out += 1
            return
        window.written += 1
        kept = {name: value[:LONGEST] for name, value in fields.items() if value}
        _write(_FAILED if status >= 500 else _REFUSED, code, status, kept)

    def look(self) -> None:
        """Say what was left out of windows that are over; called from time to time."""
        now = self._now()
        for (code, status), window in list(self._windows.items()):
            if now - window.began >= WINDOW_SECONDS:
                self._end(code, status, window, now)

    def close(self) -> None:
        """Say what was left out."""
        for (code, status), window in list(self._windows.items()):
            self._end(code, status, window, self._now())

    def _end(self, code: str, status: int, window: _Window, now: float) -> None:
        left_out, window.began, window.written, window.left_out = window.left_out, now, 0, 0
        if left_out:
            event = "requests failed" if status >= 500 else "requests refused"
            _write(event, code, status, {"left_out": left_out})


def _write(event: str, code: str, status: int, fields: dict[str, Any]) -> None:
    level = logging.WARNING if status >= 500 else logging.INFO
    _LOGGER.log(level, event, extra={"seatrial": {**fields, "code": code, "status": status}})


class JsonLines(logging.Formatter):
    """A record as one line of JSON; of an exception its class and where it was raised, not what it says, which can be
    a part of a request."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "seatrial", {})
        line: dict[str, Any] = {
            "time": iso(machine_time()),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "pid": record.process,
        } | {name: fields[name] for name in FIELDS if name in fields}
        if record.exc_info and record.exc_info[0] is not None:
            line |= {"exception": record.exc_info[0].__qualname__, "at": _places(record)}
        return json.dumps(line, ensure_ascii=False)


class Lines(logging.Formatter):
    """A record as a line for people: its words, and of requests the fields behind them."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "seatrial", {})
        told = " ".join(f"{name}={_shown(fields[name])}" for name in FIELDS if name in fields)
        return super().format(record) + (f": {told}" if told else "")


def to_stderr(form: Form) -> None:
    """Write the server's log to stderr: as lines of JSON with everything, or as text from warnings on.

    With "json" Python's warnings become lines, too.
    """
    handler = _Stderr()
    handler.addFilter(_Sparing())
    handler.setFormatter(JsonLines() if form == "json" else Lines())
    _LOGGER.handlers = [handler]
    _LOGGER.propagate = False
    _LOGGER.setLevel(logging.INFO if form == "json" else logging.WARNING)
    if form == "json":
        warnings.showwarning = _warned


class _Sparing(logging.Filter):
    """Lets the first few of the same unforeseen failure through in a while, and says of the next how many were not."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[str, _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.exc_info:
            return True
        now, place = monotonic(), (_places(record) or [""])[-1]
        if place not in self._windows and len(self._windows) >= MOST_PLACES:
            place = ""
        window = self._windows.setdefault(place, _Window(now))
        if now - window.began >= WINDOW_SECONDS:
            left_out, window.began, window.written, window.left_out = window.left_out, now, 0, 0
            if left_out:
                record.seatrial = {"left_out": left_out}
        if window.written >= MOST_TRACES:
            window.left_out += 1
            return False
        window.written += 1
        return True


def say(event: str) -> None:
    """A line that is no warning."""
    _LOGGER.info("%s", event)


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Whatever stderr is at the time; one that takes nothing changes nothing."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        del record


def _warned(message: Warning | str, *_: Any, **__: Any) -> None:
    _LOGGER.warning("%s", message)


def _places(record: logging.LogRecord) -> list[str]:
    """The innermost places of a trace, as file:line in function."""
    places: list[str] = []
    trace = record.exc_info[2] if record.exc_info else None
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return places[-5:]


def _shown(value: Any) -> str:
    """A value in a line: as it is when it is one plain word."""
    text = str(value)
    return text if text.isascii() and text.isprintable() and " " not in text and '"' not in text else json.dumps(text)
