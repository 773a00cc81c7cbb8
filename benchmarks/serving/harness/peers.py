"""The servers: how each is started for a model, in which environment, and where its answer has the probability."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sklearn

from harness.models import NAMES, PROJECT, World

SOURCE = Path(__file__).resolve().parents[3] / "src"

ECHO = """
import sys
import uvicorn
ANSWER = b'{"prediction":1,"probability":0.5}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
async def app(scope, receive, send):
    if scope["type"] == "http":
        while (await receive()).get("more_body", False):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": ANSWER})
uvicorn.run(app, port=int(sys.argv[1]), lifespan="off", access_log=False, log_config=None, server_header=False,
            ws="none", proxy_headers=False)
"""

BARE = """
import sys
from pathlib import Path
import msgspec
from seatrial.releases.signing import trusted_keys
from seatrial.serving import service
from seatrial.serving.workers import process
from seatrial.serving.doors.http import Front
from seatrial.serving.scoring.predictor import Answer, Draft

class Told(msgspec.Struct):
    prediction: int
    probability: float

encode = msgspec.json.Encoder().encode

class Bare(Front):
    def draft(self, name, body, caller, headers=()):
        predictor = self.service.predictor(name)
        request = predictor.reader.read(body)
        scored = predictor._only.score_one(request.rows[0], 0, request.bounded)
        return Draft(Answer(200, encode(Told(scored.prediction, scored.probability))))

serving = service.from_bundle(Path("bench.seatrial"), trusted_keys=trusted_keys(Path(".seatrial/keys")), log=None)
process.run(serving, port=int(sys.argv[1]), front=Bare(serving))
"""

HANDWRITTEN = """
import hashlib
import time
import uuid

import joblib
import pandas as pd
from fastapi import FastAPI
from prometheus_client import Counter, Histogram, make_asgi_app
from pydantic import BaseModel

app = FastAPI()
app.mount("/metrics", make_asgi_app())
models = {"control": joblib.load("framed.joblib"), "treatment": joblib.load("framed.joblib")}
COUNT = Counter("predictions_total", "Predictions", ["model", "version"])
TOOK = Histogram("prediction_seconds", "Latency", ["model"])


class Row(BaseModel):
    id: str
    FIELDS


class Answer(BaseModel):
    prediction: int
    probability: float
    version: str
    request_id: str


@app.post("/predict")
async def predict(row: Row) -> Answer:
    started = time.perf_counter()
    version = "treatment" if int(hashlib.md5(row.id.encode()).hexdigest(), 16) % 100 < 10 else "control"
    frame = pd.DataFrame([row.model_dump(exclude={"id"})])
    probability = float(models[version].predict_proba(frame)[0, 1])
    COUNT.labels("bench", version).inc()
    TOOK.labels("bench").observe(time.perf_counter() - started)
    return Answer(
        prediction=probability >= 0.5, probability=probability, version=version, request_id=str(uuid.uuid4())
    )
"""

BENTO = """
import bentoml
import joblib
import numpy as np

@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Bench:
    def __init__(self) -> None:
        self.model = joblib.load("model.joblib")

    @bentoml.api
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.model.predict_proba(rows)
"""

MLFLOW = """
import joblib, mlflow.sklearn, numpy as np, pandas as pd
from mlflow.models import infer_signature
model = joblib.load("framed.joblib")
frame = pd.DataFrame(np.zeros((2, 20)), columns=[f"x{i}" for i in range(20)])
mlflow.sklearn.save_model(model, "model", signature=infer_signature(frame), pyfunc_predict_fn="predict_proba",
                          serialization_format="cloudpickle")
"""

ENVIRONMENTS = {
    "mlflow": ("mlflow==3.17.2",),
    "bentoml": ("bentoml==1.4.39",),
    "mlserver": ("mlserver==1.7.1", "mlserver-sklearn==1.7.1"),
    "handwritten": (
        "fastapi==0.165.0",
        "uvicorn[standard]==0.54.0",
        "pandas==3.1.1",
        "joblib==1.6.0",
        "prometheus-client==0.26.0",
    ),
}
"""What is installed beside scikit-learn, whose version is the one here."""


@dataclass(frozen=True)
class Kind:
    """A kind of server. form: of its requests (`models.FORMS`). path: where it is asked.

    prepare: writes what it needs into a folder of its own, and gives the words that start it. probability: that of an
    answer.
    """

    name: str
    form: str
    path: str
    probability: Callable[[Any], float] | None
    prepare: Callable[[World, Path, int, Path], list[str]]
    environment: dict[str, str] = field(default_factory=dict)


def _echo(_world: World, _home: Path, port: int, _cache: Path) -> list[str]:
    return [sys.executable, "-c", ECHO, str(port)]


def _bare(world: World, home: Path, port: int, _cache: Path) -> list[str]:
    _copy(world.folder, home)
    return [sys.executable, "-c", BARE, str(port)]


def _seatrial(world: World, home: Path, port: int, _cache: Path) -> list[str]:
    _copy(world.folder, home)
    return [sys.executable, "-m", "seatrial", "serve", "--bundle", "bench.seatrial", "--port", str(port)]


def _looks_up(world: World, home: Path, port: int, cache: Path) -> list[str]:
    return _seatrial(replace(world, folder=world.folder / "looks_up"), home, port, cache)


def _handwritten(world: World, home: Path, port: int, cache: Path) -> list[str]:
    python = environment("handwritten", cache)
    shutil.copy(world.folder / "framed.joblib", home)
    fields = "\n    ".join(f"{name}: float" for name in NAMES)
    (home / "app.py").write_text(HANDWRITTEN.replace("FIELDS", fields))
    return [str(python), "-m", "uvicorn", "app:app", "--port", str(port), "--no-access-log", "--log-level", "warning"]


def _bento(world: World, home: Path, port: int, cache: Path) -> list[str]:
    python = environment("bentoml", cache)
    shutil.copy(world.folder / "model.joblib", home)
    (home / "service.py").write_text(BENTO)
    return [str(python.with_name("bentoml")), "serve", "service:Bench", "--port", str(port), "--host", "127.0.0.1"]


def _mlserver(world: World, home: Path, port: int, cache: Path) -> list[str]:
    python = environment("mlserver", cache)
    shutil.copy(world.folder / "model.joblib", home)
    # with workers of its own (the default) it does not start beside a current uvloop
    settings = {"parallel_workers": 0, "debug": False, "host": "127.0.0.1", "http_port": port}
    (home / "settings.json").write_text(json.dumps(settings | {"grpc_port": port + 1, "metrics_port": port + 2}))
    model = {"name": "bench", "implementation": "mlserver_sklearn.SKLearnModel"}
    (home / "model-settings.json").write_text(json.dumps(model | {"parameters": {"uri": "./model.joblib"}}))
    return [str(python.with_name("mlserver")), "start", "."]


def _mlflow(world: World, home: Path, port: int, cache: Path) -> list[str]:
    python = environment("mlflow", cache)
    shutil.copy(world.folder / "framed.joblib", home)
    subprocess.run([str(python), "-W", "ignore", "-c", MLFLOW], check=True, capture_output=True, cwd=home)
    serve = [str(python.with_name("mlflow")), "models", "serve", "-m", str(home / "model"), "-p", str(port)]
    return [*serve, "--env-manager", "local"]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("echo", "seatrial", "/predict", None, _echo),
        Kind("bare", "seatrial", "/predict", lambda told: told["probability"], _bare),
        Kind("seatrial", "seatrial", "/predict", lambda told: told["probability"], _seatrial),
        Kind(
            "seatrial+redis",
            "looks up",
            "/predict",
            lambda told: told["probability"],
            _looks_up,
            {"SEATRIAL_NAME": PROJECT},
        ),
        Kind("handwritten", "handwritten", "/predict", lambda told: told["probability"], _handwritten),
        Kind(
            "mlserver",
            "mlserver",
            "/v2/models/bench/infer",
            lambda told: told["outputs"][0]["data"][1],
            _mlserver,
        ),
        Kind("bentoml", "bentoml", "/predict", lambda told: told[0][1], _bento, {"BENTOML_DO_NOT_TRACK": "True"}),
        Kind(
            "mlflow",
            "mlflow",
            "/invocations",
            lambda told: told["predictions"][0][1],
            _mlflow,
            {"MLFLOW_DISABLE_TELEMETRY": "true"},
        ),
    )
}
PEERS = tuple(ENVIRONMENTS)


def environment(name: str, cache: Path) -> Path:
    """The Python of a peer's environment, which is made on first use (needs a package index)."""
    folder = cache / name
    python = folder / "bin" / "python"
    wanted = [*ENVIRONMENTS[name], f"scikit-learn=={sklearn.__version__}"]
    done = folder / "made.json"
    if not done.exists() or json.loads(done.read_text()) != wanted:
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        print(f"making an environment with {', '.join(wanted)} in {folder} (once)", flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(python), *wanted], check=True)
        done.write_text(json.dumps(wanted))
    return python


def variables(kind: Kind, more: dict[str, str]) -> dict[str, str]:
    """The environment of a server: what is here, one thread for each mathematics library, and its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SEATRIAL_", "MLFLOW_"))}
    ours = {"PYTHONPATH": str(SOURCE)} if kind.form in ("seatrial", "looks up") else {"PYTHONPATH": ""}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return own | ours | threads | kind.environment | more


def _copy(world: Path, home: Path) -> None:
    shutil.copy(world / "bench.seatrial", home)
    shutil.copytree(world / ".seatrial", home / ".seatrial")
