"""One prediction, explained: what was served, what should have been, what other releases would have said, who let it.

The features as served stand beside the same features recomputed as of the same instant from the project's tables;
a difference is skew between training and serving, whatever the metrics say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from seatrial.core.errors import listed
from seatrial.core.signature import Signature, encode
from seatrial.governance.lineage import Lineage
from seatrial.releases.bundle import Bundle

TOLERANCE = 1e-6
"""How far a replayed score may be from the logged one."""


class ExplainedInput(msgspec.Struct, frozen=True):
    """One input of the model.

    served: as logged. recomputed: as of the same instant, from the tables as they are now; None with `known` false
    when it could not be recomputed. equal: bit by bit, missing equals missing.
    view, status, age_s: of the look-up; empty and None for request fields and functions. logged: False for a personal
        column, which was served and not written down.
    """

    name: str
    served: Any
    recomputed: Any
    known: bool
    equal: bool
    view: str = ""
    status: str = ""
    age_s: float | None = None
    logged: bool = True


class Replayed(msgspec.Struct, frozen=True):
    """What a release answers for the inputs as served. same: equal to what was logged, for the one that answered.

    score: of a multiclass model the probability of the class that was predicted; `note` says when it says another.
    """

    role: str
    release: str
    version: str
    score: float | None
    same: bool | None
    note: str = ""


class Explained(msgspec.Struct, frozen=True):
    """One prediction. approvals: who let its release go live. label: what happened, when known.

    others: the ids of the request's other predictions, when it was asked for by its request.
    """

    prediction_id: str
    request_id: str
    model: str
    version: str
    release: str
    at: str
    caller: str
    score: float | None
    latency_ms: float | None
    degraded: list[str]
    label: dict[str, Any] | None
    inputs: list[ExplainedInput]
    different: int
    replays: list[Replayed]
    approvals: list[dict[str, Any]]
    lineage: Lineage
    note: str = ""
    others: list[str] = []


def inputs_of(
    row: Mapping[str, Any], names: Sequence[str], recomputed: Mapping[str, Any] | None
) -> list[ExplainedInput]:
    """Every input of a logged row beside its recomputation. recomputed: input -> value; None: not possible."""
    found = []
    for name in names:
        served = row.get(f"feature_{name}")
        view = name.partition("__")[0] if "__" in name else ""
        status = row.get(f"view_{view}_status") if view else None
        again = recomputed.get(name) if recomputed is not None else None
        found.append(
            ExplainedInput(
                name=name,
                served=served,
                recomputed=again,
                known=recomputed is not None,
                equal=recomputed is None or _equal(served, again),
                view=view if status is not None else "",
                status=status or "",
                age_s=row.get(f"view_{view}_age_s") if view else None,
                logged=f"feature_{name}" in row,
            )
        )
    return found


def replay(role: str, bundle: Bundle, row: Mapping[str, Any], logged: float | None) -> Replayed:
    """What a release answers for the inputs of a logged row; in words when it reads inputs that were not logged."""
    manifest = bundle.manifest
    missing = [name for name in manifest.signature.inputs if f"feature_{name}" not in row]
    facts: dict[str, Any] = {"role": role, "release": bundle.id, "version": str(manifest.version)}
    if missing:
        return Replayed(**facts, score=None, same=None, note=f"not known: it reads {listed(missing)}, not logged")
    scores = bundle.runtime().score(_encoded(manifest.signature, row))[0]
    if manifest.signature.task == "multiclass":
        names = [str(name) for name in manifest.signature.classes]
        said = row.get("predicted_class")
        if said not in names:
            return Replayed(**facts, score=None, same=None, note=f"it knows no class '{said}'")
        score, likeliest = float(scores[names.index(said)]), names[int(scores.argmax())]
        facts["note"] = "" if likeliest == said else f"it says '{likeliest}'"
    else:
        score = float(scores)
    same = None if role != "answered" or logged is None else math.isclose(score, logged, abs_tol=TOLERANCE)
    return Replayed(**facts, score=score, same=same)


def _encoded(signature: Signature, row: Mapping[str, Any]) -> Any:
    columns = {name: [row[f"feature_{name}"]] for name in signature.inputs}
    inputs, _ = encode(signature, columns)
    return inputs


def _equal(served: Any, again: Any) -> bool:
    missing = [value is None or value != value for value in (served, again)]
    if any(missing):
        return all(missing)
    if isinstance(served, str) or isinstance(again, str):
        return bool(served == again)
    return float(served) == float(again)
