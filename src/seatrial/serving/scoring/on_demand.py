"""Many releases in little memory: which models stay loaded, and who waits while one is loaded again?

A release is proved when it is taken up: verified, loaded, its golden rows replayed. Its model may then be let go, the
one that was asked least recently first, as soon as all that are loaded take more than the budget. The rest of it, what
requests are read by and documented with, stays. The next request for it reads the bundle, verifies it and replays its
golden rows again, in a thread: requests for other deployments do not wait, and those for the same one are answered when
it is there.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import monotonic
from seatrial.core.errors import SeatrialError, Unavailable, UsageError
from seatrial.serving.scoring.queue import LONGEST_SECONDS, too_busy

if TYPE_CHECKING:
    from seatrial.serving.scoring.predictor import Draft, Predictor, Release, Score

LOADERS = 4
"""Threads in which models are loaded."""
RETRY_SECONDS = 1.0
"""Between two attempts to load what could not be loaded."""

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
_LOGGER = logging.getLogger("seatrial.serving")


class ReleaseNotLoaded(Unavailable):
    """A release that was let go cannot be loaded again."""

    code = "serving.release_not_loaded"


class BadMemory(UsageError):
    """An amount of memory cannot be read."""

    code = "serving.bad_memory"


def parse_memory(text: str) -> int:
    """An amount of memory in bytes.

    >>> parse_memory("512MiB"), parse_memory("1.5 GB"), parse_memory("64k")
    (536870912, 1500000000, 64000)
    """
    found = re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([kmg]i?|)b?\s*", text.lower())
    size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size < 1:
        raise BadMemory(
            f"the memory is given as {text!r}.",
            expected="512MiB, 2GB or 800000 is expected.",
            state="Nothing was done.",
        )
    return size


class Shelf:
    """The models that are loaded, within a budget.

    budget: bytes; the model that was asked last stays whatever it takes. changed: told when one came or went.
    """

    def __init__(self, budget: int, changed: Callable[[], None]) -> None:
        self.budget = budget
        self._changed = changed
        self._kept: WeakSet[OnDemand] = WeakSet()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """What the loaded ones take."""
        return sum(one.bytes for one in list(self._kept) if not one.resting)

    def told(self) -> dict[str, int]:
        """The budget and what the loaded models take of it."""
        return {"budget": self.budget, "loaded": self.bytes}

    def keep(self, release: Release, again: Callable[[], Release]) -> Release:
        """The release, with a model that is let go and loaded again as there is need. again: opens the release."""
        one = OnDemand(release, again, self)
        with self._lock:
            self._kept.add(one)
        self.make_room(one)
        return replace(release, score=one, score_row=None)

    def make_room(self, newest: OnDemand) -> None:
        """Let go of what was asked least recently until the budget is kept. newest: stays."""
        gone = []
        with self._lock:
            loaded = sorted(
                (one for one in self._kept if not one.resting and one is not newest), key=lambda one: one.used
            )
            taken = newest.bytes + sum(one.bytes for one in loaded)
            for one in loaded:
                if taken <= self.budget:
                    break
                taken -= one.bytes
                one.resting = True
                gone.append(one)
        self._changed()  # first: from here on requests for them come by way of a thread
        for one in gone:
            one.let_go()
        if gone:
            _give_back()


class OnDemand:
    """The scores of one release; called like the `score` of one that stays loaded.

    bytes: what the model takes while it is loaded. used: the monotonic instant of the last call. resting: whether it
    was let go. Calling it then loads it, whoever calls.
    """

    def __init__(self, release: Release, again: Callable[[], Release], shelf: Shelf) -> None:
        self.bytes = release.bytes
        self.used = monotonic()
        self.resting = False
        self._score: Score | None = release.score
        self._again = again
        self._shelf = shelf
        self._loading = threading.Lock()
        self._failed: tuple[float, ReleaseNotLoaded] | None = None

    def __call__(self, rows: Any) -> NDArray[np.floating[Any]]:
        self.used = monotonic()
        score = self._score
        if score is None:
            score = self.load()
        return score(rows)

    def load(self) -> Score:
        """Load it where it is not. Raises ReleaseNotLoaded."""
        with self._loading:
            self.used = monotonic()
            if self._score is not None:
                return self._score
            if self._failed is not None and monotonic() < self._failed[0] + RETRY_SECONDS:
                raise self._failed[1]
            try:
                score = self._score = self._again().score
            except (SeatrialError, OSError) as error:
                why = error.found if isinstance(error, SeatrialError) else f"{error.strerror}."
                _LOGGER.warning("a release that was let go cannot be loaded again: %s", why)
                failed = ReleaseNotLoaded(
                    "the release cannot be loaded.", state="Nothing was predicted.", retry_after=1
                )
                self._failed = monotonic(), failed
                raise failed from None
            self._failed = None
            self.resting = False
        self._shelf.make_room(self)
        return score

    def let_go(self) -> None:
        """Forget the model; who is using it ends with it first."""
        with self._loading:
            if self.resting:
                self._score = None


def models_of(predictor: Predictor) -> Iterator[OnDemand]:
    """The models of a predictor that can be let go."""
    for share in predictor.shares:
        if isinstance(share.release.score, OnDemand):
            yield share.release.score


def resting(predictor: Predictor) -> bool:
    """Whether a model must be loaded before the predictor can answer."""
    return any(one.resting for one in models_of(predictor))


class Loading:
    """Where requests wait whose model is being loaded: those for one deployment behind one another, the first of them
    in a thread."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._turns: WeakKeyDictionary[Predictor, asyncio.Lock] = WeakKeyDictionary()

    async def draft(self, predictor: Predictor, body: bytes, caller: str) -> Draft | None:
        """`Predictor.draft` of the first that waits; None when the models have been loaded. Never raises."""
        from seatrial.serving.scoring.predictor import Draft

        since = monotonic()
        turn = self._turns.get(predictor)
        if turn is None:
            turn = self._turns[predictor] = asyncio.Lock()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(LOADERS, "seatrial-load")
        answer = partial(predictor.draft, body, caller, since=since)
        try:
            async with asyncio.timeout(LONGEST_SECONDS), turn:
                if resting(predictor):
                    return await asyncio.get_running_loop().run_in_executor(self._threads, _loaded, predictor, answer)
        except TimeoutError:
            return Draft(predictor.refuse(too_busy(f"this one waited for {LONGEST_SECONDS:g} s for it to be loaded")))
        return None


def _loaded(predictor: Predictor, answer: Callable[[], Draft]) -> Draft:
    with suppress(ReleaseNotLoaded):  # told by the answer, of the arm that it needs
        for one in models_of(predictor):
            one.load()
    return answer()


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def _give_back() -> None:
    """Let the C library give what is free back to the machine, which it does not by itself."""
    trim = _trim()
    if trim is not None:
        trim(0)
