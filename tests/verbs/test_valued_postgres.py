"""What the business says of a rollout, read from a real PostgreSQL server: numbers of every type, what is not known
yet, and a server that is away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from seatrial import Metric, PostgresSource, QuerySource
from seatrial.core.clock import FixedClock, to_us
from seatrial.project import Project
from seatrial.verbs.valued import valued
from tests.data.postgres_server import PASSWORD, PostgresServer

NOW = datetime(2024, 1, 2, tzinfo=UTC)
N = 400


@pytest.fixture(scope="module")
def server():
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture
def orders(server, monkeypatch):
    """Makes a table of orders of this type; half of the requests ordered, those of the new release for a euro more."""
    monkeypatch.setenv("DATABASE_URL", server.url)

    def make(kind: str = "numeric(10, 2)", *more: str) -> None:
        server.run("DROP SCHEMA IF EXISTS public CASCADE", "CREATE SCHEMA public")
        server.run(
            f"CREATE TABLE orders (request_id text, revenue {kind}, ordered_at timestamptz)",
            f"INSERT INTO orders SELECT 'r' || n, (n % 7 + CASE WHEN n >= {N // 2} THEN 1 ELSE 0 END)::{kind}, "
            f"TIMESTAMPTZ '2024-01-01 00:00:00Z' + n * INTERVAL '1 minute' FROM generate_series(0, {N - 1}, 2) n",
            *more,
        )

    return make


@pytest.fixture
def project(tmp_path):
    with Project(tmp_path, clock=FixedClock(NOW), definitions=[]) as project:
        yield project


def told(project, source, now=NOW, without_row=None):
    """What the metric says of a log whose first half was answered by the live release and the rest by the new one."""
    at = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=n) for n in range(N)]
    answers = pa.table(
        {
            "prediction_id": [f"p{n}" for n in range(N)],
            "request_id": [f"r{n}" for n in range(N)],
            "at": pa.array(at, pa.timestamp("us", "UTC")),
        }
    )
    new = np.arange(N) >= N // 2
    metric = Metric("revenue", source, without_row=without_row)
    return valued(
        metric, project._inputs.uncut, answers, (~new, new), lambda: pa.array([]), ["flight"], now_us=to_us(now)
    )


def sql(text="SELECT request_id, revenue FROM orders", **how):
    return PostgresSource("${DATABASE_URL}", sql=text, name="orders", **how)


@pytest.mark.parametrize("kind", ["numeric(10, 2)", "numeric", "double precision", "real", "integer", "bigint"])
def test_a_number_of_every_type_of_the_server_is_read_for_each_request(project, orders, kind):
    orders(kind)
    found = told(project, sql())
    assert (found.problem, found.stray, found.mixed) == ("", 0, 0)
    for arm, more in ((found.live, 0), (found.new, 1)):
        assert arm.value.size == N // 2
        known = arm.value[np.isfinite(arm.value)]
        assert known.size == N // 4
        assert known.mean() == pytest.approx(
            np.mean([n % 7 + more for n in range(more * N // 2, (more + 1) * N // 2, 2)])
        )


def test_a_query_of_the_server_adds_up_the_orders_of_a_request(project, orders):
    orders("numeric(10, 2)", "INSERT INTO orders VALUES ('r0', 5, '2024-01-01 00:10:00Z')")
    twice = told(project, sql())
    assert (
        twice.problem
        == "1 rows name a request_id that another row named: add them up in the query, GROUP BY request_id"
    )
    summed = told(project, sql("SELECT request_id, sum(revenue) AS revenue FROM orders GROUP BY request_id"))
    assert (summed.problem, summed.live.value[0]) == ("", 5.0)


def test_orders_that_were_not_known_yet_do_not_count(project, orders):
    orders()
    source = sql("SELECT request_id, revenue, ordered_at FROM orders", event_timestamp="ordered_at")
    early = told(project, source, now=NOW - timedelta(hours=20))
    assert np.isfinite(early.live.value).sum() + np.isfinite(early.new.value).sum() == 121
    assert np.isfinite(told(project, source).new.value).sum() == N // 4


def test_nulls_strays_and_numbers_that_are_none_are_told(project, orders):
    orders("double precision", "INSERT INTO orders VALUES ('somebody else', 3), ('r1', NULL)")
    found = told(project, sql())
    assert (found.problem, found.stray) == ("", 1)
    assert np.isnan(found.live.value[1])
    orders("double precision", "INSERT INTO orders VALUES ('r1', 'Infinity')")
    assert "infinite or no numbers" in told(project, sql()).problem
    orders("text")
    assert "is a string, and numbers are expected" in told(project, sql()).problem


def test_a_query_over_a_table_of_the_server_is_a_metric_too(project, orders):
    orders()
    table = PostgresSource("${DATABASE_URL}", "orders", name="orders")
    source = QuerySource(
        "SELECT request_id, sum(revenue) AS revenue FROM orders GROUP BY request_id", {"orders": table}, name="revenue"
    )
    found = told(project, source)
    assert (found.problem, np.isfinite(found.new.value).sum()) == ("", N // 4)


def test_a_server_that_is_away_or_a_table_that_is_gone_is_told_and_stops_no_guardrail(
    project, orders, server, monkeypatch
):
    orders()
    gone = told(project, sql("SELECT request_id, revenue FROM ordrs"))
    assert "ordrs" in gone.problem
    monkeypatch.setenv("DATABASE_URL", server.url.replace(str(server.port), "1"))
    away = told(project, sql())
    assert away.problem
    assert PASSWORD not in gone.problem + away.problem
    assert away.live.value.size == away.new.value.size == 0
