"""The folder of objects: everything an object store must satisfy, and what only a folder can get wrong."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from seatrial.core.errors import Unavailable
from seatrial.stores.objects import BadKey, ObjectDiffers, ObjectRepaired, ObjectStore, ObjectsUnwritable
from seatrial.testing import ObjectSuite


class TestObjectStore(ObjectSuite):
    @pytest.fixture
    def store(self, tmp_path):
        return ObjectStore(tmp_path / "objects")


def test_opening_a_store_makes_nothing(tmp_path):
    store = ObjectStore(tmp_path / "objects")
    assert not store.exists("a")
    assert store.keys() == []
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_objects_and_the_lock_is_left_in_the_folder(tmp_path):
    store = ObjectStore(tmp_path)
    store.put("a/b", b"rows")
    with pytest.raises(ObjectDiffers):
        store.put("a/b", b"other")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == [".incoming/lock", "a/b"]


def test_an_object_is_not_writable_and_no_more_readable_than_the_user_allows(tmp_path):
    before = os.umask(0o077)
    try:
        ObjectStore(tmp_path).put("a", b"rows")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o400


def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "objects" / "file").symlink_to(tmp_path / "outside" / "secret")
    store = ObjectStore(tmp_path / "objects")
    for key in ("link/secret", "link/new", "file"):
        with pytest.raises(BadKey):
            store.put(key, b"rows")
        with pytest.raises(BadKey):
            store.read(key)
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["secret"]


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ObjectsUnwritable, match="file"):
        ObjectStore(tmp_path / "file").put("a", b"rows")


def test_a_full_disk_is_unavailable_and_leaves_nothing(tmp_path):
    # a limit on the size of files stands for the full disk: the write fails half-way, as it would there
    store = ObjectStore(tmp_path)
    store.put("small", b"rows")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(Unavailable):
            store.put("large", bytes(1_000_000))
        with pytest.raises(Unavailable):
            store.put_all({"tiny": b"row", "large": bytes(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.keys() == ["small"]
    assert [path.name for path in (tmp_path / ".incoming").iterdir()] == ["lock"]
    store.put("large", bytes(1_000_000))


WRITER = """
import sys
from pathlib import Path
from seatrial.stores.objects import ObjectStore
store = ObjectStore(Path(sys.argv[1]))
number = int(sys.argv[2])
while True:
    store.put(f"a/{number}", number.to_bytes(4, "big") * 50_000)
    print(number, flush=True)
    number += 1
"""


def test_a_killed_writer_leaves_whole_objects_and_every_acknowledged_one(tmp_path):
    store, acknowledged = ObjectStore(tmp_path), []
    for attempt in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(attempt * 100_000)], stdout=subprocess.PIPE, text=True
        )
        first = process.stdout.readline()
        time.sleep(0.013 * attempt)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        acknowledged += [int(line) for line in (first + rest).splitlines()]
    assert len(acknowledged) >= 4
    kept = {int(key.removeprefix("a/")) for key in store.keys("a/")}
    assert set(acknowledged) <= kept
    assert all(store.read(f"a/{number}") == number.to_bytes(4, "big") * 50_000 for number in kept)


def test_what_is_damaged_under_a_key_of_its_content_is_repaired(tmp_path):
    store = ObjectStore(tmp_path / "objects")
    source = tmp_path / "file"
    source.write_bytes(b"whole")
    for put in (lambda **more: store.put("a", b"whole", **more), lambda **more: store.put_file("a", source, **more)):
        put()
        store.path("a").chmod(0o644)
        store.path("a").write_bytes(b"who")
        with pytest.raises(ObjectDiffers):
            put()
        with pytest.raises(ObjectDiffers):
            put(whole=lambda path: True)
        assert store.read("a") == b"who"
        with pytest.warns(ObjectRepaired, match="'a' in .* was damaged, and is repaired"):
            put(whole=lambda path: path.read_bytes() == b"whole")
        assert store.read("a") == b"whole"


def test_several_objects_are_kept_at_once_and_equal_ones_again(tmp_path):
    store = ObjectStore(tmp_path / "objects")
    several = {f"runs/one/{name}": name.encode() * size for size, name in enumerate(("none", "a.json", "b.bin"))}
    store.put_all(several)
    store.put_all(several)
    store.put_all({})
    assert {key: store.read(key) for key in store.keys("runs/")} == several
    assert sorted(path.name for path in (tmp_path / "objects" / ".incoming").iterdir()) == ["lock"]


def test_other_bytes_among_several_are_refused_and_replace_nothing(tmp_path):
    store = ObjectStore(tmp_path / "objects")
    store.put("runs/one/a", b"first")
    with pytest.raises(ObjectDiffers):
        store.put_all({"runs/one/b": b"new", "runs/one/a": b"second"})
    assert store.read("runs/one/a") == b"first"
    assert sorted(path.name for path in (tmp_path / "objects" / ".incoming").iterdir()) == ["lock"]


def test_several_that_two_keep_at_the_same_moment_are_there_once(tmp_path):
    store = ObjectStore(tmp_path / "objects")
    several = {f"runs/one/{number}": bytes([number]) * 1000 for number in range(8)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ObjectStore(store.root).put_all(several), range(24)))
    assert {key: store.read(key) for key in store.keys("runs/")} == several
