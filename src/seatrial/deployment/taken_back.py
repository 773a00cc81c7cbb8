"""Taken back: which releases lost a deployment's traffic to the one before, and why?

Nothing of its own is kept for it: the decisions say it. A release that was deployed again since, and stayed, is none.
"""

from __future__ import annotations

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import NotAllowed
from seatrial.deployment.deploy import KIND
from seatrial.stores.metadata import MetadataStore


class WasTakenBack(NotAllowed):
    """A release that was rolled back is to answer again, and nobody wrote down why."""

    code = "deploy.was_taken_back"


class TakenBack(msgspec.Struct, frozen=True):
    """A release that was rolled back. because: in the words of who did it, or of the verdict; may be empty."""

    deployment: str
    at: str
    actor: str
    because: str

    @property
    def words(self) -> str:
        return f"rolled back from '{self.deployment}' at {self.at}" + (f": {self.because}" if self.because else "")


def taken_back(metadata: MetadataStore, name: str) -> dict[str, TakenBack]:
    """The releases that a deployment was rolled back from, by id. A shadow that somebody ended is none of them."""
    events = {event.body.get("record"): event for event in metadata.events(subject=f"{KIND}/{name}", kind="rollback")}
    records = {record.id: record for record in metadata.records(KIND, name)}
    found: dict[str, TakenBack] = {}
    for record in records.values():
        for id in record.inputs:
            found.pop(id, None)
        left = records.get(record.body.get("rolled_back") or "")
        event = events.get(record.id)
        if left is None or event is None:
            continue
        if (left.body.get("rollout") or {}).get("strategy") == "shadow" and "look" not in record.body:
            continue
        because = str(record.body.get("reason") or "")
        told = TakenBack(name, iso(from_us(event.at_us)), event.actor, because)
        found |= {id: told for id in left.inputs if id not in record.inputs}
    return found


def check_not_taken_back(release: str, found: TakenBack | None, *, named: bool, reason: str) -> None:
    """Raise WasTakenBack for a release that was rolled back, unless it was named and a reason is written down."""
    if found is None or (named and reason.strip()):
        return
    words = f"release {release} was {found.words}."
    raise WasTakenBack(
        words if named else f"the newest {words}",
        expected="It goes back into traffic only by its name, and with a reason.",
        state="Nothing was deployed.",
        next=f'Release another one, or run `seatrial deploy {found.deployment} --release {release} --reason "..."`.',
    )
