"""Materialize and push: source rows into the online store, by one path.

`materialize` takes every row of a source that is known by `at`; `push` takes the rows it is given. Both are
idempotent: a row that is already there, or that is older than what is there, changes nothing and is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from seatrial.core.errors import UsageError
from seatrial.features.events import NEVER_US, view_events
from seatrial.features.lookup import entity_key
from seatrial.features.packed import KEY, VALUES, LastRow, key_hash, merge, pack, unpack
from seatrial.features.packed import NULL as NULL_SUM
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
    written = entities = 0
    groups = list(_by_entity(plan, taken, len(view.source.event_key), latest_only=known_by_us is not None))
    for start in range(0, len(groups), BATCH):
        batch = dict(groups[start : start + BATCH])
        written += _write_batch(plan, batch, store)
        entities += len(batch)
        if progress:
            progress(view.name, entities, len(groups))
    return Written(view.name, len(rows), written, len(taken) - written, len(events) - len(taken), entities)


def _write_batch(plan: ViewPlan, batch: dict[bytes, tuple[list[LastRow], Any]], store: SqliteOnlineStore) -> int:
    written = 0

    def change(entity: bytes, packed: bytes | None) -> bytes | None:
        nonlocal written
        old = unpack(packed, len(plan.sum_columns)) if packed is not None else None
        last, tail = batch[entity]
        row, changed = merge(old, last, tail, longest_window_us=plan.longest_window_us)
        written += changed
        return pack(row) if changed or packed is None else None

    store.update(plan.digest, change, list(batch))
    return written


def _by_entity(
    plan: ViewPlan, events: pa.Table, id_columns: int, *, latest_only: bool
) -> Iterator[tuple[bytes, tuple[list[LastRow], np.ndarray[Any, Any]]]]:
    """Per entity: its canonical key, the rows that matter for last values, and its part of the tail."""
    if not len(events):
        return
    names = [events[f"key_{i}"].to_pylist() for i in range(len(plan.keys))]
    entities: dict[tuple[Any, ...], int] = {}
    codes = np.array([entities.setdefault(key, len(entities)) for key in zip(*names, strict=True)])
    ids: list[tuple[Any, ...]] = [()] * len(events)
    if id_columns:
        ids = list(zip(*(events[f"id_{i}"].to_pylist() for i in range(id_columns)), strict=True))
    event_us, known_us = events["event_us"].to_numpy(), events["known_us"].to_numpy()
    order = np.lexsort((event_us, codes))
    bounds = np.searchsorted(codes[order], np.arange(len(entities) + 1))
    tail = _tail(plan, events, ids)
    values = [events[f"last_{column}"].to_pylist() for column in plan.last_columns]
    for key, code in entities.items():
        mine = order[bounds[code] : bounds[code + 1]]
        last: list[LastRow] = []
        if plan.keeps_last:
            # when every row counts already, only those with the greatest event time can be the latest
            candidates = mine[event_us[mine] == event_us[mine[-1]]] if latest_only else mine
            last = [
                LastRow(int(event_us[i]), int(known_us[i]), ids[i], tuple(column[i] for column in values))
                for i in candidates
            ]
        yield entity_key(key), (last, tail[:, mine] if plan.longest_window_us else tail[:, :0])


def _tail(plan: ViewPlan, events: pa.Table, ids: list[tuple[Any, ...]]) -> np.ndarray[Any, Any]:
    rows = len(events)
    tail = np.empty((VALUES + len(plan.sum_columns), rows if plan.longest_window_us else 0), dtype=np.int64)
    if not plan.longest_window_us:
        return tail
    tail[0], tail[1], tail[2] = events["event_us"].to_numpy(), events["known_us"].to_numpy(), NEVER_US
    tail[KEY] = [key_hash(key) for key in ids]
    for position, column in enumerate(plan.sum_columns):
        tail[VALUES + position] = events[f"sum_{column}"].fill_null(NULL_SUM).to_numpy()
    return tail
