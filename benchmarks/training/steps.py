"""What do four memoised steps cost when nothing was changed?

Four trivial functions, each the input of the next, are run once, and then again and again in the same process: each
time their keys are made (code of the function and of what it uses, parameters, inputs, environment) and their results
looked up and read from the object store. Prints the median over the repeats, goal at most 20 ms, and one JSON line.

    PYTHONPATH=src python benchmarks/training/steps.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from seatrial.core.clock import monotonic
from seatrial.stores.objects import ObjectStore
from seatrial.training.steps import Steps

GOAL_MS = 20.0


def load(rows: int) -> list[int]:
    return list(range(rows))


def clean(rows: list[int], lowest: int) -> list[int]:
    return [row for row in rows if row >= lowest]


def count(rows: list[int]) -> dict[str, int]:
    return {"rows": len(rows)}


def report(counted: dict[str, int]) -> str:
    return f"{counted['rows']} rows"


def four(steps: Steps) -> tuple[Any, list[bool]]:
    loaded = steps.run(load, {"rows": 1000})
    cleaned = steps.run(clean, {"lowest": 10}, {"rows": loaded.input})
    counted = steps.run(count, inputs={"rows": cleaned.input})
    said = steps.run(report, inputs={"counted": counted.input})
    return said.value, [one.hit for one in (loaded, cleaned, counted, said)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeat", type=int, default=50)
    repeat = parser.parse_args().repeat
    with tempfile.TemporaryDirectory() as folder:
        objects = ObjectStore(Path(folder))
        started = monotonic()
        first, hits = four(Steps(objects, environment="benchmark"))
        cold = (monotonic() - started) * 1000
        assert not any(hits)
        times = []
        for _ in range(repeat):
            started = monotonic()
            again, hits = four(Steps(objects, environment="benchmark"))
            times.append((monotonic() - started) * 1000)
            assert all(hits)
            assert again == first
    median = statistics.median(times)
    print(f"four steps, done and kept: {cold:.1f} ms")
    print(f"four steps, all kept:      {median:.2f} ms (goal at most {GOAL_MS:g} ms), slowest {max(times):.2f} ms")
    print(json.dumps({"cold_ms": round(cold, 2), "all_hit_ms": round(median, 3), "goal_ms": GOAL_MS}))


if __name__ == "__main__":
    main()
