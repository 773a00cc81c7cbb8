"""The keeper: a process beside a server that compacts its prediction log, ships it, and lets go of what is too old.

Compaction takes a second of computing at a time, and an object store as long as it likes; in the process that answers,
requests would wait for both. So `Keeper` starts a child, starts it again when it dies, and, when the block ends, waits
until it has shipped the rest, no longer than said. The child ends by itself when its parent is gone, however that died.

Of several keepers of one log one works, and the others wait for its place.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import msgspec

from seatrial.core.clock import machine_us, monotonic
from seatrial.core.errors import SeatrialError
from seatrial.stores.prediction_log import LogBusy, LogWarning, PredictionLog

if TYPE_CHECKING:
    from seatrial.stores.log_shipping import Removal

REST_SECONDS = 10.0
"""How long the end of a server may take because predictions are still to be shipped."""
_GRACE_SECONDS = 2.0
_PRUNE_SECONDS = 3600.0
_AGAIN_SECONDS = (1.0, 30.0)
_BESIDE = 10  # the child is this much nicer than the server


class Orders(msgspec.Struct, frozen=True):
    """What a keeper is to do.

    root: the log's folder. objects: the object store's; empty: nothing is shipped. ship_seconds: within which a closed
    segment is in the object store. retention_us: how long records are kept; 0: for ever. metadata: the file of the
    audit log, which is told of what retention takes away.
    """

    root: str
    objects: str = ""
    ship_seconds: float = 60.0
    retention_us: int = 0
    metadata: str = ""
    actor: str = ""
    rest_seconds: float = REST_SECONDS


class Keeper:
    """A block during which a process of its own keeps a prediction log.

    Entering takes no time, and leaving at most `orders.rest_seconds` and three seconds more; close the log before. What
    is not shipped by then stays in the log's folder, a LogWarning says how much, and the next keeper ships it. No
    thread is started: the process may be forked inside the block, and what is forked from it counts as the server.
    """

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that watches the one that works; 0 outside of the block."""
        return self._child.pid if self._child is not None else 0

    def __enter__(self) -> Keeper:
        self._child = self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._child is not None
        if self._child.poll() is not None:  # somebody killed it
            assert self._child.stdin is not None
            self._child.stdin.close()
            self._child = self._start()
        assert self._child.stdin is not None
        with suppress(OSError):
            self._child.stdin.close()  # it ships the rest now
        try:
            self._child.wait(self._orders.rest_seconds + 2 * _GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None
        left = PredictionLog(Path(self._orders.root)).unshipped(closed=True) if self._orders.objects else 0
        if left:
            warnings.warn(
                f"{left:,} predictions are not shipped to the object store. They are in {self._orders.root}: the next "
                "`seatrial serve` ships them, or `seatrial predictions ship`.",
                LogWarning,
                stacklevel=2,
            )

    def _start(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-P", "-m", __name__, msgspec.json.encode(self._orders).decode()]
        # a Ctrl-C is for the server alone, which says when it has ended
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)


# -- the child


class _Keeping:
    """The work of a keeper's process."""

    def __init__(self, orders: Orders) -> None:
        from seatrial.stores.objects import ObjectStore

        self._orders = orders
        objects = ObjectStore(Path(orders.objects)) if orders.objects else None
        self._log = PredictionLog(Path(orders.root), objects=objects)
        self._told = ""
        self._pruned: float | None = None

    def run(self, ended: Callable[[float], bool]) -> bool:
        """Keep the log until `ended`, which waits for so many seconds; whether everything was shipped then."""
        every = max(self._orders.ship_seconds / 2, 0.05)
        while True:
            with self._place() as ours:
                while ours:
                    self.once()
                    if ended(every):
                        return self.rest()
            if ended(min(every, 1.0)):
                return self.rest()

    def once(self) -> bool:
        """Compact, ship, put together and prune what there is; whether all of it could be done."""
        try:
            self._move()
            self._prune()
        except LogBusy:
            return False
        except Exception as error:  # whatever it is, the records are here, and tried again
            self._tell(error)
            return False
        self._tell(None)
        return True

    def rest(self) -> bool:
        """Compact and ship what there is, within the time for it."""
        until = monotonic() + self._orders.rest_seconds
        signal.alarm(int(self._orders.rest_seconds + _GRACE_SECONDS) + 1)  # a store that hangs is not waited for
        while True:
            try:
                self._move()
                return True
            except LogBusy:
                pass
            except Exception as error:
                self._tell(error)
            if monotonic() >= until:
                return False
            threading.Event().wait(0.2)

    def _move(self) -> None:
        from seatrial.stores.log_shipping import put_together, ship

        self._log.compact()
        if self._paused():
            return
        ship(self._log)
        if put_together(self._log):
            ship(self._log)

    def _paused(self) -> bool:
        """Whether somebody paused shipping; a store that cannot be asked pauses nothing."""
        from seatrial.stores.metadata import MetadataStore
        from seatrial.stores.pauses import SHIPPING, paused

        path = Path(self._orders.metadata)
        if not self._orders.metadata or not path.is_file():
            return False
        with suppress(SeatrialError), closing(MetadataStore(path, make=False)) as metadata:
            return paused(metadata, [SHIPPING], machine_us()) is not None
        return False

    def _prune(self) -> None:
        """Take away what is too old, once an hour, after the audit log has it: without an audit log nothing goes."""
        if not self._orders.retention_us or (self._pruned is not None and monotonic() - self._pruned < _PRUNE_SECONDS):
            return
        if self._paused():
            return
        from seatrial.stores.log_shipping import prune, removable

        before_us = machine_us() - self._orders.retention_us
        gone = removable(self._log, before_us)
        if gone:
            self._audit(gone, before_us)
            prune(self._log, before_us)
        self._pruned = monotonic()

    def _audit(self, gone: Sequence[Removal], before_us: int) -> None:
        from seatrial.stores.log_shipping import PRUNED, SUBJECT, told
        from seatrial.stores.metadata import MetadataStore

        metadata = MetadataStore(Path(self._orders.metadata), make=False)
        try:
            with metadata.transaction() as transaction:
                body = told(gone, before_us)
                transaction.event(PRUNED, SUBJECT, actor=self._orders.actor, at_us=machine_us(), body=body)
        finally:
            metadata.close()

    def _tell(self, error: Exception | None) -> None:
        """Say on stderr that shipping fails, and when it works again; once each."""
        code = "" if error is None else getattr(error, "code", type(error).__name__)
        if code == self._told:
            return
        self._told = code
        if error is None:
            sys.stderr.write("seatrial: the prediction log is shipped again.\n")
        else:
            found = error.found if isinstance(error, SeatrialError) else f"{type(error).__name__}: {error}"
            sys.stderr.write(
                f"seatrial: the prediction log is not shipped: {found} [{code}] Nothing is lost: it stays on this "
                "machine's disk, and is shipped when that works again.\n"
            )
        sys.stderr.flush()

    @contextmanager
    def _place(self) -> Iterator[bool]:
        """The place of the one keeper that works; False when another has it."""
        try:
            self._log.root.mkdir(parents=True, exist_ok=True)
            file = (self._log.root / "keeper.lock").open("w")
        except OSError as error:  # no log can be written there either
            self._tell(error)
            yield False
            return
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True


def main(words: list[str]) -> int:
    """Keep the log of the orders until stdin ends, then ship the rest. 0 when everything was shipped."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the server, whose end is told by stdin
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.nice(_BESIDE)
    return _watch(msgspec.json.decode(words[0], type=Orders))


def _watch(orders: Orders) -> int:
    """Have a process do the work, and another one when it dies; one that dies at once is waited for longer each time.

    This process loads nothing that computes: what runs out of memory is the other.
    """
    pause, longest = _AGAIN_SECONDS
    while True:
        started = monotonic()
        worker, alive, ours = _fork(orders)
        ready, _, _ = select.select([0, alive], [], [])  # until the server has ended, or the worker
        if 0 in ready:
            return _waited(worker, orders.rest_seconds + _GRACE_SECONDS)
        os.waitpid(worker, 0)
        os.close(alive)
        os.close(ours)
        pause = _AGAIN_SECONDS[0] if monotonic() - started > longest else min(2 * pause, longest)
        select.select([0], [], [], pause)


def _fork(orders: Orders) -> tuple[int, int, int]:
    """A process that works. It holds a pipe that ends with it, and looks at one that ends with this process."""
    alive, its = os.pipe()
    looked_at, ours = os.pipe()
    worker = os.fork()
    if worker:
        os.close(its)
        os.close(looked_at)
        return worker, alive, ours
    code = 1
    try:
        os.close(alive)
        os.close(ours)
        code = 0 if _Keeping(orders).run(lambda seconds: bool(select.select([0, looked_at], [], [], seconds)[0])) else 1
    finally:
        os._exit(code)


def _waited(worker: int, seconds: float) -> int:
    """The exit code of a worker that is to end; killed when it takes too long."""
    until = monotonic() + seconds
    while monotonic() < until:
        pid, status = os.waitpid(worker, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) and 1
        threading.Event().wait(0.02)
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
