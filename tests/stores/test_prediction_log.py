"""The prediction log: the shared facts, and what its files survive."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from seatrial.core.errors import Conflict
from seatrial.stores.prediction_log import (
    LogBusy,
    LogColumnMissing,
    LogTooNew,
    LogUnwritable,
    LogWarning,
    PredictionLog,
)
from seatrial.testing.prediction_log_suite import PredictionLogSuite, a_row, a_schema, fill, ids


class TestPredictionLog(PredictionLogSuite):
    @pytest.fixture(params=["never", "group", "always"])
    def log(self, tmp_path, request):
        log = PredictionLog(tmp_path / "log", request.param)
        yield log
        log.close()


@pytest.fixture
def log(tmp_path):
    log = PredictionLog(tmp_path / "log")
    yield log
    log.close()


def test_a_folder_may_be_named_by_a_text(log):
    schema = a_schema()
    row = a_row(schema)
    log.append(schema, row)
    other = PredictionLog(str(log.root))
    assert other.root == log.root
    assert other.rows()["prediction_id"].to_pylist() == [row.prediction_id]


def segment(log: PredictionLog) -> Path:
    (path,) = (log.root / "segments").glob("*.seg")
    return path


WRITER = """
import sys
from pathlib import Path
from seatrial.stores.prediction_log import PredictionLog
from seatrial.testing.prediction_log_suite import a_row, a_schema
log = PredictionLog(Path(sys.argv[1]), segment_bytes=40_000)
schema = a_schema()
while True:
    rows = [a_row(schema) for _ in range(3)]
    log.append(schema, rows[0])
    log.append_all([(schema, row) for row in rows[1:]])
    print(*(row.prediction_id for row in rows), flush=True)
"""


def test_killing_the_writer_at_any_moment_loses_and_doubles_no_acknowledged_record(log):
    acknowledged: list[str] = []
    moments = random.Random(7)
    for round_ in range(20):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(log.root)], stdout=subprocess.PIPE, text=True)
        for _ in range(moments.randrange(1, 400)):
            acknowledged += process.stdout.readline().split()
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        process.wait()
        process.stdout.close()
        # the last line may have been cut off in the pipe; whatever is whole was acknowledged
        acknowledged += [
            word for line in rest.splitlines(keepends=True) if line.endswith("\n") for word in line.split()
        ]
        if round_ % 5 == 4:
            log.compact()
    found = ids(log)
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)
    assert len(acknowledged) > 1000
    assert log.verify() == [] or all(not report.damaged for report in log.verify())


def test_a_torn_tail_is_dropped_and_counted(log):
    written = fill(log, a_schema(), 3)
    log.rotate()
    path = segment(log)
    whole = path.read_bytes()
    for cut in (1, 5, 20):
        path.write_bytes(whole[:-cut])
        assert ids(log) == written[:2]
        (report,) = log.verify()
        assert report.records == 2
        assert report.torn > 0
        assert report.damaged == ()
    path.write_bytes(whole + bytes(4096))  # what some file systems leave after a power failure
    assert ids(log) == written
    assert log.verify()[0].torn == 4096
    assert log.compact().torn == 4096


def test_every_single_damaged_byte_costs_at_most_its_own_record_and_is_named(log):
    written = fill(log, a_schema(), 6)
    log.rotate()
    path = segment(log)
    whole = bytearray(path.read_bytes())
    for offset in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[offset] ^= 0x41
        path.write_bytes(damaged)
        (report,) = log.verify()
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            table = log.rows()
        assert len(set(written) - set(table["prediction_id"].to_pylist())) <= 1
        assert "feature_delay" in table.column_names
        if report.damaged:
            (damage,) = report.damaged
            assert damage.offset <= offset < damage.offset + damage.length
            assert damage.segment in str(heard[0].message)
            assert str(damage.offset) in str(heard[0].message)
        else:
            assert report.torn > 0


def test_a_damaged_segment_is_kept_when_it_is_compacted(log):
    written = fill(log, a_schema(), 3)
    log.rotate()
    path = segment(log)
    data = bytearray(path.read_bytes())
    data[data.index(written[1].encode())] ^= 1
    path.write_bytes(data)
    done = log.compact()
    assert len(done.damaged) == 1
    assert (log.root / "damaged" / path.name).read_bytes() == bytes(data)
    assert ids(log) == [written[0], written[2]]


CRASH = """
import os, sys
from pathlib import Path
from seatrial.stores.prediction_log import PredictionLog
import pyarrow.parquet, pyarrow.compute
log = PredictionLog(Path(sys.argv[1]))
for point in range(int(sys.argv[2]), 200):
    child = os.fork()
    if child == 0:
        steps = 0
        def step(event, args):
            global steps
            written = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if written or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
                steps += 1
                if steps > point:
                    os._exit(9)
        sys.addaudithook(step)
        log.compact()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
    sys.stdin.readline()
"""


def test_a_compaction_that_dies_at_any_file_operation_loses_and_doubles_nothing(log):
    written = fill(log, a_schema(), 2)
    log.rotate()
    process = subprocess.Popen(
        [sys.executable, "-c", CRASH, str(log.root), "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    crashes = 0
    while (code := int(process.stdout.readline())) == 9:
        crashes += 1
        assert ids(log) == written
        if crashes % 3 == 0:  # sometimes the next attempt finds new segments beside the leftovers
            written += fill(log, a_schema(), 1)
            log.rotate()
        process.stdin.write("\n")
        process.stdin.flush()
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert code == 0
    assert crashes > 10
    assert ids(log) == written
    log.compact()
    assert ids(log) == written
    assert not list((log.root / "segments").iterdir())
    assert not list((log.root / "compacted").glob(".tmp-*"))


def test_readers_see_each_record_once_while_another_process_compacts(log):
    schema = a_schema()
    written: list[str] = []
    compactor = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from seatrial.stores.prediction_log import PredictionLog\n"
            "log = PredictionLog(Path(sys.argv[1]))\n"
            "while True: log.compact()",
            str(log.root),
        ]
    )
    try:
        batches: set[Path] = set()
        while len(batches) < 8:  # each of them was committed between two of these reads, or during one
            written += fill(log, schema, 3)
            log.rotate()
            assert ids(log) == written
            batches = set((log.root / "compacted").glob("*/batch.json"))
    finally:
        compactor.kill()
        compactor.wait()


def test_eight_processes_write_one_log(log):
    code = (
        "import sys; from pathlib import Path; from seatrial.stores.prediction_log import PredictionLog\n"
        "from seatrial.testing.prediction_log_suite import a_schema, fill\n"
        "log = PredictionLog(Path(sys.argv[1])); print(*fill(log, a_schema(), 50))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(log.root)], stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    written = [word for process in processes for word in process.communicate()[0].split()]
    assert len(written) == 400
    assert sorted(ids(log)) == sorted(written)
    log.compact()
    assert sorted(ids(log)) == sorted(written)


def test_a_full_disk_refuses_the_answer_and_keeps_no_part_of_it(log, tmp_path):
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from seatrial.stores.prediction_log import LogUnwritable, PredictionLog\n"
        "from seatrial.testing.prediction_log_suite import a_row, a_schema\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "log = PredictionLog(Path(sys.argv[1])); schema = a_schema(); written = []\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    while True:\n"
        "        row = a_row(schema); log.append(schema, row); written.append(row.prediction_id)\n"
        "except LogUnwritable: pass\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, resource.RLIM_INFINITY))\n"
        "row = a_row(schema); log.append(schema, row); written.append(row.prediction_id)\n"
        "print(*written)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(log.root)], capture_output=True, text=True, check=True)
    assert ids(log) == done.stdout.split()
    assert len(done.stdout.split()) > 5
    assert log.verify()[0].torn == 0


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "log").write_text("a file stands in the way")
    with pytest.raises(LogUnwritable) as error:
        fill(PredictionLog(tmp_path / "log"), a_schema(), 1)
    assert "not in the log" in str(error.value)


def test_a_newer_segment_and_a_newer_batch_are_refused_by_name(log):
    import zlib

    fill(log, a_schema(), 1)
    log.rotate()
    path = segment(log)
    data = path.read_bytes()
    start = b"STPLOG" + (2).to_bytes(2, "little")
    path.write_bytes(start + zlib.crc32(start).to_bytes(4, "little") + data[12:])
    with pytest.raises(LogTooNew, match="format 2"):
        log.rows()
    path.write_bytes(data)
    log.compact()
    (batch,) = (log.root / "compacted").glob("*/batch.json")
    batch.write_text(batch.read_text().replace('"format":2', '"format":3'))
    with pytest.raises(LogTooNew, match="format 3"):
        PredictionLog(log.root).rows()


def test_two_compactions_at_once_are_a_conflict(log):
    import fcntl

    log.root.mkdir(parents=True)
    with (log.root / "compact.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LogBusy) as error:
            log.compact()
    assert isinstance(error.value, Conflict)


def test_segments_roll_by_size_and_by_age(tmp_path):
    small = PredictionLog(tmp_path / "small", segment_bytes=2000)
    written = fill(small, a_schema(), 40)
    assert len(list((small.root / "segments").glob("*.seg"))) > 3
    assert ids(small) == written
    small.close()
    old = PredictionLog(tmp_path / "old", segment_seconds=0.0)
    fill(old, a_schema(), 3)
    assert len(list((old.root / "segments").glob("*.seg"))) == 3
    old.close()


def test_a_column_that_no_record_has_is_named(log):
    fill(log, a_schema(), 1)
    with pytest.raises(LogColumnMissing, match="feature_dealy") as error:
        log.rows(columns=["feature_dealy"])
    assert "Did you mean 'feature_delay'?" in str(error.value)


def test_an_optional_column_comes_where_the_log_has_it_and_is_no_error_where_not(log):
    fill(log, a_schema(), 1)
    found = log.rows(columns=["at"], optional=["feature_dealy", "feature_delay"])
    assert found.column_names == ["at", "feature_delay"]


def test_the_parquet_files_lie_by_model_and_day_and_are_read_by_anything(log):
    import pyarrow.parquet as pq

    fill(log, a_schema(model="../late"), 1)
    log.rotate()
    log.compact()
    (path,) = (log.root / "compacted").glob("*/*/*/*.parquet")
    assert path.parent.name == "day=2013-04-01"
    assert path.parent.parent.name == "model=..%2Flate"
    assert pq.read_table(path, partitioning=None)["model"].to_pylist() == ["../late"]
    assert ids(log, model="../late")


def test_what_a_process_left_while_opening_a_segment_is_cleared(log):
    fill(log, a_schema(), 1)
    (log.root / "segments" / ".new-abandoned").write_bytes(b"")
    log.compact()
    assert not (log.root / "segments" / ".new-abandoned").exists()


def test_a_damaged_log_still_warns_after_a_filter_that_finds_nothing(log):
    fill(log, a_schema(), 2)
    log.rotate()
    path = segment(log)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.warns(LogWarning, match="cannot be read"):
        assert log.rows(model="nobody").num_rows == 0


def test_a_row_of_an_answer_is_written_with_one_write(log):
    schema = a_schema()
    fill(log, schema, 1)
    before = segment(log).stat().st_size
    log.append_all([(schema, a_row(schema)) for _ in range(3)])
    assert (segment(log).stat().st_size - before) % 3 == 0


def test_an_event_of_the_year_one_has_an_age_like_any_other(log):
    schema = a_schema()
    fill(log, schema, 1, views=(("present", -62_135_596_799_999_999),))
    (row,) = log.rows().to_pylist()
    assert row["view_carrier_delay_age_s"] == (row["at"] - row["view_carrier_delay_event_at"]).total_seconds()
