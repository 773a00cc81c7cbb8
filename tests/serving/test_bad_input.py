"""Whatever comes in at whichever door: a refusal in the form of that door, and the next good request is answered.

No answer is a 5xx, repeats any part of the request or names a path of the machine, and nothing makes the server grow.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import re
import socket
import threading
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.serving.worlds import GOOD, Keys, bundle, server

SECRET = "secret4711"
GROWTH = 48 * 2**20
PLATFORM = {"AIP_HTTP_PORT": "8080", "AIP_HEALTH_ROUTE": "/vertex/health", "AIP_PREDICT_ROUTE": "/vertex/predict"}
TENSORS = {"distance": "FP64", "seats": "INT64", "night": "BOOL", "carrier": "BYTES"}


def fields(row):
    """A row of texts of JSON as one."""
    return "{" + ",".join(f'"{name}":{value}' for name, value in row.items()) + "}"


def tensors(row):
    return ",".join(
        f'{{"name":"{name}","shape":[1],"datatype":"{TENSORS.get(name, "FP64")}","data":[{value}]}}'
        for name, value in row.items()
    )


DOORS = {
    "predict": ("/predict", lambda row: f'{{"features":{fields(row)}}}'),
    "predict many": ("/models/late/predict", lambda row: f'{{"instances":[{fields(row)}]}}'),
    "invocations": ("/invocations", lambda row: f'{{"dataframe_records":[{fields(row)}]}}'),
    "split": (
        "/models/late/invocations",
        lambda row: f'{{"dataframe_split":{{"columns":{json.dumps(list(row))},"data":[[{",".join(row.values())}]]}}}}',
    ),
    "open": ("/v2/models/late/infer", lambda row: f'{{"inputs":[{tensors(row)}]}}'),
    "vertex": ("/vertex/predict", lambda row: f'{{"instances":[{fields(row)}]}}'),
}
ROW = {name: json.dumps(value) for name, value in GOOD.items()}

VALUES = {
    "not a number": ("seats", "NaN"),
    "an infinity": ("seats", "-Infinity"),
    "beyond a float": ("seats", "1e400"),
    "a null": ("seats", "null"),
    "a string": ("seats", f'"{SECRET}"'),
    "a number in a string": ("seats", '"150"'),
    "a bool": ("seats", "true"),
    "a list": ("seats", "[150]"),
    "an object": ("seats", f'{{"{SECRET}":1}}'),
    "a fraction": ("seats", "2.5"),
    "inexact in float32": ("seats", str(2**24 + 1)),
    "beyond 64 bits": ("seats", str(2**70)),
    "a million digits": ("seats", "9" * 900_000),
    "a million digits behind the point": ("seats", "0." + "3" * 900_000),
    "hexadecimal": ("seats", "0x10"),
    "a float beyond float32": ("distance", "1e39"),
    "a float out of range": ("distance", "-1e400"),
    "a string for a float": ("distance", f'"{SECRET}"'),
    "a number for a string": ("carrier", "4711"),
    "half a surrogate pair": ("carrier", '"\\ud83d"'),
    "the wrong half": ("carrier", '"\\ude00\\ud83d"'),
    "a raw control character": ("carrier", '"a\x01b"'),
    "a bad escape": ("carrier", '"\\x41"'),
    "deep lists": ("seats", "[" * 100_000 + "]" * 100_000),
    "deep objects": ("seats", '{"a":' * 60_000 + "1" + "}" * 60_000),
}
WHOLE = {
    "nothing": b"",
    "no JSON": SECRET.encode(),
    "half of it": b'{"features": {"distance"',
    "a null": b"null",
    "a number": b"5",
    "a string": b'"' + SECRET.encode() + b'"',
    "a list": b"[]",
    "an object": b"{}",
    "a member that is not known": b'{"%b": 1}' % SECRET.encode(),
    "no UTF-8": b'{"features": "\xff\xfe"}',
    "UTF-16": '{"features": {}}'.encode("utf-16"),
    "zeros": bytes(1000),
    "brackets": b"[" * 100_000,
    "braces": b'{"features":' * 80_000,
    "too many bytes": b" " * (2**20 + 1),
    "packed": gzip.compress(b"{}"),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "late.seatrial").write_bytes(bundle(Keys(home / "keys").key))
    options = {"bundle": str(home / "late.seatrial"), "slow_seconds": 1.0, "platform": PLATFORM}
    with server(home, **options) as (process, url):
        for door in DOORS:  # what is made when it is first asked for
            assert ask(url, door, text(door))[0] == 200
        yield process, url


@pytest.fixture
def url(running):
    """The address of a server that has not grown and answers at every door when the test is over."""
    process, url = running
    before = most_memory(process.pid)
    yield url
    assert process.poll() is None
    assert most_memory(process.pid) - before < GROWTH
    for door in DOORS:
        assert ask(url, door, text(door))[0] == 200


def most_memory(pid):
    """The most bytes that a process held at once."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def text(door, **changes):
    return DOORS[door][1](ROW | changes).encode()


def head(door, length, *lines):
    words = [f"POST {DOORS[door][0]} HTTP/1.1", "host: x", "content-type: application/json", *lines]
    if length is not None:
        words.append(f"content-length: {length}")
    return "\r\n".join([*words, "", ""]).encode("latin-1")


def everything(url, data, *, whole=True):
    """All that a server sends for some bytes until it closes. whole: nothing more will come."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), 30) as connection:
        received = bytearray()

        def receive():
            try:
                while found := connection.recv(65536):
                    received.extend(found)
            except ConnectionResetError:
                pass

        receiving = threading.Thread(target=receive)
        receiving.start()
        try:
            for part in [data] if isinstance(data, bytes) else data:
                connection.sendall(part)
            if whole:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it did not want to hear the rest
        receiving.join(30)
        assert not receiving.is_alive(), "the connection was not closed"
    return bytes(received)


def ask(url, door, body, *lines):
    answer = everything(url, head(door, len(body), "connection: close", *lines) + body, whole=False)
    return parsed(answer)


def parsed(answer):
    """Status, headers and document of the first answer."""
    top, _, rest = answer.partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0][9:12]), headers, rest[: int(headers["content-length"])]


def refused(door, answer, statuses=range(400, 500)):
    """Check that an answer is a refusal in the form of its door; its status."""
    status, headers, body = parsed(answer) if isinstance(answer, bytes) else answer
    assert status in statuses, (status, body)
    assert status != 422 or door not in ("invocations", "split", "open")
    document = json.loads(body)
    match door:
        case "invocations" | "split":
            assert set(document) == {"error_code", "message"}
        case "open":
            assert set(document) == {"error"}
        case _:
            assert headers["content-type"] == "application/problem+json"
            assert document["status"] == status
            assert set(document) <= {"type", "title", "status", "code", "detail", "field", "row"}
    told = body.decode()
    assert len(told) < 1500
    for never in (SECRET, "4711", "/work", "/root", "/tmp", "/usr", "site-packages", ".py", "Traceback", "line "):
        assert never not in told
    return status


@functools.cache
def bomb():
    """300 MB of nothing."""
    packer = zlib.compressobj(1, wbits=31)
    part = bytes(2**22)
    return b"".join(packer.compress(part) for _ in range(75)) + packer.flush()


@pytest.mark.parametrize("door", DOORS)
class TestBodies:
    def test_no_value_that_is_wrong_is_answered(self, url, door):
        for what, (field, value) in VALUES.items():
            answer = ask(url, door, text(door, **{field: value}))
            assert refused(door, answer), what

    def test_no_row_without_a_field_or_with_a_strange_one_is_answered(self, url, door):
        body = DOORS[door][1]({name: value for name, value in ROW.items() if name != "seats"}).encode()
        refused(door, ask(url, door, body))
        if door not in ("invocations", "split"):  # MLflow's servers drop such columns
            refused(door, ask(url, door, text(door, **{SECRET: "1"})))

    def test_no_key_may_come_twice(self, url, door):
        for twice in (text(door).replace(b'"seats"', b'"night"', 1), text(door)[:-1] + b"," + text(door)[1:]):
            refused(door, ask(url, door, twice))

    def test_what_is_no_request_is_refused(self, url, door):
        for body in WHOLE.values():
            refused(door, ask(url, door, body))

    def test_strange_words_are_words(self, url, door):
        for word in ("", "\x00", "\u202eAA", "😀" * 1000, "A\u0301", "ﷺ", "%s%n", "../../etc/passwd", "<script>"):
            assert ask(url, door, text(door, carrier=json.dumps(word)))[0] == 200
            assert ask(url, door, text(door, carrier=json.dumps(word, ensure_ascii=False)))[0] == 200

    def test_of_a_hundred_megabytes_little_is_read(self, url, door):
        part = b" " * 2**20
        refused(door, everything(url, [head(door, 100 * 2**20), *[part] * 100]), {413})
        chunks = [b"100000\r\n" + part + b"\r\n"] * 100
        refused(door, everything(url, [head(door, None, "transfer-encoding: chunked"), *chunks]), {413})

    def test_a_bomb_does_not_go_off(self, url, door):
        for encoding in ("gzip", "deflate", "br", "gzip, gzip"):
            refused(door, ask(url, door, bomb(), f"content-encoding: {encoding}"), {400, 413, 415})


@pytest.mark.parametrize("door", DOORS)
class TestFraming:
    """A request whose end is not where it says, or that two readers would end at two places."""

    def test_a_length_that_is_too_small_ends_the_body_there(self, url, door):
        body = text(door)
        answer = everything(url, head(door, len(body) - 7) + body)
        refused(door, answer)
        assert answer.count(b" 200 OK") == 0
        assert answer.count(b"HTTP/1.1") <= 2

    @pytest.mark.parametrize("length", [99 * 10**9, 10**18, "-1", "1e3", "+5", "0x10", "5 5", "\xb2", "9" * 200])
    def test_a_length_that_is_false_is_refused_at_once(self, url, door, length):
        answer = everything(url, head(door, length) + text(door), whole=False)
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) in ([b"400"], [b"413"])
        assert SECRET.encode() not in answer

    @pytest.mark.parametrize(
        "lines",
        [
            ("content-length: 3",),
            ("transfer-encoding: chunked",),
            ("Transfer-Encoding : chunked",),
            ("transfer-encoding: gzip",),
            ("transfer-encoding: chunked, identity",),
            ("transfer-encoding: identity, chunked",),
            ("transfer-encoding: xchunked",),
            ("transfer-encoding:\x0bchunked",),
            ("x: y\r\n folded: z",),
            ("x: \x00",),
            (f"{SECRET} without a colon",),
        ],
    )
    def test_a_request_with_two_ends_is_no_request(self, url, door, lines):
        smuggled = b"0\r\n\r\nGET /secret4711 HTTP/1.1\r\nhost: x\r\n\r\n"
        answer = everything(url, head(door, len(smuggled), *lines) + smuggled)
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) in ([b"400"], [b"411"], [b"501"], [b"415"]) or not answer
        assert SECRET.encode() not in answer

    @pytest.mark.parametrize(
        "chunks",
        [b"zz\r\n{}\r\n", b"-1\r\n{}\r\n0\r\n\r\n", b"ffffffffffffffff1\r\n{}", b"2\r\n{}xx0\r\n", b"2 \r\n{}\r\n"],
    )
    def test_chunks_that_are_none_end_the_connection(self, url, door, chunks):
        answer = everything(url, head(door, None, "transfer-encoding: chunked") + chunks)
        assert set(re.findall(rb"HTTP/1.1 (\d\d\d)", answer)) <= {b"400", b"408"}
        if answer:
            refused(door, answer)


def all_of(connection):
    """What a server says on a connection until it closes it, which it does within 30 seconds."""
    received = b""
    with connection, contextlib.suppress(ConnectionResetError):
        connection.settimeout(30)
        while found := connection.recv(65536):
            received += found
    return received


def slow_callers(url):
    """Two hundred connections on which less comes than was begun: in the head, and in the body at every door."""
    parts = urlsplit(url)
    for number in range(200):
        connection = socket.create_connection((parts.hostname, parts.port), 5)
        door = list(DOORS)[number % len(DOORS)]
        connection.sendall([b"", head(door, 9)[:20], head(door, 9)[:-2], head(door, 500) + b"{"][number // 50])
        yield connection


@pytest.mark.long
def test_a_server_as_it_is_closes_half_open_connections_in_30_seconds(tmp_path):
    (tmp_path / "late.seatrial").write_bytes(bundle(Keys(tmp_path / "keys").key))
    with server(tmp_path, bundle=str(tmp_path / "late.seatrial"), platform=PLATFORM) as (process, url):
        test_half_open_connections_keep_nobody_waiting_and_are_closed(url)
        before = most_memory(process.pid)
        for _ in range(20):
            for connection in list(slow_callers(url)):
                connection.close()
        assert most_memory(process.pid) - before < GROWTH


def test_half_open_connections_keep_nobody_waiting_and_are_closed(url):
    waiting = list(slow_callers(url))
    for door in DOORS:
        assert ask(url, door, text(door))[0] == 200
    for connection in waiting:
        answer = all_of(connection)
        assert not answer or parsed(answer)[0] == 408


def test_a_length_that_is_too_large_is_waited_for_a_while(url):
    parts = urlsplit(url)
    waiting = {door: socket.create_connection((parts.hostname, parts.port), 5) for door in DOORS}
    for door, connection in waiting.items():
        connection.sendall(head(door, len(text(door)) + 100) + text(door))
    for door, connection in waiting.items():
        refused(door, all_of(connection), {408})


def test_who_sends_one_byte_at_a_time_is_given_up(url):
    parts = urlsplit(url)
    waiting = {door: socket.create_connection((parts.hostname, parts.port), 5) for door in DOORS}
    told = {}
    for position in range(10**6):
        for door in waiting.keys() - told.keys():
            connection = waiting[door]
            begun = head(door, 10**6)
            try:
                connection.sendall(begun[position : position + 1] or b" ")
                connection.settimeout(0.01)
                if connection.recv(1, socket.MSG_PEEK) is not None:
                    told[door] = all_of(connection)
            except TimeoutError:
                continue
            except OSError:
                connection.close()
                told[door] = b""
        if len(told) == len(waiting):
            break
    for door, answer in told.items():
        if answer:
            refused(door, answer, {408})
