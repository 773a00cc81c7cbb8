"""Golden rows: up to 200 encoded rows and their scores, replayed wherever a release is about to answer.

They are taken once, when the release is packed, from the rows on which parity was shown: spread evenly over the
scores, rows with missing values among them. A server that scores them otherwise runs other arithmetic than the
one that was tested, and does not admit the release.
"""

from __future__ import annotations

import base64
import binascii

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import Failed
from seatrial.core.identity import canonical_json
from seatrial.core.signature import Task
from seatrial.releases.bundle import GOLDEN, Bundle
from seatrial.releases.parity import TOLERANCE, scale
from seatrial.releases.runtime import Scoring

FORMAT = 1
MOST = 200
_LITTLE_FLOAT32 = "<f4"


class GoldenMismatch(Failed):
    """A release does not give here the scores that it gave when it was packed."""

    code = "release.golden_mismatch"


class GoldenUnreadable(Failed):
    """The golden rows of a release cannot be read, or were written by a newer version."""

    code = "release.golden_unreadable"


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The golden rows as they are kept in the bundle.

    rows: base64 of n x inputs float32 values, little-endian, row by row; NaN for missing.
    scores: n scores of the exported model when it was packed.
    """

    format: int
    task: Task
    inputs: int
    rows: str
    scores: tuple[float, ...]

    def matrix(self) -> NDArray[np.float32]:
        """The rows as float32 [n, inputs]. Raises GoldenUnreadable."""
        try:
            values = np.frombuffer(base64.b64decode(self.rows, validate=True), dtype=_LITTLE_FLOAT32)
            return values.reshape(len(self.scores), self.inputs).astype(np.float32)
        except (binascii.Error, ValueError):
            raise _unreadable("its rows and scores do not fit together") from None


class _Format(msgspec.Struct):
    format: int


def choose(rows: NDArray[np.float32], scores: NDArray[np.float64], *, most: int = MOST) -> NDArray[np.intp]:
    """Positions of the golden rows, ascending; the same for the same arguments.

    rows: float32 [n, k]; scores: their scores. Up to a quarter of `most` are rows with a missing value, the rest
    any; each part is spread evenly over the ranks of the scores, ends included.
    """
    ranked = np.argsort(scores, kind="stable")
    holed = ranked[np.isnan(rows[ranked]).any(axis=1)]
    first = _spread(holed, most // 4)
    rest = np.setdiff1d(ranked, first, assume_unique=True)
    rest = rest[np.argsort(scores[rest], kind="stable")]
    return np.sort(np.concatenate([first, _spread(rest, most - len(first))]))


def record(task: Task, rows: NDArray[np.float32], runtime: Scoring, *, most: int = MOST) -> bytes:
    """The bytes of "golden.json": golden rows chosen among `rows` (n >= 1) that `runtime` can score."""
    if runtime.no_missing.size:
        rows = rows[~np.isnan(rows[:, runtime.no_missing]).any(axis=1)]
    rows = rows[choose(rows, runtime.score(rows), most=most)]
    data = base64.b64encode(rows.astype(_LITTLE_FLOAT32).tobytes()).decode()
    return canonical_json(Golden(FORMAT, task, rows.shape[1], data, tuple(runtime.score(rows).tolist())))


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
    rows, wanted = golden.matrix(), np.array(golden.scores, dtype=np.float64)
    if not len(rows):
        raise _unreadable("it has no rows")
    together = runtime.score(rows)
    alone = np.array([runtime.score(rows[place : place + 1])[0] for place in range(len(rows))])
    allowed = scale(golden.task, wanted, float(np.median(np.abs(wanted))))
    off = np.maximum(np.abs(together - wanted), np.abs(alone - wanted)) / allowed
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
