"""How fast is the drift of a window, against a loop over scipy's tests, and how much memory does a long one take?

100,000 rows of 14 numbers and 6 strings, 2 % missing. Ours against a prepared reference, as in every report; scipy
has the values of the reference in memory: `ks_2samp` (asymptotic) for numbers, `chi2_contingency` of pandas counts
for strings. Both in this process, in turns, on one thread; best of five. Then a window of a million rows: the memory
above the loaded table, of numpy and Python (tracemalloc) and of Arrow's pool.

    PYTHONPATH=src python benchmarks/monitoring/drift.py
"""

from __future__ import annotations

import argparse
import json
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats

from seatrial.core.clock import monotonic
from seatrial.monitoring.looks.drift import drift
from seatrial.monitoring.rows.reference import Reference

GOAL = 8.0
GOAL_BYTES = 50e6
NUMBERS, TEXTS = 14, 6


def table(rows: int, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    columns: dict[str, pa.Array] = {}
    for i in range(NUMBERS):
        columns[f"feature_number_{i}"] = pa.array(random.normal(size=rows), mask=random.random(rows) < 0.02)
    for i in range(TEXTS):
        words = pa.array([f"value {word}" for word in range(5 * 3**i if i < 4 else 150)])
        drawn = random.integers(0, len(words), rows)
        columns[f"feature_text_{i}"] = words.take(pa.array(drawn, mask=random.random(rows) < 0.02))
    return pa.table(columns)


def by_scipy(reference: pd.DataFrame, current: pd.DataFrame) -> list[float]:
    found = []
    for name in reference.columns:
        one, other = reference[name].dropna(), current[name].dropna()
        if name.startswith("feature_number"):
            found.append(stats.ks_2samp(one, other, method="asymp").pvalue)
        else:
            counts = pd.concat([one.value_counts(), other.value_counts()], axis=1).fillna(0)
            found.append(stats.chi2_contingency(counts.T, correction=False).pvalue)
    return found


def extra_bytes(rows: pa.Table, reference: Reference) -> tuple[int, int]:
    """At most above the loaded table: of numpy and Python, and of Arrow."""
    pool, before = pa.default_memory_pool(), pa.total_allocated_bytes()
    watched = pa.proxy_memory_pool(pool)
    pa.set_memory_pool(watched)
    tracemalloc.start()
    drift(rows, reference)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    pa.set_memory_pool(pool)
    assert pa.total_allocated_bytes() <= before
    return peak, int(watched.max_memory() or 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--long", type=int, default=1_000_000)
    given = parser.parse_args()
    before, now = table(given.rows, 1), table(given.rows, 2)
    frames = before.to_pandas(), now.to_pandas()

    started = monotonic()
    reference = Reference.from_table(before)
    prepared = monotonic() - started
    ours = usual = float("inf")
    for _ in range(5):
        started = monotonic()
        drift(now, reference)
        ours = min(ours, monotonic() - started)
        started = monotonic()
        by_scipy(*frames)
        usual = min(usual, monotonic() - started)

    long = table(given.long, 3)
    python, arrow = extra_bytes(long, reference)
    started = monotonic()
    drift(long, reference)
    long_seconds = monotonic() - started

    ratio, total = usual / ours, python + arrow
    print(f"{given.rows:,} x {now.num_columns}, each the best of 5")
    print(f"drift               {ours:8.3f} s   (the reference once: {prepared:.3f} s)")
    print(f"loop over scipy     {usual:8.3f} s")
    print(f"ratio               {ratio:8.1f}   goal {GOAL:.0f}: {'reached' if ratio >= GOAL else 'MISSED'}")
    print(f"{given.long:,} x {long.num_columns}, {long.nbytes / 1e6:.0f} MB in Arrow: {long_seconds:.2f} s", end=", ")
    print(f"at most {python / 1e6:.0f} MB (numpy and Python) and {arrow / 1e6:.0f} MB (Arrow) above it", end="; ")
    print(f"goal {GOAL_BYTES / 1e6:.0f} MB: {'reached' if total <= GOAL_BYTES else 'MISSED'}")
    figures = {"benchmark": "drift", "rows": given.rows, "seconds": ours, "peer_seconds": usual, "ratio": ratio}
    print(json.dumps(figures | {"goal": GOAL, "reference_seconds": prepared, "extra_bytes": total}))


if __name__ == "__main__":
    main()
