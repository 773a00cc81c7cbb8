"""Request-time functions: the closed subset, and the same value for one row as for many."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.features import request_time
from seatrial.features.request_time import BadRequestFunction, NotRowWise, load, on_request

numbers = st.floats(allow_nan=True, allow_infinity=True)


@on_request
def share(delay: float, block: float) -> float:
    """Delay as a share of the scheduled block."""
    ratio = delay / block
    return where((block > 0) & ~isnan(delay), ratio, nan)  # noqa: F821


def test_the_page_lists_exactly_the_functions_and_constants_that_are_allowed():
    page = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("<!-- on_request: begin -->")
    listed, end, _ = rest.partition("<!-- on_request: end -->")
    assert end
    assert re.findall(r"`(\w+)`", listed) == sorted(request_time.FUNCTIONS)
    assert "constants (also " + " and ".join(f"`{name}`" for name in request_time.CONSTANTS) + ")" in page


def test_a_plain_function_becomes_a_feature_with_its_arguments_and_words():
    assert (share.name, share.args) == ("share", ("delay", "block"))
    assert share.description == "Delay as a share of the scheduled block."
    assert share(30, 120).tolist() == [0.25]


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40))
def test_one_row_alone_has_the_value_that_it_has_among_many(rows):
    delay, block = (np.array(column) for column in zip(*rows, strict=True))
    request_time.check_row_wise(share.name, share.source, {"delay": delay, "block": block})


def test_division_by_zero_is_ieee_and_null_is_nan():
    @on_request
    def ratio(a, b):
        return a / b

    assert ratio([1, 0, None], [0, 0, 1]).tolist()[0] == math.inf
    assert np.isnan(ratio([1, 0, None], [0, 0, 1])[1:]).all()


def test_the_digest_follows_the_code_and_not_its_dress():
    def first(a, b):
        # the ratio
        return a / b

    def second(a: float, b: float) -> float:
        """The ratio."""
        return (a) / b

    second.__name__ = "first"
    assert on_request(first).source.replace("first", "") == on_request(second).source.replace("second", "")


REFUSED = {
    "import os\ndef f(x):\n return x": "one function",
    "def f(x):\n import os\n return x": "only 'name = expression'",
    "def f(x):\n return x.__class__": "Attribute is outside",
    "def f(x):\n return open('a')": "cannot be called",
    "def f(x):\n return np.sin(x)": "bare names",
    "def f(x):\n return ().__class__": "outside",
    "def f(x):\n return x if x > 0 else 0": "where",
    "def f(x):\n if x:\n  return 1\n return 2": "where",
    "def f(x):\n return x and 1": "write & and |",
    "def f(x):\n return not x": "write ~",
    "def f(x):\n return 0 < x < 1": "a < b",
    "def f(x):\n return y": "not among its parameters",
    "def f(x=1):\n return x": "without defaults",
    "def f(*x):\n return x": "plain names",
    "def f(x):\n return [x]": "outside",
    "def f(x):\n return x[0]": "outside",
    "def f(x):\n return 'a'": "outside",
    "def f(x):\n return (lambda: x)()": "bare names",
    "def f(x):\n x": "must return",
    "def f(x):\n return sin(x, out=x)": "cannot be called",
    "def f(sin):\n return sin": "hides",
    "@property\ndef f(x):\n return x": "no decorators",
    "def f(x):\n return (yield x)": "outside",
    "def f(x):\n while 1:\n  pass\n return x": "only",
    "def f(x):\n return 1 / 0": "cannot be computed",
    "def f(x):\n return 9 ** 9 ** 9": "cannot be computed",
    "def f(x):\n return sin()": "cannot be computed",
    f"def f(x):\n return 1{'0' * 400}": "beyond float64",
    "def f(": "not Python",
}


@pytest.mark.parametrize("source", REFUSED)
def test_a_frozen_source_outside_the_subset_is_refused_and_never_run(source):
    with pytest.raises(BadRequestFunction, match="(?s)" + REFUSED[source].replace("|", r"\|")):
        load("f", source)


def test_a_function_that_looks_at_other_rows_cannot_be_written_and_one_that_smuggles_it_is_found():
    load_max = load("f", "def f(x):\n return x")
    assert request_time.evaluate(load_max, [np.array([1.0, 2.0])]).tolist() == [1.0, 2.0]
    request_time.FUNCTIONS["cumsum"] = np.cumsum
    try:
        with pytest.raises(NotRowWise, match="alone"):
            request_time.check_row_wise("f", "def f(x):\n return cumsum(x)", {"x": np.array([1.0, 2.0, 3.0])})
    finally:
        del request_time.FUNCTIONS["cumsum"]
