"""From a model to a bundle: form and parity, golden rows, manifest, in this order; pure but for what it computes.

What is told of the model comes from the record of its run, or, for one that was trained elsewhere, from whoever brought
it in (`Made`). The same model, rows and previous release give the same bytes. Whoever calls keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from seatrial.core.records import Record
from seatrial.core.signature import Rows, Signature
from seatrial.features.plan import FeaturePlan
from seatrial.releases import golden
from seatrial.releases.bundle import GOLDEN, LOCK, PROFILE, open_bundle, pack
from seatrial.releases.formats import model_file
from seatrial.releases.ladder import Form, choose
from seatrial.releases.manifest import Lineage, Manifest, file_entries, next_version, release_id
from seatrial.releases.native import NativeModel
from seatrial.releases.signing import SigningKey
from seatrial.releases.supervised import Cost

HALF = 0.5
"""The threshold of a run that recorded none."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Built:
    """A bundle that was packed, opened again and replayed.

    data: its bytes. cost: of the process that scores it, measured here; None when it answers with ONNX.
    """

    id: str
    manifest: Manifest
    data: bytes
    cost: Cost | None = None


@dataclass(frozen=True)
class Made:
    """What a release says of its model; what is not known is left empty, and nothing is put in its place.

    estimator: its class by import path. metrics: as they were measured, wherever. threshold: from which probability a
    prediction is 1; None for other tasks than binary. packages: the lines of the lock of
    the environment in which it was trained; None when that is not known.
    """

    model: str
    signature: Signature
    plan: FeaturePlan
    estimator: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    gates: Sequence[Mapping[str, Any]]
    lineage: Lineage
    threshold: float | None
    packages: Sequence[str] | None
    owner: str = ""
    on_call: str = ""
    runbook: str = ""
    description: str = ""


def made_by_run(run: Record, facts: Mapping[str, Any]) -> Made:
    """What a run's record, as training wrote it, says of its model. facts: further plain values for the lineage."""
    body = run.body
    definition, code, lock = body["definition"], body["environment"]["code"], body["environment"]["lock"]
    training_set, *snapshots = run.inputs
    signature = msgspec.convert(body["signature"], Signature)
    signature = msgspec.structs.replace(signature, personal=definition.get("personal", {}))
    return Made(
        model=run.name,
        signature=signature,
        plan=msgspec.convert(body["plan"], FeaturePlan),
        estimator=definition["estimator"],
        parameters=definition["params"],
        metrics=body["metrics"],
        gates=body["gates"],
        lineage=Lineage(
            run=run.id,
            training_set=training_set,
            snapshots=tuple(snapshots),
            definitions=code["definitions"],
            commit=code["commit"] or "",
            dirty=code["patch"] or "",
            lock=lock["digest"],
            more={"cutoff_us": body["cutoff_us"], "seed": body["seed"], "threads": body["threads"], **facts},
        ),
        threshold=(body.get("threshold") or {}).get("value", HALF) if signature.task == "binary" else None,
        packages=body["environment"]["packages"],
        owner=definition["owner"],
        on_call=definition["on_call"],
        runbook=definition["runbook"],
        description=definition["description"],
    )


def build(
    made: Made,
    version: int,
    native: NativeModel,
    rows: Rows,
    *,
    profile: bytes,
    previous: Manifest | None,
    key: SigningKey,
    progress: Progress | None = None,
) -> Built:
    """The release of a model.

    version: the model version's number.
    rows: those on which parity is shown; golden rows are chosen among them.
    previous: the manifest of the release of the version before, for the semantic version.
    What has no ONNX form that answers the same is released in its own (`ladder.choose`); the manifest says why.
    Raises ParityRefused, GoldenMismatch.
    """
    signature, threshold = made.signature, made.threshold
    tell = progress or _silent
    tell("export", 0, 4)
    form = choose(native, rows, signature, made.model, threshold=HALF if threshold is None else threshold)
    tell("golden rows", 2, 4)
    files = {
        model_file(form.format): form.data,
        GOLDEN: golden.record(signature.task, rows, form.runtime),
        PROFILE: profile,
    }
    if made.packages is not None:
        files[LOCK] = "".join(f"{line}\n" for line in made.packages).encode()
    manifest = _manifest(made, version, form, files)
    number, explanation = next_version(previous, manifest)
    manifest = msgspec.structs.replace(manifest, semantic_version=number, explanation=explanation)
    tell("pack", 3, 4)
    data = pack(manifest, files, key)
    bundle = open_bundle(data, {key.keyid: key.public})
    golden.replay(bundle, bundle.runtime())
    tell("pack", 4, 4)
    return Built(release_id(manifest), manifest, data, form.cost)


def _silent(what: str, done: int, total: int) -> None:
    del what, done, total


def _manifest(made: Made, version: int, form: Form, files: Mapping[str, bytes]) -> Manifest:
    return Manifest(
        model=made.model,
        version=version,
        semantic_version="",
        explanation="",
        signature=made.signature,
        plan=made.plan,
        threshold=made.threshold,
        estimator=made.estimator,
        parameters=dict(made.parameters),
        model_format=form.format,
        parity=form.parity,
        metrics=dict(made.metrics),
        gates=tuple(dict(gate) for gate in made.gates),
        lineage=made.lineage,
        files=file_entries(files),
        owner=made.owner,
        on_call=made.on_call,
        runbook=made.runbook,
        description=made.description,
    )
