"""A sample: so many rows, in their order, the same every time."""

import pyarrow as pa
import pytest

from seatrial.training.sample import BadSample, Sample

ROWS = pa.table({"x": range(100)})


@pytest.mark.parametrize(
    ("text", "size", "rows"), [("7", 7, 7), ("10%", 0.1, 10), ("0.25", 0.25, 25), ("500", 500, 100)]
)
def test_a_number_or_a_share_of_the_rows_is_taken_in_order(text, size, rows):
    sample = Sample.parse(text)
    assert sample.size == size
    taken = sample.of(ROWS)["x"].to_pylist()
    assert len(set(taken)) == len(taken) == rows
    assert taken == sorted(taken)


def test_the_seed_says_which():
    assert Sample(10, 1).of(ROWS).equals(Sample(10, 1).of(ROWS))
    assert not Sample(10, 1).of(ROWS).equals(Sample(10, 2).of(ROWS))


@pytest.mark.parametrize("text", ["0", "-3", "1.5", "100%", "many", ""])
def test_what_is_no_sample_is_refused(text):
    with pytest.raises(BadSample):
        Sample.parse(text)
