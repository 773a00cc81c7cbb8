"""What every online store must satisfy, as tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest

from seatrial.stores.online import SqliteOnlineStore

Open = Callable[[], SqliteOnlineStore]


class OnlineStoreSuite:
    """Inherit, and give `open_store`: a function that opens the same store again, empty at first for each test."""

    @pytest.fixture
    def open_store(self) -> Open:
        raise NotImplementedError("give a fixture `open_store`")

    def test_what_is_not_there_is_none_and_order_is_that_of_the_keys(self, open_store: Open) -> None:
        store = open_store()
        store.update([(("view", b"a"), lambda _: b"1"), (("view", b"c"), lambda _: b"3")])
        assert store.get([("view", b"c"), ("view", b"b"), ("view", b"a"), ("view", b"c")]) == [b"3", None, b"1", b"3"]
        assert store.get([]) == []

    def test_views_do_not_see_each_other(self, open_store: Open) -> None:
        store = open_store()
        store.update([(("one", b"a"), lambda _: b"1")])
        assert store.get([("one", b"a"), ("other", b"a")]) == [b"1", None]
        assert (store.count("one"), store.count("other")) == (1, 0)

    def test_a_change_is_given_what_is_there_and_none_leaves_it(self, open_store: Open) -> None:
        store = open_store()
        seen: list[bytes | None] = []

        def change(packed: bytes | None) -> bytes | None:
            seen.append(packed)
            return None if packed == b"1" else b"1"

        for _ in range(2):
            store.update([(("view", b"a"), change)])
        assert seen == [None, b"1"]
        assert store.get([("view", b"a")]) == [b"1"]

    def test_any_bytes_are_kept_as_they_are(self, open_store: Open) -> None:
        every = bytes(range(256)) * 1000
        store = open_store()
        store.update([(("view", b"\x00\xff"), lambda _: every), (("view", b""), lambda _: b"")])
        assert store.get([("view", b"\x00\xff"), ("view", b"")]) == [every, b""]

    def test_a_change_that_raises_takes_back_those_before_it(self, open_store: Open) -> None:
        store = open_store()

        def fail(_: bytes | None) -> bytes | None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.update([(("view", b"a"), lambda _: b"1"), (("view", b"b"), fail)])
        assert store.get([("view", b"a")]) == [None]
        store.update(_put(b"a", b"2"))
        assert store.get([("view", b"a")]) == [b"2"]

    def test_another_handle_sees_what_was_written(self, open_store: Open) -> None:
        first, second = open_store(), open_store()
        first.update([(("view", b"a"), lambda _: b"1")])
        assert second.get([("view", b"a")]) == [b"1"]

    def test_writers_at_once_lose_no_change(self, open_store: Open) -> None:
        def count_up() -> None:
            store = open_store()
            for _ in range(50):
                store.update([(("view", b"n"), lambda packed: str(int(packed or b"0") + 1).encode())])

        writers = [threading.Thread(target=count_up) for _ in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert open_store().get([("view", b"n")]) == [b"200"]

    def test_a_reader_never_sees_half_of_an_update(self, open_store: Open) -> None:
        keys = [("view", str(i).encode()) for i in range(20)]
        writer, reader = open_store(), open_store()
        done = threading.Event()

        def write() -> None:
            for number in range(100):
                writer.update([(key, partial(_become, str(number).encode())) for key in keys])
            done.set()

        thread = threading.Thread(target=write)
        thread.start()
        while not done.is_set():
            assert len(set(reader.get(keys))) == 1
        thread.join()


def _become(new: bytes, _packed: bytes | None) -> bytes:
    return new
