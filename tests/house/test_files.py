"""The files of the repository: no address in the lock, and nothing of the machine they were written on."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from tests.house.tree import ROOT, tracked_files

LARGEST = 1_000_000  # bytes
# Folders of a person or of a checkout; /tmp, /data, /app and the like are places on any machine
MACHINE = re.compile(r"(?<![\w.~-])/(?:home|root|Users|work|workspace|private/var)/[A-Za-z0-9._-]+")


def texts() -> list[tuple[Path, str]]:
    """Tracked text files with their content."""
    found = []
    for file in tracked_files():
        data = file.read_bytes()
        if b"\0" not in data:
            found.append((file.relative_to(ROOT), data.decode("utf-8", errors="replace")))
    return found


def test_the_lock_names_no_address():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "--index-url" not in lock
    assert lock.count("--hash=sha256:") > lock.count("==")


def test_no_other_lock_is_kept():
    assert [str(file) for file, _ in texts() if file.name in ("uv.lock", "pylock.toml", "poetry.lock")] == []


def test_no_file_names_a_path_or_host_of_one_machine():
    machine = [re.escape(str(ROOT)) + r"\b"] if len(ROOT.parts) > 2 else []
    host = socket.gethostname()
    if len(host) > 6 and not host.isalpha():  # "localhost" or "build" are words
        machine.append(re.escape(host))
    here = re.compile("|".join([MACHINE.pattern, *machine]))
    found = [
        f"{file}: {match.group()}"
        for file, text in texts()
        if file.parts[0] != "tests" or file.name != Path(__file__).name
        for match in here.finditer(text)
    ]
    assert found == []


def test_no_file_is_large():
    assert [str(file) for file in tracked_files() if file.stat().st_size > LARGEST] == []


def test_tests_mirror_the_rooms_of_the_source():
    rooms = {folder.name for folder in (ROOT / "src" / "seatrial").iterdir() if folder.is_dir()}
    beside = {"conformance", "journeys", "house", "__pycache__"}
    assert {folder.name for folder in (ROOT / "tests").iterdir() if folder.is_dir()} - rooms - beside == set()
