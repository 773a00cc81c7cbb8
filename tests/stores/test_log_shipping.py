"""Shipping: every record is in the object store once, and read once, wherever whoever moved it died."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seatrial.core.windows import DAY_US
from seatrial.stores import log_shipping
from seatrial.stores.log_batches import LogBusy, locked
from seatrial.stores.log_shipping import prune, put_together, removable, ship, ship_straight
from seatrial.stores.objects import ObjectStore, ObjectsUnwritable
from seatrial.stores.prediction_log import LogDamaged, LogElsewhere, LogWarning, PredictionLog
from seatrial.testing.prediction_log_suite import NOON_US, PredictionLogSuite, a_row, a_schema, fill, ids


def a_log(tmp_path: Path) -> PredictionLog:
    return PredictionLog(tmp_path / "log", objects=ObjectStore(tmp_path / "objects"))


@pytest.fixture
def log(tmp_path):
    log = a_log(tmp_path)
    yield log
    log.close()


def move(log: PredictionLog) -> None:
    log.rotate()
    log.compact()
    ship(log)


class ShippedAtOnce(PredictionLog):
    """A log of which nothing stays here when it is compacted."""

    def compact(self):
        done = super().compact()
        ship(self)
        return done


class TestAShippedLog(PredictionLogSuite):
    @pytest.fixture
    def log(self, tmp_path):
        log = ShippedAtOnce(tmp_path / "log", objects=ObjectStore(tmp_path / "objects"))
        yield log
        log.close()


def files(log: PredictionLog) -> list[str]:
    return [str(path.relative_to(log.root)) for path in sorted(log.root.rglob("*.parquet"))]


def test_what_is_shipped_lies_by_model_and_day_and_no_longer_here(log):
    written = fill(log, a_schema(model="../late"), 2) + fill(log, a_schema(), 1, at_us=NOON_US + DAY_US)
    move(log)
    assert files(log) == []
    assert log.objects is not None
    keys = [key.rpartition("/")[0] for key in log.objects.keys("predictions/model")]
    assert keys == ["predictions/model=..@2Flate/day=2013-04-01", "predictions/model=late/day=2013-04-02"]
    assert ids(log) == written
    assert [row["model"] for row in log.find(written[0])] == ["../late"]


def test_reading_is_the_same_wherever_records_lie(log):
    fill(log, a_schema(), 3)
    fill(log, a_schema(version="4", inputs=("delay", "wind"), categories=()), 3, inputs=(1.0, None))
    before = log.rows()
    log.rotate()
    log.compact()
    assert log.rows().equals(before)
    ship(log)
    assert log.rows().equals(before)
    assert PredictionLog(log.root, objects=log.objects).rows().equals(before)


def test_another_machine_reads_what_was_shipped_from_here(log, tmp_path):
    written = fill(log, a_schema(), 3)
    move(log)
    elsewhere = PredictionLog(tmp_path / "elsewhere", objects=log.objects)
    assert ids(elsewhere) == written
    written += fill(elsewhere, a_schema(), 2)
    assert ids(elsewhere) == written
    move(elsewhere)
    assert ids(log) == ids(elsewhere) == written
    elsewhere.close()


def test_whoever_has_the_folder_reads_on_in_the_object_store_also_after_both_were_moved(log, tmp_path):
    written = fill(log, a_schema(), 1)
    move(log)
    assert ids(PredictionLog(log.root)) == written
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("log", "objects"):
        (tmp_path / name).rename(moved / name)
    assert ids(PredictionLog(moved / "log")) == written
    (moved / "objects").rename(tmp_path / "elsewhere")
    with pytest.raises(LogElsewhere, match="1 batches"):
        PredictionLog(moved / "log").rows()
    assert ids(PredictionLog(moved / "log", objects=ObjectStore(tmp_path / "elsewhere"))) == written


def test_an_object_store_that_is_not_mounted_is_not_an_empty_one(log, tmp_path):
    written = fill(log, a_schema(), 1)
    move(log)
    (tmp_path / "objects").rename(tmp_path / "away")
    (tmp_path / "objects").mkdir()
    with pytest.raises(LogElsewhere, match="none of them is there"):
        log.rows()
    (tmp_path / "objects").rmdir()
    (tmp_path / "away").rename(tmp_path / "objects")
    assert ids(log) == written


def test_a_file_that_the_object_store_lost_is_named_and_the_rest_is_read(log):
    fill(log, a_schema(), 1)
    move(log)
    kept = fill(log, a_schema(), 1)
    lost = log.objects.path(log.objects.keys("predictions/model")[0])
    move(log)
    lost.unlink()
    with pytest.warns(LogWarning, match="of 'late' on 2013-04-01"):
        assert ids(log) == kept


@pytest.mark.parametrize("how", ["away", "full"])
def test_an_object_store_that_is_away_or_full_loses_nothing_and_is_caught_up(log, tmp_path, how, monkeypatch):
    written = fill(log, a_schema(), 2)
    log.rotate()
    log.compact()
    if how == "away":
        (tmp_path / "objects").write_text("something else lies there")
    else:
        monkeypatch.setattr(os, "fchmod", full_disk)  # the last step of writing an object
    with pytest.raises(ObjectsUnwritable):
        ship(log)
    monkeypatch.undo()
    assert log.unshipped() == 2
    if how == "away":
        (tmp_path / "objects").unlink()
    written += fill(log, a_schema(), 1)
    assert ids(log) == written
    move(log)
    assert log.unshipped() == 0
    assert ids(log) == written


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_unshipped_counts_each_record_from_its_append_until_it_is_shipped(log):
    schema = a_schema()
    assert log.unshipped() == 0
    for count in range(1, 4):
        log.append(schema, a_row(schema))
        assert log.unshipped() == count
    log.append_all([(schema, a_row(schema)) for _ in range(40)])
    assert log.unshipped() == PredictionLog(log.root).unshipped() == 43
    log.rotate()
    fill(log, schema, 2)
    assert log.unshipped() == 45
    log.compact()
    assert log.unshipped() == 45
    ship(log)
    assert log.unshipped() == 2
    move(log)
    assert log.unshipped() == 0


def test_many_small_batches_are_put_together_and_read_as_before(log):
    schema = a_schema()
    written = []
    for number in range(9):
        written += fill(log, schema, 2, at_us=NOON_US + (number % 2) * DAY_US)
        move(log)
    before = log.rows()
    assert put_together(log, most=9) == 9
    assert log.rows().equals(before)
    ship(log)
    assert log.rows().equals(before)
    assert ids(log) == written
    assert len(log.objects.keys("predictions/batches/")) == 1
    assert len(log.objects.keys("predictions/model")) == 2
    assert put_together(log, most=9) == 0


def test_a_log_without_object_store_puts_its_batches_together_too(tmp_path):
    log = PredictionLog(tmp_path / "log")
    written = []
    for _ in range(4):
        written += fill(log, a_schema(), 1)
        log.rotate()
        log.compact()
    assert put_together(log, most=4) == 4
    assert ids(log) == written
    assert len(files(log)) == 1
    log.close()


def test_batches_that_another_machine_shipped_are_left_to_it(log, tmp_path):
    elsewhere = PredictionLog(tmp_path / "elsewhere", objects=log.objects)
    for one in (log, elsewhere, elsewhere):
        fill(one, a_schema(), 1)
        move(one)
    assert put_together(log, most=2) == 0
    assert put_together(elsewhere, most=2) == 2
    assert len(ids(log)) == 3
    elsewhere.close()


def as_the_first_version_wrote_it(log: PredictionLog) -> None:
    """Its batches named the segments that they replace, and nothing else."""
    for path in (log.root / "compacted").glob("*/batch.json"):
        batch = json.loads(path.read_text())
        path.write_text(json.dumps({"format": 1, "replaces": batch["replaces"]}))


@pytest.mark.parametrize("shipped", [True, False])
def test_a_log_of_the_first_version_is_read_counted_shipped_and_pruned(tmp_path, shipped):
    log = a_log(tmp_path) if shipped else PredictionLog(tmp_path / "log")
    written = []
    for number in range(3):
        written += fill(log, a_schema(model="../late"), 2, at_us=NOON_US + number * DAY_US)
        log.rotate()
        log.compact()
    as_the_first_version_wrote_it(log)
    reader = PredictionLog(log.root, objects=log.objects)
    assert ids(reader) == ids(reader, model="../late") == written
    assert reader.unshipped() == 6
    ship(reader)
    put_together(reader, most=3)
    ship(reader)
    assert ids(PredictionLog(log.root, objects=log.objects)) == written
    assert [one.day for one in prune(reader, NOON_US + 2 * DAY_US)] == ["2013-04-01", "2013-04-02"]
    assert ids(reader) == written[4:]
    log.close()


@pytest.mark.parametrize("garbage", [b"", b"[]", b"{}", b'{"format":2}', b'{"format":0}', b"\xff", b'{"format":1}'])
def test_a_batch_that_says_nothing_sensible_is_a_clear_error_wherever_it_lies(log, garbage):
    written = fill(log, a_schema(), 1)
    move(log)
    (key,) = log.objects.keys("predictions/batches/")
    (mark,) = (log.root / "shipped").glob("*.json")
    mark.write_bytes(garbage)
    assert ids(PredictionLog(log.root)) == written  # the object store has it
    log.objects.put("predictions/batches/other.json", garbage)
    with pytest.raises(LogDamaged, match="other"):
        PredictionLog(log.root).rows()
    log.objects.remove("predictions/batches/other.json")
    (log.root / "compacted" / "other").mkdir()
    assert ids(PredictionLog(log.root)) == written  # a folder that is none of ours
    (log.root / "compacted" / "other" / "batch.json").write_bytes(garbage)
    with pytest.raises(LogDamaged, match="other"):
        PredictionLog(log.root).rows()
    assert key


def test_two_that_ship_one_log_at_once_are_a_conflict(log):
    log.root.mkdir(parents=True)
    with locked(log.root / "ship.lock"), pytest.raises(LogBusy):
        ship(log)


class TestRetention:
    NOW_US = NOON_US + 10 * DAY_US

    def old_and_new(self, log: PredictionLog) -> tuple[list[str], list[str]]:
        old = fill(log, a_schema(), 2)
        new = fill(log, a_schema(), 3, at_us=self.NOW_US, recorded_at_us=self.NOW_US)
        return old, new

    @pytest.mark.parametrize("shipped", [True, False])
    def test_a_day_goes_when_all_of_it_is_too_old(self, tmp_path, shipped):
        log = a_log(tmp_path) if shipped else PredictionLog(tmp_path / "log")
        old, new = self.old_and_new(log)
        log.rotate()
        log.compact()
        ship(log)
        assert ids(log) == old + new
        assert removable(log, NOON_US) == []
        (gone,) = removable(log, self.NOW_US - DAY_US)
        assert (gone.model, gone.day, gone.records, gone.shipped) == ("late", "2013-04-01", 2, shipped)
        assert ids(log) == old + new
        assert prune(log, self.NOW_US - DAY_US) == [gone]
        assert ids(log) == new
        assert removable(log, self.NOW_US - DAY_US) == []
        if shipped:
            assert len(log.objects.keys("predictions/model")) == 1
        else:
            assert len(files(log)) == 1
        prune(log, self.NOW_US + 2 * DAY_US)
        assert ids(log) == []
        if shipped:
            assert log.objects.keys() == ["predictions/log.json"]
        log.close()

    def test_what_is_not_shipped_stays_however_old_it_is(self, log):
        self.old_and_new(log)
        log.rotate()
        log.compact()
        assert prune(log, self.NOW_US + 9 * DAY_US) == []
        assert len(ids(log)) == 5
        ship(log)
        assert len(prune(log, self.NOW_US + 9 * DAY_US)) == 2
        assert ids(log) == []

    def test_history_that_was_replayed_today_is_kept_from_today_on(self, log):
        replayed = fill(log, a_schema(), 1, at_us=NOON_US, recorded_at_us=self.NOW_US)
        move(log)
        assert prune(log, self.NOW_US - DAY_US) == []
        assert ids(log) == replayed

    def test_the_rest_of_a_pruned_batch_can_be_put_together_and_pruned_again(self, log):
        _, new = self.old_and_new(log)
        move(log)
        new += fill(log, a_schema(), 1, at_us=self.NOW_US, recorded_at_us=self.NOW_US)
        move(log)
        prune(log, self.NOW_US - DAY_US)
        assert put_together(log, most=2) == 2
        ship(log)
        assert ids(log) == new
        prune(log, self.NOW_US + 2 * DAY_US)
        assert log.objects.keys() == ["predictions/log.json"]

    def test_what_another_machine_shipped_goes_when_all_of_it_is_too_old(self, log, tmp_path):
        elsewhere = PredictionLog(tmp_path / "elsewhere", objects=log.objects)
        fill(elsewhere, a_schema(), 1)
        move(elsewhere)
        assert len(prune(log, self.NOW_US)) == 1
        assert ids(elsewhere) == ids(log) == []
        ship(elsewhere)
        assert list((elsewhere.root / "shipped").iterdir()) == []


CRASH = """
import os, shutil, sys
from pathlib import Path
from seatrial.stores.prediction_log import PredictionLog
from seatrial.stores.log_shipping import prune, put_together, ship, ship_straight
from seatrial.stores.objects import ObjectStore
from seatrial.testing.prediction_log_suite import *
import pyarrow.parquet, pyarrow.compute, pyarrow.dataset
top, shipped, every = Path(sys.argv[1]), sys.argv[2] != "local", int(sys.argv[3])
LIMIT = NOON_US + 5 * DAY_US

def opened(place):
    return PredictionLog(place / "log", objects=ObjectStore(place / "objects") if shipped else None)

def keep(log):
    if sys.argv[2] == "straight":
        ship_straight(log)
    log.compact()
    ship(log)
    if put_together(log, most=3):
        ship(log)
    prune(log, LIMIT)

def in_a_child(work):
    child = os.fork()
    if child == 0:
        try:
            os._exit(work() or 0)
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def dies_at(place, point):
    steps = 0
    def step(event, args):
        nonlocal steps
        written = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if written or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"):
            steps += 1
            if steps > point:
                os._exit(9)
    log = opened(place)
    sys.addaudithook(step)
    keep(log)

def prepare():
    log, schema = opened(top / "first"), a_schema()
    old = fill(log, schema, 1)
    written = []
    for _ in range(3):
        written += fill(log, schema, 2, at_us=LIMIT, recorded_at_us=LIMIT)
        log.rotate()
        log.compact()
        if len(written) < 6:
            ship(log)
    written += fill(log, schema, 1, at_us=LIMIT, recorded_at_us=LIMIT)
    log.close()
    (top / "written").write_text(" ".join(written))
    (top / "old").write_text(old[0])

def check(place, over):
    log = opened(place)
    found = ids(log)
    written = (top / "written").read_text().split()
    assert found == written or (not over and found == [(top / "old").read_text(), *written]), found
    if over:
        assert not list(log.root.rglob("*.seg"))
        there = {part.key for batch in log.shipped_batches().values() for part in batch.parts}
        assert not shipped or set(log.objects.keys("predictions/model")) == there
        assert not list((place / "objects").glob(".log-*"))
        assert not shipped or (log.unshipped() == 0 and not list(log.root.rglob("*.parquet")))

assert in_a_child(prepare) == 0
point, code = 0, 9
while code == 9:
    place = top / "place"
    shutil.copytree(top / "first", place)
    code = in_a_child(lambda: dies_at(place, point))
    assert code in (0, 9)
    assert in_a_child(lambda: check(place, False)) == 0, point
    assert in_a_child(lambda: dies_at(place, point * 7 % 23)) in (0, 9)
    assert in_a_child(lambda: check(place, False)) == 0, point
    assert in_a_child(lambda: keep(opened(place))) == 0
    assert in_a_child(lambda: keep(opened(place))) == 0
    assert in_a_child(lambda: check(place, True)) == 0, point
    shutil.rmtree(place)
    point += every
print(point)
"""


def crash_at_every_step(tmp_path: Path, shipped: str, every: int) -> int:
    """How many steps there were."""
    words = [sys.executable, "-c", CRASH, str(tmp_path), shipped, str(every)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("shipped", ["shipped", "local", "straight"])
def test_a_keeper_that_dies_at_a_file_operation_loses_and_doubles_nothing(tmp_path, shipped):
    assert crash_at_every_step(tmp_path, shipped, every=13) > 30


@pytest.mark.long
@pytest.mark.parametrize("shipped", ["shipped", "local", "straight"])
def test_a_keeper_that_dies_at_any_file_operation_loses_and_doubles_nothing(tmp_path, shipped):
    assert crash_at_every_step(tmp_path, shipped, every=1) > 30


def test_a_segment_goes_straight_to_the_store_and_says_so_to_every_reader(log, tmp_path):
    written = fill(log, a_schema(), 3)
    log.rotate()
    written += fill(log, a_schema(), 2)  # of a segment that somebody appends to
    assert ship_straight(log).records == 3
    assert len(list(log.root.rglob("*.seg"))) == 1
    assert not list(log.root.rglob("*.parquet"))
    assert ids(log) == ids(PredictionLog(log.root)) == written
    assert log.unshipped() == 2
    assert [path.name for path in log.objects.root.glob(".log-*")] == []


def test_a_segment_on_its_way_is_left_alone_while_the_store_cannot_be_asked(log, tmp_path):
    """It may be there: compacting it would double its records when the store is back."""
    written = fill(log, a_schema(), 3)
    log.rotate()
    [path] = (log.root / "segments").glob("*.seg")
    copy = path.read_bytes()
    ship_straight(log)
    [batch] = log.shipped_batches()
    (log.root / "segments" / f"{path.stem}.{batch}.seg").write_bytes(copy)  # as if it died before it removed it
    log.objects.root.rename(tmp_path / "away")
    assert log.compact().segments == 0
    assert PredictionLog(log.root).compact().segments == 0
    (tmp_path / "away").rename(log.objects.root)
    assert ids(log) == written
    log.compact()
    assert not list(log.root.rglob("*.seg"))
    assert ids(log) == written


def test_readers_see_each_record_once_while_another_process_keeps(log):
    code = (
        "import sys; from pathlib import Path\n"
        "from seatrial.stores.prediction_log import PredictionLog\n"
        "from seatrial.stores.log_shipping import put_together, ship\n"
        "from seatrial.stores.objects import ObjectStore\n"
        "log = PredictionLog(Path(sys.argv[1]), objects=ObjectStore(Path(sys.argv[2])))\n"
        "while True: log.compact(); ship(log); put_together(log, most=3)"
    )
    keeper = subprocess.Popen([sys.executable, "-c", code, str(log.root), str(log.objects.root)])
    written: list[str] = []
    largest = 0
    try:
        while largest < 2:
            written += fill(log, a_schema(), 3)
            log.rotate()
            assert ids(log) == written
            largest = max((batch.size for batch in log.shipped_batches().values()), default=0)
    except FileNotFoundError:
        pass  # `shipped_batches`, asked for here without looking again
    finally:
        keeper.kill()
        keeper.wait()
    assert ids(log) == written


def test_what_the_audit_log_is_told_of_a_removal_are_counts(log):
    fill(log, a_schema(), 2)
    move(log)
    told = log_shipping.told(removable(log, NOON_US + 9 * DAY_US), NOON_US + 9 * DAY_US)
    assert told["models"] == {"late": {"from": "2013-04-01", "to": "2013-04-01", "records": 2}}
    assert (told["files"], told["records"]) == (1, 2)
