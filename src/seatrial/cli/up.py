"""`seatrial up`: one command that runs the server and what is declared to run by itself.

This process supervises two others and does nothing else: the server, which is `seatrial serve` with its workers, and
the control process, which starts schedules' runs. Either may be killed; it is started again. What one of them refuses
with an explanation when it starts ends the command with that explanation. Both end when this process does, however.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from seatrial.cli import talk
from seatrial.cli.door import BadCommandLine, Invocation
from seatrial.cli.verbs import listening, verb
from seatrial.core.clock import monotonic

if TYPE_CHECKING:
    from seatrial.scheduling.definition import Schedule

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STEADY_SECONDS = 60.0
SLACK_SECONDS = 20.0
"""How much longer than its runs' grace the control process may take, and the server than its own drain."""


@dataclass
class _Part:
    """A process that is kept running. pause: seconds before the next start, at: when that is."""

    name: str
    words: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    pause: float = 0.0
    at: float = 0.0
    starts: int = 0


@verb("up")
@listening
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(0, 256),
    envvar="SEATRIAL_WORKERS",
    help="Processes that answer; 0: one for each core.",
)
@click.option("--memory-budget", metavar="SIZE", envvar="SEATRIAL_MEMORY_BUDGET", help="As for `seatrial serve`.")
@click.option("--log", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--grace", default="30s", show_default=True, metavar="DURATION", help="What a run may still take.")
@click.option("--only", type=click.Choice(["server", "schedules"]), help="One of the two parts.")
@click.option("--control", is_flag=True, hidden=True)
@click.option("--server", default="", hidden=True)
@click.pass_obj
def up(
    call: Invocation,
    host: str,
    port: int,
    workers: int,
    memory_budget: str | None,
    form: Literal["text", "json"],
    grace: str,
    only: str | None,
    control: bool,
    server: str,
) -> None:
    """Serves every deployment as `seatrial serve` does and runs what schedules declare, until Ctrl-C or SIGTERM. Each
    run is a process of its own; how it ended is kept: see `seatrial schedules history`. Without schedules nothing runs
    by itself. Several of them may work on one project: each run is made by one."""
    from seatrial.core.windows import duration_us

    grace_seconds = duration_us(grace) / 1e6
    if call.at is not None:
        raise BadCommandLine(
            "`seatrial up` goes with the machine's clock, not with --at.", state="Nothing was started."
        )
    if control:
        _control(call, grace_seconds, server)
        return
    shared = ["--project", str(Path(call.project_folder).resolve())]
    shared += [*(["--env", call.env] if call.env else []), *(["--actor", call.actor] if call.actor else [])]
    seatrial = [sys.executable, "-P", "-m", "seatrial", *shared]
    serving = [*seatrial, "serve", "--host", host, "--port", str(port), "--workers", str(workers), "--log", form]
    serving += ["--memory-budget", memory_budget] if memory_budget else []
    controlling = [*seatrial, "up", "--control", "--grace", grace]
    controlling += ["--server", _address(host, port)] if port and only is None else []
    talk.release()
    parts = [
        *([] if only == "server" else [_Part("control", controlling)]),
        *([] if only == "schedules" else [_Part("server", [*serving, *(["--json"] if call.json else [])])]),
    ]
    code = _Supervisor(parts, grace_seconds).run()
    if code:
        raise click.exceptions.Exit(code)


def _address(host: str, port: int) -> str:
    """Where the server is asked from this machine."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"


def _control(call: Invocation, grace_seconds: float, server: str) -> None:
    """The control process: its stdin is a pipe of its supervisor, and ends with it."""
    with _told_to_stop() as stop, call.project() as project:

        def ready(declared: list[Schedule]) -> None:
            with suppress(OSError):
                print(json.dumps({"schedules": len(declared)}), flush=True)

        project.up([stop, sys.stdin.fileno()], say=talk.say, ready=ready, grace_seconds=grace_seconds, server=server)


@contextmanager
def _told_to_stop() -> Iterator[int]:
    """A descriptor that can be read once SIGTERM or SIGINT came."""
    heard, tell = os.pipe()
    os.set_blocking(tell, False)

    def remember(_number: int, _frame: object) -> None:
        with suppress(OSError):
            os.write(tell, b".")

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(heard)
        os.close(tell)


class _Supervisor:
    """Starts the parts one after the other, and keeps them running until it is told to stop."""

    def __init__(self, parts: Sequence[_Part], grace_seconds: float) -> None:
        self._parts = list(parts)
        self._grace = grace_seconds
        self._code = 0

    def run(self) -> int:
        """The exit code: 0, or that of a part that could not start."""
        with _told_to_stop() as stop:
            try:
                for part in self._parts:
                    self._start(part)
                    if part.name == "control" and not self._ready(part, stop):
                        break
                while not self._code and not select.select([stop], [], [], self._nap())[0]:
                    for part in self._parts:
                        self._look_after(part)
            finally:
                self._end(stop)
        return self._code

    def _ready(self, control: _Part, stop: int) -> bool:
        """Wait until the control process has read what is declared; False when it refused that."""
        assert control.process is not None
        stdout = control.process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout.fileno(), stop], [], [])
        if stdout.fileno() in ready:
            line = stdout.readline()
            if line:
                count = json.loads(line)["schedules"]
                if not count:
                    talk.say("No schedule is declared: nothing runs by itself.")
                return True
            self._code = control.process.wait() or 1
        return False

    def _start(self, part: _Part) -> None:
        from seatrial.scheduling.child import die_with_parent

        part.began = monotonic()
        piped = part.name == "control"
        out = None if not piped else subprocess.DEVNULL if part.starts else subprocess.PIPE
        try:
            part.process = subprocess.Popen(
                part.words,
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=out,
                start_new_session=True,  # Ctrl-C is for this process, which tells the others
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        except OSError as error:
            talk.say(f"The {part.name} process cannot be started: {error.strerror}")
            self._wait_longer(part)
            return
        part.starts += 1

    def _look_after(self, part: _Part) -> None:
        if part.process is None:
            if monotonic() >= part.at:
                self._start(part)
            return
        code = part.process.poll()
        if code is None:
            return
        self._close(part)
        if code > 0 and part.starts == 1 and part.name == "server":
            self._code = code  # it explained itself: the port is taken, an option is wrong
            return
        talk.say(f"The {part.name} process {_how(code)}; it is started again.")
        if monotonic() - part.began > STEADY_SECONDS:
            part.pause = 0.0
        self._wait_longer(part)

    def _wait_longer(self, part: _Part) -> None:
        part.pause = min(2 * part.pause or FIRST_PAUSE, LONGEST_PAUSE)
        part.at = monotonic() + part.pause

    def _nap(self) -> float:
        """Until somebody has to be started again; a part that ends is seen within half a second."""
        now = monotonic()
        waits = [part.at - now for part in self._parts if part.process is None]
        return min([0.5, *(max(one, 0.01) for one in waits)])

    def _end(self, stop: int) -> None:
        """Ask every part to end and wait for it; asked a second time, or when the time is up, kill it."""
        while select.select([stop], [], [], 0)[0]:
            os.read(stop, 1)
        for part in self._parts:
            if part.process is not None and part.process.poll() is None:
                with suppress(ProcessLookupError):
                    part.process.terminate()
        until = monotonic() + self._grace + SLACK_SECONDS
        for part in self._parts:
            if part.process is None:
                continue
            while (code := part.process.poll()) is None:
                if monotonic() > until or select.select([stop], [], [], 0.1)[0]:
                    talk.say(f"The {part.name} process has not ended, and is killed.")
                    part.process.kill()
                    code = part.process.wait()
                    self._code = self._code or 1
                    break
            if part.name == "server" and code > 0 and not self._code:
                self._code = code  # connections were cut off; it said so
            self._close(part)

    def _close(self, part: _Part) -> None:
        assert part.process is not None
        for stream in (part.process.stdin, part.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        part.process = None


def _how(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"has ended with exit code {code}"
