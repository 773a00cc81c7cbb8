"""Several processes on one port: who starts the workers, who watches them, and who stops them?

One supervisor opens the listening socket and forks the workers, which accept from it. They share one socket and do not
have one each (SO_REUSEPORT), because a connection that waits then belongs to nobody in particular: when a worker dies,
drains or hangs, the others take it, and a worker that accepts nothing is given nothing. The supervisor itself loads no
release, has no threads and answers nobody, so a worker can be forked from it at any time.

A worker that ends is started again, its slot kept. One whose event loop stands still is killed after SILENT_SECONDS:
what waits on its connections would wait for ever. A worker whose supervisor is gone drains and ends.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from seatrial.core.clock import monotonic
from seatrial.core.errors import Failed, SeatrialError, Unavailable, UsageError, counted
from seatrial.serving import place as places
from seatrial.serving.place import Beats, Place
from seatrial.serving.service import Service
from seatrial.serving.workers import draining
from seatrial.serving.workers.cores import cores
from seatrial.serving.workers.draining import refuse_new, waiting
from seatrial.serving.workers.process import DrainTooLong, address_of, listen, run, serve_on

MOST_WORKERS = 256
SILENT_SECONDS = 20.0
"""How long a worker's event loop may stand still before it is killed."""
LOOK_SECONDS = 0.05
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
STEADY_SECONDS = 60.0
"""A worker that lived this long is started again at once, and its end is told again."""
CUT_OFF, NOT_STARTED = 70, 71
"""Exit codes of a worker."""

MakeService = Callable[[Place], Service]
"""Makes the service of one worker, in that worker's process."""

_LOGGER = logging.getLogger("seatrial.serving")


class WorkersWrong(UsageError):
    """The number of workers is none that can be started."""

    code = "serving.workers_wrong"


class WorkerNotStarted(Failed):
    """A worker could not start, so the service did not."""

    code = "serving.worker_not_started"


class NoRuntimeFolder(Unavailable):
    """There is no folder for what the workers of one service share while they run."""

    code = "serving.no_runtime_folder"


@dataclass
class _Slot:
    """A place for one worker. pause: seconds before the next start; at: when that is. seen, silent: the last beat that
    was seen, and for how long there was no other. told: how the last one ended, when that was said."""

    number: int
    pid: int = 0
    began: float = 0.0
    starts: int = 0
    pause: float = 0.0
    at: float = 0.0
    seen: int = 0
    silent: float = 0.0
    told: str = ""
    killed: bool = False


def serve(
    make: Callable[[Place | None], Service],
    *,
    workers: int = 1,
    host: str = "127.0.0.1",
    port: int = 8080,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve in this process when there is one worker, which then has no place, and with `run_workers` otherwise.

    workers: 0 is one for each core that this process may use.
    """
    workers = workers or cores()
    if workers == 1:
        service = make(None)
        service.refresh()
        run(service, host=host, port=port, started=started)
    else:
        run_workers(make, workers=workers, host=host, port=port, started=started)


def run_workers(
    make: MakeService,
    *,
    workers: int,
    host: str = "127.0.0.1",
    port: int = 8080,
    started: Callable[[str], None] | None = None,
    silent_seconds: float = SILENT_SECONDS,
) -> None:
    """Serve with several processes until SIGTERM or SIGINT, then answer what has come in and return.

    make: called in each worker. started: called once with the address when every worker accepts connections.
    Call it from the main thread of a process that has no other. Raises PortInUse, CannotListen, NoRuntimeFolder,
    WorkersWrong, DrainTooLong, and WorkerNotStarted when a worker cannot make its service the first time.
    """
    if not 1 <= workers <= MOST_WORKERS:
        raise WorkersWrong(
            f"{workers} workers were asked for.",
            expected=f"A number from 1 to {MOST_WORKERS} is expected, usually that of the cores.",
            state="Nothing was started.",
        )
    listening = listen(host, port)
    try:
        folder = Path(tempfile.mkdtemp(prefix="seatrial-serve-"))
        (folder / "metrics").mkdir()
    except OSError as error:
        listening.close()
        raise NoRuntimeFolder(
            f"no temporary folder can be made: {error.strerror}.",
            state="Nothing was started.",
            next="Give the process a writable folder and name it in TMPDIR; one in memory is enough.",
        ) from None
    try:
        _Supervisor(make, workers, listening, folder, started, silent_seconds).run()
    finally:
        listening.close()
        shutil.rmtree(folder, ignore_errors=True)


class _Supervisor:
    def __init__(
        self,
        make: MakeService,
        workers: int,
        listening: socket.socket,
        folder: Path,
        started: Callable[[str], None] | None,
        silent_seconds: float,
    ) -> None:
        self._make = make
        self._listening = listening
        self._address = address_of(listening)
        self._folder = folder
        self._started = started
        self._silent_seconds = silent_seconds
        self._beats = Beats(folder, workers)
        self._slots = [_Slot(number) for number in range(workers)]
        self._life, self._lives = os.pipe()
        self._first = os.getpid() == 1  # of a container: who has lost its parent is given to it
        self._before = _children()
        self._stop = False
        self._force = False
        self._cut_off = 0
        self._failed: SeatrialError | None = None

    def run(self) -> None:
        previous = {number: signal.signal(number, self._told_to_stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._watch()
            self._drain()
        finally:
            for slot in self._slots:
                self._kill(slot)
            for number, handler in previous.items():
                signal.signal(number, handler)
            os.close(self._life)
            os.close(self._lives)
        if self._failed is not None:
            raise self._failed
        if self._cut_off:
            raise DrainTooLong(
                f"{counted(self._cut_off, 'worker')} had not answered everything when the time was up, or when the "
                "stop was asked for again.",
                state="The connections were cut off; what was answered is in the prediction log.",
            )

    def _told_to_stop(self, number: int, _frame: FrameType | None) -> None:
        self._force = self._force or (self._stop and number == signal.SIGINT)
        self._stop = True

    # -- while it runs

    def _watch(self) -> None:
        importlib.import_module("fastapi")  # it would keep a worker's event loop for the better part of a second
        importlib.import_module("uvicorn")
        gc.freeze()  # what is here now is shared with every worker, and stays so
        last = monotonic()
        while not self._stop and self._failed is None:
            now = monotonic()
            for slot in self._slots:
                if slot.pid:
                    self._look_after(slot, min(now - last, 1.0))  # a machine that slept was not silent
                elif now >= slot.at:
                    self._start(slot)
            last = now
            if self._first:
                self._reap()
            if not self._beats.complete and all(places.read(self._folder, one.number).accepting for one in self._slots):
                self._beats.completed()
                if self._started is not None:
                    self._started(self._address)
            time.sleep(LOOK_SECONDS)

    def _reap(self) -> None:
        """Take away what ended and has no other parent: the models' processes of workers that died."""
        known = self._before | {slot.pid for slot in self._slots}
        for pid in _children() - known:
            _ended(pid)

    def _look_after(self, slot: _Slot, passed: float) -> None:
        code = _ended(slot.pid)
        if code is not None:
            self._buried(slot, code)
            return
        beats = self._beats.of(slot.number)
        if beats != slot.seen:
            if slot.told and monotonic() - slot.began > STEADY_SECONDS:
                slot.told = ""
                slot.pause = 0.0
            slot.seen, slot.silent = beats, 0.0
        elif places.read(self._folder, slot.number).accepting:
            slot.silent += passed
            if slot.silent >= self._silent_seconds:
                _LOGGER.warning(
                    "worker %d (pid %d) has not moved for %g s and is killed; its connections break",
                    *(slot.number, slot.pid, self._silent_seconds),
                )
                slot.killed = True
                with suppress(ProcessLookupError):
                    os.kill(slot.pid, signal.SIGKILL)
                slot.silent = 0.0

    def _buried(self, slot: _Slot, code: int) -> None:
        """Take note of a worker's end, and of when the next is started."""
        said = places.read(self._folder, slot.number)
        lived = monotonic() - slot.began
        pid, slot.pid = slot.pid, 0
        if code == NOT_STARTED and said.error is not None and not self._beats.complete:
            self._failed = _told_by(said.error)
            return
        why = _how(code) + (f": {str(said.error['found']).rstrip('.')}" if said.error else "")
        with suppress(OSError):
            places.write(self._folder, places.starting(slot.number, f"It {why}, and is started again."))
        slot.pause = FIRST_PAUSE if lived > STEADY_SECONDS or not slot.pause else min(2 * slot.pause, LONGEST_PAUSE)
        slot.at = monotonic() + slot.pause
        if slot.told != why and not slot.killed:
            _LOGGER.warning("worker %d (pid %d) %s; it is started again", slot.number, pid, why)
        slot.told, slot.killed = why, False

    def _start(self, slot: _Slot) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        slot.began, slot.seen, slot.silent = monotonic(), self._beats.of(slot.number), 0.0
        slot.starts += 1
        try:
            pid = os.fork()
        except OSError as error:  # no memory or too many processes, now
            slot.pause = min(2 * slot.pause or FIRST_PAUSE, LONGEST_PAUSE)
            slot.at = monotonic() + slot.pause
            if slot.told != str(error):
                _LOGGER.warning("worker %d cannot be started: %s", slot.number, error.strerror)
            slot.told = str(error)
            return
        if pid == 0:
            place = Place(self._folder, slot.number, len(self._slots), life=self._life)
            _work(self._make, self._listening, place, self._lives)
        slot.pid = pid

    # -- when it stops

    def _drain(self) -> None:
        """Tell every worker to stop, and wait for them."""
        refuse_new(self._listening)
        self._beats.stop()
        began = quiet = monotonic()
        for slot in self._slots:
            if slot.pid:
                with suppress(ProcessLookupError):
                    os.kill(slot.pid, signal.SIGTERM)
                    os.kill(slot.pid, signal.SIGCONT)  # one that was stopped has answers to give, too
        while any(slot.pid for slot in self._slots) and not self._force:
            now = monotonic()
            if now - began > draining.DRAIN_SECONDS + 3:  # theirs ends earlier, unless they hang
                break
            if self._listening.fileno() >= 0:
                quiet = now if waiting(self._listening) else quiet
                if now - quiet > 0.2:
                    self._listening.close()  # the workers have theirs; when all are closed callers are refused at once
            for slot in self._slots:
                code = _ended(slot.pid) if slot.pid else None
                if code is not None:
                    slot.pid = 0
                    self._cut_off += code == CUT_OFF
            time.sleep(LOOK_SECONDS / 2)
        self._cut_off += sum(slot.pid != 0 for slot in self._slots)

    def _kill(self, slot: _Slot) -> None:
        if slot.pid:
            with suppress(ProcessLookupError):
                os.kill(slot.pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(slot.pid, 0)
            slot.pid = 0


def _work(make: MakeService, listening: socket.socket, place: Place, lives: int) -> NoReturn:
    """A worker's whole life. Never returns into the supervisor's code."""
    code = NOT_STARTED
    if sys.__stderr__ is not None:
        sys.stderr = sys.__stderr__  # the supervisor may collect what is said while it starts; a worker speaks at once
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end_at_once)  # nothing was answered yet
        os.close(lives)  # only the supervisor holds it open
        service = make(place)
        service.refresh()
        code = 1
        serve_on(listening, service)
        code = 0
        if place.alone:
            shutil.rmtree(place.folder, ignore_errors=True)  # whoever made it cannot
    except DrainTooLong:
        code = CUT_OFF
    except SeatrialError as error:
        place.failed(error)
    except BaseException as error:
        place.failed(WorkerNotStarted(f"{type(error).__name__}: {error}.".replace("\n", " ")))
        _LOGGER.debug("worker %d", place.slot, exc_info=error)
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


def _ended(pid: int) -> int | None:
    """A process's exit code, negative for a signal; None while it lives."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return os.waitstatus_to_exitcode(status) if found else None


def _children() -> set[int]:
    """The processes whose parent this one is; none where the kernel does not tell."""
    with suppress(OSError):
        return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
    return set()


def _how(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"was ended by signal {-code}"
    return "has ended" if code == 0 else f"has ended with exit code {code}"


def _told_by(error: dict[str, object]) -> SeatrialError:
    """What kept a worker from starting, in the supervisor: the same words, code and exit code."""
    told = WorkerNotStarted(
        str(error["found"]),
        expected=str(error["expected"]),
        state="Nothing is served.",
        next=str(error["next"]),
    )
    told.code = str(error["code"])  # type: ignore[misc]
    told.exit_code = int(str(error["exit_code"]))  # type: ignore[misc]
    return told
