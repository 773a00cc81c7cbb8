"""Shipping: how do the records of a prediction log come to the object store, and when do they go?

`ship` copies each compacted batch to the object store, then tells there what the batch is, then notes here that it is
there, then removes it here. `ship_straight` does so with segments that there is no room to compact.
`put_together` makes one batch of many small ones, and `prune` takes days out. Each
step can be done again: a process may die between any two of them, and the next one goes on. What is not in the object
store is never removed here, and readers see every record once, before, between and after.

One process at a time does this for a log (`ship.lock`). Several machines, each with a log of its own, may share an
object store: whoever shipped a batch is the one to put it together with others.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from seatrial.core.clock import from_us, iso, to_us
from seatrial.core.errors import SeatrialError
from seatrial.core.identity import uuid7
from seatrial.stores.log_batches import (
    FORMAT,
    Batch,
    BatchWriter,
    Part,
    key_of,
    locked,
    make_visible,
    standing,
    sync_folder,
    write_whole,
)
from seatrial.stores.prediction_log import FILE_FORMAT, MANIFESTS, SHIPPED, STORE, PredictionLog

if TYPE_CHECKING:
    from seatrial.stores.objects import ObjectStore

PRUNED = "predictions.pruned"
SUBJECT = "log"
"""Kind and subject of the event that tells of a removal."""
TOGETHER = 16
"""So many batches of one size are put together, until they are large."""
LARGE_BYTES = 256 * 2**20
_DAY_US = 86_400_000_000
_SHIPPED = b'{"format":1}'
_AT_ONCE = 20_000  # records in memory while batches are put together


@dataclass(frozen=True)
class Shipped:
    """What one call of `ship` brought to the object store."""

    batches: int = 0
    records: int = 0
    bytes: int = 0

    def and_of(self, batch: Batch) -> Shipped:
        """With one batch more."""
        size = sum(part.bytes for part in batch.parts)
        return Shipped(self.batches + 1, self.records + batch.records, self.bytes + size)


@dataclass(frozen=True)
class Removal:
    """A file of the log that retention takes away. shipped: whether it lies in the object store."""

    batch: str
    model: str
    day: str
    records: int
    bytes: int
    shipped: bool


def ship(log: PredictionLog) -> Shipped:
    """Bring every compacted batch to the object store, oldest first; what was left half-way before is finished.

    A batch that cannot be brought there stays here, and does not stand in the way of others. Raises what the object
    store raised first, after all were tried; LogBusy when another process ships this log; and OSError when this
    folder takes nothing.
    """
    if log.objects is None:
        return Shipped()
    log.root.mkdir(parents=True, exist_ok=True)
    done = Shipped()
    failed: SeatrialError | OSError | None = None
    with locked(log.root / "ship.lock"):
        _clear(log)
        for batch in standing(log.local_batches().values())[0]:
            try:
                if batch.batch not in log.marks():
                    _put(log, log.objects, batch)
                    done = done.and_of(batch)
                _remove_here(log, batch)
            except (SeatrialError, OSError) as error:
                failed = failed or error
        if failed is not None:
            raise failed
        _remove_replaced(log)
    return done


def is_full(error: OSError) -> bool:
    """Whether an error says that a disk has no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def ship_straight(log: PredictionLog) -> Shipped:
    """Bring every closed segment to the object store without anything written to the log's own disk, oldest first.

    For a disk that is full of segments, where there is no room for compacted ones. Each becomes a batch in the store,
    and goes from here as soon as the store has it. Raises what the store raises, LogBusy, and OSError.
    """
    done = Shipped()
    if log.objects is None:
        return done
    objects = log.objects
    with locked(log.root / "compact.lock"), locked(log.root / "ship.lock"):
        log.clear_leftovers()
        objects.put(SHIPPED, _SHIPPED)  # before a segment says that it is on its way: then a store is known to be there
        for name in log.movable():
            batch = uuid7()
            named = log.on_its_way(name, batch)
            aside = log.aside_of(objects, batch)
            try:
                aside.mkdir()
                parts, damage, _ = log.as_parquet([named], aside)
                made = _put_parts(objects, Batch(FORMAT, batch, (named,), parts), aside)
            finally:
                shutil.rmtree(aside, ignore_errors=True)  # the next one that looks tries again
            _tell(objects, made)  # from here on readers leave the segment
            log.retire([named], damage)
            _mark(log, objects, made)
            done = done.and_of(made)
    return done


def put_together(log: PredictionLog, *, most: int = TOGETHER) -> int:
    """Make one batch of `most` or more small ones of about the same size; of how many one was made.

    With an object store of those that were shipped from here, else of those that lie here; the new one lies here, and
    the next `ship` takes it away. Raises as `ship`.
    """
    log.root.mkdir(parents=True, exist_ok=True)
    with locked(log.root / "ship.lock"):
        _clear(log)
        if log.objects is None:
            _remove_replaced(log)
        for size, group in sorted(_by_size(log).items()):
            while len(group) >= most:
                try:
                    _write_together(log, group, size + 1)
                except _Unreadable as error:  # readers tell of it; the others are put together without it
                    group = [batch for batch in group if batch.batch != error.batch]
                    continue
                if log.objects is None:
                    _remove_replaced(log)
                return len(group)
    return 0


class _Unreadable(Exception):
    def __init__(self, batch: str) -> None:
        super().__init__(batch)
        self.batch = batch


def removable(log: PredictionLog, before_us: int) -> list[Removal]:
    """What `prune` would take away: files whose day has ended and whose records were all written before an instant.

    Of a log with an object store only what was shipped.
    """
    found = []
    for batch, shipped in _prunable(log):
        for part in _expired(batch, before_us):
            found.append(Removal(batch.batch, part.model, part.day, part.records, part.bytes, shipped))
    return sorted(found, key=lambda one: (one.day, one.model, one.batch))


def prune(log: PredictionLog, before_us: int) -> list[Removal]:
    """Take away what `removable` lists, here and in the object store. Raises as `ship`."""
    log.root.mkdir(parents=True, exist_ok=True)
    with locked(log.root / "ship.lock"):
        _clear(log)
        gone = removable(log, before_us)
        taken = {one.batch for one in gone}
        marks = log.marks()
        for batch, shipped in _prunable(log):
            if batch.batch not in taken:
                continue
            expired = _expired(batch, before_us)
            rest = tuple(part for part in batch.parts if part not in expired)
            if shipped and log.objects is not None:
                _put_rest(log, log.objects, batch, rest, own=batch.batch in marks)
            else:
                _link_rest(log, batch, rest)
        _remove_replaced(log)
    return gone


def told(gone: Sequence[Removal], before_us: int) -> dict[str, Any]:
    """What the audit log is told of a removal: days and counts, by model."""
    models: dict[str, dict[str, Any]] = {}
    for one in gone:
        of_model = models.setdefault(one.model, {"from": one.day, "to": one.day, "records": 0})
        of_model["from"], of_model["to"] = min(of_model["from"], one.day), max(of_model["to"], one.day)
        of_model["records"] += one.records
    return {
        "before": iso(from_us(before_us)),
        "files": len(gone),
        "records": sum(one.records for one in gone),
        "bytes": sum(one.bytes for one in gone),
        "models": models,
    }


# -- shipping


def _put(log: PredictionLog, objects: ObjectStore, batch: Batch) -> None:
    """Files first, then what names them, then the note here that they are there."""
    there = _put_parts(objects, structs.replace(batch, format=FORMAT), _folder(log) / batch.batch)
    _tell(objects, there)
    try:
        _mark(log, objects, there)
    except OSError as error:
        if not is_full(error):
            raise
        _remove_here(log, batch)  # this makes room for the note
        _mark(log, objects, there)


def _put_parts(objects: ObjectStore, batch: Batch, folder: Path) -> Batch:
    """Bring a batch's files to the object store; the batch that names them there."""
    parts = []
    for part in batch.parts:
        key = key_of(batch.batch, part.file)
        parts.append(structs.replace(part, key=key, digest=objects.put_file(key, folder / part.file)))
    return structs.replace(batch, parts=tuple(parts))


def _tell(objects: ObjectStore, batch: Batch) -> None:
    """Say in the object store what a batch is; from here on readers take it."""
    objects.put(SHIPPED, _SHIPPED)
    objects.put(f"{MANIFESTS}{batch.batch}.json", msgspec.json.encode(batch))


def _mark(log: PredictionLog, objects: ObjectStore, batch: Batch) -> None:
    """Note here that a batch was shipped from here, and where to."""
    marks = log.root / "shipped"
    marks.mkdir(exist_ok=True)
    place = msgspec.json.encode({"format": 1, "objects": os.path.relpath(objects.root, log.root)})
    if not (log.root / STORE).exists() or (log.root / STORE).read_bytes() != place:
        write_whole(log.root / f".{STORE}", place)
        (log.root / f".{STORE}").rename(log.root / STORE)
    aside = marks / f".new-{batch.batch}"
    write_whole(aside, msgspec.json.encode(batch))
    aside.rename(marks / f"{batch.batch}.json")
    sync_folder(marks)


def _remove_here(log: PredictionLog, batch: Batch) -> None:
    """Remove a batch's folder, unless a segment that it replaces is still there: then it would be read again."""
    if any((log.root / "segments" / name).exists() for name in batch.replaces if name.endswith(".seg")):
        return
    folder = _folder(log) / batch.batch
    if folder.is_dir():
        gone = _folder(log) / f".gone-{batch.batch}"
        folder.rename(gone)  # readers have all of it, or look again
        shutil.rmtree(gone)


def _remove_replaced(log: PredictionLog) -> None:
    """Remove the batches that others replace, and those that hold nothing and replace nothing any more."""
    while True:
        here, there = log.local_batches(), log.shipped_batches() if log.objects is not None else {}
        batches = there | here
        kept, replaced = standing(batches.values())
        used = {part.key for batch in kept for part in batch.parts if part.key}
        segments = {path.name for path in (log.root / "segments").glob("*.seg")}
        there_replaced = {name for batch in there.values() for name in batch.replaces}
        gone = []
        for name in sorted(replaced & batches.keys()):
            batch = batches[name]
            if any(one in batches or one in segments for one in batch.replaces):
                continue  # it hides something that is still there, which goes first
            if name in there and name not in there_replaced:
                continue  # what replaces it is not shipped yet
            gone.append(batch)
        gone += [one for one in kept if not one.parts and not any(n in batches or n in segments for n in one.replaces)]
        for batch in gone:
            if batch.batch in here:
                _remove_here(log, batch)
            if batch.batch in there and log.objects is not None:
                for part in batch.parts:
                    key = part.key or key_of(batch.batch, part.file)
                    if key not in used:
                        log.objects.remove(key)
                log.objects.remove(f"{MANIFESTS}{batch.batch}.json")
                (log.root / "shipped" / f"{batch.batch}.json").unlink(missing_ok=True)
        if not gone:
            break
    if log.objects is not None:  # what another machine has removed
        for name in log.marks() - there.keys():
            (log.root / "shipped" / f"{name}.json").unlink(missing_ok=True)


def _clear(log: PredictionLog) -> None:
    """Remove what a process left that died on the way."""
    for folder in (*_folder(log).glob(".gone-*"), *_folder(log).glob(".joint-*")):
        shutil.rmtree(folder)
    for file in (log.root / "shipped").glob(".new-*"):
        file.unlink()


def _folder(log: PredictionLog) -> Path:
    return log.root / "compacted"


# -- putting together


def _by_size(log: PredictionLog) -> dict[int, list[Batch]]:
    """The batches that may be put together, by their size: those of this log alone, so that no two logs take one."""
    here = log.local_batches()
    if log.objects is None:
        candidates = standing(here.values())[0]
    else:
        there, marks = log.shipped_batches(), log.marks()
        kept, _ = standing((there | here).values())
        candidates = [batch for batch in kept if batch.batch in marks and batch.batch in there]
    found: dict[int, list[Batch]] = {}
    for batch in candidates:
        if batch.parts and sum(part.bytes for part in batch.parts) < LARGE_BYTES:
            found.setdefault(batch.size, []).append(batch)
    return found


def _write_together(log: PredictionLog, group: Sequence[Batch], size: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = uuid7()
    folder = _folder(log)
    folder.mkdir(exist_ok=True)
    aside = folder / f".joint-{name}"
    aside.mkdir()
    with BatchWriter(aside, FILE_FORMAT) as writer:
        files = [(part.day, part.model, one.batch, part) for one in group for part in one.parts]
        for day, model, batch, part in sorted(files, key=lambda one: one[:3]):
            kind = Path(part.file).stem.partition("-")[0]
            try:
                with pq.ParquetFile(log.path_of(part, batch)) as file:
                    for rows in file.iter_batches(batch_size=_AT_ONCE):
                        writer.write(model, day, kind, pa.Table.from_batches([rows]))
            except (pa.ArrowException, FileNotFoundError):
                shutil.rmtree(aside)
                raise _Unreadable(batch) from None
        parts = writer.finish()
    joint = Batch(FORMAT, name, tuple(one.batch for one in group), parts, size)
    assert joint.records == sum(one.records for one in group), "no record is lost on the way"
    make_visible(aside, joint, folder / name)


# -- retention


def _prunable(log: PredictionLog) -> list[tuple[Batch, bool]]:
    """The batches that retention may look at, and whether they are shipped."""
    here = log.local_batches()
    there = log.shipped_batches()
    kept, _ = standing((there | here).values())
    if log.objects is None:
        return [(batch, False) for batch in kept if batch.batch in here]
    return [(batch, True) for batch in kept if batch.batch in there and batch.batch not in here]


def _expired(batch: Batch, before_us: int) -> list[Part]:
    return [
        part
        for part in batch.parts
        if part.recorded_us < before_us and to_us(_midnight(part.day)) + _DAY_US <= before_us
    ]


def _midnight(day: str) -> datetime:
    return datetime.combine(date.fromisoformat(day), time(), UTC)


def _put_rest(log: PredictionLog, objects: ObjectStore, batch: Batch, rest: tuple[Part, ...], *, own: bool) -> None:
    """A batch of what remains of a shipped one, with the same files, in its place."""
    if rest and not own:
        return  # who shipped it may put it together with others at this moment, and does this later
    keyed = tuple(structs.replace(part, key=part.key or key_of(batch.batch, part.file)) for part in rest)
    made = Batch(FORMAT, uuid7(), (batch.batch,), keyed, batch.size)
    _tell(objects, made)
    if own:
        _mark(log, objects, made)


def _link_rest(log: PredictionLog, batch: Batch, rest: tuple[Part, ...]) -> None:
    """A batch of what remains of one that lies here, in its place."""
    name = uuid7()
    aside = _folder(log) / f".joint-{name}"
    aside.mkdir()
    for part in rest:
        (aside / part.file).parent.mkdir(parents=True, exist_ok=True)
        os.link(_folder(log) / batch.batch / part.file, aside / part.file)
    make_visible(aside, Batch(FORMAT, name, (batch.batch,), rest, batch.size), _folder(log) / name)
