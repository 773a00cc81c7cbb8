"""Streams: what becomes of a command whose stdout or stderr is closed, full, or no longer read?

A reader that has seen enough (`| head`), or that never was (`>&-`), is no failure: what was done stays done. A stdout
that is there and takes nothing (a full disk) is one, because an answer is lost that somebody waits for. Talk that
nobody can take is dropped, and changes nothing about how the command ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


class StdoutFull(OSError):
    """Stdout takes nothing: its disk is full or failing."""


def open_closed() -> None:
    """Give a closed stdin, stdout or stderr a place of its own: else the next file that is opened gets its number,
    and what a library writes there."""
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(number, True)
        os.close(number)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 (for the life of the process)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123


@contextmanager
def answering() -> Iterator[None]:
    """The block writes to stdout, and its last byte has left when the block ends.

    Raises StdoutFull when stdout is there and takes nothing.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
    except OSError as error:
        discard(sys.stdout)
        raise StdoutFull(*error.args) from None


def discard(stream: TextIO) -> None:
    """Let go of what the stream still holds and of all that will be written to it, so that ending cannot fail on it."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
