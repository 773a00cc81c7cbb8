"""What is watched of a model: its alarms, over how long, and in which words its outcome is spoken of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NoReturn, Protocol

from seatrial.core.declared import declare
from seatrial.core.errors import did_you_mean, listed
from seatrial.core.windows import BadDuration, duration_us
from seatrial.features.definitions import BadDefinition
from seatrial.monitoring.report import Severity
from seatrial.stats.distances import NAMES
from seatrial.stats.metrics import METRICS

if TYPE_CHECKING:
    from seatrial.data.sources import Source

MIN_LABELS = 200
CALIBRATION_GAP = 0.10
SHORTEST_US = 60_000_000

PERFORMANCE = frozenset(name for metrics in METRICS.values() for name in metrics) | {"calibration_gap"}
DRIFT = frozenset({*NAMES, "prediction_ks"})
OTHER = frozenset({"degraded", "p99_ms", "label_share"})
OF_COLUMN = frozenset({*NAMES, "missing"})
"""Metrics of one input, written "ks:COLUMN"."""

Kind = Literal["above", "below", "drop"]


class BusinessMetric(Protocol):
    """What `deployment.definition.Metric` says of a number."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> Source: ...
    @property
    def better(self) -> Literal["higher", "lower"]: ...
    @property
    def without_row(self) -> float | None: ...


@dataclass(frozen=True)
class Alarm:
    """One number over a trailing window, and when it is wrong; made by the constructors below.

    kind: "above" and "below" compare with `threshold`; "drop" allows the metric to be worse than on the release's
        test part by at most the share `threshold`.
    metric: a metric of `stats.metrics`; "calibration_gap" (how far mean prediction and mean label lie apart; of a
        regression in standard deviations of the label); "ks" (the largest drift of any input, by the distance of its
        type), "ks:COLUMN", "prediction_ks", and in the same way "psi", "js", "wasserstein", "chi2" and "tv", of the
        inputs that they are defined for; "missing:COLUMN" (share); "degraded" (share of answers); "p99_ms";
        "label_share" (share of predictions whose label has arrived).
    window: how far back. min_labels: labelled predictions below which a metric of performance is not judged.
    """

    kind: Kind
    metric: str
    threshold: float
    window: str = "7d"
    severity: Severity = "high"
    min_labels: int = MIN_LABELS

    def __post_init__(self) -> None:
        _check_metric(self.metric)
        where = f"the alarm on {self.metric}"
        if self.kind not in ("above", "below", "drop"):
            _bad(f"{where} is of the kind {self.kind!r}.", "Alarm.above, Alarm.below or Alarm.drop is expected.")
        if not _is_number(self.threshold):
            _bad(f"{where} has the threshold {self.threshold!r}.", "A finite number is expected.")
        if self.kind == "drop" and self.metric not in PERFORMANCE - {"calibration_gap"}:
            _bad(f"{where} is a drop, but it has no figure of the test part.", f"One of {listed(_TESTED)} is expected.")
        if self.kind == "drop" and not 0 < self.threshold < 1:
            _bad(f"{where} allows a drop of {self.threshold:g}.", 'A share is expected, such as 0.2 or "20%".')
        if self.severity not in ("low", "medium", "high"):
            _bad(f"{where} has the severity {self.severity!r}.", '"low", "medium" or "high" is expected.')
        if isinstance(self.min_labels, bool) or not isinstance(self.min_labels, int) or self.min_labels < 1:
            _bad(f"{where} has min_labels={self.min_labels!r}.", "A whole number of at least 1 is expected.")
        _check_window(self.window, where)

    @staticmethod
    def above(
        metric: str, value: float, window: str = "7d", severity: Severity = "high", min_labels: int = MIN_LABELS
    ) -> Alarm:
        """Wrong when the metric is above `value`."""
        return Alarm("above", metric, value, window, severity, min_labels)

    @staticmethod
    def below(
        metric: str, value: float, window: str = "7d", severity: Severity = "high", min_labels: int = MIN_LABELS
    ) -> Alarm:
        """Wrong when the metric is below `value`."""
        return Alarm("below", metric, value, window, severity, min_labels)

    @staticmethod
    def drop(
        metric: str, share: float | str, window: str = "7d", severity: Severity = "high", min_labels: int = MIN_LABELS
    ) -> Alarm:
        """Wrong when the metric is worse than on the release's test part by more than `share` of it ("20%" or 0.2)."""
        return Alarm("drop", metric, _share(share, metric), window, severity, min_labels)

    @staticmethod
    def calibration(
        gap: float = CALIBRATION_GAP, window: str = "7d", severity: Severity = "high", min_labels: int = MIN_LABELS
    ) -> Alarm:
        """Wrong when mean prediction and mean label lie more than `gap` apart, either way."""
        return Alarm("above", "calibration_gap", gap, window, severity, min_labels)

    @property
    def name(self) -> str:
        """Names the alarm among those of its model; another threshold or window is another alarm."""
        metric = self.metric.replace("_", " ") if self.metric == "calibration_gap" else self.metric
        if self.kind == "drop":
            return f"{metric} worse by {self.threshold * 100:g}% over {self.window}"
        return f"{metric} {self.kind} {self.threshold:g} over {self.window}"

    @property
    def window_us(self) -> int:
        return duration_us(self.window)

    @property
    def of_performance(self) -> bool:
        """Needs labels, and shows harm when it fires."""
        return self.metric in PERFORMANCE

    @property
    def of_drift(self) -> bool:
        return self.metric.partition(":")[0] in DRIFT


@dataclass(frozen=True)
class Monitor:
    """How a model is watched.

    window: what a report looks at by default, back from now.
    false_alarms_per_month: the budget of false alarms in 30 days that sets the thresholds of the policy; what it
        comes to on the model's own history, `seatrial monitor MODEL --rehearse` tells.
    calibration: the default alarm, on a gap of more than 0.10 between mean prediction and observed rate over seven
        days. Leave it on: no comparison of inputs sees a world that answers differently.
    every: how often the model is looked at, such as "1h": the length of the windows that the policy judges, and the
        time within which the next report is expected; without it hours or days, as the traffic has it.
    labels_within: within which time labels come after their prediction, such as "3d". Without it, and for reports
        without `every`, `monitoring.alerting.cadence` goes by how they came before.
    business: numbers of the business that a report shows beside its own: `Metric(name, source)`, as of a deployment.
    subject, outcome: words for headlines, such as "flights" and "late"; without them the model's name is used.
    policy: whether the policy is watching at all; declared alarms do not need it.
    skew: how often, such as "1d", a report joins some of its window's predictions again, to tell whether features were
        online what they are offline; "": never. The reports between show the last answer.
    thresholds: by what its thresholds are multiplied, by series ("missing:age"), input ("age"), kind ("level",
        "distance", "missing", "unseen", "error", "estimated") or "*".
    """

    model: str
    alarms: Sequence[Alarm] = ()
    window: str = "7d"
    false_alarms_per_month: float = 1
    calibration: bool = True
    subject: str = ""
    outcome: str = ""
    every: str = ""
    labels_within: str = ""
    business: Sequence[BusinessMetric] = ()
    policy: bool = True
    skew: str = "1d"
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            _bad(f"Monitor has the model {self.model!r}.", "The name of a model is expected.")
        where = f"Monitor('{self.model}')"
        if isinstance(self.alarms, Alarm | str) or not all(isinstance(alarm, Alarm) for alarm in self.alarms):
            _bad(
                f"{where} has alarms={self.alarms!r}.",
                "A list of alarms is expected, such as [Alarm.below('f1', 0.7)].",
            )
        object.__setattr__(self, "alarms", tuple(self.alarms))
        if not _is_number(self.false_alarms_per_month) or self.false_alarms_per_month <= 0:
            _bad(
                f"{where} has false_alarms_per_month={self.false_alarms_per_month!r}.", "A number above 0 is expected."
            )
        if not isinstance(self.calibration, bool):
            _bad(f"{where} has calibration={self.calibration!r}.", "True or False is expected.")
        _check_window(self.window, where)
        for name in ("subject", "outcome"):
            if not isinstance(getattr(self, name), str):
                _bad(
                    f"{where} has {name}={getattr(self, name)!r}.",
                    "A word for sentences is expected, such as 'flights'.",
                )
        for name in ("every", "labels_within", "skew"):
            if getattr(self, name) != "":
                _check_window(getattr(self, name), f"{where}: {name}")
        if isinstance(self.business, str) or not all(is_metric(one) for one in self.business):
            _bad(f"{where} has business={self.business!r}.", "A list of Metric(name, source) is expected.")
        object.__setattr__(self, "business", tuple(self.business))
        called = [metric.name for metric in self.business]
        again = sorted({name for name in called if called.count(name) > 1})
        if again:
            _bad(f"{where} has the business metric '{again[0]}' twice.", "Each is declared once.")
        _check_policy(self, where)
        object.__setattr__(self, "thresholds", dict(self.thresholds))
        names = [alarm.name for alarm in self.every_alarm]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            _bad(f"{where} has the alarm '{twice[0]}' twice.", "Each alarm is declared once.")
        declare(self)

    @property
    def every_alarm(self) -> tuple[Alarm, ...]:
        """The declared alarms, and the default one unless it is off or there is one on calibration already."""
        if not self.calibration or any(alarm.metric == "calibration_gap" for alarm in self.alarms):
            return tuple(self.alarms)
        return (Alarm.calibration(), *self.alarms)


_TESTED = sorted(PERFORMANCE - {"calibration_gap"})


def _check_metric(metric: object) -> None:
    known = sorted(PERFORMANCE | DRIFT | OTHER)
    if isinstance(metric, str):
        name, colon, column = metric.partition(":")
        if metric in known or (colon and column and name in OF_COLUMN):
            return
    _bad(
        f"there is no metric {metric!r}.",
        f"Known are {listed(known, most=40)}, and of one input ks:COLUMN, psi:COLUMN and so on, missing:COLUMN. "
        f"{did_you_mean(str(metric), known)}".strip(),
    )


def _check_window(window: object, where: str) -> None:
    try:
        if isinstance(window, str):
            duration_us(window)
            return
    except BadDuration:
        pass
    _bad(f"{where} has the window {window!r}.", 'A duration such as "7d" or "24h" is expected.')


def _check_policy(monitor: Monitor, where: str) -> None:
    if not isinstance(monitor.policy, bool):
        _bad(f"{where} has policy={monitor.policy!r}.", "True or False is expected.")
    try:
        if monitor.every and duration_us(monitor.every) < SHORTEST_US:
            _bad(f"{where} has every={monitor.every!r}.", "At least a minute is expected.")
    except BadDuration:
        _bad(f"{where} has every={monitor.every!r}.", 'A duration such as "1h" or "1d" is expected.')
    given = monitor.thresholds
    factors = given.values() if isinstance(given, Mapping) else [None]
    if not all(_is_number(one) and one > 0 for one in factors):
        _bad(f"{where} has thresholds={given!r}.", 'A factor above 0 for each name is expected, such as {"age": 1.5}.')


def _share(share: float | str, metric: str) -> float:
    if isinstance(share, str):
        try:
            return float(share.removesuffix("%")) / (100 if share.endswith("%") else 1)
        except ValueError:
            _bad(f"the alarm on {metric} allows a drop of {share!r}.", 'A share is expected, such as 0.2 or "20%".')
    return share


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _bad(found: str, expected: str) -> NoReturn:
    raise BadDefinition(found, expected=expected)


def is_metric(thing: object) -> bool:
    """Whether it says what a metric of the business says."""
    return all(hasattr(thing, name) for name in ("name", "source", "better", "without_row"))
