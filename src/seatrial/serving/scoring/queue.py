"""Where requests wait whose release another process scores, so that nobody else waits with them.

Each deployment with such a release has a thread of its own, in which its requests are answered one after the other. The
event loop goes on with everything else; it logs and sends what the threads hand back.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from seatrial.core.clock import monotonic
from seatrial.core.errors import Unavailable
from seatrial.releases.supervised import ChildRestarting
from seatrial.serving.scoring.predictor import Draft, Predictor

RESTART_SECONDS = 2.0
LONGEST_SECONDS = 20.0
MOST_WAITING = 256


class TooBusy(Unavailable):
    """More requests wait for a release than it can answer in time."""

    code = "serving.too_busy"


class Queue:
    """The requests of one deployment that wait for the process that scores for its release."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "seatrial-score")
        self._waiting = 0

    async def draft(self, predictor: Predictor, body: bytes, caller: str) -> Draft:
        """`Predictor.draft`, in the thread. Never raises.

        A process that is being started again is waited for, RESTART_SECONDS at most. A request that finds more than
        MOST_WAITING before it, or that waits longer than LONGEST_SECONDS, is refused.
        """
        if self._waiting >= MOST_WAITING:
            return Draft(predictor.refuse(too_busy(f"{self._waiting} requests wait")))
        self._waiting += 1
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                return await self._draft(predictor, body, caller)
        except TimeoutError:
            return Draft(predictor.refuse(too_busy(f"this one waited for {LONGEST_SECONDS:g} s")))
        finally:
            self._waiting -= 1

    async def _draft(self, predictor: Predictor, body: bytes, caller: str) -> Draft:
        loop, since, deaths = asyncio.get_running_loop(), monotonic(), 0
        draft = partial(predictor.draft, body, caller, since=since, wait=False)
        while True:
            try:
                return await loop.run_in_executor(self._thread, draft)
            except ChildRestarting as error:
                deaths += error.died
                left = since + RESTART_SECONDS - monotonic()
                if deaths > 1 or left <= 0:
                    return predictor.gave_up(error, deaths)
                await asyncio.wait([asyncio.wrap_future(error.started)], timeout=left)


def too_busy(why: str) -> TooBusy:
    return TooBusy(
        f"this release has too much to do: {why}.",
        state="Nothing was predicted.",
        next="Ask again later, or for more rows at once.",
        retry_after=1,
    )
