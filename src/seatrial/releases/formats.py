"""The forms in which a release can hold its model: in which file it lies, and what scores it.

"onnx" is scored in the process that asks. The others are the estimator's own files, scored by the library that wrote
them, in a child process (`releases.supervised`).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

from seatrial.core.errors import Failed, listed

ONNX = "onnx"
FILES = {
    ONNX: "model.onnx",
    "lightgbm": "model.txt",
    "xgboost": "model.json",
    "catboost": "model.cbm",
    "skops": "model.skops",
}
PACKAGES = {
    ONNX: (),
    "lightgbm": ("lightgbm",),
    "xgboost": ("xgboost",),
    "catboost": ("catboost",),
    "skops": ("skops", "scikit-learn"),
}
BOOSTERS = ("lightgbm", "xgboost", "catboost")


class FormatUnknown(Failed):
    """A release holds its model in a form that this version cannot score."""

    code = "release.format_unknown"


def model_file(format: str) -> str:
    """The name of the model's file in a bundle. Raises FormatUnknown."""
    if format not in FILES:
        raise FormatUnknown(
            f"the release holds its model as '{format}'.",
            expected=f"This version scores {listed(FILES)}.",
            next="Upgrade seatrial here, or release again with this version.",
            state="Nothing was loaded.",
            format=format,
        )
    return FILES[format]


def packages(format: str, model: bytes) -> tuple[str, ...]:
    """The packages besides seatrial's own that scoring needs, sorted; none for ONNX.

    model: the model's file; a pipeline kept as skops can hold a booster of another library.
    """
    needed = set(PACKAGES[format])
    if format == "skops":
        needed |= {module for module in _modules(model) if module in BOOSTERS}
    return tuple(sorted(needed))


def _modules(model: bytes) -> set[str]:
    """The top-level modules of the types in a skops file, read as JSON; nothing is loaded."""
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        return {name.partition(".")[0] for name in _named(json.loads(archive.read("schema.json")))}


def _named(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("__module__"), str):
            yield node["__module__"]
        for value in node.values():
            yield from _named(value)
    elif isinstance(node, list):
        for value in node:
            yield from _named(value)
