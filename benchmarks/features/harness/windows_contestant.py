"""The contestants of the windows: seatrial, and two ways to write the same in plain DuckDB, on floats.

python windows_contestant.py seatrial|join|range JOB.json
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.joining import Join, clocked

SQL = {
    "mean": "avg(amount)",
    "sum": "sum(amount)",
    "count": "count(amount)",
    "min": "min(amount)",
    "max": "max(amount)",
    "std": "stddev_samp(amount)",
    "count_distinct": "count(DISTINCT kind)",
}


@dataclass(frozen=True)
class Job:
    """hours: the lengths of the windows. restates: whether the source names its known-at and its event key."""

    events: str
    labels: str
    hours: list[int]
    functions: list[str]
    restates: bool
    threads: int
    sample: list[int]
    out: str

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path

    @property
    def columns(self) -> list[tuple[str, str, int]]:
        """Every feature: column of the result, function, hours."""
        return [(f"{function}_{hours}h", function, hours) for hours in self.hours for function in self.functions]


def seatrial(job: Job) -> Join:
    """As a user calls it. The one place to change when the public function changes."""
    from seatrial import Entity, ParquetSource, agg, point_in_time_join
    from seatrial.features.definitions import FeatureView

    source = ParquetSource(
        job.events,
        event_timestamp="event_timestamp",
        known_at="created" if job.restates else None,
        event_key=["visit"] if job.restates else (),
    )
    features = {
        name: getattr(agg, function)("kind" if function == "count_distinct" else "amount", window=f"{hours}h")
        for name, function, hours in job.columns
    }
    view = FeatureView("visits", Entity("entity"), source, features)

    def join(labels: pd.DataFrame) -> pd.DataFrame:
        joined = point_in_time_join(labels, [view], at="event_timestamp", threads=job.threads)
        return joined.rename(columns=lambda name: name.removeprefix("visits__"))

    return join


def range_join(job: Job) -> Join:
    """Labels joined with every event of the longest window, then grouped."""
    longest = max(job.hours)
    picked = ", ".join(
        f"{SQL[function]} FILTER (e.event_timestamp > l.event_timestamp - INTERVAL {hours} HOUR) AS {name}"
        for name, function, hours in job.columns
    )
    return _duckdb(
        job,
        f"""
        SELECT l.row, {picked} FROM labels l LEFT JOIN read_parquet('{job.events}') e
        ON l.entity = e.entity AND e.event_timestamp <= l.event_timestamp
           AND e.event_timestamp > l.event_timestamp - INTERVAL {longest} HOUR
        GROUP BY l.row
        """,
    )


def range_window(job: Job) -> Join:
    """Labels and events in one table, and one RANGE frame for each length."""
    frames = ", ".join(
        f"w{hours} AS (PARTITION BY entity ORDER BY t RANGE BETWEEN INTERVAL {hours * 3_600_000_000 - 1} MICROSECOND "
        "PRECEDING AND CURRENT ROW)"
        for hours in job.hours
    )
    picked = ", ".join(f"{SQL[function]} OVER w{hours} AS {name}" for name, function, hours in job.columns)
    return _duckdb(
        job,
        f"""
        SELECT * EXCLUDE (entity, t, amount, kind) FROM (
            SELECT *, {picked} FROM (
                SELECT row, entity, event_timestamp AS t, NULL::DOUBLE AS amount, NULL::BIGINT AS kind FROM labels
                UNION ALL
                SELECT NULL, entity, event_timestamp, amount, kind FROM read_parquet('{job.events}')
            ) WINDOW {frames}
        ) WHERE row IS NOT NULL
        """,
    )


def _duckdb(job: Job, query: str) -> Join:
    import duckdb

    connection = duckdb.connect(":memory:", config={"threads": job.threads})

    def join(labels: pd.DataFrame) -> pd.DataFrame:
        connection.register("labels", labels)
        return connection.sql(query).df()

    return join


def main() -> None:
    job = Job(**json.loads(Path(sys.argv[-1]).read_text()))
    join = {"seatrial": seatrial, "join": range_join, "range": range_window}[sys.argv[1]](job)
    labels = pd.read_parquet(job.labels)
    join(labels[:1])  # brings in what is loaded late
    joined, figures = clocked(join, labels, Path(job.out))
    kept = joined[joined["row"].isin(job.sample)][["row", *(name for name, _, _ in job.columns)]]
    pq.write_table(pa.Table.from_pandas(kept, preserve_index=False), Path(job.out) / "joined.parquet")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
