"""Histories and label rows, made from a seed and kept as Parquet: what every contestant reads.

A history has one file per view: `entity`, `event_timestamp`, `created` (timestamp[us, UTC]) and float64 features,
in the order in which the rows became known. One row in a hundred restates another one of its entity: the same event
time, created later. Label rows are (`row`, `entity`, `event_timestamp`), in no order of time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CACHE = Path(os.environ.get("SEATRIAL_BENCH", Path.home() / ".cache" / "seatrial-bench")) / "features"
START_US = 1_704_067_200_000_000  # 2024-01-01
DAY_US = 86_400_000_000
SPAN_US = 360 * DAY_US
ROW_GROUP = 122_880  # what DuckDB reads at once on one thread
FORMAT = 1  # to be raised when the same arguments make other rows


@dataclass(frozen=True)
class History:
    """Where the files are. views: one Parquet file per view, named v0, v1, ..."""

    views: tuple[Path, ...]
    labels: Path
    features: int

    def names(self) -> list[str]:
        return [path.stem for path in self.views]


def history(*, events: int, entities: int, labels: int, views: int, features: int = 8, seed: int = 7) -> History:
    """The files of one size, made on the first use (10 million events of 8 features take 0.7 GB a view)."""
    named = f"{FORMAT}-{events}-{entities}-{features}-{seed}"
    paths = []
    for view in range(views):
        path = CACHE / named / f"v{view}.parquet"
        if not path.exists():
            _write(path, _events(events, entities, features, seed * 1000 + view))
        paths.append(path)
    label_path = CACHE / named / f"labels-{labels}.parquet"
    if not label_path.exists():
        _write(label_path, _labels(labels, entities, seed * 1000 + 999))
    return History(tuple(paths), label_path, features)


def visits(*, events: int, entities: int, labels: int, days: int, seed: int = 7) -> tuple[Path, Path]:
    """Events for windows, spread over so many days, and label rows.

    Events: `visit` (int64, the event's key: one in a hundred is a restatement with another amount, known later),
    `entity`, `event_timestamp`, `created`, `amount` (float64 of whole cents, one in a hundred null), `kind`
    (int64, 50 of them).
    """
    named = f"{FORMAT}-visits-{events}-{entities}-{days}-{seed}"
    path, label_path = CACHE / named / "visits.parquet", CACHE / named / f"labels-{labels}.parquet"
    if not path.exists():
        _write(path, _visits(events, entities, days * DAY_US, seed))
    if not label_path.exists():
        random = np.random.default_rng(seed + 1)
        at = START_US + random.integers(0, days * DAY_US, labels)
        _write(label_path, _label_table(random.integers(0, entities, labels), at))
    return path, label_path


def profiles(*, entities: int, features: int, name: str = "profiles", seed: int = 7) -> Path:
    """One row for each of `entities`, of the last day of the span, in shuffled order, with no null."""
    path = CACHE / f"{FORMAT}-profiles-{entities}-{features}-{seed}" / f"{name}.parquet"
    if not path.exists():
        random = np.random.default_rng(seed)
        event = START_US + SPAN_US - random.integers(DAY_US // 24, DAY_US, entities)
        table = _table(random.permutation(entities), event, event + 60_000_000, features + 1, random)
        _write(path, table.drop_columns([f"f{features}"]))  # only the last column of a history has nulls
    return path


def restated(*, entities: int = 1000, versions: int = 10, features: int = 8, views: int = 1, seed: int = 7) -> History:
    """Per entity one event in 2 to `versions` versions, one file in shuffled order, and one label row after all."""
    named = f"{FORMAT}-restated-{entities}-{versions}-{features}-{seed}"
    random = np.random.default_rng(seed)
    paths = []
    for view in range(views):
        path = CACHE / named / f"v{view}.parquet"
        if not path.exists():
            entity = np.repeat(np.arange(entities), random.integers(2, versions + 1, entities))
            event = START_US + entity * 60_000_000
            version = np.arange(len(entity)) - np.searchsorted(entity, entity)
            known = event + (version + 1) * 3_600_000_000
            order = random.permutation(len(entity))
            _write(path, _table(entity[order], event[order], known[order], features, random))
        paths.append(path)
    label_path = CACHE / named / "labels.parquet"
    if not label_path.exists():
        entity = random.permutation(entities)
        _write(label_path, _label_table(entity, np.full(entities, START_US + 30 * DAY_US)))
    return History(tuple(paths), label_path, features)


def sample(labels: Path, size: int, seed: int = 1) -> list[int]:
    """Numbers of label rows, chosen at random."""
    rows = pq.ParquetFile(labels).metadata.num_rows
    return sorted(np.random.default_rng(seed).choice(rows, min(size, rows), replace=False).tolist())


def admissible(
    of: History, rows: Sequence[int], *, known_at: bool, ttl_us: int | None
) -> list[list[list[tuple[Any, ...]]]]:
    """Per label row and view the right answers, by loops over the entity's events: rows of feature values.

    The first is what the rules say: the latest by (event time, known time, content). Without a known-at the sources
    say nothing that decides between rows of one event time, and every one of them is admissible.
    """
    labels = pq.read_table(of.labels).take(pa.array(rows))
    wanted = labels["entity"].to_pylist()
    at_us = _micros(labels["event_timestamp"])
    answers: list[list[list[tuple[Any, ...]]]] = [[] for _ in rows]
    nothing = (None,) * of.features
    for path in of.views:
        events = events_of(path, sorted(set(wanted)), [f"f{i}" for i in range(of.features)])
        for i, (entity, at) in enumerate(zip(wanted, at_us, strict=True)):
            counting = [
                row
                for row in events.get(entity, [])
                if row[0] <= at and (not known_at or row[1] <= at) and (ttl_us is None or at - row[0] <= ttl_us)
            ]
            if not counting:
                answers[i].append([nothing])
                continue
            newest = max(row[0] for row in counting)
            tied = [row for row in counting if row[0] == newest]
            tied.sort(key=lambda row: (row[1] if known_at else 0, [(v is not None, v) for v in row[2]]), reverse=True)
            answers[i].append([row[2] for row in (tied[:1] if known_at else tied)])
    return answers


def wrong_rows(got: pa.Table, of: History, rows: Sequence[int], answers: list[list[list[tuple[Any, ...]]]]) -> int:
    """How many of the label rows `rows` are absent from `got`, or have a value that is not admissible."""
    found: dict[int, list[int]] = {}
    for place, row in enumerate(got["row"].to_pylist()):
        found.setdefault(row, []).append(place)
    columns = [
        [[_plain(value) for value in got[f"{view}__f{i}"].to_pylist()] for i in range(of.features)]
        for view in of.names()
    ]
    wrong = 0
    for row, answer in zip(rows, answers, strict=True):
        places = found.get(row, [])
        right = len(places) == 1 and all(
            tuple(column[places[0]] for column in columns[view]) in answer[view] for view in range(len(of.views))
        )
        wrong += not right
    return wrong


def _plain(value: Any) -> Any:
    return None if value is None or value != value else value


def events_of(
    path: Path, entities: Sequence[int], columns: Sequence[str]
) -> dict[int, list[tuple[int, int, tuple[Any, ...]]]]:
    """Per entity its rows: (event time, known time, values of `columns`)."""
    found: dict[int, list[tuple[int, int, tuple[Any, ...]]]] = {}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROW_GROUP):
            mine = np.isin(batch["entity"].to_numpy(), entities)
            rows = pa.table(batch).filter(pa.array(mine))
            values = zip(*(rows[column].to_pylist() for column in columns), strict=True)
            times = zip(_micros(rows["event_timestamp"]), _micros(rows["created"]), strict=True)
            for entity, (event, known), row in zip(rows["entity"].to_pylist(), times, values, strict=True):
                found.setdefault(entity, []).append((event, known, row))
    return found


def _micros(column: pa.ChunkedArray) -> list[int]:
    return column.cast(pa.int64()).to_pylist()


def _events(events: int, entities: int, features: int, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    entity = random.integers(0, entities, events)
    event = START_US + random.integers(0, SPAN_US, events)
    late = random.random(events) < 0.02
    delay = (random.exponential(3600e6, events) * np.where(late, 48, 1)).astype(np.int64)
    known = event + delay
    restating = random.integers(0, events, events // 100)
    original = random.integers(0, events, events // 100)
    entity[restating], event[restating] = entity[original], event[original]
    known[restating] = known[original] + random.integers(1, 2 * DAY_US, len(original))
    order = np.argsort(known, kind="stable")
    return _table(entity[order], event[order], known[order], features, random)


def _table(entity: Any, event: Any, known: Any, features: int, random: np.random.Generator) -> pa.Table:
    times = pa.timestamp("us", tz="UTC")
    columns = {
        "entity": pa.array(entity),
        "event_timestamp": pa.array(event).cast(times),
        "created": pa.array(known).cast(times),
    }
    for i in range(features):
        values = random.normal(size=len(entity))
        columns[f"f{i}"] = pa.array(values, mask=random.random(len(entity)) < 0.01 if i == features - 1 else None)
    return pa.table(columns)


def _visits(events: int, entities: int, span_us: int, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    visit = np.arange(events)
    entity = random.integers(0, entities, events)
    event = START_US + random.integers(0, span_us, events)
    known = event + random.exponential(600e6, events).astype(np.int64)
    half = events // 2  # what is restated stands in one half, its restatement in the other
    restating = half + random.choice(events - half, events // 100, replace=False)
    original = random.choice(half, events // 100, replace=False)
    visit[restating], entity[restating], event[restating] = visit[original], entity[original], event[original]
    known[restating] = known[original] + random.integers(1, DAY_US, len(original))
    order = np.argsort(known, kind="stable")
    times = pa.timestamp("us", tz="UTC")
    amount = np.round(random.gamma(2.0, 30.0, events), 2)
    return pa.table(
        {
            "visit": pa.array(visit[order]),
            "entity": pa.array(entity[order]),
            "event_timestamp": pa.array(event[order]).cast(times),
            "created": pa.array(known[order]).cast(times),
            "amount": pa.array(amount, mask=random.random(events) < 0.01),
            "kind": pa.array(random.integers(0, 50, events)),
        }
    )


def _labels(labels: int, entities: int, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    return _label_table(random.integers(0, entities, labels), START_US + random.integers(0, SPAN_US, labels))


def _label_table(entity: Any, at: Any) -> pa.Table:
    times = pa.timestamp("us", tz="UTC")
    at_times = pa.array(at).cast(times)
    return pa.table({"row": np.arange(len(entity)), "entity": pa.array(entity), "event_timestamp": at_times})


def _write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path.with_suffix(".part"), row_group_size=ROW_GROUP)
    path.with_suffix(".part").rename(path)
