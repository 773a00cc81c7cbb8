"""A child: one run in a process of its own, which may hang, crash or print for ever without harming who started it.

It leads a process group, so that what it starts ends with it, and it dies with its parent where the kernel offers that
(Linux). Of what it prints the first and the last part are kept, the middle is counted.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from seatrial.core.clock import monotonic
from seatrial.core.errors import GateRefused, NotAllowed, UsageError
from seatrial.scheduling.jobs import Ended, State

KEPT = 32_768  # bytes of the start, and of the end, of each stream
STOP_SECONDS = 5.0
"""How long a process has after SIGTERM before it is killed."""
NOTHING_TO_DO = ("rollout.none", "retrain.nothing_proposed")
"""Codes that say that a verb which is run by the clock had nothing to do this time."""
LONGEST_WORDS = 300
_REFUSED = (GateRefused.exit_code, NotAllowed.exit_code)
_CHUNK = 1 << 16
_DIE = 1  # PR_SET_PDEATHSIG
_TOP = re.compile(r'^  "(headline|words|verdict)": ("(?:[^"\\]|\\.)*"),?$', re.MULTILINE)


class Kept:
    """The first and the last part of a stream."""

    def __init__(self, most: int = KEPT) -> None:
        self._most = most
        self._head, self._tail = bytearray(), bytearray()
        self.total = 0

    def take(self, data: bytes) -> None:
        self.total += len(data)
        room = self._most - len(self._head)
        self._head += data[:room]
        self._tail += data[room:] if room > 0 else data
        del self._tail[: max(len(self._tail) - self._most, 0)]

    def text(self) -> str:
        """What was kept, and how much is left out between."""
        left_out = self.total - len(self._head) - len(self._tail)
        middle = f"\n[... {left_out:,} bytes left out ...]\n".encode() if left_out else b""
        return (bytes(self._head) + middle + bytes(self._tail)).decode(errors="replace")

    def tail(self) -> str:
        """The last part, as long as it is kept."""
        whole = self.total == len(self._head) + len(self._tail)
        last = (self._head + self._tail)[-self._most :] if whole else self._tail
        return bytes(last).decode(errors="replace")


class Child:
    """One run. Started at once; ask `poll` every so often, which also takes what it printed."""

    def __init__(self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_us: int) -> None:
        self._began = monotonic()
        self._timeout = timeout_us / 1e6
        self._kept = {"stdout": Kept(), "stderr": Kept()}
        self._asked: State | None = None
        self._kill_at = 0.0
        self._process = subprocess.Popen(
            list(words),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        self._streams = {"stdout": self._process.stdout, "stderr": self._process.stderr}
        for stream in self._streams.values():
            assert stream is not None
            os.set_blocking(stream.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def files(self) -> list[int]:
        """What to wait for with `select`: it prints, or has ended."""
        return [stream.fileno() for stream in self._streams.values() if stream is not None]

    def poll(self) -> Ended | None:
        """How it ended; None while it runs. Stops it when its time is over."""
        self._take()
        found, status, usage = os.wait4(self.pid, os.WNOHANG)
        if not found:
            self._watch()
            return None
        self._process.returncode = code = os.waitstatus_to_exitcode(status)
        self._signal(signal.SIGKILL)  # what it left behind
        self._take()
        self._close()
        return self._ended(code, usage)

    def stop(self, state: State = "stopped") -> None:
        """Ask it to end, and kill it when it does not. state: how it is then said to have ended."""
        if self._asked is None:
            self._asked = state
            self._kill_at = monotonic() + STOP_SECONDS
            self._signal(signal.SIGTERM)

    def output(self) -> str:
        """What it printed, shortened."""
        parts = [f"== {name}, {kept.total:,} bytes\n{kept.text()}" for name, kept in self._kept.items() if kept.total]
        return "\n".join(parts)

    def _watch(self) -> None:
        if self._asked is None and monotonic() - self._began > self._timeout:
            self.stop("timed out")
        elif self._asked is not None and monotonic() > self._kill_at:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _take(self) -> None:
        """Take what it printed, a part of what there may be: who prints for ever must not be read for ever."""
        for name, stream in self._streams.items():
            for _ in range(16):
                if stream is None:
                    break
                try:
                    data = os.read(stream.fileno(), _CHUNK)
                except BlockingIOError:
                    break
                if not data:
                    stream.close()
                    self._streams[name] = stream = None
                    break
                self._kept[name].take(data)

    def _close(self) -> None:
        for name, stream in self._streams.items():
            if stream is not None:
                stream.close()
                self._streams[name] = None

    def _ended(self, code: int, usage: resource.struct_rusage) -> Ended:
        state, words = _outcome(code, self._kept["stdout"].text(), self._kept["stderr"].tail())
        if self._asked is not None:
            state = self._asked
            words = {
                "timed out": f"it was stopped after {self._timeout:g} s, its timeout",
                "stopped": "it was stopped, because `seatrial up` or `schedules run` was",
                "lost": "it was stopped: another process had taken it for lost",
            }.get(self._asked, "it was stopped")
        scale = 1 if sys.platform == "darwin" else 1024
        return Ended(
            state=state,
            words=words,
            exit_code=code,
            seconds=round(monotonic() - self._began, 3),
            cpu_seconds=round(usage.ru_utime + usage.ru_stime, 3),
            memory_bytes=usage.ru_maxrss * scale,
        )


def wait(children: Sequence[Child], seconds: float, *others: int) -> list[int]:
    """Wait until a child prints or ends, or one of the `others` (files) can be read; those of them that can."""
    files = [file for child in children for file in child.files()]
    ready, _, _ = select.select([*files, *others], [], [], seconds)
    return [file for file in ready if file in others]


def die_with_parent(number: int) -> Callable[[], None] | None:
    """What a child does before it begins, so that it is sent a signal when its parent dies; None where that is not
    offered."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def before() -> None:
        prctl(_DIE, number)
        if os.getppid() != parent:  # it died meanwhile
            os.kill(os.getpid(), number)

    return before


def _outcome(code: int, stdout: str, stderr: str) -> tuple[State, str]:
    if code == 0:
        return "done", _said(stdout)
    problem = _problem(stderr)
    if problem is None:
        return "failed", _how(code)
    words, named = shortened(str(problem.get("found") or problem.get("detail", ""))), str(problem.get("code", ""))
    if named in NOTHING_TO_DO:
        return "done", f"nothing to do: {words}"
    if code in _REFUSED or code == UsageError.exit_code:
        return "refused", f"{words} [{named}]"
    return "failed", f"{words} [{named}]"


def _how(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"it was ended by {signal.Signals(-code).name}"
        return f"it was ended by signal {-code}"
    return f"it ended with exit code {code}, and said not why"


def _said(stdout: str) -> str:
    """The one line in which the verb's answer says what it did, where it does."""
    try:
        answer: Any = msgspec.json.decode(stdout.encode())
    except msgspec.DecodeError:
        answer = dict(_line(*found) for found in _TOP.findall(stdout))
    if not isinstance(answer, dict):
        return ""
    words = next((str(answer[name]) for name in ("headline", "words", "verdict") if answer.get(name)), "")
    if answer.get("headline") and answer.get("verdict"):
        words = f"{answer['verdict']}: {words}"
    return shortened(words)


def _line(name: str, text: str) -> tuple[str, str]:
    """A text of the answer's own level: an answer whose middle was left out is no JSON any more, but its lines are."""
    return name, str(json.loads(text))


def _problem(stderr: str) -> dict[str, Any] | None:
    """The problem document that a command with --json ends with."""
    start = stderr.rfind("\n{\n")
    text = stderr[start + 1 :] if start >= 0 else stderr
    try:
        found = json.loads(text[: text.rindex("}") + 1])
    except ValueError:
        return None
    return found if isinstance(found, dict) and "code" in found else None


def shortened(words: str) -> str:
    """One line, not too long."""
    words = " ".join(words.split())
    return words if len(words) <= LONGEST_WORDS else f"{words[: LONGEST_WORDS - 3]}..."
