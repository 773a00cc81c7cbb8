"""How long do windowed features take, against two ways to write them in plain DuckDB?

Seven functions (mean, sum, count, min, max, std of an amount, count_distinct of a kind) over 24 hours and 7 days, as
of each label row: pandas in, pandas out, Parquet on disk, each run a process of its own, in turns.

- seatrial, with known-at and event key (restated events count once, as known then), and without (every row counts);
- join: labels joined with the events of the longest window, grouped by label;
- range: labels and events in one table, one RANGE frame for each length.

The two in DuckDB add up floats, so their last bits hang on order and threads, and they know nothing of restatements.
Values of a sample of label rows are compared with loops.

    python benchmarks/features/windows.py [--events 1e6 --entities 1e4 --labels 1e5 --days 30]
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.histories import events_of, sample, visits
from harness.joining import CLOCK
from harness.turns import Contestant, take_turns
from harness.windows_contestant import SQL, Job

SCRIPT = Path(__file__).resolve().parent / "harness" / "windows_contestant.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--events", type=float, default=1e6)
    parser.add_argument("--entities", type=float, default=1e4)
    parser.add_argument("--labels", type=float, default=1e5)
    parser.add_argument("--days", type=int, default=30, help="over which the events are spread")
    parser.add_argument("--hours", type=int, nargs="+", default=[24, 168])
    parser.add_argument("--functions", nargs="+", choices=SQL, default=list(SQL))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one run")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sample", type=int, default=300, help="label rows whose values are checked")
    options = parser.parse_args()
    sizes = {name: int(getattr(options, name)) for name in ("events", "entities", "labels", "days")}
    events, labels = visits(**sizes)
    per_window = [sizes["events"] / sizes["entities"] / sizes["days"] * hours / 24 for hours in options.hours]
    print(
        f"{sizes['events']:,} events, {sizes['entities']:,} entities, {sizes['labels']:,} labels; events in a window: "
    )
    print(", ".join(f"{n:.1f} in {hours} h" for n, hours in zip(per_window, options.hours, strict=True)), end="; ")
    print(f"{options.threads} threads, median of {options.rounds} rounds\n")
    rows = sample(labels, options.sample)
    contestants: list[tuple[Contestant, Job]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, which, restates in (
            ("join", "join", False),
            ("range", "range", False),
            ("seatrial without known-at", "seatrial", False),
            ("seatrial with known-at", "seatrial", True),
        ):
            out = Path(folder) / name.replace(" ", "-")
            out.mkdir()
            paths, what = (str(events), str(labels)), (options.hours, options.functions, restates)
            job = Job(*paths, *what, threads=options.threads, sample=rows, out=str(out))
            command = [sys.executable, str(SCRIPT), which, str(job.write(out / "job.json"))]
            contestants.append((Contestant(name, command, options.limit, out / CLOCK), job))
        take_turns([contestant for contestant, _ in contestants], options.rounds)
        report(contestants, rows)


def report(contestants: Sequence[tuple[Contestant, Job]], rows: Sequence[int]) -> None:
    """The table; ratios are to the faster of the two in DuckDB."""
    floor = min(contestant.seconds for contestant, _ in contestants[:2])
    print(f"{'':<28}{'seconds':>9}{'x faster floor':>16}{'peak MB':>9}{f'wrong of {len(rows)}':>14}  runs")
    for contestant, job in contestants:
        wrong = "-"
        if not contestant.cut:
            wrong = str(wrong_rows(pq.read_table(Path(job.out) / "joined.parquet"), job))
        ratio = f"{'> ' if contestant.cut else ''}{contestant.seconds / floor:.2f}"
        print(f"{contestant.name:<28}{contestant.seconds_text():>9}{ratio:>16}{contestant.peak_mb:>9,.0f}", end="")
        print(f"{wrong:>14}  {contestant.spread_text()}")
        if contestant.name.startswith("seatrial") and wrong not in ("0", "-"):
            raise SystemExit("\nseatrial's own answer is wrong: the figures mean nothing.")


def wrong_rows(got: pa.Table, job: Job) -> int:
    """How many label rows of the sample have a value that the rules do not give, by loops; floats within 1e-9."""
    labels = pq.read_table(job.labels).take(pa.array(job.sample))
    entities = labels["entity"].to_pylist()
    events = events_of(Path(job.events), sorted(set(entities)), ["visit", "amount", "kind"])
    found = {row["row"]: row for row in got.to_pylist()}
    wrong = 0
    at_us = labels["event_timestamp"].cast(pa.int64()).to_pylist()
    for row, entity, at in zip(job.sample, entities, at_us, strict=True):
        known = [one for one in events.get(entity, []) if not job.restates or one[1] <= at]
        if job.restates:
            known = list({one[2][0]: one for one in sorted(known, key=lambda one: one[1])}.values())
        right = row in found
        for name, function, hours in job.columns:
            inside = [one[2] for one in known if at - hours * 3_600_000_000 < one[0] <= at]
            right = right and _close(found[row][name], _value(function, inside))
        wrong += not right
    return wrong


def _value(function: str, rows: Sequence[tuple[Any, ...]]) -> float | None:
    if function == "count_distinct":
        return len({kind for _, _, kind in rows})
    amounts = [amount for _, amount, _ in rows if amount is not None]
    if function == "count":
        return len(amounts)
    if function == "std":
        return statistics.stdev(amounts) if len(amounts) > 1 else None
    compute = {"mean": statistics.fmean, "sum": math.fsum, "min": min, "max": max}[function]
    return compute(amounts) if amounts else None


def _close(got: Any, expected: float | None) -> bool:
    missing = got is None or got != got
    if expected is None or missing:
        return missing and expected is None
    return math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-6)


if __name__ == "__main__":
    main()
