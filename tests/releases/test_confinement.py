"""A process that gave up what it could do: it is asked to do harm, and what it managed is looked at from outside."""

import json
import os
import platform
import socket
import subprocess
import sys

import pytest

from seatrial.releases import confinement
from seatrial.releases.confinement import Unconfined, confine

if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
    pytest.skip("confinement is Linux's", allow_module_level=True)

TRY = """
import ctypes, fcntl, json, os, signal, subprocess, sys, _socket
from pathlib import Path
from seatrial.releases.confinement import confine
folder, victim, address, abstract, parent, outside = json.loads(sys.argv[1])
reading = os.open(victim, os.O_RDONLY)  # opened before: what is said of it could be changed by it
secret = Path(victim)
confine(Path(folder))
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *given):
    if getattr(libc, name)(*given) < 0:
        raise OSError(ctypes.get_errno(), name)

def to(where):
    _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM).connect(where)

tries = {
    "tcp": lambda: _socket.socket(),
    "udp": lambda: _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM),
    "unix": lambda: to(address),
    "abstract": lambda: to("\\0" + abstract),
    "pair": lambda: _socket.socketpair(),
    "read": lambda: secret.read_text(),
    "list": lambda: os.listdir(outside),
    "write": lambda: (Path(outside) / "new").write_text("x"),
    "append": lambda: open(victim, "a"),
    "truncate": lambda: os.truncate(victim, 0),
    "cut by opening": lambda: os.open(victim, os.O_RDONLY | os.O_TRUNC),
    "chmod": lambda: os.chmod(victim, 0o777),
    "fchmod": lambda: os.fchmod(reading, 0o777),
    "chown": lambda: os.chown(victim, os.getuid(), os.getgid()),
    "utime": lambda: os.utime(victim, (0, 0)),
    "setxattr": lambda: os.setxattr(victim, "user.x", b"1"),
    "unlink": lambda: os.unlink(victim),
    "rename": lambda: os.rename(victim, victim + "2"),
    "link in": lambda: os.link(victim, folder + "/link"),
    "move out": lambda: os.rename(folder + "/own", outside + "/own"),
    "kill": lambda: os.kill(parent, 0),
    "owner": lambda: fcntl.fcntl(reading, fcntl.F_SETOWN, parent),
    "flags": lambda: fcntl.ioctl(reading, 0x80086601, b"12345678"),
    "ptrace": lambda: call("ptrace", 16, parent, 0, 0),
    "unshare": lambda: call("unshare", 0x10000000),
    "mount": lambda: call("mount", b"none", folder.encode(), b"tmpfs", 0, None),
    "bpf": lambda: call("syscall", 321 if os.uname().machine == "x86_64" else 280, 0, None, 0),
    "io_uring": lambda: call("syscall", 425, 8, None),
    "keyctl": lambda: call("syscall", 250 if os.uname().machine == "x86_64" else 219, 0, -3, 0),
    "setsid": lambda: os.setsid(),
    "a program": lambda: subprocess.run(
        [sys.executable, "-c", f"open({victim!r}, 'a')"], check=True, stderr=subprocess.DEVNULL
    ),
}
Path(folder, "own").write_text("mine")
done = []
for name, attempt in tries.items():
    try:
        attempt()
    except (OSError, subprocess.CalledProcessError):
        continue
    done.append(name)
Path(folder, "done.json").write_text(json.dumps(done))
"""


@pytest.fixture
def world(tmp_path):
    folder, outside = tmp_path / "own", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    victim = outside / "production.db"
    victim.write_text("years of data")
    victim.chmod(0o600)
    with socket.socket(socket.AF_UNIX) as agent, socket.socket(socket.AF_UNIX) as hidden:
        agent.bind(str(outside / "a.sock"))
        hidden.bind(f"\0seatrial-{os.getpid()}")
        agent.listen()
        hidden.listen()
        told = [folder, victim, outside / "a.sock", f"seatrial-{os.getpid()}", os.getpid(), outside]
        yield folder, victim, json.dumps([one if isinstance(one, int) else str(one) for one in told])


def test_a_confined_process_computes_and_writes_into_its_folder_and_does_nothing_else(world):
    folder, victim, told = world
    before = victim.stat()
    subprocess.run([sys.executable, "-c", TRY, told], check=True, timeout=60)
    assert json.loads((folder / "done.json").read_text()) == []
    after = victim.stat()
    assert victim.read_text() == "years of data"
    assert (after.st_mode, after.st_mtime, after.st_ctime) == (before.st_mode, before.st_mtime, before.st_ctime)
    assert sorted(path.name for path in victim.parent.iterdir()) == ["a.sock", "production.db"]


HARMLESS = ("tcp", "unix", "abstract", "read", "list", "write", "fchmod", "utime", "kill", "truncate")


def test_the_same_tries_succeed_where_nothing_is_given_up(world):
    folder, _, told = world
    free = TRY.replace("confine(Path(folder))\n", f"HARMLESS = {HARMLESS}\n")
    free = free.replace("in tries.items():", "in tries.items():\n    if name not in HARMLESS:\n        continue")
    subprocess.run([sys.executable, "-c", free, told], check=True, timeout=60)
    assert set(json.loads((folder / "done.json").read_text())) == set(HARMLESS)


def test_a_machine_that_cannot_confine_is_refused_and_told_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr(confinement.platform, "machine", lambda: "riscv64")
    with pytest.raises(Unconfined, match="it runs on linux riscv64") as refused:
        confine(tmp_path)
    assert "skops.io.dump" in refused.value.next
