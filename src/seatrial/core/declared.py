"""What a project file declares: objects that announce themselves while the file is being read.

`Model(...)`, `Deployment(...)` and feature views need not be assigned to a name to count. While a project
file is loaded, `collecting()` holds an open list; each declaration adds itself. Outside of loading (a
notebook, a test) declaring does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_open: ContextVar[list[object] | None] = ContextVar("seatrial_declared", default=None)


@contextmanager
def collecting() -> Iterator[list[object]]:
    """A list that receives every object declared inside the block, in order."""
    declared: list[object] = []
    token = _open.set(declared)
    try:
        yield declared
    finally:
        _open.reset(token)


def declare(thing: object) -> None:
    """Announce `thing` to the project file that is being loaded, if any."""
    declared = _open.get()
    if declared is not None:
        declared.append(thing)
