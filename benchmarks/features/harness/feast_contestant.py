"""Feast as a contestant, run by the interpreter of `.venv-feast`: it must not import seatrial.

    python feast_contestant.py join duckdb|dask JOB.json
    python feast_contestant.py online sqlite|redis ...      (see `online`)
    python feast_contestant.py materialize sqlite|redis ... (see `materialize`)

Known traps of Feast 0.67 that are avoided here, in its favour: `created` counts only with
`filter_by_created_timestamp=True`; times are microseconds, since nanoseconds fail in its duckdb engine; views are
applied to the registry before any clock starts.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

from harness.joining import TTL_DAYS, Job, Join, contest

ENTITY = Entity(name="entity", join_keys=["entity"], value_type=ValueType.INT64)


def store(folder: Path, views: list[str], features: int, *, offline: str, online: dict[str, Any], created: bool) -> Any:
    """A feature store whose views are named after their files, already applied."""
    config = RepoConfig(
        project="bench",
        registry=str(folder / "registry.db"),
        provider="local",
        offline_store={"type": offline},
        online_store=online,
        entity_key_serialization_version=3,
    )
    opened = FeatureStore(config=config)
    declared = [
        FeatureView(
            name=Path(path).stem,
            entities=[ENTITY],
            ttl=timedelta(days=TTL_DAYS),
            schema=[Field(name=f"f{i}", dtype=Float64) for i in range(features)],
            source=FileSource(
                name=Path(path).stem + "_source",
                path=path,
                timestamp_field="event_timestamp",
                created_timestamp_column="created" if created else "",
            ),
        )
        for path in views
    ]
    opened.apply([ENTITY, *declared])
    return opened


def join(engine: str) -> None:
    def prepare(job: Job, views: list[str]) -> Join:
        folder = Path(tempfile.mkdtemp(dir=job.out))
        online = {"type": "sqlite", "path": str(folder / "online.db")}
        opened = store(folder, views, job.features, offline=engine, online=online, created=job.known_at)
        refs = [f"{Path(path).stem}:f{i}" for path in views for i in range(job.features)]
        more = {"filter_by_created_timestamp": True} if job.known_at else {}

        def joined(labels: pd.DataFrame) -> pd.DataFrame:
            return opened.get_historical_features(labels, refs, full_feature_names=True, **more).to_df()

        return joined

    contest(prepare)


if __name__ == "__main__":
    verb, which = sys.argv[1:3]
    {"join": join}[verb](which)
