"""Gates: is this fit good enough to become a version, and on what evidence?

A gate is declared with the model; after evaluation each gate gives a `GateResult` that holds the value looked at, the
threshold and the reason. A value that the rows do not define never passes. Gates of the project hold for every model; a
model is excused from one only by a written reason, which is kept with the result. Gates only judge; what a refusal
means (a recorded run, no version) is decided by whoever asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from seatrial.core.declared import declare
from seatrial.core.errors import GateRefused, did_you_mean, listed
from seatrial.core.signature import Task
from seatrial.features.definitions import BadDefinition
from seatrial.stats.bootstrap import Difference
from seatrial.stats.metrics import MAIN, METRICS, Metric

if TYPE_CHECKING:
    from seatrial.training.slices import Sliced

Kind = Literal[
    "at_least",
    "at_most",
    "cv_std_at_most",
    "cv_gap_at_most",
    "overfit_gap_at_most",
    "slice_at_least",
    "slice_at_most",
    "fairness_gap_at_most",
    "latency_at_most",
    "size_at_most",
    "not_worse_than_champion",
    "remembers",
]
Metrics = Mapping[str, float | None]

DIRECTED: dict[str, str] = {"at_least": "", "at_most": "", "slice_at_least": "slice_", "slice_at_most": "slice_"}
"""Kinds that hold a metric to a value in its better direction, and what their constructors' names begin with."""
OF_METRIC = (*DIRECTED, "not_worse_than_champion")
FAIR = ("positive_rate", "recall", "precision", "accuracy")
UNITS = {"": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
MIN_ROWS = 200


class GatesNotPassed(GateRefused):
    """At least one gate of the model said no; the run is kept as evidence, no version was made."""

    code = "gate.not_passed"


@dataclass(frozen=True)
class Gate:
    """One condition; made by the constructors below.

    metric: the metric looked at; empty for the cross-validation gates, which look at the task's main metric
        (roc_auc for binary, r2 for regression).
    value: the threshold; None for the comparison with the champion by its value. For the fairness gap `metric` is what
        is compared between groups, for the comparison with a margin `value` is the margin.
    by: the column whose values part the test rows. min_rows: a part with fewer rows is not judged.
    """

    kind: Kind
    metric: str = ""
    value: float | None = None
    by: str = ""
    min_rows: int = 0

    def __post_init__(self) -> None:
        if self.kind == "fairness_gap_at_most":
            self._check_fair()
        elif self.metric or self.kind in OF_METRIC:
            metric = _known(self.metric)
            if self.kind in DIRECTED:
                self._check_direction(metric)
        if self.kind != "not_worse_than_champion" or self.value is not None:
            self._check_value()
        if self.kind.startswith(("slice_", "fairness_")):
            self._check_parts()

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
    def overfit_gap_at_most(value: float, metric: str = "") -> Gate:
        """The fit is better on the rows that it learned from than on the test part by at most `value`.

        metric: by default the task's main one.
        """
        return Gate("overfit_gap_at_most", metric, value)

    @staticmethod
    def slice_at_least(metric: str, value: float, *, by: str, min_rows: int = MIN_ROWS) -> Gate:
        """The metric of every value of the column `by` with `min_rows` test rows or more is `value` or more."""
        return Gate("slice_at_least", metric, value, by, min_rows)

    @staticmethod
    def slice_at_most(metric: str, value: float, *, by: str, min_rows: int = MIN_ROWS) -> Gate:
        """The metric of every value of the column `by` with `min_rows` test rows or more is `value` or less."""
        return Gate("slice_at_most", metric, value, by, min_rows)

    @staticmethod
    def fairness_gap_at_most(value: float, *, by: str, of: str = "positive_rate", min_rows: int = MIN_ROWS) -> Gate:
        """The largest difference between two values of the column `by` is `value` or less, in the test part.

        of: "positive_rate", the share of positive decisions (demographic parity), "recall" (equal opportunity: Hardt,
        Price and Srebro 2016), "precision" or "accuracy". Values with fewer than `min_rows` rows do not count.
        """
        return Gate("fairness_gap_at_most", of, value, by, min_rows)

    @staticmethod
    def latency_at_most(milliseconds: float) -> Gate:
        """The trained estimator scores one row in this time, by the median of 5 rounds of 40 on this machine.

        That is not the form that serves: ONNX is often much faster. And it is time of a machine that others use too:
        a budget with room, or the gate refuses on a busy day.
        """
        return Gate("latency_at_most", value=milliseconds)

    @staticmethod
    def size_at_most(size: float | str) -> Gate:
        """The native model is of this many bytes, or of "5 MB", "512 KiB" and the like."""
        return Gate("size_at_most", value=_bytes(size) if isinstance(size, str) else size)

    @staticmethod
    def not_worse_than_champion(metric: str, *, margin: float | None = None) -> Gate:
        """The metric is not worse than the champion's on the test rows that it has not learned from, or, where these
        are fewer than 200, than on the champion's own test part; passes without a champion.

        margin: without it the two values are compared as they are. With it the model passes only when the whole
        interval of the difference (paired bootstrap, drawn in blocks of time) is above -margin, in the better
        direction: it is shown not to be worse by more than that, and too few rows to tell do not pass.
        """
        return Gate("not_worse_than_champion", metric, margin)

    @staticmethod
    def remembers(share: float) -> Gate:
        """A training that goes on from a fit has forgotten little: on a sample of the rows that the fit learned from,
        its log loss (of a regression the mean squared error) is higher by at most this share. Passes when it learns
        anew.
        """
        return Gate("remembers", value=share)

    def __str__(self) -> str:
        match self.kind:
            case "remembers":
                return f"what was known forgotten by at most {self.value:.0%}"
            case "at_least":
                return f"{self.metric} at least {self.value:g}"
            case "at_most":
                return f"{self.metric} at most {self.value:g}"
            case "cv_std_at_most":
                return f"cross-validation spread at most {self.value:g}"
            case "cv_gap_at_most":
                return f"gap between cross-validation and test at most {self.value:g}"
            case "overfit_gap_at_most":
                of = f" of {self.metric}" if self.metric else ""
                return f"gap{of} between training and test at most {self.value:g}"
            case "slice_at_least" | "slice_at_most":
                limit = "at least" if self.kind == "slice_at_least" else "at most"
                return f"{self.metric} {limit} {self.value:g} by {self.by}{self._from_rows}"
            case "fairness_gap_at_most":
                return f"gap of {self.metric} by {self.by} at most {self.value:g}{self._from_rows}"
            case "latency_at_most":
                return f"a row scored in at most {self.value:g} ms"
            case "size_at_most":
                return f"at most {self.value:,.0f} bytes"
            case "not_worse_than_champion":
                margin = "" if self.value is None else f" by more than {self.value:g}"
                return f"{self.metric} not worse than the champion{margin}"

    def as_plain(self) -> dict[str, Any]:
        plain = {"kind": self.kind, "metric": self.metric, "value": self.value}
        return plain | ({"by": self.by, "min_rows": self.min_rows} if self.by else {})

    def fits(self, task: Task) -> bool:
        """Whether a model of this task has what the gate looks at."""
        if self.kind == "fairness_gap_at_most":
            return task == "binary"
        return not self.metric or self.metric in METRICS[task]

    @property
    def _from_rows(self) -> str:
        return "" if self.min_rows == MIN_ROWS else f" from {self.min_rows} rows"

    def _check_fair(self) -> None:
        if self.metric not in FAIR:
            raise BadDefinition(
                f"a fairness gap is asked for of {self.metric!r}.",
                expected=f"One of {', '.join(FAIR)} is expected. {did_you_mean(str(self.metric), FAIR)}".strip(),
            )

    def _check_parts(self) -> None:
        if not isinstance(self.by, str) or not self.by:
            raise BadDefinition(f"a gate ({self.kind}) has by={self.by!r}.", expected="The name of a column.")
        if isinstance(self.min_rows, bool) or not isinstance(self.min_rows, int) or self.min_rows < 1:
            raise BadDefinition(f"a gate ({self.kind}) has min_rows={self.min_rows!r}.", expected="1 or more.")

    def _check_direction(self, metric: Metric) -> None:
        right = DIRECTED[self.kind] + ("at_least" if metric.better == "higher" else "at_most")
        if self.kind != right:
            raise BadDefinition(
                f"a gate asks for {self.metric} {self.kind.removeprefix('slice_').replace('_', ' ')} {self.value}.",
                expected=f"{self.metric} is better when {metric.better}: write Gate.{right}('{self.metric}', ...).",
            )

    def _check_value(self) -> None:
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)) or not math.isfinite(self.value):
            raise BadDefinition(
                f"a gate ({self.kind}) has the threshold {self.value!r}.", expected="A finite number is expected."
            )
        if self.value < 0 and self.kind not in DIRECTED:
            raise BadDefinition(
                f"a gate ({self.kind}) has the threshold {self.value:g}.", expected="0 or more is expected."
            )


@dataclass(frozen=True, init=False)
class ProjectGates:
    """Gates that every model of the project must pass, beside its own: `ProjectGates(Gate.at_least(...), ...)`.

    One on a metric that a model's task does not have is not asked of it. A model cannot drop or weaken one; it may be
    excused in words: Model(..., waives={"roc_auc at least 0.7": "a pilot until May"}), which is recorded and reviewed.
    """

    gates: tuple[Gate, ...] = field(default=())

    def __init__(self, *gates: Gate) -> None:
        for gate in gates:
            if not isinstance(gate, Gate):
                raise BadDefinition(f"ProjectGates holds {gate!r:.80}.", expected="Gates such as Gate.at_least(...).")
        object.__setattr__(self, "gates", gates)
        declare(self)


@dataclass(frozen=True)
class GateResult:
    """What one gate found.

    value: what was looked at; None when it is not defined.
    threshold: what it was compared with; None without a champion.
    interval: where the value would be on other rows like these (95 %), as far as that is known.
    of_project: whether every model has the gate. waived: the reason why this model is excused from it.
    """

    gate: Gate
    value: float | None
    threshold: float | None
    passed: bool
    reason: str
    interval: tuple[float, float] | None = None
    of_project: bool = False
    waived: str = ""

    @property
    def refuses(self) -> bool:
        """Whether this result alone keeps the model from becoming a version."""
        return not self.passed and not self.waived

    def as_plain(self) -> dict[str, Any]:
        return {
            "gate": str(self.gate),
            **self.gate.as_plain(),
            "value": self.value,
            "threshold": self.threshold,
            "interval": list(self.interval) if self.interval else None,
            "passed": self.passed,
            "reason": self.reason,
            "of_project": self.of_project,
            "waived": self.waived,
        }


@dataclass(frozen=True)
class Evidence:
    """What gates look at.

    metrics: of the test part. cv_mean, cv_std: of each metric over the folds; empty without cross-validation.
    champion: the champion's metrics on the rows that `beside_champion` has those of the new model for (None: the whole
        test part): rows which the champion has not learned from, or its own test part; None when there is none.
    differences: by metric, how much larger it is than the champion's, for gates with a margin.
    few: what the differences rest on, in words ("15 days"), when it is so little that intervals are too narrow.
    intervals: of the test part's metrics. train_metrics: of the rows that the fit learned from, for the overfit gap.
    memory: of a training that goes on from a fit, the loss of that fit and its own on rows that the fit learned from.
    slices: the test part by column. size: bytes of the native model. latency_ms: of scoring one row by the fitted
    estimator, the median of several rounds. latency_range: the fastest and the slowest of these rounds.
    """

    task: Task
    metrics: Metrics
    cv_mean: Metrics
    cv_std: Metrics
    champion: Metrics | None = None
    beside_champion: Metrics | None = None
    champion_name: str = ""
    differences: Mapping[str, Difference] = field(default_factory=dict)
    few: str = ""
    intervals: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    train_metrics: Metrics = field(default_factory=dict)
    slices: Mapping[str, Sliced] = field(default_factory=dict)
    size: int | None = None
    latency_ms: float | None = None
    latency_range: tuple[float, float] | None = None
    memory: tuple[float, float] | None = None


def check_gates(gates: Sequence[Gate], task: Task, *, cv_folds: int) -> None:
    """Raise BadDefinition for a gate that the task or the number of folds can never satisfy."""
    for gate in gates:
        if gate.kind == "fairness_gap_at_most" and not gate.fits(task):
            raise BadDefinition(
                f"the gate '{gate}' compares decisions, which a {task} model does not make.",
                expected="A fairness gap is for binary models; Gate.slice_at_most holds an error to a limit by group.",
            )
        if not gate.fits(task):
            raise BadDefinition(
                f"the gate '{gate}' names a metric that a {task} model does not have.",
                expected=f"It has {', '.join(METRICS[task])}. {did_you_mean(gate.metric, METRICS[task])}".strip(),
            )
        if gate.kind.startswith("cv_") and not cv_folds:
            raise BadDefinition(
                f"the gate '{gate}' needs cross-validation, which cv_folds=0 turns off.",
                expected="Give the model cv_folds of 2 or more, or drop the gate.",
            )


def judge(
    gates: Sequence[Gate],
    evidence: Evidence,
    *,
    of_project: Sequence[Gate] = (),
    waives: Mapping[str, str] | None = None,
) -> tuple[GateResult, ...]:
    """The result of every gate: the project's that fit the task, then the model's, each in order.

    waives: reasons by the words of a gate of the project.
    """
    waives = waives or {}
    found = [
        replace(_judge(gate, evidence), of_project=True, waived=waives.get(str(gate), ""))
        for gate in of_project
        if gate.fits(evidence.task)
    ]
    return (*found, *(_judge(gate, evidence) for gate in gates))


def check_waives(model: str, waives: Mapping[str, str], of_project: Sequence[Gate]) -> None:
    """Raise BadDefinition for a waived gate that the project does not have."""
    known = [str(gate) for gate in of_project]
    for gate in waives:
        if gate not in known:
            raise BadDefinition(
                f"model '{model}' waives the gate '{gate}', which is none of the project's.",
                expected=f"They are {listed(known)}. {did_you_mean(gate, known)}".strip()
                if known
                else "It has none: ProjectGates(...) declares them.",
            )


def _remembered(gate: Gate, evidence: Evidence) -> GateResult:
    if evidence.memory is None:
        return GateResult(gate, None, gate.value, True, "it learned anew, so it has nothing to forget")
    then, now = evidence.memory
    forgotten = (now - then) / then if then > 0 else math.inf if now > then else 0.0
    words = f"on rows that the release learned from, its loss was {then:.4g} and is {now:.4g} ({forgotten:+.1%})"
    return GateResult(gate, forgotten, gate.value, forgotten <= (gate.value or 0.0), words)


def not_passed(model: str, results: Sequence[GateResult], *, state: str) -> GatesNotPassed:
    """The error for a model whose gates did not all pass.

    state: what was kept, for the message ("Run run_… is kept; no version was made.").
    """
    failed = [result for result in results if result.refuses]
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
        case "remembers":
            return _remembered(gate, evidence)
        case "at_least" | "at_most":
            value, interval = evidence.metrics.get(gate.metric), evidence.intervals.get(gate.metric)
            return replace(_compare(gate, f"{gate.metric} of the test part", value, gate.value), interval=interval)
        case "cv_std_at_most":
            return _compare(gate, f"spread of {main} over the folds", evidence.cv_std.get(main), gate.value)
        case "cv_gap_at_most":
            test, mean = evidence.metrics.get(main), evidence.cv_mean.get(main)
            gap = None if test is None or mean is None else abs(mean - test)
            return _compare(gate, f"gap of {main} between folds and test part", gap, gate.value)
        case "overfit_gap_at_most":
            name = gate.metric or main
            test, train = evidence.metrics.get(name), evidence.train_metrics.get(name)
            sign = 1 if _known(name).better == "higher" else -1
            gap = None if test is None or train is None else sign * (train - test)
            return _compare(gate, f"gap of {name} between training and test part", gap, gate.value)
        case "slice_at_least" | "slice_at_most":
            return _by_slice(gate, evidence)
        case "fairness_gap_at_most":
            return _fairness(gate, evidence)
        case "latency_at_most":
            return _latency(gate, evidence)
        case "size_at_most":
            return _compare(gate, "bytes of the native model", evidence.size, gate.value)
        case "not_worse_than_champion":
            return _against_champion(gate, evidence)


def _by_slice(gate: Gate, evidence: Evidence) -> GateResult:
    parts = evidence.slices.get(gate.by)
    if parts is None:
        return _no_column(gate)
    higher = _known(gate.metric).better == "higher"
    worst = parts.worst(gate.metric, higher=higher, min_rows=gate.min_rows)
    if worst is None:
        found = f"no value of {gate.by} has {gate.min_rows} test rows on which {gate.metric} is defined"
        return GateResult(gate, None, gate.value, False, found)
    what = f"{gate.metric} of {gate.by} {worst.value} ({worst.rows} test rows, the worst)"
    result = _compare(gate, what, worst.metrics[gate.metric], gate.value)
    few = sum(one.rows < gate.min_rows for one in parts.slices)
    return replace(result, reason=f"{result.reason}; {few} values have too few rows") if few else result


def _fairness(gate: Gate, evidence: Evidence) -> GateResult:
    parts = evidence.slices.get(gate.by)
    if parts is None:
        return _no_column(gate)
    rates = [
        (rate, one.value)
        for one in parts.slices
        if one.rows >= gate.min_rows
        and (rate := one.positives if gate.metric == "positive_rate" else one.metrics.get(gate.metric)) is not None
    ]
    if len(rates) < 2:
        found = f"{len(rates)} values of {gate.by} have {gate.min_rows} test rows and a {gate.metric}; two are compared"
        return GateResult(gate, None, gate.value, False, found)
    (low, lowest), (high, highest) = min(rates), max(rates)
    what = f"{gate.metric} is {low:.3g} for {gate.by} {lowest} and {high:.3g} for {highest}; the gap"
    return _compare(gate, what, high - low, gate.value)


def _no_column(gate: Gate) -> GateResult:
    return GateResult(gate, None, gate.value, False, f"the training set has no column '{gate.by}' to look at")


def _against_champion(gate: Gate, evidence: Evidence) -> GateResult:
    beside = evidence.metrics if evidence.beside_champion is None else evidence.beside_champion
    value = beside.get(gate.metric)
    if evidence.champion is None:
        return GateResult(gate, value, None, True, "no champion to compare with")
    if gate.value is not None:
        return _within_margin(gate, gate.value, evidence)
    what = f"{gate.metric} of the test part beside the champion ({evidence.champion_name})"
    return _compare(gate, what, value, evidence.champion.get(gate.metric))


def _within_margin(gate: Gate, margin: float, evidence: Evidence) -> GateResult:
    """Not worse by more than the margin, shown by the whole interval of the paired difference."""
    found = evidence.differences.get(gate.metric, Difference(None, None))
    what = f"gain in {gate.metric} over the champion ({evidence.champion_name})"
    if found.value is None or found.interval is None:
        return GateResult(gate, found.value, -margin, False, f"{what} or its interval is not defined on these rows")
    sign = 1 if _known(gate.metric).better == "higher" else -1
    low, high = sorted(sign * one for one in found.interval)
    passed = low >= -margin
    gain = f"{what} is {sign * found.value:.4g}, 95 % between {low:.4g} and {high:.4g}"
    reason = f"{gain}: {'' if passed else 'not '}shown to be {-margin:g} or more"
    reason += f"; by {evidence.few} only, so the interval is too narrow" if evidence.few else ""
    return GateResult(gate, sign * found.value, -margin, passed, reason, (low, high))


def _latency(gate: Gate, evidence: Evidence) -> GateResult:
    """The verdict is by the median of the rounds; their spread says how sure it is."""
    found = _compare(gate, "milliseconds for one row (median)", evidence.latency_ms, gate.value)
    if evidence.latency_range is None:
        return found
    low, high = evidence.latency_range
    close = ", so another try may decide otherwise" if gate.value is not None and low <= gate.value < high else ""
    words = f"{found.reason}, {low:.3g} to {high:.3g} over the rounds{close}"
    return replace(found, reason=f"{words}; of the trained estimator on this machine, not of the ONNX form that serves")


def _compare(gate: Gate, what: str, value: float | None, threshold: float | None) -> GateResult:
    if value is None or threshold is None:
        return GateResult(gate, value, threshold, False, f"{what} is not defined on these rows")
    higher = gate.kind in ("at_least", "slice_at_least") or (
        gate.kind == "not_worse_than_champion" and _known(gate.metric).better == "higher"
    )
    passed = value >= threshold if higher else value <= threshold
    relation = (">=" if higher else "<=") if passed else ("<" if higher else ">")
    return GateResult(gate, value, threshold, passed, f"{what} is {value:.6g} {relation} {threshold:.6g}")


def _bytes(text: str) -> float:
    """ "5 MB" as a number of bytes."""
    number, unit = re.fullmatch(r"\s*([\d.]+)\s*([A-Za-z]*)\s*", text), ""
    if number is not None:
        unit = number[2].lower().removesuffix("b") + "b" if number[2] and number[2].lower() != "b" else ""
    if number is None or unit not in UNITS or number[1].count(".") > 1:
        raise BadDefinition(
            f"a gate asks for a size of {text!r}.", expected='A number of bytes, or "5 MB", "512 KiB" is expected.'
        )
    return float(number[1]) * UNITS[unit]


def _known(name: str) -> Metric:
    known = {key: metric for of_task in METRICS.values() for key, metric in of_task.items()}
    if name not in known:
        raise BadDefinition(
            f"no metric is named {name!r}.",
            expected=f"Known are {', '.join(known)}. {did_you_mean(str(name), known)}".strip(),
        )
    return known[name]
