"""Materialize and push: source rows into the online store, by one path.

`materialize` takes every row of a source that is known by `at`; `push` takes the rows it is given. Both are
idempotent: a row that is already there, or that is older than what is there, changes nothing and is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
from seatrial.stores.online import Change, Key, SqliteOnlineStore

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
    changes = prepared.changes(0, prepared.size, latest_only=known_by_us is not None)
    for first in range(0, len(changes), BATCH):
        store.update(changes[first : first + BATCH])
        if progress:
            progress(view.name, min(first + BATCH, len(changes)), len(changes))
    written = prepared.written
    return Written(view.name, len(rows), written, len(taken) - written, len(events) - len(taken), len(changes))


class Stream:
    """A view's events in the order in which they became known, to be taken into a store as time goes on.

    rows: columns of the view's source; those known by `since_us` are taken to be in the store already, and time
    ends at `until_us`.
    """

    def __init__(self, view: FeatureView, rows: pa.Table, *, since_us: int, until_us: int) -> None:
        import pyarrow.compute as pc

        events = view_events(view, rows)
        known = events["known_us"]
        during = pc.and_(pc.greater(known, since_us), pc.less_equal(known, until_us))
        events = events.filter(during).sort_by("known_us")
        self._known_us: NDArray[np.int64] = events["known_us"].to_numpy()
        self._events = _Events(plan_view(view), events, len(view.source.event_key))
        self._next = 0

    def up_to(self, at_us: int) -> tuple[int, list[tuple[Key, Change]]]:
        """How many events became known by `at_us` since the last call, and the changes that take them in."""
        start, end = self._next, int(self._known_us.searchsorted(at_us, "right"))
        if end <= start:
            return 0, []
        self._next = end
        return end - start, self._events.changes(start, end)


class _Events:
    """Events as arrays, ready to be taken in by entity.

    entities: the canonical key of each entity; codes: for each event its entity's place in it.
    tail: int64 [4 + sum columns, events], as a packed row holds it; without windowed features it has no columns.
    """

    def __init__(self, plan: ViewPlan, events: pa.Table, id_columns: int) -> None:
        self.plan = plan
        self.size = len(events)
        self.written = 0
        self._columns = len(plan.sum_columns)
        self._longest_us = plan.longest_window_us
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

    def changes(self, start: int, end: int, *, latest_only: bool = False) -> list[tuple[Key, Change]]:
        """For each entity of the events from `start` to `end`: its row's key, and the change that takes them in.

        latest_only: every event counts already, so only those with the greatest event time can be the latest.
        `written` counts the events that changed a row.
        """
        order = start + self.codes[start:end].argsort(kind="stable")
        codes = self.codes[order]
        edges = [0, *(np.flatnonzero(codes[1:] != codes[:-1]) + 1).tolist(), len(order)]
        found: list[tuple[Key, Change]] = []
        for first, last in pairwise(edges) if len(order) else ():
            mine = order[first:last]
            rows: list[LastRow] = []
            if self.plan.keeps_last:
                times = self.event_us[mine]
                rows = [self._row(int(i)) for i in (mine[times == times.max()] if latest_only else mine)]
            key = (self.plan.digest, self.entities[int(codes[first])])
            found.append((key, partial(self._change, rows, self.tail[:, mine])))
        return found

    def _change(self, rows: list[LastRow], tail: Int64, packed: bytes | None) -> bytes | None:
        old = None if packed is None else unpack(packed, self._columns)
        row, changed = merge(old, rows, tail, longest_window_us=self._longest_us)
        self.written += changed
        return pack(row) if changed or packed is None else None

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
