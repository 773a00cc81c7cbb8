"""The command line: what does `seatrial WORDS...` do, what does it print, and with what code does it end?

A door onto the verbs of `Project`, without logic of its own. The first page of help and the version are
answered here from plain text; everything else is parsed by click in `door`.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process and end the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run `seatrial ARGUMENTS...`; returns the exit code."""
    from seatrial.cli.catalogue import asks_for_first_page, first_page

    wanted = asks_for_first_page(arguments)
    if wanted:
        sys.stdout.write(first_page(everything=wanted == "all"))
        return 0
    from seatrial.cli import door

    return door.run(arguments)
