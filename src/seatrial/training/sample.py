"""A sample: a few of the rows, for a quick look at whether a training would work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seatrial.core.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa


class BadSample(UsageError):
    """A sample is neither a number of rows nor a share of them."""

    code = "training.bad_sample"


@dataclass(frozen=True)
class Sample:
    """How many rows: a number from 1, or a share between 0 and 1. seed: which of them."""

    size: int | float
    seed: int = 0

    def __post_init__(self) -> None:
        whole = isinstance(self.size, int) and not isinstance(self.size, bool) and self.size >= 1
        if not whole and not (isinstance(self.size, float) and 0 < self.size < 1):
            raise BadSample(
                f"a sample of {self.size!r} was asked for.",
                expected="A number of rows is expected, such as 5000, or a share of them, such as 0.1 or 10%.",
                state="Nothing was trained.",
            )

    @staticmethod
    def parse(text: str, *, seed: int = 0) -> Sample:
        """The sample that a text means: "5000", "0.1" or "10%". Raises BadSample."""
        try:
            number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            return Sample(text, seed)  # type: ignore[arg-type]  # which refuses it
        return Sample(int(number) if text.isdigit() else number, seed)

    def of(self, rows: pa.Table) -> pa.Table:
        """The chosen rows in their order; all of them when there are not more."""
        size = self.size if isinstance(self.size, int) else max(1, round(self.size * rows.num_rows))
        if size >= rows.num_rows:
            return rows
        chosen = np.random.default_rng(self.seed).choice(rows.num_rows, size, replace=False)
        return rows.take(np.sort(chosen))
