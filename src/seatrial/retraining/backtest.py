"""Backtest: had this model been retrained at these instants, how would it have predicted history?

At each instant everything known by then is learned from, as a refit would, and the rows up to the next instant are
scored. No gate, no approval: what comes out is what a policy could at best have been worth, not what to deploy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import UsageError
from seatrial.core.signature import Class, aligned
from seatrial.core.types import Field
from seatrial.training.estimator import controlled
from seatrial.training.evaluation import fit_part
from seatrial.training.model import Model
from seatrial.training.rows import training_rows
from seatrial.training.tuning import as_tuned

if TYPE_CHECKING:
    import pyarrow as pa


def backtest(
    model: Model,
    rows: pa.Table,
    request: Sequence[Field],
    instants_us: Sequence[int],
    columns: Callable[[pa.Table, Sequence[str]], dict[str, Any]],
    *,
    tuning: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """(n,) scores in the order of `rows`; of a multiclass model (n, C), in the order of `classes_of(model, rows)`, 0
    for a class that was not known at the instant. NaN for rows before the first instant.

    rows: with every input, the target, `at` and `label_known_at`. instants_us: when it was retrained, ascending.
    columns: a table's columns as `core.signature.encode` takes them. progress: called with the fits done.
    tuning: of a model that is tuned, the record (`tuning`) of the run whose parameters every refit has: the champion's.
        Nothing is tuned here: parameters that were chosen on later rows would know what nobody knew at an instant.
    Raises UsageError for a tuned model without it, and what training raises when too little was known at an instant.
    """
    import pyarrow as pa

    if model.tune is not None and not tuning:
        raise UsageError(
            f"model '{model.name}' is tuned, and no run was named whose parameters a refit has.",
            expected="The `tuning` of a run's record is expected, most often of the champion's.",
            next="Give tuning=project.run_show(RUN)['tuning'].",
            state="Nothing was fitted.",
        )
    model = as_tuned(model, dict(tuning) if tuning else None)
    classes = classes_of(model, rows)
    at_us = rows["at"].cast(pa.int64()).to_numpy()
    scores = np.full((rows.num_rows, len(classes)) if classes else rows.num_rows, np.nan)
    ends = [*instants_us[1:], int(at_us.max(initial=0)) + 1]
    for done, (instant_us, end_us) in enumerate(zip(instants_us, ends, strict=True), start=1):
        known = training_rows(model, rows, cutoff_us=instant_us)
        of_span = (at_us >= instant_us) & (at_us < end_us)
        span = rows.filter(pa.array(of_span))
        heard: list[str] = []
        with controlled(model, heard):
            fitted = fit_part(model, known, request, np.arange(known.size))
            if span.num_rows:
                found = fitted.score_columns(model, columns(span, fitted.signature.inputs))
                scores[of_span] = aligned(found, fitted.signature.classes, classes) if classes else found
        progress(done)
    return scores


def classes_of(model: Model, rows: pa.Table) -> tuple[Class, ...]:
    """The classes of a multiclass model's target in these rows, sorted; empty for other tasks."""
    if model.task != "multiclass":
        return ()
    return tuple(sorted(rows[model.target].unique().drop_null().to_pylist()))
