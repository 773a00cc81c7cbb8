"""Connections beside each other: every answer belongs to its request, and comes in order, whatever others send."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import socket
from contextlib import closing

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from seatrial.serving.doors.http import Front
from seatrial.serving.doors.protocol import PredictionProtocol
from seatrial.stores.online_sqlite import SqliteOnlineStore
from seatrial.stores.prediction_log import PredictionLog
from tests.serving.meters.test_metrics import value
from tests.serving.scoring.test_ahead import filled
from tests.serving.scoring.test_watched_store import service
from tests.serving.worlds import GOOD, predictor

HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
GARBAGE = b"GARBAGE\r\n\r\n"
PLAIN, FAR = "/models/late/predict", "/models/far/predict"


def post(body: bytes, path: str = PLAIN, *lines: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def good(request_id: str, distance: float = 1.0, path: str = PLAIN) -> bytes:
    features = GOOD | {"distance": distance} | ({"tail": "N1"} if path == FAR else {})
    asked = {"features": features, "request_id": request_id, "return_features": True}
    return post(json.dumps(asked).encode(), path)


def told(answers: bytes) -> list[str]:
    """What each answer is: the request's id of a prediction, "live", or the code of a problem."""
    found = []
    while answers:
        head, _, rest = answers.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 "), answers
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        body, answers = json.loads(rest[:length]), rest[length:]
        if "request_id" in body:
            found.append(f"{body['request_id']} {body.get('features', {}).get('distance', '')}".strip())
        else:
            found.append("live" if "live" in body else body.get("code") or "error")
    return found


class Connections:
    """Connections of one server, whose bytes arrive in the turns of the event loop that a test wants."""

    def __init__(self, front: Front, count: int) -> None:
        config = uvicorn.Config(front, ws="none", lifespan="off", log_config=None, log_level="critical")
        config.load()
        made = functools.partial(PredictionProtocol, front, config=config, server_state=ServerState(), app_state={})
        self._made, self._count = made, count

    async def __aenter__(self) -> Connections:
        loop = asyncio.get_running_loop()
        self.protocols, self.callers = [], []
        for _ in range(self._count):
            ours, theirs = socket.socketpair()
            _, protocol = await loop.connect_accepted_socket(self._made, ours)
            theirs.setblocking(False)
            self.protocols.append(protocol)
            self.callers.append(theirs)
        return self

    async def __aexit__(self, *_: object) -> None:
        for protocol, caller in zip(self.protocols, self.callers, strict=True):
            protocol.transport.abort()
            caller.close()
        await asyncio.sleep(0)

    def come(self, number: int, data: bytes) -> None:
        self.protocols[number].data_received(data)

    async def answers(self, number: int, count: int) -> bytes:
        """What comes until there are so many answers, or the server is done."""
        loop, found = asyncio.get_running_loop(), b""
        while found.count(b"HTTP/1.1 ") < count or not _whole(found):
            more = await asyncio.wait_for(loop.sock_recv(self.callers[number], 65536), 5)
            if not more:
                break
            found += more
        return found


def _whole(answers: bytes) -> bool:
    last = answers[answers.rfind(b"HTTP/1.1 ") :]
    head, _, body = last.partition(b"\r\n\r\n")
    return len(body) == int(re.search(rb"content-length: (\d+)", head + b"\ncontent-length: 0")[1])


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:  # one for all: a server has one
        yield runner


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    made = service(filled(SqliteOnlineStore(home / "online.db")))
    made.log = PredictionLog(home / "log")
    made.serve("late", predictor(metrics=made.metrics, log=made.log))
    made.prove()
    with closing(made.log):
        yield Front(made)


def test_a_request_and_garbage_in_one_packet_cost_nobody_else_an_answer(front, loop):
    async def run():
        async with Connections(front, 3) as all:
            all.come(0, good("first"))
            all.come(1, good("hostile") + GARBAGE)
            all.come(2, good("last"))
            all.come(0, good("second"))
            assert told(await all.answers(1, 2)) == ["hostile 1.0", "http.not_http"]
            assert told(await all.answers(2, 1)) == ["last 1.0"]
            assert told(await all.answers(0, 2)) == ["first 1.0", "second 1.0"]

    loop.run(run())
    for name in ("hostile", "first", "second", "last"):
        assert len(front.service.log.find(name)) == 1


def test_a_bad_request_between_good_ones_and_garbage_behind_them_are_answered_in_order(front, loop):
    async def run():
        async with Connections(front, 1) as all:
            all.come(0, good("a") + post(b"{") + good("b", path=FAR) + HEALTH + good("c") + GARBAGE + good("d"))
            found = await all.answers(0, 9)
            assert told(found) == ["a 1.0", "request.not_json", "b", "live", "c 1.0", "http.not_http"]
            assert found.count(b"connection: close") == 1

    loop.run(run())


def test_what_cannot_be_written_breaks_its_own_connection_alone_and_is_counted(front, loop):
    async def run():
        async with Connections(front, 3) as all:
            before = value(front.service.metrics.render(), "seatrial_answers_unsent_total")
            all.protocols[1].transport.write_eof()  # whatever is written now raises
            for number in range(3):
                all.come(number, good(f"row {number}"))
            for number in (0, 2):
                assert told(await all.answers(number, 1)) == [f"row {number} 1.0"]
            assert await all.answers(1, 1) == b""
            assert value(front.service.metrics.render(), "seatrial_answers_unsent_total") == before + 1

    loop.run(run())


LONG = b"x: " + b"y" * 70_000 + b"\r\n"
MANY = b"x: y\r\n" * 20_000


@pytest.mark.parametrize("lines", [LONG, MANY])
@pytest.mark.parametrize("request_line", [b"GET /health HTTP/1.1", b"POST /models/late/predict HTTP/1.1"])
def test_a_head_is_too_large_however_it_comes(front, loop, lines, request_line):
    async def run():
        async with Connections(front, 3) as all:
            large = request_line + b"\r\nhost: x\r\ncontent-length: 2\r\n" + lines + b"\r\n{}"
            all.come(0, good("before") + large)
            for start in range(0, len(large), 9_000):
                all.come(1, large[start : start + 9_000])
            all.come(2, good("a") * 600 + good("b")[:100])  # much at once is no large head
            all.come(2, good("b")[100:])
            assert told(await all.answers(0, 2)) == ["before 1.0", "http.head_too_large"]
            assert told(await all.answers(1, 1)) == ["http.head_too_large"]
            assert told(await all.answers(2, 601))[-1] == "b 1.0"

    loop.run(run())


@pytest.mark.parametrize("request_line", [b"GET /health HTTP/1.1", b"POST /models/late/predict HTTP/1.1"])
def test_a_request_names_one_host(front, loop, request_line):
    async def run():
        async with Connections(front, 3) as all:
            all.come(0, request_line + b"\r\ncontent-length: 2\r\n\r\n{}")
            all.come(1, request_line + b"\r\nhost: x\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
            for number in (0, 1):
                assert told(await all.answers(number, 1)) == ["http.not_http"]
            all.come(2, request_line.replace(b"1.1", b"1.0") + b"\r\ncontent-length: 2\r\n\r\n{}")
            assert told(await all.answers(2, 1)) in (["live"], ["request.bad_shape"])

    loop.run(run())


KINDS = st.sampled_from(["good", "good", "far", "bad", "page", "v2", "chunked"])
PLANS = st.lists(
    st.tuples(st.lists(KINDS, max_size=5), st.sampled_from(["", "garbage", "large", "v2 large"])),
    min_size=2,
    max_size=4,
)


def sent(connection: int, number: int, kind: str) -> tuple[bytes, str]:
    """A request's bytes, and what its answer is."""
    name = f"{connection}-{number}"
    distance = 10.0 * connection + number
    match kind:
        case "good":
            return good(name, distance), f"{name} {distance}"
        case "far":
            return good(name, distance, FAR), name
        case "chunked":
            body = json.dumps({"features": GOOD, "request_id": name}).encode()
            parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9], body[9:]))
            head = f"POST {PLAIN} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
            return head + parts + b"0\r\n\r\n", name
        case "bad":
            return post(b"{"), "request.not_json"
        case "v2":
            return post(b"{", "/v2/models/late/infer"), "error"
        case "garbage":
            return GARBAGE, "http.not_http"
        case "large":
            return post(b"{" + b" " * 5000).replace(b"5001", b"9999999"), "http.body_too_large"
        case "v2 large":
            head = b"POST /v2/models/late/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            return head + b"zzz\r\n", "error"
    return HEALTH, "live"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(plans=PLANS, data=st.data())
def test_every_answer_belongs_to_its_request_however_requests_and_garbage_interleave(front, loop, plans, data):
    waiting, expected = [], []
    for connection, (kinds, end) in enumerate(plans):
        asked = [sent(connection, number, kind) for number, kind in enumerate([*kinds, end] if end else kinds)]
        stream = b"".join(one for one, _ in asked)
        expected.append([answer for _, answer in asked])
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=3)))
        waiting.append([stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b])
    order = [number for number, parts in enumerate(waiting) for _ in parts]
    order = data.draw(st.permutations(order))
    turns = data.draw(st.lists(st.integers(0, 2), min_size=len(order), max_size=len(order)))

    async def run():
        async with Connections(front, len(plans)) as all:
            for number, turn in zip(order, turns, strict=True):
                all.come(number, waiting[number].pop(0))
                for _ in range(turn):
                    await asyncio.sleep(0)
            for number, answers in enumerate(expected):
                assert told(await all.answers(number, len(answers))) == answers

    loop.run(run())
