"""Refit: with which parameters is a tuned model trained again?

A challenger answers one question: do newer rows help? So it has the parameters that the champion's run chose, as a
backtest has at each of its instants, and nothing is tuned again. Whoever wants other parameters trains: that tunes.
"""

from __future__ import annotations

from typing import Any

from seatrial.core.identity import canonical_json
from seatrial.core.records import Record
from seatrial.stores.metadata import MetadataStore
from seatrial.training.model import Model


def champions_choice(metadata: MetadataStore, model: Model, deployments: list[str]) -> dict[str, Any] | None:
    """The record of tuning of the run whose release is live; `chosen_by` names the run that tuned.

    None when nothing is live, when what is live was not tuned, and when the model now asks for another search: then
    there is no choice that holds, and the model is tuned.
    """
    if model.tune is None:
        return None
    release = live_release(metadata, deployments)
    run = None if release is None else metadata.record(release.inputs[1])
    if run is None or "tuning" not in run.body:
        return None
    asked, now = run.body["definition"].get("tune"), model.tune.as_plain()
    return {"chosen_by": run.id} | run.body["tuning"] if canonical_json(asked) == canonical_json(now) else None


def live_release(metadata: MetadataStore, deployments: list[str]) -> Record | None:
    """The release that answers in the first of these deployments that has any."""
    head = next((head for name in deployments if (head := metadata.head("deployment", name)) is not None), None)
    live = None if head is None else metadata.record(head.record_id)
    return None if live is None else metadata.record(live.inputs[0])
