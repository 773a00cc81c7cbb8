import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.stats import bootstrap
from seatrial.stats.metrics import METRICS, measure

HOUR_US = 3_600_000_000


def scored(rows, *, seed=0, noise=1.0):
    """Labels and probabilities that know something of them."""
    random = np.random.default_rng(seed)
    signal = random.normal(size=rows)
    labels = (signal + noise * random.normal(size=rows) > 0.5).astype(float)
    return labels, 1 / (1 + np.exp(-signal))


def drawn_rows(drawn, replicate):
    """The rows of one draw, each as often as it was drawn."""
    return np.repeat(np.arange(drawn.cluster.size), drawn.counts[replicate][drawn.cluster].astype(int))


@st.composite
def samples(draw):
    """A task with labels and scores, ties and rare classes among them, and the cluster of each row."""
    count = draw(st.integers(4, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    clusters = random.integers(0, draw(st.integers(2, 12)), count)
    task = draw(st.sampled_from(["binary", "regression", "multiclass"]))
    if task == "binary":
        return task, (random.random(count) < 0.4) * 1.0, random.integers(0, 8, count) / 8, clusters
    if task == "regression":
        return task, random.normal(5, 2, count), random.normal(5, 2, count), clusters
    weights = random.random((count, 4)) ** 3
    return task, random.integers(0, 3, count) * 1.0, weights / weights.sum(axis=1, keepdims=True), clusters


@settings(max_examples=80, deadline=None)
@given(samples(), st.floats(0.1, 0.9))
def test_a_replicate_is_the_metric_of_the_rows_that_were_drawn(sample, at):
    task, labels, scores, clusters = sample
    drawn = bootstrap.resample(labels.size, seed=1, groups=clusters, replicates=5)
    made = bootstrap.replicates(task, labels, scores, drawn, threshold=at, quantile=at)
    for replicate in range(5):
        rows = drawn_rows(drawn, replicate)
        expected = measure(task, labels[rows], scores[rows], threshold=at, quantile=at)
        for name, values in made.items():
            if name == "expected_calibration_error" or (task == "multiclass" and name == "roc_auc"):
                continue  # moved, and of other classes when a draw has none of one: see below
            wanted = expected[name]
            assert np.isnan(values[replicate]) if wanted is None else values[replicate] == pytest.approx(wanted)


def test_every_metric_of_every_task_has_an_interval_around_its_value():
    labels, scores = scored(600)
    random = np.random.default_rng(3)
    classes = random.integers(0, 3, 600) * 1.0
    weights = np.eye(3)[classes.astype(int)] + random.random((600, 3))
    given_to = {
        "binary": (labels, scores),
        "regression": (scores * 10, scores * 10 + random.normal(size=600)),
        "multiclass": (classes, weights / weights.sum(axis=1, keepdims=True)),
    }
    for task, (known, told) in given_to.items():
        drawn = bootstrap.resample(600, seed=0)
        values = measure(task, known, told)
        found = bootstrap.intervals(task, known, told, drawn)
        assert set(found) == set(METRICS[task])
        for name, (low, high) in found.items():
            assert low <= values[name] <= high, (task, name)


@pytest.mark.parametrize("metric", ["brier", "roc_auc"])
def test_the_interval_of_independent_rows_is_that_of_scipys_percentile_bootstrap(metric):
    labels, scores = scored(300)
    low, high = bootstrap.intervals("binary", labels, scores, bootstrap.resample(300, seed=0, replicates=4000))[metric]
    theirs = scipy.stats.bootstrap(
        (labels, scores),
        lambda known, told: METRICS["binary"][metric].function(known, told),
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=2000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.1 * (theirs.high - theirs.low))


def test_rows_of_one_day_that_share_their_luck_widen_the_interval():
    days, a_day = 60, 50
    random = np.random.default_rng(5)
    luck = np.repeat(random.normal(size=days), a_day)
    labels = (luck + random.normal(size=days * a_day) > 0.5) * 1.0
    scores = np.full(labels.size, labels.mean())
    at_us = np.repeat(np.arange(days), a_day) * 24 * HOUR_US + np.tile(np.arange(a_day), days) * 60_000_000
    in_days = bootstrap.resample(labels.size, seed=0, at_us=at_us)
    alone = bootstrap.resample(labels.size, seed=0)
    assert (in_days.unit, in_days.clusters) == ("day", 60)
    wide, narrow = (
        np.diff(bootstrap.intervals("binary", labels, scores, drawn)["log_loss"]) for drawn in (in_days, alone)
    )
    assert wide > 2.5 * narrow


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Nominally 57 of 60 samples; with a true 95 % chance leaves fewer than 51 once in a thousand times."""
    truth = measure("binary", *scored(200_000, seed=99))["roc_auc"]
    held = 0
    for seed in range(60):
        labels, scores = scored(200, seed=seed)
        drawn = bootstrap.resample(200, seed=seed, replicates=300)
        low, high = bootstrap.intervals("binary", labels, scores, drawn)["roc_auc"]
        held += low <= truth <= high
    assert held >= 51


@pytest.mark.parametrize(
    ("hours", "unit", "clusters"),
    [(24 * 800, "week", 115), (24 * 30, "day", 30), (24 * 6, "6 hours", 24), (40, "hour", 40), (10, "hour", 10)],
)
def test_the_longest_block_of_time_is_taken_of_which_there_are_twenty(hours, unit, clusters):
    rows = max(100, hours)
    at_us = np.linspace(0, hours * HOUR_US - 1, rows).astype(np.int64)
    drawn = bootstrap.resample(rows, seed=0, at_us=at_us, replicates=3)
    assert (drawn.unit, drawn.clusters) == (unit, clusters)


@pytest.mark.parametrize(("every", "unit"), [(7 * 24, "week"), (24, "day"), (2, "hour")])
def test_fewer_than_twenty_batches_are_drawn_whole_and_told_to_be_few(every, unit):
    random = np.random.default_rng(5)
    batches, size = 15, 400
    luck = np.repeat(random.normal(size=batches), size)
    labels = (luck + random.normal(size=luck.size) > 0) * 1.0
    scores = np.full(labels.size, 0.6)
    at_us = np.repeat(np.arange(batches), size) * every * HOUR_US
    drawn = bootstrap.resample(labels.size, seed=0, at_us=at_us)
    assert (drawn.unit, drawn.clusters, drawn.as_plain()["few"]) == (unit, 15, True)
    low, high = bootstrap.intervals("binary", labels, scores, drawn)["accuracy"]
    of_batch = labels.reshape(batches, size).mean(axis=1)
    error = of_batch.std(ddof=1) / np.sqrt(batches)  # the textbook's, of a mean of 15 independent batches
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)


@pytest.mark.parametrize(("every", "words"), [(24, "10 days"), (6, "10 blocks of 6 hours"), (1, "10 hours")])
def test_what_few_blocks_there_are_is_said_in_words(every, words):
    drawn = bootstrap.resample(100, seed=0, at_us=np.repeat(np.arange(10), 10) * every * HOUR_US)
    assert drawn.words == words


def test_rows_within_an_hour_are_no_independent_ones():
    drawn = bootstrap.resample(1000, seed=0, at_us=np.arange(1000) * 1_000_000)
    assert (drawn.unit, drawn.as_plain()["few"]) == ("1/500 of the rows", True)


def test_few_clusters_are_told():
    groups = np.repeat(np.arange(5), 20)
    assert bootstrap.resample(100, seed=0, groups=groups, unit="customer").as_plain() == {
        "method": "percentile bootstrap of clusters",
        "level": 0.95,
        "replicates": 1000,
        "unit": "customer",
        "clusters": 5,
        "few": True,
    }


def test_many_rows_are_dealt_into_clusters_and_levels_and_give_the_same_interval():
    """50,000 rows have a known standard error; 500 clusters and 2,000 levels must give it back."""
    labels, scores = scored(50_000)
    drawn = bootstrap.resample(labels.size, seed=0)
    assert (drawn.unit, drawn.clusters) == ("1/500 of the rows", 500)
    made = bootstrap.replicates("binary", labels, scores, drawn)
    rate = measure("binary", labels, scores)["accuracy"]
    assert made["accuracy"].std() == pytest.approx(np.sqrt(rate * (1 - rate) / labels.size), rel=0.15)
    area = measure("binary", labels, scores)["roc_auc"]
    error = delong(labels, scores)
    assert made["roc_auc"].std() == pytest.approx(error, rel=0.15)
    assert made["roc_auc"].mean() == pytest.approx(area, abs=error / 3)


def delong(labels, scores):
    """The standard error of an area under the curve (DeLong, DeLong and Clarke-Pearson 1988), without ties."""
    above, below = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    of_positives = np.searchsorted(below, above) / below.size
    of_negatives = 1 - np.searchsorted(above, below) / above.size
    return np.sqrt(of_positives.var(ddof=1) / above.size + of_negatives.var(ddof=1) / below.size)


def test_a_few_positives_among_many_rows_keep_a_level_each():
    random = np.random.default_rng(0)
    labels = np.zeros(100_000)
    labels[:100] = 1
    scores = np.where(labels == 1, random.random(labels.size) * 0.5 + 0.5, random.random(labels.size) ** 4)
    drawn = bootstrap.resample(labels.size, seed=0, replicates=200)
    low, high = bootstrap.intervals("binary", labels, scores, drawn)["average_precision"]
    assert low < measure("binary", labels, scores)["average_precision"] < high


def test_a_difference_of_two_models_on_the_same_rows_is_surer_than_either():
    labels, scores = scored(500)
    other = np.clip(scores + 0.01 * np.random.default_rng(1).normal(size=500), 0.001, 0.999)
    drawn = bootstrap.resample(500, seed=0)
    found = bootstrap.difference("binary", "log_loss", labels, (scores, other), drawn)
    low, high = found.interval
    own = bootstrap.intervals("binary", labels, scores, drawn)["log_loss"]
    assert low <= found.value <= high
    assert high - low < 0.2 * (own[1] - own[0])
    same = bootstrap.difference("binary", "log_loss", labels, (scores, scores), drawn)
    assert (same.value, same.interval) == (0.0, (0.0, 0.0))


def test_what_the_rows_do_not_define_has_no_interval():
    found = bootstrap.intervals("binary", np.zeros(50), np.linspace(0, 1, 50), bootstrap.resample(50, seed=0))
    assert found["roc_auc"] is None
    assert found["recall"] is None
    assert found["log_loss"] is not None
    assert bootstrap.intervals("regression", np.ones(50), np.ones(50), bootstrap.resample(50, seed=0))["r2"] is None


def test_one_positive_is_too_few_for_an_interval_of_a_rank():
    labels = np.zeros(50)
    labels[7] = 1
    found = bootstrap.intervals("binary", labels, np.linspace(0, 1, 50), bootstrap.resample(50, seed=0))
    assert found["roc_auc"] is None  # a third of the draws do not have it


def test_the_same_seed_gives_the_same_interval():
    labels, scores = scored(200)
    first, second, other = (
        bootstrap.intervals("binary", labels, scores, bootstrap.resample(200, seed=seed)) for seed in (4, 4, 5)
    )
    assert first == second
    assert first != other
