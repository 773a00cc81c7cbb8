"""What does a look-up cost, over the raw read of the same bytes and against Feast?

One entity and 100 entities, last-value rows of 10 float features; 20,000 entities are in the store. In turns, in
blocks of calls, with the same entities for everybody:

- raw: the same packed rows, read and not decoded, from a SQLite table (one SELECT) or from Redis (one MGET, hiredis);
- seatrial: the whole path from entity to values with their status: key, store, decoding, ttl, columns;
- Feast 0.67 on SQLite and on Redis, in a process and an environment of its own (--no-feast leaves it out).

Views with windows (mean, sum, count over a day and a week; they keep the events) are stated separately.

    python benchmarks/features/online.py [--entities 2e4 --stores sqlite redis --rounds 5]

Goals: one entity on SQLite at most 20 us over the raw read; on Redis at most 1.3 times the raw MGET; Feast takes 10
times as long on SQLite, 3 and 10 times on Redis for 1 and 100 entities. Every value is compared with the source.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from harness.feast_env import CONTESTANT, feast_python
from harness.histories import events_of, profiles, visits
from harness.online_views import AT_US, Reader, last_values, materialize, open_store, windows
from harness.redis_server import redis_server
from harness.turns import verdict

FEATURES = 10
SIZES = (1, 100)
Call = Callable[[Sequence[int]], Any]
Measure = Callable[[Sequence[Sequence[int]]], tuple[float, float]]


class Calls:
    """What is measured of one contestant: the median and the 99th percentile of each block, in microseconds."""

    def __init__(self, measure: Measure, calls: Sequence[int]) -> None:
        """calls: how many are a block, for each of SIZES."""
        self._measure = measure
        self._calls = dict(zip(SIZES, calls, strict=True))
        self._blocks: dict[int, list[tuple[float, float]]] = {size: [] for size in SIZES}

    def block(self, size: int, asked: Sequence[Sequence[int]]) -> None:
        self._blocks[size].append(self._measure(asked[: self._calls[size]]))

    def forget(self) -> None:
        self._blocks = {size: [] for size in SIZES}

    def p50(self, size: int) -> float:
        return statistics.median(p50 for p50, _ in self._blocks[size])

    def p99(self, size: int) -> float:
        return statistics.median(p99 for _, p99 in self._blocks[size])


class Feast:
    """Feast behind a pipe: its store is filled when it starts, then it answers one line with one line."""

    def __init__(self, which: str, path: Path, folder: Path, port: int) -> None:
        command = [str(feast_python()), str(CONTESTANT), "online", which, str(path), str(folder), str(port)]
        environment = os.environ | {"PYTHONWARNINGS": "ignore", "FEAST_USAGE": "False"}
        self._log = (folder / "feast.log").open("w+")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment, text=True
        )
        self._answer()

    def read(self, entities: Sequence[int]) -> list[list[Any]]:
        return self._ask({"read": list(entities)})

    def measure(self, asked: Sequence[Sequence[int]]) -> tuple[float, float]:
        p50, p99 = self._ask({"measure": [list(one) for one in asked]})
        return p50, p99

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _ask(self, what: dict[str, Any]) -> Any:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)["answer"]
        self._log.seek(0)
        raise SystemExit(f"Feast ended: {self._log.read()[-3000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--entities", type=float, default=2e4)
    parser.add_argument("--stores", nargs="+", choices=["sqlite", "redis"], default=["sqlite", "redis"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, nargs=2, default=[2000, 200], help="in a block, for 1 and 100 entities")
    parser.add_argument("--feast-calls", type=int, nargs=2, default=[500, 30])
    parser.add_argument("--no-feast", action="store_true")
    options = parser.parse_args()
    entities = int(options.entities)
    path = profiles(entities=entities, features=FEATURES)
    window_path, _ = visits(events=entities * 25, entities=entities // 4, labels=1, days=30)
    print(
        f"{entities:,} entities, {FEATURES} float features; microseconds, median of {options.rounds} blocks: p50 / p99"
    )
    print(f"{'':<22}{'entities':>9}{'raw':>18}{'seatrial':>18}{'over raw':>16}{'Feast':>20}{'Feast / seatrial':>18}")
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        port = stack.enter_context(redis_server()) if "redis" in options.stores else 0
        for which in options.stores:
            home = Path(folder) / which
            home.mkdir()
            lines += compare(which, path, home, port, options, feast=not options.no_feast)
            compare_windows(which, window_path, home, port, options)
    print()
    for line in lines:
        print(line)


def compare(which: str, path: Path, home: Path, port: int, options: argparse.Namespace, *, feast: bool) -> list[str]:
    """Last-value rows on one store; the goals that it has."""
    table = pq.read_table(path)
    columns = [table[f"f{i}"].to_pylist() for i in range(FEATURES)]
    truth = dict(zip(table["entity"].to_pylist(), zip(*columns, strict=True), strict=True))
    store = open_store(address(which, home, port, 0))
    view = last_values(path, FEATURES)
    written = materialize(view, store)
    reader = Reader(view, store)
    names = [f"{path.stem}__f{i}" for i in range(FEATURES)]
    for row in [reader.one(entity, AT_US) for entity in range(500)] + reader.many(range(500, 1500), AT_US):
        assert tuple(row[name] for name in names) == truth[row["entity"]], (row, truth[row["entity"]])
    assert written.entities == len(truth)
    raw = raw_reader(which, reader, store, sorted(truth), home, port)
    contestants = {
        "raw": Calls(timed(raw), options.calls),
        "seatrial": Calls(timed(product(reader)), options.calls),
    }
    peer = Feast(which, path, home, port) if feast else None
    try:
        if peer:
            read = peer.read(range(500))
            assert all(tuple(row) == truth[entity] for entity, row in enumerate(read)), "Feast reads other values"
            contestants["Feast"] = Calls(peer.measure, options.feast_calls)
        take_blocks(contestants, len(truth), options)
    finally:
        if peer:
            peer.stop()
        store.close()
    lines = []
    for size in SIZES:
        print_row(which, size, contestants)
        floor, ours = contestants["raw"].p50(size), contestants["seatrial"].p50(size)
        if which == "redis":
            lines.append(verdict(f"redis, {size}: over raw MGET", ours / floor, 1.3, at_most=True))
        elif size == 1:
            lines.append(verdict("sqlite, 1: over the raw read", ours - floor, 20, at_most=True, unit=" us"))
        if peer:
            goal = 3 if (which, size) == ("redis", 1) else 10
            ratio = contestants["Feast"].p50(size) / ours
            lines.append(verdict(f"{which}, {size}: Feast against seatrial", ratio, goal, at_most=False))
    return lines


def compare_windows(which: str, path: Path, home: Path, port: int, options: argparse.Namespace) -> None:
    """A view with windows on one store; no goal is set."""
    store = open_store(address(which, home, port, 1))
    view = windows(path)
    end_us = int(pq.read_table(path, columns=["event_timestamp"])["event_timestamp"].to_numpy().max().astype("int64"))
    materialize(view, store, at_us=end_us)
    reader = Reader(view, store)
    entities = sorted(set(pq.read_table(path, columns=["entity"])["entity"].to_pylist()))
    events = events_of(path, entities[:100], ["visit", "amount", "kind"])
    for entity, row in zip(entities[:100], reader.many(entities[:100], end_us), strict=True):
        known = sorted((one for one in events[entity] if one[1] <= end_us), key=lambda one: one[1])
        newest = {one[2][0]: one for one in known}.values()
        for days in (1, 7):
            inside = [one[2][1] for one in newest if end_us - days * 86_400_000_000 < one[0] <= end_us]
            count = sum(amount is not None for amount in inside)
            assert row[f"{path.stem}__count_{days}d"] == count, (entity, days, row, count)
    raw = raw_reader(which, reader, store, entities, home, port)
    contestants = {
        "raw": Calls(timed(raw), options.calls),
        "seatrial": Calls(timed(product(reader, end_us)), options.calls),
    }
    take_blocks(contestants, len(entities), options)
    store.close()
    for size in SIZES:
        print_row(f"{which}, windows", size, contestants)


def address(which: str, home: Path, port: int, number: int) -> str:
    return (
        f"sqlite:///{home / f'online-{number}.db'}" if which == "sqlite" else f"redis://127.0.0.1:{port}/{number + 1}"
    )


def raw_reader(which: str, reader: Reader, store: Any, entities: Sequence[int], home: Path, port: int) -> Call:
    """Reads the packed rows themselves, from a table or a database of their own that holds nothing else."""
    keys = [reader.key(entity) for entity in entities]
    packed = [row for first in range(0, len(keys), 500) for row in store.get(keys[first : first + 500])]
    assert None not in packed
    if which == "sqlite":
        return _raw_sqlite(home / f"raw-{reader.plan.name}.db", keys, packed, entities)
    import redis

    client = redis.Redis(port=port, db=8)
    client.flushdb()
    names = {entity: b"raw:" + key[1] for entity, key in zip(entities, keys, strict=True)}
    for entity, row in zip(entities, packed, strict=True):
        client.set(names[entity], row)

    def read(asked: Sequence[int]) -> Any:
        return client.mget([names[entity] for entity in asked])

    assert read(entities[:3]) == packed[:3]
    return read


def _raw_sqlite(path: Path, keys: Sequence[tuple[str, bytes]], packed: list[Any], entities: Sequence[int]) -> Call:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "mmap_size=268435456"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(
        "CREATE TABLE rows (view TEXT, entity BLOB, packed BLOB, PRIMARY KEY (view, entity)) WITHOUT ROWID"
    )
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO rows VALUES (?, ?, ?)", [(*key, row) for key, row in zip(keys, packed, strict=True)]
    )
    connection.execute("COMMIT")
    view, names = keys[0][0], {entity: key[1] for entity, key in zip(entities, keys, strict=True)}
    one = "SELECT packed FROM rows WHERE view = ? AND entity = ?"
    many = f"SELECT entity, packed FROM rows WHERE view = ? AND entity IN ({','.join('?' * SIZES[-1])})"

    def read(asked: Sequence[int]) -> Any:
        if len(asked) == 1:
            return connection.execute(one, (view, names[asked[0]])).fetchone()
        return connection.execute(many, (view, *(names[entity] for entity in asked))).fetchall()

    assert read(entities[:1]) == (packed[0],)
    assert len(read(entities[: SIZES[-1]])) == SIZES[-1]
    return read


def product(reader: Reader, at_us: int = AT_US) -> Call:
    def read(asked: Sequence[int]) -> Any:
        return reader.one(asked[0], at_us) if len(asked) == 1 else reader.many(asked, at_us)

    return read


def timed(call: Call) -> Measure:
    """A measure of a block of calls in this process."""

    def measure(asked: Sequence[Sequence[int]]) -> tuple[float, float]:
        took = np.empty(len(asked))
        gc.collect()
        for i, entities in enumerate(asked):
            started = perf_counter_ns()
            call(entities)
            took[i] = perf_counter_ns() - started
        return float(np.median(took)) / 1000, float(np.quantile(took, 0.99)) / 1000

    return measure


def take_blocks(contestants: dict[str, Calls], entities: int, options: argparse.Namespace) -> None:
    """One block of each contestant after the other; the first round is not counted."""
    random = np.random.default_rng(3)
    for number in range(options.rounds + 1):
        for size, calls in zip(SIZES, options.calls, strict=True):
            asked = [random.choice(entities, size, replace=False).tolist() for _ in range(calls)]
            for contestant in contestants.values():
                contestant.block(size, asked)
        if number == 0:
            for contestant in contestants.values():
                contestant.forget()


def print_row(name: str, size: int, contestants: dict[str, Calls]) -> None:
    def figures(one: str) -> str:
        return f"{contestants[one].p50(size):,.1f} / {contestants[one].p99(size):,.0f}" if one in contestants else ""

    raw, ours = contestants["raw"].p50(size), contestants["seatrial"].p50(size)
    over = f"{ours - raw:+,.1f}, {ours / raw:.2f}x"
    peer = f"{contestants['Feast'].p50(size) / ours:.1f}x" if "Feast" in contestants else ""
    print(f"{name:<22}{size:>9}{figures('raw'):>18}{figures('seatrial'):>18}{over:>16}{figures('Feast'):>20}{peer:>18}")


if __name__ == "__main__":
    main()
