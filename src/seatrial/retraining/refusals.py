"""Refusals: what asked for a retraining and was told no, when, and why?

A trigger that is held back must not be silent: whoever asks later why nothing was retrained finds each refusal as an
event with its reason, and a hundred alike in a row as one line.
"""

from __future__ import annotations

from typing import Any

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import Conflict, Failed
from seatrial.stores.metadata import MetadataStore, Transaction

EVENT = "retrain.refused"


class DataBroken(Failed):
    """The data break a rule that is declared for them, or a hard rule of data quality."""

    code = "retrain.data_broken"


class RolloutFirst(Conflict):
    """Another release is taking this deployment's traffic in steps."""

    code = "retrain.rollout_under_way"


class UnderWay(Conflict):
    """Another proposal of this model is under way."""

    code = "retrain.under_way"


class Training(Conflict):
    """Another process of this host trains this model's challenger."""

    code = "retrain.training"


class Refusal(msgspec.Struct, frozen=True):
    """A retraining that was asked for and refused.

    step: what was asked for. code, reason: of the refusal. trigger: what had asked, in words. times: how often in a row
    it was refused alike, from `at` to `last`. Times are of the domain, ISO 8601 in UTC.
    """

    model: str
    at: str
    last: str
    times: int
    step: str
    code: str
    reason: str
    trigger: str
    actor: str


def keep(
    transaction: Transaction,
    *,
    model: str,
    step: str,
    code: str,
    reason: str,
    trigger: str,
    proposal: str | None = None,
    actor: str,
    at_us: int,
) -> None:
    """Keep one refusal, in a transaction of the caller's. proposal: the one that is in the way, or was to go on."""
    body: dict[str, Any] = {"step": step, "code": code, "reason": reason, "trigger": trigger, "proposal": proposal}
    transaction.event(EVENT, f"retrain/{model}", actor=actor, at_us=at_us, body=body)


def refusals(metadata: MetadataStore, model: str | None = None) -> list[Refusal]:
    """Every refusal, or those of one model, oldest first; alike ones in a row are told once."""
    subject = None if model is None else f"retrain/{model}"
    found: dict[str, list[Refusal]] = {}
    order: list[tuple[str, int]] = []
    for event in metadata.events(kind=EVENT, subject=subject):
        name = event.subject.partition("/")[2]
        of_model = found.setdefault(name, [])
        at = iso(from_us(event.at_us))
        told = {key: event.body[key] for key in ("step", "code", "trigger")}
        before = of_model[-1] if of_model else None
        if before is not None and all(getattr(before, key) == value for key, value in told.items()):
            of_model[-1] = msgspec.structs.replace(before, last=at, times=before.times + 1, reason=event.body["reason"])
            continue
        of_model.append(Refusal(name, at, at, 1, reason=event.body["reason"], actor=event.actor, **told))
        order.append((name, len(of_model) - 1))
    return [found[name][place] for name, place in order]
