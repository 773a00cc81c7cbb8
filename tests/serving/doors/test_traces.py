"""Traces, as a collector gets them over HTTP; and servers whose collector is away, slow or broken."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from seatrial.serving.doors import traces
from seatrial.serving.doors.traces import MOST_WAITING, Context, Trace, Traces, _parsed, _share, from_environment
from seatrial.serving.meters.metrics import Metrics
from tests.serving.meters.test_metrics import body, value
from tests.serving.worlds import GOOD, SERVER, Keys, bundle

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """A collector that keeps what it is sent. slow: seconds before it answers; status: with what."""

    def __init__(self) -> None:
        self.spans: list = []
        self.slow, self.status = 0.0, 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                data = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    data = gzip.decompress(data)
                assert self.headers["content-type"] == "application/x-protobuf"
                time.sleep(collector.slow)
                if collector.status == 200:
                    for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
                        named = {one.key: one.value.string_value for one in resource.resource.attributes}
                        for scope in resource.scope_spans:
                            collector.spans += [(named["service.name"], span) for span in scope.spans]
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def wait(self, spans: int) -> list:
        for _ in range(500):
            if len(self.spans) >= spans:
                return self.spans
            time.sleep(0.02)
        raise AssertionError(f"{len(self.spans)} spans came")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector():
    one = Collector()
    yield one
    one.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "late.seatrial").write_bytes(bundle(Keys(home / "keys").key))
    return home


class Server:
    def __init__(self, home, *, modules: bool = False, **environment: str):
        options = {"bundle": str(home / "late.seatrial"), "modules": modules}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(home), json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        at = urlsplit(self.process.stdout.readline().strip())
        self.at = (at.hostname, at.port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.told, self.said = self.process.stdout.read(), self.process.stderr.read()
        assert self.process.wait(30) == 0
        self.process.stdout.close()
        self.process.stderr.close()

    def ask(self, data: bytes | None, path: str = "/predict", **headers: str) -> tuple[int, bytes, str | None]:
        connection = http.client.HTTPConnection(*self.at)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if data is None else "POST", path, data, named)
        answer = connection.getresponse()
        found = answer.status, answer.read(), answer.getheader("traceparent")
        connection.close()
        return found


def facts(span) -> dict:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


class TestServers:
    def test_a_callers_trace_goes_on_with_a_span_for_each_stage_and_one_not_sampled_does_not(self, home, collector):
        with Server(home, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_TRACES_SAMPLER_ARG="0") as server:
            assert server.ask(body(), traceparent=PARENT[:-1] + "0")[2] is None
            status, answer, traceparent = server.ask(body(), traceparent=PARENT)
            assert status == 200
            spans = [span for _, span in collector.wait(4)]
            assert b'outcome="sent"' in server.ask(None, "/metrics")[1]
        assert {span.name for span in spans} == {"predict late", "read", "score", "log"}
        root = next(span for span in spans if span.name == "predict late")
        assert {span.trace_id.hex() for span in spans} == {PARENT[3:35]}
        assert root.parent_span_id.hex() == PARENT[36:52]
        assert traceparent == f"00-{PARENT[3:35]}-{root.span_id.hex()}-01"
        for span in spans:
            if span is not root:
                assert span.parent_span_id == root.span_id
            assert root.start_time_unix_nano <= span.start_time_unix_nano
            assert span.start_time_unix_nano <= span.end_time_unix_nano <= root.end_time_unix_nano
        assert abs(root.end_time_unix_nano / 1e9 - time.time()) < 60
        told = facts(root)
        assert told["seatrial.prediction_id"] == json.loads(answer)["prediction_id"]
        assert (told["seatrial.rows"], told["seatrial.model_version"]) == (1, "1")
        assert not any(str(given) in str(told) for given in GOOD.values() if isinstance(given, str | float))

    def test_what_is_refused_is_traced_with_its_code_and_every_door_is(self, home, collector):
        with Server(
            home,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector.url + "/v1/traces",
            OTEL_TRACES_SAMPLER_ARG="1.0",
            OTEL_SERVICE_NAME="checkout",
        ) as server:
            assert server.ask(b"{")[0] == 400
            assert (
                server.ask(json.dumps({"instances": [GOOD]}).encode(), "/invocations", content_type="application/json")[
                    0
                ]
                == 200
            )
            spans = collector.wait(5)
        assert {name for name, _ in spans} == {"checkout"}
        roots = [facts(span) for _, span in spans if span.name == "predict late"]
        assert [one["http.response.status_code"] for one in roots] == [400, 200]
        assert roots[0]["error.type"] == "request.not_json"

    def test_answers_of_every_door_say_in_which_trace_they_were_made(self, home, collector):
        tensors = [
            {"name": name, "datatype": datatype, "shape": [1], "data": [GOOD[name]]}
            for name, datatype in (("distance", "FP64"), ("seats", "INT64"), ("night", "BOOL"), ("carrier", "BYTES"))
        ]
        sound = {"/predict": {"features": GOOD}, "/invocations": {"instances": [GOOD]}}
        sound["/v2/models/late/infer"] = {"inputs": tensors}
        bad = {"/predict": {"features": {}}, "/invocations": {"instances": [{}]}}
        with Server(home, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_TRACES_SAMPLER_ARG="0") as server:
            for asked, kind in ((sound, 2), (bad, 4)):
                for path, given in asked.items():
                    data = json.dumps(given).encode()
                    status, _, found = server.ask(data, path, traceparent=PARENT, content_type="application/json")
                    assert (status // 100, str(found)[:36]) == (kind, PARENT[:36])
                    assert server.ask(data, path, content_type="application/json")[2] is None

    @pytest.mark.parametrize("state", ["away", "slow"])
    def test_a_collector_that_does_not_answer_changes_no_answer(self, home, collector, state):
        collector.slow = 30.0
        url = "http://127.0.0.1:9" if state == "away" else collector.url
        with Server(
            home, OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_TRACES_SAMPLER_ARG="1", OTEL_EXPORTER_OTLP_TIMEOUT="1"
        ) as server:
            began = time.monotonic()
            for _ in range(30):
                assert server.ask(body())[0] == 200
            if state != "slow":
                for _ in range(300):
                    if b'seatrial_traces_total{outcome="dropped"} 30' in server.ask(None, "/metrics")[1]:
                        break
                    time.sleep(0.05)
                else:
                    raise AssertionError("no trace was dropped")
            assert time.monotonic() - began < 25  # the slow one answers after 30 s
        assert "Traceback" not in server.said
        assert server.said.count("the collector does not take traces") <= 1

    def test_without_a_collector_nothing_of_it_is_loaded(self, home):
        with Server(home, modules=True, OTEL_EXPORTER_OTLP_ENDPOINT="") as server:
            assert server.ask(body(), traceparent=PARENT)[2] is None
        loaded = json.loads(server.told.splitlines()[-1])
        assert "seatrial.serving.doors.traces" in loaded
        assert [name for name in loaded if name.startswith(("opentelemetry", "requests", "google.protobuf"))] == []


class TestWhatIsTraced:
    @pytest.mark.parametrize(
        ("header", "found"),
        [
            (PARENT, Context(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True)),
            (PARENT[:-2] + "00", Context(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, False)),
            (
                "cc" + PARENT[2:] + "-what-comes-later",
                Context(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True),
            ),
            (PARENT + "-more", None),
            ("ff" + PARENT[2:], None),
            (PARENT.upper(), None),
            ("00-" + "0" * 32 + PARENT[35:], None),
            (PARENT[:36] + "0" * 16 + "-01", None),
            ("", None),
            ("00-", None),
        ],
    )
    def test_a_traceparent_is_read_as_w3c_defines_it(self, header, found):
        assert _parsed(header.encode()) == found

    @pytest.mark.parametrize(
        ("environment", "share"),
        [
            ({}, 0.01),
            ({"OTEL_TRACES_SAMPLER_ARG": "0.5"}, 0.5),
            ({"OTEL_TRACES_SAMPLER": "parentbased_always_on"}, 1.0),
            ({"OTEL_TRACES_SAMPLER_ARG": "2"}, 0.01),
            ({"OTEL_TRACES_SAMPLER_ARG": "nan"}, 0.01),
            ({"OTEL_TRACES_SAMPLER_ARG": "many"}, 0.01),
        ],
    )
    def test_the_share_is_what_the_environment_says(self, environment, share):
        assert _share(environment) == share

    @pytest.mark.parametrize(
        "environment",
        [
            {},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_SAMPLER": "always_off"},
        ],
    )
    def test_nothing_is_traced_unless_the_environment_asks_for_it(self, environment):
        assert from_environment(environment, Metrics()) is None

    def test_without_the_extra_the_server_says_so_and_goes_on(self, monkeypatch, caplog):
        monkeypatch.setattr(traces, "_installed", lambda: False)
        assert from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, Metrics()) is None
        assert "seatrial[otel]" in caplog.text

    def test_what_waits_to_be_sent_is_bounded_and_what_is_dropped_is_counted(self):
        release, metrics = threading.Event(), Metrics()

        class Stuck:
            def export(self, _spans):
                release.wait()
                raise OSError("the collector hung up")

            def shutdown(self):
                pass

        sending = Traces(Stuck(), metrics)
        one = Trace(Context(1, 0, True), 2, "late", "late", 1e15, 1e15 + 5, [("read", 1e15, 1e15 + 1)])
        more = MOST_WAITING + 3 * traces.BATCH
        for _ in range(more):
            sending.take(one)
        dropped = value(metrics.render(), "seatrial_traces_total", outcome="dropped")
        assert dropped >= more - MOST_WAITING - 2 * traces.BATCH
        release.set()
        sending.close()
        sending._thread.join(60)  # a busy machine takes longer than a server waits at its end
        assert value(metrics.render(), "seatrial_traces_total", outcome="dropped") == more
