"""seatrial as a contestant of materialize.

    python materialize_contestant.py ADDRESS SMALL LARGE FOLDER

The small file comes before the clock. Then the large one goes into a store that holds none of it, and once more.
Last, an older row is written for one entity, to see what guards the newer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.histories import START_US
from harness.online_views import AT_US, Reader, last_values, materialize, open_store, push
from harness.turns import high_water_mb

FEATURES = 10


def main() -> None:
    address, small, large, folder = sys.argv[1], *map(Path, sys.argv[2:5])
    store = open_store(address)
    materialize(last_values(small, FEATURES), store)
    view = last_values(large, FEATURES)
    (folder / "clock").touch()
    took, said = [], []
    for _ in range(2):
        started = perf_counter()
        said.append(materialize(view, store))
        took.append(perf_counter() - started)
    peak_mb = high_water_mb()
    rows = pq.read_table(large)
    assert (said[0].written, said[1].written, said[1].unchanged) == (len(rows), 0, len(rows)), said
    reader = Reader(view, store)
    names = [f"{large.stem}__f{i}" for i in range(FEATURES)]
    truth = rows.slice(0, 200).to_pylist()
    for row, got in zip(truth, reader.many([row["entity"] for row in truth], AT_US), strict=True):
        assert [got[name] for name in names] == [row[f"f{i}"] for i in range(FEATURES)], (row, got)
    one = rows.filter(pc.equal(rows["entity"], 0))
    old = pa.array([START_US]).cast(pa.timestamp("us", tz="UTC"))
    for column in ("event_timestamp", "created"):
        one = one.set_column(one.column_names.index(column), column, old)
    for i in range(FEATURES):
        one = one.set_column(one.column_names.index(f"f{i}"), f"f{i}", pa.array([-1.0]))
    before = reader.one(0, AT_US)
    push(view, one, store)
    kept = reader.one(0, AT_US) == before
    print(json.dumps({"seconds": took[0], "again": took[1], "peak_mb": peak_mb, "kept": kept}))


if __name__ == "__main__":
    main()
