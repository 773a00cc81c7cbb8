"""Scores from a model without an ONNX form: a child process answers, and is watched.

The child imports scikit-learn or the booster's library, so that the server need not: a forged or broken file crashes
the child and not the server. The child is started when the release is loaded; when it dies it is started again and
asked once more; when it takes too long it is killed. It ends with its server, however that ends. It is given no
environment variable but those that Python needs.

A start takes a second or more. `score` waits for it; `score_now` never does, for those who have others to answer.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import monotonic
from seatrial.core.errors import Failed, SeatrialError, Unavailable
from seatrial.core.signature import NamedRows, Rows, missing_in
from seatrial.releases import frames
from seatrial.releases.frames import Broken
from seatrial.releases.runtime import ModelUnreadable, WrongShape, not_finite, refuse_missing

START_SECONDS = 120.0
CALL_SECONDS = 5.0
ROW_SECONDS = 0.01
CHUNK = 10_000
"""Rows that are sent at once."""
KEPT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")

Scores = NDArray[np.float64]


class ChildUnavailable(Unavailable):
    """The process that scores for a release died twice, did not start, or took longer than its deadline."""

    code = "runtime.child_unavailable"


class ChildRestarting(Unavailable):
    """The process that scores for a release is being started again.

    started: done when it was started, or could not be. died: it ended while it scored these rows. release: whose it
    is, where that is known.
    """

    code = "runtime.child_restarting"

    def __init__(self, found: str, *, started: Future[_Child], died: bool, retry_after: int) -> None:
        super().__init__(
            found,
            state="No score was given.",
            next=f"Ask again in {retry_after} seconds.",
            retry_after=retry_after,
        )
        self.started = started
        self.died = died
        self.release = ""


class ScoringFailed(Failed):
    """The estimator raised on these rows."""

    code = "runtime.scoring_failed"


class Cost(msgspec.Struct, frozen=True):
    """What a child costs on the machine where it was measured.

    start_s: seconds until it can answer. bytes: its memory. us_alone: microseconds for a row that is asked alone;
    us_many: for one of many rows.
    """

    start_s: float
    bytes: int
    us_alone: float
    us_many: float


class SupervisedRuntime:
    """One model in a child process; `score` may be called from several threads, one is answered at a time.

    format, data, task: of a `native.NativeModel`. inputs: how many columns rows have.
    threads: threads of the child. no_missing: positions of inputs for which NaN is refused.
    start_s, call_s: seconds after which a child that does not start or answer is killed; a call of n rows has
        10 ms more for each.
    Raises ModelUnreadable when the child cannot load the model, ChildUnavailable when it does not start.
    """

    def __init__(
        self,
        format: str,
        data: bytes,
        task: str,
        inputs: int,
        threads: int = 1,
        *,
        no_missing: Sequence[int] = (),
        start_s: float = START_SECONDS,
        call_s: float = CALL_SECONDS,
    ) -> None:
        self.inputs = inputs
        self.no_missing = np.array(sorted(no_missing), dtype=np.intp)
        self.start_s = 0.0
        self.bytes = 0
        self._hello = frames.told(frames.Hello(frames.VERSION, format, task))
        self._data = data
        self._threads = threads
        self._start_limit, self._call_limit = start_s, call_s
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._starting: Future[_Child] | None = None
        self._child = self._started()

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return self._child.process.pid if self._child else None

    def score(self, rows: Rows) -> Scores:
        """P(positive), the value, or the probabilities [n, C] of each row, as the estimator itself gives them.

        rows: float32 [n, k] in the order of the signature's inputs, NaN for missing, or columns by name; n may be 0.
        Raises WrongShape, MissingNotAccepted, ScoreNotFinite, ScoringFailed and ChildUnavailable; then no row has a
        score.
        """
        return self._scored(rows, wait=True)

    def score_now(self, rows: Rows) -> Scores:
        """As `score`, without waiting for a child that has to be started: that goes on by itself.

        Raises ChildRestarting in addition.
        """
        return self._scored(rows, wait=False)

    def _scored(self, rows: Rows, *, wait: bool) -> Scores:
        self._check(rows)
        if not len(rows):
            return np.empty(0)
        if self.no_missing.size:
            refuse_missing(missing_in(rows), self.no_missing)
        with self._lock:
            parts = [self._ask(rows[start : start + CHUNK], wait=wait) for start in range(0, len(rows), CHUNK)]
        scores = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if not np.isfinite(scores).all():
            raise not_finite(scores)
        return scores

    def _check(self, rows: Rows) -> None:
        if isinstance(rows, NamedRows):
            found = f"rows are {len(rows.columns)} columns by name"
            fits = len(rows.columns) == self.inputs
        else:
            found = f"rows are {rows.dtype} {list(rows.shape)}"
            fits = rows.dtype == np.float32 and rows.ndim == 2 and rows.shape[1] == self.inputs
        if not fits:
            raise WrongShape(f"{found}.", expected=f"float32 [n, {self.inputs}] is expected, or as many columns.")

    def cost(self, rows: Rows) -> Cost:
        """What the child costs here, measured on some of `rows` (n >= 1), which it must be able to score."""
        alone = []
        for place in np.linspace(0, len(rows) - 1, 20).astype(int):
            before = monotonic()
            self.score(rows[place : place + 1])
            alone.append(monotonic() - before)
        many = rows[:1000]
        before = monotonic()
        self.score(many)
        took = monotonic() - before
        return Cost(
            start_s=round(self.start_s, 2),
            bytes=self.bytes,
            us_alone=round(float(np.median(alone)) * 1e6, 1),
            us_many=round(took / len(many) * 1e6, 2),
        )

    def close(self) -> None:
        """End the child; a later `score` starts it again."""
        with self._lock:
            if self._starting is not None:
                with suppress(SeatrialError):
                    self._ready(wait=True)
            self._end()

    def _ask(self, rows: Rows, *, wait: bool) -> Scores:
        """The scores of some rows; a child that dies is started again and asked once more, or, without waiting, by
        whoever asks again."""
        for again in (True, False):
            child = self._ready(wait=wait)
            try:
                return self._exchange(child, rows)
            except Broken as died:
                words = child.last_words() or str(died)
                self._end()
                if not wait:
                    raise self._restarting(f"it ended while it scored: {words}", died=True) from None
                if not again:
                    raise died_twice(f"on the same {len(rows)} rows: {words}") from None
            except TimeoutError:
                self._end()
                if not wait:
                    self._begin()
                raise ChildUnavailable(
                    f"the process that scores for this release took longer than {self._limit(rows):g} s "
                    f"for {len(rows)} rows and was killed.",
                    next="Ask for fewer rows at once.",
                    state="No score was given; the process is started again.",
                ) from None
        raise AssertionError("not reached")

    def _ready(self, *, wait: bool) -> _Child:
        """The child, started again where it ended. Raises ChildUnavailable, ModelUnreadable and ChildRestarting."""
        if self._child is None:
            starting = self._begin()
            if not wait and not starting.done():
                raise self._restarting("it ended", died=False)
            try:
                self._child = starting.result()
            finally:
                self._starting = None  # what could not be started is tried again by the next call
        return self._child

    def _begin(self) -> Future[_Child]:
        """Start a child beside this call, unless one is being started."""
        if self._starting is None:
            starting = self._starting = Future[_Child]()
            starting.set_running_or_notify_cancel()
            threading.Thread(target=self._start_for, args=(starting,), name="seatrial-child", daemon=True).start()
        return self._starting

    def _start_for(self, starting: Future[_Child]) -> None:
        try:
            starting.set_result(self._started())
        except BaseException as error:
            starting.set_exception(error)

    def _restarting(self, why: str, *, died: bool) -> ChildRestarting:
        return ChildRestarting(
            f"the process that scores for this release is being started again: {why}.",
            started=self._begin(),
            died=died,
            retry_after=max(1, ceil(self.start_s)),
        )

    def _limit(self, rows: Rows) -> float:
        return self._call_limit + ROW_SECONDS * len(rows)

    def _exchange(self, child: _Child, rows: Rows) -> Scores:
        remaining = _Deadline(self._limit(rows))
        if isinstance(rows, NamedRows):
            frames.send(child.link, frames.COLUMNS, frames.columns(rows), remaining=remaining)
        else:
            frames.send(child.link, frames.ROWS, *frames.matrix(rows), remaining=remaining)
        kind, body = frames.receive(child.link, remaining=remaining)
        if kind == frames.RAISED:
            raised = msgspec.msgpack.decode(body, type=frames.Raised)
            # the estimator's words can hold values of the rows, which an answer over HTTP must not repeat
            raise ScoringFailed(
                f"the estimator raised {raised.kind} on these {len(rows)} rows.",
                expected="Rows like those it was trained on are expected.",
                state=f"No score was given. Its words: {raised.words}",
                kind=raised.kind,
            )
        scores = frames.values(body, "<f8")
        if kind != frames.SCORES or len(scores) != len(rows):
            raise Broken(f"it answered {len(scores)} scores for {len(rows)} rows")
        return scores

    def _started(self) -> _Child:
        """A child that has loaded the model. Raises ChildUnavailable and ModelUnreadable."""
        before = monotonic()
        child = _Child(self._threads)
        remaining = _Deadline(self._start_limit)
        try:
            frames.send(child.link, frames.HELLO, self._hello, remaining=remaining)
            frames.send(child.link, frames.MODEL, self._data, remaining=remaining)
            kind, body = frames.receive(child.link, remaining=remaining)
        except (Broken, TimeoutError) as error:
            words = child.last_words() or str(error) or f"no answer within {self._start_limit:g} s"
            child.end()
            raise ChildUnavailable(
                f"the process that scores for this release did not start: {words}.",
                expected="A child process that can import what the release's model needs is expected.",
                next="Look whether there is memory for it.",
                state="Nothing was loaded.",
            ) from None
        if kind == frames.RAISED:
            raised = msgspec.msgpack.decode(body, type=frames.Raised)
            child.end()
            raise ModelUnreadable(
                f"the process that scores for this release cannot load its model: {raised.kind}: {raised.words}",
                expected="The packages of the release's lock are expected where it is served.",
                next="Install them, or export the release with `seatrial export docker`.",
                state="Nothing was loaded.",
            )
        self._finalizer = weakref.finalize(self, child.end)
        self.bytes = msgspec.msgpack.decode(body, type=frames.Ready).bytes
        self.start_s = monotonic() - before
        return child

    def _end(self) -> None:
        if self._child is not None:
            self._child = None
            self._finalizer()


def died_twice(on: str) -> ChildUnavailable:
    """The error for a child that died, was started again, was asked the same and died. on: of what, and how."""
    return ChildUnavailable(
        f"the process that scores for this release died twice {on}.",
        next="Ask again with other rows; if it goes on, deploy a release that answers with ONNX.",
        state="No score was given; the process is started again.",
    )


class _Child:
    """A started child, its socket, the pipe that tells it that we live, and what it said on stderr."""

    def __init__(self, threads: int) -> None:
        import seatrial

        folder = str(Path(seatrial.__file__).parent.parent)
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._life = write
        self.link = ours
        code = (
            f"import sys; sys.path.append({folder!r}); from seatrial.releases.child import main; "
            f"main({theirs.fileno()}, {read})"
        )
        try:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                pass_fds=(theirs.fileno(), read),
                env=_environment(threads),
            )
        except OSError as error:
            self._close()
            raise ChildUnavailable(f"no process can be started: {error}.", state="Nothing was loaded.") from None
        finally:
            theirs.close()
            os.close(read)

    def last_words(self) -> str:
        """How it ended and the last line that it said; empty while it runs and said nothing."""
        try:
            code = self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return ""
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - 2000))
        lines = self._said.read().decode(errors="replace").split("\n")
        last = next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{how}{': ' if last else ''}{last}"

    def end(self) -> None:
        """Kill it, if it still runs, and take it away. It has nothing to save."""
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        self.link.close()
        os.close(self._life)
        self._said.close()


class _Deadline:
    """Seconds left; raises TimeoutError when there are none."""

    def __init__(self, seconds: float) -> None:
        self._end = monotonic() + seconds

    def __call__(self) -> float:
        left = self._end - monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _environment(threads: int) -> dict[str, str]:
    """Variables for the child: no key, password or setting of ours is among them."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | dict.fromkeys(THREADS, str(threads)) | {"GOMP_SPINCOUNT": "1000", "PYTHONDONTWRITEBYTECODE": "1"}
