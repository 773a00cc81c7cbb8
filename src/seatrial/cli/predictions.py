"""The noun `predictions`: what the prediction log holds, ships and lets go of."""

from __future__ import annotations

from typing import Any

import click

from seatrial.cli.door import Invocation
from seatrial.cli.nouns import NOUNS
from seatrial.cli.render import Block, Line, Plain, Table


@NOUNS["predictions"].command("list")
@click.pass_obj
def predictions_list(call: Invocation) -> None:
    """List what the prediction log holds, by model and day, and how much of it the object store has."""
    with call.project() as project:
        call.answer(project.predictions(), listed)


@NOUNS["predictions"].command("show")
@click.argument("id")
@click.pass_obj
def predictions_show(call: Invocation, id: str) -> None:
    """Show every column of a prediction, or of all of a request. The audit log is told who looked."""
    with call.project() as project:
        call.answer(project.prediction_show(id), shown)


@NOUNS["predictions"].command("ship")
@click.pass_obj
def predictions_ship(call: Invocation) -> None:
    """Compact what is closed and bring it to the object store now. A running `seatrial serve` does so by itself."""
    with call.project() as project:
        call.answer(project.predictions_ship(), shipped)


@NOUNS["predictions"].command("prune")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.pass_obj
def predictions_prune(call: Invocation, dry_run: bool) -> None:
    """Take away the days that are older than log_retention, here and in the object store, and never what is not
    shipped. A running `seatrial serve` does so every hour. The audit log is told."""
    with call.project() as project:
        call.answer(project.predictions_prune(dry_run=dry_run), pruned)


def listed(thing: Plain) -> list[Block]:
    blocks: list[Block] = [_days(thing["days"])] if thing["days"] else []
    if thing["fresh"]:
        blocks.append(Line(f"{thing['fresh']:,} records are not compacted yet"))
    elif not thing["days"]:
        blocks.append(Line("nothing was predicted yet"))
    if thing["unshipped"]:
        blocks.append(Line(f"{thing['unshipped']:,} records are not shipped yet: seatrial predictions ship"))
    if thing["unlogged"]:
        blocks.append(Line(f"{thing['unlogged']:,} rows were answered while the log took nothing", "red"))
    blocks.append(Line(f"kept for {thing['retention']}" if thing["retention"] else "kept for ever", "dim"))
    return blocks


def shown(rows: list[Plain]) -> list[Block]:
    blocks: list[Block] = []
    for row in rows:
        blocks.append(Line(f"prediction {row['prediction_id']}", "bold"))
        blocks += [Line(f"  {name:<30} {_text(value)}") for name, value in row.items() if name != "prediction_id"]
    return blocks


def shipped(thing: Plain) -> list[Block]:
    blocks: list[Block] = [
        Line(f"{thing['records']:,} records shipped in {thing['batches']:,} batches, {thing['bytes']:,} bytes", "bold")
    ]
    if thing["unshipped"]:
        blocks.append(Line(f"{thing['unshipped']:,} are not: a running service still appends to their files"))
    return blocks


def pruned(thing: Plain) -> list[Block]:
    words = "would be removed" if thing["dry_run"] else "were removed"
    head = f"{thing['records']:,} records in {thing['files']:,} files {words}: older than {thing['retention']}"
    return [Line(head, "bold"), *([_days(thing["days"])] if thing["days"] else [])]


def _days(days: list[Plain]) -> Table:
    rows: list[list[Any]] = [
        [one["model"], one["day"], one["records"], one["shipped"], one["files"], one["bytes"]] for one in days
    ]
    return Table(["model", "day", "records", "shipped", "files", "bytes"], rows)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
