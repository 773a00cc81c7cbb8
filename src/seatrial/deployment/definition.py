"""What a deployment is: a model, how releases take its traffic, and by what the traffic is split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, ClassVar, Literal, get_args

from seatrial.core.declared import declare
from seatrial.core.errors import UsageError, listed
from seatrial.core.objective import Objective
from seatrial.core.windows import DAY_US, duration_us
from seatrial.data.sources import Source
from seatrial.stores.routes import MOST_CACHED, Default, OnStoreFailure

Harm = Literal["errors", "slow", "mean_score", "degraded", "refused"]
"""What a guardrail watches, each as a mean over answers: see `Guardrail`."""
Unit = Literal["day", "request"]
"""What an experiment takes for one observation: see `ABTest`."""


class BadDeployment(UsageError):
    """A deployment is declared in a way that cannot work."""

    code = "definition.bad_deployment"


@dataclass(frozen=True)
class Guardrail:
    """What must not become worse by more than a margin while a new release takes traffic.

    harm: "errors", the share of requests that got a 5xx; "slow", the share of answers that are slower than 99 % of the
        live release's; "mean_score", the mean probability (or value), which must not move either way; "degraded", the
        share of answers that lacked a feature; "refused", the share of requests that got a 4xx because of the release
        that was to answer: a field that only it needs, a null or a category that it does not take, no finite score.
    margin: how much worse is still borne, as a difference: 0.01 is one request in a hundred; of "mean_score" for a
        regression in the target's unit.
    """

    harm: Harm
    margin: float

    @classmethod
    def errors(cls, margin: float = 0.005) -> Guardrail:
        """At most this much more of the requests may fail."""
        return cls("errors", margin)

    @classmethod
    def slow(cls, margin: float = 0.02) -> Guardrail:
        """At most this much more of the answers may be slower than 99 % of the live release's."""
        return cls("slow", margin)

    @classmethod
    def mean_score(cls, margin: float = 0.1) -> Guardrail:
        """The mean probability (or value) may differ from the live release's by at most this much, up or down."""
        return cls("mean_score", margin)

    @classmethod
    def degraded(cls, margin: float = 0.02) -> Guardrail:
        """At most this much more of the answers may have lacked a feature."""
        return cls("degraded", margin)

    @classmethod
    def refused(cls, margin: float = 0.005) -> Guardrail:
        """At most this much more of the requests may be refused because of the release that was to answer."""
        return cls("refused", margin)

    def __post_init__(self) -> None:
        if self.harm not in get_args(Harm):
            raise BadDeployment(
                f"a guardrail watches {self.harm!r}.",
                expected=f"One of {listed(repr(one) for one in get_args(Harm))} is expected.",
            )
        if (
            isinstance(self.margin, bool)
            or not isinstance(self.margin, int | float)
            or not 0 < self.margin < float("inf")
        ):
            raise BadDeployment(
                f"the margin of guardrail '{self.harm}' is {self.margin!r}.", expected="A number above 0 is expected."
            )


@dataclass(frozen=True)
class Metric:
    """A number of each request by which releases are compared, from where the business keeps it.

    name: of the number, and of its column. source: its rows, such as a `QuerySource` or a `PostgresSource(sql=...)`.
        Each says whose it is: by prediction_id, by request_id or by all columns of the model's key; one row a request.
        Rows that were not known yet (`known_at` or `event_timestamp` of the source) do not count.
    better: "higher" or "lower".
    margin: how much worse, a request, is still borne; a canary then moves on when that is shown. None: it moves on
        unless the new release is shown to be worse.
    without_row: what a request without a row counts as, for example 0 where one that was not followed by an order
        brought no revenue; None: it is left out.
    """

    name: str
    source: Source = field(repr=False)
    better: Literal["higher", "lower"] = "higher"
    margin: float | None = None
    without_row: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or self.name == "labels":
            raise BadDeployment(f"a metric is named {self.name!r}.", expected="The name of its column is expected.")
        if not isinstance(self.source, Source):
            raise BadDeployment(
                f"metric '{self.name}' is to be read from {type(self.source).__name__}.",
                expected="A source is expected, such as "
                f'QuerySource("SELECT request_id, {self.name} FROM orders", {{"orders": orders}}, name="{self.name}").',
            )
        if self.better not in ("higher", "lower"):
            raise BadDeployment(
                f"of metric '{self.name}' {self.better!r} is better.", expected='"higher" or "lower" is expected.'
            )
        for what, least in (("margin", 0.0), ("without_row", -float("inf"))):
            value = getattr(self, what)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and least <= value < float("inf") and value > -float("inf")):
                raise BadDeployment(
                    f"{what} of metric '{self.name}' is {value!r}.",
                    expected="A number" + (" of 0 or more" if what == "margin" else "") + " or None is expected.",
                )


GUARDRAILS = (
    Guardrail.errors(),
    Guardrail.slow(),
    Guardrail.mean_score(),
    Guardrail.degraded(),
    Guardrail.refused(),
)


@dataclass(frozen=True)
class BlueGreen:
    """All traffic moves to the new release at once; the one before it stays at hand for a roll-back."""

    kind: ClassVar[Literal["blue_green"]] = "blue_green"


@dataclass(frozen=True)
class Canary:
    """Traffic moves to the new release in steps; the evidence of each decides on the next.

    steps: percent of the traffic, rising, the last is 100. hold: the shortest time at each step; whole days, because an
    hour is not like another. guardrails: what must not become worse, judged at every look; one that is crossed takes
    the traffic back. min_rows: answers that the new release must have given at a step before the next.
    decide: by what else, with days as the unit and after a week of them: "labels" moves on unless the new release is
    worse by the labels that came, a `Metric` by a number of each request, such as revenue. None waits for neither.
    """

    steps: Sequence[float] = (5, 25, 100)
    hold: str = "1d"
    guardrails: Sequence[Guardrail] = GUARDRAILS
    min_rows: int = 1000
    decide: Literal["labels"] | Metric | None = None

    kind: ClassVar[Literal["canary"]] = "canary"

    def __post_init__(self) -> None:
        _freeze(self, "steps", "guardrails")
        _check_common(self.kind, self.guardrails, self.min_rows)
        rising = all(isinstance(step, int | float) and not isinstance(step, bool) for step in self.steps)
        if not rising or not self.steps or list(self.steps) != sorted(set(self.steps)) or self.steps[-1] != 100:
            raise BadDeployment(
                f"the steps of a canary are {list(self.steps)}.",
                expected="Percents that rise to 100 are expected, for example [5, 25, 100].",
            )
        if self.steps[0] < 0.01:
            raise BadDeployment(f"a canary begins with {self.steps[0]} %.", expected="The smallest share is 0.01 %.")
        _check_days("hold", self.hold)
        if self.decide is not None:
            _check_decides(self.kind, self.decide)

    @property
    def hold_us(self) -> int:
        return duration_us(self.hold)


@dataclass(frozen=True)
class ABTest:
    """Two releases side by side for a stated time; their labels, or a metric, decide.

    share: percent of the traffic that the new release gets. judge_for: the time after which the experiment is over,
    whole days; one that is undecided then ends with the release that was live before. min_days: days without which
    nothing is decided. decide: "labels", or a `Metric` of each request, such as revenue. guardrails, min_rows: as of
    `Canary`.
    unit: what is one observation. "day": is it better on days like these, and so on those to come? "request": was it
    better for the requests of these days? Which release answered each was drawn by lot, so that takes fewer days, and
    says nothing of days unlike them; not where traffic is split by a key.
    """

    share: float = 50
    judge_for: str = "28d"
    min_days: int = 7
    guardrails: Sequence[Guardrail] = GUARDRAILS
    min_rows: int = 1000
    decide: Literal["labels"] | Metric = "labels"
    unit: Unit = "day"

    kind: ClassVar[Literal["ab_test"]] = "ab_test"

    def __post_init__(self) -> None:
        _freeze(self, "guardrails")
        _check_common(self.kind, self.guardrails, self.min_rows)
        if isinstance(self.share, bool) or not isinstance(self.share, int | float) or not 0.01 <= self.share <= 99.99:
            raise BadDeployment(
                f"the share of an A/B test is {self.share!r}.", expected="A percent from 0.01 to 99.99 is expected."
            )
        _check_decides(self.kind, self.decide)
        if isinstance(self.decide, Metric) and self.decide.margin is not None:
            raise BadDeployment(
                f"metric '{self.decide.name}' of an A/B test has a margin.",
                expected="An A/B test asks which release is better; a margin belongs to a canary.",
            )
        if self.unit not in get_args(Unit):
            raise BadDeployment(
                f"the unit of an A/B test is {self.unit!r}.", expected='"day" or "request" is expected.'
            )
        _check_experiment(self.judge_for, self.min_days)

    @property
    def steps(self) -> tuple[float, ...]:
        return (self.share,)

    @property
    def hold_us(self) -> int:
        return self.min_days * DAY_US

    @property
    def judge_for_us(self) -> int:
        return duration_us(self.judge_for)


@dataclass(frozen=True)
class Shadow:
    """The new release scores what the live one answers, after the answer has left, and nobody sees it.

    No traffic is at risk, and both score the same rows; the labels decide, with days as the unit. judge_for, min_days,
    guardrails, min_rows: as of `ABTest`. What it scores is in the prediction log under the deployment "NAME~shadow".
    """

    judge_for: str = "28d"
    min_days: int = 7
    guardrails: Sequence[Guardrail] = GUARDRAILS
    min_rows: int = 1000
    decide: Literal["labels"] = "labels"

    kind: ClassVar[Literal["shadow"]] = "shadow"
    steps: ClassVar[tuple[float, ...]] = (0,)

    def __post_init__(self) -> None:
        if isinstance(self.decide, Metric):
            raise BadDeployment(
                f"a shadow is to be judged by '{self.decide.name}', which nothing that it says can move.",
                expected="Nobody sees what a shadow scores, so it earns and costs nothing: its labels decide. "
                f"ABTest(decide=Metric({self.decide.name!r}, ...)) gives the new release answers to be judged by.",
            )
        _check_decides(self.kind, self.decide)
        _freeze(self, "guardrails")
        _check_common(self.kind, self.guardrails, self.min_rows)
        _check_experiment(self.judge_for, self.min_days)

    @property
    def hold_us(self) -> int:
        return self.min_days * DAY_US

    @property
    def judge_for_us(self) -> int:
        return duration_us(self.judge_for)


Strategy = BlueGreen | Canary | ABTest | Shadow
STEPWISE = Canary | ABTest | Shadow


@dataclass(frozen=True)
class Deployment:
    """A model in service.

    model: the model's name. name: what callers ask for; the model's name unless given.
    strategy: how a new release takes the traffic of a live one: `Canary()`, in steps of 5, 25 and 100 %, unless
        `BlueGreen()`, `ABTest()` or `Shadow()` is given. A deployment's first release takes all of it.
    route_by: the request field by which traffic is split when there are several arms, for example a customer's
        key, so that one customer always meets the same release. Without it each request is on its own.
    on_store_failure: "refuse" answers 503 while the online store is down; "missing" answers with its features
        missing, and says so in every such answer and in the log.
    defaults: with "missing", values that stand for looked-up features then, by "view__feature"; a feature that is not
        among them is missing.
    cache: how many scores to keep, by release and by what the model was given after look-up, so that the same inputs
        are not scored twice; 0: none. It pays for a model that is slow, asked again and again for the same.
    objective: what the deployment promises; its alerts and dashboard are made of it (`seatrial export prometheus`).
    """

    model: str
    strategy: Strategy = field(default_factory=Canary)
    route_by: str | None = None
    name: str = ""
    on_store_failure: OnStoreFailure = "refuse"
    objective: Objective = field(default_factory=Objective)
    defaults: Mapping[str, Default] = field(default_factory=dict, hash=False)
    cache: int = 0

    @property
    def beside(self) -> dict[str, Any]:
        """The settings that a decision holds only where they are set."""
        every = {"defaults": dict(self.defaults), "cache": self.cache}
        return {name: value for name, value in every.items() if value}

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.model)
        if not isinstance(self.strategy, Strategy):
            raise BadDeployment(
                f"deployment '{self.name}' has {type(self.strategy).__name__} as its strategy.",
                expected="BlueGreen(), Canary(), ABTest() or Shadow() is expected.",
            )
        if isinstance(self.strategy, ABTest) and self.strategy.unit == "request" and self.route_by is not None:
            raise BadDeployment(
                f"deployment '{self.name}' splits its traffic by '{self.route_by}', and its A/B test judges requests.",
                expected='Requests of one key are alike: ABTest(unit="day") is expected, or no route_by.',
            )
        if self.on_store_failure not in ("refuse", "missing"):
            raise BadDeployment(
                f"deployment '{self.name}' has on_store_failure={self.on_store_failure!r}.",
                expected='"refuse" or "missing" is expected.',
            )
        self._check_defaults()
        if not isinstance(self.cache, int) or isinstance(self.cache, bool) or not 0 <= self.cache <= MOST_CACHED:
            raise BadDeployment(
                f"deployment '{self.name}' has cache={self.cache!r}.",
                expected=f"A number of scores to keep, from 0 to {MOST_CACHED:,}, is expected.",
            )
        if not isinstance(self.objective, Objective):
            raise BadDeployment(
                f"deployment '{self.name}' has {type(self.objective).__name__} as its objective.",
                expected="Objective(availability=0.999, latency_ms=50, share=0.99) is expected.",
            )
        declare(self)

    def _check_defaults(self) -> None:
        sound = isinstance(self.defaults, Mapping) and all(
            isinstance(name, str)
            and (value is None or isinstance(value, str | int | float))
            and not (isinstance(value, float) and not isfinite(value))
            for name, value in self.defaults.items()
        )
        if not sound:
            raise BadDeployment(
                f"deployment '{self.name}' has defaults that cannot be used.",
                expected='A finite number, a text or None for each name is expected: {"carrier_delay__last": 0.0}.',
            )
        if self.defaults and self.on_store_failure != "missing":
            raise BadDeployment(
                f"deployment '{self.name}' declares defaults for when the online store is down, and refuses then.",
                expected='defaults= goes with on_store_failure="missing".',
            )
        object.__setattr__(self, "defaults", {name: _plain(value) for name, value in self.defaults.items()})


def _plain(value: Default) -> Default:
    """A truth value as the number that models take."""
    return int(value) if isinstance(value, bool) else value


def _freeze(strategy: object, *names: str) -> None:
    for name in names:
        given = getattr(strategy, name)
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise BadDeployment(f"{name} is {given!r}.", expected="A list is expected.")
        object.__setattr__(strategy, name, tuple(given))


def _check_common(kind: str, guardrails: Sequence[Guardrail], min_rows: int) -> None:
    harms = [one.harm if isinstance(one, Guardrail) else one for one in guardrails]
    if not all(isinstance(one, Guardrail) for one in guardrails) or len(set(harms)) != len(harms):
        raise BadDeployment(
            f"the guardrails of a {kind} are {harms}.", expected="Each is a Guardrail, and each harm is named once."
        )
    if isinstance(min_rows, bool) or not isinstance(min_rows, int) or min_rows < 100:
        raise BadDeployment(
            f"min_rows of a {kind} is {min_rows!r}.",
            expected="At least 100 answers are expected: the intervals hold for many of them.",
        )


def _check_decides(kind: str, decide: object) -> None:
    if decide != "labels" and not isinstance(decide, Metric):
        raise BadDeployment(
            f"a {kind} decides by {decide!r}.", expected='"labels" or a Metric is expected, for a canary also None.'
        )


def _check_experiment(judge_for: str, min_days: int) -> None:
    _check_days("judge_for", judge_for)
    if isinstance(min_days, bool) or not isinstance(min_days, int) or min_days < 2:
        raise BadDeployment(f"min_days is {min_days!r}.", expected="At least 2 days are expected.")


def _check_days(name: str, text: str) -> None:
    length = 0 if str(text).rstrip("usmhdw") == "0" else duration_us(text)
    if length < DAY_US or length % DAY_US:
        raise BadDeployment(
            f"{name} is {text!r}.",
            expected='Whole days are expected, one at least, for example "1d": an hour is not like another.',
            next="To see a rollout go faster, rehearse it on history with --at: docs/deployment.md.",
        )
