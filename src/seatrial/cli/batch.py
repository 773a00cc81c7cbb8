"""`seatrial predict --batch` and `--stream`: their options, what goes with what, and what is shown of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from seatrial.cli import talk
from seatrial.cli.door import BadCommandLine, Invocation

if TYPE_CHECKING:
    from seatrial.cli.render import Block, Plain
    from seatrial.serving.doors.stream import StreamAnswered

Function = TypeVar("Function", bound=Callable[..., Any])

OPTIONS = (
    click.option(
        "--to",
        multiple=True,
        metavar="OUTPUT",
        help="With --stream: a stream. With --batch: out.parquet, a folder, delta:FOLDER, "
        "postgresql://HOST/DB?table=NAME, sqlite:///PATH?table=NAME, or `online`; may be given several times.",
    ),
    click.option("--release", "release", metavar="ID", help="With --batch: the release (default: the live one)."),
    click.option(
        "--keep",
        metavar="A,B,C",
        callback=lambda _context, _option, value: [one.strip() for one in value.split(",")] if value else None,
        help="With --batch: columns beside the answers; `all`, `none` (default: the model's key and instant).",
    ),
    click.option(
        "--set-aside",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="With --batch: a Parquet file for rows that have no answer, with the reason (default: refuse them).",
    ),
    click.option(
        "--by-day",
        default="",
        metavar="COLUMN",
        help="With --batch: divide a folder or Delta table by the day of this column.",
    ),
    click.option("--workers", type=click.IntRange(min=1), help="With --batch: processes (default: one for each core)."),
    click.option("--group", metavar="NAME", help="With --stream: consumers of one share its requests (seatrial)."),
    click.option("--until-empty", is_flag=True, help="With --stream: end when it has nothing more."),
    click.option("--log", is_flag=True, help="With --batch of files: keep each row in the prediction log as well."),
)


def batch_options(function: Function) -> Function:
    """Give a command the options of a batch."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


OF_STREAM = ("group", "until_empty")


def refuse_options(**how: Any) -> None:
    """Raise BadCommandLine when an option was given that belongs to a batch or a stream."""
    _refuse(how, (), "--batch or --stream")


def run(call: Invocation, model: str | None, batch: str, **how: Any) -> None:
    """Score what --batch names."""
    from seatrial.cli import outcome
    from seatrial.core.windows import Window
    from seatrial.verbs.batches import window_or_path

    how = _refuse(how, {*how} - {*OF_STREAM}, "--stream")
    with call.project() as project:
        asked = window_or_path(batch, project.now_us)
        if isinstance(asked, Window):
            _refuse(how, ("release", "to", "keep"), "--batch of files")
            with talk.Progress() as progress:
                scored = project.predict_batch(
                    model, asked, release=how["release"], to=how["to"], keep=how["keep"], progress=progress
                )
            call.answer(scored, outcome.scored)
            return
        if not how["to"]:
            raise BadCommandLine(
                "a batch of files needs --to, where its answers go.",
                expected="For example --to out.parquet.",
                state="Nothing was done.",
            )
        with talk.Progress() as progress:
            done = project.predict_files(model, asked, progress=progress, **how)
        call.answer(done, shown)


def answer(call: Invocation, model: str | None, stream: str, stopped: Callable[[], bool], **how: Any) -> None:
    """Answer --stream until it is to stop."""
    how = _refuse(how, ("to", *OF_STREAM), "--batch")
    if len(how["to"]) != 1:
        raise BadCommandLine(
            "--stream needs one --to, the stream that takes the answers.",
            expected="For example --to redis://127.0.0.1/0/predictions.",
            state="Nothing was done.",
        )
    talk.release()
    with call.project() as project, talk.TakingIn() as telling:
        done = project.predict_stream(
            model,
            stream,
            to=how["to"][0],
            group=how["group"] or "seatrial",
            until_empty=how["until_empty"],
            stopped=stopped,
            tell=partial(_told, telling),
        )
    call.answer(done, answered)


def _refuse(how: dict[str, Any], known: Collection[str], of: str) -> dict[str, Any]:
    """The options that are known. Raises BadCommandLine for another that was given, which goes with something else."""
    for name, value in how.items():
        if name not in known and value not in (None, "", (), False):
            raise BadCommandLine(
                f"--{name.replace('_', '-')} goes with {of}.",
                expected="For example `seatrial predict --batch rows.parquet --to out.parquet`.",
                state="Nothing was done.",
            )
    return {name: value for name, value in how.items() if name in known}


def _told(telling: talk.TakingIn, done: StreamAnswered) -> None:
    telling.line(f"{done.answered:,} answered, {done.refused:,} refused", done.lag, done.waiting)


def shown(done: Plain) -> list[Block]:
    """What came of a batch of files."""
    from seatrial.cli.render import Line

    rate = f", {done['scored'] / done['seconds']:,.0f} a second" if done["scored"] and done["seconds"] else ""
    blocks: list[Block] = [
        Line(f"{done['rows']:,} rows of '{done['model']}' answered in {done['seconds']:.1f} s{rate}", "bold"),
        *(Line(f"  in {one}") for one in done["to"]),
        Line(f"  by release {done['release']} (version {done['model_version']}), as of {done['predicted_at']}"),
    ]
    if done["batch"] is None:
        blocks.append(Line("  all of it was there already; nothing was scored"))
    elif done["scored"] < done["rows"] + sum(done["set_aside"].values()):
        blocks.append(Line(f"  {done['scored']:,} rows were scored now, the others by a call before"))
    for reason, rows in done["set_aside"].items():
        blocks.append(Line(f"  {rows:,} rows set aside: {reason}"))
    for name in done["changed"]:
        blocks.append(Line(f"  {name} changed since the batch was begun; it was scored again"))
    if done["logged"]:
        blocks.append(Line(f"  {done['logged']:,} rows are in the prediction log"))
    if done["batch"]:
        blocks.append(Line(f"  record {done['batch']}", "dim"))
    return blocks


def answered(done: Plain) -> list[Block]:
    """What came of a stream."""
    from seatrial.cli.render import Line

    blocks: list[Block] = [Line(f"{done['answered']:,} requests answered, {done['refused']:,} refused", "bold")]
    if done["again"]:
        blocks.append(Line(f"  {done['again']:,} of them were delivered again, and answered as they had been"))
    return blocks
