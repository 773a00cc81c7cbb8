"""Skew: what was logged online is what the join says, and each fault of the feed is found and called by its name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from seatrial import Entity, FrameSource, Project, agg, feature_view
from seatrial.cli import run
from seatrial.core.clock import iso
from seatrial.core.errors import UsageError
from seatrial.core.windows import Window, parse_window
from seatrial.features.plan import FeaturePlan, FunctionPlan, plan_view
from seatrial.features.skew import SkewFound, Tally, different, missing_fields, recompute, refusal
from seatrial.monitoring.looks.skew import NAME
from seatrial.monitoring.pages.page import html
from seatrial.testing import FakeClock
from seatrial.verbs.history import Feed, in_window, request_fields, times_us

pytestmark = pytest.mark.slow

TIME = pa.timestamp("us", tz="UTC")
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY_US = 86_400_000_000

# By hand: one view, a few rows


def sales(**changes):
    rows = {
        "shop": pa.array(["a", "a", "b"]),
        "sold_at": pa.array([NOON - 3 * HOUR, NOON - HOUR, NOON - HOUR], TIME),
        "amount": pa.array([1.0, 5.0, None], pa.float64()),
    }
    return pa.table(rows | changes)


@pytest.fixture
def plan():
    @feature_view(entity=Entity("shop"), source=FrameSource(sales(), name="sales", event_timestamp="sold_at"))
    class till:
        amount = agg.last("amount")
        total_2h = agg.sum("amount", window="2h")

    function = FunctionPlan("doubled", ("till__amount",), "def doubled(till__amount):\n    return till__amount * 2")
    return FeaturePlan((plan_view(till),), (function,))


def logged(**changes):
    """What a service that is right would have logged for shops a, b and one that nobody knows."""
    rows = {
        "prediction_id": pa.array(["p0", "p1", "p2"]),
        "at": pa.array([NOON] * 3, TIME),
        "field_shop": pa.array(["a", "b", "c"]),
        "feature_till__amount": pa.array([5.0, None, None], pa.float64()),
        "feature_till__total_2h": pa.array([5.0, None, None], pa.float64()),
        "feature_doubled": pa.array([10.0, None, None], pa.float64()),
        "view_till_status": pa.array(["present", "present", "missing"]),
        "view_till_event_at": pa.array([NOON - HOUR, NOON - HOUR, None], TIME),
    }
    return pa.table(rows | changes)


def tallied(rows, plan):
    tally = Tally()
    tally.add(rows, recompute(rows, plan, {"till": sales()}), plan)
    return tally, {one.feature: one for one in tally.features()}


def test_what_is_right_has_no_mismatch(plan):
    tally, found = tallied(logged(), plan)
    assert (tally.rows, tally.mismatched) == (3, 0)
    assert [one.rows for one in found.values()] == [3, 3, 3]
    assert all(one.mismatches == 0 and not one.classes for one in found.values())


def test_an_older_event_is_called_materialized_late_whatever_was_logged(plan):
    event = pa.array([NOON - 3 * HOUR, NOON - HOUR, None], TIME)
    _, found = tallied(logged(view_till_event_at=event, feature_till__amount=pa.array([1.0, None, None])), plan)
    assert found["till__amount"].classes == {"materialized late": 1}
    (example,) = found["till__amount"].examples
    assert (example.prediction_id, example.key, example.at) == ("p0", {"shop": "a"}, iso(NOON))
    assert (example.logged, example.recomputed, example.kind) == (1.0, 5.0, "materialized late")
    assert (example.logged_event, example.recomputed_event) == (iso(NOON - 3 * HOUR), iso(NOON - HOUR))


def test_an_entity_that_was_not_there_is_called_missing_online(plan):
    changes = {
        "view_till_status": pa.array(["missing"] * 3),
        "view_till_event_at": pa.nulls(3, TIME),
        "feature_till__amount": pa.nulls(3, pa.float64()),
        "feature_doubled": pa.nulls(3, pa.float64()),
    }
    _, found = tallied(logged(**changes), plan)
    assert found["till__amount"].classes == {"missing online": 1}
    assert found["doubled"].classes == {"missing online": 1}  # a function is as late or missing as what feeds it


def test_rows_that_were_all_too_old_are_called_late_and_not_missing(plan):
    changes = {
        "view_till_status": pa.array(["expired", "expired", "missing"]),
        "view_till_event_at": pa.nulls(3, TIME),
        "feature_till__total_2h": pa.nulls(3, pa.float64()),
    }
    _, found = tallied(logged(**changes), plan)
    assert found["till__total_2h"].classes == {"materialized late": 1}


def test_a_null_that_became_zero_is_called_a_different_value(plan):
    _, found = tallied(logged(feature_till__amount=pa.array([5.0, 0.0, None])), plan)
    assert found["till__amount"].classes == {"different value": 1}
    assert found["till__amount"].examples[0].recomputed is None


def test_values_are_equal_bit_by_bit_and_in_float32_only_where_the_log_holds_float32():
    tenth = pa.chunked_array([pa.array([0.1, 0.1, None])])
    near = pa.chunked_array([pa.array([0.1, 0.1 + 2**-54, None])])
    assert different(near, tenth).tolist() == [False, True, False]
    assert different(near.cast(pa.float32()), tenth).tolist() == [False, False, False]
    assert different(pa.chunked_array([pa.array(["x", None])]), pa.chunked_array([pa.array(["y", None])])).tolist() == [
        True,
        False,
    ]


def test_predictions_without_the_entitys_key_are_said_to_be_unknowable(plan):
    assert missing_fields(logged(), plan) == []
    assert missing_fields(logged().drop_columns("field_shop"), plan) == ["shop"]


# On the flights of 2013: five days of April through the real service, with a feed that goes wrong on some of them

DAYS = {
    name: parse_window(f"2013-04-{day:02}T04:00:00Z/2013-04-{day + 1:02}T04:00:00Z")
    for name, day in {"right": 1, "celsius": 2, "zero": 3, "late": 5}.items()
}
SIMPLER = (
    ("cv_folds=3", "cv_folds=0"),
    ('"n_estimators": 200', '"n_estimators": 20'),
    ('"learning_rate": 0.05', '"learning_rate": 0.3'),
    ("Gate.cv_std_at_most(0.10),", ""),
    ("Gate.cv_gap_at_most(0.05),", ""),
)


def in_celsius(rows):
    for name in ("temp", "dewp"):
        celsius = pc.divide(pc.multiply(pc.subtract(rows[name], 32.0), 5.0), 9.0)
        rows = rows.set_column(rows.column_names.index(name), name, celsius)
    return rows


def with_zeros(rows):
    return rows.set_column(rows.column_names.index("pressure"), "pressure", pc.fill_null(rows["pressure"], 0.0))


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flights")
    Project.init(folder, "flights").close()
    file = folder / "project.py"
    text = file.read_text()
    for before, after in SIMPLER:
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)
    clock = FakeClock(datetime(2013, 4, 1, 4, tzinfo=UTC))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_POLICY_APPROVAL", "none")
        project = Project(folder, clock=clock)
    with project:
        project.materialize()
        project.train("late")
        project.release("late")
        project.deploy("late", reason="to be looked at")
        service = project._service(replay=True, only=["late"])
        service.refresh()
        serve(project, service, DAYS["right"])
        serve(project, service, DAYS["celsius"], tamper=in_celsius)
        serve(project, service, DAYS["zero"], tamper=with_zeros)
        two_days = Window(DAYS["late"].start_us - DAY_US, DAYS["late"].end_us)
        serve(project, service, two_days, behind_us=DAY_US, only=DAYS["late"])
        service.close()
        clock.set(datetime(2013, 4, 7, 4, tzinfo=UTC))
        yield project


def serve(project, service, window, *, tamper=None, behind_us=0, only=None):
    """Answer every flight of a window at its instant, after pushing what was known then, or `behind_us` earlier."""
    model = project.definitions.model("late")
    views = [project.definitions.views[view.name] for view in service.predictor("late").shares[0].release.plan.views]
    tables, _ = project._inputs.tables([model.labels, *(view.source for view in views)], None)
    if tamper:
        tables["observations"] = tamper(tables["observations"])
    feed = Feed([plan_view(view) for view in views], tables, window, project.online)
    rows = in_window(tables["scheduled"], model.labels, only or window)
    names = service.predictor("late").shares[0].release.signature.request_names
    for at_us, fields in zip(times_us(rows, "predict_at").tolist(), request_fields(rows, names), strict=True):
        feed.up_to(at_us - behind_us)
        at = iso(datetime.fromtimestamp(at_us / 1e6, UTC))
        draft = service.predictor("late").draft(msgspec.json.encode({"features": fields, "at": at}), "test")
        project.log.append_all(draft.rows)
    feed.up_to(window.end_us - behind_us)


def morning_off(window):
    """The window without its first hours, in which weather that was pushed the day before still counts."""
    return Window(window.start_us + DAY_US // 2, window.end_us)


def test_an_undisturbed_day_of_flights_has_no_mismatch(flights):
    report = flights.feature_verify("late", window=DAYS["right"])
    assert report.rows == report.predictions > 800
    assert (report.mismatched, report.share) == (0, 0.0)
    assert len(report.features) == 23
    assert report.notes == []


def test_a_temperature_in_the_wrong_unit_is_a_different_value(flights):
    report = flights.feature_verify("late", window=morning_off(DAYS["celsius"]))
    wrong = {one.feature: one for one in report.features if one.mismatches}
    assert set(wrong) == {"airport_weather__temp", "airport_weather__dewp"}
    temp = wrong["airport_weather__temp"]
    assert set(temp.classes) == {"different value"}
    assert temp.share > 0.95
    for example in temp.examples:
        assert example.logged == pytest.approx((example.recomputed - 32) * 5 / 9)
        assert example.logged_event == example.recomputed_event != ""
        assert set(example.key) == {"origin"}


def test_a_null_turned_into_zero_is_a_different_value(flights):
    report = flights.feature_verify("late", window=morning_off(DAYS["zero"]))
    (wrong,) = [one for one in report.features if one.mismatches]
    assert wrong.feature == "airport_weather__pressure"
    assert set(wrong.classes) == {"different value"}
    assert {(one.logged, one.recomputed) for one in wrong.examples} == {(0.0, None)}


def test_windows_one_day_stale_are_called_materialized_late(flights):
    report = flights.feature_verify("late", window=DAYS["late"])
    by_name = {one.feature: one for one in report.features}
    for feature in ("origin_departures__delay_2h", "carrier_departures__count_24h", "origin_departures__delay_24h"):
        found = by_name[feature]
        assert found.share > 0.85  # in the early morning there was nothing to miss
        assert found.classes.get("materialized late", 0) > 0.98 * found.mismatches
    assert report.share > 0.95
    assert sum(one.classes.get("materialized late", 0) for one in report.features) > 0.95 * sum(
        one.mismatches for one in report.features
    )


def test_a_sample_is_the_same_for_the_same_seed_and_finds_the_fault(flights):
    one, same, other = (
        flights.feature_verify("late", window=DAYS["late"], sample=100, seed=seed) for seed in (1, 1, 2)
    )
    assert one.rows == 100
    assert one.predictions > 800
    assert one == same
    assert one.features != other.features


def test_a_limit_refuses_with_the_worst_feature_and_its_share(flights):
    report = flights.feature_verify("late", window=DAYS["late"])
    error = refusal(report, 0.01)
    assert isinstance(error, SkewFound)
    assert error.exit_code == 3
    assert error.facts["feature"] == report.features[0].feature
    assert "At most 1.0% is allowed." in str(error)


def test_predictions_of_a_batch_are_left_out(flights):
    before = flights.feature_verify("late", window=DAYS["celsius"])
    scored = flights.predict_batch("late", DAYS["celsius"])
    assert scored.logged > 800
    after = flights.feature_verify("late", window=DAYS["celsius"])
    assert (before.batch, after.batch) == (0, scored.logged)
    assert msgspec.structs.replace(after, batch=0) == before


def test_how_many_predictions_of_a_batch_are_left_out_is_said(flights, capsys):
    window = parse_window("2013-02-03/2013-02-04")
    scored = flights.predict_batch("late", window)
    words = ["features", "verify", "late", "--project", str(flights.folder), "--window", str(window)]
    assert run(words) == 0
    told = capsys.readouterr().out
    assert "0 predictions joined again" in told
    assert f"left out: {scored.logged:,} predictions of a batch, whose features were joined offline" in told


def test_predictions_that_were_logged_without_the_keys_are_named_and_left_out(flights):
    flights.log.write(model="late", features={"carrier": "UA"}, prediction=0.0, at=datetime(2013, 3, 1, tzinfo=UTC))
    report = flights.feature_verify("late", window=parse_window("2013-03-01/2013-03-02"))
    assert (report.predictions, report.rows, report.features) == (1, 0, [])
    assert "logged without origin, dest, tailnum" in report.notes[0]


def test_a_window_without_predictions_has_nothing_to_compare(flights):
    report = flights.feature_verify("late", window=parse_window("2013-02-01/2013-02-02"))
    assert (report.predictions, report.rows, report.share, report.features) == (0, 0, 0.0, [])


def test_the_command_ends_with_3_above_the_share_and_shows_classes_and_examples(flights, capsys):
    words = ["features", "verify", "late", "--project", str(flights.folder), "--window", str(DAYS["late"])]
    assert run([*words]) == 0
    told = capsys.readouterr().out
    assert "materialized late" in told
    assert "logged event" in told
    assert run([*words, "--fail-above", "0.99"]) == 3
    assert "SkewFound [features.skew]" in capsys.readouterr().err
    right = [*words[:-1], str(DAYS["right"]), "--fail-above", "0"]
    assert run(right) == 0
    assert "✓ All 23 features are what the join says, bit by bit." in capsys.readouterr().out


def test_a_sample_of_nothing_is_a_usage_error(flights):
    with pytest.raises(UsageError, match="sample of 0"):
        flights.feature_verify("late", sample=0)


def test_a_report_joins_a_sample_again_and_says_what_no_statistic_sees(flights):
    right = flights.monitor("late", window=DAYS["right"], keep=False)
    assert (right.skew.rows, right.skew.mismatched, right.skew.features) == (200, 0, [])
    assert alarm_of(right).state == "quiet"
    stale = flights.monitor("late", window=DAYS["late"], keep=False)
    assert stale.skew.low > 0.8
    assert set(stale.skew.features[0].kinds) <= {"materialized late", "missing online"}
    fired = alarm_of(stale)
    assert (fired.state, fired.severity) == ("fired", "medium")
    assert "seatrial features verify late" in fired.action
    assert "Were they online what they are offline?" in html(stale)


@pytest.mark.filterwarnings("ignore::seatrial.verbs.alerting.AlertsNotDelivered")
def test_the_reports_of_a_day_ask_once_and_open_one_ticket(flights, capsys):
    first = flights.monitor("late")
    (ticket,) = [one for one in flights.alerts("late") if one.alarm == NAME]
    assert ticket.severity == "medium"
    flights.clock.advance(timedelta(hours=20))
    second = flights.monitor("late")
    assert second.skew == first.skew
    assert [one.id for one in flights.alerts("late") if one.alarm == NAME] == [ticket.id]
    flights.clock.advance(timedelta(hours=5))
    assert flights.monitor("late").skew.as_of > first.skew.as_of
    at = ["--at", iso(flights.clock.now()), "--project", str(flights.folder)]
    assert run([*at, "reports", "show", first.id]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Run `seatrial materialize`, and see that it runs as often as it should" in told
    assert "offline 'airport_weather__dewp' had come" in told
    assert f"✗ replay: of 200 of {first.skew.predictions:,} predictions that were joined again" in told


def alarm_of(report):
    return next(one for one in report.alarms if one.name == NAME)
