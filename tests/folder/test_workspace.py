"""The workspace: reading makes nothing, a folder without a project says so, and who may only read can read."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from seatrial import Project
from seatrial.cli import run
from seatrial.folder.loading import NotAProject
from seatrial.folder.workspace import StateEmptied
from seatrial.stores.metadata import MetadataStore, MetadataUnreachable

NOBODY = 65534
READING = """
    status|snapshots list|features list|runs list|models list|releases list|deployments list|audit list|audit verify
""".strip().split("|")
MODEL = """
from seatrial import CsvSource, Model
Model("m", task="binary", target="y", labels=CsvSource("t.csv"), features=["request:x"],
      estimator="lightgbm.LGBMClassifier")
"""


@pytest.fixture
def folder():
    """A folder that every user can reach, with a project file."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    (made / "project.py").write_text(MODEL)
    yield made
    shutil.rmtree(made)


def keep_something(folder):
    with Project(folder) as project, project.metadata.transaction() as transaction:
        project.event(transaction, "something.happened", "a", {})


def as_nobody(act) -> int:
    """Run `act` in a process that owns nothing: what it returns, or 99 when it raised."""
    child = os.fork()
    if not child:
        code = 99
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            code = act()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("words", READING)
def test_reading_makes_nothing_in_a_project_without_state(folder, capsys, words):
    assert run([*words.split(), "--project", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["project.py"]
    assert capsys.readouterr().out.strip()


def test_a_log_without_events_is_not_called_verified(folder, capsys):
    assert run(["audit", "verify", "--project", str(folder)]) == 0
    assert capsys.readouterr().out == "The audit log has no events yet.\n"


@pytest.mark.parametrize("words", READING)
def test_a_folder_without_a_project_says_so_and_stays_as_it_was(tmp_path, capsys, words):
    assert run([*words.split(), "--project", str(tmp_path), "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["code"] == NotAProject.code
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_not_made_yet_is_empty_and_is_made_by_the_first_write(tmp_path):
    store = MetadataStore(tmp_path / "deep" / "metadata.db", make=False)
    assert (store.records("run"), store.heads("alias"), store.head("alias", "a"), store.find("r")) == ([], [], None, [])
    assert (store.events(), store.chain(), store.last_event(), store.appended(), store.pending("t")) == (
        [], [], None, 0, [],
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
    other = MetadataStore(tmp_path / "deep" / "metadata.db")
    with other.transaction() as transaction:
        transaction.event("happened", "a", actor="x", at_us=0)
    assert len(store.events()) == 1  # another process made it meanwhile
    store.close()
    other.close()
    again = MetadataStore(tmp_path / "new.db", make=False)
    with again.transaction() as transaction:
        transaction.event("happened", "a", actor="x", at_us=0)
    assert len(again.events()) == 1
    again.close()


@pytest.mark.parametrize("log_beside", [False, True])
def test_who_may_only_read_can_read_and_is_refused_to_write(folder, log_beside):
    keep_something(folder)
    path = folder / ".seatrial" / "metadata.db"
    path.chmod(0o444)
    (folder / ".seatrial").chmod(0o555)
    folder.chmod(0o555)
    holder = sqlite3.connect(path) if log_beside else None  # keeps the write-ahead log open
    if holder:
        holder.execute("SELECT count(*) FROM events").fetchone()

    def read():
        codes = {run([*words.split(), "--project", str(folder), "--json"]) for words in READING}
        with Project(folder) as project:
            assert len(project.audit_list()) == 1
            with pytest.raises(MetadataUnreachable), project.metadata.transaction() as transaction:
                project.event(transaction, "something.happened", "a", {})
        return max(codes)

    assert as_nobody(read) == 0
    if holder:
        holder.close()
    folder.chmod(0o755)
    (folder / ".seatrial").chmod(0o755)


@pytest.mark.parametrize("place", ["objects/snapshots/snap_1.parquet", "routes/late.json"])
def test_an_emptied_metadata_store_is_not_taken_for_a_new_one(folder, place):
    keep_something(folder)
    left = folder / ".seatrial" / place
    left.parent.mkdir(parents=True)
    left.touch()
    (folder / ".seatrial" / "metadata.db").write_bytes(b"")
    with Project(folder) as project, pytest.raises(StateEmptied, match="0 bytes") as refused:
        project.audit_list()
    assert "backup" in refused.value.next
    assert (folder / ".seatrial" / "metadata.db").read_bytes() == b""


def test_an_empty_metadata_file_beside_nothing_is_a_start_that_was_killed(folder):
    (folder / ".seatrial").mkdir()
    (folder / ".seatrial" / "metadata.db").touch()
    with Project(folder) as project:
        assert project.audit_list() == []
    keep_something(folder)
    with Project(folder) as project:
        assert len(project.audit_list()) == 1


def test_who_only_reads_is_made_no_key(folder):
    with Project(folder) as project:
        assert project.trusted == {}
    assert not (folder / ".seatrial").exists()


def test_the_name_may_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SEATRIAL_NAME", "flights")
    with Project(tmp_path) as project:
        assert project.name == "flights"
