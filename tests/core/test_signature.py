"""The model's input: the same tensor in training, packing and serving, and nothing changed silently."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.core.signature import InputNotExact, Signature, as_floats, encode
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
