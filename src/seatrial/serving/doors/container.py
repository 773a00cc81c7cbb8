"""What the platform that runs a container wants of it: where to listen, which routes it asks, where its model lies.

Vertex AI says so in variables (AIP_HTTP_PORT, AIP_HEALTH_ROUTE, AIP_PREDICT_ROUTE) and sends
`{"instances": [...], "parameters": {...}}`, to be answered with `{"predictions": [...]}`. SageMaker starts
`IMAGE serve`, asks GET /ping and POST /invocations on port 8080 (or SAGEMAKER_BIND_TO_PORT), and has put what the model
is made of into /opt/ml/model (or SM_MODEL_DIR). What a platform says comes before what a command line says, because an
image has one command wherever it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from seatrial.core.errors import UsageError
from seatrial.core.types import Field
from seatrial.serving.doors.body import strict_json
from seatrial.serving.scoring.predictor import Answer
from seatrial.serving.scoring.requests import BadShape

SAGEMAKER_MODEL = "/opt/ml/model"
SAGEMAKER_PORT = "8080"
BUNDLES = "*.seatrial"
EVERYWHERE = "0.0.0.0"


class BadPlatform(UsageError):
    """What a platform's variables say cannot be done."""

    code = "serving.bad_platform"


@dataclass(frozen=True)
class Platform:
    """What a platform wants. health, predict: routes beside our own; empty: it asks by those that are always there.

    bundle: the release that it wants served; None: it says nothing of that.
    """

    name: str
    port: int
    health: str = ""
    predict: str = ""
    bundle: Path | None = None
    host: str = EVERYWHERE

    @property
    def told(self) -> str:
        """What the server does about it, for people."""
        routes = f"health {self.health or '/ping'}, predictions {self.predict or '/invocations'}"
        bundle = f", release {self.bundle.name}" if self.bundle else ""
        return f"As {self.name} says: {self.host}:{self.port}, {routes}{bundle}."


def platform(environment: Mapping[str, str]) -> Platform | None:
    """The platform whose variables or model are there; None: this is no container of one. Raises BadPlatform."""
    if environment.get("AIP_HTTP_PORT"):
        return Platform(
            "Vertex AI",
            _port(environment, "AIP_HTTP_PORT"),
            _route(environment, "AIP_HEALTH_ROUTE"),
            _route(environment, "AIP_PREDICT_ROUTE"),
        )
    folder = Path(environment.get("SM_MODEL_DIR") or SAGEMAKER_MODEL)
    bundle = _bundle(folder)
    if environment.get("SAGEMAKER_BIND_TO_PORT") or bundle is not None:
        return Platform("SageMaker", _port(environment, "SAGEMAKER_BIND_TO_PORT", SAGEMAKER_PORT), bundle=bundle)
    return None  # the folder alone is in every training job, too; an image with its own release has its own port


def read(body: bytes, fields: Sequence[Field]) -> tuple[bytes, Callable[[Answer], Answer]]:
    """The rows that Vertex AI sends, as the body of a prediction of many, and how its answer is told.

    A row is an object of fields, or a list of values in their order. Raises BadShape, NotJson or DuplicateKey.
    """
    found = strict_json(body)
    if not isinstance(found, dict) or not isinstance(found.get("instances"), list):
        raise _bad("the body holds no 'instances'.")
    if found.keys() - {"instances", "parameters"}:
        raise _bad("the body holds more than 'instances' and 'parameters'.")
    if found.get("parameters") not in (None, {}):
        raise _bad("'parameters' are not known; there are none.")
    names = [field.name for field in fields]
    for row in found["instances"]:
        if isinstance(row, list) and len(row) != len(names):
            raise _bad(f"a row of 'instances' has not {len(names)} values.")
    rows = [dict(zip(names, row, strict=True)) if isinstance(row, list) else row for row in found["instances"]]
    return msgspec.json.encode({"instances": rows}), _answered


def _answered(answer: Answer) -> Answer:
    """The answer to a prediction of many rows as Vertex AI takes it: of each row all that is told of it."""
    rows: list[dict[str, Any]] = msgspec.json.decode(answer.body)["predictions"]
    return answer._replace(body=msgspec.json.encode({"predictions": rows}))


def _port(environment: Mapping[str, str], name: str, otherwise: str = "") -> int:
    text = environment.get(name) or otherwise
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536):
        raise BadPlatform(
            f"{name} is no port.", expected="A number from 1 to 65535 is expected.", state="Nothing was started."
        )
    return int(text)


def _route(environment: Mapping[str, str], name: str) -> str:
    text = environment.get(name, "")
    if text and not text.startswith("/"):
        raise BadPlatform(f"{name} is no route.", expected="It begins with a slash.", state="Nothing was started.")
    return text


def _bundle(folder: Path) -> Path | None:
    found = sorted(folder.glob(BUNDLES))
    if len(found) > 1:
        raise BadPlatform(
            f"{folder} holds {len(found)} releases.",
            expected=f"One file {BUNDLES} is expected there, or none when the image holds the release.",
            state="Nothing was started.",
        )
    return found[0] if found else None


def _bad(found: str) -> BadShape:
    return BadShape(
        found, expected='Expected is {"instances": [{...}, ...], "parameters": {}}.', state="Nothing was predicted."
    )
