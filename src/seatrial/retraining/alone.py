"""Alone: of many that were told to train a model's challenger at the same moment, one does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

from seatrial.retraining.refusals import Training
from seatrial.stores.held import HeldByAnother, held


@contextmanager
def alone(folder: Path, model: str) -> Iterator[None]:
    """Be the only one on this host that trains the model's challenger. Raises Training."""
    with ExitStack() as having:
        try:
            having.enter_context(held(folder / f"{quote(model, safe='')}.train"))
        except HeldByAnother as other:
            raise Training(
                f"the challenger of '{model}' is being trained"
                + (f" by process {other.holder}." if other.holder else "."),
                state="Nothing was trained by this call.",
                next=f"Look at `seatrial proposals list {model}` when it is done.",
            ) from None
        yield
