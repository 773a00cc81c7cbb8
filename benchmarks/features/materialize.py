"""How many rows a second does materialize bring into the online store, against Feast?

Rows of 10 float features, one per entity, from a Parquet file into a store that holds none of them, and then once
more, when nothing may change. Every write is guarded: what is there is read first, and an older row never overwrites
a newer one. Each run is a process of its own, in turns, with a small view before its clock starts.

    python benchmarks/features/materialize.py [--entities 2e4 2e5 --stores sqlite redis --rounds 3]

Goal: 10 times the rows per second of Feast 0.67, on each store. Feast runs in an environment of its own (--no-feast
leaves it out) and with its duckdb engine; more than 100,000 rows it brings in once only, and at most --limit seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.feast_env import CONTESTANT, feast_python
from harness.histories import profiles
from harness.redis_server import redis_server
from harness.turns import Contestant, run, verdict

OURS = Path(__file__).resolve().parent / "harness" / "materialize_contestant.py"
FEATURES = 10
GOAL = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--entities", type=float, nargs="+", default=[2e4, 2e5])
    parser.add_argument("--stores", nargs="+", choices=["sqlite", "redis"], default=["sqlite", "redis"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=90.0, help="seconds for a run of Feast")
    parser.add_argument("--no-feast", action="store_true")
    options = parser.parse_args()
    small = profiles(entities=100, features=FEATURES, name="small")
    print(f"{FEATURES} float features, a row per entity, median of {options.rounds} rounds")
    print(f"{'':<10}{'rows':>9}  {'':<10}{'seconds':>9}{'rows/s':>10}{'again, s':>10}{'peak MB':>9}  older row  runs")
    lines = []
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(redis_server()) if "redis" in options.stores else 0
        for which in options.stores:
            for rows in map(int, options.entities):
                large = profiles(entities=rows, features=FEATURES)
                ours, feast = compete(which, small, large, port, rows, options)
                print_row(which, rows, ours)
                if feast:
                    print_row(which, rows, feast)
                    what, ratio = f"{which}, {rows:,} rows: seatrial against Feast", feast.seconds / ours.seconds
                    lines.append(verdict(what, ratio, GOAL, at_most=False, at_least=bool(feast.cut)))
    print()
    for line in lines:
        print(line)


def compete(
    which: str, small: Path, large: Path, port: int, rows: int, options: argparse.Namespace
) -> tuple[Contestant, Contestant | None]:
    """Both after their last round, each run with a store of its own."""
    ours = Contestant("seatrial", (), 120.0)
    feast = None if options.no_feast else Contestant("Feast", (), options.limit)
    if feast and rows > 100_000:
        feast.rounds = 1
    for _ in range(options.rounds):
        for one in (ours, feast):
            if one is None or one.done:
                continue
            with tempfile.TemporaryDirectory() as folder:
                if which == "redis":
                    flush(port)
                files = [str(small), str(large), folder]
                if one is ours:
                    address = f"sqlite:///{folder}/online.db" if which == "sqlite" else f"redis://127.0.0.1:{port}/1"
                    command = [sys.executable, str(OURS), address, *files]
                else:
                    command = [str(feast_python()), str(CONTESTANT), "materialize", which, *files, str(port)]
                one.turns.append(run(command, one.limit_s, Path(folder) / "clock"))
    return ours, feast


def flush(port: int) -> None:
    """A store that an earlier run has left behind would make every row a stale one."""
    import redis

    with redis.Redis(port=port) as client:
        client.flushall()


def print_row(which: str, rows: int, one: Contestant) -> None:
    rate = f"{'< ' if one.cut else ''}{rows / one.seconds:,.0f}"
    again = kept = "-"
    if not one.cut:
        again = f"{sorted(turn.figures['again'] for turn in one.turns)[len(one.turns) // 2]:.2f}"
        kept = "skipped" if one.figures["kept"] else "OVERWROTE"
    print(
        f"{which:<10}{rows:>9,}  {one.name:<10}{one.seconds_text():>9}{rate:>10}{again:>10}{one.peak_mb:>9,.0f}", end=""
    )
    print(f"  {kept:<9}  {one.spread_text()}", flush=True)
    if one.name == "seatrial" and kept == "OVERWROTE":
        raise SystemExit("\nan older row displaced a newer one: the figures mean nothing.")


if __name__ == "__main__":
    main()
