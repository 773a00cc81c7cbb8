"""The segment that a process writes: whoever removes it, or forks the process, takes no acknowledged record along."""

from __future__ import annotations

import json
import os
import resource
import shutil
from contextlib import closing

from seatrial.stores.prediction_log import LogUnwritable, PredictionLog
from seatrial.testing.prediction_log_suite import a_row, a_schema, fill, ids
from tests.stores.test_log_keeper import until


def segments(log: PredictionLog) -> list[str]:
    return [path.name for path in (log.root / "segments").glob("*.seg")]


def test_a_folder_that_is_removed_under_a_server_takes_no_record_of_the_open_segment_along(tmp_path, caplog):
    with closing(PredictionLog(tmp_path / "log")) as log:
        written = fill(log, a_schema(), 3)
        shutil.rmtree(tmp_path / "log")
        written += fill(log, a_schema(), 2)  # acknowledged before anybody saw it
        until(lambda: ids(log) == written)
        written += fill(log, a_schema(), 2)
        assert ids(log) == written
        assert log.written == (tmp_path / "log" / "segments" / segments(log)[0]).stat().st_size
    assert "is not in the prediction log's folder any more: it was removed" in caplog.text


def test_a_folder_that_is_moved_away_keeps_what_was_in_it_and_a_new_one_is_begun(tmp_path, caplog):
    with closing(PredictionLog(tmp_path / "log")) as log:
        before = fill(log, a_schema(), 3)
        (tmp_path / "log").rename(tmp_path / "elsewhere")
        until(lambda: "it was moved elsewhere" in caplog.text)
        after = fill(log, a_schema(), 2)
        assert ids(log) == after
    assert ids(PredictionLog(tmp_path / "elsewhere")) == before


def in_a_child(work) -> tuple[int, list[str]]:
    """A process of its own that acknowledges records to this one; its id, and their ids when it ends."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(theirs, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as told:
        found = json.load(told)
    os.waitpid(child, 0)
    return child, found


def test_processes_forked_from_one_that_logs_have_segments_of_their_own(tmp_path):
    log = PredictionLog(tmp_path / "log")
    schema = a_schema()
    written = fill(log, schema, 1)  # what warms it up before the fork
    size = log.written

    def on_a_full_disk() -> list[str]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
        acknowledged = []
        for _ in range(20):
            row = a_row(schema)
            try:
                log.append(schema, row)
                acknowledged.append(row.prediction_id)
            except LogUnwritable:
                pass
        return acknowledged

    _, of_a = in_a_child(lambda: fill(log, schema, 50))
    _, of_b = in_a_child(on_a_full_disk)
    assert len(of_b) < 20
    written += fill(log, schema, 1)
    log.close()
    assert ids(log) == sorted([*written, *of_a, *of_b])
    assert len(segments(log)) >= 2
    assert [(one.closed, one.torn, one.damaged) for one in log.verify()] == [(True, 0, ())] * len(segments(log))


def test_a_forked_process_tends_its_own_segment_and_counts_nothing_of_its_parents(tmp_path):
    log = PredictionLog(tmp_path / "log", segment_seconds=0.2)
    fill(log, a_schema(), 1)
    log.failures.add("late", 503, 0)

    def child() -> list[str]:
        written = fill(log, a_schema(), 1)
        until(lambda: log._open is None)  # its own thread closed it
        log.failures.flush()
        return written

    in_a_child(child)
    log.close()
    assert sum(len(file.read_bytes().splitlines()) for file in (log.root / "failures").glob("*")) == 1
