"""Predictions: what does the log hold, who looked at it, and what of it goes?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.clock import from_us, iso, machine_us, monotonic
from seatrial.core.errors import UsageError
from seatrial.core.windows import Window, duration_us

if TYPE_CHECKING:
    from seatrial.folder.workspace import Workspace
    from seatrial.stores.log_shipping import Removal
    from seatrial.stores.prediction_log import PredictionLog

READ = "predictions.read"
"""Kind of the event that tells who asked the log for single predictions."""
EVER = Window(0, 253_402_300_800_000_000)


class UnknownPrediction(UsageError):
    """The prediction log has no such prediction."""

    code = "log.unknown_prediction"


class NoRetention(UsageError):
    """It is not declared how long predictions are kept."""

    code = "log.no_retention"


class DayKept(msgspec.Struct, frozen=True):
    """One model's predictions of a day (of the instants that they are for, UTC). shipped: of the records."""

    model: str
    day: str
    records: int
    shipped: int
    files: int
    bytes: int


class PredictionsListed(msgspec.Struct, frozen=True):
    """What the prediction log holds.

    fresh: records that are not compacted yet, and in no day of `days`. unshipped: records that the object store does
    not have; None where nothing is shipped. unlogged: rows that were answered while the log took nothing.
    retention: how long predictions are kept; None: for ever.
    """

    days: list[DayKept]
    fresh: int
    unshipped: int | None
    unlogged: int
    retention: str | None


class ShippedNow(msgspec.Struct, frozen=True):
    """What was compacted and brought to the object store, and how many records still are to be."""

    compacted: int
    batches: int
    records: int
    bytes: int
    unshipped: int
    seconds: float


class Pruned(msgspec.Struct, frozen=True):
    """What retention took away, or would. before: the end of what is too old; bytes: of Parquet."""

    dry_run: bool
    retention: str
    before: str
    files: int
    records: int
    bytes: int
    days: list[DayKept]


def listed(workspace: Workspace) -> PredictionsListed:
    """What the log holds, by model and day."""
    from seatrial.stores.log_batches import standing

    log = workspace.log
    while True:
        try:
            fresh = log.fresh()
            there = log.shipped_batches()
            batches, _ = standing((there | log.local_batches()).values())
            break
        except FileNotFoundError:
            continue  # something moved meanwhile
    days: dict[tuple[str, str], list[int]] = {}
    for batch in batches:
        for part in batch.parts:
            counts = days.setdefault((part.model, part.day), [0, 0, 0, 0])
            shipped = part.records if batch.batch in there else 0
            for place, more in enumerate((part.records, shipped, 1, part.bytes)):
                counts[place] += more
    return PredictionsListed(
        days=[DayKept(model, day, *counts) for (model, day), counts in sorted(days.items())],
        fresh=fresh,
        unshipped=log.unshipped() if workspace.ships_log else None,
        unlogged=log.unlogged.count(window=EVER),
        retention=workspace.settings.log_retention or None,
    )


def shown(workspace: Workspace, id: str) -> list[dict[str, Any]]:
    """The rows of a prediction's or a request's id, by column, without what is null; told to the audit log."""
    found = looked_up(workspace, id, by="predictions show")
    if not found:
        raise UnknownPrediction(
            "the log has no prediction and no request of this id.",
            expected="The prediction_id of an answer, or the request_id that came with the request, is expected.",
            state="Nothing was shown.",
        )
    return [{name: _plain(value) for name, value in row.items() if value is not None} for row in found]


def looked_up(workspace: Workspace, id: str, *, by: str) -> list[dict[str, Any]]:
    """The rows of an id; the audit log is told who looked, and at which predictions."""
    found = workspace.log.find(id)
    if found:
        body = {
            "by": by,
            "models": sorted({str(row["model"]) for row in found}),
            "records": len(found),
            "predictions": [row["prediction_id"] for row in found[:10]],
        }
        with workspace.metadata.transaction() as transaction:
            workspace.event(transaction, READ, f"model/{found[0]['model']}", body)
    return found


def ship_now(workspace: Workspace) -> ShippedNow:
    """Compact and ship what is closed, in this process. Raises what the object store raises, and LogBusy."""
    from seatrial.stores.log_shipping import ship

    started = monotonic()
    log = workspace.log
    log.rotate()
    compacted = log.compact()
    shipped = ship(log)
    return ShippedNow(
        compacted=compacted.records,
        batches=shipped.batches,
        records=shipped.records,
        bytes=shipped.bytes,
        unshipped=log.unshipped(),
        seconds=round(monotonic() - started, 3),
    )


def pruned(workspace: Workspace, *, dry_run: bool) -> Pruned:
    """Take away what is older than the retention, told to the audit log first; or say what would go.

    Raises NoRetention.
    """
    from seatrial.stores.log_shipping import PRUNED, SUBJECT, prune, removable, told

    retention = workspace.settings.log_retention
    if not retention:
        raise NoRetention(
            "it is not declared how long predictions are kept, so all of them are.",
            expected='log_retention = "90d" in seatrial.toml is expected.',
            state="Nothing was removed.",
        )
    before_us = machine_us() - duration_us(retention)
    log = _written_here_or_shipped(workspace)
    gone = removable(log, before_us)
    if gone and not dry_run:
        with workspace.metadata.transaction() as transaction:
            workspace.event(transaction, PRUNED, SUBJECT, told(gone, before_us))
        gone = prune(log, before_us)
    return Pruned(
        dry_run=dry_run,
        retention=retention,
        before=iso(from_us(before_us)),
        files=len(gone),
        records=sum(one.records for one in gone),
        bytes=sum(one.bytes for one in gone),
        days=_by_day(gone),
    )


def _written_here_or_shipped(workspace: Workspace) -> PredictionLog:
    """The log with its object store, or, where nothing is shipped, without: then what lies here goes as well."""
    from seatrial.stores.prediction_log import PredictionLog

    if workspace.ships_log or workspace.log.shipped_batches():
        return workspace.log
    return PredictionLog(workspace.log.root)


def _by_day(gone: Sequence[Removal]) -> list[DayKept]:
    days: dict[tuple[str, str], list[int]] = {}
    for one in gone:
        counts = days.setdefault((one.model, one.day), [0, 0, 0, 0])
        for place, more in enumerate((one.records, one.records if one.shipped else 0, 1, one.bytes)):
            counts[place] += more
    return [DayKept(model, day, *counts) for (model, day), counts in sorted(days.items())]


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return iso(value) if hasattr(value, "isoformat") else value
