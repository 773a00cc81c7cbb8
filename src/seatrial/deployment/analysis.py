"""Analysis: may a new release have more of the traffic, must it lose what it has, or is it too early to say?

Looked at as often as one likes: every figure has a confidence sequence. In this order: is a guardrail shown to be
crossed? Is the split what was wanted? (If not, rows are lost or doubled in one arm, and nothing can be compared.) Is
there enough, and is every guardrail shown to be within its margin? What do the labels say? Rows of one day share what
happens on it, so labels are judged with days as observations, unless an A/B test asks about the requests themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import from_us, iso
from seatrial.core.gain import by_how_much
from seatrial.core.windows import DAY_US, HOUR_US, hours_text
from seatrial.deployment.definition import STEPWISE, ABTest, Canary, Guardrail, Harm, Metric, Shadow, Unit
from seatrial.stats.confidence import (
    Moments,
    clustered,
    difference_bounds,
    difference_sequence,
    moments,
    t_sequence,
)
from seatrial.stats.sample_ratio import log_evidence

ALPHA = 0.05
TUNED_FOR = 20_000
"""Answers of both arms together at which a guardrail's interval is tightest."""
TUNED_FOR_KEYS = 200
"""The same of keys, where the traffic is split by one: their number grows slowly, and then hardly at all."""
MOST_FAIL = 0.5
"""A difference in failures beyond which keys are not waited for."""
WEEK_OF_DAYS = 7
"""Days without which a canary is not decided by labels or a metric: a Monday is not like a Sunday."""
TAKE_UP_US = 10_000_000
"""Answers of the first ten seconds of a step do not count: every server takes up a new split within one or two."""
SPLIT_EVIDENCE = math.log(1000)
"""The evidence at which a split counts as wrong: a sound one reaches it in one of a thousand experiments at most."""
MIN_LABELLED = 30
"""Labelled answers of each arm without which a day does not count."""

Verdict = Literal["advance", "hold", "roll back", "keep the live release"]


@dataclass(frozen=True)
class Answers:
    """What one arm answered at this step: arrays over its answers, (n,), one a request.

    key: the number of the key of each, where traffic is split by one: requests of a key are alike and in one arm, so
    keys are what is independent. None: requests are.
    at_us: the instant of each. latency_ms, degraded, score: as logged; score is P(positive), the probability of the
    likeliest class or the value. loss: by its label, smaller is better; NaN where no label is known. failed: requests
    of this arm that got a 5xx. refused: those that got a 4xx because of its release.
    """

    at_us: NDArray[np.int64]
    latency_ms: NDArray[np.float64]
    degraded: NDArray[np.bool_]
    score: NDArray[np.float64]
    loss: NDArray[np.float64]
    failed: int
    key: NDArray[np.intp] | None = None
    refused: int = 0


@dataclass(frozen=True)
class Values:
    """What a metric says of one arm's requests, (m,): their instants and values; NaN where none is known."""

    at_us: NDArray[np.int64]
    value: NDArray[np.float64]


@dataclass(frozen=True)
class Valued:
    """A metric of both arms.

    mixed: requests (or keys) that both arms answered, left out. stray: rows of the metric that belong to no request of
    this step. problem: why it cannot be read, in words; then the rest is empty.
    """

    live: Values
    new: Values
    mixed: int = 0
    stray: int = 0
    problem: str = ""


NOTHING = Values(np.empty(0, np.int64), np.empty(0))
NOTHING_VALUED = Valued(NOTHING, NOTHING, problem="nobody read it")


class Figure(msgspec.Struct, frozen=True):
    """One guardrail. live, new: the mean in each arm. difference: new minus live, with its interval over all looks.

    state: "crossed", "fine" (shown to be within the margin), "open" (not shown either way) or "not measured".
    """

    name: str
    margin: float
    live: float | None
    new: float | None
    difference: float | None
    low: float | None
    high: float | None
    state: Literal["crossed", "fine", "open", "not measured"]


class Labels(msgspec.Struct, frozen=True):
    """Labels so far. gain: the live release's mean loss minus the new one's, by `unit`, with its interval.

    days: that are over, with labels that had the time to come. ripening: those whose labels had not; they do not count
    yet. ripe_hours: how long after its end a day's labels are waited for; 0 where every answer has its own.
    """

    days: int
    labelled: int
    gain: float | None
    low: float | None
    high: float | None
    state: Literal["better", "worse", "undecided", "too early"]
    unit: Unit = "day"
    ripening: int = 0
    ripe_hours: float = 0.0


class Measured(msgspec.Struct, frozen=True):
    """A metric so far. live, new: its mean over requests. gain: by how much the new release is better (by a lower mean
    where lower is better), by `unit`, with its confidence sequence.

    missing: requests without a value, by arm. mixed, stray: see `Valued`. warning: what else should be known of it.
    state: "within" is shown not to be worse than the margin bears; "unreadable" says why in `warning`.
    """

    name: str
    better: str
    margin: float | None
    requests: dict[str, int]
    missing: dict[str, int]
    mixed: int
    stray: int
    live: float | None
    new: float | None
    days: int
    gain: float | None
    low: float | None
    high: float | None
    state: Literal["better", "within", "worse", "undecided", "too early", "unreadable"]
    warning: str = ""
    unit: Unit = "day"


class Analysis(msgspec.Struct, frozen=True):
    """What the evidence of one step says at one instant.

    wanted, observed: the new release's share of the answers. A shadow's is 0, and what it scored counts as answers.
    split: how many times likelier the counts are under another split than under the wanted one; above 1,000 nothing is
    decided. needed: answers of the new release that this step needs. ends: when it may end at the earliest.
    """

    as_of: str
    since: str
    ends: str
    rows: dict[str, int]
    wanted: float
    observed: float | None
    split: float
    guardrails: list[Figure]
    labels: Labels | None
    needed: int
    verdict: Verdict
    why: str
    metric: Measured | None = None


def analyse(
    strategy: STEPWISE,
    share: float,
    live: Answers,
    new: Answers,
    *,
    since_us: int,
    as_of_us: int,
    by_key: bool = False,
    valued: Valued | None = None,
    ripe_after_us: int = 0,
) -> Analysis:
    """Judge the answers of the step that began at `since_us`.

    share: percent of the traffic that the new release was to get. by_key: traffic is split by a key and not by request;
    keys of unlike weight then make counts of answers differ from the shares, so the split is told and not judged.
    Answers then have their key, and every guardrail takes keys for what is independent, as do labels beside days.
    valued: what the strategy's metric says, where it has one. ripe_after_us: how long after its end a day's labels are
    waited for, where labels decide: those that come first are unlike the others, and favour the release that expects
    what is known first.
    """
    rows = live.at_us.size, new.at_us.size
    wanted = share / 100
    evidence = log_evidence(rows, (1 - wanted, wanted)) if wanted else 0.0  # a shadow takes no share
    figures = [_figure(guardrail, live, new) for guardrail in strategy.guardrails]
    labels = _labels(strategy, live, new, since_us, as_of_us, ripe_after_us) if strategy.decide == "labels" else None
    metric = None
    if isinstance(strategy.decide, Metric):
        metric = _measured(strategy, strategy.decide, valued or NOTHING_VALUED, since_us, as_of_us)
    decision = labels or metric
    ends_us, last_us = _time(strategy, labels, since_us)
    verdict, why = _verdict(
        strategy, share, figures, decision, rows[1], evidence, since_us, as_of_us, ends_us, last_us, by_key=by_key
    )
    return Analysis(
        as_of=iso(from_us(as_of_us)),
        since=iso(from_us(since_us)),
        ends=iso(from_us(ends_us)),
        rows={"live": rows[0], "new": rows[1]},
        wanted=wanted,
        observed=rows[1] / sum(rows) if sum(rows) else None,
        split=math.exp(min(evidence, 700.0)),
        guardrails=figures,
        labels=labels,
        needed=strategy.min_rows,
        verdict=verdict,
        why=why,
        metric=metric,
    )


def _least_days(strategy: STEPWISE) -> int:
    """Days without which nothing is decided by labels or a metric."""
    return WEEK_OF_DAYS if isinstance(strategy, Canary) else strategy.min_days


def _time(strategy: STEPWISE, labels: Labels | None, since_us: int) -> tuple[int, int | None]:
    """When the step may end at the earliest, and when what is undecided then is over; None where that is never."""
    decided = _least_days(strategy) * DAY_US if strategy.decide is not None else 0
    waits = round(labels.ripe_hours * HOUR_US) if labels else 0
    last_us = None if isinstance(strategy, Canary) else since_us + strategy.judge_for_us + waits
    return since_us + max(strategy.hold_us, decided + waits), last_us


def _verdict(
    strategy: STEPWISE,
    share: float,
    figures: Sequence[Figure],
    decision: Labels | Measured | None,
    rows: int,
    evidence: float,
    since_us: int,
    as_of_us: int,
    ends_us: int,
    last_us: int | None,
    *,
    by_key: bool,
) -> tuple[Verdict, str]:
    # what a shadow refuses nobody was refused; it has to wait until callers send what it needs
    borne = ("refused",) if isinstance(strategy, Shadow) else ()
    crossed = [one for one in figures if one.state == "crossed" and one.name not in borne]
    if crossed:
        return "roll back", "; ".join(words(one) for one in crossed)
    if evidence > SPLIT_EVIDENCE and not by_key:
        return "hold", f"the split is not what was wanted ({share:g} %): rows of one arm are lost or counted twice"
    if decision is not None and decision.state == "worse":
        return "roll back", decision_words(decision)
    if as_of_us < since_us:
        return "hold", f"the step began later than now ({iso(from_us(since_us))}): a clock was set back"
    if rows < strategy.min_rows:
        return "hold", f"not enough data ({rows:,} of {strategy.min_rows:,} answers)"
    if as_of_us < ends_us:
        return "hold", f"the step lasts until {iso(from_us(ends_us))} at least"
    unsure = [one for one in figures if one.state != "fine"]
    if unsure:
        return "hold", "not shown to be within its margin yet: " + "; ".join(words(one) for one in unsure)
    if decision is None:
        return "advance", "every guardrail is within its margin"
    told = decision_words(decision)
    if last_us is not None and as_of_us >= last_us and decision.state != "better":
        return "keep the live release", f"the time is over; {told}"
    if decision.state == "unreadable":
        return "hold", told
    if decision.state == "too early":
        what = f"labels{ripening(decision)}" if isinstance(decision, Labels) else decision.name
        return "hold", f"not enough data ({decision.days} of {_least_days(strategy)} days with {what})"
    if decision.state in ("better", "within"):
        return "advance", told
    needs_proof = not isinstance(strategy, Canary) or (isinstance(decision, Measured) and decision.margin is not None)
    return ("hold", told) if needs_proof else ("advance", f"every guardrail is within its margin; {told}")


def words(figure: Figure) -> str:
    """A guardrail in one sentence."""
    if figure.difference is None or figure.low is None or figure.high is None:
        return f"{figure.name}: not measured"
    return (
        f"{figure.name}: {figure.new:.4g} against {figure.live:.4g}, a difference of {figure.difference:+.4g} "
        f"(95 % between {figure.low:+.4g} and {figure.high:+.4g}; {figure.margin:g} is borne)"
    )


def decision_words(decision: Labels | Measured) -> str:
    """What the labels or the metric say, in one sentence."""
    labels = isinstance(decision, Labels)
    name = "labels" if isinstance(decision, Labels) else decision.name
    if isinstance(decision, Measured) and decision.state == "unreadable":
        return f"{name} cannot be read: {decision.warning}"
    if decision.gain is None:
        return f"{name}: {decision.state}, {decision.days} whole days so far{ripening(decision)}"
    worse, by, low, high = by_how_much(decision.gain, decision.low, decision.high)
    if labels:
        what = "the loss is higher by" if worse else "the loss is lower by"
    else:
        what = "worse by" if worse else "better by"
    interval = "not bounded yet" if low is None or high is None else f"95 % between {low:.4g} and {high:.4g}"
    gain = f"{what} {by:.4g} a {decision.unit}"
    return f"{name}: {decision.state}, {gain} ({interval}, {decision.days} days{ripening(decision)})"


def ripening(decision: Labels | Measured) -> str:
    """How many days do not count yet and when they do, in words that go on; empty where all do."""
    if not isinstance(decision, Labels) or not decision.ripening:
        return ""
    return f"; {decision.ripening} more wait {hours_text(decision.ripe_hours)} for their labels"


def _figure(guardrail: Guardrail, live: Answers, new: Answers) -> Figure:
    pair = _pair(guardrail.harm, live, new)
    if pair is None or min(pair[0].n, pair[1].n) < 2:
        return Figure(guardrail.harm, guardrail.margin, None, None, None, None, None, "not measured")
    control, treatment = pair
    both_ways = guardrail.harm == "mean_score"
    interval = difference_sequence if both_ways else difference_bounds
    tuned_for = TUNED_FOR if control.clusters is None else TUNED_FOR_KEYS
    bounds = interval(control, treatment, alpha=ALPHA, tuned_for=tuned_for)
    crossed = bounds.low > guardrail.margin or (both_ways and bounds.high < -guardrail.margin)
    crossed = crossed or (guardrail.harm in ("errors", "refused") and _mostly_fails(guardrail.harm, live, new))
    within = bounds.high <= guardrail.margin and (not both_ways or bounds.low >= -guardrail.margin)
    return Figure(
        guardrail.harm,
        guardrail.margin,
        control.mean,
        treatment.mean,
        bounds.value,
        bounds.low,
        bounds.high,
        "crossed" if crossed else "fine" if within else "open",
    )


def _mostly_fails(harm: Harm, live: Answers, new: Answers) -> bool:
    """Where keys are what is independent, a few of them prove nothing of failures whose keys nobody knows; but a
    release that fails most of what it is asked, whoever asks, is not kept until there are more."""
    if live.key is None:
        return False
    counts = [(arm.failed if harm == "errors" else arm.refused, arm.at_us.size) for arm in (live, new)]
    arms = [_share(count, count + answered) for count, answered in counts]
    if min(arm.n for arm in arms) < 2:
        return False
    return difference_bounds(arms[0], arms[1], alpha=ALPHA, tuned_for=TUNED_FOR).low > MOST_FAIL


def _pair(harm: Harm, live: Answers, new: Answers) -> tuple[Moments, Moments] | None:
    """The harm's moments in both arms; None where it cannot be told."""
    if harm == "errors":
        return _failures(live, live.failed), _failures(new, new.failed)
    if harm == "refused":
        return _failures(live, live.refused), _failures(new, new.refused)
    if not live.at_us.size or not new.at_us.size:
        return None
    if harm == "slow":
        usual = float(np.quantile(live.latency_ms, 0.99))
        return _share_of(live.latency_ms > usual, live.key), _share_of(new.latency_ms > usual, new.key)
    if harm == "degraded":
        return _share_of(live.degraded, live.key), _share_of(new.degraded, new.key)
    return _mean_score(live), _mean_score(new)


def _mean_score(arm: Answers) -> Moments:
    known = np.isfinite(arm.score)
    return moments(arm.score[known]) if arm.key is None else clustered(arm.score[known], arm.key[known])


def _share_of(flags: NDArray[np.bool_], key: NDArray[np.intp] | None) -> Moments:
    """Of flags, each of one request. With keys at least as unsure as as many independent requests."""
    alone = _share(int(np.count_nonzero(flags)), flags.size)
    if key is None:
        return alone
    found = clustered(flags.astype(np.float64), key)
    return Moments(found.n, found.mean, max(found.variance, alone.variance / alone.n * found.n), found.clusters)


def _failures(arm: Answers, failed: int) -> Moments:
    """Requests that failed, or were refused, of all. Whose they were is not known: with keys, all requests of one count
    as one observation (Kish's effective size), as if it failed always or never."""
    alone = _share(failed, failed + arm.at_us.size)
    if arm.key is None or not arm.at_us.size:
        return alone
    counts = np.unique(arm.key, return_counts=True)[1].astype(np.float64)
    effective = arm.at_us.size**2 / float(counts @ counts)
    cautious = _share(round(alone.mean * effective), max(round(effective), 1))
    return Moments(counts.size, alone.mean, cautious.variance / effective * counts.size, effective)


def _share(count: int, n: int) -> Moments:
    """Of zeros and ones. One of each is put in, so that no share is taken for a certain one (Agresti, Coull)."""
    if not n:
        return Moments()
    rate, cautious = count / n, (count + 1) / (n + 2)
    return Moments(n, rate, cautious * (1 - cautious) * n / max(n - 1, 1))


def _labels(
    strategy: STEPWISE, live: Answers, new: Answers, since_us: int, as_of_us: int, ripe_after_us: int
) -> Labels:
    whole = _over(since_us, as_of_us)
    answered, labelled = _by_day(live, new, since_us, whole)
    # days are waited for together: those that are told early are the ones on which nothing happened that is told late
    waits_us = 0 if whole and (labelled == answered).all() else ripe_after_us
    counts: NDArray[np.bool_] = since_us + np.arange(1, whole + 1) * DAY_US + waits_us <= as_of_us
    young = int((~counts & (answered.min(axis=0) >= MIN_LABELLED)).sum())
    live, new = (_of_days(arm, since_us, counts) for arm in (live, new))
    seen = _seen((live.at_us, live.loss), (new.at_us, new.loss), since_us, as_of_us)
    mean, low, high = _with_keys(_interval(seen, _unit(strategy)), live, new)
    state: Literal["better", "worse", "undecided", "too early"] = "undecided"
    if seen.days < _least_days(strategy):
        state = "too early"
    elif low is not None and low > 0:
        state = "better"
    elif high is not None and high < 0:
        state = "worse"
    count = sum(one.size for one in seen.values)
    return Labels(seen.days, count, mean, low, high, state, _unit(strategy), young, waits_us / HOUR_US)


def _over(since_us: int, as_of_us: int) -> int:
    """Days of 24 hours since the step's begin that are over."""
    return max(int((as_of_us - since_us) // DAY_US), 0)


def _by_day(live: Answers, new: Answers, since_us: int, days: int) -> NDArray[np.intp]:
    """(2, 2, days): answers, and of those the ones with a label, by arm and day."""
    counted = []
    for arm in (live, new):
        day = (arm.at_us - since_us) // DAY_US
        inside = (day >= 0) & (day < days)
        told = inside & np.isfinite(arm.loss)
        counted.append([np.bincount(day[one], minlength=days) for one in (inside, told)])
    found: NDArray[np.intp] = np.array(counted).transpose(1, 0, 2)
    return found


def _of_days(arm: Answers, since_us: int, counts: NDArray[np.bool_]) -> Answers:
    """The answers, with the labels of the days that count alone."""
    day = (arm.at_us - since_us) // DAY_US
    inside = (day >= 0) & (day < counts.size)
    inside[inside] = counts[day[inside]]
    return replace(arm, loss=np.where(inside, arm.loss, np.nan))


def _with_keys(
    by_day: tuple[float | None, float | None, float | None], live: Answers, new: Answers
) -> tuple[float | None, float | None, float | None]:
    """The interval by day, widened to what holds for the keys as well. A key is in one arm on every day, so what its
    own losses are like does not even out over days: only more keys do that."""
    mean, low, high = by_day
    if live.key is None or new.key is None or low is None or high is None:
        return by_day
    known = [np.isfinite(arm.loss) for arm in (live, new)]
    control, treatment = (
        clustered(arm.loss[mask], arm.key[mask])
        for arm, mask in zip((new, live), reversed(known), strict=True)
        if arm.key is not None
    )
    if min(control.n, treatment.n) < 2:
        return mean, None, None
    keys = difference_sequence(control, treatment, alpha=ALPHA, tuned_for=TUNED_FOR_KEYS)
    return mean, min(low, keys.low), max(high, keys.high)


def _measured(strategy: STEPWISE, metric: Metric, valued: Valued, since_us: int, as_of_us: int) -> Measured:
    arms = {"live": valued.live, "new": valued.new}
    missing = {name: int(np.isnan(arm.value).sum()) for name, arm in arms.items()}
    values = {name: arm.value for name, arm in arms.items()}
    if metric.without_row is not None:
        values = {name: np.where(np.isnan(one), metric.without_row, one) for name, one in values.items()}
    sign = 1 if metric.better == "lower" else -1  # so that live minus new is what was gained
    sided = [(arms[name].at_us, sign * values[name]) for name in ("live", "new")]
    seen = _seen(sided[0], sided[1], since_us, as_of_us)
    mean, low, high = _interval(seen, _unit(strategy))
    borne = metric.margin or 0.0
    state: Literal["better", "within", "worse", "undecided", "too early", "unreadable"] = "undecided"
    if valued.problem:
        state = "unreadable"
    elif seen.days < _least_days(strategy):
        state = "too early"
    elif low is not None and low > 0:
        state = "better"
    elif low is not None and metric.margin is not None and low > -borne:
        state = "within"
    elif high is not None and high < -borne:
        state = "worse"
    known = {name: one[np.isfinite(one)] for name, one in values.items()}
    return Measured(
        name=metric.name,
        better=metric.better,
        margin=metric.margin,
        requests={name: arm.value.size for name, arm in arms.items()},
        missing=missing,
        mixed=valued.mixed,
        stray=valued.stray,
        live=float(known["live"].mean()) if known["live"].size else None,
        new=float(known["new"].mean()) if known["new"].size else None,
        days=seen.days,
        gain=mean,
        low=low,
        high=high,
        state=state,
        warning=valued.problem or _missing_words(metric, missing, arms),
        unit=_unit(strategy),
    )


def _missing_words(metric: Metric, missing: dict[str, int], arms: dict[str, Values]) -> str:
    """That the arms miss unlike shares of their values, where those are left out; else nothing."""
    sizes = {name: arm.value.size for name, arm in arms.items()}
    if metric.without_row is not None or min(sizes.values()) < 2:
        return ""
    shares = [_share(missing[name], sizes[name]) for name in ("live", "new")]
    apart = difference_sequence(shares[0], shares[1], alpha=ALPHA, tuned_for=TUNED_FOR)
    if apart.low <= 0 <= apart.high:
        return ""
    return (
        f"{shares[1].mean:.2%} of the new release's requests have no {metric.name}, {shares[0].mean:.2%} of the live "
        "one's: what is left out is not alike, so the comparison may mislead"
    )


@dataclass(frozen=True)
class Seen:
    """Values of both arms in the days (24 hours from the step's begin) that are over and have values enough in both.

    values: of the live and of the new release, (m,) each. day: of each value, which of the days, from 0.
    """

    days: int
    values: tuple[NDArray[np.float64], NDArray[np.float64]]
    day: tuple[NDArray[np.intp], NDArray[np.intp]]

    @property
    def means(self) -> NDArray[np.float64]:
        """(2, days): of the live release and of the new one."""
        arms = zip(self.values, self.day, strict=True)
        sums = [np.bincount(day, weights=values, minlength=self.days) for values, day in arms]
        found: NDArray[np.float64] = np.array(sums) / [np.bincount(day, minlength=self.days) for day in self.day]
        return found


def _seen(
    live: tuple[NDArray[np.int64], NDArray[np.float64]],
    new: tuple[NDArray[np.int64], NDArray[np.float64]],
    since_us: int,
    as_of_us: int,
) -> Seen:
    """What counts of both arms. live, new: instants and values, NaN where none is known."""
    whole = _over(since_us, as_of_us)
    days, values = [], []
    for at_us, value in (live, new):
        day = (at_us - since_us) // DAY_US
        counted = (day >= 0) & (day < whole) & np.isfinite(value)
        days.append(day[counted])
        values.append(value[counted])
    counts = np.array([np.bincount(day, minlength=whole) for day in days])
    enough: NDArray[np.bool_] = counts.min(axis=0) >= MIN_LABELLED
    place = np.cumsum(enough) - 1
    kept = [enough[day] for day in days]
    return Seen(
        int(enough.sum()),
        (values[0][kept[0]], values[1][kept[1]]),
        (place[days[0][kept[0]]], place[days[1][kept[1]]]),
    )


def _unit(strategy: STEPWISE) -> Unit:
    return strategy.unit if isinstance(strategy, ABTest) else "day"


def _interval(seen: Seen, unit: Unit) -> tuple[float | None, float | None, float | None]:
    """By how much live is above new, and its confidence sequence; None for what is not known yet.

    Of days: the mean of their differences. Of requests, which were split by lot: the difference of the means, of which
    what the two share by answering on the same day is taken out first (each value less the mean of its day's two means;
    Miratrix, Sekhon, Yu: Adjusting treatment effect estimates by post-stratification, 2013).
    """
    if seen.days < 2:
        return None, None, None
    means = seen.means
    if unit == "day":
        gains = means[0] - means[1]
        low, high = t_sequence(gains, alpha=ALPHA) or (None, None)
        return float(gains.mean()), low, high
    shared = means.mean(axis=0)
    live, new = (moments(values - shared[day]) for values, day in zip(seen.values, seen.day, strict=True))
    gain = difference_sequence(new, live, alpha=ALPHA, tuned_for=TUNED_FOR)
    return gain.value, gain.low, gain.high
