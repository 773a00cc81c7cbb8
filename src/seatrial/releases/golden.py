"""Golden rows: up to 200 encoded rows and their scores, replayed wherever a release is about to answer.

They are taken once, when the release is packed, from the rows on which parity was shown: spread evenly over the
scores, rows with missing values among them. A server that scores them otherwise runs other arithmetic than the
one that was tested, and does not admit the release.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import Failed
from seatrial.core.signature import NamedRows, Rows, Task, missing_in
from seatrial.releases.bundle import GOLDEN, Bundle
from seatrial.releases.parity import TOLERANCE, scale
from seatrial.releases.runtime import Scoring

FORMAT = 2
"""1: one score a row. 2: `scores` of several classes, or rows by name."""
MOST = 200
MOST_SCORES = 20_000
"""Of many classes fewer rows are kept, so that their scores stay a small file."""
_LITTLE_FLOAT32 = "<f4"
_LITTLE_FLOAT64 = "<f8"


class GoldenMismatch(Failed):
    """A release does not give here the scores that it gave when it was packed."""

    code = "release.golden_mismatch"


class GoldenUnreadable(Failed):
    """The golden rows of a release cannot be read, or were written by a newer version."""

    code = "release.golden_unreadable"


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The golden rows as they are kept in the bundle.

    rows: base64 of n x inputs float32 values, little-endian, row by row; NaN for missing. Empty when inputs are named.
    columns: of named inputs for each base64 of n float32 values, or n strings and nulls.
    scores: n scores of the exported model when it was packed; of C classes base64 of n x C float64 values.
    classes: C; 0 when a row has one score.
    """

    format: int
    task: Task
    inputs: int
    rows: str
    scores: tuple[float, ...] | str
    classes: int = 0
    columns: dict[str, str | tuple[str | None, ...]] = {}

    def given(self) -> Rows:
        """The rows as the model takes them. Raises GoldenUnreadable."""
        if not self.columns:
            return self.matrix()
        try:
            columns = {name: _column(kept) for name, kept in self.columns.items()}
        except (binascii.Error, ValueError):
            raise _unreadable("a column of its rows is no column") from None
        if {len(values) for values in columns.values()} != {len(self.wanted())}:
            raise _unreadable("its rows and scores do not fit together")
        return NamedRows(columns)

    def matrix(self) -> NDArray[np.float32]:
        """The rows as float32 [n, inputs]. Raises GoldenUnreadable."""
        try:
            values = np.frombuffer(base64.b64decode(self.rows, validate=True), dtype=_LITTLE_FLOAT32)
            return values.reshape(len(self.wanted()), self.inputs).astype(np.float32)
        except (binascii.Error, ValueError):
            raise _unreadable("its rows and scores do not fit together") from None

    def wanted(self) -> NDArray[np.float64]:
        """The scores, float64 [n] or [n, classes]. Raises GoldenUnreadable."""
        if not isinstance(self.scores, str):
            return np.array(self.scores, dtype=np.float64)
        try:
            values = np.frombuffer(base64.b64decode(self.scores, validate=True), dtype=_LITTLE_FLOAT64)
            return values.reshape(-1, self.classes).astype(np.float64)
        except (binascii.Error, ValueError):
            raise _unreadable("its scores are no table") from None


class _Format(msgspec.Struct):
    format: int


def choose(rows: Rows, scores: NDArray[np.float64], *, most: int = MOST) -> NDArray[np.intp]:
    """Positions of the golden rows, ascending; the same for the same arguments.

    scores: those of the rows; of many classes [n, C], ranked by the likeliest class and then by its
    probability. Up to a quarter of `most` are rows with a missing value, the rest
    any; each part is spread evenly over the ranks of the scores, ends included.
    """
    if scores.ndim == 2:
        scores = scores.argmax(axis=1) + scores.max(axis=1)
    ranked = np.argsort(scores, kind="stable")
    holed = ranked[missing_in(rows)[ranked].any(axis=1)]
    first = _spread(holed, most // 4)
    rest = np.setdiff1d(ranked, first, assume_unique=True)
    rest = rest[np.argsort(scores[rest], kind="stable")]
    return np.sort(np.concatenate([first, _spread(rest, most - len(first))]))


def record(task: Task, rows: Rows, runtime: Scoring, *, most: int = MOST) -> bytes:
    """The bytes of "golden.json": golden rows chosen among `rows` (n >= 1) that `runtime` can score."""
    if runtime.no_missing.size:
        rows = rows[np.flatnonzero(~missing_in(rows)[:, runtime.no_missing].any(axis=1))]
    scores = runtime.score(rows)
    if scores.ndim == 2:
        most = max(1, min(most, MOST_SCORES // scores.shape[1]))
    rows = rows[choose(rows, scores, most=most)]
    scores = runtime.score(rows)
    plain: dict[str, Any] = {
        "format": 2 if isinstance(rows, NamedRows) or scores.ndim == 2 else 1,
        "task": task,
        "inputs": missing_in(rows).shape[1],
        "rows": "" if isinstance(rows, NamedRows) else _base64(rows, _LITTLE_FLOAT32),
        "scores": scores.tolist() if scores.ndim == 1 else _base64(scores, _LITTLE_FLOAT64),
    }
    if scores.ndim == 2:
        plain["classes"] = scores.shape[1]
    if isinstance(rows, NamedRows):
        plain["columns"] = {
            name: values.tolist() if values.dtype == object else _base64(values, _LITTLE_FLOAT32)
            for name, values in rows.columns.items()
        }
    return msgspec.json.encode(plain)


def read_golden(data: bytes) -> Golden:
    """The golden rows in the bytes of "golden.json". Raises GoldenUnreadable."""
    try:
        number = msgspec.json.decode(data, type=_Format).format
        if number > FORMAT:
            raise _unreadable(f"it has format {number}, this version reads up to {FORMAT}")
        return msgspec.json.decode(data, type=Golden)
    except msgspec.DecodeError as error:
        raise _unreadable(str(error)) from None


def replay(bundle: Bundle, runtime: Scoring, *, tolerance: float = TOLERANCE) -> int:
    """Score the bundle's golden rows, together and one by one; how many there are.

    Raises GoldenMismatch, naming the worst row, when a score is off by more than `tolerance` (relative to
    the row's scale for regression, see `parity.scale`), GoldenUnreadable, and what `runtime.score` raises.
    """
    if GOLDEN not in bundle.files:
        raise _unreadable("it is not in the bundle")
    golden = read_golden(bundle.files[GOLDEN])
    rows, wanted = golden.given(), golden.wanted()
    if not len(rows):
        raise _unreadable("it has no rows")
    together = runtime.score(rows)
    alone = np.array([runtime.score(rows[place : place + 1])[0] for place in range(len(rows))])
    allowed = scale(golden.task, wanted, float(np.median(np.abs(wanted))))
    off = np.maximum(np.abs(together - wanted), np.abs(alone - wanted)) / allowed
    if wanted.ndim == 2:
        of_class, every = off.argmax(axis=1), np.arange(len(rows))
        off, together, wanted = off[every, of_class], together[every, of_class], wanted[every, of_class]
    worst = int(off.argmax())
    if off[worst] > tolerance:
        raise GoldenMismatch(
            f"release {bundle.id} scores golden row {worst} with {float(together[worst])!r}, "
            f"packed with {float(wanted[worst])!r}; {int((off > tolerance).sum())} of {len(rows)} rows are off.",
            expected=f"Every golden row agrees to {tolerance:g}.",
            next="Compare the versions of onnxruntime and the processor here with those in the release's lineage.",
            state="The release was not admitted.",
            row=worst,
        )
    return len(rows)


def _column(kept: str | tuple[str | None, ...]) -> NDArray[Any]:
    if isinstance(kept, str):
        return np.frombuffer(base64.b64decode(kept, validate=True), dtype=_LITTLE_FLOAT32).astype(np.float32)
    column = np.empty(len(kept), dtype=object)
    column[:] = kept
    return column


def _base64(values: NDArray[Any], kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode()


def _spread(positions: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Up to `most` of `positions`, evenly spread, ends included."""
    if len(positions) <= most:
        return positions
    return positions[np.unique(np.linspace(0, len(positions) - 1, most).astype(np.intp))]


def _unreadable(reason: str) -> GoldenUnreadable:
    return GoldenUnreadable(
        f"the golden rows of the release cannot be read: {reason}.",
        expected="A release carries golden.json as seatrial writes it.",
        next="Release again.",
        state="The release was not admitted.",
    )
