"""The door: from words on the command line to a verb of the project, and back to text and an exit code.

Global options may stand before or after the command. Stdout is data, stderr is talk; with --json stdout is
exactly one JSON document, and a problem is one on stderr. The exit code is the error's own (`core.errors`).
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from seatrial.cli import INTERRUPTED, catalogue, streams, talk
from seatrial.core.errors import NotInThisVersion, SeatrialError, Unavailable, UsageError, did_you_mean

if TYPE_CHECKING:
    from seatrial.cli.render import Block
    from seatrial.core.windows import Window
    from seatrial.project import Project


_CLAUSE_END = re.compile(r"[:;] ")


class BadCommandLine(UsageError):
    """The words do not fit the command: a missing argument, an option that it does not have."""

    code = "usage.command_line"


class UnknownCommand(UsageError):
    """No command has this name."""

    code = "usage.unknown_command"


class OutputUnwritable(Unavailable):
    """The answer could not be written to stdout."""

    code = "output.unwritable"


class InternalError(SeatrialError):
    """Something that should not happen, and that is not the caller's fault."""

    code = "internal"


class Invocation:
    """What the global options of one command line say.

    project_folder: where the project is. at: the time it is for the project, aware; None: the machine's.
    """

    def __init__(self) -> None:
        self.project_folder = "."
        self.env: str | None = None
        self.actor: str | None = None
        self.at: datetime | None = None
        self.json = False
        self.debug = False

    @contextmanager
    def project(self) -> Iterator[Project]:
        """The project, open for one verb."""
        from seatrial.core.clock import FixedClock
        from seatrial.project import Project

        clock = FixedClock(self.at) if self.at else None
        with Project(self.project_folder, clock=clock, env=self.env, actor=self.actor) as project:
            yield project

    def answer(self, result: Any, shown: Callable[[Any], Sequence[Block]]) -> None:
        """Print the result: `shown` turns its plain form into text, --json prints the plain form itself."""
        from seatrial.cli import render

        plain = render.plain(result)
        blocks = [] if self.json else shown(plain)
        with streams.answering():
            if self.json:
                render.write_json(plain)
            else:
                render.write(blocks)


def as_time(_ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """The value of an option that is a time: ISO 8601 with a zone. For `click.option(callback=)`."""
    from seatrial.core.clock import parse_time

    return None if value is None else parse_time(value, name=f"--{param.name}")


def as_start(_ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """The value of an option that is one end of a stretch of time: as `as_time`; a bare date is midnight UTC."""
    from seatrial.core.clock import parse_time

    if value is None:
        return None
    bare = re.fullmatch(r"\d{4}-\d{2}-\d{2}", value.strip())
    return parse_time(f"{value.strip()}T00:00:00Z" if bare else value, name=f"--{param.name}")


def as_window(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Window | None:
    """The value of an option that is a window START/END; a bare date is midnight UTC."""
    from seatrial.core.windows import parse_window

    return None if value is None else parse_window(value)


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value not in (None, False):
        setattr(ctx.ensure_object(Invocation), str(param.name), value)


def _keep_time(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    _keep(ctx, param, as_time(ctx, param, value))


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        from seatrial import __version__
        from seatrial.cli.render import lines

        ctx.ensure_object(Invocation).answer({"version": __version__}, lambda _: lines([f"seatrial {__version__}"]))
        ctx.exit()


def _print_help(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        with streams.answering():
            sys.stdout.write(f"{ctx.get_help()}\n")
        ctx.exit()


class _Helping(click.Command):
    """A command whose help is an answer like any other: click's own ends with 1 when its reader stops reading."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = _print_help
        return option


def _global(*names: str, **settings: Any) -> click.Option:
    settings = {"callback": _keep} | settings
    return click.Option([*names], expose_value=False, hidden=True, **settings)


# Shared by every command, so that they may stand anywhere. Hidden: one line below each help names them.
GLOBAL_OPTIONS = (
    _global("--project", "project_folder", metavar="DIR", type=click.Path()),
    _global("--env", metavar="NAME"),
    _global("--actor", metavar="NAME"),
    _global("--at", metavar="TIME", callback=_keep_time),
    _global("--json", is_flag=True),
    _global("--debug", is_flag=True),
)
GLOBAL_HELP = "Anywhere: --project DIR, --env NAME, --actor NAME, --at TIME, --json, --debug (see seatrial --help)."


class Verb(_Helping):
    """A command that takes the global options beside its own."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *GLOBAL_OPTIONS]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text(GLOBAL_HELP)


class Noun(_Helping, click.Group):
    """A group of commands about one kind of thing. Without a word of its own it lists."""

    command_class = Verb

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(name, invoke_without_command=True, callback=self._list, **settings)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *GLOBAL_OPTIONS]

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each command with the first clause of its help, whole: wrapped, never cut as click would."""
        clauses = [_CLAUSE_END.split(one.get_short_help_str(limit=1000))[0] for one in self.commands.values()]
        with formatter.section("Commands"):
            formatter.write_dl([*zip(self.commands, (one.rstrip(".") for one in clauses), strict=True)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands:
            raise _unknown(f"seatrial {self.name}", args[0], list(self.commands))
        return super().resolve_command(ctx, args)

    def _list(self) -> None:
        ctx = click.get_current_context()
        if ctx.invoked_subcommand is None:
            if "list" not in self.commands:
                raise BadCommandLine(
                    f"`seatrial {self.name}` needs one more word.",
                    expected=f"One of {', '.join(self.commands)}.",
                    state="Nothing was done.",
                )
            ctx.invoke(self.commands["list"])


class Root(_Helping, click.Group):
    """`seatrial` itself: finds commands by name and loads them when they are named."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *GLOBAL_OPTIONS]

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return [*catalogue.all_verbs(), *(name for name, _ in catalogue.NOUNS)]

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        from seatrial.cli import (  # noqa: F401  their verbs and nouns register themselves
            alerting,
            exports,
            feature_quality,
            feature_rows,
            predictions,
            registry,
            runs,
            schedules,
            steering,
            up,
        )
        from seatrial.cli.nouns import NOUNS
        from seatrial.cli.verbs import VERBS

        if name in dict(catalogue.LATER):
            return _later(name)
        return VERBS.get(name) or NOUNS.get(name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            raise _unknown("seatrial", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)

    def get_help(self, _ctx: click.Context) -> str:
        return catalogue.first_page(everything=False).rstrip()


root = Root(
    "seatrial",
    no_args_is_help=False,
    params=[click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_print_version)],
    context_settings={"help_option_names": ["--help", "-h"]},
)


def run(arguments: list[str]) -> int:
    """Run `seatrial ARGUMENTS...`; returns the exit code and never raises."""
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    as_json, debug = "--json" in arguments, "--debug" in arguments  # also when the rest cannot be parsed
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without ✓ gets a ?, not a failure
    call = Invocation()
    call.json = as_json
    with warnings.catch_warnings(), talk.held(as_json) as notes:
        warnings.showwarning = talk.warned
        try:
            code = root.main(arguments, prog_name="seatrial", standalone_mode=False, obj=call)
            with streams.answering():  # what a verb printed by itself
                return code if isinstance(code, int) else 0
        except (click.Abort, KeyboardInterrupt):
            return INTERRUPTED
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else 1
        except Exception as error:
            if _interrupted(error):
                return INTERRUPTED
            return ended(error, as_json=as_json, debug=debug, notes=notes.take())


def ended(error: Exception, *, as_json: bool = False, debug: bool = False, notes: Sequence[str] = ()) -> int:
    """Tell why a command failed; the exit code."""
    if debug:
        import traceback

        talk.say("".join(traceback.format_exception(error)).rstrip())
    explained = _explained(error)
    talk.problem(explained, as_json=as_json, notes=notes)
    return explained.exit_code


def _interrupted(error: BaseException) -> bool:
    """Whether it came of Ctrl-C: a library whose import was interrupted may raise an error of its own."""
    seen: list[BaseException | None] = [error]
    while seen[-1] is not None and len(seen) < 50:
        if isinstance(seen[-1], KeyboardInterrupt):
            return True
        seen.append(seen[-1].__cause__ or seen[-1].__context__)
    return False


def _explained(error: Exception) -> SeatrialError:
    """The error as one of ours."""
    if isinstance(error, SeatrialError):
        return error
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "seatrial"
        return BadCommandLine(f"{error.format_message()}", next=f"See `{command} --help`.", state="Nothing was done.")
    if isinstance(error, click.ClickException):
        return BadCommandLine(error.format_message(), state="Nothing was done.")
    if isinstance(error, streams.StdoutFull):
        return OutputUnwritable(
            f"stdout does not take the answer: {error.strerror}.",
            state="The command did its work; only its answer is lost.",
            next="Make room where stdout goes to, or send it elsewhere; `seatrial status` says how things are.",
        )
    return InternalError(
        f"{type(error).__name__}: {error}.",
        expected="This is a defect of seatrial, please report it; --debug shows the traceback.",
        state="What was complete before is kept.",
    )


def _unknown(before: str, name: str, known: list[str]) -> UnknownCommand:
    near = did_you_mean(name, known)
    return UnknownCommand(
        f"`{before} {name}` is not a command.",
        expected=near if near else f"`{before} --help` lists them." if before != "seatrial" else "",
        next="`seatrial --help --all` lists every command.",
        state="Nothing was done.",
    )


def _later(name: str) -> click.Command:
    def refuse(words: tuple[str, ...]) -> None:
        del words
        raise NotInThisVersion(
            f"`seatrial {name}` is not in this version.",
            expected=_INSTEAD.get(name, "It is planned."),
            next="`seatrial --help --all` lists what is.",
            state="Nothing was done.",
        )

    return Verb(
        name,
        callback=refuse,
        help=f"{catalogue.purpose(name)}. Not in this version.",
        params=[click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
    )


_INSTEAD = {
    "rollback": "To return to an earlier release: `seatrial deploy MODEL --release ID --reason TEXT`.",
    "promote": "`seatrial deploy MODEL --release ID` sends all traffic to a release.",
    "explain": "`seatrial lineage ID` shows what a prediction came from.",
}
