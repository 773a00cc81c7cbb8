"""Scores from a model whose inputs are named: an ONNX graph with one input for each column.

Numbers go in as float32 [n, 1] with NaN for missing, categories as strings [n, 1]. ONNX has no missing string, so the
graph knows one string that stands for it, `MISSING`; it is a noncharacter of Unicode, which no text holds. Imports
numpy and onnxruntime, and nothing that trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import Failed
from seatrial.core.signature import NamedRows, Rows, Signature
from seatrial.releases.runtime import OUTPUT, ModelUnreadable, Runtime, WrongShape, not_finite, refuse_missing, session

MISSING = "\ufdd0"

_TYPES = {"tensor(float)": "numbers", "tensor(string)": "strings"}


class UnseenNotAccepted(Failed):
    """A row holds a category that was never seen in training, and the estimator takes none."""

    code = "runtime.unseen_not_accepted"


def open_graph(
    model: bytes,
    signature: Signature,
    threads: int = 1,
    *,
    no_missing: Sequence[int] = (),
    no_unseen: Sequence[str] = (),
) -> Runtime:
    """The runtime that an ONNX graph of this signature needs. Raises ModelUnreadable."""
    if signature.layout == "packed":
        return Runtime(model, threads, no_missing=no_missing)
    known = {name: frozenset(signature.categories[name]) for name in no_unseen}
    return NamedRuntime(model, threads, no_missing=no_missing, known=known)


class NamedRuntime(Runtime):
    """One loaded model with named inputs; `score` may be called from several threads.

    no_missing: positions of inputs for which missing values are refused. known: for inputs whose unseen categories are
    refused, those that were seen.
    """

    def __init__(
        self,
        model: bytes,
        threads: int = 1,
        *,
        no_missing: Sequence[int] = (),
        known: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self._session = session(model, threads)
        given, answered = self._session.get_inputs(), self._session.get_outputs()
        if any(one.type not in _TYPES for one in given) or [one.name for one in answered] != [OUTPUT]:
            raise ModelUnreadable(
                f"the model takes {[one.type for one in given]} and gives {[one.name for one in answered]}.",
                expected="Inputs of float32 or strings [n, 1], and one output 'score' are expected.",
                state="Nothing was loaded.",
            )
        self._given = [(one.name, _TYPES[one.type] == "strings") for one in given]
        self.inputs = len(given)
        self.many = len(answered[0].shape) == 2
        self.no_missing = np.array(sorted(no_missing), dtype=np.intp)
        self._known = dict(known or {})

    def score(self, rows: Rows) -> NDArray[np.float64]:
        """P(positive) or the value of each row, float64 [n], or the probabilities of C classes, [n, C]; all finite.

        rows: columns in the order of the signature's inputs; n may be 0.
        Raises WrongShape, MissingNotAccepted, UnseenNotAccepted and ScoreNotFinite; then no row has a score.
        """
        if not isinstance(rows, NamedRows) or len(rows.columns) != self.inputs:
            raise WrongShape(f"rows are no {self.inputs} columns by name.", expected="Encode them by the signature.")
        if not len(rows):
            return self._nothing()
        if self.no_missing.size:
            refuse_missing(rows.missing(), self.no_missing)
        for name, known in self._known.items():
            bad = [value is not None and value not in known for value in rows.columns[name]]
            if any(bad):
                raise UnseenNotAccepted(
                    f"input '{name}' of row {bad.index(True)} is a category that was never seen in training.",
                    expected="The estimator was fitted to refuse such values.",
                    next="Send a known one, or train with an encoder that ignores what it does not know.",
                    state="No score was given.",
                    input=name,
                )
        feed = {
            name: _strings(values) if strings else values.astype(np.float32, copy=False).reshape(-1, 1)
            for (name, strings), values in zip(self._given, rows.columns.values(), strict=True)
        }
        scores: NDArray[np.float64] = self._session.run([OUTPUT], feed)[0].astype(np.float64)
        if not np.isfinite(scores).all():
            raise not_finite(scores)
        return scores


def _strings(values: NDArray[np.object_]) -> NDArray[np.object_]:
    strings = np.empty((len(values), 1), dtype=object)
    strings[:, 0] = [MISSING if value is None else value for value in values]
    return strings
