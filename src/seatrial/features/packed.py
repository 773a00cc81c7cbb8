"""The packed row: everything that one view knows of one entity, as bytes, and what it says at an instant.

A row keeps two things. For last-value features: the latest row that counts now, and rows that will count
later. For windowed features: the tail of events up to the longest window, as columns of 64-bit integers, from
which sums are taken at read time. Values are the same integers that the offline join adds, so both say the
same, bit by bit.

Layout, MessagePack: [format, pruned_to_us, newest_known_us, [[event_us, known_us, [event key], [values]], ...],
rows, tail, dropped, tiles]. `tail` is `4 + len(tail_columns)` little-endian int64 columns of `rows` values each:
event_us, known_us, superseded_us, event key (a 64-bit hash), and the plan's tail columns (NULL for null), sorted by
event_us.

`tiles` is there, and the format is 2, only for an entity of very many events: then `tail` holds the newest of them,
and the older ones are in rows of their own, each the matrix of one span of event time. The row has what each sums up
to, so that a look needs only those that lie partly outside its window; see `features.tiles`.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import Failed
from seatrial.features.events import LARGEST_SUM, NEVER_US, SumTooLarge, age, from_order, superseded_us
from seatrial.features.plan import ViewPlan

FORMAT = 2  # of a row with tiles; one without is written as format 1
NULL = -(2**63)
SLACK_US = 3_600_000_000  # events stay this much longer than the longest window, for requests that lag behind
FITS = 2**63 // LARGEST_SUM - 1  # so many values cannot add up beyond 64 bits
TILES = 64
MOST_TILED = 10_000  # entities that a reader remembers to be in tiles
MOST_LAST_ROWS = 1000  # of one entity; a busier one answers for less than the slack
EVENT, KNOWN, SUPERSEDED, KEY, VALUES = 0, 1, 2, 3, 4

COUNTS = ("count", "count_distinct")  # what is 0, not null, of nothing

_NO_TAIL = np.empty((VALUES, 0), dtype=np.int64)

Status = Literal["present", "missing", "expired"]
Int64 = NDArray[np.int64]


class PackedRowTooNew(Failed):
    """An online row was written by a newer version."""

    code = "online.row_too_new"


class PackedRowDamaged(Failed):
    """An online row cannot be read."""

    code = "online.row_damaged"


class AskedBeforeTail(Failed):
    """A window was asked for an instant so early that its events have been dropped from the online store."""

    code = "online.asked_before_tail"


class Tile(msgspec.Struct, array_like=True, frozen=True):
    """What the main row knows of the events of one span of time that are kept in a row of their own.

    number: the span is `hop_us` long and begins at number * hop_us. stamp: CRC-32 of the tile's bytes; rows: how many
    events they hold. From settled_us on the events that count are those that nothing superseded: `count` of them, the
    newest at newest_us (NULL for none), and `columns` is what they come to, per tail column by its kind. "sum": how
    many are not null, their sum, the sum of their squares (16 bytes each, little-endian, signed); "count": how many are
    not null; "order": the least and the greatest (NULL for none); "distinct": the different values, as sorted int64.
    """

    number: int
    stamp: int
    rows: int
    settled_us: int
    count: int
    newest_us: int
    columns: tuple[tuple[int | bytes, ...], ...]


class LastRow(msgspec.Struct, array_like=True, frozen=True):
    """One source row for last-value features. key: its event key; values: in the order of `last_columns`."""

    event_us: int
    known_us: int
    key: tuple[Any, ...]
    values: tuple[Any, ...]

    @property
    def start_us(self) -> int:
        """When the row begins to count: it has happened and is known."""
        return self.known_us if self.known_us > self.event_us else self.event_us

    def order(self) -> tuple[Any, ...]:
        """What decides between two rows: event time, known time, event key, content; null sorts first."""
        return (
            self.event_us,
            self.known_us,
            *((part is not None, part) for part in self.key),
            *((value is not None, _encoded(value) if isinstance(value, list) else value) for value in self.values),
        )


class Packed(msgspec.Struct, frozen=True):
    """A decoded row. tail: int64 [4 + columns, rows], sorted by event time. dropped: older last-value rows are gone.

    tiles: of the events that are older than every event of the tail, in order.
    """

    last: tuple[LastRow, ...] = ()
    tail: Int64 = msgspec.field(default_factory=lambda: np.empty((VALUES, 0), dtype=np.int64))
    pruned_to_us: int = NULL
    newest_known_us: int = NULL
    dropped: bool = False
    tiles: tuple[Tile, ...] = ()


class Looked(msgspec.Struct, frozen=True):
    """What a view said: its features by bare name, whether there was a row, and the time of its latest event.

    status: "present" (the latest row counts), "expired" (only rows older than ttl or window), "missing" (none).
    """

    values: dict[str, Any]
    status: Status
    event_us: int | None


def key_hash(key: Sequence[Any]) -> int:
    """The 64-bit hash, signed, by which a tail tells event keys apart."""
    hashed = hashlib.blake2b(msgspec.msgpack.encode(list(key)), digest_size=8).digest()
    return int.from_bytes(hashed, "little", signed=True)


def hop_us(longest_window_us: int) -> int:
    """How long a tile's span of time is: what a row keeps of events comes to 64 tiles, whatever the window."""
    return (longest_window_us + SLACK_US) // TILES


def pack(row: Packed) -> bytes:
    """The row as bytes."""
    plain = [row.pruned_to_us, row.newest_known_us, row.last, row.tail.shape[1], matrix_bytes(row.tail), row.dropped]
    return _ENCODER.encode([FORMAT, *plain, row.tiles] if row.tiles else [1, *plain])


def unpack(data: bytes, columns: int) -> Packed:
    """The row of `data`, whose tail has `columns` value columns.

    Raises PackedRowTooNew or PackedRowDamaged.
    """
    try:
        row = _DECODER.decode(data)
        if row.format > FORMAT:
            raise PackedRowTooNew(f"an online row has format {row.format}; this version reads up to {FORMAT}.")
        if row.rows or row.tail or columns:
            tail = np.frombuffer(row.tail, dtype="<i8").reshape(VALUES + columns, row.rows)
        else:
            tail = _NO_TAIL
    except (msgspec.MsgspecError, ValueError, TypeError):
        raise damaged("an online row cannot be read.") from None
    return Packed(row.last, tail, row.pruned_to_us, row.newest_known_us, row.dropped, row.tiles)


def matrix_bytes(matrix: Int64) -> bytes:
    """A tail's, or a tile's, events as bytes."""
    return np.ascontiguousarray(matrix, dtype="<i8").tobytes() if matrix.size else b""


def read_tile(tile: Tile, data: bytes | None, columns: int) -> Int64:
    """The events of a tile: int64 [4 + columns, rows]. Raises PackedRowDamaged when `data` is not what `tile` says."""
    if data is None:
        raise damaged(f"an online row's tile {tile.number} is missing.")
    if zlib.crc32(data) != tile.stamp or len(data) != 8 * tile.rows * (VALUES + columns):
        raise damaged(f"an online row's tile {tile.number} is not as it was written.")
    return np.frombuffer(data, dtype="<i8").reshape(VALUES + columns, tile.rows)


def damaged(found: str) -> PackedRowDamaged:
    return PackedRowDamaged(found, next="Run `seatrial materialize` after moving the online store away.")


def merge(
    old: Packed | None,
    last: Sequence[LastRow],
    tail: Int64,
    *,
    longest_window_us: int,
    now_us: int = NEVER_US,
    partial: bool = False,
) -> tuple[Packed, int]:
    """The row with new source rows taken in, and how many of them changed it.

    last: rows for last-value features; tail: int64 [4 + columns, rows], superseded_us being NEVER_US.
    now_us: the present; rows known later wait in the row and move nothing. partial: older rows for last-value features
    were left out of `last`.
    Taking in a row twice changes nothing; an older row never displaces a newer one. Rows that have left the
    longest window, or were displaced as the latest, by more than SLACK_US are dropped. Of the tiles of `old` nothing is
    known here, and the merged row has none: see `tiles.take_in`.
    """
    known = [us for us in (*(row.known_us for row in last), *tail[KNOWN].tolist()) if us <= now_us]
    if old is None:
        old = Packed(tail=np.empty((tail.shape[0], 0), dtype=np.int64))
    newest_known_us = max([old.newest_known_us, *known])
    if old.dropped and old.last:  # what was the latest before the first row is not known, so no older row can be
        first = old.last[0]
        last = [row for row in last if row.start_us >= first.start_us or row.order() > first.order()]
    last_rows, changed_last, dropped = _merge_last(old.last, last, newest_known_us)
    tail_rows, changed_tail, pruned_to_us = _merge_tail(old, tail, newest_known_us, longest_window_us)
    merged = Packed(last_rows, tail_rows, pruned_to_us, newest_known_us, old.dropped or dropped or partial)
    return merged, min(max(changed_last, changed_tail), max(len(last), tail.shape[1]))


class ViewReader:
    """Says what one view knows of an entity at an instant; made once per plan, used for every request."""

    def __init__(self, plan: ViewPlan) -> None:
        self._name = plan.name
        self._names = tuple(plan.features)
        self._ttl_us = plan.ttl_us
        self._longest_us = plan.longest_window_us
        self._keeps_last = plan.keeps_last
        self._columns = len(plan.tail_columns)
        self._hop_us = hop_us(plan.longest_window_us)
        self._tiled: set[bytes] = set()
        self._last = [
            (
                name,
                a.unit_us if a.function == "age" else 0,
                plan.last_columns.index(a.reads) if a.column else -1,
                a.window_us,
            )
            for name, a in plan.features.items()
            if not a.windowed
        ]
        self._windows: dict[int, list[tuple[str, str, int, int]]] = {}
        for name, a in plan.features.items():
            if a.windowed and a.window_us is not None:
                place = plan.tail_position(a) if a.column else -1
                scale = plan.tail_columns[place].scale if a.column else 1
                self._windows.setdefault(a.window_us, []).append((name, a.function, place, scale))
        self._nothing = {name: 0.0 if a.function in COUNTS else None for name, a in plan.features.items()}

    def likely_tiles(self, entity: bytes, at_us: int) -> list[int]:
        """The tiles that a look at `at_us` will most likely need: where each window begins, if the entity has any."""
        if entity not in self._tiled:
            return []
        # a tile that begins where the window does lies inside
        starts = {at_us - window_us + 1 for window_us in self._windows}
        return sorted({start // self._hop_us for start in starts if start % self._hop_us})

    def read(self, entity: bytes, packed: bytes | None, at_us: int) -> tuple[Packed | None, list[int]]:
        """The entity's row, and the numbers of the tiles whose events a look at `at_us` needs. Raises as `unpack`."""
        row = None if packed is None else unpack(packed, self._columns)
        if row is None or not row.tiles:
            self._tiled.discard(entity)
            return row, []
        if len(self._tiled) >= MOST_TILED:
            self._tiled.clear()
        self._tiled.add(entity)
        if self._reaches_too_far(row, at_us):
            return row, []
        return row, sorted({t.number for window_us in self._windows for t in self._divided(row, at_us, window_us)[1]})

    def look(self, row: Packed | None, at_us: int, tiles: Mapping[int, bytes | None] = MappingProxyType({})) -> Looked:
        """What the view says at `at_us`; row: the entity's, None when there is none; tiles: those that `read` needs.

        Raises AskedBeforeTail when a window reaches back to events that have been dropped, and PackedRowDamaged for a
        tile that is missing or is not the row's.
        """
        if row is None:
            return Looked(self._nothing, "missing", None)
        values: dict[str, Any] = dict.fromkeys(self._names)
        event_us, fresh = None, False
        if self._keeps_last:
            event_us, fresh = self._look_last(row, at_us, values)
        if self._longest_us:
            latest, inside = self._look_windows(row, at_us, values, tiles)
            fresh = fresh or inside
            event_us = latest if event_us is None or (latest is not None and latest > event_us) else event_us
        seen = event_us is not None or row.tiles or (np.maximum(row.tail[EVENT], row.tail[KNOWN]) <= at_us).any()
        status: Status = "present" if fresh else "expired" if seen else "missing"
        return Looked(values, status, event_us)

    def _look_last(self, row: Packed, at_us: int, values: dict[str, Any]) -> tuple[int | None, bool]:
        if len(row.last) == 1:
            best: LastRow | None = row.last[0] if row.last[0].start_us <= at_us else None
        else:
            best = max((one for one in row.last if one.start_us <= at_us), key=LastRow.order, default=None)
        if best is None and row.dropped and row.last:
            raise self._too_early(at_us, row.last[0].start_us)
        if best is None:
            return None, False
        age_us = at_us - best.event_us
        in_ttl = self._ttl_us is None or age_us <= self._ttl_us
        fresh = False
        for name, unit_us, place, window_us in self._last:
            if in_ttl if window_us is None else age_us < window_us:
                values[name] = age(at_us, best.event_us, unit_us) if unit_us else best.values[place]
                fresh = True
        return best.event_us, fresh

    def _too_early(self, at_us: int, from_here_us: int) -> AskedBeforeTail:
        return AskedBeforeTail(
            f"view '{self._name}' was asked for {iso(from_us(at_us))}, and its rows are kept from "
            f"{iso(from_us(from_here_us))} on.",
            expected="The online store goes forward with the events that it is given, and keeps its longest window and "
            "an hour.",
            state="Nothing was predicted.",
            next="To replay an earlier time, move the online store away and run `seatrial materialize --at TIME`.",
        )

    def _reaches_too_far(self, row: Packed, at_us: int) -> bool:
        return at_us - self._longest_us < row.pruned_to_us

    def _look_windows(
        self, row: Packed, at_us: int, values: dict[str, Any], tiles: Mapping[int, bytes | None]
    ) -> tuple[int | None, bool]:
        if self._reaches_too_far(row, at_us):
            raise self._too_early(at_us, row.pruned_to_us + self._longest_us)
        counting = _counting(row.tail, at_us - self._longest_us, at_us)
        latest = NULL
        read: dict[int, Int64] = {}
        for window_us, features in self._windows.items():
            tail = counting
            inside: tuple[Tile, ...] = ()
            if row.tiles:
                inside, parts = self._divided(row, at_us, window_us)
                for tile in parts:
                    if tile.number not in read:
                        matrix = read_tile(tile, tiles.get(tile.number), self._columns)
                        read[tile.number] = _counting(matrix, at_us - self._longest_us, at_us)
                tail = np.concatenate([*(read[tile.number] for tile in parts), counting], axis=1)
            events = tail[EVENT]
            first = int(events.searchsorted(at_us - window_us, "right"))
            newest = [int(events[-1])] if len(events) > first else []
            latest = max([latest, *newest, *(tile.newest_us for tile in inside)])
            rows = len(events) - first + sum(tile.count for tile in inside)
            sums: dict[int, tuple[int, int]] = {}
            for name, function, place, scale in features:
                if place < 0:
                    values[name] = float(rows)
                    continue
                column = tail[VALUES + place, first:]
                summed = [tile.columns[place] for tile in inside]
                if function in ("min", "max", "count_distinct"):
                    values[name] = _compared(function, column, summed)
                    continue
                if place not in sums:
                    sums[place] = _sum(column, summed)
                squares = _squares(column, summed) if function == "std" else 0
                values[name] = _finish(function, *sums[place], scale, squares)
        return (latest, True) if latest != NULL else (None, False)

    def _divided(self, row: Packed, at_us: int, window_us: int) -> tuple[tuple[Tile, ...], tuple[Tile, ...]]:
        """The row's tiles that a window takes as they are summed up, and those of which it takes single events."""
        whole: list[Tile] = []
        parts: list[Tile] = []
        for tile in row.tiles:
            start_us = tile.number * self._hop_us
            end_us = start_us + self._hop_us - 1
            if end_us <= at_us - window_us or start_us > at_us:
                continue
            inside = start_us > at_us - window_us and end_us <= at_us and tile.settled_us <= at_us
            (whole if inside else parts).append(tile)
        return tuple(whole), tuple(parts)


class _Wire(msgspec.Struct, array_like=True, frozen=True):
    format: int
    pruned_to_us: int
    newest_known_us: int
    last: tuple[LastRow, ...]
    rows: int
    tail: bytes
    dropped: bool
    tiles: tuple[Tile, ...] = ()


_DECODER = msgspec.msgpack.Decoder(_Wire)
_ENCODER = msgspec.msgpack.Encoder()


def _counting(tail: Int64, after_us: int, at_us: int) -> Int64:
    """The events in (after_us, at_us] that count at `at_us`."""
    events = tail[EVENT]
    tail = tail[:, int(events.searchsorted(after_us, "right")) : int(events.searchsorted(at_us, "right"))]
    if tail.shape[1] and (tail[KNOWN].max() > at_us or tail[SUPERSEDED].min() <= at_us):
        tail = tail[:, (tail[KNOWN] <= at_us) & (tail[SUPERSEDED] > at_us)]
    return tail


def _merge_last(
    old: tuple[LastRow, ...], new: Sequence[LastRow], newest_known_us: int
) -> tuple[tuple[LastRow, ...], int, bool]:
    """The rows that are, or will be, the latest at some instant from SLACK_US before the newest known one on.

    Also how many of `new` are among them, and whether an older one was dropped.
    """
    if not new:
        return old, 0, False
    horizon = newest_known_us - SLACK_US
    if len(new) == 1 and len(old) <= 1:  # as nearly always; the same as below, without comparing what need not be
        row = new[0]
        if not old:
            return (row,), 1, False
        if row == old[0]:
            return old, 0, False
        ours, theirs = (row.event_us, row.known_us), (old[0].event_us, old[0].known_us)
        if ours > theirs and row.start_us >= old[0].start_us:
            return ((row,), 1, True) if row.start_us <= horizon else ((old[0], row), 1, False)
        if ours < theirs and row.start_us >= old[0].start_us:
            return old, 0, False
    rows = {row.order(): row for row in (*old, *new)}
    kept: list[LastRow] = []
    best: tuple[Any, ...] | None = None
    dropped = False
    for order, row in sorted(rows.items(), key=lambda item: (item[1].start_us, item[0])):
        if best is not None and order < best:
            continue  # something that began to count earlier wins over it for ever
        if kept and row.start_us <= horizon:
            kept.clear()  # the row before is not the latest at any instant that is still answered
            dropped = True
        kept.append(row)
        best = order
    if len(kept) > MOST_LAST_ROWS:
        kept, dropped = kept[-MOST_LAST_ROWS:], True
    return tuple(kept), len({row.order() for row in kept} - {row.order() for row in old}), dropped


def _merge_tail(old: Packed, new: Int64, newest_known_us: int, longest_window_us: int) -> tuple[Int64, int, int]:
    """The tail with `new` taken in and pruned, how many rows were new, and up to where it is pruned."""
    if not longest_window_us or new.shape[1] == 0:
        return old.tail, 0, old.pruned_to_us
    pruned_to_us = max(old.pruned_to_us, newest_known_us - longest_window_us - SLACK_US)
    if new.shape[1] == 1 and new[EVENT, 0] > pruned_to_us and not (old.tail[KEY] == new[KEY, 0]).any():
        rows = _inserted(old.tail, new)  # one event that is news: what a push mostly brings
        return rows[:, int(np.searchsorted(rows[EVENT], pruned_to_us, side="right")) :], 1, pruned_to_us
    restated = np.isin(old.tail[KEY], new[KEY])
    versions = np.concatenate([old.tail[:, restated], new], axis=1)
    _, first = np.unique(np.delete(versions, SUPERSEDED, axis=0), axis=1, return_index=True)
    versions = versions[:, np.sort(first)]
    before = versions[SUPERSEDED].copy()
    # a version that was superseded stays so, even when the row that superseded it has been pruned
    versions[SUPERSEDED] = np.minimum(
        before, superseded_us(versions[KEY], versions[KNOWN], versions[EVENT], list(versions[VALUES:]))
    )
    arrived = np.arange(versions.shape[1]) >= int(restated.sum())
    changed = int(((arrived | (versions[SUPERSEDED] != before)) & (versions[EVENT] > pruned_to_us)).sum())
    if not changed:
        return old.tail, 0, old.pruned_to_us
    versions = versions[:, np.argsort(versions[EVENT], kind="stable")]
    rows = _inserted(old.tail[:, ~restated], versions)
    return rows[:, int(np.searchsorted(rows[EVENT], pruned_to_us, side="right")) :], changed, pruned_to_us


def _inserted(rows: Int64, new: Int64) -> Int64:
    """Both, sorted by event time; each is."""
    if not rows.shape[1] or new[EVENT, 0] >= rows[EVENT, -1]:
        return np.concatenate([rows, new], axis=1)
    return np.insert(rows, np.searchsorted(rows[EVENT], new[EVENT], side="right"), new, axis=1)


def summary(kind: str, column: Int64) -> tuple[int | bytes, ...]:
    """What a tile's values of one tail column come to, see Tile."""
    column = column[column != NULL]
    if kind == "sum":
        totals = _total(column), _total_squares(column)
        return len(column), *(total.to_bytes(16, "little", signed=True) for total in totals)
    if kind == "count":
        return (len(column),)
    if kind == "order":
        return (int(column.min()), int(column.max())) if len(column) else (NULL, NULL)
    return (np.unique(column).astype("<i8").tobytes(),)


Summaries = Sequence[tuple[Any, ...]]


def _sum(column: Int64, summed: Summaries = ()) -> tuple[int, int]:
    """The exact sum of the values that are not null, and how many they are; summed: of tiles, to be added."""
    if len(column) and column.min() == NULL:
        column = column[column != NULL]
    total, count = _total(column), len(column)
    for one in summed:
        count += one[0]
        if len(one) > 1:
            total += int.from_bytes(one[1], "little", signed=True)
    if abs(total) >= 2**63:
        raise SumTooLarge("a window's exact sum does not fit into 64 bits.", next="Give a coarser resolution=.")
    return total, count


def _total(column: Int64) -> int:
    if len(column) <= FITS:
        return int(column.sum())
    return (int((column >> 32).sum()) << 32) + int((column & 0xFFFFFFFF).sum())


def _squares(column: Int64, summed: Summaries = ()) -> int:
    """The exact sum of the squares of the values that are not null; summed: of tiles, to be added."""
    total = _total_squares(column[column != NULL])
    return total + sum(int.from_bytes(one[2], "little", signed=True) for one in summed)


def _total_squares(column: Int64) -> int:
    if not len(column):
        return 0
    if int(np.abs(column).max()) ** 2 * len(column) < 2**63:
        return int((column * column).sum())
    total = 0
    for start in range(0, len(column), FITS):  # of so many even the products of halves add up within 64 bits
        some = column[start : start + FITS]
        upper, lower = some >> 24, some & (2**24 - 1)
        total += (int((upper * upper).sum()) << 48) + (int((upper * lower).sum()) << 25) + int((lower * lower).sum())
    return total


def _compared(function: str, column: Int64, summed: Summaries = ()) -> float | None:
    """The least or greatest of the values that are not null, or how many different ones; summed: of tiles, too."""
    if function == "count_distinct":
        apart = [np.frombuffer(one[0], dtype="<i8") for one in summed]
        column = np.concatenate([column, *apart]) if apart else column
        return float(len(np.unique(column[column != NULL])))
    if summed:
        column = np.append(column, [one[0 if function == "min" else 1] for one in summed])
    column = column[column != NULL]
    if not len(column):
        return None
    return float(from_order(column.min() if function == "min" else column.max()))


def _finish(function: str, total: int, count: int, scale: int, squares: int = 0) -> float | None:
    """`events.finish` for one row."""
    if function == "count":
        return float(count)
    if function == "std":
        if count < 2:
            return None
        return math.sqrt(float(count * squares - total * total) / float(count * (count - 1))) / float(scale)
    if count == 0:
        return None
    return float(total) / float(scale if function == "sum" else count * scale)


def _encoded(value: list[Any]) -> bytes:
    return msgspec.msgpack.encode(value)
