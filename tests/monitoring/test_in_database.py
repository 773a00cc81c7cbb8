"""Predictions that stay in PostgreSQL: the report is that of the rows, and no row leaves."""

from __future__ import annotations

import re
import selectors
import socket
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial.core.clock import to_us
from seatrial.core.windows import Window
from seatrial.data.sources import PostgresSource
from seatrial.monitoring import imported
from seatrial.monitoring.definition import Alarm
from seatrial.monitoring.imported import monitor_log
from seatrial.monitoring.in_database import monitor_database
from seatrial.monitoring.monitor import make_report
from seatrial.monitoring.rows.against import ReferenceTooSmall
from seatrial.monitoring.rows.foreign import LogColumnNotThere, LogColumnWrong
from tests.data.postgres_server import PASSWORD, PostgresServer

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY_US = 86_400_000_000
NOW_US = to_us(START + timedelta(days=42))
MAP = """
model = "m"
timestamp = "t"
score = "p"
label = "y"
label_known_at = "told"
prediction_id = "id"
"""
KINDS = {"t": "timestamptz", "told": "timestamptz", "id": "text", "plan": "text", "hot": "text", "on": "boolean"}


def table(count=6000) -> pa.Table:
    """Six weeks; in the last one `size` is larger, and two columns go dark together."""
    random = np.random.default_rng(8)
    at = np.sort(random.integers(0, 42 * DAY_US, count))
    last = at > 35 * DAY_US
    dark = random.random(count) < np.where(last, 0.08, 0.01)
    score = random.beta(2, 4, count)
    size = random.normal(size=count) + last * 0.8
    size[5:8] = [np.inf, -np.inf, np.nan]
    told = random.random(count) < 0.9
    return pa.table(
        {
            "t": pa.array(to_us(START) + at, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
            "id": [f"p{n}" for n in range(count)],
            "p": score,
            "y": pa.array((random.random(count) < score).astype(float), mask=~told),
            "told": pa.array(to_us(START) + at + 3_600_000_000, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
            "size": pa.array(size, mask=dark),
            "weight": pa.array(np.where(random.random(count) < 0.5, 0.0, random.exponential(size=count)), mask=dark),
            "count": pa.array(random.poisson(3, count)),
            "on": random.random(count) < 0.3,
            "plan": pa.array(random.choice(["a", "b", "c\u00e9", "it's"], count), mask=random.random(count) < 0.02),
            "hot": pa.array([f"v{n}" for n in random.geometric(0.02, count)]),
            "none": pa.nulls(count, pa.float64()),
        }
    )


@pytest.fixture(scope="module")
def server():
    server = PostgresServer()
    rows = table()
    kinds = [f'"{name}" {KINDS.get(name, "integer" if name == "count" else "float8")}' for name in rows.column_names]
    server.run(
        f"CREATE TABLE predictions ({', '.join(kinds)})", "CREATE TABLE few AS SELECT * FROM predictions LIMIT 0"
    )
    with (
        psycopg.connect(server.url) as connection,
        connection.cursor() as cursor,
        cursor.copy("COPY predictions FROM STDIN") as copy,
    ):
        for row in rows.to_pylist():
            copy.write_row(list(row.values()))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def past(server, tmp_path_factory):
    """The report on the last week against the five before it, made of the rows and made in the database."""
    return a_world(server, tmp_path_factory.mktemp("past")).both(against="35d")


@pytest.fixture
def given(server, tmp_path):
    return a_world(server, tmp_path)


def a_world(server, tmp_path):
    pq.write_table(table(), tmp_path / "log.parquet")
    (tmp_path / "map.toml").write_text(MAP)

    class Given:
        log, map = tmp_path / "log.parquet", tmp_path / "map.toml"
        source = PostgresSource(url=server.url, table="predictions")

        def both(self, *more, **given):
            given = {"as_of_us": NOW_US} | given
            return monitor_log(self.log, self.map, *more, **given), monitor_database(
                self.source, self.map, *more, **given
            )

    return Given()


def close(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        [close(one[name], other[name]) for name in one]
    elif isinstance(one, list | tuple):
        [close(*pair) for pair in zip(one, other, strict=True)]
    else:
        assert one == (pytest.approx(other, rel=1e-7, abs=1e-9) if isinstance(other, float) else other)


def plain(values):
    return msgspec.to_builtins(values)


def test_drift_against_a_past_window_is_that_of_the_rows(past):
    here, there = past
    moved = [one.name for one in here.drift.columns if one.drifted]
    assert moved == ["size"]
    close(plain(here.drift), plain(there.drift))
    assert there.verdict == here.verdict
    assert (there.rows, there.performance.labelled) == (here.rows, here.performance.labelled)


def test_drift_against_a_file_is_that_of_the_rows(given, tmp_path):
    pq.write_table(table().slice(0, 2000), tmp_path / "reference.parquet")
    here, there = given.both(tmp_path / "reference.parquet")
    close(plain(here.drift), plain(there.drift))


def test_quality_is_that_of_the_rows_but_for_what_hangs_on_single_instants(past):
    here, there = past
    told = [{one.name + one.column: one for one in report.quality} for report in (here, there)]
    inexact = {"newest row", "label delay", "volume"}
    for name in told[0].keys() | told[1].keys():
        if name not in inexact:
            assert told[0][name] == told[1][name]
    assert told[1]["missing together"].found.startswith("size, weight: ")
    assert told[1]["missing together"].noticed
    assert told[1]["each prediction once"].found == f"0 of {here.rows:,} again"


def test_predictions_that_are_there_twice_are_counted_in_the_database(given, server):
    twice = "SELECT * FROM predictions UNION ALL SELECT * FROM predictions WHERE id LIKE '%7'"
    window = Window(NOW_US - 42 * DAY_US, NOW_US)
    report = monitor_database(
        PostgresSource(name="q", url=server.url, sql=twice), given.map, as_of_us=NOW_US, window=window
    )
    (found,) = (one for one in report.quality if one.name == "each prediction once")
    assert (found.passed, found.found) == (False, "600 of 6,600 again")


def test_what_is_measured_with_labels_is_right_to_a_bin_of_the_score(past):
    here, there = past
    assert there.performance.gap == pytest.approx(here.performance.gap, abs=0.005)
    assert there.performance.observed == pytest.approx(here.performance.observed)
    assert there.performance.metrics["roc_auc"] == pytest.approx(here.performance.metrics["roc_auc"], abs=0.005)
    assert [day.rows for day in there.performance.days] == [day.rows for day in here.performance.days]
    assert any("stayed in their database" in words for words in there.findings)


def test_days_are_cut_at_the_same_instants_where_the_window_rolls(given):
    end = to_us(START) + 20 * DAY_US + 149 * 60_000_000
    here, there = given.both(window=Window(end - 7 * DAY_US, end))
    cut = [[(one.start, one.end, one.rows, one.partial) for one in report.performance.days] for report in (here, there)]
    assert cut[0] == cut[1]
    assert len(cut[0]) == 8


def test_answers_are_compared_with_labels_of_a_file_as_of_rows(given, tmp_path):
    pq.write_table(table().slice(0, 4000), tmp_path / "reference.parquet")
    window = Window(NOW_US - 7 * DAY_US, NOW_US)
    here, there = given.both(tmp_path / "reference.parquet", window=window)
    assert "labelled rows of reference.parquet stand for the test part" in here.watched.notes[-1]
    assert here.watched.series == there.watched.series + 1  # the estimate takes rows
    close(plain(here.watched) | {"series": 0}, plain(there.watched) | {"series": 0})
    alarms = [[one for one in report.alarms if "estimated" not in one.name] for report in (here, there)]
    close(*plain(alarms))
    (unwatched,) = (one for one in there.alarms if "estimated" in one.name)
    assert (unwatched.state, "stayed in their database" in unwatched.note) == ("not_enough_data", True)
    close(plain(here.history), plain(there.history))
    assert there.concept.against == here.concept.against == "labelled rows of reference.parquet"


def test_labels_known_before_their_prediction_are_those_of_the_window(server, tmp_path):
    rows, said = a_log("binary", 9)
    (tmp_path / "map.toml").write_text(said)
    pq.write_table(rows, tmp_path / "log.parquet")
    source = stored(server, rows, "early")
    window = Window(NOW_US - 9 * DAY_US // 4, NOW_US - DAY_US // 2)
    given = {"as_of_us": NOW_US, "window": window}
    here = monitor_log(tmp_path / "log.parquet", tmp_path / "map.toml", **given).performance
    there = monitor_database(source, tmp_path / "map.toml", **given).performance
    assert (there.labels, there.note) == (here.labels, here.note)
    assert 0 < here.labels["before"] < here.labels["matched"] / 5


def test_a_long_log_is_stood_for_only_as_far_back_as_a_report_looks(server, tmp_path, monkeypatch):
    count, days = 4000, 200
    random = np.random.default_rng(11)
    at = to_us(START) + np.sort(random.integers(0, days * DAY_US, count))
    rows = {"t": pa.array(at, pa.int64()).cast(pa.timestamp("us", tz="UTC")), "p": random.beta(2, 3, count)}
    rows = pa.table(rows | {"y": (random.random(count) < rows["p"]).astype(float), "size": random.normal(size=count)})
    (tmp_path / "map.toml").write_text('model = "m"\ntimestamp = "t"\nscore = "p"\nlabel = "y"\n[tested]\nbrier = 0.2')
    pq.write_table(rows, tmp_path / "log.parquet")
    source = stored(server, rows, "long_ago")
    looked = []

    def noticed(sample, **given):
        looked.append(sample.rows.num_rows)
        return make_report(sample, **given)

    monkeypatch.setattr(imported, "make_report", noticed)
    given = {"as_of_us": to_us(START) + days * DAY_US, "against": "20d"}
    here = monitor_log(tmp_path / "log.parquet", tmp_path / "map.toml", **given)
    there = monitor_database(source, tmp_path / "map.toml", **given)
    assert looked[0] == count
    assert looked[1] == np.count_nonzero(at >= given["as_of_us"] - 42 * DAY_US)
    close(plain(here.watched), plain(there.watched))
    close(plain(here.alarms), plain(there.alarms))
    assert len(there.history) == 12
    close(plain(here.history), plain(there.history))


def test_labels_that_are_not_known_yet_do_not_count(given):
    early = to_us(START) + 20 * DAY_US
    here, there = given.both(as_of_us=early)
    assert (there.rows, there.performance.labelled) == (here.rows, here.performance.labelled)
    assert 0 < there.performance.labelled < there.rows


def test_no_row_leaves_the_database(given, server):
    server.run("ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()")
    with psycopg.connect(server.url, autocommit=True) as connection:  # a session that is new has the setting
        connection.execute("SELECT 1")
    log = Path(server._folder / "log")
    before = len(log.read_text())
    monitor_database(given.source, given.map, as_of_us=NOW_US, against="35d")
    said = log.read_text()[before:]
    server.run("ALTER SYSTEM RESET log_statement", "SELECT pg_reload_conf()")
    statements = [one for one in re.split(r"LOG:\s+(?:statement|execute [^:]*): ", said) if "predictions" in one]
    assert len(statements) > 20
    for one in statements:
        aggregate = re.search(
            r"SELECT (?:.*?,\s)?.*(count|max|min|avg|sum|percentile_cont|percentile_disc)\(", one, re.DOTALL
        )
        described = "LIMIT 0" in one or one.startswith(("DECLARE checked", "SELECT to_regclass"))
        assert described or aggregate, one
        assert described or not re.search(r"SELECT \* FROM w\b", one)
    fetched = [
        one for one in statements if not one.startswith(("DECLARE", "SELECT to_regclass")) and "LIMIT 0" not in one
    ]
    grouped = [one for one in fetched if "GROUP BY" in one]
    assert all(re.search(r"GROUP BY 1", one) for one in grouped)


class Wire:
    """Passes one connection on to the server, and counts the bytes of its answers."""

    def __init__(self, port):
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port, self._to, self.received = self._listening.getsockname()[1], port, 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        client, _ = self._listening.accept()
        with client, socket.create_connection(("127.0.0.1", self._to)) as server, selectors.DefaultSelector() as on:
            on.register(client, selectors.EVENT_READ, server)
            on.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in on.select():
                    data = key.fileobj.recv(65536)
                    if not data:
                        return
                    key.data.sendall(data)
                    self.received += len(data) if key.fileobj is server else 0

    def close(self):
        self._thread.join()
        self._listening.close()
        return self.received


def test_what_comes_over_the_wire_does_not_grow_with_the_rows(given, server):
    twice = "SELECT * FROM predictions UNION ALL SELECT * FROM predictions"
    received = []
    for sql in ("SELECT * FROM predictions", f"{twice} UNION ALL {twice} UNION ALL {twice}"):
        wire = Wire(server.port)
        url = server.url.replace(f":{server.port}/", f":{wire.port}/") + "?sslmode=disable"
        monitor_database(PostgresSource(name="q", url=url, sql=sql), given.map, as_of_us=NOW_US, against="35d")
        received.append(wire.close())
    assert received[1] < received[0] * 1.05


def test_an_empty_table_is_a_stated_result(given, server):
    empty = PostgresSource(url=server.url, table="few")
    report = monitor_database(empty, given.map, as_of_us=NOW_US)
    assert (report.rows, report.verdict) == (0, "unknown")
    with pytest.raises(ReferenceTooSmall):
        monitor_database(empty, given.map, as_of_us=NOW_US, against="7d")


def test_a_column_that_is_not_there_is_named_and_the_password_is_not(given, server):
    given.map.write_text(MAP.replace('"p"', '"pp"'))
    with pytest.raises(LogColumnNotThere, match="'pp'") as caught:
        monitor_database(given.source, given.map, as_of_us=NOW_US)
    assert PASSWORD not in str(caught.value)
    given.map.write_text(MAP.replace('label = "y"', 'label = "count"'))
    with pytest.raises(LogColumnWrong, match="0 and 1"):
        monitor_database(given.source, given.map, as_of_us=NOW_US)


def test_a_label_that_is_none_is_a_mistake_of_the_map_however_long_ago_it_was(given, server):
    label = "CASE WHEN t = (SELECT min(t) FROM predictions) THEN 2 ELSE y END AS y"
    source = PostgresSource(name="q", url=server.url, sql=f"SELECT t, told, id, p, {label} FROM predictions")
    with pytest.raises(LogColumnWrong, match="holds 2"):
        monitor_database(source, given.map, as_of_us=NOW_US + 100 * DAY_US)


def test_a_positive_label_that_never_comes_is_a_mistake_of_the_map(given):
    given.map.write_text(MAP.replace('label = "y"', 'label = "plan"\npositive = "A"'))
    with pytest.raises(LogColumnWrong, match="is never 'A'"):
        monitor_database(given.source, given.map, as_of_us=NOW_US)


# The same report for every task


INSTANTS = {"t", "told"}


def a_log(task, seed, count=3000):
    """(rows, map): six weeks of a model whose errors grow in the last one, in the slice `plan = b` most."""
    random = np.random.default_rng(seed)
    at = to_us(START) + np.sort(random.integers(0, 42 * DAY_US, count))
    last = at > to_us(START) + 35 * DAY_US
    size, plan = random.normal(size=count) + 0.7 * last, random.choice(["a", "b", "c"], count)
    told = random.random(count) < 0.85
    instant = pa.timestamp("us", tz="UTC")
    rows = {
        "t": pa.array(at, pa.int64()).cast(instant),
        "told": pa.array(at + random.integers(-DAY_US // 20, DAY_US, count), pa.int64()).cast(instant),
        "took": random.exponential(3.0, count),
        "build": np.where(at > to_us(START) + 20 * DAY_US, "2.0", "1.9"),
        "size": pa.array(size, mask=random.random(count) < 0.02 + 0.1 * last),
        "few": random.integers(0, 4, count),
        "plan": pa.array(plan, mask=random.random(count) < 0.01),
    }
    said = 'timestamp = "t"\nlabel = "y"\nlabel_known_at = "told"\nlatency_ms = "took"\nversion = "build"\n'
    said = f'model = "m"\ntask = "{task}"\n{said}'
    worse = last & (plan == "b")
    if task == "regression":
        score = 5 + 2 * size + random.normal(size=count)
        rows |= {"p": score, "y": pa.array(score + random.normal(size=count) * (1 + 3 * worse), mask=~told)}
        return pa.table(rows), said + 'score = "p"\n[tested]\nmae = 0.8\n[[alarm]]\nmetric = "rmse"\nabove = 1.1\n'
    if task == "binary":
        score = np.round(random.beta(2, 3, count), 3)
        y = random.random(count) < np.where(worse, 1 - score, score)
        rows |= {"p": score, "y": pa.array(y, mask=~told)}
        return pa.table(
            rows
        ), said + 'score = "p"\n[tested]\nbrier = 0.19\n[[alarm]]\nmetric = "roc_auc"\nbelow = 0.7\n'
    raw = random.random((count, 3)) ** 3
    scores = raw / raw.sum(axis=1, keepdims=True)
    happened = np.array([random.choice(3, p=row) for row in scores])
    happened = np.where(worse, (happened + 1) % 3, happened)
    names = np.array(["early", "it's late", "on time"], dtype=object)
    rows["y"] = pa.array(names[happened], pa.string(), mask=~told)
    said += '[tested]\naccuracy = 0.7\n[[alarm]]\nmetric = "accuracy"\nbelow = 0.7\n'
    if task == "multiclass" and seed % 2:
        rows |= {"said": pa.array(names[scores.argmax(axis=1)], pa.string())}
        return pa.table(rows), 'prediction = "said"\n' + said
    rows |= {f"p{n}": scores[:, n] for n in range(3)}
    return pa.table(rows), said + "".join(
        ["[probabilities]\n", *(f'"{name}" = "p{n}"\n' for n, name in enumerate(names.tolist()))]
    )


def stored(server, rows, name):
    kinds = {"string": "text", "bool": "boolean", "double": "float8", "int64": "bigint"}
    columns = ", ".join(
        f'"{one.name}" {"timestamptz" if one.name in INSTANTS else kinds[str(one.type)]}' for one in rows.schema
    )
    server.run(f"CREATE TABLE {name} ({columns})")
    with (
        psycopg.connect(server.url) as connection,
        connection.cursor() as cursor,
        cursor.copy(f"COPY {name} FROM STDIN") as copy,
    ):
        for row in rows.to_pylist():
            copy.write_row(list(row.values()))
    return PostgresSource(url=server.url, table=name)


@pytest.mark.parametrize(("task", "seed"), [("binary", 1), ("regression", 2), ("multiclass", 3), ("multiclass", 4)])
def test_the_report_on_rows_in_the_database_is_that_on_the_same_rows_in_a_file(server, tmp_path, task, seed):
    rows, said = a_log(task, seed)
    (tmp_path / "map.toml").write_text(said)
    pq.write_table(rows, tmp_path / "log.parquet")
    source = stored(server, rows, f"log_{task}_{seed}")
    odd = [Alarm.below("label_share", 0.99, window="85h"), Alarm.above("p99_ms", 1.0, window="79h", severity="low")]
    given = {"as_of_us": NOW_US, "against": "28d", "alarms": odd}
    here = plain(monitor_log(tmp_path / "log.parquet", tmp_path / "map.toml", **given))
    there = plain(monitor_database(source, tmp_path / "map.toml", **given))
    told = ("quality", "drift", "system", "alarms", "watched", "history", "rows", "releases", "verdict", "headline")
    for name in told:
        close(here[name], there[name])
    approximate = {"intervals", "blocks", "few_blocks"}
    close(*({k: v for k, v in one["performance"].items() if k not in approximate} for one in (here, there)))
    for name, interval in here["performance"]["intervals"].items():
        other = there["performance"]["intervals"][name]
        assert (interval is None) == (other is None) or task == "multiclass"
        if interval is not None and other is not None:
            assert abs(interval[0] - other[0]) < 0.25 * (interval[1] - interval[0])
    assert here["watched"]["windows"] > 20
    assert len(here["history"]) > 3
    assert any(one["metric"].startswith("policy:") and one["state"] == "fired" for one in there["alarms"])


@pytest.mark.parametrize("zone", ['timezone = "Europe/Vienna"', ""])
@pytest.mark.parametrize(
    "text",
    [
        "2024-07-01 10:00",
        "2024-07-01T10:00:00.25",
        "2024-07-01",
        "2024-07-01 10:00:00Z",
        "2024-07-01 10:00:00+05",
        "2024-07-01T10:00:00-03:30",
        "2024-10-27 02:30:00",  # the clocks of Vienna show it twice
    ],
)
@pytest.mark.filterwarnings("ignore::seatrial.data.reading.DataWarning")
def test_times_as_text_are_read_in_the_zone_of_the_map_as_from_a_file(server, tmp_path, text, zone):
    (tmp_path / "map.toml").write_text(f'model = "m"\ntimestamp = "when"\nscore = "p"\n{zone}\n')
    rows = pa.table({"when": [text], "p": [0.5]})
    pq.write_table(rows, tmp_path / "log.parquet")
    source = PostgresSource(name="q", url=server.url, sql=f"SELECT '{text}'::text AS \"when\", 0.5::float8 AS p")
    given = {"as_of_us": NOW_US + 366 * DAY_US}
    here = monitor_log(tmp_path / "log.parquet", tmp_path / "map.toml", **given)
    there = monitor_database(source, tmp_path / "map.toml", **given)
    assert [words for words in there.findings if "the log ends" in words] == [
        words for words in here.findings if "the log ends" in words
    ]
    assert any("its last prediction is of 2024" in words for words in there.findings)


def test_times_that_are_text_stand_beside_a_number_that_says_since_when_a_label_is_known(server, tmp_path):
    (tmp_path / "map.toml").write_text(
        'model = "m"\ntimestamp = "t"\nscore = "p"\nlabel = "y"\nlabel_known_at = "k"\ntimestamp_unit = "ms"\n'
    )
    rows = (
        "SELECT to_char(timestamp '2024-02-11' + n * interval '3 minutes', 'YYYY-MM-DD HH24:MI:SS') AS t, "
        f"0.5::float8 AS p, 1.0::float8 AS y, ({NOW_US // 1000 - 1000})::bigint AS k FROM generate_series(0, 400) AS n"
    )
    found = monitor_database(PostgresSource(name="q", url=server.url, sql=rows), tmp_path / "map.toml", as_of_us=NOW_US)
    assert (found.rows, found.performance.labelled) == (401, 401)


def test_a_window_may_begin_with_the_first_instant_that_there_is(given):
    whole = Window(to_us(datetime.min.replace(tzinfo=UTC)), NOW_US)
    found = monitor_database(given.source, given.map, as_of_us=NOW_US, window=whole)
    assert found.rows == 6000


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date", "bigint", "float8"])
def test_a_window_of_a_long_table_is_found_by_its_index(server, tmp_path, kind):
    """Twenty months of a row every five minutes, and a window of a day: only what asks for all rows reads them all."""
    at = "timestamptz '2022-06-01 00:00Z' + n * interval '5 minutes'"
    at = f"extract(epoch FROM {at}) * 1000" if kind in ("bigint", "float8") else f"({at}) AT TIME ZONE 'UTC'"
    at = at.removesuffix(" AT TIME ZONE 'UTC'") if kind == "timestamptz" else at
    server.run(
        "DROP TABLE IF EXISTS long",
        f"CREATE TABLE long AS SELECT ({at})::{kind} AS t, random() AS p, (n % 2)::float8 AS y, random() AS size "
        "FROM generate_series(0, 180000) AS n",
        "CREATE INDEX ON long (t)",
        "ANALYZE long",
    )
    unit = 'timestamp_unit = "ms"\n' if kind in ("bigint", "float8") else ""
    (tmp_path / "map.toml").write_text(f'model = "m"\ntimestamp = "t"\nscore = "p"\nlabel = "y"\n{unit}')
    day = Window(NOW_US - DAY_US, NOW_US)
    source = PostgresSource(url=server.url, table="long")
    found = monitor_database(source, tmp_path / "map.toml", as_of_us=NOW_US, window=day, against="1d")
    assert found.rows == 288
    with psycopg.connect(server.url) as connection:
        told = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'long'"
        whole, by_index = connection.execute(told).fetchone()
    assert whole < 10 < by_index


@pytest.mark.parametrize(("task", "seed"), [("binary", 5), ("regression", 6), ("multiclass", 7), ("multiclass", 8)])
@pytest.mark.parametrize("name", ["plan", "size", "few"])
def test_worst_slices_of_one_input_are_those_of_the_rows(server, tmp_path, task, seed, name):
    rows, said = a_log(task, seed)
    (tmp_path / "map.toml").write_text(f'features = ["{name}"]\n{said}')
    pq.write_table(rows, tmp_path / "log.parquet")
    with psycopg.connect(server.url) as connection:
        there = connection.execute("SELECT to_regclass(%s)", [f"log_{task}_{seed}"]).fetchone()[0]
    table_name = f"log_{task}_{seed}"
    source = PostgresSource(url=server.url, table=table_name) if there else stored(server, rows, table_name)
    given = {"as_of_us": NOW_US, "window": Window(NOW_US - 14 * DAY_US, NOW_US)}
    here = plain(monitor_log(tmp_path / "log.parquet", tmp_path / "map.toml", **given).slices)
    found = plain(monitor_database(source, tmp_path / "map.toml", **given).slices)
    assert here.pop("note") == ""
    assert "not pairs" in found.pop("note")
    close(here, found)
    if name == "plan":
        assert [one["where"] for one in found["worst"]] == [{"plan": "b"}]
