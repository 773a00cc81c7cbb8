"""Continuing: the fit of a release that a training goes on from, and the rows that are new to it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import msgspec

from seatrial.core.signature import Signature
from seatrial.training.continuing import NotContinued, Start, split_at

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.folder.workspace import Workspace
    from seatrial.training.model import Model

FORMATS: tuple[Literal["lightgbm", "xgboost", "skops"], ...] = ("lightgbm", "xgboost", "skops")


def started_from(workspace: Workspace, model: Model, rows: pa.Table, name: str) -> tuple[Model, pa.Table]:
    """The model that goes on from a release's fit, and the rows whose label became known since its cut-off.

    name: "champion", or a release's id. Raises NotContinued.
    """
    from seatrial.releases.native import NativeModel
    from seatrial.retraining.refit import live_release

    if name == "champion":
        named = [one.name for one in workspace.definitions.deployments.values() if one.model == model.name]
        release = live_release(workspace.metadata, named or [model.name])
    else:
        release = workspace.resolved(name, "release")
    if release is None:
        raise NotContinued(
            f"nothing of model '{model.name}' is live, so there is no fit to go on from.",
            next=f"Learn anew: `seatrial train {model.name}`.",
        )
    run = workspace.metadata.record(release.inputs[1]) if len(release.inputs) > 1 else None
    files = run.body.get("files", {}) if run else {}
    kept = [one for one in FORMATS if f"native.{one}" in files]
    cutoff_us = run.body.get("cutoff_us") if run else None
    if run is None or run.kind != "run" or not kept or cutoff_us is None:
        raise NotContinued(
            f"release {release.id} of model '{model.name}' has no fit that could be gone on from.",
            expected="One that was trained here with labels that have times is expected: by LightGBM, XGBoost, or an "
            "estimator of scikit-learn with partial_fit.",
            next=f"Learn anew: `seatrial train {model.name}`.",
        )
    data = workspace.objects.path(files[f"native.{kept[0]}"]).read_bytes()
    new, old = split_at(rows, cutoff_us, seed=model.seed)
    start = Start(
        release=release.id,
        run=run.id,
        cutoff_us=cutoff_us,
        signature=msgspec.convert(run.body["signature"], Signature),
        native=NativeModel(kept[0], data, model.task),
        remembered=old,
    )
    return dataclasses.replace(model, continues=start), new
