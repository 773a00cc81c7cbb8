"""Does the estimator give the same model when it is fitted again with the same seed?

seatrial sets every seed that it knows of; an estimator may draw its chances elsewhere (the machine's entropy, a clock),
and then no run of it can be made again. Two fits on a small sample tell, before anybody relies on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seatrial.core.errors import SeatrialError
from seatrial.core.types import Field
from seatrial.training.estimator import controlled
from seatrial.training.evaluation import fit_part
from seatrial.training.model import Model
from seatrial.training.rows import Indices, TrainingRefused, TrainingRows

SAMPLE = 300
TOLERANCE = 1e-9
"""Relative difference of scores that threads cause by adding up in racing order."""


class NotRepeatable(TrainingRefused):
    """The estimator gives another model with the same seed, and policy does not allow that."""

    code = "training.not_repeatable"


@dataclass(frozen=True)
class Repeated:
    """What fitting twice showed.

    same: None when the sample could not be fitted, and `why` says so. difference: the largest, relative to the score
    where that is above 1. rows: of the sample.
    """

    same: bool | None
    rows: int
    difference: float | None = None
    why: str = ""

    @property
    def words(self) -> str:
        """What there is to tell of it; empty when all is well."""
        if self.same is not False:
            return ""
        return (
            f"the estimator ignores its seed: two fits on the same {self.rows} rows differ by up to "
            f"{self.difference:.2g}, so this run cannot be made again"
        )

    def as_plain(self) -> dict[str, Any]:
        return {"same": self.same, "rows": self.rows, "difference": self.difference, "why": self.why}


def repeated(model: Model, rows: TrainingRows, request: Sequence[Field], train: Indices) -> Repeated:
    """Fit twice on up to 300 training rows of every class, seeds set anew each time, and compare their scores."""
    sample = _sample(model, rows, train)
    found = []
    for _ in range(2):
        try:
            with controlled(model, []):
                found.append(fit_part(model, rows, request, sample).score(model, rows, sample))
        except SeatrialError as error:
            return Repeated(None, int(sample.size), why=error.found)
    first, second = found
    difference = float((np.abs(first - second) / np.maximum(np.abs(first), 1.0)).max())
    return Repeated(difference <= TOLERANCE, int(sample.size), difference)


def refuse(model: Model, found: Repeated) -> None:
    """Raise NotRepeatable when two fits differed."""
    if found.same is False:
        raise NotRepeatable(
            f"model '{model.name}': {found.words}.",
            expected="The project's policy asks for fits that can be made again.",
            next='Seed every source of chance in it, or set [policy] unrepeatable = "note" in seatrial.toml.',
            difference=found.difference,
        )


def _sample(model: Model, rows: TrainingRows, train: Indices) -> Indices:
    """Up to SAMPLE of the rows, ascending, with every class among them as far as there is room."""
    shuffled = np.random.default_rng(model.seed).permutation(train)
    if model.task == "regression":
        return np.sort(shuffled[:SAMPLE])
    _, place = np.unique(rows.labels[shuffled], return_inverse=True)
    turn = np.empty(shuffled.size, dtype=np.intp)  # of each row, which of its class it is
    for value in range(int(place.max()) + 1):
        members = np.flatnonzero(place == value)
        turn[members] = np.arange(members.size)
    return np.sort(shuffled[np.argsort(turn, kind="stable")[:SAMPLE]])
