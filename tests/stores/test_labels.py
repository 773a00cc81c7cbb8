from __future__ import annotations

import os
import shutil
import signal
import threading

import pyarrow.parquet as pq
import pytest

from seatrial.stores.labels import (
    FORMAT,
    MOST_FILES,
    LabelsDamaged,
    LabelsTooNew,
    LabelStore,
    LabelsUnwritable,
)
from seatrial.testing.label_suite import LabelStoreSuite, a_label, told


@pytest.fixture
def store(tmp_path):
    return LabelStore(tmp_path / "labels")


class TestLabelStore(LabelStoreSuite):
    pass


def files(store):
    (folder,) = store.models()
    return sorted(folder.glob("*.parquet"))


def fill(store, count):
    rows = [a_label() for _ in range(count)]
    for row in rows:
        store.append("late", [row])
    return [row.id for row in rows]


def test_a_telling_of_many_labels_is_one_file(store):
    store.append("late", [a_label() for _ in range(1000)])
    assert len(files(store)) == 1


def test_small_files_are_merged_by_themselves(store):
    ids = fill(store, MOST_FILES + 1)
    assert len(files(store)) == 1
    assert told(store) == ids


def test_a_merge_that_died_before_it_removed_the_old_files_doubles_nothing(store, tmp_path):
    ids = fill(store, 5)
    before = tmp_path / "before"
    shutil.copytree(store.models()[0], before)
    assert store.merge("late") == 5
    for file in before.iterdir():
        shutil.copy(file, store.models()[0])
    assert len(files(store)) == 6
    assert told(store) == ids
    more = fill(store, 1)
    assert store.merge("late") == 2  # the merged one and the new one; what it replaced is removed, not merged
    assert told(store) == ids + more
    assert len(files(store)) == 1


def test_what_died_before_its_rename_was_never_told(store):
    ids = fill(store, 2)
    folder = store.models()[0]
    shutil.copy(files(store)[0], folder / ".tmp-dead")
    shutil.copy(files(store)[0], folder / ".tmp-dead.merge")
    assert told(store) == ids
    store.merge("late")
    assert told(store) == ids
    assert not (folder / ".tmp-dead.merge").exists()


def test_a_label_that_was_acknowledged_survives_kill_9(store):
    store.append("late", [a_label(id="0")])
    acknowledged, say = os.pipe()
    child = os.fork()
    if child == 0:
        for number in range(1, 10_000):
            store.append("late", [a_label(id=str(number))])
            os.write(say, b"%d\n" % number)
        os._exit(0)
    heard = b""
    while heard.count(b"\n") < MOST_FILES + 20:
        heard += os.read(acknowledged, 1024)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(say)
    while more := os.read(acknowledged, 1024):
        heard += more
    os.close(acknowledged)
    found = told(store)
    assert {"0", *heard.decode().split()} <= set(found)
    assert len(found) == len(set(found))


def test_a_reader_sees_every_label_once_while_others_write_and_merge(store):
    ids = fill(store, 3)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            ids.extend(fill(store, 5))
            store.merge("late")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            known = list(ids)
            found = told(store)
            assert len(found) == len(set(found))
            assert set(known) <= set(found)
    finally:
        stop.set()
        writer.join()


def test_a_newer_format_is_refused_by_name(store):
    fill(store, 1)
    (file,) = files(store)
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({"seatrial.labels.format": str(FORMAT + 1)}), file)
    with pytest.raises(LabelsTooNew, match=f"format {FORMAT + 1}") as caught:
        store.read("late")
    assert caught.value.facts["file"] == file.name


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 100])
def test_a_damaged_file_is_named_and_never_skipped(store, damage):
    fill(store, 2)
    file = files(store)[0]
    file.write_bytes(damage)
    with pytest.raises(LabelsDamaged, match=file.name):
        store.read("late")


def test_bytes_flipped_inside_a_file_are_not_read_as_labels(store):
    store.append("late", [a_label(prediction_id=f"p-{place}") for place in range(500)])
    (file,) = files(store)
    data = bytearray(file.read_bytes())
    data[40:60] = bytes(20)
    file.write_bytes(bytes(data))
    with pytest.raises(LabelsDamaged):
        store.read("late")


def test_a_store_that_cannot_be_written_says_that_nothing_was_kept(tmp_path):
    (tmp_path / "labels").write_text("not a folder")
    with pytest.raises(LabelsUnwritable, match="'late'") as caught:
        LabelStore(tmp_path / "labels").append("late", [a_label()])
    assert caught.value.state == "None of these labels was kept."
