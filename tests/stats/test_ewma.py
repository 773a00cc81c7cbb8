from __future__ import annotations

import numpy as np
import pytest

from seatrial.stats.ewma import ewma, weight

NIST = "52.0 47.0 53.0 49.3 50.1 47.0 51.0 50.1 51.2 50.5 49.6 47.6 49.9 51.3 47.8 51.2 52.6 52.4 53.6 52.1"
AVERAGED = (
    "50.60 49.52 50.56 50.18 50.16 49.21 49.75 49.85 50.26 50.33 50.11 49.36 49.52 50.05 49.38 49.92 50.73 51.23 51.94 "
    "51.99"
)
"""NIST/SEMATECH e-Handbook of Statistical Methods, 6.3.2.4: "EWMA Control Charts", lambda 0.3, target 50."""


def test_the_example_of_the_nist_handbook_comes_out():
    found = ewma(np.array(NIST.split(), dtype=float)[:, None], np.array([50.0]), 0.3).ravel()
    assert found == pytest.approx([float(one) for one in AVERAGED.split()], abs=0.006)


def test_what_is_missing_leaves_the_average_where_it_was():
    found = ewma(np.array([[1.0], [np.nan], [1.0]]), np.zeros(1), 0.5)
    assert found.ravel().tolist() == [0.5, 0.5, 0.75]


def test_an_average_of_one_observation_is_that_observation():
    assert weight(1) == 1.0


def test_an_average_that_is_told_to_forget_begins_at_zero():
    values, forget = np.array([[4.0], [np.nan], [2.0]]), np.array([[False], [True], [False]])
    assert ewma(values, np.zeros(1), 0.5, forget=forget).ravel().tolist() == [2.0, 0.0, 1.0]
