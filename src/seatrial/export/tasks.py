"""Tasks for another scheduler: one for each verb, in the order of the path, and nothing that decides.

A pipeline is either what is declared to run at one timing, or the path from raw data to a release, which somebody
starts by hand. A declared schedule becomes `seatrial schedules run NAME`: it runs once for an instant however often it
is called, obeys pauses, and is in `seatrial schedules history`, beside `seatrial up` or instead of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from seatrial.core.errors import UsageError
from seatrial.core.timing import Timing

PROGRAM = "seatrial"


class NothingToExport(UsageError):
    """The project declares nothing that could be a task."""

    code = "export.nothing_to_export"


@dataclass(frozen=True)
class Task:
    """One call of the program.

    words: after `seatrial`. scheduled: they run a schedule, and take `--slot` with the instant that is meant.
    after: names of tasks of the same pipeline that must have ended well before. timeout_us, retries, back_off_us: as
    declared.
    """

    name: str
    words: tuple[str, ...]
    after: tuple[str, ...] = ()
    scheduled: bool = False
    timeout_us: int = 6 * 3_600_000_000
    retries: int = 0
    back_off_us: int = 60_000_000

    @property
    def identifier(self) -> str:
        """A name that Python takes."""
        return identifier(self.name)


@dataclass(frozen=True)
class Pipeline:
    """Tasks that are started together. timing: None: by hand. about: one line."""

    name: str
    tasks: Sequence[Task]
    about: str
    timing: Timing | None = None

    @property
    def identifier(self) -> str:
        """A name that Python takes."""
        return identifier(self.name)

    def of_environment(self, env: str) -> Pipeline:
        """The same in another environment of seatrial.toml."""
        tasks = [replace(one, words=(*one.words, "--env", env)) for one in self.tasks]
        return replace(self, name=f"{self.name}-{slug(env)}", tasks=tasks)


def path(model: str, *, project: str, views: bool) -> Pipeline:
    """From raw data to a release of a model. views: it has features that are kept online."""
    words = [("validate",), ("snapshot",), *([("materialize",)] if views else []), ("train", model), ("release", model)]
    names = [one[0] for one in words]
    tasks = [
        Task(name, one, after=tuple(names[number - 1 : number]))
        for number, (name, one) in enumerate(zip(names, words, strict=True))
    ]
    about = f"From raw data to a release of '{model}'; started by hand. What goes live is decided by a person."
    return Pipeline(f"{slug(project)}-{slug(model)}-release", tasks, about)


def identifier(name: str) -> str:
    """A name that Python takes: letters, digits and underscores, not beginning with a digit, no keyword."""
    from keyword import iskeyword

    found = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{found}" if found[:1].isdigit() or iskeyword(found) or not found else found


def slug(name: str) -> str:
    """A name that every scheduler takes: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "project"


def timing_slug(timing: Timing) -> str:
    """A timing as a part of a name."""
    if timing.every:
        return f"every-{timing.every}"
    stars = timing.cron.lower().replace("*", "x")
    return slug(f"at {stars} {timing.timezone if timing.timezone != 'UTC' else ''}")


def head(form: str, comment: str = "#") -> str:
    """The first line of a file that is written."""
    return f"{comment} Written by `seatrial export {form}`; written again when a schedule changes.\n"
