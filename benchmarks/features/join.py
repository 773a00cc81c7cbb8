"""How long does the point-in-time join take, against plain DuckDB and against Feast?

Label rows come as a pandas frame and leave as one; the history is Parquet on disk: per view 8 float features, a ttl
of 90 days, one row in a hundred a restatement. Every run is a process of its own, in turns; before its clock starts
it joins a small set of 1,000 restated entities, which tells how it treats ties.

- seatrial, with the rule for ties, with known-at and without;
- floor: DuckDB's ASOF LEFT JOIN over the same files, no rule for ties, no known-at, rows in any order;
- Feast 0.67 with its duckdb engine and with its default, from an environment of its own that is made on the first
  run (needs a package index; --no-feast leaves it out), cut off at --limit seconds.

    python benchmarks/features/join.py                  # S3: 1M events in each of 3 views, 10k entities, 100k labels
    python benchmarks/features/join.py --size M         # 1M labels
    python benchmarks/features/join.py --size XL3       # 10M events in each of 3 views, 100k entities, 1M labels

Goals: with known-at at most 2.5 times the floor, without at most 1.5 times; Feast's duckdb engine takes 3 times as
long at 100k labels and 10 times at 1M, its default 25 times; peak memory under 4 GiB at XL3. Values of a sample of
label rows are compared with loops over the rules.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.feast_env import CONTESTANT, feast_python
from harness.histories import History, admissible, history, restated, sample, wrong_rows
from harness.joining import CLOCK, TTL_DAYS, Job
from harness.turns import Contestant, take_turns, verdict

OURS = Path(__file__).resolve().parent / "harness" / "join_contestant.py"
TTL_US = TTL_DAYS * 86_400_000_000
SIZES = {  # events in each view, entities, labels
    "S3": (1_000_000, 10_000, 100_000),
    "M": (1_000_000, 10_000, 1_000_000),
    "XL3": (10_000_000, 100_000, 1_000_000),
}
MILLION = 1_000_000  # labels; from here on Feast runs once, and so does its default engine always
KNOWN_AT, NO_KNOWN_AT = "with known-at", "without known-at"
MEMORY_MB = 4 * 1024**3 / 1e6


@dataclass(frozen=True)
class Entrant:
    """A contestant, with or without known-at, and what it left behind. asks: whether the sources name a known-at."""

    contestant: Contestant
    asks: bool
    out: Path

    @property
    def name(self) -> str:
        return self.contestant.name


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="S3")
    parser.add_argument("--events", type=float, help="in each view, in the place of the size's")
    parser.add_argument("--entities", type=float)
    parser.add_argument("--labels", type=float)
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--known-at", action=argparse.BooleanOptionalAction, help="only with, or only without")
    parser.add_argument("--engine", nargs="+", choices=["duckdb", "dask"], default=["duckdb", "dask"], help="of Feast")
    parser.add_argument("--no-feast", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=75.0, help="seconds for a run of Feast")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sample", type=int, default=300, help="label rows whose values are checked")
    options = parser.parse_args()
    events, entities, labels = (
        int(given or usual)
        for given, usual in zip((options.events, options.entities, options.labels), SIZES[options.size], strict=True)
    )
    data = history(events=events, entities=entities, labels=labels, views=options.views)
    print(f"{options.views} views of {events:,} events, {entities:,} entities, {labels:,} labels, ", end="")
    print(f"{options.threads} threads, median of {options.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        entrants = compete(data, Path(folder), options)
        report(entrants, data, options, labels)


def compete(data: History, folder: Path, options: argparse.Namespace) -> list[Entrant]:
    """Every contestant that is asked for, after its last round."""
    small = restated(views=1)
    rows = sample(data.labels, options.sample)
    labels = pq.ParquetFile(data.labels).metadata.num_rows
    known = [True, False] if options.known_at is None else [options.known_at]
    wanted = [("floor", False, OURS, "floor", 0.0)]
    wanted += [(f"seatrial {KNOWN_AT if asks else NO_KNOWN_AT}", asks, OURS, "seatrial", 0.0) for asks in known]
    if not options.no_feast:
        wanted += [
            (f"Feast {engine} {KNOWN_AT if asks else NO_KNOWN_AT}", asks, CONTESTANT, engine, options.limit)
            for engine in options.engine
            for asks in known
            if asks == known[0] or (engine == "duckdb" and labels < MILLION)
        ]
    entrants = []
    for name, asks, script, which, limit_s in wanted:
        out = folder / name.replace(" ", "-")
        out.mkdir()
        job = Job.of(data, small, known_at=asks, threads=options.threads, sample=rows, out=str(out))
        command = [sys.executable, str(script), which] if script == OURS else [str(feast_python()), str(script), "join"]
        command += [] if script == OURS else [which]
        contestant = Contestant(name, [*command, str(job.write(out / "job.json"))], limit_s or 300.0, out / CLOCK)
        slow = which == "dask" or (which == "duckdb" and labels >= MILLION)
        contestant.rounds = 1 if slow else options.rounds
        entrants.append(Entrant(contestant, asks, out))
    take_turns([entrant.contestant for entrant in entrants], options.rounds)
    return entrants


def report(entrants: list[Entrant], data: History, options: argparse.Namespace, labels: int) -> None:
    """The table, then each goal."""
    small = restated(views=1)
    rows, small_rows = sample(data.labels, options.sample), sample(small.labels, 1000)
    answers = {asks: admissible(data, rows, known_at=asks, ttl_us=TTL_US) for asks in {e.asks for e in entrants}}
    small_answers = admissible(small, small_rows, known_at=True, ttl_us=TTL_US)
    floor = entrants[0].contestant
    print(
        f"\n{'':<34}{'seconds':>9}{'x floor':>9}{'peak MB':>9}{'wrong of':>10}{'wrong of':>10}  {'rows, order':<14}runs"
    )
    print(f"{'':<52}{'':>9}{len(rows):>10,}{'1,000 ties':>11}")
    for entrant in entrants:
        one = entrant.contestant
        wrong = ties = order = "-"
        if not one.cut:
            wrong = str(wrong_rows(pq.read_table(entrant.out / "joined.parquet"), data, rows, answers[entrant.asks]))
            kept = one.figures["rows"] == labels
            order = "kept" if one.figures["in_order"] else "reordered" if kept else f"{one.figures['rows']:,} rows"
        if (entrant.out / "restated.parquet").exists() and (entrant.asks or one is floor):
            found = pq.read_table(entrant.out / "restated.parquet")
            ties = str(wrong_rows(found, small, small_rows, small_answers))
        ratio = f"{'> ' if one.cut else ''}{one.seconds / floor.seconds:.2f}"
        print(f"{one.name:<34}{one.seconds_text():>9}{ratio:>9}{one.peak_mb:>9,.0f}", end="")
        print(f"{wrong:>10}{ties:>11}  {order:<14}{one.spread_text()}")
        if one.name.startswith("seatrial") and not (wrong == "0" and order == "kept" and ties in ("0", "-")):
            raise SystemExit("\nseatrial's own answer is wrong: the figures mean nothing.")
    print()
    for line in goals(entrants, labels, options.size):
        print(line)


def goals(entrants: list[Entrant], labels: int, size: str) -> list[str]:
    """One line for each goal that this run can say something of."""
    by_name = {entrant.name: entrant.contestant for entrant in entrants}
    floor = by_name["floor"]
    lines = []
    for known, most in ((KNOWN_AT, 2.5), (NO_KNOWN_AT, 1.5)):
        ours = by_name.get(f"seatrial {known}")
        if ours is None:
            continue
        lines.append(verdict(f"{known}, against plain ASOF", ours.seconds / floor.seconds, most, at_most=True))
        for engine, least in (("duckdb", 10 if labels >= MILLION else 3), ("dask", 25)):
            feast = by_name.get(f"Feast {engine} {known}")
            if feast is not None:
                what, ratio = f"Feast {engine} against seatrial, {known}", feast.seconds / ours.seconds
                lines.append(verdict(what, ratio, least, at_most=False, at_least=bool(feast.cut)))
        if size == "XL3":
            lines.append(verdict(f"peak memory {known}", ours.peak_mb, MEMORY_MB, at_most=True, unit=" MB"))
    return lines


if __name__ == "__main__":
    main()
