"""Errors: what was found, where, what was expected, the state now and the next command.

Every error that a user can meet is a `SeatrialError` with a stable `code`. The kinds below fix the
exit code of the command line and the status of the HTTP doors; whether trying again can help is a
type (`Unavailable`), not a word in the message. Modules define their own errors beside the code that
raises them, as subclasses of one of these kinds; `docs/errors.md` lists them all, and a test compares.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class SeatrialError(Exception):
    """A failure that is explained.

    found: what was found and where, one sentence.
    expected: what would have been right; may be empty.
    state: what state things are in now.
    next: the next command or correction; may be empty.
    facts: the values in the message, kept as attributes of `error.facts` for programs.
    """

    code: ClassVar[str] = "seatrial.failed"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(
        self,
        found: str,
        *,
        expected: str = "",
        state: str = "Nothing was written.",
        next: str = "",
        **facts: object,
    ) -> None:
        self.found = found
        self.expected = expected
        self.state = state
        self.next = next
        self.facts = facts
        super().__init__(found)

    def __str__(self) -> str:
        rest = " ".join(part for part in (self.next, self.state) if part)
        lines = [f"{type(self).__name__} [{self.code}]: {self.found}", self.expected, rest]
        return "\n".join(line for line in lines if line)

    def as_problem(self) -> dict[str, object]:
        """The error as an RFC 9457 problem document (without the input that caused it)."""
        detail = " ".join(part for part in (self.found, self.expected, self.next) if part)
        return {
            "type": f"https://seatrial.invalid/errors/{self.code}",
            "title": type(self).__name__,
            "status": self.http_status,
            "code": self.code,
            "detail": detail,
        }


class Failed(SeatrialError):
    """The work itself failed: bad data, a damaged file, an estimator that raised."""

    http_status = 422


class UsageError(SeatrialError):
    """The call is wrong: an unknown name, a naive time, an option that does not exist."""

    code = "usage"
    exit_code = 2
    http_status = 400


class NotInThisVersion(UsageError):
    """Something that is planned and named, but not built yet."""

    code = "usage.not_in_this_version"


class GateRefused(SeatrialError):
    """A gate looked at the evidence and said no."""

    code = "gate.refused"
    exit_code = 3
    http_status = 409


class NotAllowed(SeatrialError):
    """The actor may not do this, or policy forbids it without a stated reason."""

    code = "not_allowed"
    exit_code = 4
    http_status = 403


class Conflict(SeatrialError):
    """Somebody else changed it first, or it exists already; look again, then decide."""

    code = "conflict"
    exit_code = 5
    http_status = 409


class Unavailable(SeatrialError):
    """A part that is needed did not answer; trying again may help."""

    code = "unavailable"
    exit_code = 6
    http_status = 503


NEAR = 0.66
"""The share of two names that is alike (difflib's ratio) from which one may be a slip of the other."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that proposes the known name nearest to `name`, or an empty string when none is near.

    >>> did_you_mean("dep_dealy", ["dep_delay"]), did_you_mean("carrot", ["carrier"])
    ("Did you mean 'dep_delay'?", '')
    """
    known = list(known)
    spelled = [one for one in known if one.casefold() == name.casefold()]
    near = spelled or difflib.get_close_matches(name, known, n=1, cutoff=NEAR)
    return f"Did you mean '{near[0]}'?" if near else ""


def counted(count: int, noun: str) -> str:
    """How many of a thing, in words: "1 row", "2,000 rows"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: Iterable[str], *, most: int = 6) -> str:
    """`names` as a short list for a message: "a, b, c and 4 more"."""
    names = list(names)
    if len(names) <= most:
        return ", ".join(names) or "none"
    return f"{', '.join(names[:most])} and {len(names) - most} more"
