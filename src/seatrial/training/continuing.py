"""Continuing: how does a training go on from a fit that there is, instead of learning anew?

A boosted model adds its trees to those of the fit (LightGBM's init_model, XGBoost's xgb_model); an estimator with
`partial_fit` goes once through the new rows. Inputs and categories mean what they meant to the fit: a new one cannot be
learned this way and is refused. What is learned on the way may push out what was known, so the fit's own rows are asked
again: the gate `remembers` compares both on a sample of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import UsageError, listed
from seatrial.core.signature import Signature
from seatrial.releases.native import NativeModel
from seatrial.training.rows import Indices, TrainingRows

if TYPE_CHECKING:
    import pyarrow as pa

REMEMBERED = 5_000
"""Rows of the fit's own that are asked again, at most."""
FORGOTTEN = 0.05
"""By how much, as a share, the loss on them may be higher than that of the fit that was gone on from."""


class NotContinued(UsageError):
    """A training cannot go on from the fit that it was to go on from."""

    code = "training.not_continued"


@dataclass(frozen=True)
class Start:
    """The fit that a training goes on from.

    release, run: of whose it is. cutoff_us: up to when its labels were known. remembered: a sample of the rows that it
    learned from, with every column of the training set.
    """

    release: str
    run: str
    cutoff_us: int
    signature: Signature
    native: NativeModel = field(repr=False)
    remembered: pa.Table = field(repr=False)

    def fitting(self, now: Signature, rows: TrainingRows, indices: Indices) -> Signature:
        """The signature in which the fit is continued on these rows: its own categories, in its own order.

        Raises NotContinued when inputs, classes or categories are others than the fit's.
        """
        then = self.signature
        for what in ("inputs", "integers", "classes", "layout"):
            before, after = getattr(then, what), getattr(now, what)
            if before != after:
                changed = sorted({*before} ^ {*after}) if not isinstance(before, str) else [before, after]
                raise NotContinued(
                    f"the {what} of the model are not those of release {self.release}: {listed(map(str, changed))}.",
                    expected="A fit can be continued on the same inputs and classes only.",
                    next="Learn anew: Retrain(..., warm_start=False).",
                )
        if {*then.categories} != {*now.categories}:
            raise self._other(sorted({*then.categories} ^ {*now.categories}))
        for name, known in then.categories.items():
            new = sorted({value for value in rows.columns[name][indices] if value is not None} - {*known})
            if new:
                raise self._other([f"{name}={value}" for value in new])
        return Signature(now.task, now.request, now.inputs, then.categories, now.integers, now.classes, now.layout)

    def _other(self, names: Sequence[str]) -> NotContinued:
        return NotContinued(
            f"release {self.release} does not know {listed(names)}, which the new rows have.",
            expected="Categories have the codes that the fit learned; a new one has none.",
            next="Learn anew: Retrain(..., warm_start=False).",
        )

    def fit(self, estimator: Any, rows: Any, target: NDArray[Any], name: str) -> Any:
        """The fit, continued on n rows. estimator: a fresh one, as the model declares it. Raises NotContinued."""
        kind = type(estimator).__module__.partition(".")[0]
        if kind in ("lightgbm", "xgboost"):
            if self.native.format != kind:
                raise self._unlike(estimator, name)
            start = self.native.load()
            return estimator.fit(rows, target, **{"init_model" if kind == "lightgbm" else "xgb_model": start})
        if not callable(getattr(estimator, "partial_fit", None)):
            raise NotContinued(
                f"the estimator of model '{name}' is {type(estimator).__name__}, which has no partial_fit.",
                expected="LightGBM, XGBoost, and estimators of scikit-learn with partial_fit can go on from a fit; a "
                "Pipeline cannot.",
                next="Learn anew: Retrain(..., warm_start=False).",
            )
        if self.native.format != "skops":
            raise self._unlike(estimator, name)
        start = self.native.load()
        if type(start) is not type(estimator) or _params(start) != _params(estimator):
            raise self._unlike(estimator, name)
        return start.partial_fit(rows, target)

    def _unlike(self, estimator: Any, name: str) -> NotContinued:
        return NotContinued(
            f"release {self.release} is no fit of what model '{name}' declares now ({type(estimator).__name__}).",
            expected="A fit can be continued with the same estimator and parameters only.",
            next="Learn anew: Retrain(..., warm_start=False).",
        )


def split_at(rows: pa.Table, cutoff_us: int, *, seed: int) -> tuple[pa.Table, pa.Table]:
    """The rows whose label became known after the cut-off, and a sample of the others, the same for the same seed."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = "label_known_at" if "label_known_at" in rows.column_names else "at"
    new = pc.fill_null(pc.greater(rows[column].cast(pa.int64()), cutoff_us), True)
    old = rows.filter(pc.invert(new))
    if old.num_rows > REMEMBERED:
        chosen = np.random.default_rng(seed).choice(old.num_rows, REMEMBERED, replace=False)
        old = old.take(pa.array(np.sort(chosen)))
    return rows.filter(new), old


def _params(estimator: Any) -> dict[str, Any]:
    """What an estimator was declared with; threads are the system's."""
    params = estimator.get_params(deep=False)
    return {
        name: "nan" if isinstance(value, float) and math.isnan(value) else value
        for name, value in params.items()
        if name != "n_jobs"
    }
