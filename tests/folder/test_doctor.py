"""The doctor: a store that is damaged, a clock that is wrong and a key that others can read are found, and no more."""

from __future__ import annotations

import sqlite3

import pytest

from seatrial import Project
from seatrial.core.clock import machine_us
from seatrial.folder.doctor import START_OF_2024_US
from tests.servers import free_port


@pytest.fixture
def folder(tmp_path):
    """A project with an event, online rows' file, an object and a key."""
    (tmp_path / "project.py").touch()
    with Project(tmp_path) as project:
        with project.metadata.transaction() as transaction:
            project.event(transaction, "something.happened", "a", {})
        project.objects.put("a", b"a")
        _ = project.online, project.signing_key
    return tmp_path


def failed(folder) -> dict[str, str]:
    """The checks that did not pass: what each found. Every one of them says what to do."""
    with Project(folder) as project:
        wrong = [check for check in project.doctor() if not check.passed]
    assert all(check.next for check in wrong)
    return {check.name: check.found for check in wrong}


def test_a_project_that_is_whole_is_found_to_be(folder):
    assert failed(folder) == {}
    with Project(folder) as project:
        found = {check.name: check.found for check in project.doctor()}
    assert found["metadata store"].startswith("format 1, ")
    assert "no damage" in found["online store"]


def test_a_folder_without_state_is_fit_and_stays_without(tmp_path):
    assert failed(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("file", "name"), [("metadata.db", "metadata store"), ("online.db", "online store")])
@pytest.mark.parametrize("damage", ["no database", "pages", "newer"])
def test_a_damaged_store_is_found(folder, file, name, damage):
    path = folder / ".seatrial" / file
    if damage == "newer":
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version=99")
        connection.close()
    else:
        data = bytearray(path.read_bytes())
        start = 0 if damage == "no database" else 4096
        data[start:] = b"\xff" * (len(data) - start)
        path.write_bytes(data)
    assert name in failed(folder)


def test_a_clock_behind_the_newest_event_is_found(folder, monkeypatch):
    monkeypatch.setattr("seatrial.folder.doctor.machine_us", lambda: machine_us() - 3_600_000_000)
    assert "before the newest event, number 1" in failed(folder)["clock"]


def test_a_clock_that_was_never_set_is_found(folder, monkeypatch):
    monkeypatch.setattr("seatrial.folder.doctor.machine_us", lambda: START_OF_2024_US - 1)
    assert "2023-12-31" in failed(folder)["clock"]


def test_a_key_that_others_can_read_is_found(folder):
    (folder / ".seatrial" / "keys" / "signing.key").chmod(0o640)
    assert "mode 640" in failed(folder)["signing key"]


def test_objects_that_are_no_folder_are_found(folder):
    (folder / ".seatrial" / "objects" / "a").unlink()
    for left in sorted((folder / ".seatrial" / "objects").rglob("*"), reverse=True):
        left.rmdir() if left.is_dir() else left.unlink()
    (folder / ".seatrial" / "objects").rmdir()
    (folder / ".seatrial" / "objects").touch()
    assert "no folder" in failed(folder)["objects"]


class TestAnOnlineStoreOnRedis:
    def test_one_that_answers_is_fit(self, folder, redis_server, monkeypatch):
        monkeypatch.setenv("SEATRIAL_STORES_ONLINE", redis_server.address())
        assert failed(folder) == {}

    def test_one_that_may_forget_rows_by_itself_is_not(self, folder, own_redis, monkeypatch):
        server = own_redis("--maxmemory-policy", "allkeys-lru")
        monkeypatch.setenv("SEATRIAL_STORES_ONLINE", server.address())
        assert "rows vanish" in failed(folder)["online store"]

    def test_one_that_is_down_is_named_without_its_password(self, folder, monkeypatch):
        monkeypatch.setenv("SEATRIAL_STORES_ONLINE", f"redis://:hidden@127.0.0.1:{free_port()}/0")
        found = failed(folder)["online store"]
        assert "127.0.0.1" in found
        assert "hidden" not in found


def test_what_mlflow_refused_is_told_with_its_reason(folder, monkeypatch):
    monkeypatch.delenv("SEATRIAL_STORES_MLFLOW", raising=False)
    (folder / "seatrial.toml").write_text('[stores]\nmlflow = "sqlite:///.seatrial/mlflow.db"\n')
    with Project(folder) as project:
        with project.metadata.transaction() as transaction:
            transaction.enqueue("mlflow.refused", {"reason": "the experiment is deleted", "message": {}})
        (check,) = [one for one in project.doctor() if one.name == "mirror"]
    assert not check.passed
    assert "refused 1: the experiment is deleted" in check.found
    assert "again=True" in check.next
