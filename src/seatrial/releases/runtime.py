"""Scores from an exported model: what the server runs, and what parity and golden rows are checked against.

It imports numpy and onnxruntime, and nothing that trains. A score that is not a finite number is never returned.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from seatrial.core.errors import Failed, UsageError
from seatrial.core.signature import NamedRows, Rows
from seatrial.releases.formats import ONNX, model_file

if TYPE_CHECKING:
    from seatrial.releases.bundle import Bundle

_INPUT, OUTPUT = "input", "score"
_CPU = "CPUExecutionProvider"
_FATAL = 4


class ModelUnreadable(Failed):
    """The bytes are no ONNX model of seatrial's shape, or this runtime is too old for them."""

    code = "runtime.model_unreadable"


class WrongShape(UsageError):
    """Rows do not have the number of columns that the model takes."""

    code = "runtime.wrong_shape"


class MissingNotAccepted(Failed):
    """A row lacks a value that the estimator never accepted as missing; a score for it would be invented."""

    code = "runtime.missing_not_accepted"


class ScoreNotFinite(Failed):
    """The model answered with NaN or an infinity; no answer is better than that one."""

    code = "runtime.score_not_finite"
    http_status = 500


class Scoring(Protocol):
    """A loaded model, wherever it runs: `Runtime` in this process, `supervised.SupervisedRuntime` in a child.

    inputs: how many columns rows have. no_missing: positions of inputs for which NaN is refused.
    """

    inputs: int
    no_missing: NDArray[np.intp]

    def score(self, rows: Rows) -> NDArray[np.float64]:
        """The score of each row, [n] or [n, C], all finite. Raises WrongShape, MissingNotAccepted, ScoreNotFinite."""
        ...


def open_runtime(bundle: Bundle, threads: int = 1, *, checked: bool = True) -> Scoring:
    """The model of an opened bundle, loaded to score; one that has no ONNX form is loaded in a child process.

    threads: threads for one call. checked: refuse missing values where the estimator does; a caller that has looked
        itself saves the second look.
    Raises ModelUnreadable, FormatUnknown and ChildUnavailable.
    """
    from seatrial.releases.named import open_graph

    manifest = bundle.manifest
    model = bundle.files[model_file(manifest.model_format)]
    no_missing = manifest.no_missing if checked else ()
    if manifest.model_format == ONNX:
        no_unseen = manifest.parity.refuses_unseen if checked else ()
        return open_graph(model, manifest.signature, threads, no_missing=no_missing, no_unseen=no_unseen)
    from seatrial.releases.supervised import SupervisedRuntime

    signature = manifest.signature
    return SupervisedRuntime(
        manifest.model_format, model, signature.task, len(signature.inputs), threads, no_missing=no_missing
    )


class Runtime:
    """One loaded model; `score` may be called from several threads.

    model: the bytes that `onnx_export.to_onnx` made.
    threads: threads for one call; 1 is fastest for single rows and makes sums repeatable.
    no_missing: positions of inputs for which NaN is refused, because the estimator itself refuses it
        (`Parity.refuses_missing`).
    """

    def __init__(self, model: bytes, threads: int = 1, *, no_missing: Sequence[int] = ()) -> None:
        self._session = session(model, threads)
        self.inputs, self.many = self._check_shape()
        self.no_missing = np.array(sorted(no_missing), dtype=np.intp)
        # The wrapper's own run() costs more than a small model; it is the documented way, so it stays as fallback.
        self._run = getattr(getattr(self._session, "_sess", None), "run", None) or self._session.run
        if not self.many:
            self._bind()

    def _bind(self) -> None:
        # One row goes in and out through arrays that are bound once; that halves what a small model costs.
        self._lock = threading.Lock()
        self._row = np.zeros((1, self.inputs), np.float32)
        self._score = np.zeros(1, np.float32)
        binding = self._session.io_binding()
        binding.bind_input(_INPUT, "cpu", 0, np.float32, self._row.shape, self._row.ctypes.data)
        binding.bind_output(OUTPUT, "cpu", 0, np.float32, self._score.shape, self._score.ctypes.data)
        # the wrapper's own call, as in __init__, with the wrapper itself as the fallback
        raw = getattr(getattr(self._session, "_sess", None), "run_with_iobinding", None)
        inner = getattr(binding, "_iobinding", None)
        self._run_bound: Callable[[], None] = partial(self._session.run_with_iobinding, binding)
        if raw is not None and inner is not None:
            self._run_bound = partial(raw, inner, None)
        self._binding = binding
        self._row_bytes = self._row.reshape(-1).data.cast("B")
        self._row_values = self._row.reshape(-1).data
        self._score_value = self._score.data
        self._strict = bool(self.no_missing.size)

    def score_row(self, packed: bytes) -> float:
        """`score` of one row without an array in between, for models with one score a row (not `many`).

        packed: the inputs as float32 in the machine's byte order, NaN for missing.
        Raises MissingNotAccepted and ScoreNotFinite.
        """
        with self._lock:
            self._row_bytes[:] = packed
            if self._strict and math.isnan(sum(self._row_values)):
                refuse_missing(np.isnan(self._row), self.no_missing)
            self._run_bound()
            score: float = self._score_value[0]
        if not math.isfinite(score):
            raise not_finite(np.array([score]))
        return score

    def score(self, rows: Rows) -> NDArray[np.float64]:
        """P(positive) or the value of each row, or the probabilities of C classes.

        rows: float32 [n, k] in the order of the signature's inputs, NaN for missing; n may be 0.
        Returns float64 [n], or [n, C] of a model of many classes (`many`), all finite.
        Raises WrongShape, MissingNotAccepted and ScoreNotFinite; then no row has a score.
        """
        if isinstance(rows, NamedRows) or rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != self.inputs:
            what = "columns by name" if isinstance(rows, NamedRows) else f"{rows.dtype} {list(rows.shape)}"
            raise WrongShape(f"rows are {what}.", expected=f"float32 [n, {self.inputs}] is expected.")
        if not len(rows):
            return self._nothing()
        if self.no_missing.size:
            refuse_missing(np.isnan(rows), self.no_missing)
        if len(rows) == 1 and not self.many:
            with self._lock:
                self._row[:] = rows
                self._run_bound()
                scores = self._score.astype(np.float64)
        else:
            scores = self._run([OUTPUT], {_INPUT: rows}, None)[0].astype(np.float64)
        if not (math.isfinite(scores[0]) if scores.size == 1 else np.isfinite(scores).all()):
            raise not_finite(scores)
        return scores

    def _nothing(self) -> NDArray[np.float64]:
        """The scores of no rows."""
        return np.empty((0, int(self._session.get_outputs()[0].shape[1])) if self.many else 0)

    def _check_shape(self) -> tuple[int, bool]:
        """How many inputs there are, and whether there is a score for each of many classes."""
        given, answered = self._session.get_inputs(), self._session.get_outputs()
        shape = given[0].shape if given else []
        fits = (
            [(i.name, i.type) for i in given] == [(_INPUT, "tensor(float)")]
            and [(o.name, o.type) for o in answered] == [(OUTPUT, "tensor(float)")]
            and len(shape) == 2
            and isinstance(shape[1], int)
            and len(answered[0].shape) in (1, 2)
        )
        if not fits:
            raise ModelUnreadable(
                f"the model takes {[i.name for i in given]} and gives {[o.name for o in answered]}.",
                expected="One input 'input', float32 [n, k], and a 'score', float32 [n] or [n, C], are expected.",
                state="Nothing was loaded.",
            )
        return int(shape[1]), len(answered[0].shape) == 2


def refuse_missing(missing: NDArray[np.bool_], no_missing: NDArray[np.intp]) -> None:
    """Raise MissingNotAccepted for the first row without a value in one of the inputs at `no_missing`.

    missing: (n, k), where there is no value.
    """
    missing = missing[:, no_missing]
    if missing.any():
        row, place = np.unravel_index(int(missing.argmax()), missing.shape)
        position = int(no_missing[place])
        raise MissingNotAccepted(
            f"input {position} of row {int(row)} is missing, and the estimator accepts no missing value there.",
            expected="It was fitted without missing values and has no imputer.",
            next="Send the value, or train with an imputer.",
            state="No score was given.",
            input=position,
        )


def not_finite(scores: NDArray[np.float64]) -> ScoreNotFinite:
    """The error for scores, [n] or [n, C], that are not all finite numbers."""
    bad = ~np.isfinite(scores.reshape(len(scores), -1)).all(axis=1)
    return ScoreNotFinite(
        f"the model's score of row {int(bad.argmax())} is not a finite number ({int(bad.sum())} such rows).",
        expected="A model without an imputer gives NaN when an input is missing.",
        next="Send the missing value, or train with an imputer.",
        state="No score was given.",
    )


def session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """A session over an ONNX graph, loaded in onnxruntime's own format, which takes a quarter of the memory that a
    graph of trees takes as ONNX. Raises ModelUnreadable."""
    try:
        with _scratch() as place:
            options = _options(threads)
            options.optimized_model_filepath = place
            options.add_session_config_entry("session.save_model_format", "ORT")
            onnxruntime.InferenceSession(model, options, providers=[_CPU])
            options = _options(threads)
            options.add_session_config_entry("session.load_model_format", "ORT")
            return onnxruntime.InferenceSession(place, options, providers=[_CPU])
    except Exception as error:  # a converter or loader raises what it likes
        raise ModelUnreadable(
            f"onnxruntime {onnxruntime.__version__} cannot load the model: {' '.join(str(error).split())[:200]}",
            expected="The file model.onnx of a release is expected.",
            state="Nothing was loaded.",
        ) from error


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # it would keep what the largest request took, for each of many releases
    # weights in other files would be read from wherever the server was started; below a file there is none
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    options.log_severity_level = _FATAL  # failures are raised; what it logs besides is not for users
    return options


@contextmanager
def _scratch() -> Iterator[str]:
    """A file that is gone afterwards; in memory where the system has such, so that no disk is needed."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("seatrial-model")
        try:
            yield f"/proc/self/fd/{number}"
        finally:
            os.close(number)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield str(Path(folder) / "model.ort")
