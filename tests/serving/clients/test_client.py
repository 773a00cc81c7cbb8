"""Both clients against the same servers: what they tell, what they ask again, and what of it can be told afterwards."""

from __future__ import annotations

import asyncio
import inspect
import select
import socket
import threading
from collections import Counter
from contextlib import contextmanager, suppress

import pytest

from seatrial.serving.clients.async_client import AsyncClient
from seatrial.serving.clients.client import (
    BadUrl,
    Client,
    NotSeatrial,
    Prediction,
    ServerRefused,
    ServerUnable,
    ServerUnreachable,
)
from seatrial.serving.service import Service
from seatrial.stores.prediction_log import PredictionLog
from tests.serving.worlds import GOOD, Keys, bundle, in_thread, predictor, release, server

OK = b'{"prediction":1,"probability":0.5,"model_version":"1","prediction_id":"p","release":"r","latency_ms":1}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(OK), OK)
BUSY = b'{"code":"serving.too_busy","detail":"too much to do"}'
LATER = b"HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: %d\r\n\r\n%b" % (len(BUSY), BUSY)


class InLoop:
    """The client of an event loop, as the other one is used."""

    def __init__(self, *given, **options):
        self.loop = asyncio.new_event_loop()
        self.client = self.loop.run_until_complete(self.made(*given, **options))

    async def made(self, *given, **options):
        return AsyncClient(*given, **options)

    def __getattr__(self, name):
        method = getattr(self.client, name)
        return lambda *given, **options: self.loop.run_until_complete(method(*given, **options))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.loop.run_until_complete(self.client.close())
        self.loop.close()


@pytest.fixture(params=[Client, InLoop], ids=["sync", "async"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return PredictionLog(tmp_path_factory.mktemp("home") / "log")


@pytest.fixture(scope="module")
def url(log):
    service = Service(log=log)
    service.serve("late", predictor(release(), log=log, metrics=service.metrics))
    service.prove()
    with in_thread(service) as url:
        yield url


@pytest.fixture
def client(kind, url):
    with kind(url) as client:
        yield client


def whole(connection: socket.socket) -> bytes:
    """One request, or what came of it: closing over unread bytes would reset the connection."""
    data = b""
    while more := connection.recv(65536):
        data += more
        head, end, body = data.partition(b"\r\n\r\n")
        sizes = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if end and len(body) >= int(sizes[0] if sizes else 0):
            break
    return data


@contextmanager
def scripted(*answers):
    """A server that says one thing on each connection and closes it, and what it was asked. None: it says nothing."""
    asked = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        for answer in answers:
            with suppress(OSError):  # the test is over, or the caller has gone
                connection, _ = listening.accept()
                with connection:
                    asked.append(whole(connection))
                    if answer:
                        connection.sendall(answer)
        listening.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
    listening.close()


class TestAnswers:
    def test_they_are_typed_and_can_be_read_as_mappings(self, client):
        one = client.predict(GOOD, request_id="typed", return_features=True)
        assert isinstance(one, Prediction)
        assert (one.prediction, one.request_id, one.attempts) == (one["prediction"], "typed", 1)
        assert one.features["distance"] == GOOD["distance"]
        assert "degraded" not in one
        assert one.get("degraded", "no") == "no"
        assert {"prediction", "probability"} <= set(one)
        assert "attempts" not in one.as_dict()
        with pytest.raises(KeyError):
            one["degraded"]

    def test_many_rows_are_told_in_order(self, client):
        rows = [GOOD | {"distance": distance} for distance in (100.0, 2900.0)]
        many = client.predict_many(rows, model="late")
        assert [one.probability for one in many.predictions] == pytest.approx(
            [client.predict(row).probability for row in rows], abs=1e-6
        )
        assert many["predictions"][0]["model_version"] == "1"

    def test_health_and_readiness_are_told(self, client):
        assert client.health().live
        assert client.ready().ready
        assert client.ready().deployments["late"]["arms"][0]["version"] == "1"
        assert b"model_predictions_total" in client.get("/metrics")

    def test_a_server_that_is_not_ready_is_an_answer_too(self, kind):
        with in_thread(Service()) as url, kind(url, retries=0) as client:
            assert not client.ready().ready
            with pytest.raises(ServerUnable) as error:
                client.predict(GOOD)
            assert error.value.facts["code"] == "serving.not_ready"

    def test_refusals_name_the_field(self, client):
        with pytest.raises(ServerRefused) as error:
            client.predict(GOOD | {"seats": "x"})
        assert error.value.facts == {"status": 422, "code": "request.bad_field", "field": "seats"}

    def test_every_request_has_an_id_that_the_log_knows(self, client, log):
        found = client.predict(GOOD)
        assert found.request_id != found.prediction_id
        assert [row["prediction_id"] for row in log.find(found.request_id)] == [found.prediction_id]


class TestAskingAgain:
    def test_a_lost_connection_is_asked_again_with_the_same_id(self, kind):
        with scripted(None, ANSWER[:30], ANSWER) as (url, asked), kind(url) as client:
            assert client.predict(GOOD).attempts == 3
        assert len(asked) == 3
        assert len({data.partition(b'"request_id":')[2] for data in asked}) == 1

    def test_a_server_that_says_when_is_asked_again(self, kind):
        with scripted(LATER, ANSWER) as (url, asked), kind(url) as client:
            assert client.predict(GOOD, request_id="mine").prediction == 1
        assert [b'"request_id":"mine"' in data for data in asked] == [True, True]

    def test_one_that_does_not_say_is_not(self, kind):
        with (
            scripted(LATER.replace(b"retry-after: 0\r\n", b""), ANSWER) as (url, asked),
            kind(url) as client,
            pytest.raises(ServerUnable, match="too much to do"),
        ):
            client.predict(GOOD)
        assert len(asked) == 1

    def test_a_refusal_is_not(self, kind):
        with (
            scripted(LATER.replace(b"503", b"422"), ANSWER) as (url, asked),
            kind(url) as client,
            pytest.raises(ServerRefused),
        ):
            client.predict(GOOD)
        assert len(asked) == 1

    def test_it_ends(self, kind):
        with (
            scripted(None, None, None, ANSWER) as (url, asked),
            kind(url) as client,
            pytest.raises(ServerUnreachable, match="3 attempts") as error,
        ):
            client.predict(GOOD)
        assert len(asked) == 3
        assert "not known" in error.value.state

    def test_and_does_not_begin_without_retries(self, kind):
        with scripted(None, ANSWER) as (url, asked), kind(url, retries=0) as client, pytest.raises(ServerUnreachable):
            client.predict(GOOD)
        assert len(asked) == 1

    def test_not_beyond_the_deadline(self, kind):
        soon = LATER.replace(b"retry-after: 0", b"retry-after: 60")
        with scripted(soon, ANSWER) as (url, asked), kind(url, deadline=5.0) as client, pytest.raises(ServerUnable):
            client.predict(GOOD)
        assert len(asked) == 1

    def test_an_attempt_takes_no_longer_than_its_timeout(self, kind):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with kind(url, timeout=0.2, deadline=0.3) as client, pytest.raises(ServerUnreachable):
                client.predict(GOOD)

    def test_nobody_there_is_known_not_to_have_answered(self, kind):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with kind(f"http://127.0.0.1:{port}") as client, pytest.raises(ServerUnreachable) as error:
            client.predict(GOOD)
        assert error.value.state == ""


class TestConnections:
    def test_one_that_the_server_closed_meanwhile_is_made_anew(self, kind):
        with scripted(ANSWER, ANSWER) as (url, asked), kind(url, retries=0) as client:
            assert client.predict(GOOD)
            if kind is InLoop:  # the loop hears of it when it runs
                client.loop.run_until_complete(asyncio.sleep(0.05))
            else:
                select.select([client._socket], [], [], 30)
            assert client.predict(GOOD)
        assert len(asked) == 2

    @pytest.mark.parametrize(
        "answer",
        [
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            b"HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\nno",
            b"HTTP/1.1 200 OK\r\nx: " + b"y" * 2**17,
        ],
    )
    def test_another_kind_of_server_is_named(self, kind, answer):
        with scripted(answer) as (url, _), kind(url) as client, pytest.raises(NotSeatrial):
            client.predict(GOOD)

    def test_an_address_that_is_none_is_a_usage_error(self, kind):
        with pytest.raises(BadUrl):
            (Client if kind is Client else AsyncClient)("https://x")


def test_both_have_the_same_methods():
    def methods(of):
        return {
            name: str(inspect.signature(method))
            for name, method in vars(of).items()
            if not name.startswith("_") and name != "close"
        }

    assert methods(Client) == methods(AsyncClient)


def test_many_tasks_share_a_few_connections(url, log):
    async def ask():
        async with AsyncClient(url, connections=4) as client:
            found = await asyncio.gather(*(client.predict(GOOD, request_id=f"at once {n}") for n in range(100)))
            return found, len(client._kept)

    found, kept = asyncio.run(ask())
    assert [one.request_id for one in found] == [f"at once {n}" for n in range(100)]
    assert kept <= 4
    assert len(log.find("at once 50")) == 1


def test_a_task_that_is_cancelled_leaves_no_answer_behind_for_the_next(url):
    async def ask():
        async with AsyncClient(url, connections=1) as client:
            for number in range(30):
                asking = asyncio.create_task(client.predict(GOOD, request_id=f"cancelled {number}"))
                await asyncio.sleep(number * 1e-4)
                asking.cancel()
                found = await client.predict(GOOD, request_id=f"kept {number}")
                assert found.request_id == f"kept {number}"
                await asyncio.gather(asking, return_exceptions=True)

    asyncio.run(ask())


def test_a_server_that_is_killed_and_started_again_costs_no_answer_and_hides_no_double(tmp_path):
    (tmp_path / "late.seatrial").write_bytes(bundle(Keys(tmp_path / "keys").key))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"bundle": str(tmp_path / "late.seatrial"), "port": port}

    async def ask():
        found = []
        async with AsyncClient(f"http://127.0.0.1:{port}", retries=100, deadline=60, connections=8) as client:

            async def one_after_the_other(name):
                for number in range(60):
                    found.append(await client.predict(GOOD, request_id=f"{name} {number}"))
                    await asyncio.sleep(0.001)

            with server(tmp_path, **options) as (process, _):
                asking = [asyncio.create_task(one_after_the_other(name)) for name in range(8)]
                while len(found) < 100:
                    await asyncio.sleep(0.001)
                process.kill()
                process.wait()
            starting = server(tmp_path, **options)
            await asyncio.to_thread(starting.__enter__)
            await asyncio.gather(*asking)
            starting.__exit__(None, None, None)
        return found

    found = asyncio.run(ask())
    assert len(found) == 8 * 60
    assert max(one.attempts for one in found) > 1
    logged = PredictionLog(tmp_path / "log").rows(columns=["prediction_id", "request_id"]).to_pylist()
    assert {one.prediction_id for one in found} <= {row["prediction_id"] for row in logged}
    times = Counter(row["request_id"] for row in logged)
    assert all(times[one.request_id] <= one.attempts for one in found)
