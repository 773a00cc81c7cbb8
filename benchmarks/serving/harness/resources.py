"""What a server needs beside CPU: time until it is ready, memory for each release that it holds."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from harness.models import World
from harness.peers import KINDS, variables
from harness.processes import free_ports

MEMORY = """
import gc, sys
from pathlib import Path
from seatrial.releases.signing import trusted_keys
from seatrial.serving.scoring.release import open_release

def kib():
    gc.collect()
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])

ring, number = trusted_keys(Path(".seatrial/keys")), int(sys.argv[1])
held = [open_release(Path("bench.seatrial"), ring) for _ in range(3)]
before = kib()
held += [open_release(Path("bench.seatrial"), ring) for _ in range(number)]
print((kib() - before) / number / 1024)
"""


def seconds_to_ready(world: World, cache: Path, times: int) -> float:
    """The median over starts of `seatrial serve --bundle`, from the start of the process to /ready with 200."""
    took = []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            port = free_ports()
            command = KINDS["seatrial"].prepare(world, Path(folder), port, cache)
            began = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=folder, env=variables(KINDS["seatrial"], {}), stderr=subprocess.DEVNULL
            )
            try:
                while not _ready(port):
                    if process.poll() is not None:
                        raise SystemExit("seatrial did not start")
                    time.sleep(0.01)
                took.append(time.perf_counter() - began)
            finally:
                process.terminate()
                process.wait(30)
    return statistics.median(took)


def _ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def megabytes_a_release(world: World, number: int = 40) -> float:
    """Resident memory for each further release that a process opens as a server does."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(number)],
        cwd=world.folder,
        env=variables(KINDS["seatrial"], {}),
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)
