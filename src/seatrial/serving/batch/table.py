"""Batch: many rows whose features are there already, scored at once and logged like served ones.

What comes out is what the service would have answered for the same inputs: the same release, the same encoding, the
same decision threshold. Nobody waited for an answer, so such a record has no latency (NaN) and no look-ups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import machine_us
from seatrial.core.identity import uuid7
from seatrial.core.signature import encode
from seatrial.serving.batch.rows import one_by_one, scored_alone
from seatrial.serving.scoring.personal import masked
from seatrial.stores.prediction_log import LoggedPrediction, PredictionLog, log_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.releases.bundle import Bundle
    from seatrial.releases.manifest import Manifest

ARM = "batch"
CHUNK = 2_000
"""Rows in one write to the log."""


def score(bundle: Bundle, rows: pa.Table, *, threads: int = 1) -> NDArray[np.float64]:
    """(n,) P(positive) or the value of a regression, (n, C) probabilities of a multiclass model.

    rows: with every input of the model.
    """
    signature = bundle.manifest.signature
    inputs, _ = encode(signature, {name: _values(rows, name) for name in signature.inputs})
    runtime = bundle.runtime(threads)
    scores = one_by_one(runtime, inputs) if scored_alone(bundle, runtime) else runtime.score(inputs)
    return np.asarray(scores, dtype=np.float64)


def keep(
    log: PredictionLog,
    bundle: Bundle,
    rows: pa.Table,
    scores: NDArray[np.float64],
    *,
    at_us: Sequence[int],
    request_ids: Sequence[str],
    deployment: str,
    caller: str,
) -> int:
    """Log scored rows. rows: with the model's inputs and the request's fields; returns how many were logged.

    Each chunk is logged whole or not at all; a crash leaves the chunks before it. Raises LogUnwritable.
    """
    manifest = bundle.manifest
    signature = manifest.signature
    mask = masked(signature.personal, log, signature, signature.request) if signature.personal else None
    logged = mask or signature
    schema = log_schema(
        model=manifest.model,
        version=str(manifest.version),
        release=bundle.id,
        deployment=deployment,
        inputs=logged.inputs,
        categories=logged.categories,
        fields=mask.fields if mask else [(field.name, field.dtype) for field in signature.request],
        classes=signature.classes,
    )
    inputs = list(zip(*(rows[name].to_pylist() for name in signature.inputs), strict=True))
    fields = list(zip(*(rows[name].to_pylist() for name in signature.request_names), strict=True))
    if mask is not None:
        pairs = [mask(*row) for row in zip(inputs, fields, strict=True)]
        inputs, fields = [one for one, _ in pairs], [other for _, other in pairs]
    for start in range(0, rows.num_rows, CHUNK):
        now_us = machine_us()
        chunk = []
        for place in range(start, min(start + CHUNK, rows.num_rows)):
            decided, probability, probabilities = _decided(manifest, scores[place])
            record = LoggedPrediction(
                schema=schema.id,
                prediction_id=uuid7(),
                request_id=request_ids[place],
                row=0,
                caller=caller,
                arm=ARM,
                at_us=int(at_us[place]),
                recorded_at_us=now_us,
                inputs=inputs[place],
                fields=fields[place],
                views=(),
                prediction=decided,
                probability=probability,
                latency_ms=float("nan"),
                probabilities=probabilities,
            )
            chunk.append((schema, record))
        log.append_all(chunk)
    return len(request_ids)


def _decided(manifest: Manifest, score: NDArray[np.float64]) -> tuple[float, float | None, bytes]:
    """A record's prediction, probability and probabilities."""
    if manifest.signature.task == "multiclass":
        likeliest = int(score.argmax())
        return float(likeliest), float(score[likeliest]), score.astype("<f8").tobytes()
    value = float(score)
    if manifest.threshold is None:
        return value, None, b""
    return float(value >= manifest.threshold), value, b""


def _values(rows: pa.Table, name: str) -> Any:
    import pyarrow as pa

    column = rows[name]
    return column.to_pylist() if pa.types.is_string(column.type) else column.cast(pa.float64()).to_numpy()
