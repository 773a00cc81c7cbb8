"""Narrowed: does it matter to callers that a challenger takes no null where the champion did?

Whether a request field may be null is learned: it may when a training row was. So a challenger whose rows happen to
hold no null asks for more than the champion, though nothing but data changed. That matters when somebody sends nulls;
the requests that were answered lately tell.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from seatrial.core.errors import listed
from seatrial.releases.manifest import Manifest

LATELY_US = 30 * 86_400_000_000
FEWEST = 1000
"""Requests without which it is not known what callers send; of so many at most 0.3 % send what none of them did (95 %,
the rule of three)."""


class Asked(msgspec.Struct, frozen=True):
    """What requests held lately. null: how many were null, by field, of those asked about. since: the first one's
    instant; empty without any."""

    requests: int
    since: str
    null: dict[str, int]

    def against(self, fields: Sequence[str]) -> list[str]:
        """Why callers may be refused when these fields may be null no more, a sentence each; nothing when not."""
        if not fields:
            return []
        if self.requests < FEWEST:
            return [
                f"{listed(fields)} may be null no more, and {self.requests:,} requests of the last 30 days are too few "
                f"to tell whether callers send nulls ({FEWEST:,} are needed)"
            ]
        return [
            f"{name} may be null no more, and it was in {self.null[name]:,} of {self.requests:,} requests since "
            f"{self.since[:10]}"
            for name in fields
            if self.null.get(name)
        ]

    def words(self, fields: Sequence[str]) -> str:
        """That callers are not refused."""
        since = self.since[:10]
        return f"{listed(fields)} may be null no more, and was in none of {self.requests:,} requests since {since}."


def narrowed(champion: Manifest, challenger: Manifest) -> list[str]:
    """The request fields that may be null no more."""
    before = {field.name: field for field in champion.signature.request}
    return [
        field.name
        for field in challenger.signature.request
        if field.name in before and before[field.name].nullable and not field.nullable
    ]


def with_nulls_of(champion: Manifest, challenger: Manifest) -> Manifest:
    """The challenger's manifest, as if its fields could be null where the champion's can."""
    before = {field.name: field.nullable for field in champion.signature.request}
    request = tuple(
        msgspec.structs.replace(field, nullable=before.get(field.name, field.nullable))
        for field in challenger.signature.request
    )
    signature = msgspec.structs.replace(challenger.signature, request=request)
    return msgspec.structs.replace(challenger, signature=signature)
