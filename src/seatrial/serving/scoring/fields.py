"""Fields: what may a request to a deployment hold, and what of it does the release that answers need?

A caller cannot know which release will answer. So a request may hold the fields of every release of the deployment, and
is read as what any of them takes; the one that answers then says whether what it got is enough for it. While a release
that wants a new field gets its first share of the traffic, callers who do not send it are answered by the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET

from seatrial.core.errors import UsageError, listed
from seatrial.core.signature import Signature
from seatrial.core.types import Dtype, Field
from seatrial.serving.scoring.requests import MissingField, bad_field

IGNORED = "Taken and ignored: another release of this deployment wants it."


class ArmsDiffer(UsageError):
    """Two arms of a deployment want one request field with two types, or split by a field that is not there."""

    code = "serving.arms_differ"


def accepted(deployment: str, answering: Sequence[Signature], hidden: Sequence[Signature] = ()) -> list[Field]:
    """What a request to the deployment may hold: the fields of every arm.

    answering, hidden: the signatures of the arms that answer, and of those in the shadow. A field is needed only when
    every answering arm needs it, and may be null unless every one of them refuses that; `Suited` looks at the rest.
    Those of the first arm come first, its inputs in their order: then a row is often its input as it stands.
    Raises ArmsDiffer when two arms want one field with two types.
    """
    every = [*answering, *hidden]
    found: dict[str, Field] = {}
    for signature in every:
        for field in signature.request:
            other = found.setdefault(field.name, field)
            if other.dtype != field.dtype:
                raise ArmsDiffer(
                    f"the arms of deployment '{deployment}' want field '{field.name}' "
                    f"as {other.dtype} and as {field.dtype}.",
                    expected="One request must suit every arm.",
                    state="Nothing was changed.",
                )
    own = [{field.name: field for field in signature.request} for signature in answering]
    fields = {
        name: Field(
            name,
            field.dtype,
            nullable=any(name not in one or one[name].nullable for one in own),
            optional=any(name not in one or one[name].optional for one in own),
            description=next((one[name].description for one in own if name in one), field.description),
        )
        for name, field in found.items()
    }
    first = [name for name in every[0].inputs if name in every[0].request_names]
    return [fields[name] for name in dict.fromkeys([*first, *fields])]


def ignored_fields(fields: Sequence[Field], sent: Mapping[str, Dtype]) -> list[Field]:
    """What a request may hold beside `fields`, of which nothing is made. sent: see `stores.routes.RouteFile`."""
    known = {field.name for field in fields}
    return [Field(name, dtype, optional=True, description=IGNORED) for name, dtype in sent.items() if name not in known]


def exact_fields(answering: Sequence[Signature]) -> set[str]:
    """The fields that go into every arm that answers as integers, so that a request can be refused whoever answers."""
    return set.intersection(*(set(signature.integers) for signature in answering))


class _Need(NamedTuple):
    position: int
    field: Field
    present: bool
    value: bool


class Suited:
    """Does a row that was read for several releases suit one of them?

    fields: those that rows were read by. Where they ask for less than the release needs, `take` asks for it.
    """

    def __init__(self, fields: Sequence[Field], signature: Signature) -> None:
        own = {field.name: field for field in signature.request}
        self._names = tuple(own)
        self._needs = [
            _Need(position, one, field.optional and not one.optional, field.nullable and not one.nullable)
            for position, field in enumerate(fields)
            if (one := own.get(field.name)) is not None
        ]

    @property
    def asks(self) -> bool:
        """Whether the release needs anything that was not asked for when rows were read."""
        return any(need.present or need.value for need in self._needs)

    def take(self, rows: Sequence[tuple[Any, ...]], numbers: Sequence[int | None]) -> list[tuple[Any, ...]]:
        """The rows, None for what is absent. numbers: of each row in its request; None: it is the only one.

        Raises MissingField or BadField.
        """
        for row, number in zip(rows, numbers, strict=True):
            for position, field, present, value in self._needs:
                found = row[position]
                if found is UNSET and present:
                    raise self._missing(row, number)
                if found is None and value:
                    raise bad_field(field, number)
        return plain(rows)

    def _missing(self, row: tuple[Any, ...], number: int | None) -> MissingField:
        lacks = [need.field for need in self._needs if need.present and row[need.position] is UNSET]
        where = "'features'" if number is None else f"row {number} of 'instances'"
        return MissingField(
            f"{where} lacks {listed([repr(field.name) for field in lacks], most=20)}.",
            expected="The release that is to answer needs every field of "
            f"{listed(self._names, most=20)}; another release of this deployment does not.",
            state="Nothing was predicted.",
            field=lacks[0].name,
            row=number,
        )


def plain(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows in which what is absent is None."""
    return [tuple([None if value is UNSET else value for value in row]) if UNSET in row else row for row in rows]
