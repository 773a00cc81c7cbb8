"""The contestants of the join that live in the project's own environment: seatrial, and the floor on plain DuckDB."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.joining import TTL_DAYS, Job, Join, contest


def seatrial(job: Job, views: list[str]) -> Join:
    """As a user calls it. The one place to change when the public function changes."""
    from seatrial import Entity, ParquetSource, agg, point_in_time_join
    from seatrial.features.definitions import FeatureView

    entity = Entity("entity")
    known_at = "created" if job.known_at else None
    features = {f"f{i}": agg.last(f"f{i}") for i in range(job.features)}
    declared = []
    for path in views:
        source = ParquetSource(path, event_timestamp="event_timestamp", known_at=known_at)
        declared.append(FeatureView(source.name, entity, source, features, ttl_us=TTL_DAYS * 86_400_000_000))

    def join(labels: pd.DataFrame) -> pd.DataFrame:
        return point_in_time_join(labels, declared, at="event_timestamp", threads=job.threads)

    return join


def floor(job: Job, views: list[str]) -> Join:
    """DuckDB's ASOF join and the ttl: no rule for ties, no known-at, rows in any order."""
    import duckdb

    connection = duckdb.connect(":memory:", config={"threads": job.threads})
    names = [Path(path).stem for path in views]
    young = {name: f"{name}.event_timestamp >= l.event_timestamp - INTERVAL {TTL_DAYS} DAY" for name in names}
    picked = ", ".join(
        f"CASE WHEN {young[name]} THEN {name}.f{i} END AS {name}__f{i}" for name in names for i in range(job.features)
    )
    joins = " ".join(
        f"ASOF LEFT JOIN read_parquet('{path}') {name} "
        f"ON l.entity = {name}.entity AND l.event_timestamp >= {name}.event_timestamp"
        for name, path in zip(names, views, strict=True)
    )

    def join(labels: pd.DataFrame) -> pd.DataFrame:
        connection.register("labels", labels)
        return connection.sql(f"SELECT l.*, {picked} FROM labels l {joins}").df()

    return join


if __name__ == "__main__":
    contest({"seatrial": seatrial, "floor": floor}[sys.argv[1]])
