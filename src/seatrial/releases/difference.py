"""What is different between two releases, and do they answer alike?

The golden rows of each are scored by the other, and everything that the manifests say is compared. What differs comes
in groups (inputs, features, parameters, data, code, environment, ...), so that a release that was only built again in
another environment, and must answer the same, can be told from one that was trained on other data.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import SeatrialError, listed
from seatrial.core.identity import canonical_json
from seatrial.core.signature import Rows, columns_of, encode
from seatrial.releases.bundle import GOLDEN, LOCK, Bundle
from seatrial.releases.golden import read_golden
from seatrial.releases.parity import TOLERANCE, scale

Verdict = Literal["identical", "environment only", "equal", "different"]


class Changed(msgspec.Struct, frozen=True):
    """One thing that is not the same. group: of which kind it is; a, b: its value there, None where it is not."""

    group: str
    name: str
    a: Any
    b: Any


class Replay(msgspec.Struct, frozen=True):
    """The golden rows of one release, scored by the other.

    rows: how many; largest: the largest difference of a score, relative to the row's scale for regression; decisions:
    how many rows are decided otherwise. equal: no score differs by more than 1e-6 and no decision differs.
    problem: why they could not be scored; then nothing else counts.
    """

    golden_of: str
    scored_by: str
    rows: int = 0
    largest: float | None = None
    decisions: int = 0
    equal: bool = False
    problem: str = ""


class Difference(msgspec.Struct, frozen=True):
    """Two releases beside each other.

    verdict: "identical": one release; "environment only": nothing but the environment differs, and then `equal` must
    hold; "equal": they answer alike on the golden rows of both, though made otherwise; "different".
    same_model: the model's file is the same, byte by byte. words: the verdict in a sentence.
    """

    a: str
    b: str
    verdict: Verdict
    equal: bool
    same_model: bool
    words: str
    changed: list[Changed]
    replays: list[Replay]


def compare(a: Bundle, b: Bundle) -> Difference:
    """What is different in `b`, and how each answers the other's golden rows. The bundles are verified already."""
    changed = _changed(a, b)
    replays = [_replay(a, b), _replay(b, a)]
    equal = all(one.equal for one in replays)
    groups = {one.group for one in changed} - {"version", "metrics", "gates", "parity", "evidence"}
    if a.id == b.id:
        verdict: Verdict = "identical"
    elif groups == {"environment"}:
        verdict = "environment only"
    else:
        verdict = "equal" if equal else "different"
    same_model = a.manifest.files[_model(a)].digest == b.manifest.files[_model(b)].digest
    words = _words(verdict, equal, same_model, sorted(groups), replays)
    return Difference(a.id, b.id, verdict, equal, same_model, words, changed, replays)


def _words(verdict: Verdict, equal: bool, same_model: bool, groups: list[str], replays: list[Replay]) -> str:
    if verdict == "identical":
        return "It is the same release."
    answers = "they answer the same" if equal else "THEY DO NOT ANSWER THE SAME"
    problem = next((one.problem for one in replays if one.problem), "")
    if problem:
        answers = f"their answers cannot be compared: {problem}"
    if verdict == "environment only":
        rest = ", with the same model file" if same_model else ", though the model's file differs" if equal else ""
        expected = "" if equal else "; a build in another environment must be equal"
        return f"Only the environment differs: {answers}{rest}{expected}."
    if not groups:
        return f"Only the version differs: {answers}."
    if equal:
        verb = "differs" if len(groups) == 1 else "differ"
        return f"They answer the same on the golden rows of both, though {listed(groups)} {verb}."
    return f"Different: {listed(groups)}; on the golden rows of both {answers}."


def _replay(a: Bundle, b: Bundle) -> Replay:
    """The golden rows of `a`, scored by `b`."""
    about: dict[str, Any] = {"golden_of": a.id, "scored_by": b.id}
    if a.manifest.signature.task != b.manifest.signature.task:
        return Replay(**about, problem=f"one is {a.manifest.signature.task}, the other {b.manifest.signature.task}")
    absent = [name for name in b.manifest.signature.inputs if name not in a.manifest.signature.inputs]
    if absent:
        return Replay(**about, problem=f"{listed(absent)} is no input of {a.id}")
    try:
        golden = read_golden(a.files[GOLDEN])
        wanted = golden.wanted()
        rows = _translated(a, b, golden.given())
        scores = b.runtime().score(rows)
    except (SeatrialError, KeyError) as error:
        return Replay(**about, problem=error.found if isinstance(error, SeatrialError) else str(error))
    if scores.shape != wanted.shape:
        return Replay(**about, problem=f"scores are {list(scores.shape)}, wanted {list(wanted.shape)}")
    allowed = scale(a.manifest.signature.task, wanted, float(np.median(np.abs(wanted)))) if wanted.size else 1.0
    off = np.abs(scores - wanted) / allowed
    largest = float(off.max()) if off.size else 0.0
    decisions = int((_decided(a, wanted) != _decided(b, scores)).sum())
    return Replay(**about, rows=len(wanted), largest=largest, decisions=decisions, equal=_alike(largest, decisions))


def _alike(largest: float, decisions: int) -> bool:
    return largest <= TOLERANCE and decisions == 0


def _translated(a: Bundle, b: Bundle, rows: Rows) -> Rows:
    """Rows that are encoded for `a`, as `b` encodes the same values: by name, and with its own categories."""
    ours, theirs = a.manifest.signature, b.manifest.signature
    columns: dict[str, Any] = columns_of(ours, rows)
    if ours.layout == "named":
        return encode(theirs, columns)[0]
    for name in ours.inputs:
        values = columns[name].astype(np.float64)
        if name in ours.categories:
            known = ours.categories[name]
            columns[name] = [None if np.isnan(code) else known[int(code)] for code in values]
        else:
            columns[name] = values
    return encode(theirs, columns)[0]


def _decided(bundle: Bundle, scores: NDArray[np.float64]) -> NDArray[Any]:
    """What each score is decided as; for a regression nothing is."""
    if scores.ndim == 2:
        return np.asarray(scores.argmax(axis=1))
    threshold = bundle.manifest.threshold
    return np.zeros(len(scores)) if threshold is None else np.asarray(scores >= threshold)


def _changed(a: Bundle, b: Bundle) -> list[Changed]:
    """Everything that the manifests and the locks say otherwise, group by group."""
    first, second = _facts(a), _facts(b)
    found = []
    for group in first:
        for name in {**first[group], **second[group]}:
            here, there = first[group].get(name), second[group].get(name)
            if canonical_json(here) != canonical_json(there):
                found.append(Changed(group, name, here, there))
    return found


def _facts(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Group -> name -> plain value."""
    manifest = bundle.manifest
    lineage, plain = manifest.lineage, msgspec.to_builtins(manifest)
    signature = plain["signature"]
    categories, integers = signature.pop("categories"), signature.pop("integers")
    inputs = {
        name: {"position": place, "categories": categories.get(name), "integer": name in integers}
        for place, name in enumerate(signature.pop("inputs"))
    }
    request = {field["name"]: {**field, "description": ""} for field in signature.pop("request")}
    more = dict(lineage.more)
    around = {str(name): more.pop(name) for name in ("threads", "python", "cpu", "blas") if name in more}
    evidence = {str(name): more.pop(name) for name in ("parity_window",) if name in more}
    gates = {str(gate.get("gate")): {k: gate.get(k) for k in ("passed", "value")} for gate in manifest.gates}
    return {
        "version": {"version": manifest.version, "semantic version": manifest.semantic_version},
        "request": request,
        "inputs": inputs,
        "signature": signature,
        "features": {view.name: view.digest for view in manifest.plan.views}
        | {function.name: function.source for function in manifest.plan.functions},
        "estimator": {"estimator": manifest.estimator, "format": manifest.model_format},
        "parameters": dict(manifest.parameters),
        "threshold": {"threshold": manifest.threshold},
        "data": {"training set": lineage.training_set, "snapshots": list(lineage.snapshots), **more},
        "code": {"definitions": lineage.definitions, "commit": lineage.commit, "not committed": lineage.dirty},
        "metrics": dict(manifest.metrics),
        "gates": gates,
        "parity": {"largest difference": manifest.parity.largest, "passed": manifest.parity.passed},
        "evidence": evidence,
        "environment": {"lock": lineage.lock, **around, **_packages(bundle)},
        "people": {name: getattr(manifest, name) for name in ("owner", "on_call", "runbook", "description")},
    }


def _packages(bundle: Bundle) -> dict[str, str]:
    """Name -> version of the pinned packages."""
    lines = bundle.files.get(LOCK, b"").decode(errors="replace").splitlines()
    pinned = (line.partition(";")[0].strip().partition("==") for line in lines if "==" in line)
    return {f"package {name}": version for name, _, version in pinned}


def _model(bundle: Bundle) -> str:
    return next(name for name in bundle.manifest.files if name.startswith("model."))
