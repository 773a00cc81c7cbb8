"""Declared schedules: which verb runs for which model, and when?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from seatrial.core.declared import declare
from seatrial.core.errors import UsageError, did_you_mean, listed
from seatrial.core.timing import UTC_NAME, BadTiming, Timing
from seatrial.core.windows import BadDuration, duration_us
from seatrial.retraining.definition import Retrain

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "monitor": ("monitor", "MODEL"),
    "label": ("label", "MODEL"),
    "retrain": ("retrain", "MODEL"),
    "materialize": ("materialize",),
    "batch": ("predict", "MODEL", "--batch"),
    "deployments advance": ("deployments", "advance", "MODEL"),
    "alerts check": ("alerts", "check"),
    "predictions ship": ("predictions", "ship"),
    "predictions prune": ("predictions", "prune"),
}
"""The verbs that may be scheduled, as they are typed."""

DEFAULT_ARGS: Mapping[str, tuple[str, ...]] = {"batch": ("last-day",), "retrain": ("advance",)}
PATH_ORDER = ("materialize", "batch", "label", "monitor", "retrain", "deployments advance")
MOST_RETRIES = 20
LONGEST_TIMEOUT_US = 7 * 86_400_000_000
_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@\s]*@")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

CatchUp = Literal["once", "skip"]


class BadSchedule(UsageError):
    """A schedule is declared in a way that cannot work."""

    code = "definition.bad_schedule"


@dataclass(frozen=True)
class Schedule:
    """A verb that runs by itself inside `seatrial up`, or by `seatrial schedules run NAME` from another scheduler.

    verb: "monitor", "label", "retrain" (`retrain MODEL advance`), "materialize", "batch" (`predict --batch last-day`),
        "deployments advance", "alerts check", "predictions ship" or "predictions prune". model: of which model, or
        deployment; not for `materialize`, `alerts` and `predictions`.
    every: a duration; the instants are its multiples since 1970-01-01T00:00Z. cron: five fields, in `timezone`. See
        `core.timing` for what happens when clocks change.
    args: more words for the verb, instead of the default ones, such as ["last-week", "--to", "scores/"] for "batch".
    name: by default the verb and the model, "monitor-late".
    timeout: after which a run is stopped. retries: how often a run that failed is tried again; the first time after
        `back_off`, then after twice as long each time. What a gate, a rule or the command line refuses is not tried
        again.
    catch_up: what becomes of instants that were missed while nothing ran: "once" makes one run for all of them, "skip"
        none; either way it is recorded.
    """

    verb: str
    model: str = ""
    every: str = ""
    cron: str = ""
    timezone: str = UTC_NAME
    args: Sequence[str] = ()
    name: str = ""
    timeout: str = "1h"
    retries: int = 2
    back_off: str = "1m"
    catch_up: CatchUp = "once"
    timing: Timing = field(init=False, repr=False)

    def __post_init__(self) -> None:
        where = f"Schedule({self.verb!r}{f', {self.model!r}' if self.model else ''})"
        if self.verb not in COMMANDS:
            near = did_you_mean(str(self.verb), COMMANDS)
            raise BadSchedule(
                f"{where}: no verb is named {self.verb!r} that can be scheduled.",
                expected=f"{listed(COMMANDS, most=20)} can be. {near}".strip(),
            )
        needs = "MODEL" in COMMANDS[self.verb]
        if not isinstance(self.model, str) or bool(self.model) != needs:
            raise BadSchedule(
                f"{where} has the model {self.model!r}.",
                expected="The name of a model is expected." if needs else f"'{self.verb}' is of no model.",
            )
        if isinstance(self.args, str) or not all(isinstance(one, str) and "\0" not in one for one in self.args):
            raise BadSchedule(f"{where} has args={self.args!r}.", expected='Words are expected: ["--to", "scores/"].')
        object.__setattr__(self, "args", tuple(self.args) or DEFAULT_ARGS.get(self.verb, ()))
        name = self.name or "-".join([*self.verb.split(), *([self.model] if self.model else [])])
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadSchedule(
                f"{where} has the name {name!r}.",
                expected="Letters, digits, '_', '-' and '.' are expected, at most 100.",
            )
        object.__setattr__(self, "name", name)
        try:
            object.__setattr__(self, "timing", Timing(self.every, self.cron, self.timezone))
        except BadTiming as error:
            raise BadSchedule(f"{where}: {error.found}", expected=error.expected) from None
        if not 0 < self._duration("timeout", where) <= LONGEST_TIMEOUT_US:
            raise BadSchedule(f"{where} has timeout={self.timeout!r}.", expected="At most 7d is expected.")
        self._duration("back_off", where)
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or not 0 <= self.retries <= MOST_RETRIES:
            raise BadSchedule(f"{where} has retries={self.retries!r}.", expected=f"0 to {MOST_RETRIES} are expected.")
        if self.catch_up not in ("once", "skip"):
            raise BadSchedule(f"{where} has catch_up={self.catch_up!r}.", expected='"once" or "skip" is expected.')
        declare(self)

    @property
    def words(self) -> list[str]:
        """What is typed after `seatrial`."""
        return [*(self.model if word == "MODEL" else word for word in COMMANDS[self.verb]), *self.args]

    @property
    def told(self) -> list[str]:
        """The same as it is kept and shown: without the passwords of addresses."""
        return [_PASSWORD.sub(r"\1:***@", word) for word in self.words]

    @property
    def timeout_us(self) -> int:
        return duration_us(self.timeout)

    def pause_us(self, attempt: int) -> int:
        """How long to wait after a failed attempt, the first being 1."""
        return min(duration_us(self.back_off) << (attempt - 1), LONGEST_TIMEOUT_US)

    def _duration(self, name: str, where: str) -> int:
        try:
            return duration_us(getattr(self, name))
        except BadDuration as error:
            raise BadSchedule(f"{where} has {name}={getattr(self, name)!r}.", expected=error.expected) from None


def implied(retrains: Iterable[Retrain]) -> list[Schedule]:
    """The schedules that `Retrain(on=["schedule:..."])` stands for; declared by nobody else."""
    found = []
    for retrain in retrains:
        triggers = [one for one in retrain.triggers if one.kind == "schedule"]
        for number, trigger in enumerate(triggers, 1):
            name = f"retrain-{retrain.model}-on-schedule" + (f"-{number}" if len(triggers) > 1 else "")
            found.append(Schedule("retrain", retrain.model, cron=trigger.cron, timezone=trigger.timezone, name=name))
    return found
