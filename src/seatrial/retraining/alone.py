"""Alone: of many that were told to train a model's challenger at the same moment, one does.

A lock of the operating system on a file: it ends with the process that holds it, however that ends, and knows no clock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from seatrial.retraining.refusals import Training


@contextmanager
def alone(folder: Path, model: str) -> Iterator[None]:
    """Be the only one on this host that trains the model's challenger. Raises Training."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{quote(model, safe='')}.train").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise Training(
                f"the challenger of '{model}' is being trained" + (f" by process {holder}." if holder else "."),
                state="Nothing was trained by this call.",
                next=f"Look at `seatrial proposals list {model}` when it is done.",
            ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield
