"""Feast as a contestant, run by the interpreter of `.venv-feast`: it must not import seatrial.

    python feast_contestant.py join duckdb|dask JOB.json
    python feast_contestant.py online sqlite|redis ...      (see `online`)
    python feast_contestant.py materialize sqlite|redis ... (see `materialize`)

Known traps of Feast 0.67 that are avoided here, in its favour: `created` counts only with
`filter_by_created_timestamp=True`; times are microseconds, since nanoseconds fail in its duckdb engine; views are
applied to the registry before any clock starts.
"""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

from harness.joining import TTL_DAYS, Job, Join, contest
from harness.turns import high_water_mb

FEATURES = 10  # of the online views
FIRST, LAST = datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)
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


def online(which: str) -> None:
    """online sqlite|redis PARQUET FOLDER PORT: fill the store, then answer lines of JSON on standard input.

    {"read": [entity, ...]} -> [[value, ...], ...]; {"measure": [[entity, ...], ...]} -> [p50, p99] in microseconds.
    """
    path, folder, port = sys.argv[3], Path(sys.argv[4]), sys.argv[5]
    opened = store(folder, [path], FEATURES, offline="duckdb", online=_online(which, folder, port), created=True)
    opened.materialize(FIRST, LAST)
    refs = [f"{Path(path).stem}:f{i}" for i in range(FEATURES)]
    _say(True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "read" in asked:
            rows = [{"entity": entity} for entity in asked["read"]]
            found = opened.get_online_features(refs, rows).to_dict()
            _say(list(zip(*(found[f"f{i}"] for i in range(FEATURES)), strict=True)))
            continue
        took = np.empty(len(asked["measure"]))
        for i, entities in enumerate(asked["measure"]):
            started = perf_counter_ns()
            opened.get_online_features(refs, [{"entity": entity} for entity in entities]).to_dict()
            took[i] = perf_counter_ns() - started
        _say([float(np.median(took)) / 1000, float(np.quantile(took, 0.99)) / 1000])


def materialize(which: str) -> None:
    """materialize sqlite|redis SMALL LARGE FOLDER PORT: how long the large file takes into an empty store, and again.

    The small one comes before the clock. Then an older row is written for one entity, to see what guards the newer.
    """
    small, large, folder, port = Path(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]), sys.argv[6]
    opened = store(
        folder, [str(small), str(large)], FEATURES, offline="duckdb", online=_online(which, folder, port), created=True
    )
    opened.materialize(FIRST, LAST, [small.stem])
    (folder / "clock").touch()
    took = []
    for _ in range(2):
        started = perf_counter()
        opened.materialize(FIRST, LAST, [large.stem])
        took.append(perf_counter() - started)
    peak_mb = high_water_mb()
    refs = [f"{large.stem}:f{i}" for i in range(FEATURES)]
    before = opened.get_online_features(refs, [{"entity": 0}]).to_dict()
    older = {"entity": [0], "event_timestamp": [FIRST], "created": [FIRST]} | {f"f{i}": [-1.0] for i in range(FEATURES)}
    opened.write_to_online_store(large.stem, pd.DataFrame(older))
    kept = opened.get_online_features(refs, [{"entity": 0}]).to_dict() == before and before["f0"][0] is not None
    print(json.dumps({"seconds": took[0], "again": took[1], "peak_mb": peak_mb, "kept": kept}))


def _online(which: str, folder: Path, port: str) -> dict[str, Any]:
    if which == "sqlite":
        return {"type": "sqlite", "path": str(folder / "feast.db")}
    return {"type": "redis", "connection_string": f"127.0.0.1:{port},db=0"}


def _say(answer: Any) -> None:
    print(json.dumps({"answer": answer}), flush=True)


if __name__ == "__main__":
    verb, which = sys.argv[1:3]
    {"join": join, "online": online, "materialize": materialize}[verb](which)
