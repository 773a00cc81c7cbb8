"""What an acknowledged record survives, by the failure and by when the log waits for the disk.

A power failure is played by taking away what the disk was not asked for: each segment is cut to the length that it had
when it was last synced, and one whose name was never synced is removed. A real one takes at most as much.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from seatrial.stores.log_keeper import Keeper, Orders
from seatrial.stores.objects import ObjectStore
from seatrial.stores.prediction_log import PredictionLog
from seatrial.testing.prediction_log_suite import a_schema, fill, ids
from tests.stores.test_log_keeper import until

WRITER = """
import json, os, sys
from pathlib import Path
from seatrial.core.clock import monotonic
from seatrial.stores import prediction_log
from seatrial.stores.prediction_log import PredictionLog
from seatrial.testing.prediction_log_suite import a_row, a_schema
root, fsync = Path(sys.argv[1]), sys.argv[2]
synced = open(root.parent / f"synced-{os.getpid()}", "a", buffering=1)
real = os.fdatasync
def fdatasync(fd):
    size = os.fstat(fd).st_size
    real(fd)
    print(json.dumps([os.path.basename(os.readlink(f"/proc/self/fd/{fd}")), size]), file=synced)
os.fdatasync = fdatasync
log = PredictionLog(root, fsync, segment_bytes=20_000)
schema = a_schema()
while True:
    rows = [a_row(schema) for _ in range(3)]
    log.append(schema, rows[0])
    log.append_all([(schema, row) for row in rows[1:]])
    print(monotonic(), *(row.prediction_id for row in rows), flush=True)
"""


def written_by_two(root: Path, fsync: str, lines: int) -> tuple[list[tuple[float, str]], float]:
    """What two writers under load had acknowledged when both were killed, with the instant of each; and the last."""
    words = [sys.executable, "-c", WRITER, str(root), fsync]
    writers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said: list[list[str]] = [[], []]

    def listen(number: int) -> None:
        said[number] = [line for line in writers[number].stdout if line.endswith("\n")]

    listeners = [threading.Thread(target=listen, args=(number,)) for number in range(2)]
    first = [writer.stdout.readline() for writer in writers]
    for listener in listeners:
        listener.start()
    synced = root.parent
    until(lambda: sum(path.stat().st_size for path in (root / "segments").glob("*.seg")) > lines * 800)
    assert synced.exists()
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
    for writer, listener in zip(writers, listeners, strict=True):
        listener.join()
        writer.wait()
        writer.stdout.close()
    found = [(float(line.split()[0]), one) for line in [*first, *said[0], *said[1]] for one in line.split()[1:]]
    return found, max(at for at, _ in found)


def lose_power(root: Path) -> None:
    """Take away of every segment what its disk was not asked to keep."""
    kept: dict[str, int] = {}
    for file in root.parent.glob("synced-*"):
        for line in file.read_text().splitlines():
            name, size = json.loads(line)
            kept[name] = max(kept.get(name, 0), size)
    for path in (root / "segments").glob("*.seg"):
        if path.name not in kept:
            path.unlink()
        else:
            with path.open("r+b") as file:
                file.truncate(kept[path.name])


@pytest.mark.parametrize("fsync", ["never", "group", "always"])
def test_killing_two_writers_under_load_loses_and_doubles_nothing(tmp_path, fsync):
    acknowledged, _ = written_by_two(tmp_path / "log", fsync, 300)
    log = PredictionLog(tmp_path / "log", objects=ObjectStore(tmp_path / "objects"))
    found = ids(log)
    assert len(found) == len(set(found))
    assert {one for _, one in acknowledged} <= set(found)
    assert all(not report.damaged for report in log.verify())
    with Keeper(Orders(str(log.root), str(tmp_path / "objects"))):
        pass
    assert log.unshipped() == 0
    assert ids(log) == found


@pytest.mark.parametrize(("fsync", "lost_seconds", "lines"), [("always", -1.0, 300), ("group", 1.0, 40_000)])
def test_a_power_failure_takes_no_more_than_is_said(tmp_path, fsync, lost_seconds, lines):
    acknowledged, last = written_by_two(tmp_path / "log", fsync, lines)
    lose_power(tmp_path / "log")
    log = PredictionLog(tmp_path / "log")
    found = ids(log)
    assert len(found) == len(set(found))
    promised = {one for at, one in acknowledged if at <= last - lost_seconds}  # of 50 ms, on a busy machine
    assert promised
    assert promised <= set(found)
    assert log.compact().damaged == ()


def test_without_waiting_for_the_disk_a_power_failure_may_take_everything_that_is_not_compacted(tmp_path):
    acknowledged, _ = written_by_two(tmp_path / "log", "never", 50)
    log = PredictionLog(tmp_path / "log", objects=ObjectStore(tmp_path / "objects"))
    log.compact()
    compacted = ids(log)
    assert {one for _, one in acknowledged} <= set(compacted)
    fill(log, a_schema(), 3)
    lose_power(tmp_path / "log")
    assert ids(log) == compacted
    log.close()


def test_a_lost_disk_takes_what_is_not_shipped_and_nothing_else(tmp_path):
    log = PredictionLog(tmp_path / "log", objects=ObjectStore(tmp_path / "objects"))
    shipped = fill(log, a_schema(), 5)
    log.close()
    with Keeper(Orders(str(log.root), str(tmp_path / "objects"))):
        pass
    fill(log, a_schema(), random.Random(3).randrange(1, 9))
    log.close()
    shutil.rmtree(log.root)
    assert ids(PredictionLog(tmp_path / "another", objects=log.objects)) == shipped
