"""The controller: who looks at a rollout every so often, until it is over?

Whatever decides takes the deployment's head by compare-and-swap, so two controllers never take one step twice. The
lease only keeps a second one from looking in vain. It is a lock of the operating system on a file: it ends with the
process that holds it, however that ends, and knows no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from seatrial.core.errors import Conflict, SeatrialError, Unavailable, UsageError
from seatrial.core.windows import duration_us
from seatrial.deployment.rollout import NoRollout
from seatrial.stores.held import HeldByAnother, held
from seatrial.stores.metadata import HeadMoved, MetadataUnreachable
from seatrial.stores.pauses import Paused

SHORTEST_US = 1_000_000

Look = TypeVar("Look")


class Watched(Conflict):
    """Another process looks at this rollout already."""

    code = "rollout.watched"


class BadPace(UsageError):
    """A rollout is to be looked at too often."""

    code = "rollout.bad_pace"


def pace(every: str) -> float:
    """Seconds between two looks. Raises BadDuration, and BadPace for less than a second."""
    length = duration_us(every)
    if length < SHORTEST_US:
        raise BadPace(f"the rollout is to be looked at every {every}.", expected="At least 1s is expected.")
    return length / 1_000_000


@contextmanager
def lease(folder: Path, deployment: str) -> Iterator[None]:
    """Be the only process of this host that watches the deployment's rollout. Raises Watched."""
    with ExitStack() as having:
        try:
            having.enter_context(held(folder / f"{quote(deployment, safe='')}.watch"))
        except HeldByAnother as other:
            raise Watched(
                f"the rollout of '{deployment}' is watched already"
                + (f", by process {other.holder}." if other.holder else "."),
                state="Nothing was changed.",
                next=f"Look at it with `seatrial deployments status {deployment}`, or end that process first.",
            ) from None
        yield


def watch(
    look: Callable[[], Look],
    *,
    over: Callable[[Look], bool],
    every: float,
    wait: Callable[[float], bool],
    missed: Callable[[SeatrialError], None],
) -> Look | None:
    """Look until it is over; the last look, or None when there was none.

    look: judges the rollout and does what the verdict says. over: whether that was the end of it.
    every: seconds between two looks. wait: waits for so long; False when no more looks are wanted.
    missed: told of a look that could not be taken: a store was away, somebody paused it, or decided meanwhile. The
    next one finds out; when it finds no rollout any more, somebody ended it. Whatever else is wrong is raised.
    """
    last: Look | None = None
    while True:
        try:
            last = look()
        except (Unavailable, HeadMoved, MetadataUnreachable, Paused) as error:
            missed(error)
        except NoRollout as error:
            if last is None:
                raise
            missed(error)
            return last
        else:
            if over(last):
                return last
        if not wait(every):
            return last
