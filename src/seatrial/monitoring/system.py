"""How did the service do: how fast were the answers, and how many were given with something missing?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.monitoring.report import System

if TYPE_CHECKING:
    from seatrial.monitoring.sample import Sample


def system(sample: Sample, *, error_rate: float | None = None) -> System:
    """Latencies and the share of degraded answers, of the rows that say so.

    error_rate: the share of requests that got no answer, from `stores.failures`; None: nobody counted.
    """
    import numpy as np
    import pyarrow.compute as pc

    rows = sample.rows
    latencies = rows["latency_ms"].drop_null().to_numpy()
    latencies = latencies[np.isfinite(latencies)]
    p50, p95, p99 = np.quantile(latencies, (0.5, 0.95, 0.99)).tolist() if latencies.size else (None, None, None)
    degraded = pc.mean(rows["degraded"].cast("int8")).as_py() if rows.num_rows else None
    notes = []
    if not rows.num_rows:
        notes.append("no predictions in this window")
    elif not latencies.size:
        notes.append("the log holds no latencies")
    if error_rate is None:
        notes.append("failed requests are not in the log")
    return System(rows.num_rows, p50, p95, p99, degraded, error_rate, "; ".join(notes))
