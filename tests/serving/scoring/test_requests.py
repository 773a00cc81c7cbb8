"""A request's body: what is read from a good one, and what is said about a bad one."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.core.types import Field
from seatrial.serving.scoring.requests import (
    AtNotAllowed,
    BadField,
    BadRequest,
    BadShape,
    DuplicateKey,
    MissingField,
    NotJson,
    NumberOutOfRange,
    RequestReader,
    TooManyRows,
    UnknownField,
)

FIELDS = (
    Field("distance", "float"),
    Field("seats", "int", nullable=False),
    Field("flight", "int", nullable=False),
    Field("night", "bool", nullable=False),
    Field("carrier", "category"),
    Field("tail", "string", optional=True),
    Field("leaves", "timestamp", optional=True),
)
READER = RequestReader(FIELDS, exact=["seats"], max_rows=5)
REPLAYING = RequestReader(FIELDS, exact=["seats"], replay=True)
GOOD = {"distance": 544.5, "seats": 150, "flight": 1545, "night": False, "carrier": "DL"}


def body(row=GOOD, **more) -> bytes:
    return json.dumps({"features": row, **more}).encode()


def with_value(field: str, text: str) -> bytes:
    """A good body with the JSON `text` as the value of `field`."""
    return body(GOOD | {field: "@"}).replace(b'"@"', text.encode())


class TestGoodBodies:
    def test_a_row_is_read_in_the_order_of_the_fields(self):
        assert READER.read(body()).rows == [(544.5, 150, 1545, False, "DL", None, None)]

    def test_an_integer_is_taken_for_a_float_and_null_for_a_nullable_field(self):
        (row,) = READER.read(body(GOOD | {"distance": 544, "carrier": None})).rows
        assert row[0] == 544.0
        assert type(row[0]) is float
        assert row[4] is None

    def test_a_float_that_is_whole_is_taken_for_an_integer(self):
        for text in ("150.0", "1.5e2"):
            (row,) = READER.read(with_value("seats", text)).rows
            assert (row[1], type(row[1])) == (150, int)

    def test_an_optional_field_may_be_absent_null_or_given(self):
        for given_, wanted in (({}, None), ({"tail": None}, None), ({"tail": "N1"}, "N1")):
            assert READER.read(body(GOOD | given_)).rows[0][5] == wanted

    def test_a_time_becomes_microseconds_whatever_its_zone(self):
        for text in ("2013-04-01T05:00:00Z", "2013-04-01T01:00:00-04:00"):
            (row,) = READER.read(body(GOOD | {"leaves": text})).rows
            assert row[6] == 1_364_792_400_000_000

    def test_many_rows_keep_their_order(self):
        found = READER.read(json.dumps({"instances": [GOOD | {"flight": n} for n in range(5)]}).encode())
        assert found.many
        assert [row[2] for row in found.rows] == list(range(5))

    def test_a_request_id_and_a_wish_for_features_are_passed_on(self):
        found = READER.read(body(request_id="r-1", return_features=True))
        assert (found.request_id, found.return_features) == ("r-1", True)

    def test_at_is_read_when_history_is_replayed(self):
        found = REPLAYING.read(body(at="2013-04-01T05:00:00+02:00"))
        assert found.at_us == 1_364_785_200_000_000

    @pytest.mark.parametrize("text", ['"a\\"b"', '"\\u0041"', '"{\\"seats\\": 1}"', '"ü"', '"\\u0000"'])
    def test_quotation_marks_inside_of_strings_are_no_keys(self, text):
        assert READER.read(with_value("carrier", text)).rows[0][4] == json.loads(text)

    def test_a_large_number_that_is_no_integer_is_taken_and_marked_as_unbounded(self):
        found = READER.read(with_value("distance", "1e300"))
        assert found.rows[0][0] == 1e300
        assert not found.bounded

    def test_white_space_and_order_do_not_matter(self):
        text = json.dumps({"features": dict(reversed(GOOD.items()))}, indent=3)
        assert READER.read(text.encode()).rows == READER.read(body()).rows


BAD = {
    "empty": (b"", NotJson),
    "no json": (b"features", NotJson),
    "cut off": (body()[:-5], NotJson),
    "trailing": (body() + b" x", NotJson),
    "byte order mark": (b"\xef\xbb\xbf" + body(), NotJson),
    "utf-16": (body().decode().encode("utf-16"), NotJson),
    "broken utf-8": (with_value("carrier", '"@"').replace(b"@", b"\xff\xfe"), NotJson),
    "lone surrogate": (with_value("carrier", '"\\ud800"'), NotJson),
    "control character": (with_value("carrier", '"a\x00b"'), NotJson),
    "nan": (with_value("distance", "NaN"), NotJson),
    "infinity": (with_value("distance", "-Infinity"), NotJson),
    "leading zero": (with_value("distance", "01"), NotJson),
    "deep list": (b"[" * 100_000, (NotJson, BadShape)),
    "deep object": (b'{"features":' * 50_000, (NotJson, BadShape)),
    "deep value": (with_value("carrier", "[" * 200_000 + "]" * 200_000), (NotJson, BadField)),
    "null": (b"null", BadShape),
    "list": (b"[]", BadShape),
    "string": (b'"features"', BadShape),
    "nothing": (b"{}", BadShape),
    "both": (json.dumps({"features": GOOD, "instances": [GOOD]}).encode(), BadShape),
    "unknown member": (body(extra=1), BadShape),
    "row is a list": (b'{"features": [1, 2]}', BadShape),
    "row is null": (b'{"features": null}', BadShape),
    "instances is an object": (b'{"instances": {}}', BadShape),
    "an instance is a number": (b'{"instances": [1]}', BadShape),
    "no rows": (b'{"instances": []}', TooManyRows),
    "too many rows": (json.dumps({"instances": [GOOD] * 6}).encode(), TooManyRows),
    "empty row": (b'{"features": {}}', MissingField),
    "missing": (body({k: v for k, v in GOOD.items() if k != "seats"}), MissingField),
    "unknown field": (body(GOOD | {"secret-4711": 1}), UnknownField),
    "field twice": (body().replace(b'"seats": 150', b'"seats": 150, "seats": 151'), DuplicateKey),
    "field twice, escaped": (body().replace(b'"seats": 150', b'"seats": 150, "s\\u0065ats": 151'), DuplicateKey),
    "member twice": (b'{"request_id": "a", "request_id": "b", ' + body()[1:], DuplicateKey),
    "features twice": (b'{"features": {}, ' + body()[1:], (DuplicateKey, MissingField)),
    "string for float": (with_value("distance", '"544.5"'), BadField),
    "bool for float": (with_value("distance", "true"), BadField),
    "list for float": (with_value("distance", "[1.0]"), BadField),
    "object for float": (with_value("distance", '{"a": 1}'), BadField),
    "float for int": (with_value("seats", "150.5"), BadField),
    "bool for int": (with_value("seats", "true"), BadField),
    "null for int": (with_value("seats", "null"), BadField),
    "int for bool": (with_value("night", "0"), BadField),
    "int for category": (with_value("carrier", "7"), BadField),
    "no time": (body(GOOD | {"leaves": "yesterday secret-4711"}), BadField),
    "naive time": (body(GOOD | {"leaves": "2013-04-01T05:00:00"}), BadField),
    "time before time": (body(GOOD | {"leaves": "0001-01-01T00:00:00+14:00"}), BadField),
    "huge": (with_value("distance", "1e400"), NumberOutOfRange),
    "a million digits": (with_value("distance", "9" * 1_000_000), NumberOutOfRange),
    "a million digits for int": (with_value("seats", "9" * 1_000_000), NumberOutOfRange),
    "integer beyond 2^53": (with_value("flight", str(2**53 + 1)), NumberOutOfRange),
    "integer beyond 2^53 for float": (with_value("distance", str(2**53 + 1)), NumberOutOfRange),
    "integer input beyond 2^24": (with_value("seats", str(2**24 + 1)), NumberOutOfRange),
    "empty id": (body(request_id=""), BadField),
    "long id": (body(request_id="x" * 201), BadField),
    "null id": (body(request_id=None), BadField),
    "number as id": (body(request_id=7), BadField),
    "at without replay": (body(at="2013-04-01T05:00:00Z"), AtNotAllowed),
    "at as number": (body(at=1364792400), BadField),
    "features wish": (body(return_features="yes"), BadField),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_body_is_refused_for_what_is_wrong_with_it(name):
    data, kind = BAD[name]
    with pytest.raises(kind) as error:
        READER.read(data)
    assert isinstance(error.value, BadRequest)
    assert 400 <= error.value.http_status < 500
    text = str(error.value)
    assert "4711" not in text
    assert "151" not in text
    assert len(text) < 1000


def test_an_unknown_field_is_not_repeated_but_the_field_that_was_meant_is_named():
    with pytest.raises(UnknownField) as error:
        READER.read(body(GOOD | {"distanse": 1}))
    assert "Did you mean 'distance'?" in str(error.value)
    assert "distanse" not in str(error.value)


def test_the_row_at_fault_is_named():
    with pytest.raises(BadField) as error:
        READER.read(json.dumps({"instances": [GOOD, GOOD | {"seats": "x"}]}).encode())
    assert (error.value.facts["field"], error.value.facts["row"]) == ("seats", 1)


def test_a_naive_at_is_refused_when_history_is_replayed():
    with pytest.raises(BadField):
        REPLAYING.read(body(at="2013-04-01T05:00:00"))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
rows = st.fixed_dictionaries({}, optional={field.name: values for field in FIELDS} | {"other": values})
bodies = st.fixed_dictionaries(
    {},
    optional={"features": rows | values, "instances": st.lists(rows, max_size=3), "request_id": values, "at": values},
)


@given(bodies.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200))
@settings(deadline=None, max_examples=250)
def test_any_body_is_either_read_or_refused(data):
    with contextlib.suppress(BadRequest):  # anything else that is raised fails the test
        found = READER.read(data)
        assert all(len(row) == len(FIELDS) for row in found.rows)


sound = st.fixed_dictionaries(
    {
        "distance": st.none() | st.floats(-1e15, 1e15) | st.integers(-(2**53), 2**53),
        "seats": st.integers(-(2**24), 2**24),
        "flight": st.integers(-(2**53), 2**53),
        "night": st.booleans(),
        "carrier": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    },
    optional={"tail": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)},
)


@given(st.lists(sound, min_size=1, max_size=4), st.booleans())
@settings(deadline=None, max_examples=200)
def test_the_fast_and_the_slow_reading_agree(rows, ascii_only):
    data = json.dumps({"instances": rows, "request_id": "r"}, ensure_ascii=ascii_only).encode()
    fast, slow = READER.read(data), READER._read_slowly(data)
    assert repr(fast.rows) == repr(slow.rows)
    assert fast.request_id == slow.request_id
    assert fast.rows == [tuple(row.get(field.name) for field in FIELDS) for row in rows]
