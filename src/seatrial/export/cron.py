"""A crontab of what is declared: a line for each timing, in which one verb follows the other."""

from __future__ import annotations

import shlex
import sys
import sysconfig
from collections.abc import Sequence
from math import gcd
from pathlib import Path

from seatrial.core.errors import UsageError, listed
from seatrial.core.timing import UTC_NAME, Timing
from seatrial.core.windows import duration_us
from seatrial.export.build_folder import write_files
from seatrial.export.tasks import PROGRAM, NothingToExport, Pipeline, Task, head

NAME = "seatrial.crontab"
_MINUTE_US = 60_000_000
_DAY_MINUTES = 1440


def export(
    pipelines: Sequence[Pipeline],
    folder: Path,
    *,
    place: str,
    program: str = PROGRAM,
    variables: Sequence[str] = (),
) -> list[str]:
    """Write the crontab and how to use it; the names of the files, sorted.

    place: the project's folder. folder: is made; when it exists it must be empty. program: how a shell without a PATH
    calls seatrial, see `running`. variables: names of those that the project's settings take from the environment.
    Raises NothingToExport, UsageError, FolderNotEmpty, CannotWrite.
    """
    files = {NAME: crontab(pipelines, place=place, program=program), "README.md": _readme(program, variables)}
    return write_files(folder, {file: text.encode() for file, text in files.items()})


def running() -> str:
    """The seatrial that runs here, as a shell finds it without a PATH: cron has /usr/bin and /bin, and no venv."""
    beside = Path(sysconfig.get_path("scripts")) / PROGRAM
    return shlex.quote(str(beside)) if beside.is_file() else f"{shlex.quote(sys.executable)} -m seatrial"


def crontab(pipelines: Sequence[Pipeline], *, place: str, program: str = PROGRAM) -> str:
    """The text of the crontab.

    Raises NothingToExport when nothing has a timing, UsageError for a folder that no line of a crontab can name.
    """
    if not place.isprintable():  # a line end would begin a line of its own: quotes do not hold it
        raise UsageError(
            f"the folder {place!r} cannot stand in a crontab.",
            expected="A path without line ends and control characters is expected.",
            state="Nothing was written.",
        )
    timed = [one for one in pipelines if one.timing is not None]
    if not timed:
        raise NothingToExport(
            "no schedule is declared, so there is nothing for a crontab.",
            expected='Declare one: Schedule("monitor", "MODEL", every="1h").',
            state="Nothing was written.",
        )
    lines = [head("cron").rstrip(), "# Install: crontab seatrial.crontab"]
    for one in timed:
        assert one.timing is not None
        zone = one.timing.timezone if one.timing.cron else UTC_NAME
        lines += ["", f"# {one.about}", f"CRON_TZ={zone}", f"{fields(one.timing)} {_line(one.tasks, place, program)}"]
    return "\n".join(lines) + "\n"


def fields(timing: Timing) -> str:
    """The five fields that come at least once for each instant of a timing. Where cron has no fields that come exactly
    then, the command is called more often, and has nothing to do in between."""
    if timing.cron:
        return timing.cron
    minutes, rest = divmod(duration_us(timing.every), _MINUTE_US)
    if rest or not minutes:
        return "* * * * *"
    if minutes % (7 * _DAY_MINUTES) == 0:
        return "0 0 * * 4"  # 1 January 1970 was a Thursday
    if minutes % _DAY_MINUTES == 0:
        return "0 0 * * *"
    if minutes % 60 == 0:
        hours = gcd(minutes // 60, 24)
        return f"0 */{hours} * * *" if hours > 1 else "0 * * * *"
    step = gcd(minutes, 60)
    return f"*/{step} * * * *" if step > 1 else "* * * * *"


def _line(tasks: Sequence[Task], place: str, program: str) -> str:
    """One line for a shell, one task after the other; one that waits for others is left out unless they ended well."""
    numbers = {task.name: number for number, task in enumerate(tasks)}
    steps = []
    for task in tasks:
        call = f"{program} {' '.join(shlex.quote(word) for word in task.words)}"
        waits = [f'[ "$r{numbers[name]}" = 0 ]' for name in task.after]
        kept = f"; r{numbers[task.name]}=$?" if len(tasks) > 1 else ""
        steps.append(f"{' && '.join([*waits, call])}{kept};")
    return f"cd {shlex.quote(place)} && {{ {' '.join(steps)} }}".replace("%", r"\%")  # a bare % ends the line


def _readme(program: str, variables: Sequence[str]) -> str:
    named = f" This project's settings take {listed(variables)} from there." if variables else ""
    return f"""\
# A crontab

    crontab {NAME}        # replaces this user's; or append it to what `crontab -l` shows

Each line calls `seatrial schedules run NAME`, one after the other where they have the same timing; what follows from a
task that did not end well is left out. Called twice for one instant a schedule runs once, so a line may come too often.

Each line calls `{program}`, the seatrial that wrote it: cron's PATH is short. Export again where it lies elsewhere.
Cron gives its commands nearly nothing of your environment.{named} Write what is needed above the lines, as
`NAME=value`: such as SEATRIAL_ENV, and what `seatrial.toml` and `project.py` read. What a line prints comes by mail, if
the machine has any; `>> cron.log 2>&1` at its end keeps it.

CRON_TZ is understood by cronie (Fedora, RHEL, Arch and others). Debian's cron reads times in the machine's zone: there
a line comes at that hour of the machine, and runs for the last instant before. For exact times in another zone use
`seatrial up`, or a systemd timer.
"""
