"""Backtest: had this model been retrained at these instants, how would it have predicted history?

At each instant everything known by then is learned from, as a refit would, and the rows up to the next instant are
scored. No gate, no approval: what comes out is what a policy could at best have been worth, not what to deploy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import encode
from seatrial.core.types import Field
from seatrial.training.estimator import controlled, score
from seatrial.training.evaluation import fit_part
from seatrial.training.model import Model
from seatrial.training.rows import training_rows

if TYPE_CHECKING:
    import pyarrow as pa


def backtest(
    model: Model,
    rows: pa.Table,
    request: Sequence[Field],
    instants_us: Sequence[int],
    columns: Callable[[pa.Table, Sequence[str]], dict[str, Any]],
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """(n,) scores in the order of `rows`; NaN for rows before the first instant.

    rows: with every input, the target, `at` and `label_known_at`. instants_us: when it was retrained, ascending.
    columns: a table's columns as `core.signature.encode` takes them. progress: called with the fits done.
    Raises what training raises when too little was known at an instant.
    """
    import pyarrow as pa

    at_us = rows["at"].cast(pa.int64()).to_numpy()
    scores = np.full(rows.num_rows, np.nan)
    ends = [*instants_us[1:], int(at_us.max(initial=0)) + 1]
    for done, (instant_us, end_us) in enumerate(zip(instants_us, ends, strict=True), start=1):
        known = training_rows(model, rows, cutoff_us=instant_us)
        heard: list[str] = []
        with controlled(model, heard):
            fitted = fit_part(model, known, request, np.arange(known.size))
            of_span = (at_us >= instant_us) & (at_us < end_us)
            span = rows.filter(pa.array(of_span))
            inputs, _ = encode(fitted.signature, columns(span, fitted.signature.inputs))
            scores[of_span] = score(model, fitted.estimator, inputs, fitted.signature.inputs)
        progress(done)
    return scores
