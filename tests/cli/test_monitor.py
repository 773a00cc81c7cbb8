"""`seatrial monitor` with each of its options, on a project with two planted weeks and on logs from elsewhere.

Parcels: one every half hour. On days 40 to 43 they are heavier, which the model makes nothing of; on days 50 to 56 they
are larger, which it looks at.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from datetime import UTC, datetime, timedelta
from html import escape

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.monitoring import speed

from seatrial import Project
from seatrial.cli import run
from seatrial.core.clock import iso, parse_time
from seatrial.core.windows import parse_window
from seatrial.serving.doors.http import Front
from seatrial.testing import FakeClock
from tests.data.postgres_server import PostgresServer

START = datetime(2024, 1, 1, tzinfo=UTC)
INSTANT = pa.timestamp("us", tz="UTC")
PROJECT = """
from seatrial import BlueGreen, Deployment, Model, Monitor, ParquetSource

Model("late", task="binary", target="late", key=["parcel"],
      labels=ParquetSource("parcels.parquet", event_timestamp="at", label_known_at="known_at"),
      features=["request:size", "request:weight"], estimator="sklearn.linear_model.LogisticRegression", cv_folds=0,
      owner="logistics", on_call="logistics", runbook="docs/runbook.md")
Deployment("late", strategy=BlueGreen())
Monitor("late", every="1d")
"""
SETTINGS = '[stores]\nmlflow = ""\n[policy]\napproval = "none"\n'


def day(number: float) -> str:
    return iso(START + timedelta(days=number))


def parcels(days=60) -> pa.Table:
    random = np.random.default_rng(7)
    count = days * 48
    at = [START + timedelta(minutes=30 * number) for number in range(count)]
    size, weight = random.normal(size=count), random.normal(size=count)
    size[50 * 48 : 57 * 48] += 1.0
    weight[40 * 48 : 44 * 48] += 1.0
    late = random.random(count) < 1 / (1 + np.exp(1.5 - 1.5 * size))
    return pa.table(
        {
            "parcel": [f"P{number:05}" for number in range(count)],
            "at": pa.array(at, INSTANT),
            "known_at": pa.array([one + timedelta(hours=6) for one in at], INSTANT),
            "size": size,
            "weight": weight,
            "late": late,
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model of day 15, which answered until day 60; every label is told."""
    folder = tmp_path_factory.mktemp("monitored")
    (folder / "project.py").write_text(PROJECT)
    (folder / "seatrial.toml").write_text(SETTINGS)
    pq.write_table(parcels(), folder / "parcels.parquet")
    with Project(folder, clock=FakeClock(parse_time(day(15))), actor="ada") as project:
        project.train()
        project.release()
        project.deploy("late")
    with Project(folder, clock=FakeClock(parse_time(day(60))), actor="ada") as project:
        project.predict_batch("late", parse_window(f"{day(15)}/{day(60)}"))
        project.label("late")
    return folder


@pytest.fixture
def says(folder, capsys):
    """Run `seatrial monitor` on a day, keeping nothing: what it prints, after it ended with `code`."""

    def tell(number, *words, code=0):
        given = [*words, *([] if "--rehearse" in words else ["--dry-run"])]
        assert run(["monitor", *given, "--project", str(folder), "--at", day(number)]) == code
        out = capsys.readouterr()
        return out.err if code else out.out

    return tell


def test_a_rehearsal_tells_the_planted_week_what_would_be_found_and_what_meets_the_budget(says):
    text = says(60, "late", "--rehearse", "--over", "28d")
    raised = re.findall(r"^(\S+) 00:00  (\w+) ", text, re.MULTILINE)
    assert text.startswith(f"OVER THE BUDGET: {len(raised)} alarms began")
    assert "KS p < 0.05 for each input would have begun" in text
    assert f"late, {day(32)[:10]} 00:00 to {day(60)[:10]} 00:00, 28 windows of 1d" in text
    found = {(day(41)[:10], "weight"), (day(52)[:10], "size"), (day(52)[:10], "prediction")}
    assert set(raised) == found  # weight moved from day 40 on, size from day 50 on
    assert len(raised) == 3
    planted = dict(re.findall(r"^(.+?)  +(\d+ of \d+)", text, re.MULTILINE))
    assert planted["3% more of an input is missing"] == "8 of 8"
    assert 'Monitor("late", every="1d", false_alarms_per_month=1,\n          thresholds={' in text


def test_a_rehearsal_goes_back_as_far_as_is_said_and_four_weeks_where_nothing_is(says):
    week, usual = (json.loads(says(44, "late", "--rehearse", "--json", *words)) for words in (["--over", "7d"], []))
    assert [(one["windows"], one["from_"], one["until"]) for one in (week, usual)] == [
        (7, day(37), day(44)),
        (28, day(16), day(44)),
    ]


def test_a_rehearsal_keeps_nothing(says, folder):
    says(60, "late", "--rehearse")
    with Project(folder) as project:
        assert (project.reports(), project.alerts(every=True)) == ([], [])
        assert project.metadata.head("watch", "late") is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--over", "7d"], "--over goes with --rehearse"),
        (["--rehearse", "--window", "2024-02-01/2024-02-08"], "--rehearse makes no report"),
        (["--rehearse", "--html", "page.html"], "--rehearse makes no report"),
        (["--rehearse", "--fail-on", "low"], "--rehearse makes no report"),
        (["--rehearse", "--against", "7d"], "--rehearse makes no report"),
        (["--rehearse", "--distance", "psi"], "--rehearse makes no report"),
        (["--rehearse", "--detail"], "--rehearse makes no report"),
        (["--rehearse", "--map", "map.toml"], "go with --log"),
        (["--rehearse", "--log", "log.parquet"], "The map says which model a log is of"),
        (["--labels", "labels.parquet"], "go with --log"),
        (["--table", "predictions"], "go with --log"),
    ],
)
def test_options_that_do_not_go_together_are_refused_and_nothing_is_done(says, words, said):
    told = says(60, "late", *words, code=2)
    assert said in told
    assert "Nothing was done." in told


def test_a_report_compares_with_what_against_says(says):
    assert "against the training rows" in says(57, "late")
    assert f"against the predictions of {day(40)}/{day(50)}" in says(57, "late", "--against", "10d")
    earlier = f"{day(20)}/{day(40)}"
    assert f"1 of 2 inputs moved, against the predictions of {earlier}" in says(57, "late", "--against", earlier)
    assert "the champion" in says(57, "late", "--against", "champion")


def test_distances_that_are_asked_for_stand_beside_the_one_that_is_judged(says):
    names = next(line for line in says(57, "late").splitlines() if line.startswith("input "))
    assert names.split() == ["input", "distance", "tolerated", "missing", "rows"]
    lines = says(57, "late", "--distance", "psi", "--distance", "wasserstein").splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("input "))
    assert lines[place].split() == ["input", "distance", "psi", "wasserstein", "tolerated", "missing", "rows"]
    (size,) = (line.split() for line in lines[place:] if line.startswith("size "))
    assert float(size[3]) > 0.25
    assert float(size[4]) == pytest.approx(1.0, abs=0.25)
    assert "Invalid value for '--distance'" in says(57, "late", "--distance", "hellinger", code=2)


def test_detail_shows_every_section_with_its_numbers(says):
    short, long = (says(57, "late", "--against", "14d", *words) for words in ([], ["--detail"]))
    heads = ("age ", "score ", "part ")
    assert [any(line.startswith(head) for line in short.splitlines()) for head in heads] == [False] * 3
    assert [any(line.startswith(head) for line in long.splitlines()) for head in heads] == [True] * 3
    assert len(long.splitlines()) > len(short.splitlines()) + 20


@pytest.mark.parametrize(
    ("on", "level", "code"), [(57, "high", 0), (57, "medium", 3), (57, "low", 3), (44, "medium", 0), (44, "low", 3)]
)
def test_a_pipeline_fails_on_the_level_that_it_asked_for_and_on_those_above(says, on, level, code):
    """Day 57: inputs (low) and predictions (medium) have moved; day 44: an input alone."""
    text = says(on, "late", "--fail-on", level, code=code)
    if code:
        fired = ["predictions have moved"] * (on == 57) + ["inputs have moved"] * (level == "low")
        named = re.search(
            r"AlarmsFired \[monitor.alarms_fired\]: (\d+) alarms? of severity (\w+) or higher fired: (.+)\.", text
        )
        assert named is not None
        assert (int(named[1]), named[2], named[3].split(", ")) == (len(fired), level, fired)


def test_a_dry_run_keeps_nothing_and_opens_no_alert_and_a_kept_report_is_listed_and_shown_again(
    folder, tmp_path, capsys
):
    folder = shutil.copytree(folder, tmp_path / "project")

    def show(*words, at=58):
        assert run([*words, "--project", str(folder), "--at", day(at)]) == 0
        return capsys.readouterr().out

    show("monitor", "late", "--dry-run", at=57)
    assert show("reports") == "no report was kept\n"
    assert show("alerts") == "no open alert\n"
    made = show("monitor", "late", at=57)
    listed = show("reports", "list", "late").splitlines()
    assert listed[0].startswith(f"{day(57)[:10]} 00:00  late  rep_")
    assert listed[1] == f"  {made.splitlines()[0]}"
    id = listed[0].split()[-1]
    assert listed[2] == f"Next: seatrial reports show {id}"
    opened = [line for line in made.splitlines() if line.startswith("Opened alert_")]
    assert len(opened) == 2
    again = show("reports", "show", id)
    assert again == made.removesuffix("\n".join([*opened, ""]))
    assert show("reports", "show", "late") == show("reports", "show", id[:12]) == again
    assert "concept" in show("reports", "show", "late", "--detail")
    page = folder / "report.html"
    show("reports", "show", "late", "--html", str(page))
    headline = made.splitlines()[0].partition(": ")[2]
    assert escape(headline) in page.read_text()


def test_a_report_that_nobody_kept_is_not_found(folder, capsys):
    assert run(["reports", "show", "rep_00", "--project", str(folder)]) == 2
    assert "rep_00" in capsys.readouterr().err


def test_of_an_answer_nothing_is_monitorings_where_a_monitor_is_declared(folder):
    """Through the server's handler, as benchmarks/monitoring/speed.py asks it; monitoring reads the log afterwards."""
    calls = []
    with Project(folder, clock=FakeClock(parse_time(day(60))), actor="ada") as project:
        service = project._service(replay=False)
        service.refresh()
        front = Front(service)
        body = json.dumps({"features": {"size": 0.5, "weight": 0.5}}).encode()
        speed.answered(front, body, 3)  # ends with SystemExit when it refuses
        sys.setprofile(lambda frame, event, _: calls.append(speed.of_monitoring(frame)) if event == "call" else None)
        try:
            speed.answered(front, body, 20)
        finally:
            sys.setprofile(None)
    assert len(calls) > 1000
    assert not any(calls)


# A log from elsewhere

MAP = 'model = "m"\ntimestamp = "at"\nscore = "p"\nfeatures = ["size"]\n'


@pytest.fixture
def log(tmp_path):
    rows = parcels().slice(48 * 20, 48 * 7)
    rows = rows.append_column("p", pa.array(1 / (1 + np.exp(1.5 - 1.5 * rows["size"].to_numpy()))))
    pq.write_table(rows.select(["parcel", "at", "p", "size"]), tmp_path / "log.parquet")
    told = rows.select(["parcel", "late"]).rename_columns(["parcel", "late"])
    pq.write_table(told, tmp_path / "labels.parquet")
    (tmp_path / "map.toml").write_text(MAP)
    return tmp_path


def elsewhere(log, capsys, *words, code=0):
    given = ["monitor", "--log", str(log / "log.parquet"), "--map", str(log / "map.toml"), "--at", day(28), *words]
    assert run(given) == code
    out = capsys.readouterr()
    return out.err if code else out.out


def test_labels_that_lie_in_another_file_are_joined(log, capsys):
    assert "0 % of their labels have arrived (0)" in elsewhere(log, capsys)
    (log / "map.toml").write_text(MAP + 'prediction_id = "parcel"\nlabel = "late"\n')
    text = elsewhere(log, capsys, "--labels", str(log / "labels.parquet"))
    assert "336 predictions; 100 % of their labels have arrived (336)" in text
    assert "roc_auc" in text


@pytest.fixture(scope="module")
def server():
    server = PostgresServer()
    rows = parcels(28)
    server.run(
        "CREATE SCHEMA shop", 'CREATE TABLE shop.predictions ("at" timestamptz, p float8, size float8, shop text)'
    )
    with (
        psycopg.connect(server.url) as connection,
        connection.cursor() as cursor,
        cursor.copy("COPY shop.predictions FROM STDIN") as copy,
    ):
        for place, row in enumerate(rows.select(["at", "size"]).to_pylist()):
            copy.write_row([row["at"], 1 / (1 + np.exp(1.5 - 1.5 * row["size"])), row["size"], "ab"[place % 2]])
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (["--table", "shop.predictions"], 336),
        (["--query", "SELECT \"at\", p, size FROM shop.predictions WHERE shop = 'a'"], 168),
    ],
)
def test_a_table_or_a_query_of_postgresql_is_asked_for_aggregates(server, log, capsys, monkeypatch, words, rows):
    monkeypatch.setenv("SHOP", server.url)
    for url in (server.url, "${SHOP}"):
        assert run(["monitor", "--log", url, *words, "--map", str(log / "map.toml"), "--at", day(28)]) == 0
        assert f"{rows} predictions;" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "a log in PostgreSQL needs --table or --query, and not both"),
        (["--table", "a", "--query", "SELECT 1"], "needs --table or --query, and not both"),
        (["--table", "a", "--labels", "labels.parquet"], "--labels is a file, and the predictions stay in PostgreSQL"),
        (["--table", "a", "--rehearse"], "rows of a database do not leave it"),
    ],
)
def test_what_a_database_cannot_be_asked_is_refused_before_it_is_opened(log, capsys, words, said):
    given = ["monitor", "--log", "postgresql://nobody@127.0.0.1:1/none", "--map", str(log / "map.toml"), *words]
    assert run(given) == 2
    assert said in capsys.readouterr().err


def test_a_table_of_a_file_is_refused(log, capsys):
    told = elsewhere(log, capsys, "--table", "predictions", code=2)
    assert "--table and --query go with --log postgresql://..." in told
