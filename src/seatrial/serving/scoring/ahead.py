"""Ahead: the online rows of several requests, fetched in one round trip before each of them is answered."""

from __future__ import annotations

from collections.abc import Sequence

from seatrial.core.clock import monotonic
from seatrial.stores.online import Key, OnlineStore


class Ahead:
    """Reads an online store, of which some rows were fetched already. One for each predictor.

    took: the monotonic instants between which they were fetched; None while there are none.
    """

    def __init__(self, store: OnlineStore) -> None:
        self._store = store
        self._rows: dict[Key, bytes | None] = {}
        self.took: tuple[float, float] | None = None

    def fetch(self, keys: Sequence[Key]) -> None:
        """Fetch these rows, until `forget`. Raises what the store raises."""
        start = monotonic()
        self._rows = dict(zip(keys, self._store.get(keys), strict=True))
        self.took = (start, monotonic())

    def forget(self) -> None:
        """The next request asks the store again."""
        self._rows, self.took = {}, None

    def get(self, keys: Sequence[Key]) -> list[bytes | None]:
        """As the store's. All rows of one answer are of one state: when one was not fetched, all are asked for."""
        rows = self._rows
        if rows and all(key in rows for key in keys):
            return [rows[key] for key in keys]
        return self._store.get(keys)
