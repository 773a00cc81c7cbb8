"""Paired: rows of a live release and of its shadow belong together by their request, whatever their order."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from seatrial.retraining.paired import paired

requests = st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=12)


def table(names, order, prefix):
    ids = [f"{prefix}{place:03d}" for place in order]
    return pa.table({"request_id": pa.array(names, pa.string()), "prediction_id": pa.array(ids, pa.string())})


def by_hand(live, shadow):
    """Every request's rows of either side by prediction id; pairs of those that both have as often."""
    found = []
    for name in {*live["request_id"].to_pylist()} - {None}:
        rows = [
            sorted((one["prediction_id"], at) for at, one in enumerate(side.to_pylist()) if one["request_id"] == name)
            for side in (live, shadow)
        ]
        if len(rows[0]) == len(rows[1]):
            found += [(mine, other) for (_, mine), (_, other) in zip(*rows, strict=True)]
    return sorted(found)


@given(requests, requests, st.randoms())
def test_pairs_are_those_that_a_look_at_every_request_finds(live, shadow, random):
    sides = []
    for names, prefix in ((live, "l"), (shadow, "s")):
        order = list(range(len(names)))
        random.shuffle(order)
        sides.append(table(names, order, prefix))
    mine, other = paired(*sides)
    assert list(zip(mine.tolist(), other.tolist(), strict=True)) == by_hand(*sides)


def test_no_rows_are_no_pairs():
    mine, other = paired(table([], [], "l"), table([], [], "s"))
    assert (mine.size, other.size) == (0, 0)
