"""One run of a contestant of the join: label rows as a pandas frame in, a pandas frame out, the clock around it.

Before the clock starts, the contestant joins a small set, the restated one, which brings in what it loads late and
tells how it treats ties.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.histories import History
from harness.turns import high_water_mb

TTL_DAYS = 90
CLOCK = "clock"  # the file in a run's folder that says that its clock runs

Join = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class Job:
    """What a run is given, as a JSON file. out: folder for `joined.parquet` (label rows of `sample`) and
    `restated.parquet`."""

    views: list[str]
    labels: str
    features: int
    restated_views: list[str]
    restated_labels: str
    known_at: bool
    threads: int
    sample: list[int]
    out: str

    @classmethod
    def of(cls, large: History, small: History, **rest: Any) -> Job:
        return cls(
            [str(path) for path in large.views],
            str(large.labels),
            large.features,
            [str(path) for path in small.views],
            str(small.labels),
            **rest,
        )

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path


def columns(views: list[str], features: int) -> list[str]:
    """The feature columns that every contestant yields."""
    return [f"{Path(path).stem}__f{i}" for path in views for i in range(features)]


def contest(prepare: Callable[[Job, list[str]], Join]) -> None:
    """Run the job named on the command line and print its figures. prepare: a job and its views' files -> the join."""
    job = Job(**json.loads(Path(sys.argv[-1]).read_text()))
    small = prepare(job, job.restated_views)(_frame(job.restated_labels))
    _write(small, job.restated_views, job, "restated.parquet")
    joined, figures = clocked(prepare(job, job.views), _frame(job.labels), Path(job.out))
    _write(joined[joined["row"].isin(job.sample)], job.views, job, "joined.parquet")
    print(json.dumps(figures))


def clocked(join: Join, labels: pd.DataFrame, out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """What `join` makes of the label rows, and what it took: seconds, CPU seconds, peak MB of the process."""
    (out / CLOCK).touch()
    started, cpu = perf_counter(), process_time()
    joined = join(labels)
    seconds, cpu = perf_counter() - started, process_time() - cpu
    peak_mb = high_water_mb()
    in_order = len(joined) == len(labels) and bool((joined["row"].to_numpy() == labels["row"].to_numpy()).all())
    return joined, {"seconds": seconds, "cpu": cpu, "peak_mb": peak_mb, "rows": len(joined), "in_order": in_order}


def _frame(path: str) -> pd.DataFrame:
    return pd.read_parquet(path)


def _write(frame: pd.DataFrame, views: list[str], job: Job, name: str) -> None:
    wanted = frame[["row", *columns(views, job.features)]]
    pq.write_table(pa.Table.from_pandas(wanted, preserve_index=False), Path(job.out) / name)
