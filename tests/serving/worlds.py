"""A small real world to serve in: trained models, signed bundles, a server in a process of its own."""

from __future__ import annotations

import functools
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from seatrial.core.signature import Signature, encode
from seatrial.core.types import Field
from seatrial.features.plan import FeaturePlan, FunctionPlan
from seatrial.releases import golden
from seatrial.releases.bundle import GOLDEN, MODEL, pack
from seatrial.releases.manifest import Lineage, Manifest, file_entries
from seatrial.releases.native import NativeModel, capture
from seatrial.releases.onnx_export import to_onnx
from seatrial.releases.parity import compare
from seatrial.releases.runtime import Runtime
from seatrial.releases.signing import SigningKey, is_signed, signing_key
from seatrial.serving.doors.http import Front
from seatrial.serving.doors.protocol import PredictionProtocol
from seatrial.serving.meters.metrics import Metrics
from seatrial.serving.scoring.predictor import Predictor, Release, Share
from seatrial.serving.scoring.release import open_release
from seatrial.serving.service import Service

REQUEST = (
    Field("distance", "float"),
    Field("seats", "int", nullable=False),
    Field("night", "bool", nullable=False),
    Field("carrier", "category"),
    Field("tail", "string", optional=True, description="The plane's tail number."),
    Field("leaves", "timestamp", optional=True),
)
SIGNATURE = Signature(
    "binary",
    REQUEST,
    ("distance", "seats", "carrier", "night"),
    categories={"carrier": ("AA", "DL", "UA")},
    integers=("seats",),
)
DOUBLED = FeaturePlan(
    functions=(FunctionPlan("doubled", ("distance",), "def doubled(distance):\n    return distance * 2"),)
)
WITH_FUNCTION = Signature(
    "binary", REQUEST, ("doubled", "seats", "carrier", "night"), SIGNATURE.categories, SIGNATURE.integers
)
GOOD: dict[str, Any] = {"distance": 544.0, "seats": 150, "night": False, "carrier": "DL"}


def columns(rows: int, seed: int) -> dict[str, Any]:
    """Random columns of every name that a signature above uses."""
    rng = np.random.default_rng(seed)
    distance = rng.uniform(50, 3000, rows)
    return {
        "distance": distance,
        "doubled": distance * 2,
        "seats": rng.integers(20, 400, rows),
        "carrier": rng.choice(["AA", "DL", "UA"], rows).tolist(),
        "night": rng.random(rows) < 0.3,
    }


@functools.cache
def native(task: str = "binary", seed: int = 0, inputs: tuple[str, ...] = SIGNATURE.inputs) -> NativeModel:
    """A fitted pipeline that takes missing values."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    signature = Signature("binary", REQUEST, inputs, SIGNATURE.categories, SIGNATURE.integers)
    x, _ = encode(signature, columns(300, seed))
    y = x[:, 0] / x[:, 0].mean() + np.random.default_rng(seed).normal(0, 0.3, len(x))
    estimator = LogisticRegression() if task == "binary" else LinearRegression()
    fitted = make_pipeline(SimpleImputer(), StandardScaler(), estimator).fit(x, y > 1 if task == "binary" else y)
    return capture(fitted, task)


@functools.cache
def onnx(task: str = "binary", seed: int = 0, inputs: tuple[str, ...] = SIGNATURE.inputs) -> bytes:
    return to_onnx(native(task, seed, inputs), len(inputs))


def release(seed: int = 0, version: str = "1", **changes: Any) -> Release:
    """A release without a bundle around it."""
    signature = changes.pop("signature", SIGNATURE)
    if "score" not in changes:
        changes["score"] = Runtime(onnx(signature.task, seed, signature.inputs)).score
    given = {"plan": FeaturePlan(), "model": "late"} | changes
    return Release(id=f"rel_{seed:032x}", version=version, signature=signature, **given)


def predictor(*releases: Release, **options: Any) -> Predictor:
    """A predictor without a log over equal shares of some releases."""
    found = releases or (release(),)
    share = 10_000 // len(found)
    shares = [Share(f"arm{number}", one, share) for number, one in enumerate(found)]
    return Predictor("late", shares, **{"metrics": Metrics(), "log": None} | options)


def bundle(key: SigningKey, seed: int = 0, version: int = 1, plan: FeaturePlan | None = None) -> bytes:
    """A signed bundle."""
    signature = WITH_FUNCTION if plan else SIGNATURE
    model, exported = native("binary", seed, signature.inputs), onnx("binary", seed, signature.inputs)
    rows, _ = encode(signature, columns(50, seed + 1))
    files = {MODEL: exported, GOLDEN: golden.record("binary", rows, Runtime(exported))}
    manifest = Manifest(
        model="late",
        version=version,
        semantic_version="1.0.0",
        explanation="the first",
        signature=signature,
        plan=plan or FeaturePlan(),
        threshold=0.5,
        estimator="sklearn.pipeline.Pipeline",
        parameters={},
        parity=compare(model, exported, rows, signature),
        metrics={},
        gates=(),
        lineage=Lineage(),
        files=file_entries(files),
    )
    return pack(manifest, files, key)


class Keys:
    """A signing key that is trusted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = signing_key(folder)
        self.trusted = {self.key.keyid: self.key.public}
        self.sign = self.key.sign

    def verify(self, data: bytes, signature: bytes) -> bool:
        return is_signed(data, signature, self.trusted)

    def open(self, data: bytes) -> Release:
        return open_release(data, self.trusted)


SERVER = """
import json, sys
from pathlib import Path
from seatrial.releases.keyring import WatchedKeys
from seatrial.serving import service
from seatrial.serving.workers import process
from seatrial.stores.objects import ObjectStore
from seatrial.stores.prediction_log import PredictionLog
home, options = Path(sys.argv[1]), json.loads(sys.argv[2])
log = PredictionLog(home / "log", when_full=options.get("when_full", "refuse"))
trusted = WatchedKeys(home / "keys")
refuse = options.get("refuse_distrusted", False)
if "bundle" in options:
    path = Path(options["bundle"])
    serving = service.from_bundle(path, trusted_keys=trusted, log=log, replay=options.get("replay", False),
                                  refuse_distrusted=refuse)
else:
    serving = service.load(routes=home / "routes", read_bundle=ObjectStore(home / "objects").read, trusted_keys=trusted,
                           online=None, log=log, refuse_distrusted=refuse)
from seatrial.serving.doors.container import platform
from seatrial.serving.doors.http import Front
front = Front(serving, slow_seconds=options.get("slow_seconds", 20.0), platform=platform(options.get("platform", {})))
def started(url):
    print(url, flush=True)
process.run(serving, port=options.get("port", 0), started=started, front=front)
print(json.dumps(sorted(sys.modules)) if options.get("modules") else "stopped", flush=True)
"""


@contextmanager
def server(home: Path, **options: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(home), json.dumps(options)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def in_thread(service: Service, **options: Any) -> Iterator[str]:
    """The address of a server of a service that is at hand, in a thread of this process. options: of `Front`."""
    front = Front(service, **options)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        front,
        http=functools.partial(PredictionProtocol, front),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        server_header=False,
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join()
        listening.close()
