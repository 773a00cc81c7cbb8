"""Materialize and push: source rows into the online store, by one path.

`materialize` takes every row of a source that is known by `at`; `push` takes the rows it is given. Both are
idempotent: a row that is already there, or that is older than what is there, changes nothing and is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import UsageError
from seatrial.features.events import NEVER_US, view_events
from seatrial.features.lookup import entity_key
from seatrial.features.packed import (
    EVENT,
    KEY,
    KNOWN,
    NULL,
    SUPERSEDED,
    VALUES,
    Int64,
    LastRow,
    key_hash,
    merge,
    pack,
    unpack,
)
from seatrial.features.plan import ViewPlan, plan_view
from seatrial.stores.online import SqliteOnlineStore

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.features.definitions import FeatureView

BATCH = 500  # entities per transaction: a reader never waits, a killed run loses at most this much work

Progress = Callable[[str, int, int], None]


class EventKeyNeeded(UsageError):
    """A windowed view cannot be kept online without an event key."""

    code = "features.event_key_needed"


class Written(msgspec.Struct, frozen=True):
    """What a write did.

    rows: rows taken; written: rows that changed the store; unchanged: rows that were there already, were older
    than what is there, or had left every window; unknown: rows not yet known at `at` (materialize only).
    """

    view: str
    rows: int
    written: int
    unchanged: int
    unknown: int
    entities: int


def write(
    view: FeatureView,
    rows: pa.Table,
    store: SqliteOnlineStore,
    *,
    known_by_us: int | None = None,
    progress: Progress | None = None,
) -> Written:
    """Take a source's rows into the online store.

    rows: columns of the view's source. known_by_us: rows known later are left out and counted.
    Raises EventKeyNeeded for a windowed view whose source names no event_key, and what `view_events` raises.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    plan = plan_view(view)
    if plan.longest_window_us and not view.source.event_key:
        raise EventKeyNeeded(
            f"view '{view.name}' has windowed features, but source '{view.source.name}' names no event_key.",
            expected="Without it a repeated row cannot be told from a second event.",
            next="Give event_key=[...] to the source.",
        )
    events = view_events(view, rows)
    start_us = pc.max_element_wise(events["event_us"], events["known_us"])
    limit = NEVER_US - 1 if known_by_us is None else known_by_us
    # a row may be pushed before its event happens, but is materialized only when it counts
    known = pc.less_equal(events["known_us"] if known_by_us is None else start_us, pa.scalar(limit, pa.int64()))
    taken = events.filter(known)
    prepared = _Events(plan, taken, len(view.source.event_key))
    written, entities = _take(prepared, 0, prepared.size, store, latest_only=known_by_us is not None, progress=progress)
    return Written(view.name, len(rows), written, len(taken) - written, len(events) - len(taken), entities)


class Stream:
    """A view's events in the order in which they became known, taken into the store as time goes on.

    rows: columns of the view's source; those known by `since_us` are taken to be in the store already.
    """

    def __init__(self, view: FeatureView, rows: pa.Table, store: SqliteOnlineStore, *, since_us: int) -> None:
        import pyarrow.compute as pc

        events = view_events(view, rows)
        events = events.filter(pc.greater(events["known_us"], since_us)).sort_by("known_us")
        self._known_us: NDArray[np.int64] = events["known_us"].to_numpy()
        self._events = _Events(plan_view(view), events, len(view.source.event_key))
        self._store = store
        self._next = 0

    def up_to(self, at_us: int) -> int:
        """Take every event that became known by `at_us` and was not taken yet; how many."""
        start, end = self._next, int(np.searchsorted(self._known_us, at_us, side="right"))
        if end <= start:
            return 0
        _take(self._events, start, end, self._store)
        self._next = end
        return end - start


class _Events:
    """Events as arrays, ready to be handed out by entity.

    entities: the canonical key of each entity; codes: for each event its entity's place in it.
    tail: int64 [4 + sum columns, events], as a packed row holds it; without windowed features it has no columns.
    """

    def __init__(self, plan: ViewPlan, events: pa.Table, id_columns: int) -> None:
        self.plan = plan
        self.size = len(events)
        keys = [events[f"key_{i}"].to_pylist() for i in range(len(plan.keys))]
        places: dict[tuple[Any, ...], int] = {}
        codes = [places.setdefault(key, len(places)) for key in zip(*keys, strict=True)]
        self.codes = np.array(codes, dtype=np.int64)
        self.entities = [entity_key(key) for key in places]
        self.event_us: NDArray[np.int64] = events["event_us"].to_numpy()
        self._known_us: NDArray[np.int64] = events["known_us"].to_numpy()
        ids = [events[f"id_{i}"].to_pylist() for i in range(id_columns)]
        self._ids: list[tuple[Any, ...]] = list(zip(*ids, strict=True)) if ids else [()] * self.size
        self._values = [events[f"last_{column}"].to_pylist() for column in plan.last_columns]
        self.tail = self._make_tail(events)

    def groups(self, start: int, end: int, *, latest_only: bool) -> dict[bytes, tuple[list[LastRow], Int64]]:
        """Of the events from `start` to `end`: by entity the rows that matter for last values, and their tail.

        latest_only: every event counts already, so only those with the greatest event time can be the latest.
        """
        order = start + np.argsort(self.codes[start:end], kind="stable")
        edges = np.flatnonzero(np.diff(self.codes[order], prepend=-1, append=-1)).tolist()
        found = {}
        for first, last in pairwise(edges):
            mine = order[first:last]
            rows: list[LastRow] = []
            if self.plan.keeps_last:
                times = self.event_us[mine]
                rows = [self._row(int(i)) for i in (mine[times == times.max()] if latest_only else mine)]
            found[self.entities[int(self.codes[mine[0]])]] = (rows, self.tail[:, mine])
        return found

    def _row(self, i: int) -> LastRow:
        values = tuple(column[i] for column in self._values)
        return LastRow(int(self.event_us[i]), int(self._known_us[i]), self._ids[i], values)

    def _make_tail(self, events: pa.Table) -> Int64:
        if not self.plan.longest_window_us:
            return np.empty((VALUES, self.size), dtype=np.int64)
        tail = np.empty((VALUES + len(self.plan.sum_columns), self.size), dtype=np.int64)
        tail[EVENT], tail[KNOWN], tail[SUPERSEDED] = self.event_us, self._known_us, NEVER_US
        tail[KEY] = [key_hash(key) for key in self._ids]
        for position, column in enumerate(self.plan.sum_columns):
            tail[VALUES + position] = events[f"sum_{column}"].fill_null(NULL).to_numpy()
        return tail


def _take(
    events: _Events,
    start: int,
    end: int,
    store: SqliteOnlineStore,
    *,
    latest_only: bool = False,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Write events in transactions of BATCH entities; how many events changed the store, and of how many entities."""
    plan = events.plan
    columns = len(plan.sum_columns)
    groups = list(events.groups(start, end, latest_only=latest_only).items())
    written = 0

    def change(entity: bytes, packed: bytes | None) -> bytes | None:
        nonlocal written
        old = None if packed is None else unpack(packed, columns)
        row, changed = merge(old, *batch[entity], longest_window_us=plan.longest_window_us)
        written += changed
        return pack(row) if changed or packed is None else None

    for first in range(0, len(groups), BATCH):
        batch = dict(groups[first : first + BATCH])
        store.update(plan.digest, change, list(batch))
        if progress:
            progress(plan.name, first + len(batch), len(groups))
    return written, len(groups)
