"""A project whose online store is on Redis answers what it answers with SQLite, bit by bit, by every verb."""

from __future__ import annotations

import json
import shutil
import textwrap
from datetime import UTC, datetime, timedelta

import pytest

from seatrial import Project
from seatrial.cli import run
from seatrial.core.clock import FixedClock
from seatrial.core.windows import parse_window
from seatrial.serving.clients.client import Client
from tests.journeys.worlds import served

pytestmark = pytest.mark.slow

AT = datetime(2024, 1, 20, tzinfo=UTC)
WINDOW = parse_window("2024-01-14T00:00:00Z/2024-01-17T00:00:00Z")
PROJECT = """
    from seatrial import CsvSource, Deployment, Entity, Gate, Model, agg, feature_view

    sales = CsvSource("sales.csv", event_timestamp="at", event_key=["id"])
    shop = Entity("shop", keys=["shop"])

    @feature_view(entity=shop, source=sales)
    class lately:
        mean = agg.mean("amount", window="30h")
        count = agg.count(window="3d")

    @feature_view(entity=shop, source=sales)
    class newest:
        amount = agg.last("amount")
        age = agg.age(unit="1h")

    things = CsvSource("things.csv", event_timestamp="at", event_key=["id"])
    Model(
        "heavy", task="binary", target="heavy", labels=things, key=["id"],
        features=["request:size", lately, newest],
        estimator="lightgbm.LGBMClassifier", params={"n_estimators": 8}, cv_folds=2,
        gates=[Gate.at_least("roc_auc", 0.5)], owner="tests", on_call="tests", runbook="none",
    )
    Deployment("heavy")
"""
PUSHED = [{"id": 1000 + i, "at": f"2024-01-18T{i:02}:30:00Z", "shop": i % 5, "amount": i * 7 + 3} for i in range(20)]


@pytest.fixture
def folders(tmp_path, redis_server):
    """The same project twice, deployed: with a file, and with a server."""
    file = tmp_path / "sqlite"
    file.mkdir()
    (file / "project.py").write_text(textwrap.dedent(PROJECT))
    times = [f"2024-01-{1 + i // 24:02}T{i % 24:02}:00:00Z" for i in range(400)]
    things = [f"{i},{time},{i % 5},{(i * 7 % 400) / 400},{i * 7 % 400 > 200}" for i, time in enumerate(times)]
    sales = [f"{i},{time},{i % 5},{i * 13 % 97}" for i, time in enumerate(times)]
    (file / "things.csv").write_text("id,at,shop,size,heavy\n" + "\n".join(things) + "\n")
    (file / "sales.csv").write_text("id,at,shop,amount\n" + "\n".join(sales) + "\n")
    (file / "seatrial.toml").write_text('name = "shops"\n')
    for verb in ("train", "release", "deploy"):
        assert run([verb, "--project", str(file)]) == 0
    assert not (file / ".seatrial" / "online.db").exists()
    server = shutil.copytree(file, tmp_path / "redis")
    (server / "seatrial.toml").write_text(f'name = "shops"\n[stores]\nonline = "{redis_server.unix(5)}"\n')
    return file, server


def answers(folder, rows):
    """What two server processes of the project answer, for each row and instant."""
    found = []
    with served(folder, "--replay") as (_, first), served(folder, "--replay") as (_, second):
        for url in (first, second):
            with Client(url) as client:
                for row, at in rows:
                    answer = client.predict(row, at=at, return_features=True)
                    found.append({name: answer.get(name) for name in ("probability", "features", "views", "degraded")})
    assert found[: len(rows)] == found[len(rows) :]
    return found


def test_every_verb_answers_from_redis_what_it_answers_from_sqlite(folders, redis_server, capsys):
    rows = [({"shop": i % 7, "size": i / 40}, AT + timedelta(minutes=i)) for i in range(40)]
    results = []
    for folder in folders:
        with Project(folder, clock=FixedClock(AT)) as project:
            written = project.materialize(at=datetime(2024, 1, 14, tzinfo=UTC))
            with served(folder, "--replay") as (_, url):
                replayed = project.replay("heavy", WINDOW, url=url)
            pushed = project.push("sales", PUSHED)
            again = project.push("sales", PUSHED)
            named = [(one.column, one.online_rows, one.materialized_through) for one in project.features()]
            assert [check.name for check in project.doctor() if not check.passed and check.name == "online store"] == []
            predicted = project.predict("heavy", [{"shop": 3, "size": 0.5}])
        found = {"materialize": written, "push": pushed, "again": again, "features": named}
        found |= {"replay": (replayed.predictions, replayed.pushed, replayed.metrics)}
        found |= {"predict": [answer["probability"] for answer in predicted], "serve": answers(folder, rows)}
        results.append(found)
    assert results[0] == results[1]
    assert [one.written for one in results[1]["again"]] == [0, 0]
    assert all(answer["degraded"] is None for answer in results[1]["serve"])
    assert len({answer["probability"] for answer in results[1]["serve"]}) > 3
    assert not (folders[1] / ".seatrial" / "online.db").exists()
    capsys.readouterr()
    assert run(["features", "list", "--json", "--project", str(folders[1])]) == 0
    assert {one["online_rows"] for one in json.loads(capsys.readouterr().out)} == {5}
    redis_server.stop()
    try:
        assert run(["features", "list", "--json", "--project", str(folders[1])]) == 0
        assert {one["online_rows"] for one in json.loads(capsys.readouterr().out)} == {None}
        assert run(["materialize", "--project", str(folders[1])]) == 6
        assert run(["push", "sales", str(folders[1] / "sales.csv"), "--project", str(folders[1])]) == 6
    finally:
        redis_server.start()
