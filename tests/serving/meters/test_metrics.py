"""What a server tells Prometheus: one process, several, one that is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections import defaultdict

import pytest
from prometheus_client.parser import text_string_to_metric_families

from seatrial.serving.meters.metrics import OTHER, Metrics
from seatrial.serving.meters.slots import CELLS, SlotTaken, path_of
from tests.serving.worlds import GOOD, Keys, bundle, predictor, server


def samples(rendered: bytes) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Every sample by its name and labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = defaultdict(dict)
    for family in text_string_to_metric_families(rendered.decode()):
        for sample in family.samples:
            found[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    return found


def value(rendered: bytes, name: str, **labels: str) -> float:
    return samples(rendered)[name][tuple(sorted(labels.items()))]


def ask(url: str, path: str = "/metrics", body: bytes | None = None) -> bytes:
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, body, JSON)) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        return error.read()


JSON = {"content-type": "application/json"}


def body(**changes: object) -> bytes:
    return json.dumps({"features": GOOD | changes}).encode()


class TestOneProcess:
    def test_answers_and_failures_are_counted_by_deployment_and_class(self):
        metrics = Metrics()
        served = predictor(metrics=metrics)
        for _ in range(3):
            assert served.handle(body()).status == 200
        assert served.handle(b"{").status == 400
        told = metrics.render()
        assert value(told, "seatrial_requests_total", deployment="late", status="2xx") == 3
        assert value(told, "seatrial_requests_total", deployment="late", status="4xx") == 1
        assert value(told, "seatrial_requests_total", deployment="late", status="5xx") == 0
        assert value(told, "model_predictions_total", model_name="late", model_version="1") == 3
        assert value(told, "model_prediction_errors_total", model_name="late", code="request.not_json") == 1
        for name, label in (("model_prediction", "model_name"), ("seatrial_request", "deployment")):
            assert value(told, f"{name}_latency_seconds_count", **{label: "late"}) == 3
            assert value(told, f"{name}_latency_seconds_bucket", **{label: "late"}, le="+Inf") == 3

    def test_requests_of_many_rows_are_counted_with_their_rows(self):
        metrics = Metrics()
        many = json.dumps({"instances": [GOOD] * 5}).encode()
        assert predictor(metrics=metrics).handle(many).status == 200
        assert value(metrics.render(), "seatrial_batch_requests_total", deployment="late") == 1
        assert value(metrics.render(), "seatrial_batch_rows_total", deployment="late") == 5

    def test_every_name_of_before_is_still_there(self):
        metrics = Metrics()
        served = predictor(metrics=metrics)
        served.handle(body(carrier="ZZ"))
        served.handle(b"")
        metrics.degraded("late", "1", 1)
        metrics.took_up("late", 4)
        metrics.distrusted("late", now=True)
        metrics.refused("late", "route.older")
        metrics.ready.set(1)
        found = samples(metrics.render())
        for name in (
            "model_predictions_total model_prediction_latency_seconds_bucket model_prediction_latency_seconds_sum "
            "model_prediction_latency_seconds_count model_prediction_errors_total model_unseen_categories_total "
            "model_degraded_predictions_total seatrial_ready seatrial_route_generation seatrial_distrusted "
            "seatrial_routes_refused_total process_cpu_seconds_total process_resident_memory_bytes "
            "process_virtual_memory_bytes process_start_time_seconds process_open_fds process_max_fds"
        ).split():
            assert found[name], name
        assert value(metrics.render(), "seatrial_route_generation", deployment="late") == 4

    def test_a_metric_has_no_more_series_than_it_may_and_counts_the_others_together(self):
        metrics = Metrics()
        for number in range(600):
            metrics.failed(f"model{number}", "a.code", deployment=f"d{number}", status=503)
        told = metrics.render()
        found = samples(told)
        assert len(found["model_prediction_errors_total"]) == 501
        assert sum(found["model_prediction_errors_total"].values()) == 600
        assert value(told, "model_prediction_errors_total", model_name=OTHER, code=OTHER) == 100
        assert value(told, "seatrial_series_over_limit_total", metric="model_prediction_errors") == 100
        assert sum(found["seatrial_requests_total"].values()) == 600

    def test_a_collector_of_another_part_is_shown_too(self):
        from prometheus_client import Gauge

        metrics = Metrics()
        Gauge("seatrial_something", "Of another part.", registry=metrics.registry).set(3)
        assert value(metrics.render(), "seatrial_something") == 3


class TestSeveralWorkers:
    def test_each_tells_the_sum_and_who_lags(self, tmp_path):
        one, two = Metrics(tmp_path, 0), Metrics(tmp_path, 1)
        for metrics, requests in ((one, 3), (two, 4)):
            served = predictor(metrics=metrics)
            for _ in range(requests):
                served.handle(body())
            metrics.flush()
            metrics.ready.set(1)
        one.took_up("late", 7)
        two.took_up("late", 6)
        one.flush()
        two.flush()
        for metrics in (one, two):
            told = metrics.render()
            assert value(told, "model_predictions_total", model_name="late", model_version="1") == 7
            assert value(told, "model_prediction_latency_seconds_count", model_name="late") == 7
            assert value(told, "seatrial_ready") == 1
            assert value(told, "seatrial_route_generation", deployment="late") == 6
            assert value(told, "seatrial_worker_route_generation", deployment="late", worker="1") == 6
            assert value(told, "seatrial_workers") == 2
            resident = samples(told)["seatrial_worker_resident_memory_bytes"].values()
            assert value(told, "process_resident_memory_bytes") == sum(resident) > 1e6
        two.ready.set(0)
        two.flush()
        assert value(one.render(), "seatrial_ready") == 0
        assert value(one.render(), "seatrial_worker_ready", worker="0") == 1
        one.close()
        two.close()

    def test_a_worker_that_is_started_again_goes_on_where_its_slot_was(self, tmp_path):
        beside = Metrics(tmp_path, 0)
        first = Metrics(tmp_path, 1)
        predictor(metrics=first).handle(body())
        first.failed("late", "a.code", deployment="late", status=500)
        first.took_up("late", 3)
        first.ready.set(1)
        cpu = value(first.render(), "seatrial_worker_cpu_seconds_total", worker="1")
        first.close()
        beside.ready.set(1)
        told = beside.render()
        assert value(told, "model_predictions_total", model_name="late", model_version="1") == 1
        assert value(told, "seatrial_workers") == 1
        assert value(told, "seatrial_worker_up", worker="1") == 0
        assert value(told, "seatrial_ready") == 0
        assert "seatrial_route_generation" not in samples(told)
        again = Metrics(tmp_path, 1)
        predictor(metrics=again).handle(body())
        again.failed("late", "a.code", deployment="late", status=500)
        again.flush()
        for metrics in (beside, again):
            told = metrics.render()
            assert value(told, "model_predictions_total", model_name="late", model_version="1") == 2
            assert value(told, "seatrial_requests_total", deployment="late", status="5xx") == 2
            assert value(told, "seatrial_worker_restarts_total", worker="1") == 1
            assert value(told, "seatrial_worker_restarts_total", worker="0") == 0
            assert value(told, "seatrial_ready") == 0
            assert value(told, "seatrial_worker_cpu_seconds_total", worker="1") > cpu
        beside.close()
        again.close()

    def test_series_of_a_version_of_seatrial_that_is_not_known_are_left_out(self, tmp_path):
        newer = Metrics(tmp_path, 0)
        newer._file.place("model_dreams", ("a", "b"), 3)
        newer._file.place("model_predictions", ("only one label",), 1)
        newer.close()
        metrics = Metrics(tmp_path, 1)
        assert b"dreams" not in metrics.render()
        metrics.close()
        again = Metrics(tmp_path, 0)
        assert b"dreams" not in again.render()
        again.close()

    def test_a_file_that_cannot_be_read_is_told_and_hides_nothing_else(self, tmp_path):
        metrics = Metrics(tmp_path, 0)
        path_of(tmp_path, 5).write_bytes(b"short")
        told = metrics.render()
        assert value(told, "seatrial_metrics_files_unreadable") == 1
        assert value(told, "seatrial_workers") == 1
        metrics.close()

    def test_a_slot_in_use_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("seatrial.serving.meters.slots.TAKE_SECONDS", 0.05)
        metrics = Metrics(tmp_path, 0)
        with pytest.raises(SlotTaken):
            Metrics(tmp_path, 0)
        metrics.close()

    def test_a_file_without_room_counts_the_rest_as_other(self, tmp_path):
        metrics = Metrics(tmp_path, 0)
        metrics._file._used = CELLS
        metrics.failed("late", "a.code")
        assert value(metrics.render(), "model_prediction_errors_total", model_name=OTHER, code=OTHER) == 1
        metrics.close()


WORKER = """
import sys
from pathlib import Path
from seatrial.serving import service
from seatrial.serving.workers import process
from seatrial.serving.meters.metrics import Metrics
from seatrial.stores.prediction_log import PredictionLog
from seatrial.releases.keyring import WatchedKeys
home, slot = Path(sys.argv[1]), int(sys.argv[2])
serving = service.from_bundle(home / "late.seatrial", trusted_keys=WatchedKeys(home / "keys"),
                              log=PredictionLog(home / "log"), metrics=Metrics(home / "metrics", slot))
process.run(serving, port=0, started=lambda url: print(url, flush=True))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "late.seatrial").write_bytes(bundle(Keys(home / "keys").key))
    return home


class TestServers:
    def test_a_killed_worker_takes_no_count_along_and_its_follower_goes_on(self, home):
        def start(slot):
            command = [sys.executable, "-c", WORKER, str(home), str(slot)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            return process, process.stdout.readline().strip()

        (one, first), (two, second) = start(0), start(1)
        try:
            for url in (first, second, second):
                assert b"prediction" in ask(url, "/predict", body())
            settled(first, 3)
            two.kill()
            two.wait()
            two.stdout.close()
            assert value(ask(first), "seatrial_workers") == 1
            two, second = start(1)
            assert b"prediction" in ask(second, "/predict", body())
            settled(first, 4)
            settled(second, 4)
            told = ask(second)
            assert value(told, "seatrial_http_requests_total", door="predict", status="2xx") == 4
            assert value(told, "seatrial_log_bytes_total") > 1000
            assert value(told, "seatrial_worker_restarts_total", worker="1") == 1
            assert value(told, "seatrial_ready") == 1
            assert value(told, "process_cpu_seconds_total") > 0
        finally:
            for process in (one, two):
                process.kill()
                process.wait()
                process.stdout.close()

    @pytest.mark.needs("promtool")
    def test_promtool_finds_nothing_and_unknown_paths_and_models_add_no_series(self, home):
        with server(home, bundle=str(home / "late.seatrial")) as (_, url):
            ask(url, "/predict", body())
            ask(url, "/predict", body(carrier="ZZ"))
            ask(url, "/predict", b"{")
            for path in ("/models/none/predict", "/none", "/health"):
                ask(url, path, b"{}" if "models" in path else None)
            ask(url, "/none", b"{}")
            ask(url, "/invocations", json.dumps({"instances": [GOOD]}).encode())
            ask(url, "/invocations", b"{}")
            ask(url)
            told = ask(url)
            checked = subprocess.run(["promtool", "check", "metrics"], input=told, capture_output=True)
            assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
            for door, status, times in (
                ("predict", "2xx", 2),
                ("predict", "4xx", 2),
                ("invocations", "2xx", 1),
                ("invocations", "4xx", 1),
                ("page", "4xx", 2),
                ("page", "2xx", 2),
            ):
                assert value(told, "seatrial_http_requests_total", door=door, status=status) == times, door
            before = len(told.splitlines())
            for number in range(600):
                ask(url, f"/{number}")
                ask(url, f"/models/{number}/predict", b"{}")
            assert len(ask(url).splitlines()) == before


def settled(url: str, rows: int) -> None:
    """Wait until the workers' numbers are written, which they are a few times a second; never less than before."""
    before = 0.0
    for _ in range(200):
        found = value(ask(url), "model_predictions_total", model_name="late", model_version="1")
        assert found >= before
        before = found
        if found == rows:
            return
    raise AssertionError(f"{before} rows were told of {rows}")
