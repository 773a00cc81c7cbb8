"""Does the exported model give the native model's answers, on every row that we have?

A sample would not do: rows that sit exactly on a split are one in a thousand, and wrong by a lot. Compared are
all rows given, rows with a missing value put into each input that may be missing, and rows one by one. What was
found is kept in the release as its certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import GateRefused
from seatrial.core.signature import NamedRows, Rows, Signature, Task
from seatrial.releases.native import NativeModel, Scorer, one_line

if TYPE_CHECKING:
    from seatrial.releases.runtime import Scoring

TOLERANCE = 1e-6
MISSING_ROWS = 1000  # for each input that may be missing
SINGLE_ROWS = 100
NEVER_SEEN = "a category that nobody has seen"

Scores = NDArray[np.float64]


class ParityRefused(GateRefused):
    """The exported model does not answer like the native one."""

    code = "release.parity_refused"


class Parity(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the comparison found.

    rows: rows compared as they were given; missing_rows: rows with missing values put in; single_rows: rows
        scored one by one.
    largest: the largest difference, in probability (of the class where it is), or relative to the row's scale
        (see `scale`) for regression; three digits of it.
    not_finite: scores of the exported model that were NaN or infinite where the native model had an answer.
    flipped: decisions that differ: `score >= threshold`, or, of many classes, the likeliest one (of classes whose
        native probabilities lie within the tolerance of each other either is right); threshold: of binary only.
    refuses_missing: inputs for which the native model raises when they are missing; the runtime refuses them too.
    worst: where the largest difference is, in words.
    refused: why the model has no ONNX form, in words, when it was released in another one; not there for ONNX.
    refuses_unseen: named inputs for which the native model raises on a category that was never seen in training.
    """

    rows: int
    missing_rows: int
    single_rows: int
    largest: float
    tolerance: float
    not_finite: int
    flipped: int
    threshold: float | None
    refuses_missing: tuple[str, ...]
    worst: str
    passed: bool
    refused: str = ""
    refuses_unseen: tuple[str, ...] = ()


def compare(
    native: NativeModel,
    exported: bytes | Scoring,
    rows: Rows,
    signature: Signature,
    *,
    threshold: float = 0.5,
    tolerance: float = TOLERANCE,
) -> Parity:
    """Compare the two forms of one model.

    exported: the bytes of an ONNX model, or any form of it that is loaded to score.
    rows: n >= 1, as encoded for the model.
    threshold: where a probability becomes a decision; of meaning for binary alone.
    Raises ParityRefused when the native model cannot score `rows` at all. Otherwise it only reports;
    `require` refuses.
    """
    from seatrial.releases.named import open_graph

    if not len(rows):
        raise ParityRefused("there is no row to compare the exported model on.", expected="At least one is needed.")
    runtime = open_graph(exported, signature) if isinstance(exported, bytes) else exported
    scorer = native.scorer()
    comparison = _Comparison(native.task, runtime.score, threshold, tolerance)
    try:
        wanted = scorer(rows)
    except Exception as error:  # a native model raises what it likes
        raise ParityRefused(
            f"the native model cannot score the rows to compare on: {one_line(error)}",
            expected="Rows like those it was trained on are expected.",
        ) from error
    comparison.usual = float(np.median(np.abs(wanted)))
    comparison.add("", rows, wanted)

    few = rows[_spread(len(rows), SINGLE_ROWS)]
    few_wanted = wanted[_spread(len(rows), SINGLE_ROWS)]
    for row in range(len(few)):
        comparison.add(" alone", few[row : row + 1], few_wanted[row : row + 1])

    missing_rows, refusing = _compare_missing(comparison, scorer, rows, signature)
    unseen = _compare_unseen(comparison, scorer, rows)
    passed = comparison.largest <= tolerance and not comparison.flipped and not comparison.not_finite
    return Parity(
        rows=len(rows),
        missing_rows=missing_rows,
        single_rows=len(few),
        largest=float(f"{comparison.largest:.2e}"),
        tolerance=tolerance,
        not_finite=comparison.not_finite,
        flipped=comparison.flipped,
        threshold=threshold if native.task == "binary" else None,
        refuses_missing=refusing,
        worst=comparison.worst,
        passed=passed,
        refuses_unseen=unseen,
    )


def require(parity: Parity, model: str) -> None:
    """Raise ParityRefused, naming the worst row, unless the comparison passed."""
    if parity.passed:
        return
    raise ParityRefused(
        f"the exported model '{model}' {difference(parity)}.",
        expected=f"At most {parity.tolerance:g} on all of {parity.rows} rows "
        f"({parity.missing_rows} with missing values) and no decision otherwise.",
        next="The converter does not reproduce this estimator; see docs/releases.md for those that export exactly.",
        state="No release was written.",
        parity=msgspec.to_builtins(parity),
    )


def difference(parity: Parity) -> str:
    """In what the exported model differs, in words: "differs by up to 0.9, ...; the worst is row 3: ..."."""
    found = [f"differs by up to {parity.largest:.2g}"]
    if parity.not_finite:
        found.append(f"gives {parity.not_finite} scores that are no finite number")
    if parity.flipped:
        at = "" if parity.threshold is None else f" at {parity.threshold:g}"
        found.append(f"decides {parity.flipped} rows otherwise{at}")
    return f"{', '.join(found)}; the worst is {parity.worst}"


def nullable_inputs(signature: Signature) -> list[int]:
    """Positions of the inputs that can be NaN: all but request fields that are declared not to be null.

    A category can always be NaN (a value never seen), and so can every looked-up or computed feature.
    """
    never = {field.name for field in signature.request if not field.nullable and not field.optional}
    return [
        position for position, name in enumerate(signature.inputs) if name not in never or name in signature.categories
    ]


def scale(task: Task, scores: Scores, usual: float) -> Scores:
    """What a difference is divided by, for each score: 1 for probabilities, the size of the value else.

    For regression the larger of 1, |score| and `usual`, the median |score|: a value of 0.1 among hundreds is the
    difference of two hundreds, and no float32 arithmetic has it to seven digits.
    """
    if task != "regression":
        return np.ones_like(scores)
    return np.maximum(np.abs(scores), max(1.0, usual))


class _Comparison:
    """Collects differences; `usual` is the median |score| over all rows."""

    def __init__(self, task: Task, score: Scorer, threshold: float, tolerance: float) -> None:
        self._task = task
        self._score = score
        self._threshold = threshold
        self._tolerance = tolerance
        self.usual = 0.0
        self.largest = 0.0
        self.not_finite = 0
        self.flipped = 0
        self.worst = "none"

    def add(self, how: str, rows: Rows, wanted: Scores) -> None:
        """Compare `rows` with the native scores; `how` is said of the worst row ("row 3 with 'x' missing")."""
        from seatrial.releases.runtime import ScoreNotFinite

        try:
            got = self._score(rows)
        except ScoreNotFinite:
            got = np.array([self._one(rows[place : place + 1], wanted[place]) for place in range(len(rows))])
        difference = np.abs(got - wanted) / scale(self._task, wanted, self.usual)
        if self._task == "multiclass":
            of_class, got, wanted = self._in_one_class(difference, got, wanted)
            difference = difference[np.arange(len(of_class)), of_class]
        self.not_finite += int(np.isnan(difference).sum())
        if self._task == "binary":
            self.flipped += int(((got >= self._threshold) != (wanted >= self._threshold)).sum())
        ranked = np.where(np.isnan(difference), np.inf, difference)
        place = int(ranked.argmax())
        if np.isinf(ranked[place]) or ranked[place] > self.largest or self.worst == "none":
            self.worst = f"row {place}{how}: {wanted[place]:.9g} became {got[place]:.9g}"
        finite = difference[~np.isnan(difference)]
        self.largest = max(self.largest, float(finite.max(initial=0.0)))

    def _in_one_class(self, difference: Scores, got: Scores, wanted: Scores) -> tuple[NDArray[np.intp], Scores, Scores]:
        """For each row the class in which it differs most, and both scores of it; counts the decisions that differ."""
        rows = np.arange(len(wanted))
        told = np.isfinite(got).all(axis=1)
        behind = wanted.max(axis=1) - wanted[rows, got.argmax(axis=1)]
        self.flipped += int((told & (behind > self._tolerance)).sum())
        place = np.where(np.isnan(difference), np.inf, difference).argmax(axis=1)
        return place, got[rows, place], wanted[rows, place]

    def _one(self, row: Rows, wanted: Scores) -> Scores:
        from seatrial.releases.runtime import ScoreNotFinite

        try:
            return np.asarray(self._score(row)[0])
        except ScoreNotFinite:
            return np.full_like(wanted, np.nan)


def _compare_missing(
    comparison: _Comparison, scorer: Scorer, rows: Rows, signature: Signature
) -> tuple[int, tuple[str, ...]]:
    """Compare with each nullable input missing, then with all of them that may be; how many rows, and who refuses."""
    few = rows[_spread(len(rows), MISSING_ROWS)]
    compared, refusing, accepting = 0, [], []
    for position in nullable_inputs(signature):
        name = signature.inputs[position]
        wanted = _with_missing(scorer, few, [position])
        if wanted is None:
            refusing.append(name)
            continue
        accepting.append(position)
        comparison.add(f" with '{name}' missing", *wanted)
        compared += len(few)
    if len(accepting) > 1:
        wanted = _with_missing(scorer, few, accepting)
        if wanted is not None:
            comparison.add(f" with {len(accepting)} inputs missing", *wanted)
            compared += len(few)
    return compared, tuple(refusing)


def _compare_unseen(comparison: _Comparison, scorer: Scorer, rows: Rows) -> tuple[str, ...]:
    """Compare with a category that nobody has seen in each named input that takes strings; which of them refuse it.

    Of packed inputs such a value is a missing one.
    """
    if not isinstance(rows, NamedRows):
        return ()
    few = rows[_spread(len(rows), MISSING_ROWS)]
    refusing = []
    for name, values in few.columns.items():
        if values.dtype != object:
            continue
        strange = NamedRows(few.columns | {name: np.full(len(few), NEVER_SEEN, dtype=object)})
        try:
            wanted = scorer(strange)
        except Exception:  # a native model raises what it likes
            refusing.append(name)
            continue
        comparison.add(f" with '{name}' never seen", strange, wanted)
    return tuple(refusing)


def _with_missing(scorer: Scorer, rows: Rows, positions: Sequence[int]) -> tuple[Rows, Scores] | None:
    """`rows` with NaN in those columns and their native scores; None when the native model raises."""
    if isinstance(rows, NamedRows):
        names = [list(rows.columns)[position] for position in positions]
        holed: Rows = NamedRows(rows.columns | {name: _nothing(rows.columns[name]) for name in names})
    else:
        holed = rows.copy()
        holed[:, positions] = np.nan
    try:
        return holed, scorer(holed)
    except Exception:  # a native model raises what it likes
        return None


def _nothing(column: NDArray[Any]) -> NDArray[Any]:
    return np.full(len(column), None if column.dtype == object else np.nan, dtype=column.dtype)


def _spread(size: int, most: int) -> NDArray[np.intp]:
    """Up to `most` positions below `size`, evenly spread, ends included."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.intp))
