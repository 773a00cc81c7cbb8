"""When is a model's retraining proposed, how often at most, how long is a challenger judged, and who lets it live?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from seatrial.core.declared import declare
from seatrial.core.errors import UsageError, did_you_mean, listed
from seatrial.core.timing import BadTiming, Timing
from seatrial.core.windows import BadDuration, duration_us
from seatrial.stats.metrics import METRICS

_BUDGET = re.compile(r"([1-9][0-9]{0,3})/(day|week|month)")
_SPANS = {"day": "1d", "week": "7d", "month": "30d"}
_SCHEDULE = "schedule:"

KINDS = ("calibration", "alarm", "schedule", "performance", "new data")
SEVERITIES = ("low", "medium", "high")
SHARES = ("positive_rate", "mean_prediction")
"""What a margin may bound beside metrics: the share of positive decisions (of several classes the share of any of
them), and a regression's mean prediction."""
MEASURED = tuple(dict.fromkeys(name for metrics in METRICS.values() for name in metrics))
APPROVALS = ("human", "auto-if-better")


class BadRetrain(UsageError):
    """Retraining is declared in a way that cannot work."""

    code = "definition.bad_retrain"


@dataclass(frozen=True)
class Trigger:
    """One reason to propose a retraining; made by the constructors below.

    kind: "calibration" looks at the gap between mean prediction and what was observed, "alarm" at open alerts,
        "performance" at a metric of the labelled predictions, "schedule" at the clock, "new data" at the labels that
        became known since the champion was trained.
    """

    kind: Literal["calibration", "alarm", "schedule", "performance", "new data"]
    gap: float = 0.0
    window: str = ""
    every: str = ""
    looks: int = 1
    cron: str = ""
    timezone: str = "UTC"
    name: str = ""
    metric: str = ""
    severity: str = "high"
    value: float = 0.0
    rows: int = 0

    @staticmethod
    def calibration(gap: float = 0.05, *, window: str = "14d", every: str = "7d", looks: int = 2) -> Trigger:
        """The gap over the trailing `window` was beyond `gap` at each of the last `looks` looks, `every` apart.

        Two looks in a row keep one bad day from starting a training. gap: a share; of a regression in standard
        deviations of the label, and of one that predicts a quantile the share of labels at or below the prediction
        less that quantile. Of both the whole 95 % interval over days has to be beyond it.
        """
        if isinstance(gap, bool) or not isinstance(gap, int | float) or not 0 < gap < float("inf"):
            raise BadRetrain(f"a calibration trigger has the gap {gap!r}.", expected="A positive number is expected.")
        if isinstance(looks, bool) or not isinstance(looks, int) or not 1 <= looks <= 100:
            raise BadRetrain(f"a calibration trigger has looks={looks!r}.", expected="1 to 100 looks are expected.")
        for text in (window, every):
            _duration(text, "a calibration trigger")
        return Trigger("calibration", float(gap), window, every, looks)

    @staticmethod
    def alarm(name: str = "", *, metric: str = "", severity: str = "high") -> Trigger:
        """An alert is open: of this alarm (by its name), of this metric, of this severity or a higher one."""
        if not isinstance(name, str) or not isinstance(metric, str):
            raise BadRetrain(f"an alarm trigger has name={name!r} and metric={metric!r}.", expected="Text is expected.")
        if severity not in SEVERITIES:
            raise BadRetrain(
                f"an alarm trigger has the severity {severity!r}.", expected=f"One of {listed(SEVERITIES)} is expected."
            )
        return Trigger("alarm", name=name, metric=metric, severity=severity)

    @staticmethod
    def performance(metric: str, value: float, *, window: str = "14d") -> Trigger:
        """The metric of the labelled predictions of the trailing `window` is shown to be worse than `value`.

        Shown: the whole 95 % interval (bootstrap over blocks of time) is on the worse side of it.
        metric: one of the task's, see `stats.metrics`.
        """
        if metric not in MEASURED:
            hint = did_you_mean(str(metric), MEASURED)
            raise BadRetrain(
                f"a performance trigger looks at {metric!r}.", expected=f"A metric is expected. {hint}".strip()
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise BadRetrain(f"a performance trigger has the value {value!r}.", expected="A finite number is expected.")
        _duration(window, "a performance trigger")
        return Trigger("performance", window=window, metric=metric, value=float(value))

    @staticmethod
    def schedule(cron: str, *, timezone: str = "UTC") -> Trigger:
        """An instant of the cron expression has come since the last proposal, or since what is live went live.

        `seatrial up` asks at each of them; so does `seatrial retrain` whenever it is run. One that was missed is made
        up for, once.
        """
        try:
            Timing(cron=cron, timezone=timezone)
        except BadTiming as error:
            raise BadRetrain(f"a schedule trigger is wrong: {error.found}", expected=error.expected) from None
        return Trigger("schedule", cron=cron, timezone=timezone)

    @staticmethod
    def new_data(rows: int) -> Trigger:
        """At least `rows` rows of the label source have a label that became known since the champion's cut-off."""
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
            raise BadRetrain(f"a trigger on new data has rows={rows!r}.", expected="1 row or more is expected.")
        return Trigger("new data", rows=rows)

    def __str__(self) -> str:
        match self.kind:
            case "alarm":
                named = f" '{self.name}'" if self.name else ""
                return f"an open alert{named}{f' on {self.metric}' if self.metric else ''} of {self._severity} severity"
            case "schedule":
                return f"schedule {self.cron} {self.timezone}"
            case "performance":
                return f"{self.metric} shown to be worse than {self.value:g} over {self.window}"
            case "new data":
                return f"{self.rows:,} new labels"
        looks = f" at {self.looks} looks {self.every} apart" if self.looks > 1 else ""
        return f"calibration gap beyond {self.gap:g} over {self.window}{looks}"

    @property
    def _severity(self) -> str:
        return self.severity if self.severity == "high" else f"{self.severity} or higher"

    @property
    def reach_us(self) -> int:
        """How far back it looks at predictions; 0 when it looks at none."""
        if self.kind == "calibration":
            return duration_us(self.window) + self.looks * duration_us(self.every)
        return duration_us(self.window) if self.kind == "performance" else 0


@dataclass(frozen=True)
class Retrain:
    """How a model is retrained. Triggers only propose; what goes live is a person's decision unless `approval` says so.

    on: triggers, or their short names: "performance" is `Trigger.alarm()`, "schedule:0 3 * * 1" a schedule.
    budget: trainings of challengers at most, "2/week". cool_down: time after one in which nothing is proposed.
    judge_for: how long a challenger is compared with the champion before the verdict is final; the labels of its last
        days are waited for beyond it.
    min_days: whole days of comparison without which there is no verdict.
    approval: "human", or "auto-if-better": a challenger that differs from the champion by its data alone, is shown to
        be better, and keeps within every margin needs nobody's approval.
    margins: by how much a metric may get worse, in all and in each of the model's slices, and "positive_rate" (of a
        regression "mean_prediction") change either way: {"log_loss": 0.02, "positive_rate": 0.05}. A change beyond one
        is significant and needs a person, also when the challenger is better.
    warm_start: a challenger goes on from the champion's fit, on the rows since its cut-off, instead of learning anew.
    """

    model: str
    on: Sequence[Trigger | str] = field(default_factory=lambda: (Trigger.alarm(), Trigger.calibration()))
    budget: str = "2/week"
    cool_down: str = "3d"
    approval: Literal["human", "auto-if-better"] = "human"
    judge_for: str = "60d"
    min_days: int = 7
    margins: Mapping[str, float] = field(default_factory=dict)
    warm_start: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise BadRetrain(f"Retrain has the model {self.model!r}.", expected="The name of a model is expected.")
        where = f"Retrain('{self.model}')"
        if isinstance(self.on, str | Trigger):
            raise BadRetrain(f"{where} has on={self.on!r}.", expected="A list of triggers is expected.")
        object.__setattr__(self, "on", tuple(_trigger(one, where) for one in self.on))
        if not isinstance(self.budget, str) or not _BUDGET.fullmatch(self.budget):
            raise BadRetrain(f"{where} has the budget {self.budget!r}.", expected='"2/week" or the like is expected.')
        for text in (self.cool_down, self.judge_for):
            _duration(text, where)
        if self.approval not in APPROVALS:
            raise BadRetrain(
                f"{where} has approval={self.approval!r}.", expected=f"One of {listed(APPROVALS)} is expected."
            )
        if isinstance(self.min_days, bool) or not isinstance(self.min_days, int) or not 2 <= self.min_days <= 366:
            raise BadRetrain(f"{where} has min_days={self.min_days!r}.", expected="2 to 366 days are expected.")
        if not isinstance(self.warm_start, bool):
            raise BadRetrain(f"{where} has warm_start={self.warm_start!r}.", expected="True or False is expected.")
        _check_margins(self.margins, where)
        if self.approval == "auto-if-better" and not ({*self.margins} & {*SHARES} and {*self.margins} & {*MEASURED}):
            raise BadRetrain(
                f"{where} lets challengers go live by themselves, within the margins {dict(self.margins)!r}.",
                expected='A margin of a metric and one of "positive_rate" (or "mean_prediction") are expected: what '
                "nobody looks at must at least be bounded.",
            )
        declare(self)

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        return tuple(one for one in self.on if isinstance(one, Trigger))

    @property
    def most(self) -> tuple[int, int]:
        """The budget: how many, in how many microseconds."""
        number, span = self.budget.split("/")
        return int(number), duration_us(_SPANS[span])


def _check_margins(margins: object, where: str) -> None:
    if not isinstance(margins, Mapping):
        raise BadRetrain(f"{where} has margins={margins!r}.", expected='{"log_loss": 0.02} or the like is expected.')
    known = (*MEASURED, *SHARES)
    for name, margin in margins.items():
        if name not in known:
            raise BadRetrain(
                f"{where} has a margin for {name!r}.",
                expected=f"A metric, {listed(SHARES)} is expected. {did_you_mean(str(name), known)}".strip(),
            )
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 < margin < float("inf"):
            raise BadRetrain(
                f"{where} has the margin {margin!r} for {name}.", expected="A positive number is expected."
            )


def _trigger(one: Trigger | str, where: str) -> Trigger:
    if isinstance(one, Trigger):
        return one
    if one == "performance":
        return Trigger.alarm()
    if isinstance(one, str) and one.startswith(_SCHEDULE):
        try:
            return Trigger.schedule(one.removeprefix(_SCHEDULE).strip())
        except BadRetrain as error:
            raise BadRetrain(f"{where} has the trigger {one!r}: {error.found}", expected=error.expected) from None
    raise BadRetrain(
        f"{where} has the trigger {one!r}.",
        expected='"performance", "schedule:CRON", or Trigger.alarm(...), .calibration(...), .performance(...), '
        ".new_data(...), .schedule(...) is expected.",
    )


def _duration(text: str, where: str) -> None:
    try:
        duration_us(text)
    except (BadDuration, TypeError):
        raise BadRetrain(
            f"{where} has the duration {text!r}.", expected='"14d", "12h" or the like is expected.'
        ) from None
