"""Cost: what do predictions, retrainings and reports take, as far as it was measured?

Every figure is the mean of measurements that are kept, with their number and dates; what was not measured says so and
is never guessed. CPU seconds are those of processes: a run's with all that it waited for, the server's with its
waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.records import Record
from seatrial.scheduling.by_hand import KIND, RUN, trains
from seatrial.scheduling.jobs import JobRun
from seatrial.scheduling.metering import IDLE, SERVING
from seatrial.stores.metadata import MetadataStore

RECENT = 100
"""So many of the newest measurements count."""
SERVING_UNMEASURED = "`seatrial up` measures it while it serves on a port that is named"
RUN_UNMEASURED = "a run is measured, by a schedule or by hand"
MONITOR, RETRAINING, LOOK, BATCH = "monitor", "retraining", "look", "batch"
_NAMES = {MONITOR: "a monitor run", RETRAINING: "a retraining", LOOK: "a look whether to retrain"}


class _Took(NamedTuple):
    """A run that ended well. by_hand: no schedule's."""

    what: str
    cpu_seconds: float
    at_us: int
    by_hand: bool = False


class Figure(msgspec.Struct, frozen=True):
    """One figure. value: None: not measured yet, and `words` says what would measure it.

    unit: "CPU seconds" or "bytes". money: `value` at the price of the settings; None without a price, and for bytes.
    measurements: how many the figure is made of; since, until: from when until when.
    """

    of: str
    value: float | None
    unit: str
    money: float | None = None
    measurements: int = 0
    since: str | None = None
    until: str | None = None
    words: str = ""


class Cost(msgspec.Struct, frozen=True):
    """What things take. cpu_hour: the price of an hour of one core; 0: none is set."""

    figures: list[Figure]
    cpu_hour: float
    currency: str


def cost(
    metadata: MetadataStore,
    runs: Sequence[JobRun],
    log: Iterable[tuple[int, int, int]],
    *,
    cpu_hour: float,
    currency: str,
) -> Cost:
    """Every figure. runs: of schedules. log: records, bytes and newest instant (microseconds) of the log's files."""
    by_hand = metadata.records(KIND, RUN)
    took = [
        _Took(_verb(one), one.cpu_seconds, one.started_us)
        for one in runs
        if one.cpu_seconds is not None and one.state == "done"
    ]
    took += [
        _Took(one.body["verb"], one.body["cpu_seconds"], one.body["from_us"], by_hand=True)
        for one in by_hand
        if not one.body["scheduled"]
    ]
    others = {one.what for one in took} - _NAMES.keys()
    kinds = [MONITOR, RETRAINING, *sorted({one.what for one in took} & {LOOK}), *sorted(others)]
    figures = [_serving(metadata.records(KIND, SERVING)[-RECENT:])]
    batches = [one for one in by_hand if one.body["rows"]]
    figures += [_batches(batches[-RECENT:])] if batches else []
    for kind in kinds:
        figures.append(_of_runs(_NAMES.get(kind, f"a run of {kind}"), [one for one in took if one.what == kind]))
    priced = [
        msgspec.structs.replace(one, money=one.value * cpu_hour / 3600) if cpu_hour and one.value is not None else one
        for one in figures
    ]
    return Cost([*priced, _log(list(log)), _idle(metadata.records(KIND, IDLE))], cpu_hour, currency)


def _verb(run: JobRun) -> str:
    if run.command[0] == "retrain":
        return RETRAINING if trains(run.words) else LOOK
    return BATCH if run.command[0] == "predict" else run.command[0]


def _serving(kept: Sequence[Record]) -> Figure:
    predictions = sum(int(one.body["predictions"]) for one in kept)
    if not predictions:
        return Figure("1,000 predictions", None, "CPU seconds", words=SERVING_UNMEASURED)
    cpu = sum(float(one.body["cpu_seconds"]) for one in kept)
    return Figure(
        of="1,000 predictions",
        value=cpu / predictions * 1000,
        unit="CPU seconds",
        measurements=len(kept),
        since=_at(min(int(one.body["from_us"]) for one in kept)),
        until=_at(max(int(one.body["until_us"]) for one in kept)),
        words=f"of {predictions:,} predictions that the server answered, its waiting included",
    )


def _batches(kept: Sequence[Record]) -> Figure:
    rows = sum(int(one.body["rows"]) for one in kept)
    return Figure(
        of="1,000 predictions in batch",
        value=sum(float(one.body["cpu_seconds"]) for one in kept) / rows * 1000,
        unit="CPU seconds",
        measurements=len(kept),
        since=_at(int(kept[0].body["from_us"])),
        until=_at(int(kept[-1].body["until_us"])),
        words=f"of {rows:,} rows",
    )


def _of_runs(name: str, runs: Sequence[_Took]) -> Figure:
    newest = sorted(runs, key=lambda one: one.at_us)[-RECENT:]
    if not newest:
        return Figure(name, None, "CPU seconds", words=RUN_UNMEASURED)
    by_hand = sum(one.by_hand for one in newest)
    return Figure(
        of=name,
        value=sum(one.cpu_seconds for one in newest) / len(newest),
        unit="CPU seconds",
        measurements=len(newest),
        since=_at(newest[0].at_us),
        until=_at(newest[-1].at_us),
        words=f"mean; the most was {max(one.cpu_seconds for one in newest):.1f}"
        + (f"; {by_hand:,} by hand" if by_hand else ""),
    )


def _log(files: Sequence[tuple[int, int, int]]) -> Figure:
    records = sum(one[0] for one in files)
    if not records:
        return Figure("the log of 1,000,000 predictions", None, "bytes", words="nothing in the log is compacted yet")
    return Figure(
        of="the log of 1,000,000 predictions",
        value=sum(one[1] for one in files) / records * 1e6,
        unit="bytes",
        measurements=len(files),
        until=_at(max(one[2] for one in files)),
        words=f"of {records:,} records in {len(files):,} compacted files",
    )


def _idle(kept: Sequence[Record]) -> Figure:
    name = "an idle `seatrial up`"
    if not kept:
        return Figure(name, None, "bytes", words=SERVING_UNMEASURED)
    newest = kept[-1].body
    return Figure(
        of=name,
        value=float(newest["bytes"]),
        unit="bytes",
        measurements=1,
        until=_at(int(newest["until_us"])),
        words=f"memory of its {newest['processes']} processes, what they share counted once",
    )


def _at(us: int) -> str:
    return iso(from_us(us // 1_000_000 * 1_000_000))
