"""What a deployment promises: how many of its requests are answered, and how fast.

Requests that were refused because of what they asked (4xx) count neither for it nor against it.
"""

from __future__ import annotations

from dataclasses import dataclass

from seatrial.core.errors import UsageError, listed

LATENCY_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds; where the buckets of latencies end: a promise between two of them could not be told kept from broken."""


class BadObjective(UsageError):
    """An objective is declared that cannot be kept, or not be measured."""

    code = "definition.bad_objective"


@dataclass(frozen=True)
class Objective:
    """What a deployment promises over 30 days.

    availability: the share of requests that do not get a 5xx. latency_ms, share: this share of the answers comes
    within so many milliseconds, from the request's last byte to the answer; latency_ms is where a bucket ends.
    """

    availability: float = 0.999
    latency_ms: float = 50
    share: float = 0.99

    def __post_init__(self) -> None:
        for name in ("availability", "share"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.5 <= value < 1:
                raise BadObjective(
                    f"{name} of an objective is {value!r}.",
                    expected="A share from 0.5 to below 1 is expected: a promise of 1 has no error budget.",
                )
        bounds = [round(bound * 1000, 3) for bound in LATENCY_BOUNDS]
        known = listed([f"{bound:g}" for bound in bounds], most=len(bounds))
        if isinstance(self.latency_ms, bool) or self.latency_ms not in bounds:
            raise BadObjective(
                f"latency_ms of an objective is {self.latency_ms!r}.",
                expected=f"One of {known} is expected, where latencies are told apart.",
            )
