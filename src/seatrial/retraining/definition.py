"""When a model's retraining is proposed, how often at most, and for how long a challenger is judged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from seatrial.core.declared import declare
from seatrial.core.errors import UsageError
from seatrial.core.timing import BadTiming, Timing
from seatrial.core.windows import BadDuration, duration_us

_BUDGET = re.compile(r"([1-9][0-9]{0,3})/(day|week|month)")
_SPANS = {"day": "1d", "week": "7d", "month": "30d"}


class BadRetrain(UsageError):
    """Retraining is declared in a way that cannot work."""

    code = "definition.bad_retrain"


@dataclass(frozen=True)
class Trigger:
    """One reason to propose a retraining; made by the constructors below.

    kind: "calibration" looks at the gap between mean prediction and observed rate, "alarm" at open alerts, "schedule"
        at the clock.
    """

    kind: Literal["calibration", "alarm", "schedule"]
    gap: float = 0.0
    window: str = ""
    every: str = ""
    looks: int = 1
    cron: str = ""
    timezone: str = "UTC"

    @staticmethod
    def calibration(gap: float = 0.05, *, window: str = "14d", every: str = "7d", looks: int = 2) -> Trigger:
        """The gap over the trailing `window` was beyond `gap` at each of the last `looks` looks, `every` apart.

        Two looks in a row keep one bad day from starting a training. gap: in units of the label (shares for binary).
        """
        if isinstance(gap, bool) or not isinstance(gap, int | float) or not 0 < gap < float("inf"):
            raise BadRetrain(f"a calibration trigger has the gap {gap!r}.", expected="A positive number is expected.")
        if isinstance(looks, bool) or not isinstance(looks, int) or not 1 <= looks <= 100:
            raise BadRetrain(f"a calibration trigger has looks={looks!r}.", expected="1 to 100 looks are expected.")
        for text in (window, every):
            _duration(text, "a calibration trigger")
        return Trigger("calibration", float(gap), window, every, looks)

    @staticmethod
    def alarm() -> Trigger:
        """An alert of high severity is open."""
        return Trigger("alarm")

    @staticmethod
    def schedule(cron: str, *, timezone: str = "UTC") -> Trigger:
        """An instant of the cron expression has come since the last proposal, or since retraining was declared so.

        `seatrial up` asks at each of them; so does `seatrial retrain` whenever it is run.
        """
        try:
            Timing(cron=cron, timezone=timezone)
        except BadTiming as error:
            raise BadRetrain(f"a schedule trigger is wrong: {error.found}", expected=error.expected) from None
        return Trigger("schedule", cron=cron, timezone=timezone)

    def __str__(self) -> str:
        if self.kind == "schedule":
            return f"schedule {self.cron} {self.timezone}"
        if self.kind == "alarm":
            return "an open alert of high severity"
        looks = f" at {self.looks} looks {self.every} apart" if self.looks > 1 else ""
        return f"calibration gap beyond {self.gap:g} over {self.window}{looks}"


@dataclass(frozen=True)
class Retrain:
    """How a model is retrained. Triggers only propose; a person approves.

    on: triggers, or their short names: "performance" is `Trigger.alarm()`, "schedule:0 3 * * 1" is
        `Trigger.schedule("0 3 * * 1")`.
    budget: trainings of challengers at most, "2/week". cool_down: time after one in which nothing is proposed.
    judge_for: how long a challenger is compared with the champion before the verdict is final.
    min_days: whole days of comparison without which there is no verdict.
    """

    model: str
    on: Sequence[Trigger | str] = field(default_factory=lambda: (Trigger.alarm(), Trigger.calibration()))
    budget: str = "2/week"
    cool_down: str = "3d"
    approval: Literal["human"] = "human"
    judge_for: str = "60d"
    min_days: int = 7

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
        if self.approval != "human":
            raise BadRetrain(f"{where} has approval={self.approval!r}.", expected='"human" is expected.')
        if isinstance(self.min_days, bool) or not isinstance(self.min_days, int) or not 2 <= self.min_days <= 366:
            raise BadRetrain(f"{where} has min_days={self.min_days!r}.", expected="2 to 366 days are expected.")
        declare(self)

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        return tuple(one for one in self.on if isinstance(one, Trigger))

    @property
    def most(self) -> tuple[int, int]:
        """The budget: how many, in how many microseconds."""
        number, span = self.budget.split("/")
        return int(number), duration_us(_SPANS[span])


def _trigger(one: Trigger | str, where: str) -> Trigger:
    if isinstance(one, Trigger):
        return one
    if one == "performance":
        return Trigger.alarm()
    if isinstance(one, str) and one.startswith("schedule:"):
        try:
            return Trigger.schedule(one.removeprefix("schedule:").strip())
        except BadRetrain as error:
            raise BadRetrain(f"{where} has the trigger {one!r}: {error.found}", expected=error.expected) from None
    raise BadRetrain(
        f"{where} has the trigger {one!r}.",
        expected='"performance", "schedule:CRON", Trigger.alarm() or Trigger.calibration(...) is expected.',
    )


def _duration(text: str, where: str) -> None:
    try:
        duration_us(text)
    except (BadDuration, TypeError):
        raise BadRetrain(
            f"{where} has the duration {text!r}.", expected='"14d", "12h" or the like is expected.'
        ) from None
