from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from seatrial.stats.student import incomplete_beta, t_p_value, t_quantile


@given(st.floats(-60, 60), st.floats(0.5, 5000))
def test_the_p_value_is_scipys(t, degrees):
    assert t_p_value(t, degrees) == pytest.approx(2 * stats.t.sf(abs(t), degrees), rel=1e-9, abs=1e-14)


@given(st.floats(0.05, 0.9999), st.floats(1, 5000))
def test_the_quantile_is_scipys(level, degrees):
    assert t_quantile(level, degrees) == pytest.approx(stats.t.ppf((1 + level) / 2, degrees), rel=1e-8)


@given(st.floats(0.2, 400), st.floats(0.2, 400), st.floats(0, 1))
def test_the_incomplete_beta_function_is_scipys(a, b, x):
    assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-9, abs=1e-13)


def test_what_is_no_number_stays_none_and_no_spread_is_sure():
    assert math.isnan(t_p_value(math.nan, 3))
    assert t_p_value(math.inf, 3) == 0
    assert t_p_value(1.96, math.inf) == pytest.approx(0.05, abs=1e-3)
