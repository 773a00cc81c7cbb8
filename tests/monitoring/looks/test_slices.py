"""The worst slices: a planted one is found, chance is not, and few rows do not win."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from seatrial.core.windows import Window
from seatrial.monitoring.alerting.alerts import settle
from seatrial.monitoring.alerting.telling import described, lines
from seatrial.monitoring.definition import Monitor
from seatrial.monitoring.looks.calibration import blocks
from seatrial.monitoring.looks.slices import slices
from seatrial.monitoring.monitor import make_report
from seatrial.monitoring.pages.page import html
from seatrial.stats.bootstrap import resample
from seatrial.stores.metadata import MetadataStore
from tests.monitoring.worlds import DAY_US, START_US, a_sample, calibrated, instants, of_classes


@pytest.fixture
def metadata(tmp_path):
    return MetadataStore(tmp_path / "metadata.db")


def inputs(count, seed=0):
    random = np.random.default_rng(seed)
    return {
        "feature_carrier": pa.array(random.choice(["AA", "BB", "CC", "DD"], count).tolist()),
        "feature_age": pa.array(random.uniform(18, 80, count)),
        "feature_tier": pa.array(random.integers(0, 3, count).astype(float)),
        "feature_noise": pa.array(random.normal(size=count)),
    }


def planted(count=6000, where=("BB", None), seed=0):
    """Scores that are right but in one carrier (and, with a tier, one of its tiers only), where they say nothing."""
    plain = calibrated(count, seed=seed)
    columns = inputs(count, seed)
    carrier, tier = (np.array(columns[name].to_pylist()) for name in ("feature_carrier", "feature_tier"))
    bad = (carrier == where[0]) & ((tier == where[1]) if where[1] is not None else True)
    random = np.random.default_rng(seed + 1)
    labels = np.where(bad, random.random(count) < 0.75, plain.label_values())
    return a_sample(plain.scores(), labels, **columns)


@pytest.mark.parametrize(
    ("days", "words"), [(28, "28 blocks of a day"), (7, "28 blocks of 6 hours"), (1, "24 blocks of an hour")]
)
def test_blocks_of_time_are_named_as_everywhere_in_the_report(days, words):
    sample = planted(1400)
    at = instants(START_US + np.arange(1400) * days * DAY_US // 1400)
    sample = replace(sample, rows=sample.rows.set_column(sample.rows.column_names.index("at"), "at", at))
    assert slices(sample).unit == words
    assert blocks(resample(1400, seed=0, at_us=sample.at_us())) == words


def test_a_planted_slice_is_the_worst_one():
    found = slices(planted())
    worst = found.worst[0]
    assert worst.where == {"carrier": "BB"}
    assert worst.rows == pytest.approx(1500, rel=0.1)
    assert worst.observed > 0.7 > 0.35 > worst.mean_score
    assert worst.interval[0] < worst.loss < worst.interval[1]
    assert worst.loss > worst.others
    assert worst.p_value < 1e-6
    assert worst.off
    assert (found.columns, found.loss) == (4, "log loss")


def test_where_performance_is_lost_the_slice_that_is_most_off_is_said_first_and_on_the_alert(metadata):
    sample = planted()
    end = int(sample.at_us().max()) + 1
    window = Window(end - 30 * DAY_US, end)
    report = make_report(sample, window=window, as_of_us=end, monitor=Monitor("late"), on_call="route:ops")
    first = report.findings[0]
    assert report.verdict == "act"
    assert first.startswith("the slice that is most off its level: carrier BB, where ")
    assert " was said and 7" in first
    assert '<details class="part" open><summary><h2>Where is it worst?' in html(report)
    (alert,) = settle(metadata, report, actor="ann", at_us=end)
    assert alert.worst == first
    message = described(alert, "opened", end)
    shown = lines({"alert": message, "event": "opened"})
    assert f"T{first[1:]}." in shown


def test_a_pair_is_told_when_it_is_worse_than_both_of_its_values():
    found = slices(planted(8000, ("BB", 2.0)))
    assert found.worst[0].where == {"carrier": "BB", "tier": "2"}


def test_a_slice_that_is_bad_by_itself_is_not_told_again_with_every_other_value():
    named = [one.where for one in slices(planted()).worst]
    assert named == [{"carrier": "BB"}]


def test_rows_that_are_hard_for_any_model_are_not_called_off():
    random = np.random.default_rng(5)
    hard = np.arange(4000) % 2 == 0
    scores = np.where(hard, 0.5, random.choice([0.03, 0.97], 4000))
    labels = (random.random(4000) < scores).astype(float)
    found = slices(a_sample(scores, labels, feature_kind=pa.array(np.where(hard, "fog", "clear").tolist())))
    (worst,) = found.worst
    assert worst.where == {"kind": "fog"}
    assert not worst.off


def test_chance_makes_no_worst_slice():
    told = [len(slices(replace_inputs(calibrated(4000, seed=seed), seed)).worst) for seed in range(6)]
    assert sum(told) <= 1


def replace_inputs(sample, seed):
    rows = sample.rows
    for name, column in inputs(rows.num_rows, seed + 100).items():
        rows = rows.append_column(name, column)
    return replace(sample, rows=rows)


def test_few_rows_do_not_win():
    sample = planted(6000)
    tiny = np.array(["usual"] * 6000, dtype=object)
    wrong = np.flatnonzero(sample.label_values() == 1)[:60]  # sixty rows, all of them surprises
    tiny[wrong] = "tiny"
    found = slices(replace(sample, rows=sample.rows.append_column("feature_kind", pa.array(tiny.tolist()))))
    assert found.least_rows == 100
    assert all("tiny" not in one.where.values() for one in found.worst)
    assert found.worst[0].where == {"carrier": "BB"}


def test_missing_and_constant_inputs_are_no_trouble():
    sample = planted(3000)
    rows = sample.rows.append_column("feature_same", pa.array([1.0] * 3000))
    rows = rows.append_column("feature_none", pa.nulls(3000, pa.float64()))
    holes = pa.array([None if n % 3 else "x" for n in range(3000)])
    found = slices(replace(sample, rows=rows.append_column("feature_holes", holes)))
    assert found.worst[0].where == {"carrier": "BB"}
    assert not {"same", "none"} & {name for one in found.worst for name in one.where}


def test_a_regression_is_sliced_by_its_absolute_error():
    random = np.random.default_rng(0)
    columns = inputs(3000)
    spread = np.where(np.array(columns["feature_carrier"].to_pylist()) == "CC", 30, 10)
    labels = random.normal(100, 5, 3000)
    found = slices(a_sample(labels + spread * random.normal(size=3000), labels, task="regression", **columns))
    assert found.loss == "absolute error"
    assert found.worst[0].where == {"carrier": "CC"}
    assert found.worst[0].loss == pytest.approx(30 * 0.8, rel=0.15)


def test_of_several_classes_the_loss_is_that_of_what_happened():
    sample = of_classes(2000)
    rows = sample.rows.append_column("feature_x", pa.array(["a", "b"] * 1000))
    found = slices(replace(sample, rows=rows))
    assert (found.loss, found.looked_at, found.worst) == ("log loss", 2, [])
    decided = replace(sample, rows=rows, decided_only=True)
    assert slices(decided).loss == "share of wrong answers"


@pytest.mark.parametrize(
    ("sample", "note"),
    [
        (a_sample([]), "0 of 500 labels"),
        (a_sample([0.3], [1]), "1 of 500 labels"),
        (a_sample([0.3] * 900), "0 of 500 labels"),
        (a_sample([np.nan] * 900, [1] * 900), "0 of 500 labels"),
        (calibrated(900), "no inputs to slice by"),
    ],
    ids=["empty", "one row", "no labels", "NaN scores", "no inputs"],
)
def test_where_nothing_can_be_sliced_it_says_why(sample, note):
    found = slices(sample)
    assert (found.worst, found.looked_at) == ([], 0)
    assert note in found.note
