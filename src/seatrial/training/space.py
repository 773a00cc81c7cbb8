"""What is tuned: which parameters of the estimator are tried, within which bounds, how often, and by which metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seatrial.core.errors import did_you_mean, listed
from seatrial.core.signature import Task
from seatrial.core.windows import BadDuration, duration_us
from seatrial.features.definitions import BadDefinition
from seatrial.stats.metrics import METRICS

MOST_TRIALS = 10_000


@dataclass(frozen=True)
class Dimension:
    """What one parameter may be: a whole number or a number in [low, high], or one of some choices."""

    kind: str
    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[Any, ...] = ()

    def as_plain(self) -> dict[str, Any]:
        if self.kind == "choice":
            return {"kind": self.kind, "choices": list(self.choices)}
        return {"kind": self.kind, "low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class Tune:
    """How a model's parameters are tuned, on its training part only.

    space: for parameters of the estimator `Tune.integer`, `Tune.number` or `Tune.choice`; the model's own `params`
        are given beside them. trials: how many are tried. metric: what the folds' mean is made best of; by default
        log_loss, for a regression rmse. timeout: after which no trial is begun, such as "10m". pruner: whether a trial
        that is worse after some folds than the median of others was is given up.
    """

    space: Mapping[str, Dimension] = field(default_factory=dict)
    trials: int = 30
    metric: str | None = None
    timeout: str | None = None
    pruner: bool = True

    def __post_init__(self) -> None:
        good = isinstance(self.space, Mapping) and all(
            isinstance(name, str) and isinstance(one, Dimension) for name, one in self.space.items()
        )
        if not good or not self.space:
            raise BadDefinition(
                f"the space to tune in is {self.space!r:.80}." if self.space else "the space to tune in is empty.",
                expected='Parameters by name are expected, such as {"num_leaves": Tune.integer(8, 256, log=True)}.',
            )
        if isinstance(self.trials, bool) or not isinstance(self.trials, int) or not 1 <= self.trials <= MOST_TRIALS:
            raise BadDefinition(
                f"{self.trials!r} trials of tuning are asked for.", expected=f"1 to {MOST_TRIALS:,} are expected."
            )
        if not isinstance(self.pruner, bool):
            raise BadDefinition(f"tuning is given pruner={self.pruner!r}.", expected="True or False is expected.")
        if self.timeout is not None:
            try:
                duration_us(self.timeout)
            except BadDuration as error:
                raise BadDefinition(f"tuning is given timeout={self.timeout!r}.", expected=error.expected) from None

    @staticmethod
    def integer(low: int, high: int, *, log: bool = False) -> Dimension:
        """A whole number in [low, high]; log: tried evenly by its logarithm."""
        if any(isinstance(one, bool) or not isinstance(one, int) for one in (low, high)):
            raise BadDefinition(f"Tune.integer({low!r}, {high!r}).", expected="Two whole numbers are expected.")
        return _between("integer", low, high, log)

    @staticmethod
    def number(low: float, high: float, *, log: bool = False) -> Dimension:
        """A number in [low, high]; log: tried evenly by its logarithm."""
        for one in (low, high):
            if isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one):
                raise BadDefinition(f"Tune.number({low!r}, {high!r}).", expected="Two finite numbers are expected.")
        return _between("number", float(low), float(high), log)

    @staticmethod
    def choice(choices: Sequence[Any]) -> Dimension:
        """One of some texts, numbers, True, False and None."""
        plain = isinstance(choices, list | tuple) and all(
            one is None or isinstance(one, bool | int | float | str) for one in choices
        )
        if not plain or not choices:
            raise BadDefinition(
                f"Tune.choice({choices!r:.80}).", expected="A list of texts, numbers, True, False or None is expected."
            )
        return Dimension("choice", choices=tuple(choices))

    def metric_of(self, task: Task) -> str:
        return self.metric or ("rmse" if task == "regression" else "log_loss")

    def check(self, model: str, task: Task, cv_folds: int) -> None:
        """Raise BadDefinition when a model of that task cannot be tuned in this way."""
        known = list(METRICS[task])
        if self.metric_of(task) not in known:
            raise BadDefinition(
                f"model '{model}' is tuned by {self.metric!r}, which is no metric of a {task} model.",
                expected=f"One of {listed(known)} is expected. {did_you_mean(str(self.metric), known)}".strip(),
            )
        if not cv_folds:
            raise BadDefinition(
                f"model '{model}' is tuned and turns cross-validation off with cv_folds=0.",
                expected="Trials are compared on folds of the training part, never on the test rows.",
            )

    def as_plain(self) -> dict[str, Any]:
        return {
            "space": {name: one.as_plain() for name, one in self.space.items()},
            "trials": self.trials,
            "metric": self.metric,
            "timeout": self.timeout,
            "pruner": self.pruner,
        }


def _between(kind: str, low: float, high: float, log: bool) -> Dimension:
    if not low < high or (log and low <= 0):
        raise BadDefinition(
            f"Tune.{kind}({low!r}, {high!r}, log={log!r}).",
            expected="A lower and a higher bound are expected, with log=True both above 0.",
        )
    return Dimension(kind, low, high, bool(log))
