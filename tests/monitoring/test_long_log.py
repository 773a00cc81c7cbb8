"""A whole report over a million rows: what it says, and the memory that it takes in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial.core.clock import to_us

START_US = to_us(datetime(2024, 1, 1, tzinfo=UTC))
WEEK_US = 7 * 86_400_000_000
ROWS, INPUTS, STEP = 1_000_000, 50, 50_000
MOST_MB = 600
"""393 were measured, and 1,642 with the inputs loaded."""

CHILD = """
import contextlib, io, json, sys
from pathlib import Path

from seatrial.cli import run


def memory(name):  # in KiB; not ru_maxrss, which starts with the memory of the parent
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def report(log):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = run(["monitor", "--log", log, *sys.argv[3:], "--json"])
    assert code == 0, code
    return json.loads(out.getvalue())


report(sys.argv[1])  # what is imported at first use
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
found = report(sys.argv[2])
print(json.dumps({"mb": (memory("VmHWM") - before) / 1024, "report": found}))
"""


def written(path: Path, rows: int, *, moved: float = 0.0) -> Path:
    """A week of labelled predictions, in row groups as a compacted log has them. moved: of one input, in sd."""
    random = np.random.default_rng(0)
    inputs = {f"x{place}": random.normal(size=min(rows, STEP)) for place in range(INPUTS)}
    inputs["x0"] += moved
    writer = None
    for first in range(0, rows, STEP):
        count = min(STEP, rows - first)
        score = random.random(count)
        at = START_US + np.arange(first, first + count) * (WEEK_US // rows)
        table = pa.table(
            {
                "at": pa.array(at, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
                "id": pa.array(np.arange(first, first + count)).cast(pa.string()),
                "p": score,
                "y": (random.random(count) < score).astype(float),
                **{name: values[:count] for name, values in inputs.items()},
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()
    return path


@pytest.mark.slow
def test_a_report_on_a_million_rows_takes_the_memory_of_what_is_said_of_them_and_not_of_their_inputs(tmp_path):
    few, reference = (written(tmp_path / f"{name}.parquet", 5_000) for name in ("few", "reference"))
    log = written(tmp_path / "log.parquet", ROWS, moved=0.5)
    (tmp_path / "map.toml").write_text(
        'model = "m"\ntimestamp = "at"\nscore = "p"\nlabel = "y"\nprediction_id = "id"\n'
    )
    given = ["--map", tmp_path / "map.toml", "--reference", reference, "--at", "2024-01-08T00:00:00Z"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, few, log, *given], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    report = found["report"]
    assert (report["rows"], report["performance"]["labelled"]) == (ROWS, ROWS)
    assert [one["name"] for one in report["drift"]["columns"] if one["drifted"]] == ["x0"]
    assert len(report["drift"]["columns"]) == INPUTS
    assert report["calibration"]["rows"] == ROWS
    assert found["mb"] < MOST_MB
