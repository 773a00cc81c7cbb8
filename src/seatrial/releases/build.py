"""From a run to a bundle: form and parity, golden rows, manifest, in this order; pure but for what it computes.

The same run, rows and previous release give the same bytes. Whoever calls keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def build(
    run: Record,
    version: int,
    native: NativeModel,
    rows: Rows,
    *,
    profile: bytes,
    previous: Manifest | None,
    key: SigningKey,
    facts: Mapping[str, Any],
    progress: Progress | None = None,
) -> Built:
    """The release of a run.

    run: its record, as training wrote it. version: the model version's number.
    rows: those on which parity is shown; golden rows are chosen among them.
    previous: the manifest of the release of the version before, for the semantic version.
    facts: further plain values for the lineage.
    What has no ONNX form that answers the same is released in its own (`ladder.choose`); the manifest says why.
    Raises ParityRefused, GoldenMismatch.
    """
    signature = msgspec.convert(run.body["signature"], Signature)
    threshold = (run.body.get("threshold") or {}).get("value", HALF) if signature.task == "binary" else None
    tell = progress or _silent
    tell("export", 0, 4)
    form = choose(native, rows, signature, run.name, threshold=HALF if threshold is None else threshold)
    tell("golden rows", 2, 4)
    files = {
        model_file(form.format): form.data,
        GOLDEN: golden.record(signature.task, rows, form.runtime),
        PROFILE: profile,
        LOCK: "".join(f"{line}\n" for line in run.body["environment"]["packages"]).encode(),
    }
    manifest = _manifest(run, version, signature, threshold, form, files, facts)
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


def _manifest(
    run: Record,
    version: int,
    signature: Signature,
    threshold: float | None,
    form: Form,
    files: Mapping[str, bytes],
    facts: Mapping[str, Any],
) -> Manifest:
    body = run.body
    definition, code, lock = body["definition"], body["environment"]["code"], body["environment"]["lock"]
    training_set, *snapshots = run.inputs
    return Manifest(
        model=run.name,
        version=version,
        semantic_version="",
        explanation="",
        signature=signature,
        plan=msgspec.convert(body["plan"], FeaturePlan),
        threshold=threshold,
        estimator=definition["estimator"],
        parameters=definition["params"],
        model_format=form.format,
        parity=form.parity,
        metrics=body["metrics"],
        gates=tuple(body["gates"]),
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
        files=file_entries(files),
        owner=definition["owner"],
        on_call=definition["on_call"],
        runbook=definition["runbook"],
        description=definition["description"],
    )
