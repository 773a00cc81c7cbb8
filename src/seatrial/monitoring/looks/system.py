"""How did the service do: how fast were the answers, and how many were given with something missing?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seatrial.monitoring.report import Resources, System

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from seatrial.core.objective import Objective
    from seatrial.monitoring.rows.sample import Sample


def system(
    sample: Sample,
    *,
    failed: int | None = None,
    objective: Objective | None = None,
    resources: Resources | None = None,
) -> System:
    """Latencies and the share of degraded answers, of the rows that say so.

    failed: requests that got no answer, from `stores.failures`; None: nobody counted. Their share is one of the
    requests that somebody waited for: a request of many rows is one, and rows that were scored in a batch are none.
    objective: what the deployment promises; None: nothing, or nobody knows.
    resources: what the server took in the window, as it was measured.
    """
    import numpy as np
    import pyarrow.compute as pc

    rows = sample.rows
    waited = pc.is_finite(rows["latency_ms"])
    latencies = rows["latency_ms"].filter(waited).to_numpy()
    p50, p95, p99 = np.quantile(latencies, (0.5, 0.95, 0.99)).tolist() if latencies.size else (None, None, None)
    if sample.answers is not None:
        p50, p95, p99 = sample.answers.latencies()
    degraded = pc.mean(rows["degraded"].cast("int8")).as_py() if rows.num_rows else None
    notes = []
    if not rows.num_rows:
        notes.append("no predictions in this window")
    elif p50 is None:
        notes.append("the log holds no latencies")
    error_rate = None
    if failed is None:
        notes.append("failed requests are not in the log")
    else:
        answered = pc.count_distinct(pc.coalesce(rows["request_id"], rows["prediction_id"]).filter(waited)).as_py()
        error_rate = failed / (failed + answered) if failed + answered else None
    found = System(
        rows.num_rows, p50, p95, p99, degraded, error_rate, "; ".join(notes), failed=failed, resources=resources
    )
    return _promised(found, latencies, objective)


def _promised(found: System, latencies: NDArray[np.float64], objective: Objective | None) -> System:
    """With what was promised beside what was kept."""
    import msgspec

    facts: dict[str, Any] = {}
    broken = []
    if found.error_rate is not None:
        facts["availability"] = 1 - found.error_rate
    if objective is not None:
        facts["promised"] = (objective.availability, objective.share, objective.latency_ms)
        if found.error_rate is not None and 1 - found.error_rate < objective.availability:
            broken.append(
                f"{1 - found.error_rate:.2%} of requests were answered, {objective.availability:.2%} are promised"
            )
        if latencies.size:
            prompt = float((latencies <= objective.latency_ms).mean())
            facts["prompt"] = prompt
            if prompt < objective.share:
                within = f"within {objective.latency_ms:g} ms"
                broken.append(f"{prompt:.2%} of answers came {within}, {objective.share:.2%} are promised")
    return msgspec.structs.replace(found, **facts, broken=broken)
