"""The interval of a share, against bounds that others published."""

from __future__ import annotations

import pytest

from seatrial.stats.share import share_interval


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_bounds_are_those_of_newcombe_1998_table_i_method_3(hits, rows, low, high):
    """Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17, 1998."""
    assert share_interval(hits, rows, alpha=0.05) == pytest.approx((low, high), abs=5e-5)


def test_all_of_them_is_the_mirror_of_none():
    low, high = share_interval(0, 40, alpha=0.002)
    assert share_interval(40, 40, alpha=0.002) == pytest.approx((1 - high, 1 - low))
