"""The bill of materials of a release: CycloneDX 1.6, as JSON, with the model, its card, its data and its libraries.

Written by hand after the specification (cyclonedx.org/docs/1.6/json), because the library drops the part on models.
The same release gives the same document: its serial number is derived from the release, and it holds no time.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

SCHEMA, SPEC = "http://cyclonedx.org/schema/bom-1.6.schema.json", "1.6"
_NAMESPACE = uuid.UUID("6f1c3b8e-2d0f-5a57-9d0c-0b7a1c5e5ea1")
_TASKS = {"binary": "classification", "multiclass": "classification", "regression": "regression"}


class Facts(msgspec.Struct, frozen=True):
    """What the bill is made of.

    manifest: the release's, as plain values. lock: the lines of its pinned packages. card: the owner's words by part.
    datasets: id, name, rows and digest of each. slices: as a run records them. intervals: metric -> (low, high).
    """

    release: str
    manifest: Mapping[str, Any]
    lock: Sequence[str]
    card: Mapping[str, Sequence[str]]
    datasets: Sequence[Mapping[str, Any]] = ()
    slices: Mapping[str, Any] = {}
    intervals: Mapping[str, Any] = {}
    seatrial: str = ""


def bill(facts: Facts) -> dict[str, Any]:
    """The document. BLAKE3 digests are those of the bundle's own manifest."""
    manifest = facts.manifest
    ref = f"model:{facts.release}"
    libraries = [_library(line) for line in facts.lock if "==" in line]
    data = [_dataset(one) for one in facts.datasets]
    files = [
        {
            "type": "file",
            "bom-ref": f"file:{name}",
            "name": name,
            "hashes": [{"alg": "BLAKE3", "content": entry["digest"]}],
            "properties": [{"name": "seatrial:bytes", "value": str(entry["bytes"])}],
        }
        for name, entry in manifest["files"].items()
    ]
    components = [*data, *files, *libraries]
    return {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, facts.release)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "seatrial", "version": facts.seatrial}]},
            "component": _model(facts, ref),
        },
        "components": components,
        "dependencies": [
            {"ref": ref, "dependsOn": [one["bom-ref"] for one in components]},
            *({"ref": one["bom-ref"]} for one in components),
        ],
    }


def _model(facts: Facts, ref: str) -> dict[str, Any]:
    manifest = facts.manifest
    lineage = manifest["lineage"]
    properties = {
        "seatrial:release": facts.release,
        "seatrial:model_version": str(manifest["version"]),
        "seatrial:format": manifest["model_format"],
        "seatrial:run": lineage["run"],
        "seatrial:training_set": lineage["training_set"],
        "seatrial:commit": lineage["commit"],
        "seatrial:definitions": lineage["definitions"],
        "seatrial:parity": "largest difference {largest}, {flipped} flipped".format_map(manifest["parity"]),
    }
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": manifest["model"],
        "version": manifest["semantic_version"],
        "hashes": [
            {"alg": "BLAKE3", "content": entry["digest"]}
            for name, entry in manifest["files"].items()
            if name.startswith("model.")
        ],
        "modelCard": _card(facts, f"card:{facts.release}"),
        "properties": [{"name": name, "value": value} for name, value in properties.items() if value],
    }
    if manifest["description"]:
        component["description"] = manifest["description"]
    if manifest["owner"]:
        component["supplier"] = {"name": manifest["owner"]}
    return component


def _card(facts: Facts, ref: str) -> dict[str, Any]:
    manifest = facts.manifest
    signature = manifest["signature"]
    parameters: dict[str, Any] = {
        "approach": {"type": "supervised"},
        "task": f"{_TASKS[signature['task']]} ({signature['task']})",
        "architectureFamily": manifest["estimator"].rpartition(".")[2] or manifest["estimator"],
        "modelArchitecture": manifest["estimator"],
        "inputs": [{"format": f"{field['name']}: {field['dtype']}"} for field in signature["request"]],
        "outputs": [{"format": "prediction"}, {"format": "probability"}][
            : 1 if signature["task"] == "regression" else 2
        ],
    }
    if facts.datasets:
        parameters["datasets"] = [{"ref": f"data:{one['id']}"} for one in facts.datasets]
    metrics = [_metric(name, value, facts.intervals.get(name)) for name, value in manifest["metrics"].items()]
    for column, sliced in facts.slices.items():
        for one in sliced.get("slices", ()):
            where = f"{column}={one['value']}"
            metrics += [_metric(name, value, None, where) for name, value in one["metrics"].items()]
    card: dict[str, Any] = {
        "bom-ref": ref,
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": [one for one in metrics if one]},
    }
    considerations: dict[str, Any] = {
        "useCases": list(facts.card.get("intended_use", ())),
        "technicalLimitations": [*facts.card.get("limits", ()), *_out_of_scope(facts.card)],
        "performanceTradeoffs": [*facts.card.get("trade_offs", ()), *facts.card.get("alternatives", ())],
    }
    considerations = {name: value for name, value in considerations.items() if value}
    if considerations:
        card["considerations"] = considerations
    return card


def _outputs(task: str) -> tuple[str, ...]:
    return ("prediction",) if task == "regression" else ("prediction", "probability")


def _out_of_scope(card: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"Out of scope: {words}" for words in card.get("out_of_scope", ())]


def _metric(name: str, value: float | None, interval: Any, where: str = "") -> dict[str, Any]:
    """One metric; empty when it is not defined."""
    if value is None:
        return {}
    metric: dict[str, Any] = {"type": name, "value": repr(float(value))}
    if where:
        metric["slice"] = where
    if interval:
        metric["confidenceInterval"] = {"lowerBound": repr(float(interval[0])), "upperBound": repr(float(interval[1]))}
    return metric


def _dataset(one: Mapping[str, Any]) -> dict[str, Any]:
    contents = {"properties": [{"name": "seatrial:rows", "value": str(one["rows"])}]} if one.get("rows") else None
    described = {"type": "dataset", "name": one["name"], "description": one["what"]}
    return {
        "type": "data",
        "bom-ref": f"data:{one['id']}",
        "name": one["name"],
        "version": one["id"],
        "data": [{**described, "contents": contents} if contents else described],
    }


def _library(line: str) -> dict[str, Any]:
    name, _, rest = line.partition("==")
    version = re.split(r"[\s;\\]", rest.strip())[0]
    name = re.sub(r"\[.*\]", "", name).strip()
    purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
