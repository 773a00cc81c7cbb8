"""Pages that a command writes beside what it prints."""

from __future__ import annotations

from pathlib import Path

from seatrial.cli import talk
from seatrial.core.errors import Failed


class PageUnwritable(Failed):
    """A page cannot be written where it was asked for."""

    code = "page.unwritable"


def write_page(path: Path, page: str) -> None:
    """Write a page, and say where it is. Raises PageUnwritable."""
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise PageUnwritable(
            f"the page {path} cannot be written: {error.strerror}.", state="What it shows was made nevertheless."
        ) from None
    talk.say(f"page written to {path}")
