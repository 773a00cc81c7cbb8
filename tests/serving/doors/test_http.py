"""The HTTP door of a server in a process of its own, with real sockets."""

from __future__ import annotations

import contextlib
import html.parser
import json
import re
import resource
import signal
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest

from seatrial.serving.clients.client import BadUrl, Client, NotSeatrial, ServerRefused, ServerUnable, ServerUnreachable
from seatrial.serving.service import Service
from seatrial.serving.workers.process import CannotListen, PortInUse, run
from seatrial.stores.prediction_log import PredictionLog
from tests.serving.scoring.test_requests import BAD
from tests.serving.worlds import GOOD, Keys, bundle, predictor, release, server


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    keys = Keys(home / "keys")
    (home / "late.seatrial").write_bytes(bundle(keys.key))
    return home


@pytest.fixture(scope="module")
def url(home):
    with server(home, bundle=str(home / "late.seatrial"), slow_seconds=1.0) as (_, url):
        yield url


@pytest.fixture
def client(url):
    with Client(url) as client:
        yield client


def raw(url: str, data: bytes, *, wait: float = 10.0) -> bytes:
    """Everything that the server sends for some bytes until it stops or closes."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), wait) as connection:
        connection.sendall(data)
        answer = connection.recv(65536)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        while len(body) < length:
            more = connection.recv(65536)
            answer, body = answer + more, body + more
    return answer


def post(body: bytes, *headers: str, path: str = "/predict", length: int | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def problem(answer: bytes) -> tuple[int, dict]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return int(head[9:12]), json.loads(body)


def test_a_prediction_over_http_is_in_the_log(client, home):
    found = client.predict(GOOD, request_id="over http")
    (row,) = PredictionLog(home / "log").find("over http")
    assert row["prediction_id"] == found["prediction_id"]
    assert row["probability"] == found["probability"]


def test_a_model_is_asked_by_name_or_alone(client):
    one = client.predict(GOOD)
    assert client.predict(GOOD, model="late")["probability"] == one["probability"]
    many = client.predict_many([GOOD, GOOD], model="late", return_features=True)
    assert many["predictions"][1]["features"]["distance"] == 544.0
    for name in ("nope", "../late", "late/x", "%2e%2e", "\x00", "a" * 4000):
        with pytest.raises(ServerRefused) as error:
            client.predict(GOOD, model=name)
        assert error.value.facts["code"] == "http.not_found"


@pytest.mark.parametrize("content", ["application/json; charset=utf-8", "text/plain", "x"])
def test_the_content_type_does_not_matter(url, content):
    assert raw(url, post(json.dumps({"features": GOOD}).encode(), f"content-type: {content}"))[9:12] == b"200"


def test_bad_bodies_are_problem_documents_and_the_server_goes_on(url, client):
    for data, _ in BAD.values():
        if len(data) < 2**20:
            status, found = problem(raw(url, post(data)))
            assert 400 <= status < 500
            assert found["status"] == status
            assert found["code"].startswith("request.")
            assert "4711" not in json.dumps(found)
    assert client.predict(GOOD)["prediction"] in (0, 1)


class TestBodies:
    def test_a_body_that_claims_too_much_is_refused_before_it_comes(self, url):
        for claim in (2**20 + 1, 99 * 10**9):
            assert problem(raw(url, post(b"{", length=claim)))[1]["code"] == "http.body_too_large"
        assert raw(url, post(b"{", length=10**30))[9:12] == b"400"

    def test_a_body_that_says_nothing_of_its_length_is_counted(self, url):
        chunk = b"%x\r\n%b\r\n" % (2**16, b" " * 2**16)
        data = b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + chunk * 17
        status, found = problem(raw(url, data))
        assert (status, found["code"]) == (413, "http.body_too_large")

    def test_a_chunked_body_is_read(self, url):
        body = json.dumps({"features": GOOD}).encode()
        data = b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        data += b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        assert raw(url, data)[9:12] == b"200"

    def test_a_body_that_does_not_come_is_given_up(self, url, client):
        status, found = problem(raw(url, post(b'{"features"', length=500)))
        assert (status, found["code"]) == (408, "http.body_too_slow")
        assert client.predict(GOOD)

    def test_a_compressed_body_is_refused(self, url):
        status, found = problem(raw(url, post(b"\x1f\x8b" + bytes(50), "content-encoding: gzip")))
        assert (status, found["code"]) == (415, "http.body_encoded")

    def test_two_hundred_half_sent_requests_do_not_keep_a_good_one_waiting(self, url, client):
        parts = urlsplit(url)
        half_open = []
        try:
            for number in range(200):
                connection = socket.create_connection((parts.hostname, parts.port), 5)
                connection.sendall(b"POST /predict HTTP/1.1\r\nhost" if number % 2 else post(b"{", length=500))
                half_open.append(connection)
            assert client.predict(GOOD)["prediction"] in (0, 1)
        finally:
            for connection in half_open:
                connection.close()

    def test_what_is_no_http_is_a_400(self, url):
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), 5) as connection:
            connection.sendall(b"\x16\x03\x01 secret-4711\r\n\r\n")
            answer = connection.recv(65536)
        assert answer[9:12] == b"400"
        assert b"4711" not in answer


def everything(url: str, data: bytes) -> bytes:
    """All that the server sends for some bytes until it closes."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), 10) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


class TestWhatIsNotHttp:
    @pytest.mark.parametrize(
        "data",
        [
            b"\x16\x03\x01 secret-4711\r\n\r\n",
            b"FETCH /predict HTTP/1.1\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 4\r\n\r\n4711",
            b"POST /predict HTTP/9.9\r\nhost: x\r\n\r\n",
            b"POST http://[::1 HTTP/1.1\r\nhost: x\r\n\r\n",
            b"POST /pr\xffdict HTTP/1.1\r\nhost: x\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nsecret-4711\r\n\r\n",
            b"POST /predict HTTP/1.1\r\ncontent-length: x4711\r\n\r\n",
            b"POST /predict HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n{}",
            b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nsecret-4711\r\n",
        ],
    )
    def test_it_is_a_problem_document_like_any_other_and_ends_the_connection(self, url, client, data):
        answer = everything(url, data)
        status, found = problem(answer)
        assert (status, found["code"]) == (400, "http.not_http")
        assert answer.count(b"HTTP/1.1") == 1
        assert b"connection: close" in answer
        assert b"4711" not in answer
        assert client.predict(GOOD)
        assert 'model_prediction_errors_total{code="http.not_http",model_name=""}' in client.get("/metrics").decode()

    def test_a_head_that_does_not_end_is_given_up(self, url):
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), 10) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\n")
            answer = b""
            for number in range(10_000):
                connection.sendall(b"x-%d: 0\r\n" % number * 100)
                connection.setblocking(False)
                try:
                    answer = connection.recv(65536)
                except BlockingIOError:
                    continue
                finally:
                    connection.setblocking(True)
                break
        assert problem(answer)[1]["code"] == "http.head_too_large"


class TestOneConnection:
    BODY = json.dumps({"features": GOOD}).encode()

    def test_answers_come_in_the_order_of_requests_sent_at_once(self, url):
        asked = [json.dumps({"features": GOOD, "request_id": f"piped {number}"}).encode() for number in range(40)]
        data = b"".join(map(post, asked[:20])) + b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
        data += b"".join(map(post, asked[20:])) + post(b"{", "connection: close") + post(self.BODY)
        answer = everything(url, data)
        found = re.findall(rb'HTTP/1.1 (\d+)|"request_id":"piped (\d+)"|("live":true)', answer)
        told = [b"".join(one).decode() for one in found]
        first, then = ([word for n in numbers for word in ("200", str(n))] for numbers in (range(20), range(20, 40)))
        expected = [*first, "200", '"live":true', *then, "400"]
        assert told == expected

    def test_a_body_is_asked_for_when_the_caller_wants_to_be(self, url):
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), 10) as connection:
            connection.sendall(post(b"", "expect: 100-continue", length=len(self.BODY)))
            assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(self.BODY)
            assert connection.recv(65536)[9:12] == b"200"
            connection.sendall(post(b"", "expect: 100-continue", length=2**20 + 1))
            assert connection.recv(65536)[9:12] == b"413"

    def test_an_old_client_or_one_that_says_so_is_closed_after_its_answer(self, url):
        for data in (post(self.BODY).replace(b"HTTP/1.1", b"HTTP/1.0"), post(self.BODY, "connection: close")):
            answer = everything(url, data)
            assert answer[9:12] == b"200"
            assert b"connection: close" in answer

    def test_a_caller_that_does_not_read_its_answers_keeps_nobody_else_waiting(self, url, client):
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), 5) as greedy:
            greedy.setblocking(False)
            for _ in range(400):
                with contextlib.suppress(BlockingIOError):
                    greedy.send(post(self.BODY) * 100)
                assert client.predict(GOOD)


def test_fifty_connections_that_trickle_their_bytes_do_not_stop_other_answers(url):
    parts = urlsplit(url)
    body = json.dumps({"features": GOOD}).encode()
    slow = [socket.create_connection((parts.hostname, parts.port), 5) for _ in range(50)]
    done = threading.Event()

    def trickle():
        data = post(body, "x-a: 1", "x-b: 2")
        for position in range(10**9):
            for number, connection in enumerate(slow):
                with contextlib.suppress(OSError):  # a server may be tired of some
                    byte = (position + number * 7) % len(data) if position else 0
                    connection.send(data[byte : byte + 1])
            if done.wait(0.02):
                return

    trickling = threading.Thread(target=trickle)
    trickling.start()
    try:
        with Client(url, timeout=10) as client:
            for _ in range(500):
                assert client.predict(GOOD)["prediction"] in (0, 1)
    finally:
        done.set()
        trickling.join()
        for connection in slow:
            connection.close()


class TestTheLogsDisk:
    def test_an_answer_that_the_disk_does_not_take_is_a_503_and_in_no_log(self, home, tmp_path):
        (tmp_path / "keys").symlink_to(home / "keys")
        answered = []
        with server(tmp_path, bundle=str(home / "late.seatrial")) as (process, url), Client(url) as client:
            answered.append(client.predict(GOOD)["prediction_id"])
            (segment,) = (tmp_path / "log" / "segments").glob("*.seg")
            size = segment.stat().st_size
            _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size + 100, hard))
            for _ in range(3):
                status, found = problem(raw(url, post(json.dumps({"features": GOOD, "request_id": "lost"}).encode())))
                assert (status, found["code"]) == (503, "log.unwritable")
            piped = post(json.dumps({"features": GOOD, "request_id": "lost"}).encode()) * 5
            answer = everything(url, piped + b"GET / HTTP/1.0\r\n\r\n")
            assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"503"] * 5 + [b"200"]
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
            answered.append(client.predict(GOOD)["prediction_id"])
        log = PredictionLog(tmp_path / "log")
        assert log.rows(columns=["prediction_id"])["prediction_id"].to_pylist() == answered
        assert log.find("lost") == []

    def test_a_file_in_the_way_of_the_log_is_the_same(self, home, tmp_path):
        (tmp_path / "keys").symlink_to(home / "keys")
        (tmp_path / "log").write_text("in the way")
        with server(tmp_path, bundle=str(home / "late.seatrial")) as (_, url):
            status, found = problem(raw(url, post(json.dumps({"features": GOOD}).encode())))
            assert (status, found["code"]) == (503, "log.unwritable")
            (tmp_path / "log").unlink()
            with Client(url) as client:
                assert client.predict(GOOD)


def test_other_methods_and_paths_are_problem_documents(url):
    assert problem(raw(url, b"GET /predict HTTP/1.1\r\nhost: x\r\n\r\n"))[1]["code"] == "http.method_not_allowed"
    assert problem(raw(url, b"DELETE /models/late/predict HTTP/1.1\r\nhost: x\r\n\r\n"))[0] == 405
    status, found = problem(raw(url, b"GET /secret-4711 HTTP/1.1\r\nhost: x\r\n\r\n"))
    assert (status, found["code"]) == (404, "http.not_found")
    assert "4711" not in json.dumps(found)
    assert problem(raw(url, b"POST /health HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"))[0] == 405


class TestPages:
    def test_health_and_readiness(self, client):
        assert json.loads(client.get("/health")) == {"live": True}
        state = client.ready()
        assert state["ready"]
        assert state["deployments"]["late"]["arms"][0]["version"] == "1"

    def test_metrics_count_what_was_asked(self, client):
        def count() -> float:
            text = client.get("/metrics").decode()
            found = re.search(r'model_predictions_total\{model_name="late",model_version="1"\} ([\d.]+)', text)
            return float(found[1])

        before = count()
        for _ in range(3):
            client.predict(GOOD)
        assert count() == before + 3
        assert (
            'model_prediction_latency_seconds_bucket{le="0.001",model_name="late"}' in client.get("/metrics").decode()
        )

    def test_the_api_document_tells_the_fields_of_the_model_and_its_example_is_answered(self, client):
        document = json.loads(client.get("/openapi.json"))
        row = document["components"]["schemas"]["late_row"]
        assert row["required"] == ["distance", "seats", "carrier", "night"]
        assert row["properties"]["distance"]["type"] == ["number", "null"]
        assert row["properties"]["seats"] == {"type": "integer", "minimum": -(2**24), "maximum": 2**24}
        assert row["additionalProperties"] is False
        for path in ("/predict", "/models/late/predict"):
            operation = document["paths"][path]["post"]
            assert {"200", "400", "413", "422", "503"} <= operation["responses"].keys()
            examples = operation["requestBody"]["content"]["application/json"]["examples"]
            assert client.predict(examples["one"]["value"]["features"])
            assert client.predict_many(examples["many"]["value"]["instances"])
        assert {"/health", "/ready", "/metrics"} <= document["paths"].keys()
        references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
        assert references <= document["components"]["schemas"].keys()

    @pytest.mark.parametrize("path", ["/", "/docs"])
    def test_pages_for_people_fetch_nothing_and_run_nothing(self, client, path):
        text = client.get(path).decode()
        found: list[tuple[str, dict]] = []

        class Tags(html.parser.HTMLParser):
            def handle_starttag(self, tag, attrs):
                found.append((tag, dict(attrs)))

        Tags().feed(text)
        assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in found}
        assert all(attrs.get("href", "/").startswith("/") for _, attrs in found)
        assert "late" in text


class TestClient:
    def test_a_refusal_carries_what_the_server_named(self, client):
        with pytest.raises(ServerRefused) as error:
            client.predict(GOOD | {"seats": "x"})
        assert error.value.facts == {"status": 422, "code": "request.bad_field", "field": "seats"}
        assert "'seats'" in str(error.value)

    def test_no_server_is_unavailable(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(ServerUnreachable, match="does not answer"):
            Client(f"http://127.0.0.1:{port}").predict(GOOD)

    def test_what_is_no_address_is_a_usage_error(self):
        for url in ("127.0.0.1:80", "https://x", "ftp://x"):
            with pytest.raises(BadUrl):
                Client(url)

    @pytest.mark.parametrize(
        "url",
        [
            *("", "htp:/x", "http://", "http://:80", "http://[::1", "http://x:y", "http://x:0", "http://x:99999"),
            *("http://x:-1", "http://x/path", "http://x?a", "http://a b", "http://x\n", "http://me:secret@x"),
            *("http://x#a", "http://..x", "http://\x00", "http:///x", f"http://{'a' * 70}"),
        ],
    )
    def test_odd_addresses_are_usage_errors(self, url):
        with pytest.raises(BadUrl) as error:
            Client(url)
        assert error.value.exit_code == 2

    @pytest.mark.parametrize(
        ("answer", "wrong"),
        [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", NotSeatrial),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", NotSeatrial),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", NotSeatrial),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", NotSeatrial),
            (b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", NotSeatrial),
            (b"HTTP/1.1 301 Moved\r\ncontent-length: 0\r\nlocation: /\r\n\r\n", NotSeatrial),
            (b"HTTP/1.1 404 Not Found\r\ncontent-length: 6\r\n\r\n<html>", NotSeatrial),
            (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\n\r\n<html>", ServerUnable),
            (b"HTTP/1.1 abc\r\ncontent-length: 2\r\n\r\n{}", NotSeatrial),
            (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n{}", NotSeatrial),
            (b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n{}", NotSeatrial),
            (b"HTTP/1.1 200 OK\r\n\r\n{}", NotSeatrial),
            (b"SSH-2.0-x\r\n\r\n", NotSeatrial),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{}", ServerUnreachable),
            (b"HTTP/1.1 200 OK\r\ncont", ServerUnreachable),
            (b"", ServerUnreachable),
        ],
    )
    def test_a_peer_that_is_no_such_server_is_told_apart_from_one_that_is_down(self, answer, wrong):
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()

            def peer():
                with listening.accept()[0] as connection:
                    connection.recv(65536)
                    connection.sendall(answer)

            answering = threading.Thread(target=peer)
            answering.start()
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            with Client(url, retries=0) as client, pytest.raises(wrong) as error:
                client.predict(GOOD)
            answering.join()
        assert error.value.exit_code == (2 if wrong is NotSeatrial else 6)

    def test_a_connection_that_was_closed_in_the_meantime_is_opened_again(self, home):
        with server(home, bundle=str(home / "late.seatrial")) as (process, url), Client(url) as client:
            client.predict(GOOD)
            process.kill()
            process.wait()
            port = urlsplit(url).port
            with server(home, bundle=str(home / "late.seatrial"), port=port) as (_, again):
                assert again == url
                assert client.predict(GOOD)


def test_the_server_process_reaches_nothing_that_trains(home):
    with server(home, bundle=str(home / "late.seatrial"), modules=True) as (process, url):
        with Client(url) as client:
            client.predict(GOOD)
            client.get("/docs")
            client.get("/metrics")
        process.send_signal(signal.SIGTERM)
        modules = json.loads(process.stdout.readline())
        assert process.wait(10) == 0
    reached = {name.partition(".")[0] for name in modules}
    assert not reached & {"mlflow", "sklearn", "pandas", "lightgbm", "onnx", "skl2onnx", "skops", "duckdb", "pyarrow"}


def test_a_terminated_server_answers_what_has_come_in_and_closes_its_segment(home, tmp_path):
    (tmp_path / "keys").symlink_to(home / "keys")
    with server(tmp_path, bundle=str(home / "late.seatrial")) as (process, url), Client(url) as client:
        parts = urlsplit(url)
        body = json.dumps({"features": GOOD, "request_id": "the last"}).encode()
        with socket.create_connection((parts.hostname, parts.port), 5) as connection:
            connection.sendall(post(body[:10], length=len(body)))
            client.get("/health")
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            connection.sendall(body[10:])
            assert connection.recv(65536)[9:12] == b"200"
        assert process.wait(10) == 0
    log = PredictionLog(tmp_path / "log")
    assert len(log.find("the last")) == 1
    assert [(report.closed, report.records, report.torn) for report in log.verify()] == [(True, 1, 0)]


def test_killing_the_server_under_load_loses_no_answer(home):
    answered = []
    for _ in range(3):
        with server(home, bundle=str(home / "late.seatrial")) as (process, url), Client(url) as client:
            for number in range(150):
                answered.append(client.predict(GOOD, request_id=f"load {number}")["prediction_id"])
            process.kill()
            process.wait()
    found = PredictionLog(home / "log").rows(columns=["prediction_id"])["prediction_id"].to_pylist()
    assert set(answered) <= set(found)
    assert len(found) == len(set(found))


def test_a_replaying_server_takes_the_instant_from_the_request(home):
    with server(home, bundle=str(home / "late.seatrial"), replay=True) as (_, url), Client(url) as client:
        from datetime import UTC, datetime

        found = client.predict(GOOD, at=datetime(2013, 4, 1, 5, tzinfo=UTC))
    (row,) = PredictionLog(home / "log").find(found["prediction_id"])
    assert row["at"] == datetime(2013, 4, 1, 5, tzinfo=UTC)
    with Client("http://127.0.0.1:1") as client, pytest.raises(Exception, match="no zone"):
        client.predict(GOOD, at=datetime(2013, 4, 1, 5))


def test_a_port_in_use_is_a_clear_error():
    service = Service()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PortInUse) as error:
            run(service, port=taken.getsockname()[1])
    assert error.value.exit_code == 6
    assert "--port" in str(error.value)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "300.1.1.1", "a b", "..", "\x00", "a" * 70, "192.0.2.1"])
def test_what_is_no_address_of_this_machine_is_a_clear_error(host):
    with pytest.raises(CannotListen) as error:
        run(Service(), host=host, port=0)
    assert error.value.exit_code == 2
    with pytest.raises(CannotListen):
        run(Service(), port=70_000)


def test_a_server_with_several_models_asks_which(tmp_path):
    service = Service()
    service.serve("late", predictor(release()))
    assert service.predictor(None) is service.predictor("late")
    service.serve("fare", predictor(release(model="fare")))
    with pytest.raises(Exception, match="several models"):
        service.predictor(None)
    assert ServerUnable.exit_code == 6
