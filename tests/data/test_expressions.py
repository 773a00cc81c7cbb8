"""Expressions: one value for each row, from that row alone; all else is refused before it runs."""

from __future__ import annotations

import pyarrow as pa
import pytest

from seatrial.data.expressions import BadExpression, evaluate

ROWS = pa.table({"id": [1, 2, 3], "c": [1.0, 2.0, 3.0], "ts": pa.array([0, 1, 2], pa.timestamp("us", tz="UTC"))})


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("unnest([c, c + 1])", "several rows"),
        ("unnest(CASE WHEN id = 1 THEN [] WHEN id = 2 THEN [c] ELSE [1, 2] END)", "several rows"),  # three in all
        ("1 + unlist([c])", "several rows"),
        ("COLUMNS('c')", "several columns"),
        ("COLUMNS('c|id')", "several columns"),
        ("*", "several columns"),
        ("epoch(age(ts))", "clock"),
        ("c + length(current_setting('TimeZone'))", "every time"),
        ("sum(c) OVER ()", "other rows"),
        ("(SELECT max(c) FROM rows)", "other rows"),
    ],
)
def test_what_is_not_one_value_of_each_row_alone_is_refused(expression, why):
    with pytest.raises(BadExpression, match=why):
        evaluate(ROWS, {"made": expression}, where="view 'v'")


def test_a_column_that_has_the_name_of_an_expression_is_refused():
    rows = ROWS.append_column("sql(c)", pa.array([9.0, 9.0, 9.0]))
    with pytest.raises(BadExpression, match=r"column 'sql\(c\)'"):
        evaluate(rows, {"sql(c)": "c"}, where="view 'v'")


def test_the_time_between_two_times_of_a_row_is_its_own():
    assert evaluate(ROWS, {"made": "epoch(age(ts, ts))"}, where="view 'v'")["made"].to_pylist() == [0.0, 0.0, 0.0]
