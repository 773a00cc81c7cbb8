"""The leak guard: what changes when it is computed again from what was known then is refused, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lightgbm import LGBMClassifier
from sklearn.metrics import roc_auc_score

from seatrial import Entity, FrameSource, Model, Project, QuerySource, agg, feature_view
from seatrial.cli import run
from seatrial.core.windows import parse_window
from seatrial.data.reading import read
from seatrial.features import training_set
from seatrial.features.leaks import Guarded, LeakFound, check, combines_rows, note, refusal
from seatrial.features.plan import make_plan
from seatrial.testing import FakeClock

TIME = pa.timestamp("us", tz="UTC")
START = datetime(2024, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROWS = 240


def trips():
    """A trip an hour, of one of three cars; how late it ended is known two hours after it began."""
    at = [START + n * HOUR for n in range(ROWS)]
    return pa.table(
        {
            "trip": pa.array(range(ROWS)),
            "car": pa.array([f"C{n % 3}" for n in range(ROWS)]),
            "started_at": pa.array(at, TIME),
            "ended_at": pa.array([one + 2 * HOUR for one in at], TIME),
            "delay": pa.array([float((n * 37) % 23) for n in range(ROWS)]),
            "late": pa.array([(n * 37) % 23 > 11 for n in range(ROWS)]),
        }
    )


def raw(**changes):
    return FrameSource(trips(), **({"name": "trips"} | changes))


def starts():
    """What is known of a trip when it starts; the rows of a file that names no time."""
    return FrameSource(trips().select(["trip", "car", "started_at"]), name="starts", event_timestamp="started_at")


def ends(**changes):
    table = trips().select(["trip", "car", "ended_at", "delay", "late"])
    return FrameSource(table, **({"name": "ends", "event_timestamp": "ended_at", "event_key": ["trip"]} | changes))


def labels(columns, **changes):
    """Trips with what ended them, and SQL columns over `s`, the starts, and the table `ends`."""
    return QuerySource(
        f"""SELECT s.trip, s.car, s.started_at, e.ended_at, e.late, {columns}
            FROM starts s LEFT JOIN ends e USING (trip)""",
        **(
            {
                "name": "trip_labels",
                "tables": {"starts": starts(), "ends": ends()},
                "event_timestamp": "started_at",
                "label_known_at": "ended_at",
            }
            | changes
        ),
    )


DAY_MEAN = "avg(e.delay) OVER (PARTITION BY date_trunc('day', s.started_at)) AS day_delay"
LOOKS_BACK = "(SELECT avg(b.delay) FROM ends b WHERE b.ended_at <= s.started_at) AS delay_so_far"


def view_over(source, **features):
    body = features or {"delay_6h": agg.mean("delay", window="6h")}
    return feature_view(entity=Entity("car"), source=source)(type("cars", (), body))


def report_on(source, features, tmp_path, *, key=("trip",)):
    model = Model("late", task="binary", target="late", labels=source, key=key, features=features, estimator="x.Y")
    views = {view.name: view for view in model.views}
    plan = make_plan(model.features, views)

    def rows(one):
        return read(one, folder=tmp_path).table

    table = rows(source)
    request = list(dict.fromkeys([*model.request_features, *plan.request_columns]))
    times = {"at": source.event_timestamp, "label_known_at": source.label_known_at}
    kept = training_set.select(table, [*key, *request, model.target], times)
    events = {name: rows(view.source) for name, view in views.items()}
    joined = training_set.build(kept, plan, views, events)
    guarded = Guarded("late", source, key, "late", request, plan, views, rows, tmp_path)
    return check(guarded, joined)


def status(report, column):
    return next(one for one in report.columns if one.column == column)


def test_a_mean_over_the_whole_day_in_the_label_query_leaks(tmp_path):
    report = report_on(labels(DAY_MEAN), ["request:day_delay"], tmp_path)
    found = status(report, "day_delay")
    assert found.status == "leaks"
    assert found.changed > 0.8 * found.rows
    (leak,) = report.leaks
    assert leak.source == "trip_labels"
    assert leak.reads == ["starts", "ends"]  # without either, the rest of the day is gone
    assert leak.within == "1d"
    assert leak.trained != leak.recomputed
    assert set(leak.key) == {"trip"}


def test_the_refusal_names_model_column_source_row_both_values_and_what_is_next(tmp_path):
    report = report_on(labels(DAY_MEAN), ["request:day_delay"], tmp_path)
    error = refusal(report)
    (leak,) = report.leaks
    assert isinstance(error, LeakFound)
    assert error.exit_code == 3
    assert error.facts["columns"] == ["day_delay"]
    said = str(error)
    for words in ("'late'", "'day_delay'", "'trip_labels'", f"trip {leak.key['trip']}", leak.at, "became known"):
        assert words in said
    assert f"{leak.trained:.6g} in the training set, {leak.recomputed:.6g} from what was known then" in said
    assert "Nothing was trained." in said
    assert "feature of a view" in said


def test_a_query_that_looks_back_only_is_verified(tmp_path):
    report = report_on(labels(LOOKS_BACK), ["request:delay_so_far"], tmp_path)
    assert status(report, "delay_so_far").status == "verified"
    assert not report.leaks
    assert note(report) == ""


def test_the_rows_own_outcome_leaks(tmp_path):
    report = report_on(labels("e.delay AS own_delay"), ["request:own_delay"], tmp_path)
    assert status(report, "own_delay").status == "leaks"
    assert report.leaks[0].recomputed is None


def test_a_label_of_a_source_below_is_hidden_until_it_is_known(tmp_path):
    """The source below says when the row was asked about, and when its label was known: the label counts only then."""
    below = labels("e.delay AS delay", name="all_trips")
    above = QuerySource(
        "SELECT *, sum(late::INT) OVER (ORDER BY started_at) AS lates FROM all_trips",
        name="asked",
        tables={"all_trips": below},
        event_timestamp="started_at",
        label_known_at="ended_at",
    )
    assert status(report_on(above, ["request:lates"], tmp_path), "lates").status == "leaks"


def test_a_column_of_a_file_is_unverifiable_and_never_verified(tmp_path):
    source = raw(event_timestamp="started_at", label_known_at="ended_at")
    report = report_on(source, ["request:delay"], tmp_path)
    found = status(report, "delay")
    assert (found.status, found.rows) == ("unverifiable", 0)
    assert "ready-made" in found.why
    assert "1 of 1 columns cannot be checked for leaks" in note(report)


def test_a_query_over_sources_without_times_is_unverifiable(tmp_path):
    source = QuerySource(
        "SELECT *, avg(delay) OVER (PARTITION BY car) AS car_delay FROM trips",
        name="over_raw",
        tables={"trips": raw()},
        event_timestamp="started_at",
        label_known_at="ended_at",
    )
    report = report_on(source, ["request:car_delay"], tmp_path)
    assert status(report, "car_delay").status == "unverifiable"
    assert report.left_whole == ["trips"]


def test_a_query_that_takes_only_rows_with_an_outcome_still_shows_its_leak(tmp_path):
    source = labels(f"{DAY_MEAN}, s.trip % 7 AS weekday")
    inner = QuerySource(
        source.sql.replace("LEFT JOIN", "JOIN"),
        name="ended_trips",
        tables=source.tables,
        event_timestamp="started_at",
        label_known_at="ended_at",
    )
    report = report_on(inner, ["request:day_delay", "request:weekday"], tmp_path)
    assert status(report, "day_delay").status == "leaks"
    assert status(report, "weekday").status == "unverifiable"
    assert "LEFT JOIN" in status(report, "weekday").why


def test_without_a_key_no_row_is_found_again(tmp_path):
    report = report_on(labels(DAY_MEAN), ["request:day_delay"], tmp_path, key=())
    assert status(report, "day_delay").status == "unverifiable"
    assert "key=" in status(report, "day_delay").why


@pytest.mark.parametrize(
    "leak",
    [
        "(o.delay) AS known_later FROM starts s LEFT JOIN outcomes o USING (trip)",
        "(o.delay) AS known_later FROM starts s LEFT JOIN again o ON o.trip = s.trip + 1",
    ],
)
def test_what_is_joined_from_a_table_without_times_is_unverifiable_beside_one_with_them(tmp_path, leak):
    untimed = FrameSource(trips(), name="outcomes")
    source = QuerySource(
        f"SELECT s.*, e.ended_at, e.late, {leak} ASOF LEFT JOIN ends e ON s.car = e.car AND s.started_at >= e.ended_at",
        name="trip_labels",
        tables={"starts": starts(), "ends": ends(), "outcomes": untimed, "again": untimed},
        event_timestamp="started_at",
    )
    found = status(report_on(source, ["request:known_later"], tmp_path), "known_later")
    assert found.status == "unverifiable"
    assert "outcomes" in found.why


def test_a_query_that_gives_other_values_each_time_is_unverifiable_and_not_refused(tmp_path):
    report = report_on(labels("random() AS dice, e.delay AS d"), ["request:dice"], tmp_path)
    assert status(report, "dice").status == "unverifiable"
    assert "each time" in status(report, "dice").why


def test_a_feature_of_a_view_over_events_is_verified(tmp_path):
    view = view_over(ends(), delay_6h=agg.mean("delay", window="6h"), last=agg.last("delay"))
    report = report_on(labels("1 AS one"), [view], tmp_path)
    assert status(report, "cars__delay_6h").status == "verified"
    assert status(report, "cars__last").status == "verified"
    assert status(report, "cars__last").source == "ends"


def test_a_day_mean_in_the_query_of_a_views_source_leaks(tmp_path):
    source = QuerySource(
        "SELECT *, avg(delay) OVER (PARTITION BY date_trunc('day', ended_at)) AS day_delay FROM ends",
        name="ends_with_day",
        tables={"ends": ends()},
        event_timestamp="ended_at",
        event_key=["trip"],
    )
    report = report_on(labels("1 AS one"), [view_over(source, day=agg.last("day_delay"))], tmp_path)
    found = status(report, "cars__day")
    assert found.status == "leaks"
    assert report.leaks[0].source == "ends_with_day"
    assert report.leaks[0].reads == ["ends"]


def test_a_view_whose_query_combines_rows_without_a_time_is_unverifiable(tmp_path):
    """The same day mean over a table that does not say when its rows were known cannot be seen, and is not passed."""
    source = QuerySource(
        "SELECT *, avg(delay) OVER (PARTITION BY date_trunc('day', ended_at)) AS day_delay FROM trips",
        name="trips_with_day",
        tables={"trips": raw()},
        event_timestamp="ended_at",
        event_key=["trip"],
    )
    report = report_on(labels("1 AS one"), [view_over(source, day=agg.last("day_delay"))], tmp_path)
    assert status(report, "cars__day").status == "unverifiable"
    assert "trips" in status(report, "cars__day").why


def test_rows_known_late_do_not_make_a_feature_leak(tmp_path):
    table = trips().append_column("told_at", pa.array([START + (n + 30) * HOUR for n in range(ROWS)], TIME))
    source = FrameSource(table, name="told", event_timestamp="ended_at", known_at="told_at", event_key=["trip"])
    view = view_over(source, delay_2d=agg.mean("delay", window="2d"), count=agg.count(window="2d"))
    report = report_on(labels("1 AS one"), [view], tmp_path)
    assert {one.status for one in report.columns if one.column.startswith("cars__")} == {"verified"}


def test_the_same_rows_are_tried_every_time(tmp_path):
    one, other = (report_on(labels(DAY_MEAN), ["request:day_delay"], tmp_path) for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    ("sql", "combines"),
    [
        ("SELECT a, b + 1 AS c FROM t WHERE a > 0", False),
        (
            "WITH x AS (SELECT * FROM t JOIN z USING (k)) SELECT *, list_filter([a, b], lambda q: q > 1)[1] FROM x",
            False,
        ),
        ("SELECT * FROM t LEFT JOIN Again ON t.k = again.k + 1", True),
        ("SELECT * FROM t UNION ALL SELECT * FROM z", False),
        ("SELECT a, sum(b) FROM t GROUP BY a", True),
        ("SELECT *, lag(a) OVER (ORDER BY b) FROM t", True),
        ("SELECT *, (SELECT max(a) FROM z) FROM t", True),
        ("SELECT x.a FROM t x JOIN t y ON x.k = y.k", True),
        ("WITH x AS (SELECT * FROM t) SELECT * FROM x JOIN x y USING (k)", True),
        ("SELECT DISTINCT a FROM t", True),
        ("SELECT a FROM t UNION SELECT a FROM z", True),
        ("SELECT * FROM t ORDER BY a LIMIT 3", True),
        ("SELECT * FROM t QUALIFY row_number() OVER (PARTITION BY a) = 1", True),
        ("no query at all", True),
    ],
)
def test_queries_that_combine_rows_are_told_from_those_that_do_not(sql, combines):
    assert combines_rows(sql, (("again", "t"),)) is combines


# On the flights of 2013

APRIL = parse_window("2013-04-01T04:00:00Z/2013-05-01T04:00:00Z")
SAME_DAY = '''
with_day = QuerySource(
    """SELECT s.*, d.route_day_delay
    FROM scheduled s LEFT JOIN (
        SELECT origin, dest, (time_hour AT TIME ZONE 'America/New_York')::DATE AS day,
               avg(arr_delay) AS route_day_delay
        FROM arrivals GROUP BY ALL
    ) d ON s.origin = d.origin AND s.dest = d.dest AND (s.time_hour AT TIME ZONE 'America/New_York')::DATE = d.day""",
    name="with_day",
    tables={"scheduled": scheduled, "arrivals": arrivals},
    event_timestamp="predict_at",
    label_known_at="arrived_at",
)

# --- features ---'''


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    """The flights project, and one whose labels carry the mean delay of the route on the same day."""
    correct, leaky = (tmp_path_factory.mktemp(name) for name in ("correct", "leaky"))
    for folder in (correct, leaky):
        Project.init(folder, "flights").close()
    file = leaky / "project.py"
    text = file.read_text().replace("# --- features ---", SAME_DAY, 1).replace("labels=scheduled", "labels=with_day")
    file.write_text(text.replace('"request:carrier",', '"request:carrier",\n        "request:route_day_delay",'))
    clock = FakeClock(datetime(2013, 4, 1, 4, tzinfo=UTC))
    with Project(correct, clock=clock) as right, Project(leaky, clock=clock) as wrong:
        yield right, wrong


@pytest.mark.slow
def test_the_flights_model_has_no_leak_and_says_what_nobody_can_check(flights):
    correct, _ = flights
    report = correct.feature_leaks("late")
    assert not report.leaks
    views = {one.column: one.status for one in report.columns if "__" in one.column}
    assert len(views) == 23
    assert set(views.values()) == {"verified"}
    request = {one.column: one.status for one in report.columns if one.source == "scheduled"}
    assert set(request.values()) == {"unverifiable"}  # the raw flights do not say when their rows were known
    assert report.left_whole == ["airports", "flights"]


@pytest.mark.slow
def test_a_same_day_mean_that_promises_88_offline_is_refused_by_train(flights):
    _, leaky = flights
    assert 0.86 <= offline_auc(leaky) <= 0.90
    with pytest.raises(LeakFound) as refused:
        leaky.train("late")
    assert refused.value.facts["columns"] == ["route_day_delay"]
    assert refused.value.facts["leaks"][0]["reads"] == ["arrivals"]
    assert "rows of 'arrivals' that became known up to 1d later" in str(refused.value)
    assert leaky.runs() == []
    assert leaky.metadata.records("training_set") == []


def offline_auc(project):
    """AUC in April of what is trained on the labels known before it, both with the features as they were joined."""
    model = project.definitions.model("late")
    known, plan, _, _ = project._inputs.rows(model, known_by_us=project.now_us)
    april, *_ = project._inputs.rows(model, window=APRIL)
    april = april.filter(april["late"].is_valid())
    names = [*model.request_features, *plan.feature_columns]
    inputs = [pd.DataFrame({name: rows[name].to_pandas() for name in names}) for rows in (known, april)]
    for name in ("carrier", "origin", "dest"):
        codes = {kind: code for code, kind in enumerate(sorted(inputs[0][name].unique()))}
        for frame in inputs:
            frame[name] = frame[name].map(codes)
    estimator = LGBMClassifier(
        n_estimators=200, num_leaves=31, learning_rate=0.05, n_jobs=1, verbose=-1, random_state=42
    )
    estimator.fit(inputs[0].to_numpy(float), known["late"].to_numpy())
    return roc_auc_score(april["late"].to_numpy(), estimator.predict_proba(inputs[1].to_numpy(float))[:, 1])


# On the command line


def project_folder(folder, columns):
    """A project of trips in files, whose label query has these columns."""
    table = trips()
    pq.write_table(table.select(["trip", "car", "started_at"]), folder / "starts.parquet")
    pq.write_table(table.select(["trip", "car", "ended_at", "delay", "late"]), folder / "ends.parquet")
    (folder / "seatrial.toml").write_text('[stores]\nmlflow = ""\n')
    (folder / "project.py").write_text(
        f'''
from seatrial import Model, ParquetSource, QuerySource

starts = ParquetSource("starts.parquet", event_timestamp="started_at")
ends = ParquetSource("ends.parquet", event_timestamp="ended_at")
trips = QuerySource(
    """SELECT s.trip, s.started_at, e.ended_at, e.late, s.trip % 23 AS place, {columns}
    FROM starts s LEFT JOIN ends e USING (trip)""",
    name="trips",
    tables={{"starts": starts, "ends": ends}},
    event_timestamp="started_at",
    label_known_at="ended_at",
)
Model("late", task="binary", target="late", labels=trips, key=["trip"], cv_folds=0,
      features=["request:place", "request:{columns.split()[-1]}"],
      estimator="lightgbm.LGBMClassifier", params={{"n_estimators": 5}})
'''
    )
    return folder


def test_train_ends_with_3_and_keeps_nothing_when_a_column_leaks(tmp_path, capsys):
    folder = project_folder(tmp_path, DAY_MEAN)
    assert run(["train", "--project", str(folder), "--json"]) == 3
    told = json.loads(capsys.readouterr().err)
    assert told["code"] == "features.leak"
    assert run(["runs", "list", "--project", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_features_leaks_prints_every_column_and_ends_with_3_when_one_leaks(tmp_path, capsys):
    folder = project_folder(tmp_path, DAY_MEAN)
    assert run(["features", "leaks", "--project", str(folder)]) == 3
    told, error = capsys.readouterr()
    lines = {line.split()[0]: line for line in told.splitlines() if line}
    assert lines["place"].split()[1:3] == ["verified", "trips"]
    assert lines["day_delay"].split()[1:3] == ["leaks", "trips"]
    assert "LeakFound [features.leak]" in error


def test_what_the_guard_found_is_kept_with_the_run_and_shown(tmp_path, capsys):
    folder = project_folder(tmp_path, LOOKS_BACK)
    assert run(["features", "leaks", "--project", str(folder)]) == 0
    assert run(["train", "--project", str(folder), "--json"]) == 0
    with Project(folder) as project:
        (listed,) = project.runs()
        guard = project.run_show(listed["run"])["leak_guard"]
    assert {one["column"]: one["status"] for one in guard["columns"]} == {
        "place": "verified",
        "delay_so_far": "verified",
    }
    capsys.readouterr()
    assert run(["runs", "show", listed["run"], "--project", str(folder)]) == 0
    assert "leak guard    2 verified, on 12 rows at 12 instants" in capsys.readouterr().out


def test_a_feature_of_a_label_that_was_not_known_yet_leaks(tmp_path):
    """The view's own source says when its labels were known; the row itself was known before."""
    source = labels("1 AS two", name="past_trips")
    view = view_over(replace(source, event_key=["trip"]), late_before=agg.count("late", window="6h"))
    report = report_on(labels("1 AS one"), [view], tmp_path)
    assert status(report, "cars__late_before").status == "leaks"


def test_instants_before_the_first_event_are_tried_as_well(tmp_path):
    """At most instants nothing could be known yet: the features were null, and they still are."""
    few = ends().frame.slice(ROWS - 10)
    source = FrameSource(few, name="few_ends", event_timestamp="ended_at", event_key=["trip"])
    query = QuerySource("SELECT * FROM few_ends", name="passed_on", tables={"few_ends": source})
    above = replace(query, event_timestamp="ended_at", event_key=["trip"])
    view = view_over(above, last=agg.last("delay"), count=agg.count(window="2d"))
    report = report_on(labels("1 AS one"), [view], tmp_path)
    assert {one.status for one in report.columns if one.column.startswith("cars__")} == {"verified"}


def test_a_training_set_without_times_is_unverifiable_in_every_column(tmp_path):
    source = QuerySource("SELECT trip, delay, late FROM trips", name="untimed", tables={"trips": raw()})
    report = report_on(source, ["request:delay"], tmp_path)
    assert (report.rows, report.instants) == (0, [])
    assert status(report, "delay").status == "unverifiable"
    assert "no time" in status(report, "delay").why
