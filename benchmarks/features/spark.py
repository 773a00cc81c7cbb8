"""How long does the point-in-time join take on Spark, written in three ways?

One local session on all cores, one view over Parquet files: by default 1M events of 10k entities with known-at and an
event key (one event in a hundred is restated), 100k label rows. Every way takes the same files and gives an Arrow table
in this process; they take turns, after one round that is not counted.

- floor: Spark's own ASOF JOIN, which knows no known-at, no ttl, no ties and no windows: last values only;
- union: events and label rows in one window per entity, running sums and a running maximum, over the integer columns
  that `view_events` makes;
- parts: `as_of_spark`, which hashes both sides by entity and runs the local join in each part; once with the files read
  by pyarrow in the workers, once by Spark;
- local: reading and `as_of` in this process, on one thread.

    python benchmarks/features/spark.py
    python benchmarks/features/spark.py --events 5e6 --entities 5e4 --labels 5e5 --rounds 1 --without union

The answers of union and parts are compared with the local one, row by row.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seatrial.core.clock import monotonic
from seatrial.data.reading import read
from seatrial.data.sources import ParquetSource
from seatrial.features.definitions import Entity, FeatureView, agg, feature_view
from seatrial.features.events import NEVER_US, view_events
from seatrial.features.join import as_of
from seatrial.features.plan import ViewPlan, plan_view
from seatrial.features.spark import as_of_spark, session

DAY = 86_400_000_000
START = 1_704_067_200_000_000
DAYS = 180
TTL_DAYS = 30
FILES = 8


def write_events(folder: Path, events: int, entities: int) -> None:
    random = np.random.default_rng(1)
    times = START + random.integers(0, DAYS * DAY, events)
    restated = random.random(events) < 0.01
    times[1:][restated[1:]] = times[:-1][restated[1:]]
    keys = random.integers(0, entities, events)
    keys[1:][restated[1:]] = keys[:-1][restated[1:]]
    numbers = np.arange(events)
    numbers[1:][restated[1:]] = numbers[:-1][restated[1:]]
    table = pa.table(
        {
            "entity": keys,
            "happened": pa.array(times).cast(pa.timestamp("us", tz="UTC")),
            "known": pa.array(times + random.integers(0, DAY // 4, events)).cast(pa.timestamp("us", tz="UTC")),
            "number": numbers,
            **{name: pa.array(random.normal(size=events), mask=random.random(events) < 0.02) for name in "abc"},
        }
    )
    size = -(-events // FILES)
    for i in range(FILES):
        pq.write_table(table.slice(i * size, size), folder / f"events{i}.parquet", row_group_size=131_072)


def label_rows(labels: int, entities: int) -> pa.Table:
    random = np.random.default_rng(2)
    at = pa.array(START + random.integers(0, DAYS * DAY, labels)).cast(pa.timestamp("us", tz="UTC"))
    return pa.table({"at": at, "entity": random.integers(0, entities, labels)})


def views_over(source: ParquetSource) -> tuple[FeatureView, FeatureView]:
    """Last values only, and last values with windows."""

    @feature_view(entity=Entity("entity"), source=source, ttl=f"{TTL_DAYS}d")
    class last:
        a = agg.last("a")
        b = agg.last("b")
        c = agg.last("c")

    @feature_view(entity=Entity("entity"), source=source, ttl=f"{TTL_DAYS}d")
    class windows:
        a = agg.last("a")
        b = agg.last("b")
        c = agg.last("c")
        mean_1d = agg.mean("a", window="1d")
        sum_7d = agg.sum("a", window="7d")
        rows_7d = agg.count(window="7d")

    return last, windows


def asof(spark: Any, folder: Path, labels: pa.Table) -> pa.Table:
    spark.conf.set("spark.sql.join.asofJoin.enabled", "true")
    spark.read.parquet(str(folder / "events*.parquet")).createOrReplaceTempView("e")
    spark.createDataFrame(labels.append_column("row", [np.arange(len(labels))])).createOrReplaceTempView("l")
    joined = spark.sql(
        "SELECT l.row, e.a, e.b, e.c FROM l LEFT ASOF JOIN e MATCH_CONDITION (l.at >= e.happened) "
        "ON l.entity = e.entity ORDER BY l.row"
    )
    return joined.toArrow()


def union(spark: Any, folder: Path, labels: pa.Table, plan: ViewPlan) -> pa.Table:
    """Events where they begin and cease to count, and label rows, in one order for each entity."""
    windows = {"1d": DAY, "7d": 7 * DAY} if plan.tail_columns else {}

    def integers(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from view_events(plan, pa.table(batch)).combine_chunks().to_batches()

    columns = "key_0 bigint, event_us bigint, known_us bigint, id_0 bigint, last_a double, last_b double, last_c double"
    columns += ", tail_0 bigint" if windows else ""
    frame = spark.read.parquet(str(folder / "events*.parquet"))
    frame.mapInArrow(integers, columns).createOrReplaceTempView("e")
    asked = pa.table(
        {"row": np.arange(len(labels)), "entity": labels["entity"], "at_us": labels["at"].cast(pa.int64())}
    )
    spark.createDataFrame(asked).createOrReplaceTempView("l")
    sums = [name for span in windows for name in (f"s{span}", f"n{span}", f"r{span}")]

    def changes(spans: dict[str, int], sign: str, when: str, latest: str) -> str:
        parts = []
        for span in windows:
            counts = f"start_us < end{span}" if span in spans else "false"
            parts.append(f"IF({counts}, {sign}coalesce(tail_0, 0), 0L) AS s{span}")
            parts.append(f"IF({counts} AND tail_0 IS NOT NULL, {sign}1L, 0L) AS n{span}")
            parts.append(f"IF({counts}, {sign}1L, 0L) AS r{span}")
        more = "".join(f", {part}" for part in parts)
        return f"SELECT key_0 AS k, {when} AS t, 0 AS asked, NULL AS row, {latest} AS latest{more} FROM started"

    newest = "struct(event_us, known_us, id_0, last_a, last_b, last_c)"
    ends = [
        changes({span: us}, "-", f"end{span}", f"IF(false, {newest}, NULL)") + f" WHERE start_us < end{span}"
        for span, us in windows.items()
    ]
    end_columns = "".join(f", least(event_us + {us}L, next_us) AS end{span}" for span, us in windows.items())
    next_us = f"lead(known_us, 1, {NEVER_US}L) OVER (PARTITION BY key_0, id_0 ORDER BY known_us, event_us, tail_0)"
    next_us = next_us if windows else f"{NEVER_US}L"
    zeros = "".join(f", 0L AS {name}" for name in sums)
    running = "".join(f", sum({name}) OVER w AS {name}" for name in sums)
    finished = (
        ", s1d / (1e6D * n1d) AS mean_1d, IF(n7d = 0, NULL, s7d / 1e6D) AS sum_7d, CAST(r7d AS double) AS rows_7d"
        if windows
        else ""
    )
    spark.conf.set("spark.sql.ansi.enabled", "false")
    joined = spark.sql(
        f"""
        WITH versions AS (SELECT *, {next_us} AS next_us FROM e WHERE known_us < {NEVER_US}),
        started AS (SELECT *, greatest(event_us, known_us) AS start_us{end_columns} FROM versions),
        sides AS (
            {" UNION ALL ".join([changes(windows, "", "start_us", newest), *ends])}
            UNION ALL SELECT entity, at_us, 1, row, NULL{zeros} FROM l
        ),
        ran AS (
            SELECT row, t, asked, max(latest) OVER w AS latest{running} FROM sides
            WINDOW w AS (PARTITION BY k ORDER BY t, asked ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
        )
        SELECT row, IF(t - latest.event_us <= {TTL_DAYS * DAY}L, latest.last_a, NULL) AS a,
               IF(t - latest.event_us <= {TTL_DAYS * DAY}L, latest.last_b, NULL) AS b,
               IF(t - latest.event_us <= {TTL_DAYS * DAY}L, latest.last_c, NULL) AS c{finished}
        FROM ran WHERE asked = 1 ORDER BY row
        """
    )
    return joined.toArrow()


def differing(here: pa.Table, there: pa.Table, view: FeatureView) -> int:
    """Values that are not the same to the last bit."""
    wrong = 0
    for feature in view.features:
        name = feature if feature in there.column_names else f"{view.name}__{feature}"
        same = pc.equal(here[f"{view.name}__{feature}"], there[name])
        both = pc.and_(pc.is_null(here[f"{view.name}__{feature}"]), pc.is_null(there[name]))
        wrong += len(here) - pc.sum(pc.or_(pc.fill_null(same, False), both)).as_py()
    return wrong


def largest_worker_mb() -> float:
    """The most memory that a Python worker of this process's Spark took."""
    peaks = [0.0]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"pyspark.daemon" in (process / "cmdline").read_bytes():
                status = (process / "status").read_text(encoding="utf-8")
                peaks += [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")]
        except OSError:
            continue  # it has ended
    return max(peaks)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=float, default=1e6)
    parser.add_argument("--entities", type=float, default=1e4)
    parser.add_argument("--labels", type=float, default=1e5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--partitions", type=int)
    parser.add_argument("--without", nargs="*", default=[], help="ways that are left out, such as union")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # what pyspark says of pandas
    labels = label_rows(int(options.labels), int(options.entities))
    with tempfile.TemporaryDirectory() as place, session() as spark:
        folder = Path(place)
        write_events(folder, int(options.events), int(options.entities))
        source = ParquetSource("events*.parquet", name="events", event_timestamp="happened", known_at="known",
                               event_key=["number"])  # fmt: skip
        spark.conf.set("spark.sql.shuffle.partitions", str(4 * (os.cpu_count() or 1)))
        how: dict[str, Any] = {"folder": folder, "spark": spark, "partitions": options.partitions}
        ways: dict[tuple[str, str], Callable[[], pa.Table]] = {
            ("floor: ASOF JOIN", "last"): lambda: asof(spark, folder, labels)
        }
        for view in views_over(source):
            one, plan = {view.name: view}, plan_view(view)
            ways |= {
                ("union", view.name): lambda plan=plan: union(spark, folder, labels, plan),
                ("parts, read by workers", view.name): lambda one=one: as_of_spark(labels, one, **how),
                ("parts, read by Spark", view.name): lambda one=one: as_of_spark(
                    labels, one, dict.fromkeys(one, spark.read.parquet(str(folder / "events*.parquet"))), **how
                ),
                ("local", view.name): lambda one=one: as_of(
                    labels, one, {name: read(source, folder=folder).table for name in one}
                ),
            }
        ways = {way: work for way, work in ways.items() if way[0] not in options.without}
        times: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
        answers: dict[tuple[str, str], pa.Table] = {}
        for turn in range(options.rounds + 1):
            for way, work in ways.items():
                started = monotonic()
                answers[way] = work()
                times[way] += [monotonic() - started] if turn or not options.rounds else []
        views = {view.name: view for view in views_over(source)}
        worker_mb = largest_worker_mb()
    print(f"{options.events:,.0f} events, {options.entities:,.0f} entities, {options.labels:,.0f} label rows, "
          f"{os.cpu_count()} cores, median of {options.rounds}")  # fmt: skip
    floor = statistics.median(times["floor: ASOF JOIN", "last"])
    figures = []
    print(f"{'':<26}{'view':<10}{'seconds':>9}{'x floor':>9}{'values that differ':>20}")
    for (name, view), taken in times.items():
        seconds = statistics.median(taken)
        wrong = differing(answers["local", view], answers[name, view], views[view])
        print(f"{name:<26}{view:<10}{seconds:>9.2f}{seconds / floor:>9.2f}{wrong:>20,}")
        figures.append({"way": name, "view": view, "seconds": seconds, "ratio": seconds / floor, "differ": wrong})
        if name != "floor: ASOF JOIN" and wrong:
            raise SystemExit("An answer is wrong: the figures mean nothing.")
    print(f"The largest worker took {worker_mb:,.0f} MB.")
    print(json.dumps({"benchmark": "spark", "worker_mb": worker_mb, "figures": figures}))


if __name__ == "__main__":
    main()
