"""What every object store must satisfy, as tests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from seatrial.core.identity import digest
from seatrial.stores.objects import BadKey, ObjectDiffers, ObjectMissing, ObjectSourceUnreadable, ObjectStore

BAD_KEYS = [
    *["", "/", "/etc/passwd", "a/", "/a", "a//b", ".", "..", "../a", "a/../b", "a/..", "a/./b", ".hidden", "a/.hidden"],
    *["a\\b", "..\\a", "a\x00b", "a\nb", "a\n", "a b", "~", "~root", "C:", "C:\\a", "%2e%2e/a", "a%2fb", "a;b", "a|b"],
    *[
        "ü",
        "a\u2024b",
        "\u2025/a",
        "\uff0e\uff0e/a",
        "a\u2215b",
        "x" * 201,
        "x/" * 499 + "xxx",
        "*",
        "?",
        "$HOME",
        "a'b",
    ],
    *["file:///etc/passwd", "s3://bucket/a", "\ud800"],
]


class ObjectSuite:
    """Inherit, and give `store`: an object store, new and empty for each test."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        raise NotImplementedError("give a fixture `store`")

    @pytest.mark.parametrize("data", [b"", b"\x00", b"rows\r\n", bytes(range(256)) * 10_000])
    def test_what_is_read_is_what_was_put(self, store: ObjectStore, data: bytes, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(data)
        assert store.put("a/b.bin", data) == digest(data)
        assert store.put_file("a/c.bin", source) == digest(data)
        assert store.read("a/b.bin") == store.read("a/c.bin") == data
        assert store.path("a/b.bin").read_bytes() == data
        assert store.exists("a/b.bin")

    def test_equal_bytes_may_be_put_again(self, store: ObjectStore, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(b"rows")
        for _ in range(2):
            assert store.put("a", b"rows") == store.put_file("a", source) == digest(b"rows")
        assert store.keys() == ["a"]

    @pytest.mark.parametrize("other", [b"ROWS", b"", b"rows and more"])
    def test_an_object_never_changes(self, store: ObjectStore, other: bytes, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(other)
        store.put("a", b"rows")
        with pytest.raises(ObjectDiffers):
            store.put("a", other)
        with pytest.raises(ObjectDiffers):
            store.put_file("a", source)
        assert store.read("a") == b"rows"

    def test_the_copy_of_a_file_does_not_follow_the_file(self, store: ObjectStore, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(b"rows")
        store.put_file("a", source)
        source.write_bytes(b"other")
        assert store.read("a") == b"rows"

    def test_what_is_not_there_is_an_error_that_proposes_what_is(self, store: ObjectStore) -> None:
        store.put("snapshots/snap_1.parquet", b"rows")
        assert not store.exists("snapshots/snap_2.parquet")
        assert not store.exists("snapshots")
        for read in (store.read, store.path):
            with pytest.raises(ObjectMissing, match="snap_1"):
                read("snapshots/snap_2.parquet")
            with pytest.raises(ObjectMissing):
                read("snapshots")
            with pytest.raises(ObjectMissing):
                read("snapshots/snap_1.parquet/deeper")

    def test_a_file_that_is_not_there_cannot_be_put(self, store: ObjectStore, tmp_path: Path) -> None:
        for source in (tmp_path / "none", tmp_path):
            with pytest.raises(ObjectSourceUnreadable):
                store.put_file("a", source)
        assert not store.exists("a")

    def test_keys_are_listed_by_their_start(self, store: ObjectStore) -> None:
        assert store.keys() == []
        for key in ("runs/run_1/model", "runs/run_1.txt", "runs/run_2/model", "rungs/a", "z"):
            store.put(key, b"")
        assert store.keys() == ["rungs/a", "runs/run_1.txt", "runs/run_1/model", "runs/run_2/model", "z"]
        assert store.keys("runs/run_1") == ["runs/run_1.txt", "runs/run_1/model"]
        assert store.keys("runs/run_1/") == ["runs/run_1/model"]
        assert store.keys("run") == ["rungs/a", "runs/run_1.txt", "runs/run_1/model", "runs/run_2/model"]
        assert store.keys("none/") == store.keys("z/") == store.keys("../") == store.keys("/") == []

    def test_what_is_removed_is_not_there_and_may_be_removed_again(self, store: ObjectStore) -> None:
        store.put("a/b", b"rows")
        store.put("a/c", b"rows")
        for key in ("a/b", "a/b", "never", "a"):
            store.remove(key)
        assert store.keys() == ["a/c"]
        store.put("a/b", b"other rows")
        assert store.read("a/b") == b"other rows"

    @pytest.mark.parametrize("key", BAD_KEYS, ids=ascii)
    def test_an_unsafe_key_is_refused_everywhere(self, store: ObjectStore, key: str, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(b"rows")
        for attempt in (
            lambda: store.put(key, b"rows"),
            lambda: store.put_file(key, source),
            lambda: store.read(key),
            lambda: store.path(key),
            lambda: store.exists(key),
            lambda: store.remove(key),
        ):
            with pytest.raises(BadKey):
                attempt()
        assert store.keys() == []

    def test_a_key_cannot_go_on_where_another_ends(self, store: ObjectStore) -> None:
        store.put("a/b", b"rows")
        for key in ("a", "a/b/c", "a/b/c/d"):
            with pytest.raises(ObjectDiffers):
                store.put(key, b"rows")
        assert store.keys() == ["a/b"]

    def test_of_many_who_put_different_bytes_at_once_one_wins(self, store: ObjectStore) -> None:
        contents = [bytes([number]) * 100_000 for number in range(8)]

        def put(data: bytes) -> bool:
            try:
                return store.put("a", data) == digest(data)
            except ObjectDiffers:
                return False

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(put, contents))
        assert won.count(True) == 1
        assert store.read("a") == contents[won.index(True)]

    def test_many_who_put_equal_bytes_at_once_all_succeed(self, store: ObjectStore) -> None:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: store.put("deep/down/a", b"rows"), range(8))) == {digest(b"rows")}
        assert store.keys() == ["deep/down/a"]
