from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.monitoring.definition import Alarm, Monitor
from seatrial.monitoring.monitor import ReportTooNew, kept, make_report, point
from seatrial.monitoring.report import Mark, Point, Report
from seatrial.monitoring.rows.labels import LabelCounts
from seatrial.monitoring.rows.reference import Reference
from tests.house.test_names import in_a_fresh_interpreter
from tests.monitoring.worlds import DAY_US, START_US, a_sample, calibrated, watched_memory, week

FLIGHTS = Monitor("late", subject="flights", outcome="late")


def report_on(sample, *, window=None, **given):
    window = window or week()
    return make_report(sample, window=window, **{"as_of_us": window.end_us, **given})


def off_level(said=0.24, observed=0.46, count=2000):
    labels = np.zeros(count)
    labels[np.linspace(0, count - 1, round(count * observed)).astype(int)] = 1
    return a_sample(np.full(count, said), labels)


def test_a_model_that_says_what_happens_is_ok():
    report = report_on(calibrated())
    assert report.verdict == "ok"
    assert "100 % of the labels known" in report.headline
    assert "no reference" in report.headline


def test_a_level_that_is_off_is_told_in_the_words_of_the_product():
    report = report_on(off_level(), monitor=FLIGHTS)
    assert report.verdict == "act"
    assert report.headline.startswith("Late flights are under-predicted: 46 % were late, the model said 24 %; ")
    assert "retrain" in report.next
    assert report_on(off_level(0.46, 0.24), monitor=FLIGHTS).headline.startswith(
        "Late flights are over-predicted: 24 % were late, the model said 46 %"
    )


def test_without_words_of_the_product_the_models_name_is_used():
    assert report_on(off_level()).headline.startswith(
        "'late' is under-predicted: 46 % were positive, the model said 24 %"
    )


def test_the_headline_has_the_numbers_of_the_alarm_when_the_report_looks_further():
    calm = calibrated(4000, 0.24)
    at = np.concatenate(
        [
            START_US + np.arange(4000) * (3 * 7 * DAY_US // 4000),
            week(3).start_us + np.arange(2000) * (7 * DAY_US // 2000),
        ]
    )
    scores = np.concatenate([calm.scores(), off_level().scores()])
    labels = np.concatenate([calm.label_values(), off_level().label_values()])
    window = week(0, 28)
    report = report_on(a_sample(scores, labels, at_us=at), window=window, monitor=FLIGHTS)
    assert "46 % were late, the model said 24 %" in report.headline
    assert report.performance.observed < 0.4


def test_another_alarm_of_performance_says_what_its_limit_is():
    monitor = Monitor("late", alarms=[Alarm.drop("accuracy", "20%")])
    report = report_on(calibrated(), monitor=monitor, training={"accuracy": 0.95})
    assert report.verdict == "act"
    assert "accuracy is 0.7" in report.headline
    assert "it was 0.95 in testing" in report.headline


def test_a_regression_is_spoken_of_in_its_own_unit():
    labels = np.random.default_rng(0).normal(500, 40, 1000)
    report = report_on(a_sample(labels - 20, labels, task="regression"))
    assert report.verdict == "act"
    assert "under-predicted: the mean was" in report.headline


def test_a_model_served_elsewhere_is_told_no_command_of_a_project():
    for sample in (off_level(), a_sample([]), a_sample(np.full(500, 0.3))):
        assert "`seatrial" in report_on(sample).next
        assert "`seatrial" not in report_on(sample, elsewhere=True).next


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (a_sample([]), "no predictions in this window"),
        (a_sample([0.3]), "its only prediction has no label yet"),
        (a_sample([0.3], [1]), "1 of 200 labels"),
        (a_sample(np.full(1000, 0.3)), "none of its 1000 predictions".replace("1000", "1,000")),
        (calibrated(at_us=START_US + 4 * DAY_US + np.arange(2100) * 1_000_000), "3 of 7 days"),
    ],
    ids=["empty window", "one row", "one label", "no labels ever", "young"],
)  # fmt: skip
def test_too_little_to_say_is_unknown_and_says_what_is_missing(sample, words):
    report = report_on(sample)
    assert report.verdict == "unknown"
    assert words in report.headline
    assert report.next
    assert any("no reference" in finding for finding in report.findings) or not report.rows


def test_labels_that_were_known_before_their_predictions_are_said_to_be_of_no_use():
    sample = a_sample(np.full(1000, 0.3))
    early = type(sample)(sample.model, sample.task, sample.rows, LabelCounts(before=1000, predictions=1000))
    report = report_on(early)
    assert report.verdict == "unknown"
    assert "1,000 labels were known before their predictions were made" in report.headline


def test_a_quiet_alarm_that_is_not_of_performance_does_not_make_a_model_ok():
    monitor = Monitor("late", calibration=False, alarms=[Alarm.above("p99_ms", 100)])
    assert report_on(a_sample(np.full(1000, 0.3)), monitor=monitor).verdict == "unknown"


def test_a_declared_hard_alarm_on_the_service_is_a_reason_to_act_and_a_mild_one_to_watch():
    sample = calibrated()
    for severity, verdict in (("high", "act"), ("low", "watch")):
        monitor = Monitor("late", alarms=[Alarm.above("p99_ms", 1, severity=severity)])
        assert report_on(sample, monitor=monitor).verdict == verdict


def test_alarms_look_back_from_the_end_of_the_window_not_from_now():
    report = report_on(off_level(), as_of_us=week().end_us + 365 * DAY_US)
    assert report.verdict == "act"


def test_alarms_do_not_look_beyond_what_is_known():
    sample = off_level()
    report = report_on(sample, as_of_us=week().start_us + 3 * DAY_US, since_us=START_US - 30 * DAY_US)
    assert report.alarms[0].window == "2013-03-28T00:00:00Z/2013-04-04T00:00:00Z"


def test_how_many_labels_have_arrived_is_said():
    labels = off_level().label_values().copy()
    labels[:760] = np.nan
    report = report_on(a_sample(off_level().scores(), labels))
    assert "62 % of this window's labels have arrived (1,240 of 2,000)" in report.findings


def test_rows_are_counted_by_release():
    sample = calibrated(300)
    rows = sample.rows.set_column(
        sample.rows.column_names.index("release"), "release", pa.array(["rel_1"] * 100 + ["rel_2"] * 190 + [None] * 10)
    )
    report = report_on(type(sample)(sample.model, sample.task, rows, sample.labels))
    assert report.releases == {"rel_2": 190, "rel_1": 100, "1": 10}
    assert next(iter(report.releases)) == "rel_2"


def test_marks_of_what_was_not_known_yet_are_left_out():
    marks = [Mark("2013-04-02T00:00:00Z", "release", "v1"), Mark("2013-05-02T00:00:00Z", "release", "v2")]
    assert [mark.words for mark in report_on(calibrated(), marks=marks).marks] == ["v1"]


def test_a_report_survives_being_kept_and_becomes_a_point_of_the_history():
    report = report_on(off_level(), owner="ann", history=[Point("2013-04-01T00:00:00Z", "w", {"gap": None})])
    body = msgspec.json.decode(msgspec.json.encode(report))
    assert kept(body) == report
    found = point(body)
    assert (found.at, found.window) == ("2013-04-08T00:00:00Z", report.window)
    assert found.metrics["gap"] == pytest.approx(-0.22)
    assert (found.metrics["rows"], found.metrics["drifted"]) == (2000, 0)


def test_a_report_of_a_newer_version_is_refused_by_name():
    body = msgspec.to_builtins(report_on(calibrated(300))) | {"format": 2}
    for read in (point, kept):
        with pytest.raises(ReportTooNew, match="format 2"):
            read(body)


anything = st.one_of(st.floats(0, 1), st.just(float("nan")), st.floats(-2, 3))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(anything, st.sampled_from([0.0, 1.0, float("nan"), 2.0])), max_size=30),
    st.sampled_from(["binary", "regression"]),
    st.integers(1, 8),
)
def test_whatever_the_rows_hold_a_report_has_a_verdict_and_a_sentence(pairs, task, repeat):
    scores = [score for score, _ in pairs] * repeat * 5
    labels = [label for _, label in pairs] * repeat * 5
    monitor = Monitor(
        "late",
        alarms=[Alarm.drop("accuracy", 0.2), Alarm.above("ks", 0.1), Alarm.above("label_share", 0.99, severity="low")],
    )
    sample = a_sample(scores, labels, task=task)
    report = report_on(sample, monitor=monitor, training={"accuracy": 0.9})
    assert report.verdict in ("ok", "watch", "act", "unknown")
    assert report.headline.endswith(".")
    assert report.next
    assert isinstance(msgspec.json.decode(msgspec.json.encode(report), type=Report), Report)
    if not report.performance.labelled:
        assert report.verdict in ("act", "unknown")


def test_a_report_needs_nothing_but_the_base_install():
    """No pandas, scikit-learn or scipy; and a definition costs not even Arrow."""
    definition = in_a_fresh_interpreter("from seatrial.monitoring.definition import Alarm, Monitor")
    assert "pyarrow" not in definition
    absent = ("pandas", "sklearn", "scipy", "duckdb", "lightgbm", "mlflow", "onnx", "onnxruntime")
    in_a_fresh_interpreter(
        "import sys\n"
        "class Absent:\n"
        "    @staticmethod\n"
        "    def find_spec(name, *_):\n"
        f"        if name.partition('.')[0] in {absent}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent)\n"
        "from tests.monitoring.worlds import calibrated, week\n"
        "from seatrial.monitoring.monitor import make_report\n"
        "from seatrial.monitoring.rows.reference import Reference\n"
        "sample = calibrated()\n"
        "reference = Reference.from_table(sample.rows)\n"
        "report = make_report(sample, window=week(), as_of_us=week().end_us, reference=reference)\n"
        "assert report.verdict == 'ok', report"
    )


# With a reference

RANDOM = np.random.default_rng(7)


def with_inputs(sample, *, shift=0.0, fuel_missing=0.02, carriers=("AA", "UA", "B6")):
    """`sample` with a number, a number that may be missing, and a category."""
    count = sample.rows.num_rows
    rows = sample.rows
    fuel = RANDOM.normal(50, 5, count)
    fuel[RANDOM.random(count) < fuel_missing] = np.nan
    for name, values in (
        ("feature_distance", pa.array(RANDOM.normal(1000 + shift * 300, 300, count))),
        ("feature_fuel", pa.array(fuel, from_pandas=True)),
        ("feature_carrier", pa.array(RANDOM.choice(list(carriers), count).tolist(), pa.string())),
    ):
        rows = rows.append_column(name, values)
    return type(sample)(sample.model, sample.task, rows, sample.labels)


def normal():
    return Reference.from_table(with_inputs(calibrated(5000)).rows)


def test_when_nothing_moved_a_wrong_level_is_said_to_be_unexplained_by_the_inputs():
    report = report_on(with_inputs(calibrated_then_off()), reference=normal(), monitor=FLIGHTS)
    assert report.verdict == "act"
    assert report.headline.endswith("; nothing in the inputs explains it.")
    assert len(report.drift.columns) == 3


def calibrated_then_off():
    """Scores as in the reference, of which more come true than they say."""
    sample = calibrated(2000, seed=3)
    return a_sample(sample.scores(), np.maximum(sample.label_values(), RANDOM.random(2000) < 0.3))


def test_when_inputs_moved_too_the_headline_names_them():
    report = report_on(with_inputs(calibrated_then_off(), shift=0.5), reference=normal(), monitor=FLIGHTS)
    assert report.verdict == "act"
    assert report.headline.endswith("; input 'distance' moved too.")


def test_what_had_moved_in_the_window_before_explains_nothing_new():
    off = calibrated_then_off()
    at = np.concatenate([off.at_us(), off.at_us() + 7 * DAY_US])
    twice = a_sample(np.tile(off.scores(), 2), np.tile(off.label_values(), 2), at_us=at)
    season = with_inputs(twice, shift=0.5)
    report = report_on(season, window=week(1), reference=normal(), monitor=FLIGHTS)
    assert report.headline.endswith("; nothing new in the inputs explains it, 1 input had moved before already.")
    assert any("as in the window before" in finding for finding in report.findings)
    alone = report_on(season, window=week(0), reference=normal(), monitor=FLIGHTS)
    assert alone.headline.endswith("; input 'distance' moved too.")
    assert {column.before for column in alone.drift.columns} == {None}


def test_drift_without_harm_is_to_be_watched():
    report = report_on(with_inputs(calibrated(), shift=0.5), reference=normal())
    assert report.verdict == "watch"
    assert report.headline.startswith("Input 'distance' moved by 0.")
    assert "no harm shows: 29 % were positive, it said 30 %" in report.headline


def test_drift_beside_a_level_that_is_off_is_not_called_harmless():
    plain = with_inputs(calibrated(4000, seed=4), shift=0.5)
    worse = np.array([one == "AA" for one in plain.rows["feature_carrier"].to_pylist()])
    labels = np.where(worse & (np.random.default_rng(5).random(4000) < 0.3), 1.0, plain.label_values())
    place = plain.rows.column_names.index("label")
    report = report_on(replace(plain, rows=plain.rows.set_column(place, "label", pa.array(labels))), reference=normal())
    assert (report.verdict, [one.name for one in report.alarms if one.state == "fired"]) == ("watch", [])
    assert "no harm" not in report.headline
    worst = report.slices.worst[0]
    said = f"carrier AA: said {worst.mean_score:.3g}, happened {worst.observed:.3g}"
    assert f", and the level is off, though no alarm fires on it ({said})" in report.headline


@pytest.mark.slow
def test_a_whole_report_takes_no_more_than_five_times_the_memory_of_its_rows():
    reference = normal()
    sample = with_inputs(calibrated(1_000_000))
    report_on(with_inputs(calibrated(2000)), reference=reference)  # imports
    with watched_memory() as taken:
        report = report_on(sample, reference=reference)
    assert report.rows == report.performance.labelled == 1_000_000
    assert taken.numpy + taken.arrow < 5 * sample.rows.nbytes


def test_drift_without_labels_is_to_be_watched_and_its_harm_is_unknown():
    sample = calibrated()
    unlabelled = a_sample(sample.scores())
    report = report_on(with_inputs(unlabelled, shift=0.5), reference=normal())
    assert report.verdict == "watch"
    assert "whether that does harm is not known: not enough data: 0 of 200 labels" in report.headline


def test_a_column_that_went_dark_is_broken_data_whatever_the_labels_say():
    report = report_on(with_inputs(calibrated(), fuel_missing=1), reference=normal())
    assert report.verdict == "act"
    assert report.headline.startswith("The data are broken")
    assert "'fuel'" in report.headline
    assert "do not retrain" in report.next


def test_without_a_reference_the_rules_about_the_predictions_alone_still_hold():
    report = report_on(a_sample(np.full(1000, np.nan), np.ones(1000)))
    assert report.verdict == "act"
    assert "1,000 of 1,000 without" in report.headline


def test_an_alarm_on_drift_is_watched_until_labels_show_harm():
    monitor = Monitor("late", alarms=[Alarm.above("ks:distance", 0.1), Alarm.above("ks", 0.99)])
    report = report_on(with_inputs(calibrated(), shift=0.5), reference=normal(), monitor=monitor)
    assert report.verdict == "watch"
    assert [alarm.state for alarm in report.alarms] == ["quiet", "fired", "quiet"]


@pytest.mark.parametrize(
    "sample",
    [
        with_inputs(a_sample([])),
        with_inputs(a_sample([0.3])),
        with_inputs(a_sample([0.3], [1])),
        with_inputs(a_sample(np.full(500, 0.3), np.ones(500)), fuel_missing=1),
        with_inputs(calibrated(500), carriers=["new"]),
        a_sample(np.full(500, 0.3)),
    ],
    ids=["empty", "one row", "one label", "all missing", "unseen category", "no inputs"],
)
def test_whatever_is_compared_with_a_reference_there_is_a_stated_result(sample):
    report = report_on(sample, reference=normal())
    assert report.verdict != "ok"
    assert report.headline.endswith(".")
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
