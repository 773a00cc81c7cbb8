"""Exemption: may this challenger go live without a person, because its owner wrote down when that is all right?

Only under `Retrain(approval="auto-if-better")`, and only when nothing but the data changed, no caller is refused for
it, it is shown to be better, and nothing moved beyond the declared margins. What was found is kept word for word with
the approval.
"""

from __future__ import annotations

from typing import Any

import msgspec

from seatrial.releases.manifest import Manifest, next_version
from seatrial.retraining.comparison import WHOLE
from seatrial.retraining.definition import Retrain
from seatrial.retraining.narrowed import Asked, narrowed, with_nulls_of
from seatrial.retraining.proposal import Proposal

POLICY = "auto-if-better"
NEEDS_PERSON = "retrain.needs_person"
"""The code of the refusal that is kept when a challenger that is better needs a person."""
_DATA_ONLY = "Patch: only data changed"


class Exemption(msgspec.Struct, frozen=True):
    """Whether a challenger needs nobody's approval. against: why it does, in words; empty when it does not.

    facts: all that was looked at, for the record.
    """

    against: list[str]
    facts: dict[str, Any]


def exemption(
    retrain: Retrain, proposal: Proposal, champion: Manifest, challenger: Manifest, asked: Asked
) -> Exemption:
    """What the policy says of the newest comparison of a challenger.

    asked: what lately was asked of the deployment, in the fields that are `narrowed`.
    """
    comparison = proposal.comparison
    fields = narrowed(champion, challenger)
    changed = next_version(champion, with_nulls_of(champion, challenger))[1]
    against = []
    if retrain.approval != POLICY:
        against.append(f"its Retrain says approval={retrain.approval!r}")
    if not changed.startswith(_DATA_ONLY):
        against.append(f"more than data changed: {changed}")
    against += asked.against(fields)
    if fields and not against:
        changed = f"{changed} {asked.words(fields)}"
    if comparison is None or comparison.verdict != "better":
        against.append(comparison.words if comparison else "it was not compared yet")
    changes = comparison.changes if comparison else []
    against += [f"significant change: {one.words}" for one in changes if one.state == "beyond"]
    judged = {one.what for one in changes if one.where == WHOLE and one.state != "too few"}
    against += [f"{name} has a margin and could not be judged" for name in retrain.margins if name not in judged]
    facts = {
        "policy": POLICY,
        "changed": changed,
        "verdict": comparison.words if comparison else "",
        "comparison": proposal.comparison_id,
        "margins": dict(retrain.margins),
        "changes": [one.words for one in changes if one.state != "too few"],
        "not_judged": [one.words for one in changes if one.state == "too few"],
    }
    return Exemption(against, facts)
