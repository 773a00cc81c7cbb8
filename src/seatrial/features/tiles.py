"""Tiles: how the events of an entity that has very many of them are kept, so that one more is cheap to take in.

Up to MANY events are one packed row. Beyond that the row keeps the newest two hops of event time, and each older hop is
a tile: a row of its own, beside the view's rows, with the same columns. The row says what each tile sums up to. An
event that is news then rewrites one small row; a late or restated one also the tiles that it changes. Which of the two
an event is, is told from the event keys of each tile, which are kept once more, shortened, in a row beside it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from seatrial.features.events import NEVER_US
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
    Tile,
    damaged,
    hop_us,
    matrix_bytes,
    merge,
    pack,
    read_tile,
    summary,
    unpack,
)
from seatrial.features.plan import ViewPlan
from seatrial.stores.online import Key, Rows

MANY = 20_000  # events of one entity; it stays in tiles while it has more than half of that


def tile_key(key: Key, number: int) -> Key:
    """Where a tile is kept. key: of the entity's row; under a name of its own, so that it counts as no entity."""
    digest, entity = key
    return f"{digest}/tiles", entity + number.to_bytes(8, "big", signed=True)


def take_in(
    rows: Rows,
    key: Key,
    packed: bytes | None,
    plan: ViewPlan,
    last: Sequence[LastRow],
    tail: Int64,
    *,
    now_us: int,
    partial: bool,
) -> int:
    """Take events into the rows of one entity; how many of them changed something.

    packed: the row at `key`; last, tail, now_us, partial: see `packed.merge`. Nothing is written when nothing changes.
    Raises PackedRowTooNew, and PackedRowDamaged when the row or one of its tiles cannot be read.
    """
    columns = len(plan.tail_columns)
    longest_us = plan.longest_window_us
    old = None if packed is None else unpack(packed, columns)
    was = () if old is None else old.tiles
    found: dict[int, bytes] = {}
    apart: tuple[Tile, ...] = ()
    if old is not None and was:
        if _only_newer(rows, key, was, tail, hop_us(longest_us)):
            apart = was
        else:
            found, tail_before = _read(rows, key, was, columns)
            old = replace(old, tail=np.concatenate([tail_before, old.tail], axis=1))
    row, changed = merge(old, last, tail, longest_window_us=longest_us, now_us=now_us, partial=partial)
    if changed or packed is None:
        _write(rows, key, row, plan, was, found, apart)
    return changed


def _only_newer(rows: Rows, key: Key, tiles: Sequence[Tile], new: Int64, hop: int) -> bool:
    """Whether new events concern none of the tiles: they are newer, and no version of any of them is in one.

    Now and then it says no for nothing, since of each event key in a tile only half is looked at.
    """
    if (new[EVENT] < (tiles[-1].number + 1) * hop).any():
        return False
    halves = []
    for tile, data in zip(tiles, rows.get([_halves_key(key, tile.number) for tile in tiles]), strict=True):
        if data is None or data[:4] != _stamp(tile) or len(data) != 4 + 4 * tile.rows:
            raise damaged(f"the event keys of an online row's tile {tile.number} are not as they were written.")
        halves.append(np.frombuffer(data, dtype="<u4", offset=4))
    return not np.isin(np.concatenate(halves), _key_halves(new)).any()


def _read(rows: Rows, key: Key, tiles: Sequence[Tile], columns: int) -> tuple[dict[int, bytes], Int64]:
    """The bytes of tiles by number, and the events of all of them, in order."""
    found = rows.get([tile_key(key, tile.number) for tile in tiles])
    events = [read_tile(tile, data, columns) for tile, data in zip(tiles, found, strict=True)]
    by_number = {tile.number: data for tile, data in zip(tiles, found, strict=True) if data is not None}
    return by_number, np.concatenate(events, axis=1)


def _write(
    rows: Rows,
    key: Key,
    row: Packed,
    plan: ViewPlan,
    was: Sequence[Tile],
    found: Mapping[int, bytes],
    apart: Sequence[Tile],
) -> None:
    """Write the row, and the tiles that changed.

    was: the tiles until now; found: the bytes of those that were read; apart: those whose events are not in `row`.
    """
    hop = hop_us(plan.longest_window_us)
    before = {tile.number: tile for tile in was}
    tiles = [tile for tile in apart if (tile.number + 1) * hop - 1 > row.pruned_to_us]
    size = row.tail.shape[1] + sum(tile.rows for tile in tiles)
    if size > (MANY // 2 if was else MANY):
        newest_us = min(int(row.tail[EVENT, -1]), row.newest_known_us)  # a row from the far future waits in the tail
        open_from = int(row.tail[EVENT].searchsorted(max((newest_us // hop - 1) * hop, NULL)))
        numbers = row.tail[EVENT, :open_from] // hop
        edges = [*np.flatnonzero(np.diff(numbers, prepend=numbers[:1] - 1)).tolist(), open_from]
        for first, end in pairwise(edges):
            number = int(numbers[first])
            events = row.tail[:, first:end]
            data = matrix_bytes(events)
            if found.get(number) == data:
                tiles.append(before[number])
                continue
            tile = _tile(number, data, events, plan)
            tiles.append(tile)
            rows.put(tile_key(key, number), data)
            rows.put(_halves_key(key, number), _stamp(tile) + _key_halves(events).tobytes())
        row = replace(row, tail=row.tail[:, open_from:])
    elif tiles:
        _, tail_before = _read(rows, key, tiles, len(plan.tail_columns))
        row, tiles = replace(row, tail=np.concatenate([tail_before, row.tail], axis=1)), []
    for number in before.keys() - {tile.number for tile in tiles}:
        rows.delete(tile_key(key, number))
        rows.delete(_halves_key(key, number))
    rows.put(key, pack(replace(row, tiles=tuple(tiles))))


def _halves_key(key: Key, number: int) -> Key:
    """Where half of each event key of a tile is kept, which is all that most pushes need to know of it."""
    digest, entity = tile_key(key, number)
    return f"{digest}/keys", entity


def _key_halves(events: Int64) -> NDArray[np.uint32]:
    halves: NDArray[np.uint32] = events[KEY].astype("<u4")
    return halves


def _stamp(tile: Tile) -> bytes:
    return tile.stamp.to_bytes(4, "little")


def _tile(number: int, data: bytes, events: Int64, plan: ViewPlan) -> Tile:
    ends = events[SUPERSEDED][events[SUPERSEDED] != NEVER_US]
    settled_us = max(int(events[KNOWN].max()), int(ends.max(initial=NULL)))
    lasting = events[:, events[SUPERSEDED] == NEVER_US]
    return Tile(
        number=number,
        stamp=zlib.crc32(data),
        rows=events.shape[1],
        settled_us=settled_us,
        count=lasting.shape[1],
        newest_us=int(lasting[EVENT].max(initial=NULL)),
        columns=tuple(summary(column.kind, lasting[VALUES + i]) for i, column in enumerate(plan.tail_columns)),
    )
