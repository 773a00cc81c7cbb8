"""What every online store must satisfy, as tests."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable
from functools import partial

import pytest

from seatrial.stores.online import Key, OnlineStore, Rows

Open = Callable[[], OnlineStore]


class OnlineStoreSuite:
    """Inherit, and give `open_store`: a function that opens the same store again, empty at first for each test."""

    @pytest.fixture
    def open_store(self) -> Open:
        raise NotImplementedError("give a fixture `open_store`")

    def test_what_is_not_there_is_none_and_order_is_that_of_the_keys(self, open_store: Open) -> None:
        store = open_store()
        put(store, {("view", b"a"): b"1", ("view", b"c"): b"3"})
        assert store.get([("view", b"c"), ("view", b"b"), ("view", b"a"), ("view", b"c")]) == [b"3", None, b"1", b"3"]
        assert store.get([]) == []

    def test_views_do_not_see_each_other(self, open_store: Open) -> None:
        store = open_store()
        put(store, {("one", b"a"): b"1"})
        assert store.get([("one", b"a"), ("other", b"a")]) == [b"1", None]
        assert (store.count("one"), store.count("other")) == (1, 0)

    def test_keys_that_run_into_each_other_are_two(self, open_store: Open) -> None:
        store = open_store()
        put(store, {("a", b"b:c"): b"1", ("a:b", b"c"): b"2"})
        assert store.get([("a", b"b:c"), ("a:b", b"c")]) == [b"1", b"2"]
        assert (store.count("a"), store.count("a:b")) == (1, 1)

    def test_any_bytes_are_kept_as_they_are(self, open_store: Open) -> None:
        every = bytes(range(256)) * 1000
        rows: dict[Key, bytes] = {("view", b"\x00\xff"): every, ("view", b""): b"", ("view", b"\r\n*1 "): b"\r\n"}
        store = open_store()
        put(store, rows)
        assert store.get(list(rows)) == list(rows.values())
        assert store.count("view") == 3

    def test_a_change_sees_what_is_there_and_what_it_has_put_itself(self, open_store: Open) -> None:
        store = open_store()
        a, b = ("view", b"a"), ("view", b"b")
        put(store, {a: b"1"})

        def change(rows: Rows) -> list[list[bytes | None]]:
            seen = [rows.get([a, b])]
            rows.put(b, b"2")
            seen.append(rows.get([a, b]))
            rows.delete(a)
            seen.append(rows.get([b, a, b]))
            rows.put(a, b"3")
            rows.delete(b)
            seen.append(rows.get([a, b]))
            return seen

        assert store.update(change) == [[b"1", None], [b"1", b"2"], [b"2", None, b"2"], [b"3", None]]
        assert store.get([a, b]) == [b"3", None]

    def test_what_is_deleted_is_gone_and_counts_no_more(self, open_store: Open) -> None:
        store = open_store()
        put(store, {("view", b"a"): b"1", ("view", b"b"): b"2"})
        store.update(lambda rows: rows.delete(("view", b"a")))
        assert store.get([("view", b"a"), ("view", b"b")]) == [None, b"2"]
        assert store.count("view") == 1
        store.update(lambda rows: rows.delete(("view", b"never there")))
        put(store, {("view", b"b"): b"again"})
        assert store.count("view") == 1

    def test_a_change_that_does_nothing_changes_nothing(self, open_store: Open) -> None:
        store = open_store()
        assert store.update(lambda _: "done") == "done"
        assert store.update(lambda rows: rows.get([])) == []
        assert store.count("view") == 0

    def test_a_change_that_raises_takes_back_all_that_it_did(self, open_store: Open) -> None:
        store = open_store()
        put(store, {("view", b"a"): b"1", ("view", b"b"): b"1"})

        def fail(rows: Rows) -> None:
            rows.get([("view", b"a")])
            rows.put(("view", b"a"), b"2")
            rows.put(("view", b"c"), b"2")
            rows.delete(("view", b"b"))
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.update(fail)
        assert store.get([("view", b"a"), ("view", b"b"), ("view", b"c")]) == [b"1", b"1", None]
        assert store.count("view") == 2
        put(store, {("view", b"a"): b"3"})
        assert store.get([("view", b"a")]) == [b"3"]

    def test_many_keys_are_written_and_read_at_once(self, open_store: Open) -> None:
        rows: dict[Key, bytes] = {(f"view{i % 3}", str(i).encode()): str(-i).encode() * 9 for i in range(6_000)}
        store = open_store()
        put(store, rows)
        assert store.get(list(rows)) == list(rows.values())
        assert [store.count(f"view{i}") for i in range(3)] == [2_000] * 3

        def again(rows_: Rows) -> list[bytes | None]:
            found = rows_.get(list(rows))
            for key in rows:
                rows_.delete(key)
            return found

        assert store.update(again) == list(rows.values())
        assert [store.count(f"view{i}") for i in range(3)] == [0] * 3

    def test_another_handle_sees_what_was_written(self, open_store: Open) -> None:
        first, second = open_store(), open_store()
        put(first, {("view", b"a"): b"1"})
        assert second.get([("view", b"a")]) == [b"1"]
        put(second, {("view", b"a"): b"2"})
        assert first.get([("view", b"a")]) == [b"2"]

    def test_a_store_that_was_closed_kept_everything(self, open_store: Open) -> None:
        store = open_store()
        put(store, {("view", b"a"): b"1"})
        store.close()
        store.close()
        assert open_store().get([("view", b"a")]) == [b"1"]

    def test_writers_at_once_lose_no_change(self, open_store: Open) -> None:
        def count_up() -> None:
            store = open_store()
            for _ in range(50):
                store.update(_count_up)

        _at_once([count_up] * 4)
        assert open_store().get([("view", b"n")]) == [b"200"]
        assert open_store().count("view") == 1

    def test_threads_share_one_store(self, open_store: Open) -> None:
        store = open_store()

        def count_up() -> None:
            for _ in range(25):
                store.update(_count_up)
                assert store.get([("view", b"n")]) != [None]

        _at_once([count_up] * 4)
        assert store.get([("view", b"n")]) == [b"100"]

    def test_writers_at_once_count_every_row_once(self, open_store: Open) -> None:
        """All of them make and delete the same rows, so that who makes one is never the same."""

        def write() -> None:
            store = open_store()
            for number in range(20):
                put(store, {("view", str(i).encode()): b"1" for i in range(number, number + 5)})
                store.update(partial(_delete, ("view", str(number).encode())))

        _at_once([write] * 4)
        store = open_store()
        found = store.get([("view", str(i).encode()) for i in range(30)])
        assert store.count("view") == sum(packed is not None for packed in found)

    def test_a_reader_never_sees_half_of_an_update(self, open_store: Open) -> None:
        keys = [(f"view{i % 2}", str(i).encode()) for i in range(20)]
        writer, reader = open_store(), open_store()
        done = threading.Event()

        def write() -> None:
            try:
                for number in range(100):
                    put(writer, dict.fromkeys(keys, str(number).encode()))
            finally:
                done.set()

        thread = threading.Thread(target=write)
        thread.start()
        while not done.is_set():
            assert len(set(reader.get(keys))) == 1
        thread.join()
        assert reader.get(keys) == [b"99"] * 20

    def test_a_writer_that_is_killed_leaves_whole_updates_only(self, open_store: Open) -> None:
        keys = [("view", str(i).encode()) for i in range(50)]
        for _ in range(3):
            before = open_store().get(keys)[0]
            writer = _in_a_child(lambda: _write_for_ever(open_store(), keys))
            try:
                reader = open_store()
                while reader.get(keys)[0] in (None, before):
                    pass
            finally:
                os.kill(writer, signal.SIGKILL)
                os.waitpid(writer, 0)
            store = open_store()
            assert len(set(store.get(keys))) == 1
            put(store, {("view", b"after"): b"1"})  # and nothing of the dead one is in the way
            assert store.count("view") == 51


def put(store: OnlineStore, rows: dict[Key, bytes]) -> None:
    """Write rows, all or none, without a look at what is there."""

    def change(transaction: Rows) -> None:
        for key, packed in rows.items():
            transaction.put(key, packed)

    store.update(change)


def _delete(key: Key, rows: Rows) -> None:
    rows.delete(key)


def _count_up(rows: Rows) -> None:
    [packed] = rows.get([("view", b"n")])
    rows.put(("view", b"n"), str(int(packed or b"0") + 1).encode())


def _write_for_ever(store: OnlineStore, keys: list[Key]) -> None:
    [packed] = store.get(keys[:1])
    number = int(packed or b"0")
    while True:
        number += 1
        put(store, dict.fromkeys(keys, str(number).encode()))


def _in_a_child(work: Callable[[], None]) -> int:
    """Run `work` in a child of this process; its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child touches nothing that a thread may hold
        child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    return child


def _at_once(work: list[Callable[[], None]]) -> None:
    """Run each in a thread of its own; what one of them raised is raised here."""
    failed: list[BaseException] = []

    def guarded(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
