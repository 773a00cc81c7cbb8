"""What the evidence of a rollout's step allows, on answers that are made up to have one fault each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seatrial import FrameSource
from seatrial.core.clock import from_us, iso
from seatrial.core.windows import DAY_US
from seatrial.deployment.analysis import NOTHING, Answers, Labels, Valued, Values, analyse, decision_words
from seatrial.deployment.definition import ABTest, Canary, Guardrail, Metric, Shadow

SINCE_US = 1_700_000_000_000_000


def answers(n, *, seed, days=2.0, latency=5.0, degraded=0.0, score=0.2, loss=None, failed=0, refused=0):
    random = np.random.default_rng(seed)
    at_us = SINCE_US + np.sort(random.integers(0, int(days * DAY_US), n))
    return Answers(
        at_us=at_us,
        latency_ms=random.gamma(4, latency / 4, n),
        degraded=random.random(n) < degraded,
        score=np.clip(random.normal(score, 0.1, n), 0, 1),
        loss=np.full(n, np.nan) if loss is None else loss(at_us, random),
        failed=failed,
        refused=refused,
    )


def judged(strategy, live, new, *, share=50.0, days=2.0, **options):
    as_of_us = SINCE_US + int(days * DAY_US)
    return analyse(strategy, share, live, new, since_us=SINCE_US, as_of_us=as_of_us, **options)


def test_a_new_release_like_the_live_one_moves_on_when_its_time_is_over():
    found = judged(Canary(), answers(20_000, seed=1), answers(20_000, seed=2))
    assert (found.verdict, found.why) == ("advance", "every guardrail is within its margin")
    assert {one.state for one in found.guardrails} == {"fine"}
    early = judged(Canary(hold="3d"), answers(20_000, seed=1), answers(20_000, seed=2))
    assert early.verdict == "hold"
    assert iso(from_us(SINCE_US + 3 * DAY_US)) in early.why


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        ("errors", {"failed": 600}),
        ("slow", {"latency": 9.0}),
        ("mean_score", {"score": 0.45}),
        ("mean_score", {"score": 0.02}),
        ("degraded", {"degraded": 0.1}),
        ("refused", {"refused": 600}),
    ],
)
def test_a_harm_beyond_its_margin_takes_the_traffic_back_before_the_step_is_over(harm, fault):
    found = judged(Canary(hold="9d"), answers(20_000, seed=1), answers(20_000, seed=2, **fault))
    assert found.verdict == "roll back"
    assert [one.name for one in found.guardrails if one.state == "crossed"] == [harm]
    assert found.why.startswith(f"{harm}: ")


def test_a_release_that_refuses_everything_has_no_answers_and_is_taken_back_all_the_same():
    found = judged(Canary(), answers(20_000, seed=1), answers(0, seed=2, refused=1000), share=5.0)
    assert (found.verdict, found.rows["new"]) == ("roll back", 0)
    assert found.why.startswith("refused: 1 against 0")


def test_rows_that_do_not_suit_a_shadow_make_it_wait():
    found = judged(Shadow(), answers(20_000, seed=1), answers(5_000, seed=2, refused=15_000), share=0.0, days=8.0)
    assert found.verdict == "hold"
    assert "refused: 0.75 against 0" in found.why
    assert [one.name for one in found.guardrails if one.state == "crossed"] == ["refused"]


def test_a_release_that_is_faster_and_fails_less_crosses_nothing():
    live, new = answers(20_000, seed=1, latency=9.0, failed=500, degraded=0.3), answers(20_000, seed=2, latency=3.0)
    assert judged(Canary(), live, new).verdict == "advance"


def test_a_split_that_is_not_what_was_wanted_stops_every_step_but_a_roll_back():
    live, new = answers(20_000, seed=1), answers(4000, seed=2)
    found = judged(Canary(), live, new)
    assert found.verdict == "hold"
    assert "split" in found.why
    assert found.split > 1000
    assert found.observed == pytest.approx(1 / 6)
    assert judged(Canary(), live, answers(4000, seed=2, failed=400)).verdict == "roll back"
    assert judged(Canary(), live, new, by_key=True).verdict == "advance"  # keys may weigh unlike


def test_a_guardrail_that_is_not_shown_either_way_holds():
    found = judged(Canary(), answers(1500, seed=1), answers(1500, seed=2, score=0.3))
    assert found.verdict == "hold"
    assert found.why.startswith("not shown to be within its margin yet: mean_score: 0.3")


def test_a_guardrail_that_cannot_be_measured_holds_the_step():
    # split by a key, all the keys that called so far went to the new release: nothing to compare it with
    found = judged(Canary(), answers(0, seed=1), answers(20_000, seed=2), by_key=True)
    assert (found.verdict, found.rows) == ("hold", {"live": 0, "new": 20_000})
    assert found.why.startswith("not shown to be within its margin yet: errors: not measured")
    unscored = answers(20_000, seed=2)
    unscored.score[:] = np.nan
    found = judged(Canary(), answers(20_000, seed=1), unscored)
    assert (found.verdict, found.why) == ("hold", "not shown to be within its margin yet: mean_score: not measured")


def test_too_few_answers_say_how_many_there_are_and_how_many_are_needed():
    found = judged(Canary(), answers(9500, seed=1), answers(500, seed=2), share=5)
    assert (found.verdict, found.why) == ("hold", "not enough data (500 of 1,000 answers)")


def test_no_answers_at_all_hold():
    found = judged(Canary(), answers(0, seed=1), answers(0, seed=2))
    assert found.verdict == "hold"
    assert found.observed is None
    assert {one.state for one in found.guardrails} == {"not measured"}


def daily(shift, spread=0.05, seed=5):
    """Losses that share what happens on a day, and are better or worse by `shift`."""
    common = np.random.default_rng(seed).normal(0.5, spread, 400)

    def loss(at_us, random):
        day = (at_us - SINCE_US) // DAY_US
        return common[day] + shift + random.normal(0, 0.2, at_us.size)

    return loss


def trial(shift, *, days, per_day=200, seed=5, strategy=None):
    live = answers(days * per_day, seed=seed + 1, days=days, loss=daily(0, seed=seed))
    new = answers(days * per_day, seed=seed + 2, days=days, loss=daily(shift, seed=seed))
    return judged(strategy or ABTest(guardrails=[]), live, new, days=days)


def test_an_experiment_ends_with_the_better_one_and_not_before_a_week():
    assert trial(-0.1, days=4).why == "not enough data (800 of 1,000 answers)"
    assert trial(-0.1, days=6).why.startswith("the step lasts until")
    won = trial(-0.1, days=14)
    assert won.verdict == "advance"
    assert won.labels.state == "better"
    assert won.labels.gain == pytest.approx(0.1, abs=0.02)


def test_an_experiment_that_is_lost_gives_the_traffic_back():
    assert trial(0.1, days=14).verdict == "roll back"


def test_an_experiment_that_stays_undecided_waits_and_then_keeps_the_live_release():
    assert trial(0.0, days=14).verdict == "hold"
    over = trial(0.0, days=28)
    assert (over.verdict, over.labels.state) == ("keep the live release", "undecided")
    assert over.why.startswith("the time is over")


def test_days_that_differ_between_the_arms_are_what_one_observation_is():
    # each arm has weather of its own on each day: rows by themselves would be sure of a difference nearly always
    wrong = by_row = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        arms = []
        for arm in range(2):
            level = random.normal(0.5, 0.05, 20)
            one = answers(
                8000, seed=seed * 2 + arm, days=20, loss=lambda at, r, level=level: level[(at - SINCE_US) // DAY_US]
            )
            arms.append(one)
        found = judged(ABTest(guardrails=[]), *arms, days=20)
        wrong += found.verdict != "hold"
        means = [arm.loss.mean() for arm in arms]
        error = np.sqrt(sum(arm.loss.var(ddof=1) / arm.loss.size for arm in arms))
        by_row += abs(means[0] - means[1]) > 1.96 * error
    assert by_row > 40
    assert wrong <= 3


def split_by_lot(seed, *, gain=lambda random: 0.0, days=9, per_day=900):
    """Both arms of days, each with a level and a gain of the new release of its own; requests are split by lot."""
    random = np.random.default_rng(seed)
    level, better = random.normal(0.6, 0.15, days), [gain(random) for _ in range(days)]
    at_us = SINCE_US + np.sort(random.integers(0, days * DAY_US, days * per_day))
    day = (at_us - SINCE_US) // DAY_US
    base = level[day] + random.exponential(0.5, at_us.size) - 0.5
    new = random.random(at_us.size) < 0.5
    empty = answers(0, seed=seed)
    return [
        replace(
            empty, at_us=at_us[arm], loss=loss[arm], score=np.full(int(arm.sum()), 0.2),
            latency_ms=np.full(int(arm.sum()), 5.0), degraded=np.zeros(int(arm.sum()), bool),
        )
        for arm, loss in ((~new, base), (new, base - np.array(better)[day]))
    ]  # fmt: skip


def test_requests_that_were_split_by_lot_decide_in_days_that_by_themselves_decide_nothing():
    arms = split_by_lot(1, gain=lambda random: random.normal(0.06, 0.08))
    by_day = judged(ABTest(guardrails=[]), *arms, days=9)
    by_request = judged(ABTest(guardrails=[], unit="request"), *arms, days=9)
    assert (by_day.verdict, by_day.labels.unit) == ("hold", "day")
    assert (by_request.verdict, by_request.labels.unit, by_request.labels.days) == ("advance", "request", 9)
    assert by_request.labels.labelled == sum(arm.loss.size for arm in arms)
    assert "a request (95 % between" in by_request.why
    assert by_request.labels.gain == pytest.approx(by_day.labels.gain, abs=0.01)


def test_what_the_requests_of_a_day_share_widens_nothing():
    def half(spread):
        random = np.random.default_rng(4)
        shared = random.normal(0.5, spread, 9)

        def loss(at_us, random):
            return shared[(at_us - SINCE_US) // DAY_US] + random.normal(0, 0.2, at_us.size)

        arms = [answers(4000, seed=arm, days=9, loss=loss) for arm in range(2)]
        labels = judged(ABTest(guardrails=[], unit="request"), *arms, days=9).labels
        return labels.high - labels.low

    assert half(5.0) == pytest.approx(half(0.0), rel=1e-6)


def test_equal_releases_are_rarely_told_apart_by_requests_however_unlike_their_days_are():
    wrong = 0
    for seed in range(60):
        live, new = split_by_lot(seed, days=14, per_day=300)
        looks = (judged(ABTest(guardrails=[], unit="request", min_rows=100), live, new, days=n) for n in range(7, 15))
        wrong += any(look.verdict != "hold" for look in looks)
    assert wrong <= 3


def parcels(seed, *, days, waits_days, shift=0.0, strategy=None):
    """Two releases that are as good in the end, apart from `shift`: three of ten parcels are lost, which is known after
    14 days and of the others after one. The live release says .4 of each, the new one .2."""
    random = np.random.default_rng(seed)
    as_of_us = SINCE_US + days * DAY_US

    def arm(said, shift=0.0):
        at_us = SINCE_US + np.sort(random.integers(0, days * DAY_US, days * 200))
        lost = random.random(at_us.size) < 0.3
        known = at_us + np.where(lost, 14, 1) * DAY_US <= as_of_us
        loss = np.where(known, (lost - said) ** 2 + shift, np.nan)
        return replace(answers(at_us.size, seed=seed, days=days), at_us=at_us, loss=loss)

    strategy = strategy or ABTest(guardrails=[], min_rows=100)
    return judged(strategy, arm(0.4), arm(0.2, shift), days=days, ripe_after_us=waits_days * DAY_US)


@pytest.mark.parametrize("unit", ["day", "request"])
def test_labels_that_come_first_decide_nothing(unit):
    strategy = ABTest(guardrails=[], min_rows=100, unit=unit)
    first = [parcels(seed, days=9, waits_days=0, strategy=strategy) for seed in range(5)]
    assert {one.labels.state for one in first} == {"better"}  # the one that expects what is known first
    looks = [parcels(seed, days=n, waits_days=14, strategy=strategy) for seed in range(8) for n in (9, 21, 28, 35)]
    assert {one.verdict for one in looks} == {"hold"}
    shown = parcels(3, days=35, waits_days=14, shift=-0.1, strategy=strategy)
    assert (shown.verdict, shown.labels.days, shown.labels.ripening) == ("advance", 21, 14)
    assert shown.labels.gain == pytest.approx(0.1, abs=0.03)


def test_days_that_are_told_early_as_a_whole_are_those_without_a_loss_and_are_waited_for_all_the_same():
    """One of a hundred is lost, which is known after 14 days; the live release says 2 % of each, the new one none: as
    good in the end, and on days without a loss, which are known as a whole after one, the new one is better."""
    advanced = 0
    for seed in range(30):
        random = np.random.default_rng(seed)
        at_us, lost = [], []
        for _ in range(2):
            at_us.append(SINCE_US + np.sort(random.integers(0, 28 * DAY_US, 28 * 40)))
            lost.append(random.random(28 * 40) < 0.01)
        for days in range(8, 29):
            as_of_us = SINCE_US + days * DAY_US
            arms = []
            for at, happened, said in zip(at_us, lost, (0.02, 0.0), strict=True):
                past = at < as_of_us
                known = at + np.where(happened, 14, 1) * DAY_US <= as_of_us
                loss = np.where(known, (happened - said) ** 2, np.nan)[past]
                arms.append(replace(answers(int(past.sum()), seed=seed), at_us=at[past], loss=loss))
            experiment = ABTest(guardrails=[], min_rows=100)
            advanced += judged(experiment, *arms, days=days, ripe_after_us=14 * DAY_US).verdict == "advance"
    assert advanced <= 2


def test_days_whose_labels_still_come_are_said_to_ripen_and_the_time_to_judge_waits_for_them():
    early = parcels(1, days=20, waits_days=14)
    assert early.ends == iso(from_us(SINCE_US + 21 * DAY_US))
    assert early.why == f"the step lasts until {early.ends} at least"
    assert (early.labels.state, early.labels.days, early.labels.ripening) == ("too early", 6, 14)
    told = parcels(1, days=28, waits_days=14)
    assert told.why.endswith("14 days; 14 more wait 14d for their labels)")
    assert parcels(1, days=41, waits_days=14).verdict == "hold"
    assert parcels(1, days=42, waits_days=14).verdict == "keep the live release"


def test_a_metric_is_judged_by_requests_where_the_experiment_is():
    by_request = by_metric(ABTest(guardrails=[], decide=REVENUE, unit="request"), revenue(seed=3), revenue(seed=4))
    by_day = by_metric(ABTest(guardrails=[], decide=REVENUE), revenue(seed=3), revenue(seed=4))
    assert (by_request.metric.unit, by_day.metric.unit) == ("request", "day")
    assert by_request.metric.gain == pytest.approx(by_day.metric.gain, abs=0.05)
    assert (by_request.metric.low, by_request.metric.high) != (by_day.metric.low, by_day.metric.high)


def test_a_canary_that_looks_at_labels_moves_on_unless_they_are_worse():
    canary = Canary(decide="labels", guardrails=[])
    assert trial(0.0, days=14, strategy=canary).verdict == "advance"
    assert trial(0.1, days=14, strategy=canary).verdict == "roll back"
    early = trial(0.0, days=6, strategy=canary)
    assert (early.verdict, early.ends) == ("hold", iso(from_us(SINCE_US + 7 * DAY_US)))
    unlabelled = [answers(3000, seed=seed, days=9) for seed in (1, 2)]
    assert judged(canary, *unlabelled, days=9).why == "not enough data (0 of 7 days with labels)"


def revenue(shift=0.0, *, seed, days=14, per_day=400, bought=0.2, told=1.0):
    """Values of requests: one in five earns something; a share `told` of them is known."""
    random = np.random.default_rng(seed)
    at_us = SINCE_US + random.integers(0, days * DAY_US, days * per_day)
    value = np.where(random.random(at_us.size) < bought, random.gamma(2, 20, at_us.size), 0.0) + shift
    return Values(at_us, np.where(random.random(at_us.size) < told, value, np.nan))


def by_metric(strategy, live, new, *, days=14, **options):
    """Judged by revenue; guardrails see equal answers."""
    arms = [answers(4000, seed=seed, days=days, **options.pop(f"arm{seed}", {})) for seed in (1, 2)]
    return judged(strategy, *arms, days=days, valued=Valued(live, new, **options))


ORDERS = FrameSource({"request_id": ["a"], "revenue": [1.0]}, name="orders")
REVENUE = Metric("revenue", ORDERS)


def test_an_experiment_is_decided_by_a_number_of_the_business():
    test = ABTest(guardrails=[], decide=REVENUE)
    won = by_metric(test, revenue(seed=3), revenue(6, seed=4))
    assert (won.verdict, won.metric.state, won.labels) == ("advance", "better", None)
    assert won.metric.gain == pytest.approx(won.metric.new - won.metric.live, abs=0.3)
    assert won.why.startswith("revenue: better, better by ")
    lost = by_metric(test, revenue(6, seed=3), revenue(seed=4))
    assert (lost.verdict, lost.metric.gain < 0) == ("roll back", True)
    assert lost.why.startswith(f"revenue: worse, worse by {-lost.metric.gain:.4g} a ")
    assert f"(95 % between {-lost.metric.high:.4g} and {-lost.metric.low:.4g}, " in lost.why
    cheaper = ABTest(guardrails=[], decide=Metric("cost", ORDERS, better="lower"))
    assert by_metric(cheaper, revenue(6, seed=3), revenue(seed=4)).verdict == "advance"
    equal = revenue(seed=3), revenue(seed=4)
    assert by_metric(test, *equal).verdict == "hold"
    assert (
        by_metric(test, *(revenue(seed=seed, days=28) for seed in (3, 4)), days=28).verdict == "keep the live release"
    )
    few = by_metric(test, *(revenue(seed=seed, per_day=20) for seed in (3, 4)))
    assert few.why == "not enough data (0 of 7 days with revenue)"


def test_a_canary_with_a_margin_moves_on_when_it_is_shown_to_be_borne():
    equal = revenue(seed=3), revenue(seed=4)
    unless_worse = Canary(guardrails=[], decide=REVENUE)
    assert by_metric(unless_worse, *equal).verdict == "advance"
    assert by_metric(unless_worse, revenue(6, seed=3), revenue(seed=4)).verdict == "roll back"
    for margin, verdict, state in ((0.2, "hold", "undecided"), (5.0, "advance", "within")):
        shown = by_metric(Canary(guardrails=[], decide=Metric("revenue", ORDERS, margin=margin)), *equal)
        assert (shown.verdict, shown.metric.state) == (verdict, state)
    borne = Canary(guardrails=[], decide=Metric("revenue", ORDERS, margin=5.0))
    assert by_metric(borne, revenue(12, seed=3), revenue(seed=4)).verdict == "roll back"


def test_requests_without_a_value_are_counted_and_unlike_shares_of_them_are_a_warning():
    alike = by_metric(ABTest(guardrails=[], decide=REVENUE), revenue(seed=3, told=0.5), revenue(seed=4, told=0.5))
    assert alike.metric.requests == {"live": 5600, "new": 5600}
    assert alike.metric.missing["new"] == pytest.approx(2800, abs=150)
    assert alike.metric.warning == ""
    unlike = by_metric(ABTest(guardrails=[], decide=REVENUE), revenue(seed=3, told=0.5), revenue(seed=4, told=0.4))
    assert unlike.metric.warning.startswith("59.86% of the new release's requests have no revenue, 49.43% of the live")
    assert "what is left out is not alike" in unlike.metric.warning
    # where a request without an order earned nothing, none is left out
    zero = Metric("revenue", ORDERS, without_row=0)
    sold = by_metric(ABTest(guardrails=[], decide=zero), revenue(seed=3, told=0.5), revenue(seed=4, told=0.4))
    assert sold.metric.warning == ""
    assert sold.metric.new < unlike.metric.new / 2


def test_a_metric_that_cannot_be_read_holds_and_keeps_no_guardrail_from_going_back():
    unread = {"problem": "its source has no column 'revenue'; it has amount"}
    held = by_metric(Canary(decide=REVENUE), NOTHING, NOTHING, **unread)
    assert (held.verdict, held.metric.state) == ("hold", "unreadable")
    assert held.why == "revenue cannot be read: its source has no column 'revenue'; it has amount"
    assert by_metric(Canary(decide=REVENUE), NOTHING, NOTHING, arm2={"failed": 400}, **unread).verdict == "roll back"


def test_equal_releases_are_not_told_apart_by_a_few_days():
    # looked at each day from the second on, as a controller does
    wrong = 0
    for seed in range(150):
        live, new = (revenue(seed=2 * seed + arm, per_day=40) for arm in (0, 1))
        for days in range(2, 15):
            seen = judged(
                ABTest(guardrails=[], decide=REVENUE, min_days=2, min_rows=100),
                answers(200, seed=1), answers(200, seed=2), days=days, valued=Valued(live, new),
            )  # fmt: skip
            if seen.metric.state in ("better", "worse"):
                wrong += 1
                break
    assert wrong <= 0.05 * 150


def by_keys(seed, *, keys=60, per_key=40, level=1.0):
    """Both arms of equal releases, keys split between them for good; each key has a level of its own."""
    random = np.random.default_rng(seed)
    asked = random.choice(keys, size=keys * per_key, p=random.dirichlet(np.ones(keys)))
    new = (random.random(keys) < 0.5)[asked]
    score = np.clip(0.3 + level * 0.1 * random.normal(size=keys)[asked] + random.normal(0, 0.02, asked.size), 0, 1)
    at_us = SINCE_US + np.sort(random.integers(0, 2 * DAY_US, asked.size))
    slow, lost = random.gamma(4, 1.2, asked.size), random.random(asked.size) < 0.002
    return [
        Answers(at_us[part], slow[part], lost[part], score[part], np.full(int(part.sum()), np.nan), 0, asked[part])
        for part in (~new, new)
    ]


def test_requests_of_one_key_are_no_evidence_of_their_own():
    strict = Canary(guardrails=[Guardrail.mean_score(0.001)])
    crossed = {"key": 0, "request": 0}
    for seed in range(100):
        arms = by_keys(seed)
        alone = [replace(arm, key=None) for arm in arms]
        for by, pair in (("key", arms), ("request", alone)):
            crossed[by] += judged(strict, *pair, by_key=True).verdict == "roll back"
    assert crossed["key"] <= 3
    assert crossed["request"] > 50


def test_a_harm_to_every_key_is_seen_also_where_they_are_few():
    live, new = by_keys(1, keys=40)
    harmed = replace(new, score=np.clip(new.score + 0.6, 0, 1))
    found = judged(Canary(), live, harmed, by_key=True)
    assert (found.verdict, found.guardrails[2].state) == ("roll back", "crossed")
    failing = replace(new, failed=30 * new.at_us.size)
    assert judged(Canary(), live, failing, by_key=True).verdict == "roll back"


def test_what_keys_are_like_is_no_gain_however_many_days_it_lasts():
    wrong = {"key": 0, "request": 0}
    for seed in range(60):
        random = np.random.default_rng(seed)
        keys, days, each = 30, 14, 4
        of_key, new = random.normal(0, 0.3, keys), random.random(keys) < 0.5
        if not 2 <= new.sum() <= keys - 2:
            continue
        asked = np.tile(np.repeat(np.arange(keys), each), days)
        at_us = SINCE_US + np.repeat(np.arange(days), keys * each) * DAY_US + 1
        loss = 1 + of_key[asked] + random.normal(0, 0.2, asked.size)
        flat = np.full(asked.size, 0.2)
        arms = [
            Answers(at_us[p], flat[p], np.zeros(int(p.sum()), bool), flat[p], loss[p], 0, asked[p])
            for p in (~new[asked], new[asked])
        ]
        for by, pair in (("key", arms), ("request", [replace(arm, key=None) for arm in arms])):
            found = judged(ABTest(50), *pair, days=days, by_key=True)
            wrong[by] += found.labels.state in ("better", "worse")
    assert wrong["key"] <= 2
    assert wrong["request"] > 30


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        ((0.04, -0.01, 0.07), "the loss is lower by 0.04 a day (95 % between -0.01 and 0.07, 9 days)"),
        ((-0.04, -0.07, 0.01), "the loss is higher by 0.04 a day (95 % between -0.01 and 0.07, 9 days)"),
        ((-0.04, None, None), "the loss is higher by 0.04 a day (not bounded yet, 9 days)"),
    ],
)
def test_what_labels_say_is_told_in_the_direction_of_its_number(gain, words):
    assert decision_words(Labels(9, 900, *gain, "undecided")) == f"labels: undecided, {words}"
