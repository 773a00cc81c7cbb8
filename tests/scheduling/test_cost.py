"""What things cost: as measured, with how often and when, and never guessed."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from seatrial import Project
from seatrial.cli import run
from seatrial.core.settings import BadSettings
from seatrial.core.windows import Window
from seatrial.scheduling.by_hand import measured
from seatrial.scheduling.cost import RUN_UNMEASURED, SERVING_UNMEASURED, cost
from seatrial.scheduling.jobs import JobRun
from seatrial.scheduling.metering import IDLE, KEEP_US, KIND, SERVING, Counted, Meter, counters, memory_below, used
from seatrial.stores.metadata import MetadataStore, MetadataUnreachable, Transaction
from tests.scheduling.worlds import HOUR, MINUTE, START, World
from tests.worlds import write_project


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


class Server:
    """What a server's counters say, one reading after the other."""

    def __init__(self, *readings):
        self.readings = list(readings)

    def read(self):
        return self.readings.pop(0)


def meter(world, *readings, memory=lambda: (150_000_000, 5), of_server=lambda: None):
    return Meter(
        world.metadata,
        read=Server(*readings).read,
        memory=memory,
        of_server=of_server,
        by="here:1",
        actor="ada",
        clock=lambda: world.now,
        sample_seconds=0.0,
    )


def kept(world, name):
    return [record.body for record in world.metadata.records(KIND, name)]


def job(command, cpu, state="done", at=START, words=""):
    return JobRun("job", "name", command, "", 1, state, words, "", "", cpu_seconds=cpu, started_us=at)


def test_what_lies_between_two_readings_is_added_up_and_kept(world):
    found = meter(world, None, Counted(2.0, 0), Counted(2.5, 100), Counted(2.75, 150))
    for _ in range(4):
        found.beat(idle=False)
        world.now += MINUTE
    assert kept(world, SERVING) == []
    found.keep()
    (body,) = kept(world, SERVING)
    assert (body["cpu_seconds"], body["predictions"]) == (0.75, 150)
    assert (body["from_us"], body["until_us"]) == (START, START + 4 * MINUTE)
    found.keep()
    assert len(kept(world, SERVING)) == 1  # nothing since


def test_a_server_that_was_started_anew_or_did_not_answer_is_not_counted_wrongly(world):
    found = meter(world, Counted(50, 900), Counted(1, 10), None, Counted(9, 500), Counted(10, 600))
    for _ in range(5):
        found.beat(idle=False)
    found.keep()
    assert [(body["cpu_seconds"], body["predictions"]) for body in kept(world, SERVING)] == [(1, 100)]


def test_it_is_kept_every_hour(world):
    found = meter(world, *(Counted(number, 10 * number) for number in range(5)))
    for _ in range(5):
        found.beat(idle=False)
        world.now += KEEP_US // 2
    assert [body["predictions"] for body in kept(world, SERVING)] == [20, 20]


def test_memory_is_read_while_nothing_runs_and_nothing_is_asked(world):
    found = meter(world, Counted(1, 0), Counted(1, 0))
    found.beat(idle=True)
    found.beat(idle=True)
    found.keep()
    assert [(body["bytes"], body["processes"]) for body in kept(world, IDLE)] == [(150_000_000, 5)]
    for readings, idle in (((Counted(1, 0), Counted(1, 5)), True), ((Counted(1, 0), Counted(1, 0)), False)):
        busy = meter(world, *readings)
        busy.beat(idle)
        busy.beat(idle)
        busy.keep()
    assert len(kept(world, IDLE)) == 1


def test_what_the_server_took_in_a_window_is_added_up_and_its_memory_is_the_most(world):
    for number, held in enumerate((170_000_000, 190_000_000, 180_000_000)):
        world.now = START + number * HOUR
        found = meter(world, Counted(0, 0), Counted(1.5, 10), of_server=lambda held=held: (held, 2))
        found.beat(idle=False)
        found.beat(idle=False)
        world.now += HOUR
        found.keep()
    both = used(world.metadata, Window(START, START + 2 * HOUR))
    assert (both.cpu_seconds, both.memory_bytes) == (3.0, 190_000_000)
    assert both.seconds > 0
    assert used(world.metadata, Window(START + 3 * HOUR, START + 4 * HOUR)) is None


def test_where_memory_is_not_told_it_stays_unmeasured(world):
    found = meter(world, Counted(1, 0), Counted(1, 0), memory=lambda: None)
    found.beat(idle=True)
    found.beat(idle=True)
    found.keep()
    assert kept(world, IDLE) == []


def test_the_memory_of_a_process_and_of_those_below_it_is_read():
    total, count = memory_below(os.getpid())
    assert total > 10_000_000
    assert count >= 1
    assert memory_below(2**22 + 1) is None


def test_counters_are_read_from_a_real_answer_and_a_server_that_is_away_is_none():
    text = (
        'model_predictions_total{model_name="a",model_version="1"} 3.0\n'
        'model_predictions_total{model_name="b",model_version="2"} 1e+03\n'
        "# HELP process_cpu_seconds_total x\nprocess_cpu_seconds_total 1.5\nprocess_cpu_seconds_total_other 9\n"
    )

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert counters(url) == Counted(1.5, 1003)
        thread.join()
    assert counters(url) is None


def test_a_server_that_dies_in_the_middle_of_its_answer_is_none(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:9")  # no proxy stands between this machine and itself

    class Cut(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"process_cpu_sec")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Cut) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        assert counters(f"http://127.0.0.1:{server.server_port}") is None
        thread.join(10)
        assert not thread.is_alive()


def test_what_a_store_takes_only_in_part_is_kept_once_when_it_takes_it(world, monkeypatch):
    found = meter(world, Counted(0, 0), Counted(1, 500))
    found.beat(idle=False)
    found.beat(idle=False)
    event, told = Transaction.event, []

    def refuse_the_second(self, kind, *args, **named):
        told.append(kind)
        if len(told) == 2:
            raise MetadataUnreachable("the disk is full.")
        return event(self, kind, *args, **named)

    monkeypatch.setattr(Transaction, "event", refuse_the_second)
    found.keep()
    assert kept(world, SERVING) == []
    found.keep()
    (body,) = kept(world, SERVING)
    assert body["predictions"] == 500


def test_figures_are_means_with_their_number_their_dates_and_their_price(world):
    found = meter(world, Counted(0, 0), Counted(1, 500))
    found.beat(idle=False)
    found.beat(idle=False)
    found.keep()
    runs = [
        *(job(["monitor", "late"], cpu, at=START + number * HOUR) for number, cpu in enumerate((1.0, 3.0))),
        job(["monitor", "late"], 100.0, state="lost"),
        job(["retrain", "late"], 1.0),
        job(["retrain", "late", "advance"], 36.0, words="challenger rel_1 packed"),
        job(["retrain", "late", "advance"], 1.0, words="nothing to propose: no alert is open"),
        job(["predict", "late", "--batch", "last-day"], 2.0),
    ]
    shown = cost(world.metadata, runs, [(1000, 50_000, START), (3000, 150_000, START)], cpu_hour=0.5, currency="EUR")
    figures = {one.of: one for one in shown.figures}
    assert list(figures) == [
        *("1,000 predictions", "a monitor run", "a retraining", "a look whether to retrain", "a run of batch"),
        *("the log of 1,000,000 predictions", "an idle `seatrial up`"),
    ]
    serving, report = figures["1,000 predictions"], figures["a monitor run"]
    assert (serving.value, serving.money, serving.measurements) == (2.0, 2.0 * 0.5 / 3600, 1)
    assert (report.value, report.measurements) == (2.0, 2)
    assert (report.since, report.until) == ("2024-03-01T10:00:30Z", "2024-03-01T11:00:30Z")
    assert (figures["a retraining"].value, figures["a retraining"].money) == (36.0, 0.005)
    assert figures["a look whether to retrain"].measurements == 2
    log = figures["the log of 1,000,000 predictions"]
    assert (log.value, log.unit, log.money, log.measurements) == (50e6, "bytes", None, 2)


class Acting:
    """Somebody with verbs; the program of each is what the test wants it to be."""

    def __init__(self, metadata, actor="ada"):
        self.metadata, self.actor = metadata, actor

    @measured(lambda done: done, keeps=lambda named: named.get("keep", True))
    def report(self, *, keep=True):
        deadline = time.process_time() + 0.05
        while time.process_time() < deadline:
            pass
        return "monitor"

    @measured(lambda _: "retraining")
    def retrain(self):
        return self.report()

    @measured(lambda _: "batch", rows=lambda done: done)
    def score(self, rows):
        return rows

    @measured(lambda _: "batch")
    def fail(self):
        raise ValueError("no")


def hand_runs(world):
    return [one.body for one in world.metadata.records("cost", "run")]


def test_a_verb_by_hand_is_measured_once_when_it_ended_well_and_wrote_something(world):
    ada = Acting(world.metadata)
    ada.report()
    ada.report(keep=False)
    ada.retrain()  # which reports
    with pytest.raises(ValueError, match="no"):
        ada.fail()
    assert [one["verb"] for one in hand_runs(world)] == ["monitor", "retraining"]
    assert all(one["cpu_seconds"] >= 0.04 and not one["scheduled"] for one in hand_runs(world))


def test_runs_by_hand_and_of_schedules_make_one_figure_and_none_counts_twice(world):
    Acting(world.metadata).report()
    Acting(world.metadata, "schedule:monitor-late").report()  # its process is measured as a whole
    runs = [job(["monitor", "late"], 100.0)]
    figures = {one.of: one for one in cost(world.metadata, runs, [], cpu_hour=36.0, currency="EUR").figures}
    found = figures["a monitor run"]
    assert found.measurements == 2
    assert 50 < found.value < 51
    assert found.money == pytest.approx(found.value / 100)
    assert found.words == "mean; the most was 100.0; 1 by hand"


def test_batches_are_told_for_a_thousand_predictions_whoever_ran_them(world):
    for actor in ("ada", "schedule:batch-late"):
        Acting(world.metadata, actor).score(5000)
    Acting(world.metadata).score(0)
    found = {one.of: one for one in cost(world.metadata, [], [], cpu_hour=0, currency="").figures}
    assert found["1,000 predictions in batch"].words == "of 10,000 rows"
    assert found["1,000 predictions in batch"].measurements == 2


def test_a_cost_that_cannot_be_kept_breaks_no_verb(world):
    store = MetadataStore(world.folder / "metadata.db", busy_seconds=0.1)
    with closing(sqlite3.connect(world.folder / "metadata.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert Acting(store).score(1) == 1
    store.close()
    assert hand_runs(world) == []


def test_what_was_not_measured_says_so(world):
    shown = cost(world.metadata, [], [], cpu_hour=0.0, currency="")
    assert all(one.value is None and one.money is None and one.measurements == 0 for one in shown.figures)
    assert {one.words for one in shown.figures} == {
        *(SERVING_UNMEASURED, RUN_UNMEASURED, "nothing in the log is compacted yet")
    }


def test_status_shows_the_figures_and_where_a_price_is_set(tmp_path, capsys):
    write_project(tmp_path)
    assert run(["status", "--cost", "--project", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "a retraining" in out
    assert "not measured yet" in out
    assert "No price is set: [cost] cpu_hour = 0.04" in out
    (tmp_path / "seatrial.toml").write_text('[cost]\ncpu_hour = 0.04\ncurrency = "EUR"\n')
    assert run(["status", "--cost", "--project", str(tmp_path)]) == 0
    assert "An hour of one core is 0.04 EUR" in capsys.readouterr().out
    (tmp_path / "seatrial.toml").write_text("[cost]\ncpu_hour = -1\n")
    with pytest.raises(BadSettings):
        Project(tmp_path)
