"""Materialize and push: source rows into the online store, by one path.

`materialize` takes every row of a source that is known by `at`; `push` takes the rows it is given. Both are
idempotent: a row that is already there, or that is older than what is there, changes nothing and is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise, repeat
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import SeatrialError, UsageError
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
    Packed,
    key_hash,
    merge,
    pack,
    unpack,
)
from seatrial.features.plan import SourcePlan, ViewPlan, plan_view
from seatrial.features.tiles import take_in
from seatrial.stores.online import Key, OnlineStore, Rows

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.features.definitions import FeatureView

_NO_TAIL = np.empty((VALUES, 0), dtype=np.int64)
BATCH = 500  # entities per transaction: a reader never waits, a killed run loses at most this much work

Progress = Callable[[str, int, int], None]

Change = Callable[[Rows, bytes | None], int]
"""Takes events into the rows of one entity, of which it is given the packed one (None where there is none).

Returns how many events changed something. It may be called again from the start, and so must have no other effect.
"""


class EventKeyNeeded(UsageError):
    """A windowed view cannot be kept online without an event key."""

    code = "features.event_key_needed"


class Written(msgspec.Struct, frozen=True):
    """What a write did.

    rows: rows taken; written: rows that changed the store; unchanged: rows that were there already, were older
    than what is there, or had left every window; unknown: rows not yet known at `at` (materialize only);
    without_key: rows with a null in their entity's key, which nothing finds. These four add up to `rows`.
    release: empty for the view as the project declares it; else the live or candidate release that looks it up as it
    was frozen there. problem: why no row could be taken; empty when they were.
    """

    view: str
    rows: int
    written: int
    unchanged: int
    unknown: int
    entities: int
    release: str = ""
    problem: str = ""
    without_key: int = 0


def write(
    view: FeatureView | ViewPlan,
    rows: pa.Table,
    store: OnlineStore,
    *,
    known_by_us: int | None = None,
    now_us: int | None = None,
    progress: Progress | None = None,
) -> Written:
    """Take a source's rows into the online store: `prepare`, and `Writing`, in one."""
    return Writing(store, progress).take_in(prepare(view, rows, known_by_us=known_by_us, now_us=now_us))


class Prepared(msgspec.Struct, frozen=True):
    """A view's events, ready to be written: what is wrong with the rows was raised before."""

    plan: ViewPlan
    events: pa.Table
    rows: int
    without_key: int
    unknown: int
    known_by_us: int | None
    now_us: int | None


def prepare(
    view: FeatureView | ViewPlan, rows: pa.Table, *, known_by_us: int | None = None, now_us: int | None = None
) -> Prepared:
    """A source's rows as events to be written.

    rows: columns of the view's source. known_by_us: rows known later are left out and counted. now_us: the present
    (default: known_by_us, else the newest row's); rows known later wait in the store until then.
    Raises EventKeyNeeded for a windowed view whose source names no event_key, and what `view_events` raises.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    plan = plan_view(view)
    require_event_key(plan)
    events = view_events(view, rows)
    limit = NEVER_US - 1 if known_by_us is None else known_by_us
    taken = events.filter(pc.less_equal(events["known_us"], pa.scalar(limit, pa.int64())))
    without_key, unknown = len(rows) - len(events), len(events) - len(taken)
    present_us = known_by_us if now_us is None else now_us
    return Prepared(plan, taken, len(rows), without_key, unknown, known_by_us, present_us)


class Writing:
    """Writes what was prepared, by batches of entities. An error says how many of them were written before it."""

    def __init__(self, store: OnlineStore, progress: Progress | None = None) -> None:
        self._store = store
        self._progress = progress
        self._done = 0

    def take_in(self, prepared: Prepared) -> Written:
        """Take a view's events into the store."""
        plan, size = prepared.plan, len(prepared.events)
        events = _Events(plan, prepared.events, len(plan.source.event_key) if plan.source else 0)
        written = done = 0
        for batch in events.by_entity(BATCH):
            changes = events.changes(batch, now_us=prepared.now_us, latest_by_us=prepared.known_by_us)
            try:
                written += take(self._store, changes)
            except SeatrialError as error:
                if self._done:
                    error.state = f"The rows of {self._done:,} entities were written before, each entity's whole."
                raise
            done += len(changes)
            self._done += len(changes)
            if self._progress:
                self._progress(plan.name, done, len(events.entities))
        return Written(
            plan.name,
            prepared.rows,
            written,
            size - written,
            prepared.unknown,
            done,
            without_key=prepared.without_key,
        )


def take(store: OnlineStore, changes: Sequence[tuple[Key, Change]]) -> int:
    """Make all of `changes`, or none, and say how many events changed something. Each key is changed once."""

    def change(rows: Rows) -> int:
        found = rows.get([key for key, _ in changes])
        return sum(change(rows, packed) for (_, change), packed in zip(changes, found, strict=True))

    return store.update(change)


def require_event_key(view: FeatureView | ViewPlan) -> SourcePlan:
    """The source of a view that can be kept online. Raises EventKeyNeeded for windows over a source without a key."""
    plan = plan_view(view)
    source = plan.source
    assert source is not None
    if plan.longest_window_us and not source.event_key:
        raise EventKeyNeeded(
            f"view '{plan.name}' has windowed features, but source '{source.name}' names no event_key.",
            expected="Without it a repeated row cannot be told from a second event, and the view not be kept online.",
            next=f"Give event_key=[...] to the source '{source.name}'.",
        )
    return source


class Stream:
    """A view's events in the order in which they became known, to be taken into a store as time goes on.

    rows: columns of the view's source; those known by `since_us` are taken to be in the store already, and time
    ends at `until_us`.
    """

    def __init__(self, view: FeatureView | ViewPlan, rows: pa.Table, *, since_us: int, until_us: int) -> None:
        import pyarrow.compute as pc

        events = view_events(view, rows)
        known = events["known_us"]
        during = pc.and_(pc.greater(known, since_us), pc.less_equal(known, until_us))
        events = events.filter(during).sort_by("known_us")
        self._known_us: NDArray[np.int64] = events["known_us"].to_numpy()
        plan = plan_view(view)
        self._events = _Events(plan, events, len(plan.source.event_key) if plan.source else 0)
        self._next = 0

    def up_to(self, at_us: int) -> tuple[int, list[tuple[Key, Change]]]:
        """How many events became known by `at_us` since the last call, and the changes that take them in."""
        start, end = self._next, int(self._known_us.searchsorted(at_us, "right"))
        if end <= start:
            return 0, []
        self._next = end
        return end - start, self._events.changes(np.arange(start, end), now_us=at_us)


class _Events:
    """Events as arrays, ready to be taken in by entity.

    entities: the canonical key of each entity; codes: for each event its entity's place in it.
    tail: int64 [4 + sum columns, events], as a packed row holds it; without windowed features it has no columns.
    """

    def __init__(self, plan: ViewPlan, events: pa.Table, id_columns: int) -> None:
        self.plan = plan
        self.size = len(events)
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

    def by_entity(self, most: int) -> Iterator[NDArray[np.int64]]:
        """The events of `most` entities at a time, in the order of their keys.

        A store that keeps its rows in order then writes each of its pages once.
        """
        ranks = np.empty(len(self.entities), np.int64)
        ranks[sorted(range(len(self.entities)), key=self.entities.__getitem__)] = np.arange(len(self.entities))
        ranked = ranks[self.codes]
        order = ranked.argsort(kind="stable")
        edges = ranked[order].searchsorted(np.arange(0, len(self.entities) + most, most))
        for start, stop in pairwise(edges.tolist()):
            yield order[start:stop]

    def changes(
        self, events: NDArray[np.int64], *, now_us: int | None = None, latest_by_us: int | None = None
    ) -> list[tuple[Key, Change]]:
        """For each entity of some events: its row's key, and the change that takes them in.

        now_us: the present, see `packed.merge`. latest_by_us: of the events that count by then only the latest are
        taken for last-value features.
        """
        order = events[self.codes[events].argsort(kind="stable")]
        codes = self.codes[order]
        edges = np.array([0, *(np.flatnonzero(codes[1:] != codes[:-1]) + 1), len(order)])
        if not len(order):
            return []
        last: list[list[LastRow]] = [[] for _ in edges[1:]]
        partly = [False] * len(last)
        if self.plan.keeps_last:
            chosen = np.ones(len(order), bool)
            if latest_by_us is not None:
                chosen = self._may_be_latest(order, edges, latest_by_us)
            owner = np.repeat(np.arange(len(last)), np.diff(edges))
            for place, row in zip(owner[chosen].tolist(), self._last_rows(order[chosen]), strict=True):
                last[place].append(row)
            for place in np.unique(owner[~chosen]).tolist():
                partly[place] = True
        found: list[tuple[Key, Change]] = []
        for place, (first, stop) in enumerate(pairwise(edges.tolist())):
            key = (self.plan.digest, self.entities[int(codes[first])])
            tail = self.tail[:, order[first:stop]] if self._longest_us else _NO_TAIL
            found.append((key, partial(self._change, key, last[place], tail, now_us, partly[place])))
        return found

    def _may_be_latest(self, order: NDArray[np.int64], edges: NDArray[np.int64], by_us: int) -> NDArray[np.bool_]:
        """Which of the events in `order` are the latest of their entity by then, or count only later."""
        times = self.event_us[order]
        counts = np.maximum(times, self._known_us[order]) <= by_us
        newest = np.maximum.reduceat(np.where(counts, times, NULL), edges[:-1])
        result: NDArray[np.bool_] = ~counts | (times == np.repeat(newest, np.diff(edges)))
        return result

    def _change(
        self,
        key: Key,
        last: list[LastRow],
        tail: Int64,
        now_us: int | None,
        partly: bool,
        rows: Rows,
        packed: bytes | None,
    ) -> int:
        present_us = NEVER_US if now_us is None else now_us
        partial_last = partly and bool(last)
        if self._longest_us:
            return take_in(rows, key, packed, self.plan, last, tail, now_us=present_us, partial=partial_last)
        if len(last) == 1 and packed is None and last[0].known_us <= present_us:  # most rows of a first run
            rows.put(key, pack(Packed(tuple(last), _NO_TAIL, NULL, last[0].known_us, partial_last)))
            return 1
        old = None if packed is None else unpack(packed, 0)
        if old is not None and len(last) == 1 and last[0] in old.last:
            return 0
        row, changed = merge(old, last, tail, longest_window_us=0, now_us=present_us, partial=partial_last)
        if changed or packed is None:
            rows.put(key, pack(row))
        return changed

    def _last_rows(self, events: NDArray[np.int64]) -> Iterator[LastRow]:
        places = events.tolist()
        values = [[column[i] for i in places] for column in self._values]
        rows = zip(*values, strict=True) if values else repeat(())
        times = zip(self.event_us[events].tolist(), self._known_us[events].tolist(), strict=True)
        for (event_us, known_us), i, row in zip(times, places, rows, strict=False):
            yield LastRow(event_us, known_us, self._ids[i], row)

    def _make_tail(self, events: pa.Table) -> Int64:
        if not self.plan.longest_window_us:
            return np.empty((VALUES, self.size), dtype=np.int64)
        tail = np.empty((VALUES + len(self.plan.tail_columns), self.size), dtype=np.int64)
        tail[EVENT], tail[KNOWN], tail[SUPERSEDED] = self.event_us, self._known_us, NEVER_US
        tail[KEY] = [key_hash(key) for key in self._ids]
        for position in range(len(self.plan.tail_columns)):
            tail[VALUES + position] = events[f"tail_{position}"].fill_null(NULL).to_numpy()
        return tail
