"""How much memory does it take to snapshot a file that is larger than it, and how long?

Five million rows of twenty columns (those of `benchmarks/hashing.py`), in row groups of a million, as Parquet; with
--csv as CSV. `Project.snapshot` reads, checks five expectations (one of them `unique`), digests, profiles and keeps
them in a process of its own, whose peak of resident memory is taken after a snapshot of a thousand rows and at the
end. The peer is the way through a table in memory (`Inputs.snapshots`, which training takes), in another process.
Both must give the same id. Prints one JSON line.

    PYTHONPATH=src python benchmarks/data/snapshot.py
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))

from hashing import table

PROJECT = """
from seatrial import {kind}, expect

rows = {kind}(
    "{file}",
    name="rows",
    event_timestamp="at",
    expectations=[
        expect.unique(["at", "int_0"]),
        expect.between("float_0", -100, 100),
        expect.not_null("int_1"),
        expect.sql("flag OR int_2 < 2000000000"),
        expect.rows(at_least=1),
    ],
)
sources = [rows]
"""

CHILD = """
import json, sys
from pathlib import Path
import seatrial
from seatrial.core.clock import monotonic
def peak():  # in MB; not ru_maxrss, which starts with the memory of the parent
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000
def take(folder):
    with seatrial.Project(folder) as project:
        if sys.argv[3] == "table":
            taken, _ = project._inputs.snapshots(project._inputs.raw(()), None)
            return taken[0]
        return project.snapshot()[0]
take(sys.argv[1])
before, started = peak(), monotonic()
taken = take(sys.argv[2])
print(json.dumps({"id": taken.id, "peak_mb": peak(), "extra_mb": peak() - before, "seconds": monotonic() - started}))
"""


def write(folder: Path, rows: int, kind: str) -> int:
    """Write the rows and a project over them; gives the size of the file."""
    folder.mkdir()
    step = min(rows, 1_000_000)
    file = folder / f"rows.{kind}"
    schema = table(1).schema
    with pq.ParquetWriter(file, schema) if kind == "parquet" else pyarrow.csv.CSVWriter(file, schema) as writer:
        for seed in range(rows // step):
            writer.write_table(table(step, seed=seed))
    source = "ParquetSource" if kind == "parquet" else "CsvSource"
    (folder / "seatrial.toml").write_text("")
    (folder / "project.py").write_text(PROJECT.format(kind=source, file=file.name))
    return file.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--csv", action="store_true")
    parser.add_argument("--alone", action="store_true", help="Without the way through a table.")
    given = parser.parse_args()
    kind = "csv" if given.csv else "parquet"
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small", Path(folder) / "large"
        write(small, 1000, kind)
        size = write(large, given.rows, kind)
        found = {}
        for way in ("batches",) if given.alone else ("batches", "table"):
            words = [sys.executable, "-c", CHILD, str(small), str(large), way]
            found[way] = json.loads(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)
            for one in (small, large):
                shutil.rmtree(one / ".seatrial")
    arrow = table(1000).nbytes / 1000 * given.rows
    print(f"{given.rows:,} x 20, {size / 1e6:.0f} MB as {kind}, about {arrow / 1e6:.0f} MB in Arrow")
    for way, one in found.items():
        print(f"{way:8} {one['extra_mb']:8.0f} MB more at the peak of {one['peak_mb']:.0f}, {one['seconds']:.1f} s")
    if len({one["id"] for one in found.values()}) != 1:
        raise SystemExit("the two ways give different ids")
    print(json.dumps({"benchmark": "snapshot", "rows": given.rows, "kind": kind, "file_bytes": size, **found}))


if __name__ == "__main__":
    main()
