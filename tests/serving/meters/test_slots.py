"""Slots: numbers of several processes, also when one of them dies, or its file is not what it should be."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading

import pytest

from seatrial.serving.meters import slots
from seatrial.serving.meters.slots import SIZE, Slot, SlotTaken, SlotUnwritable, path_of, read_slots


def test_what_one_process_left_the_next_one_finds(tmp_path):
    first = Slot(tmp_path, 3)
    place = first.place("rows", ("late", "1"), 1)
    first.write(place, [7.0])
    first.close()
    second = Slot(tmp_path, 3)
    assert second.before == {("rows", ("late", "1")): [7.0]}
    assert second.place("rows", ("late", "1"), 1) == place
    assert second.place("rows", ("late", "2"), 1) == place + 1
    found, unreadable = read_slots(tmp_path)
    assert unreadable == 0
    assert [(one.slot, one.alive) for one in found] == [(3, True)]
    assert found[0].series == {("rows", ("late", "1")): [7.0], ("rows", ("late", "2")): [0.0]}
    second.close()
    assert [one.alive for one in read_slots(tmp_path)[0]] == [False]


def test_a_slot_belongs_to_one_process_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(slots, "TAKE_SECONDS", 0.05)
    one = Slot(tmp_path, 0)
    with pytest.raises(SlotTaken):
        Slot(tmp_path, 0)
    one.close()
    Slot(tmp_path, 0).close()


def test_a_process_that_is_killed_gives_its_slot_up_and_leaves_its_numbers(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from seatrial.serving.meters.slots import Slot\n"
        "one = Slot(Path(sys.argv[1]), 0); one.write(one.place('rows', (), 1), [5.0]); print('here', flush=True)\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"here\n"
        assert read_slots(tmp_path)[0][0].alive
        process.kill()
    found = read_slots(tmp_path)[0][0]
    assert (found.alive, found.series) == (False, {("rows", ()): [5.0]})
    again = Slot(tmp_path, 0)
    assert again.before == {("rows", ()): [5.0]}
    again.close()


def test_a_reader_sees_whole_numbers_while_another_writes(tmp_path):
    """The two values differ in every byte: a half of each would be neither."""
    one = Slot(tmp_path, 0)
    place = one.place("rows", (), 1)
    values = [struct.unpack("d", bytes([byte] * 8))[0] for byte in (0x11, 0x42)]
    one.write(place, values[:1])
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for value in values:
                one.write(place, [value])

    writer = threading.Thread(target=write)
    writer.start()
    seen = {read_slots(tmp_path)[0][0].series["rows", ()][0] for _ in range(300)}
    stop.set()
    writer.join()
    one.close()
    assert seen <= set(values)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:1000],
        lambda data: data[: SIZE - 1],
        lambda data: bytes(SIZE),
        lambda data: data[:8] + struct.pack("<I", 99) + data[12:],
        lambda data: b"\xff" * SIZE,
    ],
)
def test_a_file_of_another_format_or_cut_short_is_not_read_and_begun_anew_by_its_worker(tmp_path, damage):
    good = Slot(tmp_path, 1)
    good.write(good.place("rows", (), 1), [2.0])
    good.close()
    path = path_of(tmp_path, 0)
    path.write_bytes(damage(path_of(tmp_path, 1).read_bytes()))
    found, unreadable = read_slots(tmp_path)
    assert ([one.slot for one in found], unreadable) == ([1], 1)
    again = Slot(tmp_path, 0)
    assert again.before == {}
    again.write(again.place("rows", (), 1), [1.0])
    assert [one.series for one in read_slots(tmp_path)[0]] == [{("rows", ()): [1.0]}, {("rows", ()): [2.0]}]
    again.close()


def test_names_that_are_damaged_end_what_is_read_and_are_written_over(tmp_path):
    one = Slot(tmp_path, 0)
    one.write(one.place("a", (), 1), [1.0])
    end = one._end
    one.write(one.place("b", (), 1), [2.0])
    one.close()
    path = path_of(tmp_path, 0)
    data = bytearray(path.read_bytes())
    data[end + 10] ^= 1
    path.write_bytes(data)
    assert read_slots(tmp_path)[0][0].series == {("a", ()): [1.0]}
    again = Slot(tmp_path, 0)
    again.write(again.place("c", (), 1), [3.0])
    assert read_slots(tmp_path)[0][0].series == {("a", ()): [1.0], ("c", ()): [3.0]}
    again.close()


def test_a_full_file_takes_no_more_series_and_stays_sound(tmp_path):
    one = Slot(tmp_path, 0)
    placed = 0
    while one.place("wide", (str(placed),), 1000) is not None:
        placed += 1
    assert placed == slots.CELLS // 1000
    while one.place("x" * 50_000, (str(placed),), 1) is not None:
        placed += 1
    one.close()
    assert len(read_slots(tmp_path)[0][0].series) == placed
    assert path_of(tmp_path, 0).stat().st_size == SIZE


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SlotUnwritable):
        Slot(tmp_path / "file" / "below", 0)
