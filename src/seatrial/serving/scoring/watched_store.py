"""The online store as a server asks it: one that hangs must not stop the server with it.

A look-up is made where the request is answered, on the event loop, because that costs least while the store is quick.
One that took SLOW_SECONDS, or failed after waiting, shows that it is not: from then on requests that look features up
wait in threads, and everybody else is answered meanwhile. While it fails it is asked once every RETRY_SECONDS, by
one request; the others are answered without it at once, as their deployment declares. It starts as a slow one, so that
the first connection is made beside the event loop, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from seatrial.core.clock import monotonic
from seatrial.stores.online import Key, OnlineStore, OnlineStoreUnavailable, Result, Rows

SLOW_SECONDS = 0.02
SLOW_FOR = 2.0
"""How long requests go on waiting in threads after the last look-up that was slow."""
RETRY_SECONDS = 0.5
ANSWER_SECONDS = 0.5
"""How long a request waits in a thread for the store, whatever the store's own limits are."""


class WatchedStore:
    """An online store that is watched. See `stores.online.OnlineStore` for its methods.

    slow: whether requests that look features up are to wait beside the event loop. changed: told when that changed.
    """

    def __init__(self, store: OnlineStore, changed: Callable[[], None]) -> None:
        self.slow = True
        self._slow_until = 0.0
        self._store = store
        self._changed = changed
        self._why = ""
        self._retry_at = 0.0
        self._asking = threading.Lock()

    def get(self, keys: Sequence[Key]) -> list[bytes | None]:
        """As the store's, at once where it is known not to answer. Raises OnlineStoreUnavailable then."""
        if self._why:
            return self._get_again(keys)
        start = monotonic()
        try:
            found = self._store.get(keys)
        except OnlineStoreUnavailable as error:
            if monotonic() - start >= SLOW_SECONDS:
                self.gave_up(error.found)
            raise
        took = monotonic() - start
        if took >= SLOW_SECONDS or self.slow:
            self._note(took)
        return found

    def gave_up(self, why: str) -> None:
        """Take note that the store does not answer."""
        self._retry_at = monotonic() + RETRY_SECONDS
        self._why = why
        self._note(SLOW_SECONDS)

    def _get_again(self, keys: Sequence[Key]) -> list[bytes | None]:
        if monotonic() < self._retry_at or not self._asking.acquire(blocking=False):
            raise OnlineStoreUnavailable(self._why, state="Nothing was asked.", next="Try again.")
        try:
            self._retry_at = monotonic() + RETRY_SECONDS
            found = self._store.get(keys)
            self._why = ""
            return found
        except OnlineStoreUnavailable as error:
            self.gave_up(error.found)
            raise
        finally:
            self._asking.release()

    def _note(self, took: float) -> None:
        now = monotonic()
        if took >= SLOW_SECONDS:
            self._slow_until = now + SLOW_FOR
        slow = now < self._slow_until
        if slow != self.slow:
            self.slow = slow
            self._changed()

    def update(self, change: Callable[[Rows], Result]) -> Result:
        return self._store.update(change)

    def count(self, view: str) -> int:
        return self._store.count(view)

    def close(self) -> None:
        self._store.close()
