"""Requests: what do callers of a deployment have to send, and what changes for them with another release?

Callers and releases never change at one instant. So a route names the fields of the deployment's other recent releases
beside those of its own: a caller may send them before the release that wants them answers, and may go on sending them
when it was rolled back. They are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from seatrial.core.errors import NotAllowed, listed
from seatrial.core.records import Record
from seatrial.core.types import Dtype, Field

RECENT = 3
"""How many other releases of a deployment have their fields accepted."""


class RefusesCallers(NotAllowed):
    """A release would refuse requests that the live one answers, and no reason is written down for it."""

    code = "deploy.refuses_callers"


class RequestChange(msgspec.Struct, frozen=True):
    """What is different for callers.

    needed: fields that they must send from now on. optional: that they may send. removed: that nothing uses any more,
    and that are accepted and ignored. not_null: that may not be null any more. retyped: of another type.
    """

    needed: list[str] = []
    optional: list[str] = []
    removed: list[str] = []
    not_null: list[str] = []
    retyped: list[str] = []

    @property
    def refuses(self) -> list[str]:
        """The fields for which requests are refused that were answered before."""
        return [*self.needed, *self.not_null, *self.retyped]

    @property
    def words(self) -> list[str]:
        """One sentence for each kind of change."""
        found = {
            "callers must send {}": self.needed,
            "callers may send {}": self.optional,
            "{} may be null no more": self.not_null,
            "{} is of another type": self.retyped,
            "{} is not used any more, and ignored": self.removed,
        }
        return [text.format(listed(names, most=12)) for text, names in found.items() if names]


def fields_of(release: Record) -> dict[str, Field]:
    """The fields of a release's requests by name."""
    signature = release.body.get("manifest", {}).get("signature", {})
    return {one["name"]: msgspec.convert(one, Field) for one in signature.get("request", ())}


def change(old: Record, new: Record) -> RequestChange:
    """What is different for callers of `old` when `new` answers. An integer is taken for a float."""
    before, after = fields_of(old), fields_of(new)
    added = [field for name, field in after.items() if name not in before]
    both = [(before[name], field) for name, field in after.items() if name in before]
    return RequestChange(
        needed=[
            *(field.name for field in added if not field.optional),
            *(now.name for was, now in both if was.optional and not now.optional),
        ],
        optional=[field.name for field in added if field.optional],
        removed=[name for name in before if name not in after],
        not_null=[now.name for was, now in both if was.nullable and not now.nullable],
        retyped=[now.name for was, now in both if (was.dtype, now.dtype) not in _SUITS and was.dtype != now.dtype],
    )


_SUITS = {("int", "float"), ("string", "category"), ("category", "string")}


def check_callers(name: str, new: Record, changed: RequestChange, *, reason: str) -> None:
    """Raise RefusesCallers when the release refuses what today's callers send, and nobody wrote down why."""
    if not changed.refuses or reason.strip():
        return
    told = "; ".join(RequestChange(needed=changed.needed, not_null=changed.not_null, retyped=changed.retyped).words)
    raise RefusesCallers(
        f"release {new.id} refuses requests that '{name}' answers today: {told}.",
        expected="Every request that the release is to answer would get a 422 until its caller sends that.",
        state="Nothing was deployed.",
        next="Declare strategy=Shadow() and deploy it first: callers can send the new fields then, and nobody is "
        'refused. When they all do, declare Canary() again and write that down: --reason "...".',
    )


def recent(old: Record | None, own: Collection[str]) -> list[str]:
    """The ids of the other releases that callers may send fields for: those of the decision before, and its own."""
    if old is None:
        return []
    every = [*reversed([arm["release"] for arm in old.body["arms"]]), *old.body.get("recent", ())]
    return [id for id in dict.fromkeys(every) if id not in own][:RECENT]


def sent(own: Sequence[Record], others: Sequence[Record]) -> dict[str, Dtype]:
    """Every field that callers may send and its type; empty where all of the releases want the same.

    Of two types of one field that of the release that answers counts, or of the most recent one.
    """
    wanted = [fields_of(one) for one in (*own, *others)]
    if not wanted or all(one.keys() == wanted[0].keys() for one in wanted):
        return {}
    found: dict[str, Dtype] = {}
    for fields in wanted:
        for name, field in fields.items():
            found.setdefault(name, field.dtype)
    return found


def beside(record: Callable[[str], Record | None], old: Record | None, own: Sequence[str]) -> dict[str, Any]:
    """What a decision keeps of the deployment's other releases. own: the ids of its own; record: finds a release."""
    others = recent(old, own)
    known = [[one for id in ids if (one := record(id)) is not None] for ids in (own, others)]
    kept: dict[str, Any] = {"recent": others} if others else {}
    fields = sent(*known)
    return kept | ({"sent": fields} if fields else {})
