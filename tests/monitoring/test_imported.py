"""A log from elsewhere: its map, its types and times, and what is said when they do not fit."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial.cli import run
from seatrial.core.clock import to_us
from seatrial.core.errors import SeatrialError
from seatrial.core.windows import Window
from seatrial.data.reading import DataWarning
from seatrial.features.definitions import BadDefinition
from seatrial.monitoring.definition import Alarm
from seatrial.monitoring.imported import monitor_log, rehearse_log
from seatrial.monitoring.rows.foreign import LogColumnNotThere, LogMissing, read_log
from seatrial.monitoring.rows.mapping import BadMap, MapUnreadable, read_map
from seatrial.stores.prediction_log import PredictionLog

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY_US = 86_400_000_000
HOUR_US = DAY_US // 24
NOW_US = to_us(START + timedelta(days=10))
PLAIN = 'model = "m"\ntimestamp = "t"\nscore = "p"\n'


def table(count=1400, **changes) -> pa.Table:
    plain = {
        "t": pa.array([START + timedelta(days=7 * n / count) for n in range(count)], pa.timestamp("us", tz="UTC")),
        "p": [0.1 + 0.8 * (n % 10) / 10 for n in range(count)],
        "y": [int(n % 10 > 4) for n in range(count)],
        "age": [20 + n % 50 for n in range(count)],
        "plan": [("a", "b", None)[n % 3] for n in range(count)],
    }
    return pa.table({name: column for name, column in (plain | changes).items() if column is not None})


@pytest.fixture
def given(tmp_path):
    def write(rows=None, toml=PLAIN + 'label = "y"\n'):
        pq.write_table(table() if rows is None else rows, tmp_path / "log.parquet")
        (tmp_path / "map.toml").write_text(toml)
        return tmp_path / "log.parquet", tmp_path / "map.toml"

    return write


def sample(log, mapping, **more):
    return read_log(log, read_map(mapping), as_of_us=more.pop("as_of_us", NOW_US), **more).sample


def test_a_report_needs_a_log_and_a_map_alone(given, tmp_path):
    log, mapping = given()
    found = monitor_log(log, mapping, as_of_us=NOW_US)
    assert (found.model, found.rows, found.performance.labelled) == ("m", 1400, 1400)
    assert found.window == "2024-01-01T00:00:00Z/2024-01-08T00:00:00Z"
    assert "no reference" in found.drift.note
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.parquet", "map.toml"]


def test_every_other_column_is_an_input_but_those_with_a_role_and_those_left_out(given):
    log, mapping = given(toml=PLAIN + 'label = "y"\nwithout = ["plan"]\nfeatures = "*"\n')
    assert sample(log, mapping).features == ["age"]
    log, mapping = given(toml=PLAIN + 'features = ["plan"]\n')
    assert sample(log, mapping).features == ["plan"]


def test_the_reference_is_compared_by_the_same_names(given, tmp_path):
    log, mapping = given(table(age=[60 + n % 50 for n in range(1400)]))
    pq.write_table(table(t=None), tmp_path / "reference.parquet")
    found = monitor_log(log, mapping, tmp_path / "reference.parquet", as_of_us=NOW_US)
    assert [one.name for one in found.drift.columns if one.drifted] == ["age"]
    assert found.drift.prediction is not None
    assert not found.drift.prediction.drifted
    pq.write_table(pa.table({"other": [1.0]}), tmp_path / "reference.parquet")
    log, mapping = given(toml=PLAIN + 'features = ["age"]')
    with pytest.raises(LogColumnNotThere, match="none of the inputs"):
        monitor_log(log, mapping, tmp_path / "reference.parquet", as_of_us=NOW_US)


@pytest.mark.parametrize("count", [0, 1, 199])
def test_a_reference_of_a_few_rows_is_not_compared_with_and_that_is_told(given, tmp_path, count):
    log, mapping = given()
    pq.write_table(table(max(count, 1)).slice(0, count), tmp_path / "reference.parquet")
    found = monitor_log(log, mapping, tmp_path / "reference.parquet", as_of_us=NOW_US)
    assert found.verdict == "ok"
    assert any(f"not enough data: {count} of 200 rows" in finding for finding in found.findings)


def test_no_inputs_may_be_said(given):
    log, mapping = given(toml=PLAIN + "features = []\n")
    assert sample(log, mapping).features == []


def test_columns_that_do_not_map_are_all_told_with_the_nearest_name(given):
    log, mapping = given(toml='model = "m"\ntimestamp = "tt"\nscore = "p"\nfeatures = ["agee", "plan"]\n')
    with pytest.raises(LogColumnNotThere) as told:
        sample(log, mapping)
    assert "'tt' (timestamp), 'agee' (features)" in str(told.value)
    assert "'agee': Did you mean 'age'?" in str(told.value)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (PLAIN + 'lable = "y"', "Did you mean 'label'"),
        ('timestamp = "t"', "does not say `model`"),
        ('model = "m"\nscore = "p"', "does not say `timestamp`"),
        (PLAIN + 'task = "ranking"', "binary"),
        (PLAIN + "owner = 7", "Text is expected"),
        (PLAIN + "features = 7", "A list of column names"),
        (PLAIN + 'features = ["age", "age"]', "twice"),
        (PLAIN + 'prediction = "q"', "two words for one column"),
        (PLAIN + '[[alarm]]\nmetric = "f1"', "one of above, below and drop"),
        (PLAIN + '[[alarm]]\nmetric = "f1"\nbelow = 0.5\nwindows = "7d"', "Did you mean 'window'"),
        (PLAIN + 'alarm = "f1"', "[[alarm]]"),
        (PLAIN + 'tested = "f1"', "A number for each metric"),
        (PLAIN + 'timestamp_unit = "h"', "timestamp_unit"),
        (PLAIN + 'label = "p"', "as the label and as something else"),
        (PLAIN + 'label = "y"\nfeatures = ["age", "y"]', "no input of the model"),
    ],
)
def test_a_map_that_cannot_be_says_why(given, toml, words):
    log, mapping = given(toml=toml)
    with pytest.raises(BadMap) as told:
        sample(log, mapping)
    assert words in str(told.value)


def test_labels_known_before_their_prediction_are_told_of_the_window_they_belong_to(given):
    at = table()["t"].to_pylist()
    told = [one + timedelta(hours=-2 if one < START + timedelta(days=1) else 1) for one in at]
    log, mapping = given(
        table(told=pa.array(told, pa.timestamp("us", tz="UTC"))), PLAIN + 'label = "y"\nlabel_known_at = "told"\n'
    )
    day = Window(to_us(START + timedelta(days=3)), to_us(START + timedelta(days=4)))
    early = monitor_log(log, mapping, as_of_us=day.start_us + HOUR_US // 2, window=day)
    assert early.performance.labels["before"] == 0
    assert "none of its 5 predictions has a label yet" in early.headline
    whole = monitor_log(log, mapping, as_of_us=NOW_US)
    assert whole.performance.labels["before"] == 200


def test_an_alarm_of_the_map_is_held_to_the_rules_of_every_alarm(given):
    _, mapping = given(toml=PLAIN + '[[alarm]]\nmetric = "roc_auk"\nbelow = 0.7')
    with pytest.raises(BadDefinition, match="roc_auk"):
        read_map(mapping)


def test_alarms_of_the_map_and_of_the_call_are_judged(given):
    toml = PLAIN + 'label = "y"\n[tested]\nf1 = 1.0\n[[alarm]]\nmetric = "f1"\ndrop = "20%"\n'
    log, mapping = given(table(y=[int(n % 2) for n in range(1400)]), toml)
    found = monitor_log(log, mapping, as_of_us=NOW_US, alarms=[Alarm.above("roc_auc", 0.99)])
    states = {one.metric: one.state for one in found.alarms}
    assert (states["f1"], states["roc_auc"]) == ("fired", "quiet")


def test_a_map_or_a_log_that_is_not_there_or_not_one(given, tmp_path):
    log, mapping = given()
    with pytest.raises(MapUnreadable):
        read_map(tmp_path / "other.toml")
    (tmp_path / "bad.toml").write_text("model = ")
    with pytest.raises(MapUnreadable, match="no TOML"):
        read_map(tmp_path / "bad.toml")
    with pytest.raises(LogMissing) as told:
        sample(tmp_path / "log.parqet", mapping)
    assert "Did you mean 'log.parquet'?" in str(told.value)
    log.write_bytes(b"no log at all")
    with pytest.raises(LogMissing, match="not readable as Parquet"):
        sample(log, mapping)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LogMissing, match="holds no log"):
        sample(tmp_path / "empty", mapping)


@pytest.mark.parametrize(
    ("rows", "toml", "words"),
    [
        (table(p=["high"] * 1400), PLAIN, "the score"),
        (table(t=["yesterday"] * 1400), PLAIN, "yesterday"),
        (table(t=[7] * 1400), PLAIN, "timestamp_unit"),
        (table(y=[n % 3 for n in range(1400)]), PLAIN + 'label = "y"', "holds 2"),
        (table(y=["yes"] * 1400), PLAIN + 'label = "y"\npositive = "Yes"', "Did you mean 'yes'"),
        (table(age=[[1]] * 1400), PLAIN + 'features = ["age"]', "Numbers or text"),
        (table(t=pa.array([None] * 1399 + [START], pa.timestamp("us", "UTC"))), PLAIN, "empty in 1,399 of 1,400"),
    ],
)
def test_a_column_that_is_not_what_the_map_says_is_told(given, rows, toml, words):
    with pytest.raises(SeatrialError) as told:
        sample(*given(rows, toml))
    assert words in str(told.value)


@pytest.mark.parametrize("value", [1704067200000, 1704067200000.0, 1e300, float("inf")])
def test_times_in_another_unit_than_the_map_says_are_told(given, value):
    with pytest.raises(SeatrialError, match="is no time"):
        sample(*given(table(t=[value] * 1400), PLAIN + 'timestamp_unit = "s"'))


def test_a_number_that_is_none_is_no_time(given):
    with pytest.raises(SeatrialError, match="empty in 1 of 1,400"):
        sample(*given(table(t=[float("nan")] + [1704067200.0] * 1399), PLAIN + 'timestamp_unit = "s"'))


def test_a_column_that_is_there_twice_is_told_when_it_is_looked_at(given):
    rows = table().append_column("age", table()["p"])
    with pytest.raises(SeatrialError, match="has the column 'age' twice"):
        sample(*given(rows))
    assert sample(*given(rows, PLAIN + 'without = ["age", "y"]')).features == ["plan"]


def test_a_log_tells_its_history_although_nothing_is_kept(given):
    found = monitor_log(*given(), as_of_us=NOW_US, window=Window(NOW_US - 5 * DAY_US, NOW_US - 4 * DAY_US))
    assert [one.metrics["rows"] for one in found.history] == [200.0] * 5
    assert found.history[-1].at == "2024-01-06T00:00:00Z"


def test_columns_that_are_no_input_are_left_out_and_told(given):
    log, mapping = given(table(seen=pa.array([START] * 1400, pa.timestamp("ns", "UTC")), tags=[[1]] * 1400))
    found = monitor_log(log, mapping, as_of_us=NOW_US)
    assert sum("it was left out" in one for one in found.findings) == 2


def test_times_are_read_in_the_zone_that_the_map_says(given):
    naive = pa.array([datetime(2024, 1, 1, 12)] * 10, pa.timestamp("ns"))
    vienna = sample(*given(table(10, t=naive), PLAIN + 'timezone = "Europe/Vienna"'))
    assert vienna.at_us()[0] == to_us(datetime(2024, 1, 1, 11, tzinfo=UTC))
    log, mapping = given(table(10, t=naive))
    with pytest.warns(DataWarning, match="t carries no time zone"):
        assert sample(log, mapping).at_us()[0] == to_us(datetime(2024, 1, 1, 12, tzinfo=UTC))


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1e3), ("us", 1e6)])
def test_times_may_be_numbers_and_texts(given, unit, factor):
    seconds = [START.timestamp() * factor + n * factor for n in range(10)]
    toml = PLAIN + f'timestamp_unit = "{unit}"'
    for values in (seconds, [int(one) for one in seconds]):
        assert sample(*given(table(10, t=values), toml)).at_us()[1] == to_us(START) + 1_000_000
    texts = [f"2024-01-01T00:00:0{n}Z" for n in range(10)]
    assert sample(*given(table(10, t=texts))).at_us()[9] == to_us(START) + 9_000_000


def test_labels_count_from_when_they_are_known_and_never_before_their_prediction(given):
    days = [START + timedelta(days=n) for n in range(4)]
    known = [days[0] + timedelta(hours=1), days[1] - timedelta(hours=1), days[2] + timedelta(days=30), None]
    rows = table(4, t=days, known=known, y=[1, 1, 0, 0])
    found = sample(*given(rows, PLAIN + 'label = "y"\nlabel_known_at = "known"'))
    assert found.rows["label"].to_pylist() == [1.0, None, None, None]
    assert (found.labels.matched, found.labels.before) == (1, 1)


def test_predictions_after_now_do_not_exist_yet(given):
    assert len(sample(*given(), as_of_us=to_us(START + timedelta(days=1))).rows) == 201


def test_labels_may_lie_in_a_file_of_their_own(given, tmp_path):
    rows = table(300, y=None).append_column("req", pa.array([f"r{n}" for n in range(300)]))
    log, mapping = given(rows, PLAIN + 'request_id = "req"\nlabel = "gone"\npositive = "yes"\n')
    told = pa.table({"req": ["r1", "r2", "r2", "zz"], "gone": ["yes", "no", "yes", "no"], "other": [1, 2, 3, 4]})
    pq.write_table(told, tmp_path / "labels.parquet")
    found = sample(log, mapping, labels=tmp_path / "labels.parquet")
    assert found.rows["label"].to_pylist()[:4] == [None, 1.0, 1.0, None]
    assert (found.labels.matched, found.labels.unmatched, found.labels.contradicting) == (2, 1, 1)
    assert monitor_log(log, mapping, as_of_us=NOW_US, labels=tmp_path / "labels.parquet").performance.labelled == 2


def test_labels_find_their_prediction_by_the_key(given, tmp_path):
    rows = table(3, t=[START, START + timedelta(days=1), START + timedelta(days=2)], y=None)
    rows = rows.append_column("who", pa.array(["ann", "bob", "ann"]))
    log, mapping = given(rows, PLAIN + 'key = ["who"]\nlabel = "gone"\nlabel_known_at = "since"\n')
    told = pa.table({"who": ["ann", "bob"], "gone": [1, 0], "since": [START + timedelta(days=1)] * 2})
    pq.write_table(told, tmp_path / "labels.parquet")
    found = sample(log, mapping, labels=tmp_path / "labels.parquet")
    assert found.rows["label"].to_pylist() == [1.0, 0.0, None]
    assert "who" not in found.features


def test_a_csv_and_a_folder_say_the_same_as_the_parquet_file(given, tmp_path):
    log, mapping = given(table(300))
    expected = sample(log, mapping).rows
    with (tmp_path / "log.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table(300).column_names)
        writer.writerows(
            ["" if v is None else v.isoformat() if isinstance(v, datetime) else v for v in row.values()]
            for row in table(300).to_pylist()
        )
    assert sample(tmp_path / "log.csv", mapping).rows.equals(expected)
    (tmp_path / "parts").mkdir()
    for part in range(3):
        pq.write_table(table(300).slice(part * 100, 100), tmp_path / "parts" / f"{part}.parquet")
    assert sample(tmp_path / "parts", mapping).rows.equals(expected)


@pytest.mark.parametrize("count", [0, 1])
def test_next_to_nothing_is_a_stated_result(given, count):
    found = monitor_log(*given(table().slice(0, count)), as_of_us=NOW_US)
    assert (found.verdict, found.rows) == ("unknown", count)


def test_what_to_do_about_an_empty_window_names_no_command_of_a_project(given):
    found = monitor_log(*given(), as_of_us=NOW_US, window=Window(NOW_US - 1, NOW_US))
    assert found.next == "Check that the model is asked, and that its log is written."


def test_a_log_that_ended_long_ago_is_not_passed_in_silence(given):
    labels = [int(n % 10 >= 5 + n // 10 % 2) for n in range(1400)]  # of 0.46 predicted, 0.45 come true
    log, mapping = given(table(y=labels))
    assert monitor_log(log, mapping, as_of_us=NOW_US).verdict == "ok"
    found = monitor_log(log, mapping, as_of_us=to_us(START + timedelta(days=100)))
    assert any("the log ends 93 days before now" in one for one in found.findings)
    assert found.verdict == "unknown"
    assert "right now: the log ends 93 days before now" in found.headline
    assert found.next == "Check that the model is asked, and that its log is written."
    week = Window(to_us(START), to_us(START + timedelta(days=7)))
    assert monitor_log(log, mapping, as_of_us=to_us(START + timedelta(days=100)), window=week).verdict == "ok"


def test_an_alarm_on_an_input_that_is_not_there_is_not_passed_in_silence(given):
    labels = [int(n % 10 >= 5 + n // 10 % 2) for n in range(1400)]
    alarm = '[[alarm]]\nmetric = "missing:aeg"\nabove = 0.1\n'
    found = monitor_log(*given(table(y=labels), PLAIN + 'label = "y"\n' + alarm), as_of_us=NOW_US)
    assert found.verdict == "unknown"
    assert "can never fire. The predictions have no input 'aeg'. Did you mean 'age'?" in found.headline


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64()])
def test_whole_numbers_beyond_what_a_float_holds_are_rounded(given, kind):
    found = sample(*given(table(age=pa.array([2**62 + n for n in range(1400)], kind))))
    assert found.rows["feature_age"].to_pylist()[:2] == [2.0**62, 2.0**62]


@pytest.mark.parametrize("number", [2**62, float("inf"), -1e300])
def test_a_number_that_is_no_time_is_refused(given, number):
    with pytest.raises(SeatrialError) as error:
        sample(*given(table(t=pa.array([number] * 1400)), PLAIN + 'timestamp_unit = "s"\n'))
    assert (error.value.code, "no time in 's' since 1970" in error.value.found) == ("monitor.column_wrong", True)


def test_a_log_from_before_1970_is_watched_as_any(given):
    old = datetime(1960, 1, 1, tzinfo=UTC)
    times = pa.array([old + timedelta(minutes=7 * n) for n in range(1400)], pa.timestamp("us", tz="UTC"))
    log, mapping = given(table(t=times))
    found = monitor_log(log, mapping, log, as_of_us=to_us(old + timedelta(days=8)))
    assert found.rows == 1400
    assert all(one.state != "fired" for one in found.alarms if one.metric.startswith("policy:"))


def test_a_window_that_ends_before_1900_is_refused(given):
    first = datetime(1, 1, 1, tzinfo=UTC)
    with pytest.raises(SeatrialError, match="ends before 1900"):
        monitor_log(*given(), as_of_us=NOW_US, window=Window(to_us(first), to_us(first + timedelta(days=1))))
    log, mapping = given(table(t=pa.array([first] * 1400, pa.timestamp("us", tz="UTC"))))
    with pytest.raises(SeatrialError, match="ends before 1900"):
        monitor_log(log, mapping, log, as_of_us=NOW_US)


def test_an_error_that_nobody_watches_is_not_called_quiet(given, tmp_path, capsys):
    log, mapping = given(table(y=None), PLAIN)
    (tmp_path / "ref.parquet").write_bytes(log.read_bytes())
    found = _error(monitor_log(log, mapping, tmp_path / "ref.parquet", as_of_us=NOW_US))
    assert found.state == "not_enough_data"
    assert found.note.startswith("not watched, because the test part has no brier to compare with; name it under")
    code = run(["monitor", "--log", str(log), "--map", str(mapping), "--at", "2024-01-11T00:00:00Z"])
    told = capsys.readouterr().out
    assert (code, "not watched  error has grown" in told, "quiet" in told) == (0, True, False)


def test_the_labelled_reference_stands_for_the_test_part_that_the_map_does_not_name(given, tmp_path):
    labelled = PLAIN + 'label = "y"\n'
    log, mapping = given(table(y=[int(n % 2 > 0) for n in range(1400)]), labelled)
    pq.write_table(table(), tmp_path / "ref.parquet")
    found = monitor_log(log, mapping, tmp_path / "ref.parquet", as_of_us=NOW_US)
    assert (_error(found).state, found.verdict) == ("fired", "act")
    words = "no [tested] brier: labelled rows of ref.parquet stand for the test part, with brier 0.1044"
    assert words in found.watched.notes[-1]
    log, mapping = given(table(), labelled)
    assert _error(monitor_log(log, mapping, tmp_path / "ref.parquet", as_of_us=NOW_US)).state == "quiet"
    log, mapping = given(table(), labelled + "[tested]\nbrier = 0.04\n")
    assert _error(monitor_log(log, mapping, tmp_path / "ref.parquet", as_of_us=NOW_US)).state == "fired"


def test_an_error_whose_labels_never_came_is_not_called_quiet(given, tmp_path):
    log, mapping = given(table(y=None), PLAIN + "[tested]\nbrier = 0.1\n")
    found = _error(monitor_log(log, mapping, as_of_us=NOW_US))
    assert (found.state, found.evidence) == ("not_enough_data", "")
    assert found.note == "not enough data: no window of 1d so far had 30 labels that became known"


def test_what_a_rehearsal_proposes_can_be_pasted_into_the_map(given, tmp_path):
    toml = PLAIN + 'label = "y"\nevery = "1h"\nfalse_alarms_per_month = 0.1\n'
    log, mapping = given(table(14000, age=[20 + n % 50 + (40 if 3000 < n < 5000 else 0) for n in range(14000)]), toml)
    pq.write_table(table(14000), tmp_path / "ref.parquet")
    found = rehearse_log(log, mapping, tmp_path / "ref.parquet", as_of_us=NOW_US, over_us=7 * DAY_US)
    assert found.thresholds
    mapping.write_text(PLAIN + 'label = "y"\n' + found.snippet)
    declared = read_map(mapping).monitor
    assert (declared.thresholds, declared.every, declared.false_alarms_per_month) == (found.thresholds, "1h", 0.1)


def _error(report):
    return next(one for one in report.alarms if one.name == "error has grown")


def test_without_anything_to_watch_a_rehearsal_says_so(given):
    found = rehearse_log(*given(), as_of_us=NOW_US, over_us=7 * 86_400_000_000)
    assert (found.windows, found.within) == (0, False)
    assert any("reference" in note or "profile" in note for note in found.notes)


def test_a_window_that_is_asked_for_is_looked_at(given):
    window = Window(to_us(START), to_us(START + timedelta(days=1)))
    assert monitor_log(*given(), as_of_us=NOW_US, window=window).rows == 200


def test_a_regression_has_no_probabilities(given):
    rows = table(p=[float(n % 100) for n in range(1400)], y=[float(n % 100) + n % 2 for n in range(1400)])
    found = monitor_log(*given(rows, PLAIN + 'task = "regression"\nlabel = "y"'), as_of_us=NOW_US)
    assert found.performance.metrics["mae"] == pytest.approx(0.5)


def test_a_log_folder_of_ours_is_read_by_its_model(tmp_path):
    log = PredictionLog(tmp_path / "log")
    for n in range(5):
        log.write(model="a", features={"x": n, "kind": "k"}, prediction=0.25, at=START, request_id=f"r{n}")
    log.close()
    (tmp_path / "map.toml").write_text('model = "a"\nwithout = ["kind"]')
    found = sample(tmp_path / "log", tmp_path / "map.toml")
    assert found.features == ["x"]
    assert found.scores().tolist() == [0.25] * 5
    (tmp_path / "map.toml").write_text('model = "b"')
    with pytest.raises(LogMissing, match="no prediction of the model 'b'"):
        sample(tmp_path / "log", tmp_path / "map.toml")


@pytest.mark.parametrize(
    ("rows", "code", "said"),
    [
        (table(), 3, "calibration"),
        (table(y=[int(n % 10 >= 5 + n // 10 % 2) for n in range(1400)]), 0, ""),
        (table(p=[None] * 1400, y=[None] * 1400), 3, "data broken"),
    ],
    ids=["an alarm", "nothing", "a hard rule"],
)
def test_a_pipeline_ends_with_3_when_an_alarm_fired_or_a_hard_rule_failed(given, capsys, rows, code, said):
    rows = rows.set_column(1, "p", rows["p"].cast(pa.float64()))
    rows = rows if code == 0 or said == "data broken" else rows.set_column(2, "y", pa.array([1] * 1400))
    log, mapping = given(rows)
    words = ["monitor", "--log", str(log), "--map", str(mapping), "--at", "2024-01-11T00:00:00Z", "--fail-on", "high"]
    assert run(words) == code
    assert said in capsys.readouterr().err
