"""The metadata store on SQLite: everything such a store must satisfy, and what only a file can get wrong."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatrial.core.errors import Failed, Unavailable
from seatrial.governance import audit
from seatrial.stores import metadata
from seatrial.stores.metadata import (
    MetadataBusy,
    MetadataDamaged,
    MetadataStore,
    MetadataTooNew,
    MetadataUnreachable,
    MigrationFailed,
    NotMetadata,
)
from seatrial.testing import MetadataSuite
from seatrial.testing.metadata_suite import add, happen, record


class TestMetadataStore(MetadataSuite):
    @pytest.fixture
    def open_store(self, tmp_path):
        return lambda: MetadataStore(tmp_path / "made" / "here" / "metadata.db")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metadata.db"


@pytest.fixture
def store(path):
    opened = MetadataStore(path)
    yield opened
    opened.close()


def sql(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements]


# What is plain comes back


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=st.dictionaries(st.text(max_size=5), plain, max_size=4))
def test_every_plain_body_comes_back_and_verifies(store, body):
    event = happen(store, "seen", "thing", given=body)
    [found] = store.events(after=event.seq - 1)
    assert found == event
    assert found.body == {"given": body}
    assert audit.verify(store).intact


# Many processes


def run_together(code, *arguments, count=8):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(count)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return [(process.communicate()[0], process.returncode) for process in processes]


OPEN = """
import sys
from pathlib import Path
from seatrial.stores.metadata import MetadataStore
print("ready", flush=True)
sys.stdin.readline()
for attempt in range(20):
    store = MetadataStore(Path(sys.argv[1]) / str(attempt) / "metadata.db")
    with store.transaction() as transaction:
        transaction.event("started", "here", actor=sys.argv[2], at_us=0)
    store.close()
"""


def test_eight_processes_that_start_in_an_empty_folder_do_not_collide(tmp_path):
    assert run_together(OPEN, tmp_path) == [("", 0)] * 8
    for attempt in range(20):
        store = MetadataStore(tmp_path / str(attempt) / "metadata.db")
        assert sorted(event.actor for event in store.events()) == list("01234567")
        assert audit.verify(store).intact
        store.close()


READ_THEN_WRITE = """
import sys
from pathlib import Path
from seatrial.core.records import Record
from seatrial.stores.metadata import HeadMoved, MetadataStore
store = MetadataStore(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
lost = 0
for number in range(20):
    with store.transaction() as transaction:      # read inside: never refused
        head = transaction.head("version", "late")
        generation = head.generation if head else 0
        made = Record(f"ver_{generation + 1:03}", "version", "late", (), {"number": generation + 1})
        assert transaction.add(made)
        transaction.event("version.created", made.id, actor=sys.argv[2], at_us=number)
        transaction.move("version", "late", made.id, expected=generation)
    seen = store.head("alias", "late@candidate")   # read outside: refused when somebody was faster
    try:
        with store.transaction() as transaction:
            transaction.event("alias.moved", "late@candidate", actor=sys.argv[2], at_us=number)
            transaction.move("alias", "late@candidate", made.id, expected=seen.generation if seen else 0)
    except HeadMoved:
        lost += 1
print(lost)
"""


def test_eight_writers_that_read_then_write_never_fail_and_lose_no_update(path, store):
    answers = run_together(READ_THEN_WRITE, path)
    assert [code for _, code in answers] == [0] * 8, answers
    refused = sum(int(out) for out, _ in answers)
    assert [made.body["number"] for made in store.records("version")] == list(range(1, 161))
    assert store.head("version", "late").generation == 160
    assert store.head("alias", "late@candidate").generation == 160 - refused
    assert len(store.events(kind="alias.moved")) == 160 - refused
    assert audit.verify(store).intact


def test_a_writer_that_waits_too_long_is_told_so(path, store):
    impatient = MetadataStore(path, busy_seconds=0.05)
    with store.transaction() as transaction:
        transaction.add(record("run_1"))
        with ThreadPoolExecutor(1) as elsewhere:
            refused = elsewhere.submit(happen, impatient).exception()
            assert isinstance(refused, MetadataBusy)
            assert elsewhere.submit(impatient.records, "run").result() == []
            assert elsewhere.submit(lambda: MetadataStore(path, busy_seconds=0.05).close()).result() is None
    assert refused.exit_code == 6
    assert "0.05 s" in str(refused)
    assert happen(impatient).seq == 1
    impatient.close()


FORK = """
import os, sys
from pathlib import Path
from seatrial.stores.metadata import MetadataStore
store = MetadataStore(Path(sys.argv[1]))
def write(actor):
    for _ in range(20):
        with store.transaction() as transaction:
            transaction.event("seen", "here", actor=actor, at_us=0)
write("parent")
child = os.fork()
write("child" if child == 0 else "parent")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 0)
"""


def test_a_forked_child_writes_beside_its_parent(path, store):
    assert subprocess.run([sys.executable, "-c", FORK, str(path)], check=False).returncode == 0
    actors = [event.actor for event in store.events()]
    assert (actors.count("parent"), actors.count("child")) == (40, 20)
    assert audit.verify(store).intact


# Death at any moment


WRITE_FOREVER = """
import sys
from pathlib import Path
from seatrial.core.records import Record
from seatrial.stores.metadata import MetadataStore
store = MetadataStore(Path(sys.argv[1]))
number = int(sys.argv[2])
while True:
    number += 1
    with store.transaction() as transaction:
        made = Record(f"run_{number}", "run", "late", (f"snap_{number}",), {"text": "x" * 3000})
        transaction.add(made)
        transaction.event("run.finished", made.id, actor="ada", at_us=0)
        transaction.move("run", "late", made.id, expected=None)
        transaction.enqueue("mlflow", {"run": made.id})
    print(made.id, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_acknowledged_and_leaves_nothing_half(path):
    acknowledged = []
    for attempt in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOREVER, str(path), str(attempt * 1_000_000)],
            stdout=subprocess.PIPE,
            text=True,
        )
        first = process.stdout.readline()
        time.sleep((attempt * 7919 % 100) / 1000)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        acknowledged += (first + rest).split()
        store = MetadataStore(path)
        kept = [made.id for made in store.records("run")]
        assert len(acknowledged) >= attempt + 1
        assert set(acknowledged) <= set(kept)
        assert len(kept) <= len(acknowledged) + attempt + 1  # at most one a kill was kept and not yet told
        assert [event.subject for event in store.events()] == kept
        assert [body["run"] for _, body in store.pending("mlflow")] == kept
        assert store.head("run", "late").record_id == kept[-1]
        assert store.head("run", "late").generation == len(kept)
        assert audit.verify(store).intact
        store.close()


def test_a_start_that_was_killed_before_it_made_the_tables_is_made_good(path):
    path.touch()
    sql(path, "PRAGMA journal_mode=WAL")
    store = MetadataStore(path)
    assert happen(store).seq == 1
    store.close()


def test_a_start_waits_for_another_process_that_looks_into_the_new_file(path):
    path.touch()
    with closing(sqlite3.connect(path, isolation_level=None)) as other, ThreadPoolExecutor(1) as elsewhere:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM sqlite_master").fetchall()  # holds the lock that a reader has
        starting = elsewhere.submit(MetadataStore, path)
        wait([starting], timeout=0.2)
        other.execute("ROLLBACK")
        store = starting.result()
    assert happen(store).seq == 1
    store.close()


# Files that are not right


def test_a_newer_format_is_refused_by_number(path, store):
    newer = len(metadata.MIGRATIONS) + 1
    sql(path, f"PRAGMA user_version={newer}")
    with pytest.raises(MetadataTooNew, match=f"format {newer}"):
        MetadataStore(path)
    with pytest.raises(MetadataTooNew):  # also by a process that opened the file before
        happen(store)


def test_an_event_of_a_newer_format_is_refused_by_number(path, store):
    happen(store)
    sql(path, "UPDATE events SET format = 2")
    with pytest.raises(MetadataTooNew, match="event 1 has the format 2"):
        store.events()


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE runs (id TEXT)", "PRAGMA user_version=1", "PRAGMA application_id=7"]
)
def test_a_database_of_another_program_is_refused_and_not_touched(path, statement):
    sql(path, statement, "CREATE TABLE theirs (id)")
    before = path.read_bytes()
    with pytest.raises(NotMetadata):
        MetadataStore(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"this is no database, whatever its name may say" * 100, b"SQLite format 3\x00" * 99]
)
def test_a_file_that_is_no_database_is_called_damaged_and_not_touched(path, content):
    path.write_bytes(content)
    with pytest.raises(MetadataDamaged) as refused:
        MetadataStore(path)
    assert isinstance(refused.value, Failed)
    assert path.read_bytes() == content


def test_a_file_with_damaged_pages_is_called_damaged(path, store):
    add(store, *(record(f"run_{number}", text="x" * 2000) for number in range(50)))
    store.close()
    data = bytearray(path.read_bytes())
    data[4096 : len(data)] = bytes(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(MetadataDamaged):  # by whichever of the two meets the damage
        MetadataStore(path).records("run")


def test_a_body_that_is_no_json_is_called_damaged(path, store):
    add(store, record("run_1"))
    happen(store)
    with store.transaction() as transaction:
        transaction.enqueue("mlflow", {})
    sql(path, "UPDATE records SET body = '{'", "UPDATE events SET body = x'ff'", "UPDATE outbox SET body = '[]'")
    for read in (
        lambda: store.record("run_1"),
        lambda: store.records("run"),
        store.events,
        store.last_event,
        lambda: store.pending("mlflow"),
    ):
        with pytest.raises(MetadataDamaged):
            read()


def test_the_newest_record_is_read_without_those_before_it(path, store):
    add(store, record("run_1"), record("run_2", "snap_1"))
    sql(path, "UPDATE records SET body = '{' WHERE id = 'run_1'")
    assert store.records("run", "late", newest=1) == [store.record("run_2")]


def test_a_file_that_vanished_is_an_error_and_is_not_made_anew(path):
    store = MetadataStore(path)
    store._idle.pop().close()
    path.unlink()
    with pytest.raises(MetadataUnreachable):
        store.records("run")
    assert not path.exists()
    store.close()


def test_a_place_where_no_file_can_be_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "metadata.db", tmp_path / "file" / "deeper" / "metadata.db"):
        with pytest.raises(MetadataUnreachable) as refused:
            MetadataStore(place)
        assert str(place) in str(refused.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_one_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(MetadataUnreachable):
        MetadataStore(tmp_path / "metadata.db")
    tmp_path.chmod(0o700)


def test_a_full_disk_is_unavailable_keeps_what_was_acknowledged_and_passes(path, store):
    # a limit on the size of files stands for the full disk: the write fails half-way, as it would there
    first = happen(store)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        with pytest.raises(Unavailable):
            add(store, record("run_1", text="x" * 1_000_000))
        assert store.events() == [first]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.record("run_1") is None
    add(store, record("run_1", text="x" * 1_000_000))
    assert happen(store).seq == 2
    assert audit.verify(store).intact


# Formats


def test_a_file_says_whose_it_is_and_its_format(path, store):
    [[(owner,)], [(version,)], [(mode,)], numbers] = sql(
        path, "PRAGMA application_id", "PRAGMA user_version", "PRAGMA journal_mode", "SELECT number FROM migrations"
    )
    assert owner == metadata.APPLICATION_ID
    assert (version,) == numbers[-1]
    assert len(numbers) == version == len(metadata.MIGRATIONS)
    assert mode == "wal"


def test_an_older_file_is_copied_and_then_migrated(path, monkeypatch):
    store = MetadataStore(path)
    add(store, record("run_1"))
    event = happen(store)
    old = len(metadata.MIGRATIONS)
    later = (*metadata.MIGRATIONS, ("ALTER TABLE records ADD COLUMN note TEXT", "CREATE TABLE more (id INTEGER)"))
    monkeypatch.setattr(metadata, "MIGRATIONS", later)
    newer = MetadataStore(path)
    assert newer.record("run_1") == record("run_1")
    assert newer.events() == [event]
    assert sql(path, "SELECT note FROM records") == [[(None,)]]
    monkeypatch.undo()
    with pytest.raises(MetadataTooNew):
        happen(store)
    before = MetadataStore(path.with_name(f"metadata.db.format-{old}.backup"))
    assert before.events() == [event]
    assert before.record("run_1") == record("run_1")
    for opened in (store, newer, before):
        opened.close()


def test_a_migration_that_fails_changes_nothing(path, store, monkeypatch):
    event = happen(store)
    wrong = (*metadata.MIGRATIONS, ("CREATE TABLE more (id INTEGER)",), ("ALTER TABLE nowhere ADD COLUMN a",))
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "MIGRATIONS", wrong)
        with pytest.raises(MigrationFailed, match=f"migration {len(wrong)} "):
            MetadataStore(path)
    assert store.events() == [event]
    assert sql(path, "SELECT count(*) FROM sqlite_master WHERE name = 'more'") == [[(0,)]]
    assert happen(store).seq == 2


def test_a_backup_is_whole_or_not_there(path, store, monkeypatch):
    backup = f"metadata.db.format-{len(metadata.MIGRATIONS)}.backup"
    monkeypatch.setattr(metadata, "MIGRATIONS", (*metadata.MIGRATIONS, ()))
    MetadataStore(path).close()
    names = sorted(file.name for file in path.parent.iterdir() if not file.name.endswith(("-wal", "-shm")))
    assert names == ["metadata.db", backup]


def test_a_closed_store_says_so(store):
    store.close()
    with pytest.raises(RuntimeError, match="closed"):
        store.records("run")
    store.close()
