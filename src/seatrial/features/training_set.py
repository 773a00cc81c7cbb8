"""The training set: one row per label row, with every feature as it could be known at the row's instant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from seatrial.core.errors import Failed, UsageError, did_you_mean, listed
from seatrial.core.signature import as_floats
from seatrial.data.text import why_text
from seatrial.features.join import as_of
from seatrial.features.lookup import compute, load_functions
from seatrial.features.plan import FeaturePlan
from seatrial.features.request_time import check_row_wise

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.features.definitions import FeatureView

AT = "at"
LABEL_KNOWN_AT = "label_known_at"


class FeatureNotNumeric(Failed):
    """A request-time function asks for a column that holds no numbers."""

    code = "features.not_numeric"


class ArgumentMissing(UsageError):
    """Rows lack a column that a request-time function takes as an argument."""

    code = "features.argument_missing"


def build(
    rows: pa.Table,
    plan: FeaturePlan,
    views: Mapping[str, FeatureView],
    events: Mapping[str, pa.Table],
    *,
    threads: int = 1,
    join: Callable[..., pa.Table] = as_of,
) -> pa.Table:
    """`rows` with every feature column of the plan appended, in the plan's order.

    rows: label rows; with views it needs `at` (timestamp[us, tz=UTC]).
    views, events: per view of the plan its definition and its source's rows.
    join: what joins them, called like `join.as_of`.
    Request-time functions get float64 columns, null as NaN; their NaN becomes null again.
    Raises NotRowWise when a function's value depends on other rows, and what the join raises.
    """
    joined = join(rows, views, events, at=AT, threads=threads) if plan.views else rows
    return with_functions(joined, plan)


def with_functions(joined: pa.Table, plan: FeaturePlan) -> pa.Table:
    """`joined` with the column of each of the plan's request-time functions. Raises NotRowWise, FeatureNotNumeric."""
    import pyarrow as pa

    made: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
    for function, (name, args, loaded) in zip(plan.functions, load_functions(plan), strict=True):
        columns = {arg: made[arg] if arg in made else as_numbers(joined, arg, name) for arg in args}
        check_row_wise(name, function.source, columns)
        made |= compute([(name, args, loaded)], columns)
        joined = joined.append_column(name, pa.array(made[name], from_pandas=True))
    return joined


def select(labels: pa.Table, columns: Sequence[str], times: Mapping[str, str | None]) -> pa.Table:
    """The columns of a label source that a training set keeps, times under their standard names.

    times: standard name (`at`, `label_known_at`) -> column of the source, or None when it has none.
    """
    import pyarrow as pa

    named = {standard: labels[column] for standard, column in times.items() if column is not None}
    return pa.table(named | {column: labels[column] for column in dict.fromkeys(columns) if column not in named})


def as_numbers(table: pa.Table, column: str, function: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """An argument of a request-time function, float64 [n]. Raises ArgumentMissing, FeatureNotNumeric."""
    import pyarrow as pa

    if column not in table.column_names:
        raise ArgumentMissing(
            f"request-time function '{function}' asks for '{column}', which the rows do not have.",
            expected=f"They have {listed(table.column_names)}. {did_you_mean(column, table.column_names)}".strip(),
        )
    kind = table[column].type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise FeatureNotNumeric(
            f"request-time function '{function}' asks for '{column}', whose type is {kind}.",
            expected="Its arguments must be numbers or booleans.",
            next=why_text(table[column]),
        )
    return as_floats(table[column].cast(pa.float64()).to_numpy())
