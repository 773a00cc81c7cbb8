"""From a bundle to a release that may answer: verified, loaded, and shown to score as it did when it was packed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from seatrial.core.signature import columns_of
from seatrial.core.types import Field
from seatrial.releases.bundle import GOLDEN, MODEL, Bundle, open_bundle
from seatrial.releases.golden import read_golden, replay
from seatrial.releases.runtime import Runtime, open_runtime
from seatrial.releases.signing import TrustedKeys
from seatrial.releases.supervised import SupervisedRuntime
from seatrial.serving.scoring.predictor import Release

FIXED_BYTES = 64 * 2**10

_PLACEHOLDERS: dict[str, Any] = {
    "float": 1.0,
    "int": 1,
    "bool": True,
    "string": "a",
    "category": "a",
    "timestamp": "2024-01-01T00:00:00Z",
}


def open_release(source: Path | bytes, trusted: TrustedKeys) -> Release:
    """The release in a bundle. Nothing is returned that has not replayed its golden rows in this process.

    source: the bundle's path or its bytes. trusted: whose signature counts.
    Raises what `bundle.open_bundle` and `golden.replay` raise.
    """
    bundle = open_bundle(source, trusted)
    # missing values are refused by the predictor, which knows their names and looks more cheaply
    runtime = open_runtime(bundle, checked=False)
    replay(bundle, runtime)
    manifest = bundle.manifest
    return Release(
        id=bundle.id,
        model=manifest.model,
        version=str(manifest.version),
        signature=manifest.signature,
        plan=manifest.plan,
        score=runtime.score_now if isinstance(runtime, SupervisedRuntime) else runtime.score,
        score_row=runtime.score_row if isinstance(runtime, Runtime) and not runtime.many else None,
        threshold=0.5 if manifest.threshold is None else manifest.threshold,
        no_missing=manifest.no_missing,
        no_unseen=manifest.parity.refuses_unseen,
        description=manifest.description,
        example=example(bundle),
        elsewhere=isinstance(runtime, SupervisedRuntime),
        signed_by=bundle.keyid,
        bytes=runtime.bytes if isinstance(runtime, SupervisedRuntime) else _bytes(bundle),
        start_s=round(runtime.start_s, 3) if isinstance(runtime, SupervisedRuntime) else 0.0,
    )


def _bytes(bundle: Bundle) -> int:
    """About what a loaded graph takes: graphs of 200 and of 100 trees took 1.2 and 0.9 times the bytes that they have,
    and the smallest about 10 KiB."""
    return FIXED_BYTES + len(bundle.files[MODEL]) * 5 // 4


def example(bundle: Bundle) -> dict[str, Any]:
    """A sound row of request fields: the first golden row, with placeholders for fields that are no input."""
    golden = read_golden(bundle.files[GOLDEN])
    signature = bundle.manifest.signature
    row = {name: values[0] for name, values in columns_of(signature, golden.given()).items()}
    return {
        field.name: _value(field, row.get(field.name), signature.categories.get(field.name))
        for field in signature.request
    }


def _value(field: Field, encoded: Any, categories: tuple[str, ...] | None) -> Any:
    if isinstance(encoded, str):
        return encoded
    if encoded is None and categories:
        return categories[0]
    if encoded is None or (math.isnan(encoded) and not field.nullable):
        return _PLACEHOLDERS[field.dtype]
    if math.isnan(encoded):
        return None
    if categories is not None:
        return categories[int(encoded)]
    match field.dtype:
        case "int":
            return int(encoded)
        case "bool":
            return bool(encoded)
        case "float":
            return round(float(encoded), 6)
    return _PLACEHOLDERS[field.dtype]
