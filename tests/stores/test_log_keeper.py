"""The keeper: a process beside the server ships its log, whoever is killed, and ends when the server ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from seatrial.core.clock import monotonic
from seatrial.core.windows import DAY_US
from seatrial.stores import pauses
from seatrial.stores.log_keeper import Keeper, Orders
from seatrial.stores.metadata import MetadataStore
from seatrial.stores.objects import ObjectStore
from seatrial.stores.prediction_log import LogUnwritable, LogWarning, PredictionLog
from seatrial.testing.prediction_log_suite import a_schema, fill, ids
from tests.disks import fill_up, small_disk


@pytest.fixture
def log(tmp_path):
    log = PredictionLog(tmp_path / "log", objects=ObjectStore(tmp_path / "objects"))
    yield log
    log.close()


def orders(log: PredictionLog, **changes: object) -> Orders:
    assert log.objects is not None
    given = {"root": str(log.root), "objects": str(log.objects.root), "ship_seconds": 0.2, "rest_seconds": 5.0}
    return Orders(**given | changes)


def keep_once(log: PredictionLog, **changes: object) -> None:
    """A server that ends at once, and has half a second for the rest."""
    with Keeper(orders(log, rest_seconds=0.5, **changes)):
        pass


def until(fact: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until something is so."""
    end = monotonic() + seconds
    while not fact():
        assert monotonic() < end, "it did not come"
        threading.Event().wait(0.05)


def test_closed_segments_are_shipped_while_the_server_runs(log):
    with Keeper(orders(log)):
        written = fill(log, a_schema(), 3)
        log.rotate()
        until(lambda: log.unshipped() == 0)
        assert ids(log) == written
        written += fill(log, a_schema(), 1)
        assert log.unshipped() == 1


def test_nothing_is_shipped_while_that_is_paused_and_all_of_it_afterwards(log, tmp_path):
    metadata = MetadataStore(tmp_path / "metadata.db")
    with metadata.transaction() as transaction:
        pauses.pause(transaction, pauses.SHIPPING, reason="costs", until_us=None, actor="ada", at_us=1)
    path = str(metadata.path)
    fill(log, a_schema(), 2)
    log.close()
    with pytest.warns(LogWarning, match="2 predictions are not shipped"):
        keep_once(log, metadata=path)
    assert log.unshipped() == 2
    with Keeper(orders(log, metadata=path)):
        with metadata.transaction() as transaction:
            pauses.resume(transaction, pauses.SHIPPING, reason="", actor="ada", at_us=2)
        until(lambda: log.unshipped() == 0)


def test_the_rest_is_shipped_when_the_block_ends(log):
    with Keeper(orders(log, ship_seconds=3600.0)):
        written = fill(log, a_schema(), 3)
        log.close()
    assert log.unshipped() == 0
    assert ids(log) == written


def test_a_segment_that_nobody_appends_to_is_closed_and_shipped(tmp_path):
    log = PredictionLog(tmp_path / "log", objects=ObjectStore(tmp_path / "objects"), segment_seconds=0.3)
    with Keeper(orders(log)):
        fill(log, a_schema(), 1)
        until(lambda: log.unshipped() == 0)
    log.close()


def worker_of(keeper: int) -> int:
    """The process that does the work; 0 while there is none."""
    with suppress(OSError):
        return int((Path("/proc") / f"{keeper}/task/{keeper}/children").read_text() or 0)
    return 0


def test_a_worker_that_is_killed_is_started_again(log):
    with Keeper(orders(log)) as keeper:
        until(lambda: worker_of(keeper.pid))
        first = worker_of(keeper.pid)
        os.kill(first, signal.SIGKILL)
        fill(log, a_schema(), 2)
        log.rotate()
        until(lambda: log.unshipped() == 0)
        assert worker_of(keeper.pid) not in (0, first)


def test_a_keeper_that_is_killed_altogether_ships_the_rest_all_the_same(log):
    with Keeper(orders(log)) as keeper:
        until(lambda: worker_of(keeper.pid))
        worker = worker_of(keeper.pid)
        os.kill(keeper.pid, signal.SIGKILL)
        until(lambda: is_gone(worker))
        fill(log, a_schema(), 2)
        log.close()
    assert log.unshipped() == 0


def is_gone(process: int) -> bool:
    try:
        return ") Z " in (Path("/proc") / f"{process}/stat").read_text()
    except OSError:
        return True


def test_of_two_keepers_the_other_takes_over_when_one_ends(log):
    with Keeper(orders(log)):
        with Keeper(orders(log)):
            fill(log, a_schema(), 1)
            log.rotate()
            until(lambda: log.unshipped() == 0)
        fill(log, a_schema(), 1)
        log.rotate()
        until(lambda: log.unshipped() == 0)
    assert len(ids(log)) == 2


SERVER = """
import sys
from pathlib import Path
from seatrial.stores.log_keeper import Keeper, Orders
from seatrial.stores.prediction_log import PredictionLog
from seatrial.testing.prediction_log_suite import a_schema, fill
log = PredictionLog(Path(sys.argv[1]))
with Keeper(Orders(sys.argv[1], sys.argv[2], ship_seconds=3600.0)) as keeper:
    fill(log, a_schema(), 5)
    print(keeper.pid, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_server_left_is_shipped_by_its_keeper_which_then_ends(log):
    words = [sys.executable, "-c", SERVER, str(log.root), str(log.objects.root)]
    server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    keeper = int(server.stdout.readline())
    assert log.unshipped() == 5
    server.kill()
    server.wait()
    server.stdin.close()
    server.stdout.close()
    until(lambda: log.unshipped() == 0)
    until(lambda: is_gone(keeper))
    assert len(ids(log)) == 5


def test_signals_are_left_to_the_server(log):
    with Keeper(orders(log)) as keeper:
        until(lambda: (log.root / "keeper.lock").exists())
        worker = worker_of(keeper.pid)
        for process in (keeper.pid, worker):
            for number in (signal.SIGTERM, signal.SIGINT):
                os.kill(process, number)
        fill(log, a_schema(), 1)
        log.rotate()
        until(lambda: log.unshipped() == 0)
        assert worker_of(keeper.pid) == worker


def test_an_object_store_that_is_away_is_told_once_and_caught_up_when_it_is_back(log, tmp_path, capfd):
    (tmp_path / "objects").write_text("something else lies there")
    said = ""

    def heard(words: str) -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return words in said

    with Keeper(orders(log)):
        fill(log, a_schema(), 2)
        log.rotate()
        until(lambda: heard("is not shipped"))
        assert log.unshipped() == 2
        (tmp_path / "objects").unlink()
        until(lambda: log.unshipped() == 0)
        until(lambda: heard("shipped again"))
    assert said.count("seatrial:") == 2


def test_what_could_not_be_shipped_in_time_is_said_and_shipped_by_the_next(log, tmp_path, capfd):
    (tmp_path / "objects").write_text("something else lies there")
    fill(log, a_schema(), 3)
    log.close()
    with pytest.warns(LogWarning, match="3 predictions are not shipped"):
        keep_once(log)
    (tmp_path / "objects").unlink()
    with Keeper(orders(log)):
        pass
    assert log.unshipped() == 0
    assert len(ids(log)) == 3
    capfd.readouterr()


@pytest.mark.parametrize("filled_by", ["segments", "another"])
def test_a_full_disk_heals_while_the_object_store_has_room_and_loses_nothing(tmp_path, capfd, filled_by):
    with small_disk(tmp_path / "disk", "1m") as disk:
        objects = ObjectStore(tmp_path / "objects")
        log = PredictionLog(disk / "log", objects=objects, segment_bytes=32 * 2**10)
        written = []

        def takes() -> bool:
            try:
                written.extend(fill(log, a_schema(), 1))
            except LogUnwritable:
                return False
            return True

        while takes():
            if filled_by == "another" and len(written) == 1500:
                fill_up(disk)
        assert len(written) >= 1500
        with Keeper(orders(log)):
            until(takes)  # the full segment is closed now, and another begun
            for _ in range(1000):
                until(takes)
            log.close()
        assert ids(log) == written
        assert log.unshipped() == 0
    said = capfd.readouterr().err
    assert "the prediction log's disk is full. Its closed segments go straight to the object store" in said
    assert "No space left" not in said


def test_an_object_store_that_hangs_does_not_hold_up_the_end(log, tmp_path):
    (tmp_path / "objects" / ".incoming").mkdir(parents=True)
    holder = (tmp_path / "objects" / ".incoming" / "lock").open("w")
    fcntl.flock(holder, fcntl.LOCK_EX)  # whoever puts an object waits for it
    fill(log, a_schema(), 1)
    log.close()
    with pytest.warns(LogWarning, match="1 predictions"):
        keep_once(log)
    holder.close()
    assert len(ids(log)) == 1


def test_what_is_too_old_goes_after_the_audit_log_was_told(log, tmp_path):
    metadata = tmp_path / "metadata.db"
    store = MetadataStore(metadata)
    fill(log, a_schema(), 2)
    log.rotate()
    with Keeper(orders(log, retention_us=90 * DAY_US, metadata=str(metadata), actor="ops")):
        until(lambda: log.unshipped() == 0 and ids(log) == [])
    (event,) = store.events(kind="predictions.pruned")
    assert (event.actor, event.body["records"]) == ("ops", 2)
    store.close()


def test_without_an_audit_log_nothing_is_taken_away(log, tmp_path, capfd):
    written = fill(log, a_schema(), 2)
    log.rotate()
    with Keeper(orders(log, retention_us=90 * DAY_US, metadata=str(tmp_path))):
        until(lambda: log.unshipped() == 0)
        until(lambda: "seatrial:" in capfd.readouterr().err)
    assert ids(log) == written
