"""Gates: is this fit good enough to become a version, and on what evidence?

A gate is declared with the model; after evaluation each gate gives a `GateResult` that holds the value looked
at, the threshold and the reason. A value that the rows do not define never passes. Gates only judge; what a
refusal means (a recorded run, no version) is decided by whoever asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from seatrial.core.errors import GateRefused, did_you_mean
from seatrial.core.signature import Task
from seatrial.features.definitions import BadDefinition
from seatrial.stats.metrics import MAIN, METRICS, Metric

Kind = Literal["at_least", "at_most", "cv_std_at_most", "cv_gap_at_most", "not_worse_than_champion"]
Metrics = Mapping[str, float | None]


class GatesNotPassed(GateRefused):
    """At least one gate of the model said no; the run is kept as evidence, no version was made."""

    code = "gate.not_passed"


@dataclass(frozen=True)
class Gate:
    """One condition; made by the constructors below.

    metric: the metric looked at; empty for the cross-validation gates, which look at the task's main metric
        (roc_auc for binary, r2 for regression).
    value: the threshold; None for the comparison with the champion.
    """

    kind: Kind
    metric: str = ""
    value: float | None = None

    def __post_init__(self) -> None:
        if self.metric or self.kind in ("at_least", "at_most", "not_worse_than_champion"):
            metric = _known(self.metric)
            if self.kind in ("at_least", "at_most"):
                self._check_direction(metric)
        if self.kind != "not_worse_than_champion":
            self._check_value()

    @staticmethod
    def at_least(metric: str, value: float) -> Gate:
        """The metric of the test part is `value` or more; for metrics that are better when higher."""
        return Gate("at_least", metric, value)

    @staticmethod
    def at_most(metric: str, value: float) -> Gate:
        """The metric of the test part is `value` or less; for metrics that are better when lower."""
        return Gate("at_most", metric, value)

    @staticmethod
    def cv_std_at_most(value: float) -> Gate:
        """The main metric's standard deviation over the folds (population form) is `value` or less."""
        return Gate("cv_std_at_most", value=value)

    @staticmethod
    def cv_gap_at_most(value: float) -> Gate:
        """The main metric's mean over the folds is at most `value` away from the test part's, either way."""
        return Gate("cv_gap_at_most", value=value)

    @staticmethod
    def not_worse_than_champion(metric: str) -> Gate:
        """The metric of the test part is not worse than the champion's on the same rows; passes without a champion."""
        return Gate("not_worse_than_champion", metric)

    def __str__(self) -> str:
        match self.kind:
            case "at_least":
                return f"{self.metric} at least {self.value:g}"
            case "at_most":
                return f"{self.metric} at most {self.value:g}"
            case "cv_std_at_most":
                return f"cross-validation spread at most {self.value:g}"
            case "cv_gap_at_most":
                return f"gap between cross-validation and test at most {self.value:g}"
            case "not_worse_than_champion":
                return f"{self.metric} not worse than the champion"

    def as_plain(self) -> dict[str, Any]:
        return {"kind": self.kind, "metric": self.metric, "value": self.value}

    def _check_direction(self, metric: Metric) -> None:
        right = "at_least" if metric.better == "higher" else "at_most"
        if self.kind != right:
            raise BadDefinition(
                f"a gate asks for {self.metric} {self.kind.replace('_', ' ')} {self.value}.",
                expected=f"{self.metric} is better when {metric.better}: write Gate.{right}('{self.metric}', ...).",
            )

    def _check_value(self) -> None:
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)) or not math.isfinite(self.value):
            raise BadDefinition(
                f"a gate ({self.kind}) has the threshold {self.value!r}.", expected="A finite number is expected."
            )


@dataclass(frozen=True)
class GateResult:
    """What one gate found.

    value: what was looked at; None when it is not defined.
    threshold: what it was compared with; None without a champion.
    """

    gate: Gate
    value: float | None
    threshold: float | None
    passed: bool
    reason: str

    def as_plain(self) -> dict[str, Any]:
        return {
            "gate": str(self.gate),
            **self.gate.as_plain(),
            "value": self.value,
            "threshold": self.threshold,
            "passed": self.passed,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Evidence:
    """What gates look at.

    metrics: of the test part. cv_mean, cv_std: of each metric over the folds; empty without cross-validation.
    champion: the champion's metrics on the same test rows; None when there is none.
    """

    task: Task
    metrics: Metrics
    cv_mean: Metrics
    cv_std: Metrics
    champion: Metrics | None = None
    champion_name: str = ""


def check_gates(gates: Sequence[Gate], task: Task, *, cv_folds: int) -> None:
    """Raise BadDefinition for a gate that the task or the number of folds can never satisfy."""
    for gate in gates:
        if gate.metric and gate.metric not in METRICS[task]:
            raise BadDefinition(
                f"the gate '{gate}' names a metric that a {task} model does not have.",
                expected=f"It has {', '.join(METRICS[task])}. {did_you_mean(gate.metric, METRICS[task])}".strip(),
            )
        if gate.kind.startswith("cv_") and not cv_folds:
            raise BadDefinition(
                f"the gate '{gate}' needs cross-validation, which cv_folds=0 turns off.",
                expected="Give the model cv_folds of 2 or more, or drop the gate.",
            )


def judge(gates: Sequence[Gate], evidence: Evidence) -> tuple[GateResult, ...]:
    """The result of every gate, in order."""
    return tuple(_judge(gate, evidence) for gate in gates)


def not_passed(model: str, results: Sequence[GateResult], *, state: str) -> GatesNotPassed:
    """The error for a model whose gates did not all pass.

    state: what was kept, for the message ("Run run_… is kept; no version was made.").
    """
    failed = [result for result in results if not result.passed]
    return GatesNotPassed(
        f"{len(failed)} of {len(results)} gates of model '{model}' did not pass.",
        expected="\n".join(f"  {result.gate}: {result.reason}" for result in failed),
        state=state,
        model=model,
        failed=[result.as_plain() for result in failed],
    )


def _judge(gate: Gate, evidence: Evidence) -> GateResult:
    main = MAIN[evidence.task]
    match gate.kind:
        case "at_least" | "at_most":
            return _compare(gate, f"{gate.metric} of the test part", evidence.metrics.get(gate.metric), gate.value)
        case "cv_std_at_most":
            return _compare(gate, f"spread of {main} over the folds", evidence.cv_std.get(main), gate.value)
        case "cv_gap_at_most":
            test, mean = evidence.metrics.get(main), evidence.cv_mean.get(main)
            gap = None if test is None or mean is None else abs(mean - test)
            return _compare(gate, f"gap of {main} between folds and test part", gap, gate.value)
        case "not_worse_than_champion":
            return _against_champion(gate, evidence)


def _against_champion(gate: Gate, evidence: Evidence) -> GateResult:
    value = evidence.metrics.get(gate.metric)
    if evidence.champion is None:
        return GateResult(gate, value, None, True, "no champion to compare with")
    what = f"{gate.metric} of the test part (champion: {evidence.champion_name})"
    return _compare(gate, what, value, evidence.champion.get(gate.metric))


def _compare(gate: Gate, what: str, value: float | None, threshold: float | None) -> GateResult:
    if value is None or threshold is None:
        return GateResult(gate, value, threshold, False, f"{what} is not defined on these rows")
    higher = gate.kind == "at_least" or (
        gate.kind == "not_worse_than_champion" and _known(gate.metric).better == "higher"
    )
    passed = value >= threshold if higher else value <= threshold
    relation = (">=" if higher else "<=") if passed else ("<" if higher else ">")
    return GateResult(gate, value, threshold, passed, f"{what} is {value:.6g} {relation} {threshold:.6g}")


def _known(name: str) -> Metric:
    known = {**METRICS["binary"], **METRICS["regression"]}
    if name not in known:
        raise BadDefinition(
            f"no metric is named {name!r}.",
            expected=f"Known are {', '.join(known)}. {did_you_mean(str(name), known)}".strip(),
        )
    return known[name]
