"""Stages: where does the time of a request go?

One request in SAMPLED is answered by a `Watched` predictor, which is the predictor with a clock around its parts. All
others pay for one subtraction. The parts are wait (for a thread, where another process scores), read, look_up (one for
all that came together), score, answer (everything else until the answer is made), log (until its rows are written,
which is also the time that its neighbours of the same turn take).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from seatrial.core.clock import monotonic
from seatrial.serving.meters.metrics import Latency
from seatrial.serving.scoring.predictor import Draft, Predictor
from seatrial.serving.scoring.requests import Request

NEVER = 1 << 62  # requests until it is watched itself
WAITED = 1e-5  # seconds; less is the way from one function to another

Took = tuple[str, float, float]
"""A stage, and the monotonic instants at which it began and ended."""


class Watched(Predictor):
    """A predictor for one request at a time, of which it takes the times; it counts them with the answer.

    told: called with this, the draft and the instant when its answer is counted.
    """

    def __init__(self, of: Predictor, told: Callable[[Watched, Draft, float], None] | None = None) -> None:
        self.__dict__.update(of.__dict__)
        self.took: list[Took] = []
        self._of = of
        self._told = told
        self._unwatched = NEVER
        self._began = self._drafted = 0.0
        self.reader = _Clocked(of.reader, "read", "read", self.took)  # type: ignore[assignment]
        self._both = [(arm, copy.copy(arm)) for arm in of._arms]
        for _, arm in self._both:
            arm._score = clocked(arm._score, "score", self.took)
            if arm._score_row is not None:
                arm._score_row = clocked(arm._score_row, "score", self.took)
            if arm._lookup is not None:
                arm._lookup = _Clocked(arm._lookup, "assemble_many", "look_up", self.took)  # type: ignore[assignment]
        self._arms = [arm for _, arm in self._both]
        self._only = self._arms[0] if of._only is not None else None
        self._latencies: dict[str, Latency] = {}

    def draft(
        self,
        body: bytes,
        caller: str = "",
        *,
        since: float | None = None,
        wait: bool = True,
        request: Request | None = None,
    ) -> Draft:
        for arm, watched in self._both:
            watched._store_failure = arm._store_failure
        self.took.clear()
        self._began = monotonic()
        if request is not None and self.ahead is not None and self.ahead.took is not None:
            self._began, fetched = self.ahead.took
            self.took.append(("look_up", self._began, fetched))
        draft = super().draft(body, caller, since=since, wait=wait, request=request)
        self._drafted = monotonic()
        for arm, watched in self._both:
            arm._store_failure = watched._store_failure
        return draft

    def count(self, draft: Draft, now: float) -> None:
        super().count(draft, now)
        for stage, seconds in self.seconds(draft, now).items():
            latency = self._latencies.get(stage)
            if latency is None:
                latency = self._latencies[stage] = self._metrics.of_stage(self._model, stage)
            latency.took(seconds)
        if self._told is None:
            self._of._spare = self  # for another request
        else:
            self._told(self, draft, now)

    def seconds(self, draft: Draft, now: float) -> dict[str, float]:
        """How long each stage took, without those that there were not."""
        found: dict[str, float] = {}
        if self._began - draft.start > WAITED:
            found["wait"] = self._began - draft.start
        inside = 0.0
        for stage, start, end in self.took:
            found[stage] = found.get(stage, 0.0) + end - start
            inside += end - start
        found["answer"] = max(0.0, self._drafted - self._began - inside)
        found["log"] = max(0.0, now - self._drafted)
        return found


class _Clocked:
    """An object of which one method takes its time; everything else is as it was."""

    def __init__(self, of: Any, method: str, stage: str, took: list[Took]) -> None:
        self._of = of
        setattr(self, method, clocked(getattr(of, method), stage, took))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


def clocked(function: Callable[..., Any], stage: str, took: list[Took]) -> Callable[..., Any]:
    """A function that notes when it was called and when it was done, also when it raises."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = monotonic()
        try:
            return function(*args, **kwargs)
        finally:
            took.append((stage, start, monotonic()))

    return timed
