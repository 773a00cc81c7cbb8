"""How fast is `seatrial predict --batch` beside the bare loop over the same Parquet file, on all cores?

A LightGBM classifier of 100 trees is fitted on 20 float32 columns, released, and scores a file of 5 million rows with
an id. The bare loop is what one would write without any of it: a process for each core, each with its share of the row
groups: read a row group, stack the columns, run onnxruntime, write the id and the score as Parquet. Both keep the id,
and both are timed from the start of their first process to the end of their last; they take turns. The answers are
compared row by row. Prints a table and one JSON line.

    PYTHONPATH=src python benchmarks/serving/batch.py
    PYTHONPATH=src python benchmarks/serving/batch.py --rows 1e6 --rounds 1
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seatrial.core.clock import monotonic

COLUMNS = 20
NAMES = [f"x{place}" for place in range(COLUMNS)]
GROUP = 1_000_000  # rows of a row group

BARE = """
import sys
from pathlib import Path
import numpy as np, onnxruntime as ort, pyarrow as pa, pyarrow.parquet as pq
model, given, out, share, shares = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])
names = [f"x{place}" for place in range(20)]
pa.set_cpu_count(1)
with pq.ParquetFile(given) as file:
    groups = range(file.num_row_groups)
    # halves of row groups where there are fewer of them than would be shared out evenly
    pieces = [(group, half) for group in groups for half in (0, 1)]
    schema = pa.schema([("id", pa.int64()), ("probability", pa.float64())])
    with pq.ParquetWriter(f"{out}/part-{share}.parquet", schema, compression="zstd", compression_level=1) as writer:
        for group, half in pieces[share::shares]:
            table = file.read_row_group(group, columns=["id", *names])
            middle = table.num_rows // 2
            table = table.slice(middle) if half else table.slice(0, middle)
            rows = np.column_stack([table[name].to_numpy() for name in names])
            scores = [session.run(None, {"input": rows[at : at + 16384]})[0] for at in range(0, len(rows), 16384)]
            column = pa.array(np.concatenate(scores).astype(np.float64))
            writer.write_table(pa.table({"id": table["id"], "probability": column}, schema=schema))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=lambda text: int(float(text)), default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    os.environ |= {"SEATRIAL_POLICY_APPROVAL": "none", "SEATRIAL_STORES_MLFLOW": ""}
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run, model = prepared(folder, chosen.rows)
        times: dict[str, list[float]] = {"bare loop": [], "predict --batch": []}
        ways: dict[str, Callable[[], None]] = {
            "bare loop": lambda: bare(folder, model, cores),
            "predict --batch": lambda: run(cores),
        }
        for _ in range(chosen.rounds):
            for name, way in ways.items():
                start = monotonic()
                way()
                times[name].append(monotonic() - start)
        same = compared(folder)
    rates = {name: chosen.rows / statistics.median(found) for name, found in times.items()}
    print(f"| {chosen.rows:,} rows, {cores} cores | rows a second (median of {chosen.rounds}) | of the bare loop |")
    print("| --- | --- | --- |")
    for name, rate in rates.items():
        print(f"| {name} | {rate:,.0f} | {rate / rates['bare loop']:.2f} |")
    ratio = rates["predict --batch"] / rates["bare loop"]
    print(json.dumps({"rows": chosen.rows, "cores": cores, "ratio": round(ratio, 3), "same": same, "seconds": times}))


def prepared(folder: Path, rows: int) -> tuple[Callable[[int], None], Path]:
    """The file, the release and its graph: what runs the batch, and where the graph is."""
    import lightgbm

    from seatrial import Project
    from seatrial.releases.bundle import MODEL

    random = np.random.default_rng(0)
    given = random.normal(size=(20_000, COLUMNS)).astype(np.float32)
    late = given[:, 0] + given[:, 1] * given[:, 2] + random.normal(size=len(given)) > 0
    fitted = lightgbm.LGBMClassifier(n_estimators=100, verbose=-1, n_jobs=1).fit(given, late)
    fitted.booster_.save_model(folder / "booster.txt")
    sample = pa.table({name: given[:500, place] for place, name in enumerate(NAMES)}).append_column(
        "late", pa.array(late[:500].astype(int))
    )
    pq.write_table(sample, folder / "sample.parquet")
    state = folder / "project"
    state.mkdir()
    project = Project(state)
    project.release(
        "late",
        from_=str(folder / "booster.txt"),
        sample=folder / "sample.parquet",
        target="late",
        owner="a",
        on_call="b",
        runbook="c",
    )
    project.deploy("late", reason="a benchmark")
    bundle = project._bundle(project.chosen_release("late", None))
    (folder / "model.onnx").write_bytes(bundle.files[MODEL])
    schema = pa.schema([("id", pa.int64()), *((name, pa.float32()) for name in bundle.manifest.signature.inputs)])
    with pq.ParquetWriter(folder / "rows.parquet", schema) as writer:
        for start in range(0, rows, GROUP):
            number = min(GROUP, rows - start)
            made = random.normal(size=(COLUMNS, number)).astype(np.float32)
            columns = [pa.array(np.arange(start, start + number)), *map(pa.array, made)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=GROUP)

    def run(cores: int) -> None:
        (folder / "out.parquet").unlink(missing_ok=True)
        project.predict_files("late", folder / "rows.parquet", to=folder / "out.parquet", keep=["id"], workers=cores)

    return run, folder / "model.onnx"


def bare(folder: Path, model: Path, cores: int) -> None:
    (folder / "bare").mkdir(exist_ok=True)
    command = [sys.executable, "-c", BARE, str(model), str(folder / "rows.parquet"), str(folder / "bare")]
    processes = [subprocess.Popen([*command, str(share), str(cores)]) for share in range(cores)]
    assert not any(process.wait() for process in processes)


def compared(folder: Path) -> bool:
    """Whether both gave every row the same score, to the last bit."""
    parts = [pq.read_table(path) for path in sorted((folder / "bare").iterdir())]
    one = pa.concat_tables(parts).sort_by("id")
    other = pq.read_table(folder / "out.parquet", columns=["id", "probability"])
    return one["id"].equals(other["id"]) and one["probability"].equals(other["probability"])


if __name__ == "__main__":
    main()
