"""Two fitted models, their releases, and requests with the answers that scikit-learn gives to them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from seatrial import Entity, ParquetSource, agg
from seatrial.core.signature import Signature
from seatrial.core.types import Field
from seatrial.features.definitions import FeatureView
from seatrial.features.materialize import write
from seatrial.features.plan import FeaturePlan, plan_view
from seatrial.releases import golden
from seatrial.releases.bundle import GOLDEN, MODEL, pack
from seatrial.releases.manifest import Lineage, Manifest, file_entries
from seatrial.releases.native import capture
from seatrial.releases.onnx_export import to_onnx
from seatrial.releases.parity import compare
from seatrial.releases.runtime import Runtime
from seatrial.releases.signing import signing_key
from seatrial.stores.online import open_online

INPUTS, LOOKED_UP, REQUESTS = 20, 10, 200
NAMES = tuple(f"x{i}" for i in range(INPUTS))
PROJECT = "bench"
ESTIMATORS = {
    "LR": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "HistGB": lambda: HistGradientBoostingClassifier(max_iter=200, random_state=0),
}


@dataclass(frozen=True)
class World:
    """One model in a folder: model.joblib, the same fitted on a frame in framed.joblib, bench.seatrial with its keys in
    .seatrial/, and in looks_up/ the release that looks half of its inputs up.

    rows: what is asked, rounded as JSON has it. wanted: P(positive) of each, by scikit-learn.
    onnx_bytes: the size of the model in its release.
    """

    folder: Path
    name: str
    rows: NDArray[np.float64]
    wanted: NDArray[np.float64]
    onnx_bytes: int

    def bodies(self, form: str) -> list[bytes]:
        """The requests in the words of a server."""
        return [json.dumps(FORMS[form](number, row.tolist())).encode() for number, row in enumerate(self.rows)]


FORMS = {
    "seatrial": lambda _, row: {"features": dict(zip(NAMES, row, strict=True))},
    "looks up": lambda number, row: {
        "features": {"customer": number, **dict(zip(NAMES[:-LOOKED_UP], row[:-LOOKED_UP], strict=True))}
    },
    "mlflow": lambda _, row: {"dataframe_records": [dict(zip(NAMES, row, strict=True))]},
    "bentoml": lambda _, row: {"rows": [row]},
    "mlserver": lambda _, row: {
        "inputs": [{"name": "rows", "shape": [1, INPUTS], "datatype": "FP64", "data": row}],
        "outputs": [{"name": "predict_proba"}],
    },
    "handwritten": lambda number, row: {"id": str(number), **dict(zip(NAMES, row, strict=True))},
}


def make_world(folder: Path, name: str) -> World:
    """Fit the model, and pack its two releases."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10_000, INPUTS)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 3] - x[:, 2] + rng.normal(size=len(x)) > 0).astype(int)
    fitted = ESTIMATORS[name]().fit(x, y)
    folder.mkdir(parents=True)
    joblib.dump(fitted, folder / "model.joblib")
    joblib.dump(ESTIMATORS[name]().fit(pd.DataFrame(x, columns=NAMES), y), folder / "framed.joblib")
    rows = rng.normal(size=(REQUESTS, INPUTS)).round(6)  # on no edge of a tree, where float32 and float64 part
    onnx = to_onnx(capture(fitted, "binary"), INPUTS)
    _pack(folder, fitted, onnx, x, NAMES, tuple(Field(one, "float") for one in NAMES), FeaturePlan())
    kept = NAMES[:-LOOKED_UP]
    request = (Field("customer", "int"), *(Field(one, "float") for one in kept))
    inputs = (*kept, *(f"profile__f{i}" for i in range(LOOKED_UP)))
    _pack(folder / "looks_up", fitted, onnx, x, inputs, request, FeaturePlan((plan_view(VIEW),)))
    return World(folder, name, rows, fitted.predict_proba(rows.astype(np.float32))[:, 1], len(onnx))


VIEW = FeatureView(
    "profile",
    Entity("customer"),
    ParquetSource("profiles.parquet", event_timestamp="at"),
    {f"f{i}": agg.last(f"f{i}") for i in range(LOOKED_UP)},
    ttl_us=None,
)


def fill(address: str, world: World) -> None:
    """Put what the requests look up into the online store at `address`."""
    store = open_online(address, folder=Path("/"), project=PROJECT)
    now = datetime.now(UTC)
    looked_up = world.rows[:, -LOOKED_UP:]
    columns: dict[str, Any] = {f"f{i}": looked_up[:, i] for i in range(LOOKED_UP)}
    at = pa.array([now] * REQUESTS, pa.timestamp("us", tz="UTC"))
    table = pa.table({"customer": pa.array(range(REQUESTS), pa.int64()), "at": at, **columns})
    write(VIEW, table, store, known_by_us=int(now.timestamp() * 1e6) + 1)
    store.close()


def _pack(
    folder: Path,
    fitted: Any,
    onnx: bytes,
    x: NDArray[np.float32],
    inputs: tuple[str, ...],
    request: tuple[Field, ...],
    plan: FeaturePlan,
) -> None:
    """A signed bundle, with its keys where `seatrial serve --bundle` looks for them."""
    folder.mkdir(exist_ok=True)
    sample = x[:500]
    signature = Signature("binary", request, inputs)
    files = {MODEL: onnx, GOLDEN: golden.record("binary", sample, Runtime(onnx))}
    manifest = Manifest(
        model="bench",
        version=1,
        semantic_version="1.0.0",
        explanation="",
        signature=signature,
        plan=plan,
        threshold=0.5,
        estimator="",
        parameters={},
        parity=compare(capture(fitted, "binary"), onnx, sample, signature),
        metrics={},
        gates=(),
        lineage=Lineage(),
        files=file_entries(files),
    )
    bundle = pack(manifest, files, signing_key(folder / ".seatrial" / "keys"))
    (folder / "bench.seatrial").write_bytes(bundle)
