"""Does the concept section flag a world that answers differently, and only that?

A model that is wrong on purpose (linear where the world has an interaction), so that its errors depend on the inputs
and other inputs alone move every naive figure. Labelled rows of before: 28 days, 500 a day; a window of 7 such days.
Counted is how often, of so many windows, the verdict is "changed":

    flagged      by the concept section
    unweighted   by the same comparison without weights: what inputs alone would raise
    unknown      how often the section says that it cannot tell

The seeds that tests look at begin at 0; other ones are had with --first.

    PYTHONPATH=src python benchmarks/monitoring/concept.py --repeats 150 --first 1000
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from seatrial.monitoring.looks.concept import concept
from seatrial.monitoring.rows.baseline import Baseline
from seatrial.monitoring.rows.sample import Sample

DAY_US = 86_400_000_000
COLUMNS = 6
EFFECTS = np.array([1.0, -0.8, 0.6, 0.4, -0.3, 0.2])
RATE = 500
REPEATS = 100

Matrix = np.ndarray


def logit(inputs: Matrix, effects: Matrix, level: float) -> Matrix:
    return inputs @ effects + 0.4 * inputs[:, 0] * inputs[:, 1] - 0.6 + level


def chance(values: Matrix) -> Matrix:
    return 1 / (1 + np.exp(-values))


def said(inputs: Matrix) -> Matrix:
    """The model: no interaction, and a little too sure of itself."""
    return chance(1.15 * (inputs @ EFFECTS) - 0.55)


def rows(
    random: np.random.Generator,
    days: int,
    *,
    start: int = 0,
    ask: Callable[[Matrix], Matrix] = lambda found: found,
    effects: Matrix = EFFECTS,
    level: float = 0.0,
    weather: float = 0.0,
) -> Sample:
    """Labelled predictions of so many days. weather: spread of what moves all answers of a day, in logits."""
    count = days * RATE
    inputs = ask(random.normal(size=(count, COLUMNS)))
    of_day = np.repeat(random.normal(0, weather, days) if weather else np.zeros(days), RATE)
    labels = (random.random(count) < chance(logit(inputs, effects, level) + of_day)).astype(np.float64)
    at_us = start * DAY_US + np.arange(count) * (DAY_US // RATE)
    instant = pa.timestamp("us", tz="UTC")
    columns = {
        "prediction_id": [f"p-{start}-{place:06}" for place in range(count)],
        "request_id": [f"r-{start}-{place:06}" for place in range(count)],
        "at": pa.array(at_us, pa.int64()).cast(instant),
        "release": ["rel"] * count,
        "version": ["1"] * count,
        "score": pa.array(said(inputs)),
        "latency_ms": pa.nulls(count, pa.float64()),
        "degraded": pa.nulls(count, pa.bool_()),
        "label": pa.array(labels),
        "label_known_at": pa.array(at_us, pa.int64()).cast(instant),
    }
    columns |= {f"feature_x{place}": pa.array(column.copy()) for place, column in enumerate(inputs.T)}
    return Sample("m", "binary", pa.table(columns))


def moved(inputs: Matrix) -> Matrix:
    return inputs + np.array([1.0, 1.0, 0, 0, 0, 0])


def moved_less(inputs: Matrix) -> Matrix:
    return inputs + np.array([0.7, 0.7, 0, 0, 0, 0])


def narrower(inputs: Matrix) -> Matrix:
    return inputs * 0.7


CASES: dict[str, dict[str, Any]] = {
    "no change": {},
    "no change, days have weather (0.2 logits)": {"weather": 0.2},
    "two inputs shift by 0.7 sd": {"ask": moved_less},
    "two inputs shift by 1 sd": {"ask": moved},
    "inputs narrow to 0.7": {"ask": narrower},
    "level rises by 0.4 logits": {"level": 0.4},
    "an effect vanishes": {"effects": EFFECTS * np.array([1, 0, 1, 1, 1, 1])},
    "inputs shift and level rises by 0.4": {"ask": moved, "level": 0.4},
}
QUIET = tuple(CASES)[:5]


def look(case: str, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    changes = CASES[case]
    weather = changes.get("weather", 0.0)
    before = rows(random, 28, weather=weather)
    now = rows(random, 7, start=28, **changes)
    ripe = np.ones(now.rows.num_rows, dtype=bool)
    found = concept(now, Baseline("28 days before", before), "", ripe, seed=seed)
    bare = replace(before, rows=before.rows.drop_columns([f"feature_x{place}" for place in range(COLUMNS)]))
    plain = concept(now, Baseline("28 days before", bare), "", ripe, seed=seed)
    return {"flagged": found.verdict == "changed", "unweighted": plain.verdict == "changed",
            "unknown": found.verdict == "unknown", "words": found.words}  # fmt: skip


def table(repeats: int, first: int) -> dict[str, dict[str, Any]]:
    told = {}
    for case in CASES:
        found = [look(case, seed) for seed in range(first, first + repeats)]
        told[case] = {name: sum(one[name] for one in found) for name in ("flagged", "unweighted", "unknown")}
        told[case] |= {"windows": repeats, "words": found[0]["words"]}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="windows of each case")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the first window")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = table(asked.repeats, asked.first)
    if asked.json:
        print(json.dumps(found))
        return
    print(f"{'windows of 3,500 labels':44} {'flagged':>8} {'unweighted':>11} {'unknown':>8}  of")
    for case, one in found.items():
        counts = f"{one['flagged']:8} {one['unweighted']:11} {one['unknown']:8}  {one['windows']}"
        print(f"{case:44} {counts}\n    {one['words']}")


if __name__ == "__main__":
    main()
