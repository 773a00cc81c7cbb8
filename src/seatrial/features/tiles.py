"""Tiles: how the events of an entity that has very many of them are kept, so that one more is cheap to take in.

Up to MANY events are one packed row. Beyond that the row keeps the newest two hops of event time, and each older hop is
a tile: a row of its own, beside the view's rows, with the same columns. The row says what each tile sums up to. An
event that is news then rewrites one small row; a late or restated one also the tiles that it changes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from msgspec.structs import replace

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
    kept: dict[int, _Kept] = {}
    if old is not None and old.tiles:
        found = rows.get([tile_key(key, tile.number) for tile in old.tiles])
        for tile, data in zip(old.tiles, found, strict=True):
            kept[tile.number] = _Kept(tile, data or b"", read_tile(tile, data, columns))
    apart = list(kept.values()) if old is not None and _only_newer(old, kept, tail, hop_us(longest_us)) else []
    if old is not None and kept and not apart:
        old = replace(old, tail=np.concatenate([*(one.events for one in kept.values()), old.tail], axis=1))
    row, changed = merge(old, last, tail, longest_window_us=longest_us, now_us=now_us, partial=partial)
    if changed or packed is None:
        _write(rows, key, row, plan, kept, apart)
    return changed


class _Kept:
    """A tile as it was found."""

    def __init__(self, tile: Tile, data: bytes, events: Int64) -> None:
        self.tile = tile
        self.data = data
        self.events = events


def _only_newer(old: Packed, kept: dict[int, _Kept], new: Int64, hop: int) -> bool:
    """Whether new events concern none of the tiles: they are newer, and no version of any of them is in one."""
    if not kept or (new[EVENT] < (old.tiles[-1].number + 1) * hop).any():
        return False
    return not any(np.isin(one.events[KEY], new[KEY]).any() for one in kept.values())


def _write(rows: Rows, key: Key, row: Packed, plan: ViewPlan, kept: dict[int, _Kept], apart: Sequence[_Kept]) -> None:
    """Write the row, and the tiles that are not as they were `kept`. apart: tiles whose events are not in the row."""
    hop = hop_us(plan.longest_window_us)
    apart = [one for one in apart if (one.tile.number + 1) * hop - 1 > row.pruned_to_us]
    size = row.tail.shape[1] + sum(one.tile.rows for one in apart)
    tiles = [one.tile for one in apart]
    if size > (MANY // 2 if kept else MANY):
        newest_us = min(int(row.tail[EVENT, -1]), row.newest_known_us)  # a row from the far future waits in the tail
        open_from = int(row.tail[EVENT].searchsorted(max((newest_us // hop - 1) * hop, NULL)))
        numbers = row.tail[EVENT, :open_from] // hop
        edges = [*np.flatnonzero(np.diff(numbers, prepend=numbers[:1] - 1)).tolist(), open_from]
        for first, end in pairwise(edges):
            number = int(numbers[first])
            events = row.tail[:, first:end]
            data = matrix_bytes(events)
            if number in kept and kept[number].data == data:
                tiles.append(kept[number].tile)
                continue
            tiles.append(_tile(number, data, events, plan))
            rows.put(tile_key(key, number), data)
        row = replace(row, tail=row.tail[:, open_from:])
    elif apart:
        row, tiles = replace(row, tail=np.concatenate([*(one.events for one in apart), row.tail], axis=1)), []
    for number in kept.keys() - {tile.number for tile in tiles}:
        rows.delete(tile_key(key, number))
    rows.put(key, pack(replace(row, tiles=tuple(tiles))))


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
