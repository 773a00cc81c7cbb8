"""Where requests wait that cannot be answered at once on the event loop, so that nobody else waits with them.

Three things are waited for: a process that scores (`serving.scoring.queue`), a model that is loaded again
(`serving.scoring.on_demand`), and an online store that is not quick (`serving.scoring.watched_store`).
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from weakref import WeakKeyDictionary

from seatrial.core.clock import monotonic
from seatrial.serving.scoring.on_demand import Loading, resting
from seatrial.serving.scoring.predictor import Draft, Predictor
from seatrial.serving.scoring.queue import MOST_WAITING, Queue, too_busy
from seatrial.serving.scoring.watched_store import ANSWER_SECONDS, WatchedStore

LOOKING_UP = 16
"""Threads that wait for the online store."""


class Waiting:
    """Where the requests of one server wait. store: the one that the deployments look features up in."""

    def __init__(self, store: WatchedStore | None) -> None:
        self._queues: WeakKeyDictionary[Predictor, Queue] = WeakKeyDictionary()
        self._loading = Loading()
        self._store = store
        self._threads: ThreadPoolExecutor | None = None
        self._looking_up = 0

    async def draft(self, predictor: Predictor, body: bytes, caller: str, watched: Predictor | None = None) -> Draft:
        """`Predictor.draft`, where it need not wait, or can do so alone. Never raises.

        watched: the same predictor, which takes the times of this request; it answers in its place.
        """
        answering = watched or predictor
        if predictor.elsewhere:
            queue = self._queues.get(predictor)
            if queue is None:
                queue = self._queues[predictor] = Queue()
            return await queue.draft(answering, body, caller)
        if resting(predictor):
            draft = await self._loading.draft(predictor, body, caller)
            if draft is not None:
                return draft
        if self._store is not None and self._store.slow and predictor.looks_up:
            return await self._look_up(self._store, answering, body, caller)
        return answering.draft(body, caller)

    async def _look_up(self, store: WatchedStore, predictor: Predictor, body: bytes, caller: str) -> Draft:
        """A draft in a thread; of a store that lets it wait for too long, without the store."""
        if self._looking_up >= MOST_WAITING:
            return Draft(predictor.refuse(too_busy(f"{self._looking_up} requests wait for its features")))
        if self._threads is None:
            self._threads = ThreadPoolExecutor(LOOKING_UP, "seatrial-look-up")
        since = monotonic()
        answer = partial(predictor.draft, body, caller, since=since)
        self._looking_up += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._threads, answer)
        except TimeoutError:
            store.gave_up(f"the online store did not answer within {ANSWER_SECONDS:g} s.")
        finally:
            self._looking_up -= 1
        return answer()
