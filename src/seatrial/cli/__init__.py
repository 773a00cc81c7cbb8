"""The command line: what does `seatrial WORDS...` do, what does it print, and with what code does it end?

A door onto the verbs of `Project`, without logic of its own. The first page of help and the version are
answered here from plain text; everything else is parsed by click in `door`.
"""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


def main() -> None:
    """Run the command line of this process and end the process with its exit code."""
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # also while modules are still being loaded
        code = INTERRUPTED
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run `seatrial ARGUMENTS...`; returns the exit code."""
    from seatrial.cli import streams
    from seatrial.cli.catalogue import asks_for_first_page, first_page

    streams.open_closed()
    wanted = asks_for_first_page(arguments)
    if wanted:
        try:
            with streams.answering():
                sys.stdout.write(first_page(everything=wanted == "all"))
        except streams.StdoutFull as error:
            from seatrial.cli import door

            return door.ended(error)
        return 0
    from seatrial.cli import door

    return door.run(arguments)
