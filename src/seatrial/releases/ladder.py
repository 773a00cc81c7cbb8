"""In which form is a model released? The first of these that answers exactly like the trained one.

ONNX; else the estimator's own file, as training kept it: a booster's, or skops under seatrial's own list of types. The
latter is the trained model itself, but it is scored in another process, so it is compared all the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import msgspec
import numpy as np

from seatrial.core.errors import SeatrialError
from seatrial.core.signature import Rows, Signature
from seatrial.releases import parity
from seatrial.releases.formats import ONNX
from seatrial.releases.named import open_graph
from seatrial.releases.native import NativeModel, one_line
from seatrial.releases.onnx_export import ExportFailed, to_onnx
from seatrial.releases.parity import Parity
from seatrial.releases.runtime import ModelUnreadable, Scoring
from seatrial.releases.supervised import Cost, SupervisedRuntime


@dataclass(frozen=True)
class Form:
    """The model as it is released.

    runtime: it, loaded to score, refusing missing values where the estimator does.
    cost: of the child process, measured here; None for ONNX, which needs none.
    """

    format: str
    data: bytes = field(repr=False)
    parity: Parity
    runtime: Scoring
    cost: Cost | None = None


def choose(native: NativeModel, rows: Rows, signature: Signature, name: str, *, threshold: float) -> Form:
    """The form in which `native` is released, with the certificate that it answers the same.

    rows: those on which parity is shown. name: the model's, for messages.
    Raises ParityRefused, when the native model cannot score `rows` or differs from itself in a child process, and
    what loading the native model raises.
    """
    form = _as_onnx(native, rows, signature, threshold)
    return form if isinstance(form, Form) else _as_it_is(native, rows, signature, name, threshold, _lasting(form))


def _as_onnx(native: NativeModel, rows: Rows, signature: Signature, threshold: float) -> Form | str:
    """The ONNX form; why there is none, in words, when there is none."""
    try:
        # a graph from elsewhere is its own native form: what is shown is that its answers are steady and finite
        model = native.data if native.format == ONNX else to_onnx(native, len(signature.inputs), signature)
        found = parity.compare(native, model, rows, signature, threshold=threshold)
    except ExportFailed as error:
        return error.found
    except ModelUnreadable as error:
        return error.found
    except SeatrialError:
        raise
    except Exception as error:  # onnxruntime raises what it likes
        return f"onnxruntime raised {type(error).__name__} on what was exported: {one_line(error)}"
    if not found.passed:
        return f"As ONNX it {parity.difference(found)}."
    runtime = open_graph(model, signature, no_missing=_refused(found, signature), no_unseen=found.refuses_unseen)
    return Form(ONNX, model, found, runtime)


def _as_it_is(native: NativeModel, rows: Rows, signature: Signature, name: str, threshold: float, reason: str) -> Form:
    child = SupervisedRuntime(native.format, native.data, native.task, len(signature.inputs))
    found = parity.compare(native, child, rows, signature, threshold=threshold)
    parity.require(found, name)
    cost = child.cost(rows)
    child.no_missing = np.array(_refused(found, signature), dtype=np.intp)
    return Form(native.format, native.data, msgspec.structs.replace(found, refused=reason), child, cost)


def _refused(found: Parity, signature: Signature) -> list[int]:
    return sorted(signature.inputs.index(name) for name in found.refuses_missing)


def _lasting(reason: str) -> str:
    """The reason without what differs from process to process, since it is part of a release."""
    return re.sub(r"(?<![\w.])/(?:[\w.-]+/)+", "", re.sub(r"0x[0-9a-fA-F]+", "0x", reason))
