"""One row as the model's input: the same bytes, and the same refusals, as the function that training uses."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.core.signature import InputNotExact, Signature, encode
from seatrial.serving.scoring.row import NamedRowEncoder, RowEncoder, row_encoder

SIGNATURE = Signature(
    "binary", (), ("a", "kind", "b", "whole", "flag"), {"kind": ("", "x", "ü", "zz")}, integers=("whole",)
)
numbers = st.none() | st.floats(width=64) | st.integers(-(2**53), 2**53)
wholes = st.none() | st.integers(-(2**24) - 2, 2**24 + 2)
kinds = st.none() | st.sampled_from(["", "x", "ü", "zz", "unseen", "X"])
rows = st.lists(st.tuples(numbers, kinds, numbers, wholes, st.booleans()), min_size=1, max_size=4)


@given(rows)
@settings(deadline=None, max_examples=400)
def test_rows_are_encoded_as_training_encodes_them(rows):
    columns = {name: [row[position] for row in rows] for position, name in enumerate(SIGNATURE.inputs)}
    encoder = RowEncoder(SIGNATURE)
    try:
        expected, unseen = encode(SIGNATURE, columns)
    except InputNotExact:
        with pytest.raises(InputNotExact):
            [encoder.pack(row) for row in rows]
        return
    tensor = encoder.tensor([encoder.pack(row) for row in rows])
    assert tensor.dtype == np.float32
    assert tensor.shape == expected.shape
    assert tensor.tobytes() == expected.tobytes()
    assert encoder.unseen == unseen


@given(rows)
@settings(deadline=None, max_examples=200)
def test_named_rows_are_encoded_as_training_encodes_them(rows):
    signature = msgspec.structs.replace(SIGNATURE, layout="named")
    columns = {name: [row[position] for row in rows] for position, name in enumerate(SIGNATURE.inputs)}
    encoder = row_encoder(signature)
    assert isinstance(encoder, NamedRowEncoder)
    try:
        expected, unseen = encode(signature, columns)
    except InputNotExact:
        with pytest.raises(InputNotExact):
            [encoder.pack(row) for row in rows]
        return
    found = encoder.tensor([encoder.pack(row) for row in rows])
    assert list(found.columns) == list(expected.columns)
    for name, values in found.columns.items():
        assert values.dtype == expected.columns[name].dtype
        assert (
            values.tolist() == expected.columns[name].tolist() or values.tobytes() == expected.columns[name].tobytes()
        )
    assert encoder.unseen == unseen


def test_a_row_that_is_known_to_be_within_bounds_is_encoded_the_same():
    encoder = RowEncoder(SIGNATURE)
    row = (1.5, "x", None, 7, True)
    assert encoder.pack(row, bounded=True) == encoder.pack(row)


def test_what_cannot_be_given_to_the_model_is_named_and_not_repeated():
    with pytest.raises(InputNotExact, match="input 'whole'") as error:
        RowEncoder(SIGNATURE).pack((1.0, "x", 2.0, 2**24 + 1, True))
    assert str(2**24 + 1) not in str(error.value)
