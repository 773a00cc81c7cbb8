"""Rows from a stream: online they are what the offline join says, whatever happens on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Project
from seatrial.cli import run
from seatrial.core.clock import MachineClock
from seatrial.features.join import as_of
from seatrial.features.lookup import Lookup
from seatrial.features.plan import FeaturePlan, plan_view
from seatrial.verbs.results import TakenIn

PROJECT = """
    from seatrial import Entity, ParquetSource, agg, feature_view

    sales = ParquetSource("sales.parquet", event_timestamp="sold_at", event_key=["receipt"])

    @feature_view(entity=Entity("shop"), source=sales)
    class till:
        count = agg.count(window="36500d")
        total = agg.sum("amount", window="36500d")
        kind = agg.last("kind")
"""
FIRST = {"sold_at": "2024-01-01T00:00:00Z", "shop": 0, "receipt": "r", "amount": 1.0, "open": True, "kind": "food"}


def sale(number, **changed):
    """A sale of some shop; receipts are unlike, and times are not in order."""
    at = f"2024-01-{1 + number * 7 % 28:02}T{number % 24:02}:00:00Z"
    plain = {"sold_at": at, "shop": number % 7, "receipt": f"r{number}", "amount": number / 4, "open": number % 2 == 0}
    return plain | {"kind": f"kind {number % 3}"} | changed


@pytest.fixture
def project(tmp_path, redis_server):
    """A project whose online store is on Redis, with one sale that it knows already."""
    (tmp_path / "project.py").write_text(textwrap.dedent(PROJECT))
    (tmp_path / "seatrial.toml").write_text(f'[stores]\nonline = "{redis_server.address(1)}"\n')
    times = pa.array([FIRST["sold_at"]]).cast(pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.Table.from_pylist([FIRST]).set_column(0, "sold_at", times), tmp_path / "sales.parquet")
    with Project(tmp_path) as project:
        project.materialize()
        yield project


def add(server, rows, name="sales"):
    import redis

    with redis.Redis(port=server.port) as client, client.pipeline(transaction=False) as pipeline:
        for row in rows:
            pipeline.xadd(name, {"row": json.dumps(row)})
        pipeline.execute()


def add_fields(server, texts):
    server.ask("XADD", "sales", "*", *(part for pair in texts.items() for part in pair))


def take(project, server, **how):
    return project.push_stream("till", server.address() + "/sales", until_empty=True, **how)


def online(project):
    """What is online of every shop, now."""
    view = project.definitions.views["till"]
    lookup = Lookup(FeaturePlan(views=(plan_view(view),)), project.online)
    return [lookup.assemble({"shop": shop}, project.now_us).views["till"].values for shop in range(8)]


def offline(project, rows):
    """The same by the offline join over the sales that there are."""
    view = project.definitions.views["till"]
    table = pa.Table.from_pylist([FIRST, *rows])
    times = table["sold_at"].cast(pa.timestamp("us", tz="UTC"))
    table = table.set_column(table.column_names.index("sold_at"), "sold_at", times)
    asked = pa.table({"shop": list(range(8)), "at": pa.array([MachineClock().now()] * 8, pa.timestamp("us", tz="UTC"))})
    joined = as_of(asked, {"till": view}, {"till": table})
    return [{name: row[f"till__{name}"] for name in view.features} for row in joined.to_pylist()]


def refused(server):
    """The rows that were set aside, each with the reason."""
    found = []
    for _, fields in server.ask("XRANGE", "sales:refused", "-", "+"):
        pairs = dict(zip(fields[::2], fields[1::2], strict=True))
        found.append((pairs.get(b"row"), pairs[b"reason"].decode()))
    return found


def test_rows_of_a_stream_are_online_what_they_are_offline(project, redis_server):
    rows = [sale(number) for number in range(1200)]
    add(redis_server, rows)
    told = []
    taken = take(project, redis_server, tell=told.append)
    assert taken == TakenIn(rows=1200, written=1200, refused=0, lag=0)
    assert [one.rows for one in told] == [500, 1000, 1200]
    assert online(project) == offline(project, rows)


def test_rows_that_come_again_change_nothing(project, redis_server):
    rows = [sale(number) for number in range(20)]
    add(redis_server, rows + rows)
    assert take(project, redis_server).written == 20
    add(redis_server, rows)
    assert take(project, redis_server) == TakenIn(rows=20, written=0, refused=0, lag=0)
    assert online(project) == offline(project, rows)


def test_a_row_that_cannot_be_taken_is_set_aside_with_the_reason_and_the_rest_is_taken(project, redis_server):
    rows = [sale(number) for number in range(30)]
    add(redis_server, [*rows[:10], sale(50, shop="seven"), *rows[10:], sale(51, sold_at="yesterday")])
    deep = b'{"x":' + b"[" * 2000 + b"]" * 2000 + b"}"
    for text in (b"no json", b"[1]", b"\xff", deep):
        redis_server.ask("XADD", "sales", "*", "row", text)
    add_fields(redis_server, {"sold_at": "2024-01-01T00:00:00Z", "shop": "many", "receipt": "r9"})
    taken = take(project, redis_server)
    assert (taken.rows, taken.refused, taken.lag) == (30, 7, 0)
    assert online(project) == offline(project, rows)
    reasons = refused(redis_server)
    assert len(reasons) == 7
    assert any(row and b"seven" in row and "'seven' in column 'shop'" in reason for row, reason in reasons)
    assert any(row == b"no json" and "not JSON" in reason for row, reason in reasons)
    assert any(row == b"[1]" and "no object" in reason for row, reason in reasons)
    assert any(row is None and "'many'" in reason for row, reason in reasons)


@pytest.mark.parametrize("before", [0, 1])
def test_a_row_without_its_entity_is_refused_alone_and_among_others(project, redis_server, before):
    rows = [sale(number) for number in range(before)]
    misspelt = {name.replace("shop", "shopp"): value for name, value in sale(5).items()}
    add(redis_server, [*rows, misspelt, sale(6, shop=None)])
    taken = take(project, redis_server)
    assert (taken.rows, taken.refused) == (before, 2)
    assert ["'shop'" in reason for _, reason in refused(redis_server)] == [True, True]


@pytest.mark.parametrize("before", [0, 1])
def test_a_row_without_a_column_that_a_view_reads_is_refused_alone_and_among_others(project, redis_server, before):
    rows = [sale(number) for number in range(before)]
    short, unread = sale(5), sale(6)
    del short["amount"], unread["open"]
    add(redis_server, [*rows, short, unread])
    taken = take(project, redis_server)
    assert (taken.rows, taken.refused, taken.lag) == (before + 1, 1, 0)
    assert [reason for _, reason in refused(redis_server)] == ["it lacks column 'amount'."]
    assert online(project) == offline(project, [*rows, unread | {"open": None}])


def test_text_in_a_field_for_each_column_becomes_what_the_column_holds(project, redis_server):
    row = sale(3, open=True)
    texts = {"sold_at": row["sold_at"], "shop": "3", "receipt": "r3", "amount": "0.75", "open": "true", "kind": "toys"}
    add_fields(redis_server, texts)
    assert take(project, redis_server).rows == 1
    first = row | {"kind": "toys"}
    assert online(project) == offline(project, [first])
    add_fields(redis_server, texts | {"receipt": "r4", "amount": ""})
    assert take(project, redis_server).rows == 1
    assert online(project) == offline(project, [first, first | {"receipt": "r4", "amount": None}])


@pytest.mark.slow
def test_consumers_that_are_killed_in_the_middle_lose_nothing_and_double_nothing(project, redis_server):
    rows = [sale(number) for number in range(12_000)]
    add(redis_server, [sale(99, shop="seven"), *rows])
    draw = random.Random(7)
    for _ in range(4):
        consumer = started(project, redis_server, "--until-empty")
        before = settled(redis_server)
        while settled(redis_server) == before and consumer.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.2))
        consumer.kill()
        consumer.communicate()
    assert settled(redis_server) < 12_000
    taken = take(project, redis_server)
    assert taken.lag == 0
    assert redis_server.ask("XPENDING", "sales", "seatrial")[0] == 0
    assert len(refused(redis_server)) == 1
    assert online(project) == offline(project, rows)


def test_a_signal_ends_it_after_the_batch_in_hand(project, redis_server):
    rows = [sale(number) for number in range(1000)]
    add(redis_server, rows)
    consumer = started(project, redis_server, "--json", "--group", "mine")
    while to_come(redis_server, "mine"):
        assert consumer.poll() is None
        time.sleep(0.01)
    consumer.send_signal(signal.SIGTERM)
    out, _ = consumer.communicate(timeout=60)
    assert consumer.returncode == 0
    assert json.loads(out)["rows"] == 1000
    assert online(project) == offline(project, rows)


def test_servers_that_go_away_are_waited_for_and_said_so(project, own_redis, redis_server, monkeypatch):
    server, rows = own_redis(), [sale(number) for number in range(40)]
    project.close()
    monkeypatch.setenv("SEATRIAL_STORES_ONLINE", server.address(1))
    server.stop()
    told = []
    add(redis_server, rows)

    def tell(taken):
        told.append(taken.waiting)
        if len(told) == 2:
            server.start()

    with Project(project.folder) as changed:
        taken = take(changed, redis_server, tell=tell)
        assert (taken.rows, taken.waiting) == (40, "")
        assert "did not answer" in told[0]
        assert told[-1] == ""
        expected = offline(project, rows)
        assert online(changed)[1:] == expected[1:]


def test_a_stream_whose_server_is_away_is_waited_for(project, own_redis):
    server, rows = own_redis(), [sale(number) for number in range(40)]
    server.stop()
    told, done = [], threading.Event()

    def tell(taken):
        told.append(taken.waiting)
        if len(told) == 2:
            server.start()
            add(server, rows)
        if taken.rows:
            done.set()

    taken = project.push_stream("till", server.address() + "/sales", stopped=done.is_set, tell=tell)
    assert taken.rows == 40
    assert "did not answer" in told[0]
    assert online(project) == offline(project, rows)


def test_a_file_or_a_stream_is_needed_and_not_both(project, capsys):
    for words in ([], ["sales.parquet", "--from", "redis://h/0/s"]):
        full = [str(project.folder / word) if word == "sales.parquet" else word for word in words]
        assert run(["push", "till", *full, "--project", str(project.folder)]) == 2
    assert "--from" in capsys.readouterr().err


def started(project, server, *words):
    """`seatrial push --from` in a process of its own."""
    command = [sys.executable, "-m", "seatrial", "push", "till", "--from", server.address() + "/sales", *words]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    outside = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return subprocess.Popen([*command, "--project", str(project.folder)], env=env, **outside)


def about(server, group):
    """What the server tells of a group; of one that there is not yet, that it has read nothing."""
    found = server.ask("XINFO", "GROUPS", "sales") if server.ask("EXISTS", "sales") else []
    for one in found:
        told = dict(zip(one[::2], one[1::2], strict=True))
        if told[b"name"] == group.encode():
            return told
    return {b"entries-read": 0, b"pending": 0, b"lag": 1}


def settled(server, group="seatrial"):
    """How many entries a group has settled."""
    told = about(server, group)
    return (told[b"entries-read"] or 0) - told[b"pending"]


def to_come(server, group):
    told = about(server, group)
    return told[b"lag"] + told[b"pending"]
