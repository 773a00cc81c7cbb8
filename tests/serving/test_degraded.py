"""What a server does when a part beside it is broken: it answers what it can, and says why it cannot answer the rest.

The project here looks its features up, and is live. Each test breaks one thing and asks a real `seatrial serve`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from seatrial.cli import run
from seatrial.serving.clients.client import Client, ServerUnable

ROW = {"shop": 3, "size": 0.5}
PROJECT = """
    from seatrial import CsvSource, Deployment, Entity, Gate, Model, agg, feature_view

    sales = CsvSource("sales.csv", event_timestamp="at", event_key=["id"])

    @feature_view(entity=Entity("shop", keys=["shop"]), source=sales)
    class shop_sales:
        last = agg.last("amount")

    things = CsvSource("things.csv", event_timestamp="at", event_key=["id"])
    Model(
        "heavy", task="binary", target="heavy", labels=things, key=["id"],
        features=["request:size", shop_sales],
        estimator="lightgbm.LGBMClassifier", params={"n_estimators": 5}, cv_folds=2,
        gates=[Gate.at_least("roc_auc", 0.5)], owner="tests", on_call="tests", runbook="none",
    )
    Deployment("heavy", on_store_failure="FAILURE")
"""


def made(folder, failure):
    folder.mkdir()
    (folder / "project.py").write_text(textwrap.dedent(PROJECT.replace("FAILURE", failure)))
    times = [f"2024-01-{1 + i // 24:02}T{i % 24:02}:00:00Z" for i in range(400)]
    things = [f"{i},{time},{i % 5},{(i * 7 % 400) / 400},{i * 7 % 400 > 200}" for i, time in enumerate(times)]
    sales = [f"{i},{time},{i % 5},{i}" for i, time in enumerate(times)]
    (folder / "things.csv").write_text("id,at,shop,size,heavy\n" + "\n".join(things) + "\n")
    (folder / "sales.csv").write_text("id,at,shop,amount\n" + "\n".join(sales) + "\n")
    for verb in ("materialize", "train", "release", "deploy"):
        assert run([verb, "--project", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """Both kinds of project, live: those that refuse without their store, and those that go on."""
    home = tmp_path_factory.mktemp("degraded")
    return {failure: made(home / failure, failure) for failure in ("refuse", "missing")}


@pytest.fixture
def refusing(live, tmp_path):
    return shutil.copytree(live["refuse"], tmp_path / "refusing")


@pytest.fixture
def flagging(live, tmp_path):
    return shutil.copytree(live["missing"], tmp_path / "flagging")


@contextmanager
def serving(folder, *words) -> Iterator[tuple[Client, list[str]]]:
    """A client of `seatrial serve` in `folder`; what the server said on stderr is in the list in the end."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "seatrial", "serve", "--port", "0", "--json", "--project", str(folder), *words]
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True) as process:
        try:
            document = "".join(iter(process.stdout.readline, "}\n"))
            if not document:
                raise AssertionError(process.stderr.read())
            with Client(json.loads(document + "}")["url"]) as client:
                yield client, said
        finally:
            process.send_signal(signal.SIGTERM)
            said.append(process.stderr.read())
            assert process.wait(30) == 0


def looked_up(client):
    """An answer with features. One that failed is asked again after a while; this machine may be busy, too."""
    for _ in range(20):
        answer = client.predict(ROW)
        if "degraded" not in answer:
            return answer
        time.sleep(0.1)
    raise AssertionError(answer)


def damage(file) -> None:
    for path in file.parent.glob(file.name + "-*"):
        path.unlink()
    file.write_bytes(b"this is no database" * 1000)


class TestMetadata:
    def test_a_damaged_store_does_not_stop_serving_and_is_told(self, refusing):
        damage(refusing / ".seatrial" / "metadata.db")
        with serving(refusing) as (client, said):
            assert client.predict(ROW)["prediction"] in (0, 1)
        assert "metadata.db is damaged" in said[0]
        assert "served as they are" in said[0]

    @pytest.mark.slow
    def test_a_store_that_another_process_keeps_is_not_waited_for(self, refusing):
        holder = sqlite3.connect(refusing / ".seatrial" / "metadata.db", isolation_level=None)
        holder.execute("PRAGMA locking_mode=EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        with serving(refusing) as (client, said):
            assert client.predict(ROW)["prediction"] in (0, 1)
        holder.close()
        assert "was kept by another process for 0.1 s" in said[0]

    def test_no_store_is_no_warning_and_none_is_made(self, refusing):
        for path in (refusing / ".seatrial").glob("metadata.db*"):
            path.unlink()
        with serving(refusing) as (client, said):
            assert client.predict(ROW)["prediction"] in (0, 1)
        assert "metadata" not in said[0]
        assert not (refusing / ".seatrial" / "metadata.db").exists()

    @pytest.mark.filterwarnings("default")
    def test_a_prediction_without_a_server_needs_none_either(self, refusing, capsys):
        damage(refusing / ".seatrial" / "metadata.db")
        assert run(["predict", "--request", json.dumps(ROW), "--json", "--project", str(refusing)]) == 0
        out = capsys.readouterr()
        assert json.loads(out.out)[0]["prediction"] in (0, 1)
        assert "served as they are" in out.err


class TestOnlineStore:
    def test_without_it_the_service_starts_and_refuses_or_flags_as_was_declared(self, refusing, flagging):
        for folder in (refusing, flagging):
            damage(folder / ".seatrial" / "online.db")
        with serving(refusing) as (client, said):
            assert client.ready()["ready"]
            for _ in range(2):
                with pytest.raises(ServerUnable) as error:
                    client.predict(ROW)
                assert error.value.facts["code"] == "serving.online_store_down"
            assert b'seatrial_online_store_failures_total{code="online.damaged",model_name="heavy"} 2' in client.get(
                "/metrics"
            )
        assert said[0].count("online store online.db cannot be read") == 1
        with serving(flagging) as (client, _):
            assert client.predict(ROW)["degraded"] == ["online_store"]

    def test_a_bundle_alone_starts_without_it_too(self, refusing):
        damage(refusing / ".seatrial" / "online.db")
        (bundle,) = (refusing / ".seatrial" / "objects" / "releases").glob("*.seatrial")
        (refusing / ".seatrial" / "keys" / "trusted").mkdir(exist_ok=True)
        with serving(refusing, "--bundle", str(bundle)) as (client, _), pytest.raises(ServerUnable) as error:
            client.predict(ROW)
        assert error.value.facts["code"] == "serving.online_store_down"

    def test_one_that_was_rebuilt_is_asked_without_a_restart(self, flagging):
        online = flagging / ".seatrial" / "online.db"
        damage(online)
        with serving(flagging) as (client, _):
            assert "degraded" in client.predict(ROW)
            online.unlink()
            assert run(["materialize", "--project", str(flagging)]) == 0
            assert "degraded" not in client.predict(ROW)

    def test_one_that_another_process_keeps_is_not_waited_for(self, flagging):
        holder = sqlite3.connect(flagging / ".seatrial" / "online.db", isolation_level=None)
        holder.execute("PRAGMA locking_mode=EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        with serving(flagging) as (client, _):
            assert client.predict(ROW)["degraded"] == ["online_store"]
            holder.close()
            assert looked_up(client)["prediction"] in (0, 1)

    def test_one_of_a_newer_version_is_a_store_that_is_down(self, refusing):
        with sqlite3.connect(refusing / ".seatrial" / "online.db") as connection:
            connection.execute("PRAGMA user_version=99")
        connection.close()
        with serving(refusing) as (client, _), pytest.raises(ServerUnable) as error:
            client.predict(ROW)
        assert error.value.facts["code"] == "serving.online_store_down"


class TestAnOnlineStoreOnRedis:
    @pytest.fixture
    def server(self, own_redis, refusing, flagging, monkeypatch):
        """A server of its own that both projects are materialized into."""
        server = own_redis()
        monkeypatch.setenv("SEATRIAL_STORES_ONLINE", server.address())
        for folder in (refusing, flagging):
            assert run(["materialize", "--project", str(folder)]) == 0
        return server

    def test_one_that_is_down_is_refused_or_flagged_as_was_declared_until_it_is_back(self, server, refusing, flagging):
        server.stop()
        with serving(refusing) as (refuser, said), serving(flagging) as (flagger, _):
            assert refuser.ready()["ready"]
            for _ in range(2):
                with pytest.raises(ServerUnable) as error:
                    refuser.predict(ROW)
                assert error.value.facts["code"] == "serving.online_store_down"
            assert flagger.predict(ROW)["degraded"] == ["online_store"]
            server.start()
            for folder in (refusing, flagging):
                assert run(["materialize", "--project", str(folder)]) == 0
            assert "views" not in looked_up(flagger)
            assert looked_up(refuser)["prediction"] in (0, 1)
        assert said[0].count("did not answer") >= 1

    def test_one_that_goes_away_while_serving_and_comes_back_empty_is_only_missed_while_it_is_away(
        self, server, flagging
    ):
        with serving(flagging) as (client, _):
            assert "views" not in looked_up(client)
            server.stop()
            assert client.predict(ROW)["degraded"] == ["online_store"]
            server.start()
            assert looked_up(client)["views"] == {"shop_sales": "missing"}

    def test_one_that_hangs_is_not_waited_for(self, server, refusing, flagging):
        with serving(refusing) as (refuser, _), serving(flagging) as (flagger, _):
            first = looked_up(flagger)
            server.pause()
            assert flagger.predict(ROW)["degraded"] == ["online_store"]
            with pytest.raises(ServerUnable) as error:
                refuser.predict(ROW)
            assert error.value.facts["code"] == "serving.online_store_down"
            server.go_on()
            assert looked_up(flagger)["probability"] == first["probability"]

    def test_one_of_a_newer_version_or_that_wants_a_password_is_a_store_that_is_down(self, server, flagging):
        server.ask("HSET", f"seatrial:{flagging.name}", "format", "99")
        with serving(flagging) as (client, said):
            assert client.predict(ROW)["degraded"] == ["online_store"]
        assert "format 99" in said[0]
        server.ask("CONFIG", "SET", "requirepass", "changed")
        with serving(flagging) as (client, said):
            assert client.predict(ROW)["degraded"] == ["online_store"]
        assert "does not let this user in" in said[0]


def test_a_prediction_in_this_process_that_the_disk_does_not_take_is_no_answer(refusing, capsys):
    words = ["predict", "--request", json.dumps(ROW), "--json", "--project", str(refusing)]
    assert run(words) == 0
    capsys.readouterr()
    shutil.rmtree(refusing / ".seatrial" / "log")
    (refusing / ".seatrial" / "log").write_text("in the way")
    assert run(words) == 6
    out = capsys.readouterr()
    assert "log.unwritable" in out.out + out.err
    assert "prediction_id" not in out.out


def test_a_prediction_in_this_process_without_the_online_store_may_be_tried_again(refusing, capsys):
    damage(refusing / ".seatrial" / "online.db")
    assert run(["predict", "--request", json.dumps(ROW), "--json", "--project", str(refusing)]) == 6
    out = capsys.readouterr()
    assert "the online store does not answer" in out.out + out.err
