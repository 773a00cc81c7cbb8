"""`seatrial predict --batch`: its options, what they may not be combined with, and what is shown of a batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from seatrial.cli import talk
from seatrial.cli.door import BadCommandLine, Invocation

if TYPE_CHECKING:
    from seatrial.cli.render import Block, Plain

Function = TypeVar("Function", bound=Callable[..., Any])

OPTIONS = (
    click.option(
        "--to",
        multiple=True,
        metavar="OUTPUT",
        help="With --batch: out.parquet, a folder, delta:FOLDER, postgresql://HOST/DB?table=NAME, "
        "sqlite:///PATH?table=NAME, or `online`; may be given several times.",
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
    click.option("--log", is_flag=True, help="With --batch of files: keep each row in the prediction log as well."),
)


def batch_options(function: Function) -> Function:
    """Give a command the options of a batch."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def refuse_options(**how: Any) -> None:
    """Raise BadCommandLine when an option of a batch was given without one."""
    given = [name for name, value in how.items() if value not in (None, "", (), False)]
    if given:
        raise BadCommandLine(
            f"--{given[0].replace('_', '-')} needs --batch.",
            expected="For example `seatrial predict --batch rows.parquet --to out.parquet`.",
            state="Nothing was done.",
        )


def run(call: Invocation, model: str | None, batch: str, *, to: tuple[str, ...], **how: Any) -> None:
    """Score what --batch names."""
    from seatrial.cli import outcome
    from seatrial.core.windows import Window
    from seatrial.verbs.batches import window_or_path

    with call.project() as project:
        asked = window_or_path(batch, project.now_us)
        if isinstance(asked, Window):
            with talk.Progress() as progress:
                scored = project.predict_batch(model, asked, release=how.pop("release"), progress=progress)
            call.answer(scored, outcome.scored)
            return
        if not to:
            raise BadCommandLine(
                "a batch of files needs --to, where its answers go.",
                expected="For example --to out.parquet.",
                state="Nothing was done.",
            )
        with talk.Progress() as progress:
            done = project.predict_files(model, asked, to=to, progress=progress, **how)
        call.answer(done, shown)


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
