"""The test part of a release as labelled predictions: what later answers are compared with.

The run that the release was made of kept the scores and labels of its test part, and the rows that every release must
answer like the trained model, of which the test part is the first. A release that came from elsewhere has neither, and
then the labelled predictions of the log stand in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.signature import Signature
from seatrial.monitoring.rows.sample import FEATURE, OF_CLASS

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.core.records import Record
    from seatrial.folder.workspace import Workspace
    from seatrial.monitoring.rows.baseline import Baseline

SCORES, ROWS = "test_scores.parquet", "parity_rows.parquet"


def labelled_test_part(
    workspace: Workspace, release: Record | None, threshold: float, quantile: float
) -> Baseline | None:
    """The labelled test part of the release's run; None when there is none here, or its files cannot be read.

    Columns that are personal are left out: the log has them in another form, or not at all.
    """
    import pyarrow as pa

    from seatrial.monitoring.rows.baseline import Baseline
    from seatrial.monitoring.rows.sample import Sample

    runs = [] if release is None else [workspace.metadata.record(one) for one in release.inputs]
    run = next((one for one in runs if one is not None and one.kind == "run"), None)
    files = {} if run is None else run.body.get("files", {})
    if run is None or SCORES not in files:
        return None
    try:
        told = _read(workspace, files[SCORES], None)
        inputs = _read(workspace, files[ROWS], told.num_rows) if ROWS in files else None
    except (pa.ArrowException, OSError):
        return None
    if not told.num_rows or not {"label", "score"} <= set(told.column_names):
        return None
    task = run.body["task"]
    signature = msgspec.convert(run.body["signature"], Signature)
    columns = _answers(told, task)
    if inputs is not None and inputs.num_rows == told.num_rows:
        columns |= _inputs(inputs, signature)
    timed = "at" in told.column_names
    rows = pa.table(columns)
    rows = rows.sort_by([("at", "ascending")]) if timed else rows
    sample = Sample(run.name, task, rows, threshold=threshold, quantile=quantile)
    return Baseline("the test part of the release", sample, timed)


def _read(workspace: Workspace, key: str, first: int | None) -> pa.Table:
    """The table, or its first rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = workspace.objects.path(key)
    if first is None:
        return pq.read_table(path)
    with pq.ParquetFile(path) as file:
        batches: list[Any] = []
        for batch in file.iter_batches():
            batches.append(batch)
            if sum(one.num_rows for one in batches) >= first:
                break
        return pa.Table.from_batches(batches, schema=file.schema_arrow).slice(0, first)


def _answers(told: pa.Table, task: str) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    count = told.num_rows
    instant = pa.timestamp("us", tz="UTC")
    none = pa.nulls(count, pa.string())
    at = told["at"].cast(instant) if "at" in told.column_names else pa.array([0] * count, pa.int64()).cast(instant)
    columns: dict[str, Any] = {
        "prediction_id": none,
        "request_id": none,
        "at": at,
        "release": none,
        "version": none,
        "score": told["score"].cast(pa.float64()),
        "latency_ms": pa.nulls(count, pa.float64()),
        "degraded": pa.nulls(count, pa.bool_()),
        "label_known_at": told["label_known_at"].cast(instant) if "label_known_at" in told.column_names else at,
    }
    if task != "multiclass":
        return columns | {"label": told["label"].cast(pa.float64())}
    predicted, happened = (told[name].cast(pa.string()) for name in ("predicted", "label"))
    columns |= {"predicted_class": predicted, "label_class": happened}
    columns["label"] = pc.equal(predicted, happened).cast(pa.float64())
    scores = [name for name in told.column_names if name.startswith("score_")]
    return columns | {OF_CLASS + name.removeprefix("score_"): told[name].cast(pa.float64()) for name in scores}


def _inputs(inputs: pa.Table, signature: Signature) -> dict[str, Any]:
    """The inputs as the log has them: categories by their names, a value that training did not see is missing."""
    import numpy as np
    import pyarrow as pa

    found: dict[str, Any] = {}
    for name in signature.inputs:
        if name in signature.personal or name not in inputs.column_names:
            continue
        column = inputs[name]
        if name not in signature.categories:
            found[FEATURE + name] = pa.array(column.cast(pa.float64()).to_numpy(zero_copy_only=False), from_pandas=True)
        elif pa.types.is_floating(column.type):
            codes = column.to_numpy(zero_copy_only=False)
            known = np.isfinite(codes)
            places = pa.array(np.where(known, codes, 0).astype(np.int64), mask=~known)
            found[FEATURE + name] = pa.array(list(signature.categories[name]), pa.string()).take(places)
        else:
            found[FEATURE + name] = column.cast(pa.string())
    return found
