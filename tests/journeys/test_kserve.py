"""KServe's own client, unchanged. It wants an older pandas than this project, so it gets an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from seatrial.serving.clients.client import Client
from seatrial.serving.service import Service
from tests.serving.worlds import GOOD, in_thread, predictor, release

KSERVE = "kserve==0.21.0"
ROWS = [GOOD, GOOD | {"distance": 2900.0, "carrier": "ZZ"}]

CALLER = """
import asyncio, json, sys
import httpx, numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

url, rows = sys.argv[1], json.loads(sys.argv[2])

def request(binary, id):
    columns = {"distance": ("FP64", "f8"), "seats": ("INT64", "i8"), "night": ("BOOL", "?")}
    columns["carrier"] = ("BYTES", object)
    inputs = []
    for name, (datatype, kind) in columns.items():
        values = np.array([row[name] for row in rows], dtype=kind)
        inputs.append(InferInput(name, [len(rows)], datatype))
        inputs[-1].set_data_from_numpy(values, binary_data=binary)
    return InferRequest(model_name="late", infer_inputs=inputs, request_id=id)

async def main():
    found = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        found["live"] = await client.is_server_live(url)
        found["ready"] = await client.is_server_ready(url)
        found["model ready"] = await client.is_model_ready(url, "late")
        found["other ready"] = await client.is_model_ready(url, "other")
        for binary in (False, True):
            answer = await client.infer(url, request(binary, f"kserve {binary}"), model_name="late")
            assert answer.id == f"kserve {binary}", answer.id
            told = (one for one in answer.outputs if one.name != "prediction_id")
            found[f"binary {binary}"] = {one.name: one.as_numpy().tolist() for one in told}
        try:
            await client.infer(url, request(False, "x" * 300), model_name="late")
        except httpx.HTTPStatusError as error:
            found["refused"] = str(error)
    print(json.dumps(found))

asyncio.run(main())
"""


@pytest.mark.long
def test_its_health_its_readiness_and_its_tensors_work_unchanged(tmp_path):
    uv, python = Path(sys.executable).parent / "uv", tmp_path / "env" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "env"], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, KSERVE], check=True)
    service = Service()
    service.serve("late", predictor(release()))
    service.prove()
    with in_thread(service) as url:
        with Client(url) as native:
            expected = native.predict_many(ROWS)["predictions"]
        ran = subprocess.run([python, "-c", CALLER, url, json.dumps(ROWS)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert (found["live"], found["ready"], found["model ready"], found["other ready"]) == (True, True, True, False)
    for binary in (False, True):
        assert found[f"binary {binary}"]["prediction"] == [row["prediction"] for row in expected]
        assert found[f"binary {binary}"]["probability"] == [row["probability"] for row in expected]
    assert "'id' is not a string of 1 to 200 characters" in found["refused"]
