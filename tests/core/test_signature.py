"""The model's input: the same tensor in training, packing and serving, and nothing changed silently."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.core.signature import (
    InputNotExact,
    NamedRows,
    Signature,
    aligned,
    as_floats,
    columns_of,
    encode,
    joined,
    missing_in,
    places,
    rows_of,
)
from seatrial.core.types import Field

SIGNATURE = Signature(
    "binary",
    (Field("carrier", "category"), Field("distance", "float"), Field("seats", "int")),
    ("seats", "carrier", "distance"),
    categories={"carrier": ("AA", "UA")},
    integers=("seats",),
)


def columns(**values):
    return {"seats": [1], "carrier": ["AA"], "distance": [0.5]} | values


def test_inputs_stand_in_the_order_of_the_signature_as_float32():
    tensor, unseen = encode(SIGNATURE, {"distance": [0.1, None], "seats": [180, None], "carrier": ["UA", "AA"]})
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(tensor, np.array([[180, 1, 0.1], [np.nan, 0, np.nan]], dtype=np.float32))
    assert unseen == {"carrier": 0}


def test_unseen_categories_are_nan_and_counted_and_null_ones_are_nan():
    tensor, unseen = encode(SIGNATURE, {"seats": [1] * 4, "distance": [1.0] * 4, "carrier": ["AA", "ZZ", None, "aa"]})
    np.testing.assert_array_equal(tensor[:, 1], np.array([0, np.nan, np.nan, np.nan], dtype=np.float32))
    assert unseen == {"carrier": 2}


@given(st.lists(st.none() | st.floats(-1e38, 1e38, width=64), min_size=1, max_size=20))
def test_a_batch_is_its_rows_one_by_one(values):
    whole, _ = encode(SIGNATURE, columns(seats=[1] * len(values), carrier=["UA"] * len(values), distance=values))
    rows = [encode(SIGNATURE, columns(carrier=["UA"], distance=[value]))[0] for value in values]
    np.testing.assert_array_equal(whole, np.concatenate(rows))


@pytest.mark.parametrize("value", [2**24 + 1, -(2**24) - 1, float("inf")])
def test_an_integer_that_float32_would_change_is_refused(value):
    with pytest.raises(InputNotExact, match="seats"):
        encode(SIGNATURE, columns(seats=[value]))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 1e39, -1e300])
def test_a_number_beyond_float32_is_refused(value):
    with pytest.raises(InputNotExact, match="distance"):
        encode(SIGNATURE, columns(distance=[value]))


def test_the_largest_exact_integer_is_taken():
    assert encode(SIGNATURE, columns(seats=[2**24]))[0][0, 0] == 2**24


def test_null_is_nan_and_never_zero():
    floats = as_floats([None, 0, True, 0.5])
    np.testing.assert_array_equal(floats, [np.nan, 0, 1, 0.5])
    assert floats.dtype == np.float64


def test_no_rows_give_an_empty_tensor():
    assert encode(SIGNATURE, {"seats": [], "carrier": [], "distance": []})[0].shape == (0, 3)


NAMED = msgspec.structs.replace(SIGNATURE, layout="named")
GIVEN = {"seats": [180, None], "carrier": ["ZZ", None], "distance": [0.1, 2.0]}


def test_named_inputs_are_columns_with_strings_as_they_came():
    rows, unseen = encode(NAMED, GIVEN)
    assert list(rows.columns) == ["seats", "carrier", "distance"]
    assert rows.columns["carrier"].tolist() == ["ZZ", None]
    assert rows.columns["distance"].dtype == np.float32
    np.testing.assert_array_equal(rows.columns["seats"], np.array([180, np.nan], dtype=np.float32))
    assert unseen == {"carrier": 1}


def test_named_numbers_are_refused_as_packed_ones_are():
    with pytest.raises(InputNotExact, match="seats"):
        encode(NAMED, columns(seats=[2**24 + 1]))


def test_named_rows_are_cut_and_joined_as_packed_ones_are():
    packed, named = encode(SIGNATURE, GIVEN | {"carrier": ["AA", None]})[0], encode(NAMED, GIVEN)[0]
    assert (len(named), len(named[:1]), len(named[np.array([1, 0, 1])])) == (2, 1, 3)
    np.testing.assert_array_equal(missing_in(named), missing_in(packed))
    twice = joined([named, named[1:]])
    assert twice.columns["carrier"].tolist() == ["ZZ", None, None]
    np.testing.assert_array_equal(joined([packed, packed]), np.concatenate([packed, packed]))


@pytest.mark.parametrize("signature", [SIGNATURE, NAMED])
def test_rows_that_are_kept_by_input_come_back_as_they_were(signature):
    rows, _ = encode(signature, GIVEN)
    again = rows_of(signature, columns_of(signature, rows))
    if isinstance(rows, NamedRows):
        assert again.columns["carrier"].tolist() == rows.columns["carrier"].tolist()
        np.testing.assert_array_equal(again.columns["seats"], rows.columns["seats"])
    else:
        np.testing.assert_array_equal(again, rows)


def test_places_of_classes_tell_the_unknown_from_the_missing():
    np.testing.assert_array_equal(places(["b", None, "x", "a"], ("a", "b")), [1, np.nan, 2, 0])


def test_scores_are_aligned_by_class_and_not_by_place():
    scores = np.array([[0.2, 0.3, 0.5]])
    np.testing.assert_array_equal(aligned(scores, ("a", "b", "c"), ("c", "new", "a")), [[0.5, 0, 0.2]])
