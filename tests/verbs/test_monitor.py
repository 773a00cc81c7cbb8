"""Monitoring a project: what a report needs of the project beside the log finds its way into it."""

from __future__ import annotations

import shutil
from datetime import timedelta

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Project
from seatrial.core.clock import to_us
from seatrial.core.windows import DAY_US, Window
from seatrial.monitoring.pages.page import html
from seatrial.releases.bundle import PROFILE, pack
from seatrial.releases.manifest import file_entries
from seatrial.scheduling.metering import Counted, Meter
from seatrial.testing import FakeClock
from seatrial.verbs.watching import _longer
from tests.data.postgres_server import PostgresServer
from tests.worlds import START, edit, write_project

DAY = timedelta(days=1)
VIEW = "view carrier_delay not materialized"


def opened(folder, day):
    return Project(folder, clock=FakeClock(START + day * DAY), actor="ada")


def window(first, last):
    return Window(to_us(START + first * DAY), to_us(START + last * DAY))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Live from day 10 on; two weeks were predicted, and labelled."""
    folder = write_project(tmp_path_factory.mktemp("made"), rows=600)
    with opened(folder, 10) as project:
        project.train()
        project.release()
        project.deploy("late", reason="the first")
    with opened(folder, 24) as project:
        project.predict_batch("late", window(10, 24))
        project.label("late")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "late")


def test_a_view_that_nobody_materializes_any_more_is_an_alert_until_somebody_does(folder):
    edit(folder, 'ttl="7d")', 'ttl="7d", every="1d")')
    with opened(folder, 24) as project:
        project.materialize()
    with opened(folder, 24.9) as project:
        assert VIEW not in {one.alarm for one in project.alerts_check().silent}
    with opened(folder, 25.5) as project:
        (alert,) = [one for one in project.alerts_check().silent if one.alarm == VIEW]
        assert (
            alert.words
            == "the view 'carrier_delay' of 'late' has not been materialized for 1.5 days; expected every day"
        )
        assert (alert.kind, alert.severity, alert.state) == ("silence", "medium", "open")
        assert "seatrial materialize" in alert.action
        assert alert.words in project.status()[0].silent
        project.materialize()
        assert VIEW not in {one.alarm for one in project.alerts_check().silent}
        assert project.alert_show(alert.id).state == "resolved"


def test_a_release_without_a_profile_has_a_report_that_says_what_nobody_looked_at(folder):
    with opened(folder, 24) as project:
        compared = project.monitor("late", window=window(10, 24), keep=False)
        assert (compared.drift.note, len(compared.drift.columns)) == ("", 3)
        release = project.metadata.records("release", "late", newest=1)[0]
        bundle = project._bundle(release)
        files = {name: content for name, content in bundle.files.items() if name != PROFILE}
        manifest = msgspec.structs.replace(bundle.manifest, files=file_entries(files))
        packed = project.objects.path(release.body["object"])
        packed.unlink()
        packed.write_bytes(pack(manifest, files, project.signing_key))
        report = project.monitor("late", window=window(10, 24))
        nobody = "no reference to compare with, so nobody looked whether the inputs moved"
        assert (report.drift.columns, report.drift.note) == ([], nobody)
        assert nobody in report.findings
        assert report.verdict == "unknown"
        assert "the inputs were not compared, there is no reference" in report.headline
        assert report.performance.metrics == compared.performance.metrics
        assert project.report_show(report.id).drift.note == nobody


def test_requests_that_failed_and_what_the_server_took_are_in_the_report(folder):
    with opened(folder, 25) as project:
        for number in range(30):
            project.predict("late", [{"carrier": "AA", "distance": 0.1 * number}])
        project.log.failures.add("late", 503, project.now_us, count=10)
        project.log.failures.add("another", 503, project.now_us, count=10)
        project.log.failures.flush()
        readings = iter([Counted(1.0, 0), Counted(4.0, 30)])
        meter = Meter(
            project.metadata,
            read=lambda: next(readings),
            memory=lambda: None,
            of_server=lambda: (180_000_000, 2),
            by="up",
            actor="ada",
            clock=lambda: project.now_us,
            sample_seconds=0.0,
        )
        meter.beat(idle=False)
        meter.beat(idle=False)
        meter.keep()
    with opened(folder, 25.5) as project:
        system = project.monitor("late", window=window(24.5, 25.5)).system
        assert (system.error_rate, system.failed, system.availability) == (0.25, 10, 0.75)
        assert (system.resources.cpu_seconds, system.resources.memory_bytes) == (3.0, 180_000_000)
        assert project.monitor("late", window=window(10, 24), keep=False).system.resources is None


REVENUE = "SELECT flight, sum(price) AS revenue FROM orders GROUP BY flight"
SOURCES = {
    "a query": f"""
Monitor("late", business=[Metric("revenue", QuerySource(
    "{REVENUE}", {{"orders": ParquetSource("orders.parquet")}}, name="revenue"))])
""",
    "PostgreSQL": f"""
Monitor("late", business=[Metric("revenue", PostgresSource("${{DATABASE_URL}}", sql="{REVENUE}", name="revenue"))])
""",
}


@pytest.fixture(scope="module")
def server():
    server = PostgresServer()
    yield server
    server.stop()


@pytest.mark.parametrize("kind", SOURCES)
def test_a_number_of_the_business_is_read_by_sql_and_its_history_from_kept_reports(folder, server, monkeypatch, kind):
    """Each of the flights of days 10 to 24 sold a ticket of 100 and one of 20, from day 17 on one of 10."""
    monkeypatch.setenv("DATABASE_URL", server.url)
    flights = [f"F{number:04}" for number in range(240, 576)]
    prices = [
        (flight, price) for place, flight in enumerate(flights) for price in (100.0, 20.0 if place < 168 else 10.0)
    ]
    orders = pa.table({"flight": [one for one, _ in prices], "price": [one for _, one in prices]})
    pq.write_table(orders, folder / "orders.parquet")
    values = ", ".join(f"('{flight}', {price})" for flight, price in prices)
    server.run("DROP TABLE IF EXISTS orders", "CREATE TABLE orders (flight text, price numeric(10, 2))")
    server.run(f"INSERT INTO orders VALUES {values}")
    with (folder / "project.py").open("a") as file:
        file.write(SOURCES[kind])
    means = []
    with opened(folder, 24) as project:
        for first in (10, 17):
            report = project.monitor("late", window=window(first, first + 7))
            (revenue,) = report.business
            assert (revenue.rows, revenue.without, revenue.note) == (168, 0, "")
            means.append(revenue.mean)
        assert means == [120.0, 110.0]
        assert revenue.total == 168 * 110.0
        assert [one.metrics["business:revenue"] for one in report.history] == [120.0]
        assert [one.metrics["business:revenue"] for one in project.report_show("late").history] == [120.0]
        assert "What did it do for the business?" in html(report)


@pytest.mark.parametrize(("a_day", "days"), [(0, 67), (1_000, 67), (100_000, 50), (1_000_000, 14)])
def test_when_labels_come_is_seen_in_sixty_days_before_the_window_or_as_far_as_five_millions_reach(a_day, days):
    """A window of a week, and as much before it is read anyway."""
    end_us = to_us(START)
    reach, chosen = (Window(end_us - back * DAY_US, end_us) for back in (14, 7))
    assert _longer(reach, chosen, a_day * 14) == Window(end_us - days * DAY_US, end_us)
