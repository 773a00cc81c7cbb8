"""What the policy has seen, as part of a report: plain values."""

from __future__ import annotations

import msgspec

POLICY = "policy:"
"""What the metric of the policy's own alarms begins with."""
NOT_WATCHED = "not watched, because"
"""What the note of such an alarm begins with when nobody looks, whatever comes."""


class Watched(msgspec.Struct, frozen=True):
    """How far the policy has looked, and what it looks at.

    every: length of its windows. from_, until: instants between which it has looked since it began anew; windows: how
    many of them had rows. series: how many series; season: of how many the season of the week is known.
    firing: subjects in alarm, with words. notes: what is not watched, what was begun anew, and why.
    """

    every: str
    from_: str
    until: str
    windows: int
    series: int
    season: int
    firing: dict[str, str] = {}
    notes: list[str] = []
