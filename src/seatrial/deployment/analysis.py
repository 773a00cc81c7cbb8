"""Analysis: may a new release have more of the traffic, must it lose what it has, or is it too early to say?

Looked at as often as one likes: every figure has a confidence sequence. In this order: is a guardrail shown to be
crossed? Is the split what was wanted? (If not, rows are lost or doubled in one arm, and nothing can be compared.) Is
there enough, and is every guardrail shown to be within its margin? What do the labels say? Rows of one day share what
happens on it, so labels are judged with days as observations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import from_us, iso
from seatrial.deployment.definition import DAY_US, STEPWISE, Canary, Guardrail, Harm
from seatrial.stats.confidence import Moments, asymptotic_sequence, difference_bounds, difference_sequence, moments
from seatrial.stats.sample_ratio import log_evidence

ALPHA = 0.05
TUNED_FOR = 20_000
"""Answers of both arms together at which a guardrail's interval is tightest."""
TUNED_FOR_DAYS = 60
TAKE_UP_US = 10_000_000
"""Answers of the first ten seconds of a step do not count: every server takes up a new split within one or two."""
SPLIT_EVIDENCE = math.log(1000)
"""The evidence at which a split counts as wrong: a sound one reaches it in one of a thousand experiments at most."""
MIN_LABELLED = 30
"""Labelled answers of each arm without which a day does not count."""

Verdict = Literal["advance", "hold", "roll back", "keep the live release"]


@dataclass(frozen=True)
class Answers:
    """What one arm answered at this step: arrays over its answers, (n,).

    at_us: the instant of each. latency_ms, degraded, score: as logged; score is P(positive), the probability of the
    likeliest class or the value. loss: by its label, smaller is better; NaN where no label is known. failed: requests
    of this arm that got a 5xx.
    """

    at_us: NDArray[np.int64]
    latency_ms: NDArray[np.float64]
    degraded: NDArray[np.bool_]
    score: NDArray[np.float64]
    loss: NDArray[np.float64]
    failed: int


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
    """Labels so far. gain: the live release's mean loss minus the new one's, by day, with its confidence sequence."""

    days: int
    labelled: int
    gain: float | None
    low: float | None
    high: float | None
    state: Literal["better", "worse", "undecided", "too early"]


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


def analyse(
    strategy: STEPWISE,
    share: float,
    live: Answers,
    new: Answers,
    *,
    since_us: int,
    as_of_us: int,
    by_key: bool = False,
) -> Analysis:
    """Judge the answers of the step that began at `since_us`.

    share: percent of the traffic that the new release was to get. by_key: traffic is split by a key and not by request;
    keys of unlike weight then make counts of answers differ from the shares, so the split is told and not judged.
    """
    rows = live.at_us.size, new.at_us.size
    wanted = share / 100
    evidence = log_evidence(rows, (1 - wanted, wanted)) if wanted else 0.0  # a shadow takes no share
    figures = [_figure(guardrail, live, new) for guardrail in strategy.guardrails]
    asks_labels = not isinstance(strategy, Canary) or strategy.decide == "labels"
    labels = _labels(strategy, live, new, since_us, as_of_us) if asks_labels else None
    verdict, why = _verdict(strategy, share, figures, labels, rows[1], evidence, since_us, as_of_us, by_key=by_key)
    return Analysis(
        as_of=iso(from_us(as_of_us)),
        since=iso(from_us(since_us)),
        ends=iso(from_us(since_us + strategy.hold_us)),
        rows={"live": rows[0], "new": rows[1]},
        wanted=wanted,
        observed=rows[1] / sum(rows) if sum(rows) else None,
        split=math.exp(min(evidence, 700.0)),
        guardrails=figures,
        labels=labels,
        needed=strategy.min_rows,
        verdict=verdict,
        why=why,
    )


def _verdict(
    strategy: STEPWISE,
    share: float,
    figures: Sequence[Figure],
    labels: Labels | None,
    rows: int,
    evidence: float,
    since_us: int,
    as_of_us: int,
    *,
    by_key: bool,
) -> tuple[Verdict, str]:
    crossed = [one for one in figures if one.state == "crossed"]
    if crossed:
        return "roll back", "; ".join(words(one) for one in crossed)
    if evidence > SPLIT_EVIDENCE and not by_key:
        return "hold", f"the split is not what was wanted ({share:g} %): rows of one arm are lost or counted twice"
    if labels is not None and labels.state == "worse":
        return "roll back", label_words(labels)
    if as_of_us < since_us:
        return "hold", f"the step began later than now ({iso(from_us(since_us))}): a clock was set back"
    if rows < strategy.min_rows:
        return "hold", f"not enough data ({rows:,} of {strategy.min_rows:,} answers)"
    if as_of_us < since_us + strategy.hold_us:
        return "hold", f"the step lasts until {iso(from_us(since_us + strategy.hold_us))} at least"
    unsure = [one for one in figures if one.state != "fine"]
    if unsure:
        return "hold", "not shown to be within its margin yet: " + "; ".join(words(one) for one in unsure)
    if labels is None:
        return "advance", "every guardrail is within its margin"
    if isinstance(strategy, Canary):
        if labels.state == "too early":
            return "hold", f"not enough data ({labels.days} of 2 days with labels)"
        return "advance", f"every guardrail is within its margin; {label_words(labels)}"
    if labels.state == "better":
        return "advance", label_words(labels)
    if as_of_us >= since_us + strategy.judge_for_us:
        return "keep the live release", f"the time is over; {label_words(labels)}"
    if labels.state == "too early":
        return "hold", f"not enough data ({labels.days} of {strategy.min_days} days with labels)"
    return "hold", label_words(labels)


def words(figure: Figure) -> str:
    """A guardrail in one sentence."""
    if figure.difference is None or figure.low is None or figure.high is None:
        return f"{figure.name}: not measured"
    return (
        f"{figure.name}: {figure.new:.4g} against {figure.live:.4g}, a difference of {figure.difference:+.4g} "
        f"(95 % between {figure.low:+.4g} and {figure.high:+.4g}; {figure.margin:g} is borne)"
    )


def label_words(labels: Labels) -> str:
    """What the labels say, in one sentence."""
    if labels.gain is None or labels.low is None or labels.high is None:
        return f"labels: {labels.state}, {labels.days} whole days so far"
    return (
        f"labels: {labels.state}, the loss is lower by {labels.gain:.4g} a day "
        f"(95 % between {labels.low:.4g} and {labels.high:.4g}, {labels.days} days)"
    )


def _figure(guardrail: Guardrail, live: Answers, new: Answers) -> Figure:
    pair = _pair(guardrail.harm, live, new)
    if pair is None or min(pair[0].n, pair[1].n) < 2:
        return Figure(guardrail.harm, guardrail.margin, None, None, None, None, None, "not measured")
    control, treatment = pair
    both_ways = guardrail.harm == "mean_score"
    interval = difference_sequence if both_ways else difference_bounds
    bounds = interval(control, treatment, alpha=ALPHA, tuned_for=TUNED_FOR)
    crossed = bounds.low > guardrail.margin or (both_ways and bounds.high < -guardrail.margin)
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


def _pair(harm: Harm, live: Answers, new: Answers) -> tuple[Moments, Moments] | None:
    """The harm's moments in both arms; None where it cannot be told."""
    if harm == "errors":
        return _share(live.failed, live.failed + live.at_us.size), _share(new.failed, new.failed + new.at_us.size)
    if not live.at_us.size or not new.at_us.size:
        return None
    if harm == "slow":
        usual = float(np.quantile(live.latency_ms, 0.99))
        return _share_of(live.latency_ms > usual), _share_of(new.latency_ms > usual)
    if harm == "degraded":
        return _share_of(live.degraded), _share_of(new.degraded)
    return moments(live.score[np.isfinite(live.score)]), moments(new.score[np.isfinite(new.score)])


def _share_of(flags: NDArray[np.bool_]) -> Moments:
    return _share(int(np.count_nonzero(flags)), flags.size)


def _share(count: int, n: int) -> Moments:
    """Of zeros and ones. One of each is put in, so that no share is taken for a certain one (Agresti, Coull)."""
    if not n:
        return Moments()
    rate, cautious = count / n, (count + 1) / (n + 2)
    return Moments(n, rate, cautious * (1 - cautious) * n / max(n - 1, 1))


def _labels(strategy: STEPWISE, live: Answers, new: Answers, since_us: int, as_of_us: int) -> Labels:
    whole = (as_of_us - since_us) // DAY_US
    gains = []
    labelled = 0
    for number in range(int(whole)):
        losses = [_of_day(arm, since_us + number * DAY_US) for arm in (live, new)]
        if min(part.size for part in losses) >= MIN_LABELLED:
            gains.append(float(losses[0].mean() - losses[1].mean()))
            labelled += sum(part.size for part in losses)
    least = 2 if isinstance(strategy, Canary) else strategy.min_days
    if len(gains) < 2:
        return Labels(len(gains), labelled, None, None, None, "too early")
    values = np.array(gains)
    low, high = asymptotic_sequence(values, alpha=ALPHA, tuned_for=TUNED_FOR_DAYS)
    state: Literal["better", "worse", "undecided", "too early"] = "undecided"
    if len(gains) < least:
        state = "too early"
    elif low > 0:
        state = "better"
    elif high < 0:
        state = "worse"
    return Labels(len(gains), labelled, float(values.mean()), low, high, state)


def _of_day(arm: Answers, start_us: int) -> NDArray[np.float64]:
    """The known losses of the 24 hours from `start_us`."""
    of_day = (arm.at_us >= start_us) & (arm.at_us < start_us + DAY_US) & np.isfinite(arm.loss)
    found: NDArray[np.float64] = arm.loss[of_day]
    return found
