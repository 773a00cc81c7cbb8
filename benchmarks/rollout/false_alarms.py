"""How often does a rollout's judge see a difference between two equal releases, looking a hundred times?

Each part draws pairs of equal arms, lets a judge look 100 times (500 answers of each arm further every time), and
counts the pairs of which it ever says that they differ, at alpha 5 %:

    guardrail      the confidence sequence of a difference, one-sided and two-sided, against a z-test that is looked at
                   as often: for a rate of 0.5 %, one of 5 %, and a lognormal
    split          the sequential test of the split at 1,000:1, against chi-squared at p < 0.001
    days           the sequence by which labels and metrics are judged, looked at on each of 2 to 60 days, against the
                   asymptotic one and a t-test
    requests       an A/B test with unit="request": requests of 28 days, each day with a level of its own, split by
                   lot, and looked at after each day from the 7th; beside a z-test that is looked at as often
    keys           traffic that is split by a key, whose requests are alike: the same guardrail with keys as what is
                   independent, against one that takes requests for it (mean probability, and the share degraded)
    canary         `analyse` itself with the default guardrails: rolled back, or not advanced in the end

and with --flights FOLDER (a folder that `seatrial demo` made): the difference in log loss of its first two releases on
the flights of May and June 2013, each day's sign flipped at random, so that no release is the better one: judged flight
by flight, and by day. And an A/B test by request of the flights of 28 days, split by lot anew in every run, looked at
after each day from the 7th: of a release with itself, of two with each day's sign flipped at random, and as they are.

    PYTHONPATH=src python benchmarks/rollout/false_alarms.py [--runs 2000] [--flights seatrial-demo]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from seatrial.core.clock import monotonic, to_us
from seatrial.core.windows import DAY_US
from seatrial.deployment.analysis import ALPHA, SPLIT_EVIDENCE, TUNED_FOR, Answers, _figure, _interval, _seen, analyse
from seatrial.deployment.definition import Canary, Guardrail
from seatrial.stats.confidence import Moments, asymptotic_sequence, difference_bounds, difference_sequence, t_sequence
from seatrial.stats.sample_ratio import log_evidence

LOOKS, BATCH = 100, 500
GOAL, SPLIT_GOAL = 0.03, 0.001
Floats = NDArray[np.float64]


def rate(share: float) -> Callable[[np.random.Generator], tuple[Floats, Floats]]:
    def draw(random: np.random.Generator) -> tuple[Floats, Floats]:
        sums = random.binomial(BATCH, share, LOOKS).astype(float).cumsum()
        return sums, sums

    return draw


def skewed(random: np.random.Generator) -> tuple[Floats, Floats]:
    values = random.lognormal(sigma=1.0, size=(LOOKS, BATCH))
    return values.sum(axis=1).cumsum(), (values * values).sum(axis=1).cumsum()


def running(sums: Floats, squares: Floats) -> list[Moments]:
    n = np.arange(1, LOOKS + 1) * BATCH
    variances = (squares - sums * sums / n) / (n - 1)
    return [Moments(*one) for one in zip(n.tolist(), (sums / n).tolist(), variances.tolist(), strict=True)]


def guardrail(runs: int) -> dict[str, dict[str, float]]:
    found = {}
    for name, draw in {"0.5 %": rate(0.005), "5 %": rate(0.05), "lognormal": skewed}.items():
        random = np.random.default_rng(1)
        crossed = dict.fromkeys(("one-sided", "two-sided", "z-test"), 0)
        for _ in range(runs):
            pairs = list(zip(running(*draw(random)), running(*draw(random)), strict=True))
            bounds = [difference_bounds(*pair, alpha=ALPHA, tuned_for=TUNED_FOR).low for pair in pairs]
            both = [difference_sequence(*pair, alpha=ALPHA, tuned_for=TUNED_FOR) for pair in pairs]
            crossed["one-sided"] += any(low > 0 for low in bounds)
            crossed["two-sided"] += any(not one.low <= 0 <= one.high for one in both)
            crossed["z-test"] += any(abs(b.mean - a.mean) > 1.96 * error(a, b) for a, b in pairs)
        found[name] = {judge: count / runs for judge, count in crossed.items()}
    return found


def error(a: Moments, b: Moments) -> float:
    return math.sqrt(a.variance / a.n + b.variance / b.n)


def split(runs: int) -> dict[str, dict[str, float]]:
    found = {}
    for share in (0.5, 0.05):
        counts = np.random.default_rng(2).binomial(2 * BATCH, share, size=(runs, LOOKS)).cumsum(axis=1)
        n = np.arange(1, LOOKS + 1) * 2 * BATCH
        evidence = np.vectorize(lambda one, two, share=share: log_evidence((one, two), (share, 1 - share)))
        z = (counts - n * share) / np.sqrt(n * share * (1 - share))
        found[f"{share:.0%}"] = {
            "sequential": float((evidence(counts, n - counts) > SPLIT_EVIDENCE).any(axis=1).mean()),
            "chi-squared": float((np.abs(z) > stats.norm.isf(0.0005)).any(axis=1).mean()),
        }
    return found


def days(runs: int) -> dict[str, float]:
    random = np.random.default_rng(3)
    wrong = dict.fromkeys(("by t sequence", "asymptotic", "t-test"), 0)
    for _ in range(runs):
        values = random.normal(size=60)
        seen = [values[:n] for n in range(2, 61)]
        found = [t_sequence(part, alpha=ALPHA) for part in seen]
        wrong["by t sequence"] += any(one is not None and not one[0] <= 0 <= one[1] for one in found)
        asymptotic = [asymptotic_sequence(part, alpha=ALPHA, tuned_for=60) for part in seen]
        wrong["asymptotic"] += any(not low <= 0 <= high for low, high in asymptotic)
        n = np.arange(2, 61)
        errors = np.array([part.std(ddof=1) for part in seen]) / np.sqrt(n)
        t = np.abs(np.array([part.mean() for part in seen])) / errors
        wrong["t-test"] += bool((t > stats.t.isf(ALPHA / 2, n - 1)).any())
    return {judge: count / runs for judge, count in wrong.items()}


def requests(runs: int, *, days: int = 28, per_day: int = 900) -> dict[str, dict[str, float]]:
    """Equal releases, whose losses are skewed and share the level of their day, which is new on each."""
    found = {}
    for share in (0.5, 0.1):
        wrong = dict.fromkeys(("by request", "z-test"), 0)
        for seed in range(runs):
            random = np.random.default_rng(seed)
            day = np.repeat(np.arange(days), per_day)
            loss = random.normal(0.6, 0.2, days)[day] + random.exponential(0.5, day.size)
            verdict, peeked = decided(day, loss, loss, random.random(day.size) < share, days)
            wrong["by request"] += verdict != 0
            wrong["z-test"] += peeked
        found[f"{share:.0%}"] = {judge: count / runs for judge, count in wrong.items()}
    return found


def decided(day: NDArray[np.intp], live: Floats, new: Floats, of_new: NDArray[np.bool_], days: int) -> tuple[int, bool]:
    """What an A/B test by request comes to, looked at after each day from the 7th: the day on which the new release is
    shown to be better, negative when worse, 0 for undecided. And whether a z-test at any of these looks says either."""
    at_us = day.astype(np.int64) * DAY_US
    peeked = False
    for last in range(7, days + 1):
        arms = (at_us[~of_new], live[~of_new]), (at_us[of_new], new[of_new])
        seen = _seen(*arms, 0, last * DAY_US)
        mean, low, high = _interval(seen, "request")
        spread = math.sqrt(sum(values.var() / values.size for values in seen.values))
        peeked |= abs(mean or 0.0) > 1.96 * spread
        if low is not None and high is not None and not low <= 0 <= high:
            return (last if low > 0 else -last), peeked
    return 0, peeked


def keys(runs: int, *, per_look: int = 250, looks: int = 20) -> dict[str, dict[str, float]]:
    """Equal releases, `looks` looks: K keys of unlike weight, each with a level of its own, in one arm for good."""
    found = {}
    for count, share in ((6, 0.5), (16, 0.5), (16, 0.1), (100, 0.5), (100, 0.1), (1000, 0.5), (1000, 0.1)):
        wrong = dict.fromkeys(("score by key", "score by request", "degraded by key", "degraded by request"), 0)
        for seed in range(runs):
            random = np.random.default_rng(seed)
            asked = random.choice(count, size=per_look * looks, p=random.dirichlet(np.full(count, 0.5)))
            new = (random.random(count) < share)[asked]
            level = 1 / (1 + np.exp(1.5 - random.normal(size=count)))[asked]
            score = np.clip(level + random.normal(0, 0.05, asked.size), 0, 1)
            degraded = random.random(asked.size) < 0.1 * level
            seen: set[str] = set()
            for n in range(per_look, asked.size + 1, per_look):
                for by in ("key", "request"):
                    arms = [
                        Answers(
                            np.zeros(int(part.sum()), np.int64), np.zeros(int(part.sum())), degraded[:n][part],
                            score[:n][part], np.empty(0), 0, asked[:n][part] if by == "key" else None,
                        )
                        for part in (~new[:n], new[:n])
                    ]  # fmt: skip
                    for harm, name in (("mean_score", "score"), ("degraded", "degraded")):
                        if _figure(Guardrail(harm, 1e-12), *arms).state == "crossed":
                            seen.add(f"{name} by {by}")
            for name in seen:
                wrong[name] += 1
        found[f"{count} at {share:.0%}"] = {name: count / runs for name, count in wrong.items()}
    return found


def canary(runs: int) -> dict[str, float]:
    """A step at 5 % with 2,000 answers of the new release in one day, 100 looks."""
    since, strategy = 0, Canary()
    back = stuck = 0
    for seed in range(runs):
        random = np.random.default_rng(seed)
        arms = [one_arm(random, n) for n in (38_000, 2_000)]
        verdict = ""
        for look in range(1, LOOKS + 1):
            now = look * DAY_US // LOOKS
            seen = [until(arm, now) for arm in arms]
            verdict = analyse(strategy, 5, *seen, since_us=since, as_of_us=now).verdict
            if verdict == "roll back":
                break
        back += verdict == "roll back"
        stuck += verdict == "hold"
    return {"rolled back": back / runs, "held after the day": stuck / runs}


def one_arm(random: np.random.Generator, n: int) -> Answers:
    """Answers of a day: 0.3 % degraded, a gamma latency, a mean probability of 0.2."""
    at_us = np.sort(random.integers(0, DAY_US, n))
    nothing = np.full(n, np.nan)
    return Answers(at_us, random.gamma(4, 1.2, n), random.random(n) < 0.003, random.beta(1, 4, n), nothing, 0)


def until(arm: Answers, now: int) -> Answers:
    n = int(np.searchsorted(arm.at_us, now))
    return Answers(arm.at_us[:n], arm.latency_ms[:n], arm.degraded[:n], arm.score[:n], arm.loss[:n], n // 1000)


def flights(folder: Path, runs: int) -> dict[str, Any]:
    from seatrial import Project
    from seatrial.core.clock import FixedClock
    from seatrial.core.signature import as_floats
    from seatrial.core.windows import Window
    from seatrial.serving.batch import table as batch
    from seatrial.stats.metrics import losses

    ends = [to_us(datetime(2013, month, 1, 4, tzinfo=UTC)) for month in (5, 7, 8)]
    with Project(folder, clock=FixedClock(datetime(2013, 8, 3, tzinfo=UTC))) as project:
        model = project.definitions.model("late")
        rows, _, _, _ = project._inputs.rows(model, window=Window(ends[0], ends[2]))
        labels = as_floats(rows["late"].to_pylist())
        of_each = [
            losses("binary", labels, batch.score(project._bundle(project.record(one["release"])), rows))
            for one in project.releases("late")[:3]
        ]
        at_us = rows["at"].cast("int64").to_numpy()
    spring = at_us < ends[1]
    split = by_lot(of_each, at_us, ends, max(runs // 10, 5))
    of_each, at_us = [one[spring] for one in of_each], at_us[spring]
    gains = of_each[0] - of_each[1]
    order = np.argsort(at_us, kind="stable")
    gains, day = gains[order], ((at_us - ends[0]) // DAY_US)[order]
    gains, day = gains[~np.isnan(gains)], day[~np.isnan(gains)]
    random = np.random.default_rng(4)
    looks = np.flatnonzero(np.diff(day, append=-1)) + 1  # after each day
    means = np.array([gains[day == one].mean() for one in np.unique(day)])
    wrong = dict.fromkeys(("by flight", "by day"), 0)
    for _ in range(runs):
        signs = random.choice([-1.0, 1.0], size=int(day.max()) + 1)
        flipped, of_days = gains * signs[day], means * signs[np.unique(day)]
        n = looks.astype(float)
        sums, squares = flipped.cumsum()[looks - 1], (flipped * flipped).cumsum()[looks - 1]
        spread = np.sqrt((squares - sums * sums / n) / (n - 1))
        wrong["by flight"] += any(abs(m) > half(s, k) for m, s, k in zip(sums / n, spread, n, strict=True))
        found = [t_sequence(of_days[:k], alpha=ALPHA) for k in range(2, of_days.size + 1)]
        wrong["by day"] += any(one is not None and not one[0] <= 0 <= one[1] for one in found)
    ratio = float(means.var(ddof=1) / (gains.var(ddof=1) / (gains.size / means.size)))
    return {
        "flights": gains.size, "days": means.size, "variance of a day's mean, times that of independent flights": ratio,
        **{judge: count / runs for judge, count in wrong.items()}, **split,
    }  # fmt: skip


def by_lot(of_each: list[Floats], at_us: NDArray[np.int64], ends: list[int], runs: int) -> dict[str, dict[str, float]]:
    """A/B tests by request, of the flights of 28 days from the first of a month: shares of the runs that end so, and
    the median day of those that end with the new release. of_each: losses of the winter's release and of two more."""
    random = np.random.default_rng(5)
    found = {}
    for name, new, start, flipped in (
        ("A/A, July", 0, ends[1], False),
        ("days flipped, May", 1, ends[0], True), ("days flipped, July", 2, ends[1], True),
        ("29 April, in May", 1, ends[0], False), ("1 July, in July", 2, ends[1], False),
    ):  # fmt: skip
        day = (at_us - start) // DAY_US
        taken = (day >= 0) & (day < 28) & ~np.isnan(of_each[0]) & ~np.isnan(of_each[new])
        day, live, other = day[taken].astype(np.intp), of_each[0][taken], of_each[new][taken]
        ended = []
        for _ in range(runs):
            signs = random.choice([-1.0, 1.0], size=28) if flipped else np.ones(28)
            one = live - (live - other) * signs[day]
            ended.append(decided(day, live, one, random.random(day.size) < 0.5, 28)[0])
        better = sorted(one for one in ended if one > 0)
        found[name] = {
            "better": len(better) / runs, "worse": sum(one < 0 for one in ended) / runs,
            "median day": float(better[len(better) // 2]) if better else math.nan,
        }  # fmt: skip
    return found


def half(spread: float, n: float) -> float:
    """Half of the asymptotic sequence of `n` observations, tuned as for guardrails."""
    two_logs = -2 * math.log(ALPHA)
    rho2 = (two_logs + math.log(two_logs + 1)) / TUNED_FOR
    return spread * math.sqrt(2 * (n * rho2 + 1) / (n * n * rho2) * math.log(math.sqrt(n * rho2 + 1) / ALPHA))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--flights", type=Path, metavar="FOLDER")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    started = monotonic()
    told: dict[str, object] = {"runs": given.runs}
    guarded, splits = guardrail(given.runs), split(given.runs)
    keyed, by_request = keys(max(given.runs // 5, 5)), requests(max(given.runs // 5, 5))
    told |= {
        "guardrail": guarded,
        "split": splits,
        "days": days(given.runs),
        "requests": by_request,
        "keys": keyed,
        "canary": canary(max(given.runs // 20, 5)),
    }
    if given.flights:
        told["flights"] = flights(given.flights, given.runs)
    told["seconds"] = round(monotonic() - started, 1)
    if given.json:
        print(json.dumps(told))
    else:
        for part, found in told.items():
            rows = found.items() if isinstance(found, dict) else [("", found)]
            for name, value in rows:
                words = ", ".join(f"{k} {v:.4f}" for k, v in value.items()) if isinstance(value, dict) else value
                print(f"{part:<10} {name:<12} {words}")
    worst = max(max(one["one-sided"], one["two-sided"]) for one in guarded.values())
    worst = max(worst, *(one["by request"] for one in by_request.values()))
    worst = max(worst, *(max(one["score by key"], one["degraded by key"]) for one in keyed.values()))
    flagged = max(one["sequential"] for one in splits.values())
    print(f"worst guardrail / goal {worst / GOAL:.2f}, split / goal {flagged / SPLIT_GOAL:.2f}")
    return 0 if worst <= GOAL and flagged <= SPLIT_GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
