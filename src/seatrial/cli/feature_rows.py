"""Commands that give features to entities and rows, and how their answers look: get, join, lookup."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from seatrial.cli import talk
from seatrial.cli.door import BadCommandLine, Invocation
from seatrial.cli.nouns import NOUNS
from seatrial.cli.render import Block, Line, Plain, details, listing

if TYPE_CHECKING:
    import pyarrow as pa

MOST_SHOWN = 20


@NOUNS["features"].command("get")
@click.argument("words", nargs=-1, required=True, metavar="VIEW [VIEW ...] KEY=VALUE ...")
@click.pass_obj
def features_get(call: Invocation, words: tuple[str, ...]) -> None:
    """Show what is online of one entity of VIEW: its features, their status and their age, as of now or --at.

    Several views are looked up in one round trip; each takes those of the keys that are its own."""
    views = [word for word in words if "=" not in word]
    pairs = [word.partition("=")[::2] for word in words if "=" in word]
    if not views or not pairs:
        raise BadCommandLine(
            "an entity is named by KEY=VALUE, after its view.", expected="For example carrier_delay carrier=UA."
        )
    twice = [key for key, _ in pairs if [one for one, _ in pairs].count(key) > 1]
    if twice:
        raise BadCommandLine(f"key '{twice[0]}' is given twice.", expected="One value for each key is expected.")
    with call.project() as project:
        if len(views) == 1:
            call.answer(project.feature_get(views[0], dict(pairs)), looked_up)
        else:
            call.answer(project.feature_get(views, dict(pairs)), several_looked_up)


@NOUNS["features"].command("join")
@click.argument("rows", type=click.Path(exists=True, dir_okay=False))
@click.option("--view", "views", multiple=True, metavar="VIEW", help="A view to join (default: all). May be repeated.")
@click.option("--model", metavar="MODEL", help="Join what MODEL learns from: views and request-time functions.")
@click.option(
    "--instant", default="at", show_default=True, metavar="COLUMN", help="The column with each row's instant."
)
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False), metavar="FILE", help=".parquet or .csv to write."
)
@click.option("--engine", type=click.Choice(["local", "spark"]), help="Where rows are joined (default: the settings').")
@click.pass_obj
def features_join(
    call: Invocation,
    rows: str,
    views: tuple[str, ...],
    model: str | None,
    instant: str,
    out: str,
    engine: Literal["local", "spark"] | None,
) -> None:
    """Join ROWS (.parquet, .csv, .jsonl) with features, each as it was known at the row's own instant.

    Every row comes back in its place, with a column VIEW__FEATURE for each feature."""
    from seatrial.data.sources import ColumnMissing

    with call.project() as project:
        try:
            with talk.Progress() as progress:
                joined = project.feature_join(
                    rows, views, model=model, at=instant, engine=engine, out=out, progress=progress
                )
        except ColumnMissing as error:
            if error.facts.get("source") == "rows" and error.facts.get("column") == instant:
                error.next = "Name the column with each row's instant: --instant COLUMN."
            raise
        call.answer({"rows": joined.num_rows, "columns": joined.column_names, "file": out}, details)


@NOUNS["features"].command("lookup")
@click.argument("rows", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--view", "views", multiple=True, metavar="VIEW", help="A view to look up (default: all). May be repeated."
)
@click.option("--model", metavar="MODEL", help="Look up what MODEL is asked with: views and request-time functions.")
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help=".parquet or .csv to write.")
@click.pass_obj
def features_lookup(call: Invocation, rows: str, views: tuple[str, ...], model: str | None, out: str | None) -> None:
    """Look up the entities of ROWS (.parquet, .csv, .jsonl) online, as of now or --at.

    Every row comes back in its place, with a column VIEW__FEATURE for each feature and a VIEW__status. Without --out
    the rows are shown."""
    from seatrial.verbs.feature_rows import write

    with call.project() as project:
        found = project.feature_lookup(rows, views, model=model)
    if out is not None:
        write(found, Path(out))
        call.answer({"rows": found.num_rows, "columns": found.column_names, "file": out}, details)
    else:
        call.answer(_plain(found), rows_shown)


def _plain(table: pa.Table) -> list[dict[str, Any]]:
    from seatrial.core.clock import as_utc, iso

    found = table.to_pylist()
    return [
        {name: iso(as_utc(one)) if getattr(one, "tzinfo", None) else one for name, one in row.items()} for row in found
    ]


def rows_shown(rows: Sequence[Plain]) -> list[Block]:
    """The first rows as a table."""
    blocks = listing(list(rows[:MOST_SHOWN]), next="seatrial materialize")
    more = len(rows) - MOST_SHOWN
    return [*blocks, Line(f"{more:,} more rows: --out FILE, or --json", "dim")] if more > 0 else blocks


def looked_up(thing: Plain) -> list[Block]:
    """One view of one entity; its age also in words."""
    age = thing["age_seconds"]
    return details(thing if age is None else {**thing, "age_seconds": f"{age:,.0f} ({age_words(age)})"})


def several_looked_up(things: list[Plain]) -> list[Block]:
    """One view after the other."""
    blocks: list[Block] = []
    for thing in things:
        blocks += [*([Line()] if blocks else []), *looked_up(thing)]
    return blocks


def age_words(seconds: float) -> str:
    """How long that is in the largest unit of which there are two.

    >>> age_words(581 * 86_400), age_words(7300), age_words(1)
    ('581 days', '2 hours', '1 second')
    """
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}s"
    return f"{seconds:,.0f} second{'' if round(seconds) == 1 else 's'}"
