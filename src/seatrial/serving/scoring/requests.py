"""A request's body: which rows does it hold, and if it is wrong, what is wrong with it?

    {"features": {...}, "request_id"?: "...", "at"?: "2013-04-01T05:00:00Z", "return_features"?: true}
    {"instances": [{...}, ...], ...}

A good body is read by one typed pass in C. A body that this pass refuses, or that might hold a key twice, is read
again slowly; that second reading alone words the answer. No message repeats any part of the input.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import UNSET, UnsetType

from seatrial.core.clock import parse_time, to_us
from seatrial.core.errors import SeatrialError, UsageError, did_you_mean, listed
from seatrial.core.types import EXACT_FLOAT32, EXACT_FLOAT64, Field

LONGEST_ID = 200
_STRINGS = ("string", "category", "timestamp")
_WORDS = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "string": "a string",
    "category": "a string",
    "timestamp": "a time with a zone, such as 2013-04-01T05:00:00Z",
}


class BadRequest(UsageError):
    """The body of a prediction request is wrong."""

    code = "request.bad"
    http_status: ClassVar[int] = 422


class NotJson(BadRequest):
    """The body is not JSON."""

    code = "request.not_json"
    http_status = 400


class BadShape(BadRequest):
    """The body is JSON, but not a prediction request."""

    code = "request.bad_shape"


class UnknownField(BadRequest):
    """A row holds a field that the model does not know."""

    code = "request.unknown_field"


class MissingField(BadRequest):
    """A row lacks a field that the model needs."""

    code = "request.missing_field"


class BadField(BadRequest):
    """A field's value has the wrong type, or null where the model takes none."""

    code = "request.bad_field"


class NumberOutOfRange(BadRequest):
    """A number is not finite, or is an integer that would be changed on its way into the model."""

    code = "request.number_out_of_range"


class DuplicateKey(BadRequest):
    """A JSON object holds one key twice."""

    code = "request.duplicate_key"


class TooManyRows(BadRequest):
    """A request holds more rows than this server takes at once."""

    code = "request.too_many_rows"


class AtNotAllowed(BadRequest):
    """A request carries `at`, and the server does not replay history."""

    code = "request.at_not_allowed"


@dataclass(frozen=True, slots=True)
class Request:
    """A sound request.

    rows: for each row its fields in the reader's order; None is null or absent, unless the reader tells these apart;
        timestamps are microseconds.
    at_us: None unless the server replays and the request says when it is made.
    many: it came as `instances` and is answered as `predictions`.
    bounded: every integer is within 2^53 (2^24 for those that go into a model as integers), and so is every float.
    """

    rows: list[tuple[Any, ...]]
    request_id: str | None
    at_us: int | None
    many: bool
    return_features: bool
    bounded: bool


class RequestReader:
    """Reads the bodies of one deployment's requests.

    fields: what a row holds. exact: fields that go into a model as integers, whose limit is 2^24 and not 2^53.
    replay: `at` is allowed. max_rows: the most rows of one request. tells_absent: what is absent is UNSET in a row, and
    not None. ignored: fields that are taken as well, checked like the others, and left out of the rows.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        *,
        exact: Iterable[str] = (),
        replay: bool = False,
        max_rows: int = 1000,
        tells_absent: bool = False,
        ignored: Sequence[Field] = (),
    ) -> None:
        self.fields = (*fields, *ignored)
        self.names = tuple(field.name for field in self.fields)
        self._kept = len(fields) if ignored else None
        self._exact = frozenset(exact)
        self._replay = replay
        self._max_rows = max_rows
        self._absent = UNSET if tells_absent else None
        row = msgspec.defstruct(
            "Row",
            [
                (f"f{position}", self._type(field), *([UNSET] if field.optional else []))
                for position, field in enumerate(self.fields)
            ],
            kw_only=True,
            forbid_unknown_fields=True,
            rename={f"f{position}": name for position, name in enumerate(self.names)},
        )
        body = msgspec.defstruct(
            "Body",
            [
                ("features", row | UnsetType, UNSET),
                ("instances", list[row] | UnsetType, UNSET),  # type: ignore[valid-type]
                ("request_id", Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_ID)] | UnsetType, UNSET),
                ("at", str | UnsetType, UNSET),
                ("return_features", bool | UnsetType, UNSET),
            ],
            kw_only=True,
            forbid_unknown_fields=True,
        )
        self._decode = msgspec.json.Decoder(body).decode
        self._astuple = msgspec.structs.astuple
        self._optional = [position for position, field in enumerate(self.fields) if field.optional]
        self._strings = [position for position, field in enumerate(self.fields) if field.dtype in _STRINGS]
        self._times = [position for position, field in enumerate(fields) if field.dtype == "timestamp"]
        self._row_quotes = 2 * len(self.fields)
        self._plain = not self._optional and not self._strings

    def goes_in_exactly(self, name: str) -> bool:
        """Does the field go into a model as an integer, which must then be within 2^24?"""
        return name in self._exact

    def read(self, body: bytes) -> Request:
        """The request in `body`. Raises a BadRequest."""
        try:
            found: Any = self._decode(body)
        except msgspec.ValidationError:
            return self._read_slowly(body)
        except RecursionError:
            raise _too_deep() from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _not_json(error) from None
        # A key that came twice was taken once. Each key brings two quotation marks, so a body without more marks
        # than its keys and strings account for holds no key twice; any other is looked at closely.
        quotes = 2
        rows = []
        many = found.features is UNSET
        if many:
            if found.instances is UNSET:
                return self._read_slowly(body)
            for row in found.instances:
                values = self._astuple(row)
                quotes += self._row_quotes if self._plain else self._quotes(values)
                rows.append(values)
        else:
            if found.instances is not UNSET:
                return self._read_slowly(body)
            values = self._astuple(found.features)
            quotes += self._row_quotes if self._plain else self._quotes(values)
            rows.append(values)
        request_id = at = None
        if found.request_id is not UNSET:
            request_id = found.request_id
            quotes += 4
        if found.at is not UNSET:
            at = found.at
            quotes += 4
        return_features = False
        if found.return_features is not UNSET:
            return_features = found.return_features
            quotes += 2
        if body.count(b'"') != quotes:
            return self._read_slowly(body)
        return self._finish(rows, request_id, at, many, return_features, bounded=True)

    def _finish(
        self,
        rows: list[tuple[Any, ...]],
        request_id: str | None,
        at: str | None,
        many: bool,
        return_features: bool,
        *,
        bounded: bool,
    ) -> Request:
        if many and not 0 < len(rows) <= self._max_rows:
            raise TooManyRows(
                f"the request holds {len(rows)} rows.",
                expected=f"From 1 to {self._max_rows} rows are taken at once.",
                state="Nothing was predicted.",
            )
        if self._kept is not None:
            rows = [row[: self._kept] for row in rows]
        if self._optional and self._absent is None:
            rows = [tuple(None if value is UNSET else value for value in row) for row in rows]
        if self._times:
            rows = [self._with_times(row, position if many else None) for position, row in enumerate(rows)]
        at_us = None
        if at is not None:
            if not self._replay:
                raise AtNotAllowed(
                    "the request carries 'at'.",
                    expected="Predictions are for the present; a server started with --replay takes 'at'.",
                    state="Nothing was predicted.",
                )
            at_us = _microseconds(at)
            if at_us is None:
                raise BadField(f"'at' is not {_WORDS['timestamp']}.", state="Nothing was predicted.", field="at")
        return Request(rows, request_id, at_us, many, return_features, bounded)

    def _with_times(self, row: tuple[Any, ...], number: int | None) -> tuple[Any, ...]:
        values = list(row)
        for position in self._times:
            if isinstance(values[position], str):
                values[position] = _microseconds(values[position])
                if values[position] is None:
                    raise bad_field(self.fields[position], number)
        return tuple(values)

    def _quotes(self, values: tuple[Any, ...]) -> int:
        quotes = self._row_quotes
        for position in self._optional:
            if values[position] is UNSET:
                quotes -= 2
        for position in self._strings:
            if type(values[position]) is str:
                quotes += 2
        return quotes

    def _type(self, field: Field) -> Any:
        kind: Any
        match field.dtype:
            case "float":
                # from 2^53 on the pass in C cannot tell a rounded integer from a number; the slow reading can
                kind = Annotated[float, msgspec.Meta(gt=-EXACT_FLOAT64, lt=EXACT_FLOAT64)]
            case "int":
                limit = self._limit(field)
                kind = Annotated[int, msgspec.Meta(ge=-limit, le=limit)]
            case "bool":
                kind = bool
            case _:
                kind = str
        if field.nullable:
            kind = kind | None
        return kind | UnsetType if field.optional else kind

    def _limit(self, field: Field) -> int:
        return EXACT_FLOAT32 if field.name in self._exact else EXACT_FLOAT64

    # -- the second, slow reading

    def _read_slowly(self, body: bytes) -> Request:
        try:
            found = json.loads(
                body.decode("utf-8"),
                object_pairs_hook=_Object,
                parse_constant=_refuse_constant,
                parse_int=_whole,
            )
        except RecursionError:
            raise _too_deep() from None
        except ValueError as error:
            raise _not_json(error) from None
        if not isinstance(found, _Object):
            raise BadShape("the body is not a JSON object.", expected=self._expected(), state="Nothing was predicted.")
        known = ("features", "instances", "request_id", "at", "return_features")
        _refuse_twice(found, known, "the request")
        unknown = [name for name in found.names if name not in known]
        if unknown:
            raise BadShape(
                f"the request holds {_count(len(unknown), 'unknown key')}.",
                expected=f"{self._expected()} {_unless_itself(unknown[0], known)}".strip(),
                state="Nothing was predicted.",
            )
        members = dict(found.pairs)
        many = "instances" in members
        if many == ("features" in members):
            raise BadShape(
                f"the request holds {'both' if many else 'neither'} 'features' {'and' if many else 'nor'} 'instances'.",
                expected=self._expected(),
                state="Nothing was predicted.",
            )
        request_id = members.get("request_id")
        if "request_id" in members and not (isinstance(request_id, str) and 0 < len(request_id) <= LONGEST_ID):
            raise BadField(
                f"'request_id' is not a string of 1 to {LONGEST_ID} characters.",
                state="Nothing was predicted.",
                field="request_id",
            )
        at = members.get("at")
        if "at" in members and not isinstance(at, str):
            raise BadField(f"'at' is not {_WORDS['timestamp']}.", state="Nothing was predicted.", field="at")
        return_features = members.get("return_features", False)
        if not isinstance(return_features, bool):
            raise BadField(
                "'return_features' is not true or false.", state="Nothing was predicted.", field="return_features"
            )
        if not many:
            rows = [self._row(members["features"], None)]
        else:
            instances = members["instances"]
            if not isinstance(instances, list):
                raise BadShape("'instances' is not a list.", expected=self._expected(), state="Nothing was predicted.")
            rows = [self._row(row, number) for number, row in enumerate(instances)]
        _refuse_surrogates([request_id, *(value for row in rows for value in row)])
        return self._finish(rows, request_id, at, many, return_features, bounded=False)

    def _row(self, row: Any, number: int | None) -> tuple[Any, ...]:
        where = "'features'" if number is None else f"row {number} of 'instances'"
        if not isinstance(row, _Object):
            raise BadShape(
                f"{where} is not an object.", expected=self._expected(), state="Nothing was predicted.", row=number
            )
        _refuse_twice(row, self.names, where)
        unknown = [name for name in row.names if name not in self.names]
        if unknown:
            raise UnknownField(
                f"{where} holds {_count(len(unknown), 'unknown field')}.",
                expected=f"Known are {listed(self.names, most=20)}. {_unless_itself(unknown[0], self.names)}".strip(),
                state="Nothing was predicted.",
                row=number,
            )
        members = dict(row.pairs)
        return tuple(self._value(field, members, where, number) for field in self.fields)

    def _value(self, field: Field, members: dict[str, Any], where: str, number: int | None) -> Any:
        if field.name not in members:
            if field.optional:
                return self._absent
            missing = [f"'{f.name}'" for f in self.fields if not f.optional and f.name not in members]
            raise MissingField(
                f"{where} lacks {listed(missing, most=20)}.",
                expected="Every field is needed"
                + (f" except {listed(f.name for f in self.fields if f.optional)}." if self._optional else ".")
                + (" A value that is not known is null." if field.nullable else ""),
                state="Nothing was predicted.",
                field=field.name,
                row=number,
            )
        value = members[field.name]
        if value is None:
            if field.nullable:
                return None
            raise bad_field(field, number)
        match field.dtype:
            case "bool":
                right = isinstance(value, bool)
            case "int":
                if isinstance(value, float) and value.is_integer():
                    value = int(value)  # to JSON 2.0 is a whole number, and some programs write it so
                right = isinstance(value, int) and not isinstance(value, bool)
            case "float":
                right = isinstance(value, int | float) and not isinstance(value, bool)
            case _:
                right = isinstance(value, str)
        if not right:
            raise bad_field(field, number)
        if isinstance(value, int) and not isinstance(value, bool):
            limit = self._limit(field) if field.dtype == "int" else EXACT_FLOAT64
            if abs(value) > limit:
                raise self._out_of_range(field, number, f"a whole number beyond 2^{limit.bit_length() - 1}")
            return value if field.dtype == "int" else float(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise self._out_of_range(field, number, "a number beyond what a float holds")
        return value

    def _out_of_range(self, field: Field, number: int | None, what: str) -> NumberOutOfRange:
        return NumberOutOfRange(
            f"field '{field.name}'{_in(number)} holds {what}.",
            expected="It would be changed on its way into the model.",
            state="Nothing was predicted.",
            field=field.name,
            row=number,
        )

    def _expected(self) -> str:
        return (
            'Expected is {"features": {...}} or {"instances": [{...}, ...]}, with "request_id"'
            + (', "at"' if self._replay else "")
            + ' and "return_features" if wanted; '
            + f"a row holds {listed(self.names, most=20)}."
        )


def bad_field(field: Field, number: int | None) -> BadField:
    """That a field of a row is of another type, or null where it may not be. number: of the row; None: the only one."""
    null = " or null" if field.nullable else "; null is not allowed"
    return BadField(
        f"field '{field.name}'{_in(number)} is not {_WORDS[field.dtype]}{null}.",
        state="Nothing was predicted.",
        field=field.name,
        row=number,
    )


class _Object:
    """A JSON object with its keys as they came."""

    __slots__ = ("names", "pairs")

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs
        self.names = [name for name, _ in pairs]


def _refuse_twice(found: _Object, known: Sequence[str], where: str) -> None:
    if len(set(found.names)) == len(found.names):
        return
    seen: set[str] = set()
    twice = next(name for name in found.names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    what = f"'{twice}'" if twice in known else "an unknown key"
    raise DuplicateKey(
        f"{where} holds {what} more than once.",
        expected="Which one is meant cannot be known.",
        state="Nothing was predicted.",
    )


def _refuse_constant(_name: str) -> float:
    raise ValueError("NaN and Infinity are not JSON")


def _whole(digits: str) -> int:
    # the value of a longer number does not matter, and reading it takes time that grows with the square of its length
    return int(digits) if len(digits) <= 40 else 10**40


def _refuse_surrogates(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise _not_json(error) from None


def _microseconds(text: str) -> int | None:
    try:
        return to_us(parse_time(text))
    except (SeatrialError, OverflowError, ValueError):
        return None


def _not_json(error: Exception) -> NotJson:
    where = ""
    if isinstance(error, msgspec.DecodeError) and str(error).endswith(")") and "(byte " in str(error):
        where = f" It goes wrong at byte {str(error).rpartition('(byte ')[2].rstrip(')')}."
    return NotJson(
        f"the body is not JSON.{where}",
        expected="JSON in UTF-8 is expected; NaN and Infinity are not JSON, a value that is not known is null.",
        state="Nothing was predicted.",
    )


def _too_deep() -> NotJson:
    return NotJson("the body is nested too deeply.", expected="A row is a flat object.", state="Nothing was predicted.")


def _unless_itself(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name[:100], known)


def _in(number: int | None) -> str:
    return "" if number is None else f" of row {number}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
