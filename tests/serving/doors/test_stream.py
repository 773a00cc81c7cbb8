"""Streams of requests: each is answered at least once and logged once, whatever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from seatrial.core.errors import Unavailable
from seatrial.releases.keyring import WatchedKeys
from seatrial.serving import service
from seatrial.serving.doors import stream
from seatrial.serving.doors.stream import MOST_DELIVERIES, Answering, answer_stream
from seatrial.serving.scoring.predictor import Draft, StoreDown, problem
from seatrial.stores.prediction_log import LogUnwritable, PredictionLog
from seatrial.stores.streams import StreamUnavailable, open_answers, open_stream
from seatrial.stores.streams_kafka import KafkaStream
from seatrial.stores.streams_redis import RedisStream
from tests.servers import kafka_cluster
from tests.serving.worlds import GOOD, Keys, bundle


@pytest.fixture
def home(tmp_path):
    keys = Keys(tmp_path / "keys")
    (tmp_path / "late.seatrial").write_bytes(bundle(keys.key))
    return tmp_path


@pytest.fixture
def serving(home):
    log = PredictionLog(home / "log")
    made = service.from_bundle(home / "late.seatrial", trusted_keys=WatchedKeys(home / "keys"), log=log)
    yield made
    made.close()


def answering(serving, group="g"):
    return Answering(serving, "late", serving.log, name=f"requests\n{group}", caller="tests")


def ask(server, *bodies, field="request"):
    for body in bodies:
        server.ask("XADD", "requests", "*", field, body if isinstance(body, bytes) else json.dumps(body))


def run(serving, server, *, dead_after=0.0, **how):
    requests = RedisStream(f"{server.address()}/requests", group="g", dead_after=dead_after)
    answers = open_answers(f"{server.address()}/predictions")
    try:
        return answer_stream(requests, answers, answering(serving), until_empty=True, **how)
    finally:
        requests.close()
        answers.close()


def answered(server):
    """(id, answer) of every entry of the stream of answers."""
    found = [fields for _, fields in server.ask("XRANGE", "predictions", "-", "+")]
    return [(fields[1].decode(), json.loads(fields[3])) for fields in found]


def refused(server):
    found = [fields for _, fields in server.ask("XRANGE", "requests:refused", "-", "+")]
    return [dict(zip(fields[::2], fields[1::2], strict=True)) for fields in found]


def logged(serving):
    return serving.log.rows(model="late").to_pylist()


def request(number=0, **more):
    return {"features": {**GOOD, "seats": number + 1}, **more}


# -- answers


def test_answers_are_those_of_the_service_and_each_is_logged(serving, redis_server):
    ask(redis_server, request(1, request_id="r1"), request(2))
    ask(redis_server, GOOD, field="row")
    done = run(serving, redis_server)
    assert (done.answered, done.refused, done.again) == (3, 0, 0)
    direct = [
        json.loads(serving.predictor("late").handle(json.dumps(one).encode()).body) for one in (request(1), request(2))
    ]
    (first, one), (second, two), _ = answered(redis_server)
    assert [one["probability"], two["probability"]] == [one["probability"] for one in direct]
    assert (one["request_id"], one["prediction_id"]) == ("r1", first)
    assert two["request_id"] == two["prediction_id"] == second
    rows = {row["prediction_id"]: row for row in logged(serving)}
    assert (rows[first]["request_id"], rows[first]["caller"]) == ("r1", "tests")
    assert rows[second]["probability"] == two["probability"]


def test_a_request_of_many_rows_is_one_answer_with_an_id_for_each_row(serving, redis_server):
    ask(redis_server, {"instances": [request(number)["features"] for number in range(3)]})
    run(serving, redis_server)
    [(first, answer)] = answered(redis_server)
    ids = [row["prediction_id"] for row in answer["predictions"]]
    assert ids[0] == first
    assert len(set(ids)) == 3
    assert sorted(row["prediction_id"] for row in logged(serving)) == sorted(ids)


@pytest.mark.parametrize(
    ("field", "body", "why"),
    [
        ("request", b"no json", "serving"),
        ("request", b"\xff\x00", "serving"),
        ("request", b'{"features": {"distance": "far"}}', "serving"),
        ("request", b"[" * 10_000, ""),
        ("row", b"{}, 1", "request.not_json"),
        ("row", json.dumps(GOOD).encode() + b',"request_id":"inj"', "request.not_json"),
        ("row", b"null", "request.not_json"),
        ("row", b'{"a":' + b"[" * 10_000, "request.not_json"),
        ("request", b" " * (2**20 + 1), "bytes"),
        ("other", b"1", "no field 'request'"),
    ],
)
def test_poison_goes_to_the_refused_with_the_reason_and_holds_nobody_up(serving, redis_server, field, body, why):
    ask(redis_server, request(1))
    ask(redis_server, body, field=field)
    ask(redis_server, request(2))
    done = run(serving, redis_server)
    assert (done.answered, done.refused) == (2, 1)
    [told] = refused(redis_server)
    assert told[field.encode()] == body
    assert why in told[b"reason"].decode() or b"[" in told[b"reason"]
    assert len(logged(serving)) == 2


# -- delivered again


class Broken:
    """Answers that fail before, or after, they are there; so many times."""

    def __init__(self, answers, times, *, after):
        self._answers, self._times, self._after = answers, times, after

    def send(self, answers):
        if self._times and not self._after:
            self._times -= 1
            raise StreamUnavailable("it is away.")
        self._answers.send(answers)
        if self._times:
            self._times -= 1
            raise StreamUnavailable("it is away.")


@pytest.mark.parametrize("after", [False, True])
def test_answers_that_could_not_be_sent_are_sent_again_and_logged_once(serving, redis_server, after, monkeypatch):
    monkeypatch.setattr(stream, "FIRST_PAUSE", 0.01)
    ask(redis_server, request(1), request(2))
    requests = open_stream(f"{redis_server.address()}/requests", group="g")
    answers = open_answers(f"{redis_server.address()}/predictions")
    told = []
    done = answer_stream(
        requests, Broken(answers, 2, after=after), answering(serving), until_empty=True, tell=told.append
    )
    assert done.answered == 2
    assert any(one.waiting == "it is away." for one in told)
    ids = [id for id, _ in answered(redis_server)]
    assert len(set(ids)) == 2
    assert len(ids) == (6 if after else 2)  # a reader sees the same id again
    assert len(logged(serving)) == 2
    requests.close()
    answers.close()


def test_what_was_logged_and_not_settled_is_answered_as_the_log_says(serving, redis_server):
    ask(redis_server, request(1), {"instances": [request(2)["features"], request(3)["features"]]}, request(4))
    dead = RedisStream(f"{redis_server.address()}/requests", group="g", dead_after=0.0)
    made = answering(serving).answer(dead.read(2, wait_seconds=0))  # and there it died
    before = {id: json.loads(said) for _, id, said in made.answers}
    done = run(serving, redis_server)
    assert (done.answered, done.again) == (3, 2)
    after = dict(answered(redis_server))
    for id, answer in before.items():
        for one, other in zip(
            answer.get("predictions", [answer]), after[id].get("predictions", [after[id]]), strict=True
        ):
            assert one == other
    assert len(logged(serving)) == 4
    dead.close()


def test_an_entry_that_its_consumers_die_of_is_set_aside_and_the_others_are_answered(serving, redis_server):
    ask(redis_server, request(1), request(666), request(3))

    class Killed(BaseException):
        pass

    deadly = answering(serving)
    draft = deadly._draft

    def dies(predictor, entry, logged):
        if b'"seats": 667' in entry.fields[b"request"]:
            raise Killed
        return draft(predictor, entry, logged)

    deadly._draft = dies
    answers = open_answers(f"{redis_server.address()}/predictions")
    deaths = 0
    while True:
        requests = RedisStream(f"{redis_server.address()}/requests", group="g", dead_after=0.0)
        try:
            answer_stream(requests, answers, deadly, until_empty=True)
            break
        except Killed:
            deaths += 1
            assert deaths < 2 * MOST_DELIVERIES
    assert [fields[b"request"] for fields in refused(redis_server)] == [json.dumps(request(666)).encode()]
    assert len(answered(redis_server)) == 2
    assert len(logged(serving)) == 2
    answers.close()


# -- what does not answer is waited for


def test_a_log_that_takes_nothing_is_waited_for_with_nothing_sent(serving, redis_server, monkeypatch):
    monkeypatch.setattr(stream, "FIRST_PAUSE", 0.01)
    ask(redis_server, request(1))
    append, times = serving.log.append_all, [1, 1, 1]

    def full(rows):
        if times:
            times.pop()
            raise LogUnwritable("the disk is full.")
        append(rows)

    monkeypatch.setattr(serving.log, "append_all", full)
    told = []
    assert run(serving, redis_server, tell=told.append).answered == 1
    assert told[0].waiting == "the disk is full."
    assert len(answered(redis_server)) == len(logged(serving)) == 1


def test_what_the_service_cannot_answer_now_is_no_poison(serving, redis_server, monkeypatch):
    monkeypatch.setattr(stream, "FIRST_PAUSE", 0.01)
    ask(redis_server, request(1))
    predictor = serving.predictor("late")
    draft, times = predictor.draft, [1, 1]

    def away(body, caller="", **how):
        if times:
            times.pop()
            return Draft(problem(StoreDown("the online store does not answer.")))
        return draft(body, caller, **how)

    monkeypatch.setattr(predictor, "draft", away)
    told = []
    done = run(serving, redis_server, tell=told.append)
    assert (done.answered, done.refused) == (1, 0)
    assert "serving.online_store_down" in told[0].waiting


def test_patience_ends(serving, redis_server, monkeypatch):
    monkeypatch.setattr(stream, "FIRST_PAUSE", 0.01)
    ask(redis_server, request(1))

    def full(rows):
        raise LogUnwritable("the disk is full.")

    monkeypatch.setattr(serving.log, "append_all", full)
    with pytest.raises(Unavailable):
        run(serving, redis_server, patience_seconds=0.05)
    monkeypatch.undo()
    assert run(serving, redis_server).answered == 1


def test_whoever_is_told_to_stop_finishes_what_is_in_hand(serving, redis_server):
    ask(redis_server, request(1), request(2))
    requests = open_stream(f"{redis_server.address()}/requests", group="g")
    answers = open_answers(f"{redis_server.address()}/predictions")
    told = []
    done = answer_stream(requests, answers, answering(serving), stopped=lambda: bool(told), tell=told.append)
    assert done.answered == 2
    assert requests.pending() == 0
    requests.close()
    answers.close()


# -- killed under load

CONSUMER = """
import signal, sys
from pathlib import Path
from seatrial.releases.keyring import WatchedKeys
from seatrial.serving import service
from seatrial.serving.doors import stream
from seatrial.stores.prediction_log import PredictionLog
from seatrial.stores.streams import open_answers
from seatrial.stores.streams_redis import RedisStream
home, address = Path(sys.argv[1]), sys.argv[2]
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
stream.BATCH = 20
log = PredictionLog(home / "log")
serving = service.from_bundle(home / "late.seatrial", trusted_keys=WatchedKeys(home / "keys"), log=log)
requests = RedisStream(address + "/requests", group="g")
answers = open_answers(address + "/predictions")
answering = stream.Answering(serving, "late", log, name="requests\\ng", caller="tests")
print("ready", flush=True)
done = stream.answer_stream(requests, answers, answering, stopped=lambda: bool(stop))
requests.close()
print(done.answered, flush=True)
"""


def consumer(home, server):
    process = subprocess.Popen(
        [sys.executable, "-c", CONSUMER, str(home), server.address()],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    return process


def test_kill_9_under_load_loses_no_request_and_logs_none_twice(home, redis_server):
    number = 1_500
    for start in range(0, number, 500):
        body = [json.dumps(request(place, request_id=f"r{place}")) for place in range(start, start + 500)]
        ask(redis_server, *(one.encode() for one in body))
    one, other = consumer(home, redis_server), consumer(home, redis_server)
    for process in (one, other):
        assert process.stdout.readline() == "ready\n"
    while redis_server.ask("XLEN", "predictions") < 200:
        time.sleep(0.005)
    one.send_signal(signal.SIGKILL)
    one.wait()
    third = consumer(home, redis_server)
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        ids = {answer["request_id"] for _, answer in answered(redis_server)}  # some are answered again
        if len(ids) == number and redis_server.ask("XPENDING", "requests", "g")[0] == 0:
            break
        time.sleep(0.2)
    shares = []
    for process in (other, third):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        shares.append(int(process.stdout.read().split()[-1]))
    for process in (one, other, third):
        process.stdout.close()
    assert {f"r{place}" for place in range(number)} == ids
    found = PredictionLog(home / "log").rows(model="late")
    assert sorted(found["request_id"].to_pylist()) == sorted(f"r{place}" for place in range(number))
    said = dict(zip(found["prediction_id"].to_pylist(), found["probability"].to_pylist(), strict=True))
    assert all(said[id] == answer["probability"] for id, answer in answered(redis_server))
    assert shares[0] > 0
    assert redis_server.ask("XLEN", "requests:refused") == 0


# -- Kafka


def test_requests_of_a_topic_are_answered_into_another_and_offsets_follow(serving):
    fast = "heartbeat.interval.ms=200&session.timeout.ms=6000"
    with kafka_cluster() as brokers:
        asking = open_answers(f"kafka://{brokers}/requests")
        asking.send([(f"k{number}", json.dumps(request(number)).encode()) for number in range(50)])
        asking.send([("bad", b"no json")])
        asking.close()
        requests = open_stream(f"kafka://{brokers}/requests?{fast}", group="g")
        answers = open_answers(f"kafka://{brokers}/predictions")
        done = answer_stream(requests, answers, answering(serving), until_empty=True)
        assert (done.answered, done.refused, requests.lag()) == (50, 1, 0)
        requests.close()
        answers.close()
    assert len({row["prediction_id"] for row in logged(serving)}) == len(logged(serving)) == 50


@pytest.mark.long
def test_consumers_of_a_topic_come_and_go_and_none_is_lost_or_logged_twice(home, monkeypatch):
    """Three consumers join one after the other and the first leaves, while requests come: rebalances meet commits."""
    monkeypatch.setattr(stream, "BATCH", 50)
    number, met = 1_500, []
    wait = KafkaStream._wait
    monkeypatch.setattr(KafkaStream, "_wait", lambda self, seconds: (met.append(seconds), wait(self, seconds)))
    with kafka_cluster() as brokers:

        def feed():
            asking = open_answers(f"kafka://{brokers}/requests")
            for start in range(0, number, 25):
                bodies = [(place, request(place, request_id=f"r{place}")) for place in range(start, start + 25)]
                asking.send([(f"k{place}", json.dumps(body).encode()) for place, body in bodies])
                time.sleep(0.2)
            asking.close()

        def consume(stop, found):
            log = PredictionLog(home / "log")
            made = service.from_bundle(home / "late.seatrial", trusted_keys=WatchedKeys(home / "keys"), log=log)
            options = "heartbeat.interval.ms=200&session.timeout.ms=6000"
            requests = open_stream(f"kafka://{brokers}/requests?{options}", group="g")
            answers = open_answers(f"kafka://{brokers}/predictions")
            found.append(answer_stream(requests, answers, answering(made), stopped=stop.is_set))
            requests.close()
            answers.close()
            made.close()

        found: list[stream.StreamAnswered] = []
        stops = [threading.Event() for _ in range(3)]
        threads = [threading.Thread(target=feed)]
        threads += [threading.Thread(target=consume, args=(stop, found)) for stop in stops]
        for thread in threads:
            thread.start()
            time.sleep(4 if thread is not threads[0] else 0)
        stops[0].set()
        log = PredictionLog(home / "log")
        ends = time.monotonic() + 60
        while len(log.rows(model="late")) < number and time.monotonic() < ends:
            time.sleep(0.5)
        for stop in stops:
            stop.set()
        for thread in threads:
            thread.join()
    rows = log.rows(model="late")
    assert sorted(rows["request_id"].to_pylist()) == sorted(f"r{place}" for place in range(number))
    assert sum(one.answered for one in found) >= number
    assert 0.1 in met  # a commit waited for a rebalance
