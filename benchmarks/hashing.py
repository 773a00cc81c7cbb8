"""How fast is a snapshot's content hash, against the usual way of hashing a frame?

One million rows of twenty columns (floats with nulls, integers, text, a time, a boolean). The usual way is
`frame.to_json(orient="records")` and sha256, which besides misses changes below 1e-10 and of type. Both run in
this process, one after the other, on one thread; best of three (one run of the usual way). Prints the ratio,
goal at least 25, and one JSON line.

    PYTHONPATH=src python benchmarks/hashing.py
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tracemalloc
import warnings
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from seatrial.core.clock import monotonic
from seatrial.data.snapshot import content

GOAL = 25.0


def table(rows: int, seed: int = 7) -> pa.Table:
    """rows x 20: 10 float64 with nulls, 5 int64, 3 string, 1 timestamp, 1 bool."""
    random = np.random.default_rng(seed)
    columns: dict[str, pa.Array] = {}
    for i in range(10):
        columns[f"float_{i}"] = pa.array(random.normal(size=rows), mask=random.random(rows) < 0.05)
    for i in range(5):
        columns[f"int_{i}"] = pa.array(random.integers(-(10**9), 10**9, rows))
    words = pa.array([f"word-{i}" for i in range(1000)])
    for i in range(3):
        columns[f"text_{i}"] = words.take(pa.array(random.integers(0, 1000, rows)))
    columns["at"] = pa.array(random.integers(0, 2 * 10**15, rows)).cast(pa.timestamp("us", tz="UTC"))
    columns["flag"] = pa.array(random.random(rows) < 0.5)
    return pa.table(columns)


def seconds(work: Callable[[], object], repeat: int) -> float:
    best = float("inf")
    for _ in range(repeat):
        started = monotonic()
        work()
        best = min(best, monotonic() - started)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows

    warnings.simplefilter("ignore")  # pandas announces another date format for to_json
    arrow = table(rows)
    frame = arrow.to_pandas()
    ours = seconds(lambda: content(arrow), 3)
    frame["at"] = frame["at"].dt.tz_localize(None)  # pandas writes zoned times 10 times slower; not held against it
    usual = seconds(lambda: hashlib.sha256(frame.to_json(orient="records").encode()).hexdigest(), 1)

    tracemalloc.start()
    content(arrow)
    extra = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    ratio = usual / ours
    print(f"{rows:,} x {arrow.num_columns}, {arrow.nbytes / 1e6:.0f} MB in Arrow")
    print(f"content hash        {ours:8.3f} s, at most {extra / 1e6:.1f} MB beside the table (numpy and Python)")
    print(f"to_json and sha256  {usual:8.3f} s")
    print(f"ratio               {ratio:8.1f}   goal {GOAL:.0f}: {'reached' if ratio >= GOAL else 'MISSED'}")
    figures = {
        "benchmark": "hashing",
        "rows": rows,
        "seconds": ours,
        "peer_seconds": usual,
        "ratio": ratio,
        "goal": GOAL,
    }
    print(json.dumps(figures | {"goal": GOAL, "extra_bytes": extra}))


if __name__ == "__main__":
    main()
