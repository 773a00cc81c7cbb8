"""Requests without an answer are counted by minute, and counting never stands in the way."""

from __future__ import annotations

import pytest

from seatrial.core.windows import Window
from seatrial.stores.failures import MINUTE_US, FailureLog, FailuresTooNew
from seatrial.stores.prediction_log import PredictionLog
from tests.stores.test_log_keeper import until

AT_US = 1_364_774_400_000_000
HOUR = Window(AT_US, AT_US + 60 * MINUTE_US)


def test_what_two_processes_counted_is_added_up_within_the_window(tmp_path):
    for failed in (3, 4):
        log = FailureLog(tmp_path / "failures")
        for number in range(failed):
            log.add("late", 503, AT_US + number)
        log.add("late", 503, AT_US + 61 * MINUTE_US)
        log.add("other", 500, AT_US)
        log.close()
    reader = FailureLog(tmp_path / "failures")
    assert reader.count(window=HOUR, deployment="late") == 7
    assert reader.count(window=HOUR) == 9


def test_nothing_failed_is_nothing_written(tmp_path):
    log = FailureLog(tmp_path / "failures")
    log.close()
    assert log.count(window=HOUR) == 0
    assert not (tmp_path / "failures").exists()


def test_a_place_that_cannot_be_written_raises_nothing_and_keeps_the_counts(tmp_path):
    place = tmp_path / "failures"
    place.write_text("a file in the way")
    log = FailureLog(place)
    log.add("late", 503, AT_US)
    log.close()
    place.unlink()
    log.close()
    assert log.count(window=HOUR) == 1


def test_counts_are_written_within_a_second_or_when_the_disk_takes_them_though_nothing_more_is_counted(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "unlogged").write_text("in the way")
    logs = [PredictionLog(tmp_path / name) for name in ("sound", "full")]
    for log in logs:
        log.failures.add("late", 503, AT_US)
        log.unlogged.add("late", 200, AT_US, count=2)
    readers = [PredictionLog(tmp_path / name) for name in ("sound", "full")]
    until(lambda: [one.failures.count(window=HOUR) for one in readers] == [1, 1])
    assert [one.unlogged.count(window=HOUR) for one in readers] == [2, 0]
    (tmp_path / "full" / "unlogged").unlink()
    until(lambda: readers[1].unlogged.count(window=HOUR) == 2)
    for log in logs:
        log.close()
    assert [one.unlogged.count(window=HOUR) for one in readers] == [2, 2]


def test_a_line_that_was_cut_off_is_left_out_and_a_newer_format_refused(tmp_path):
    log = FailureLog(tmp_path)
    log.add("late", 503, AT_US)
    log.close()
    (file,) = tmp_path.glob("*.jsonl")
    with file.open("ab") as out:
        out.write(b'{"format":1,"minute')
    assert log.count(window=HOUR) == 1
    file.write_bytes(file.read_bytes().replace(b'"format":1', b'"format":2'))
    with pytest.raises(FailuresTooNew):
        log.count(window=HOUR)


def test_failures_are_told_apart_by_the_release_that_was_to_answer(tmp_path):
    log = FailureLog(tmp_path / "failures")
    for release in ("rel_a", "rel_b", "rel_b", ""):
        log.add("late", 500, AT_US, release)
    log.close()
    found = {release: log.count(window=HOUR, deployment="late", release=release) for release in ("rel_a", "rel_b", "")}
    assert found == {"rel_a": 1, "rel_b": 2, "": 1}
    assert log.count(window=HOUR) == 4


def test_counts_of_an_older_version_name_no_release(tmp_path):
    (tmp_path / "old.jsonl").write_text(
        f'{{"format":1,"minute_us":{AT_US},"deployment":"late","status":503,"count":5}}\n'
    )
    assert FailureLog(tmp_path).count(window=HOUR, release="") == 5
