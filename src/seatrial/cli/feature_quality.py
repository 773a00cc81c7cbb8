"""Commands on the quality of features, and how their answers look: leaks, verify, stats."""

from __future__ import annotations

import click

from seatrial.cli import talk
from seatrial.cli.door import Invocation
from seatrial.cli.nouns import NOUNS
from seatrial.cli.render import Block, Line, Plain, Table, leak_words


@NOUNS["features"].command("leaks")
@click.argument("model", required=False)
@click.pass_obj
def features_leaks(call: Invocation, model: str | None) -> None:
    """Say of each column of MODEL whether it knows more than could be known at its row's instant.

    A few rows are computed again from what was known then, and compared: verified, leaks, or unverifiable. `train`
    does the same first. Ends with 3 when a column leaks."""
    from seatrial.features.leaks import refusal

    with call.project() as project:
        with talk.Progress() as progress:
            report = project.feature_leaks(model, progress=progress)
        call.answer(report, leaks)
    if report.leaks:
        raise refusal(report)


def leaks(report: Plain) -> list[Block]:
    """A row per column, what was left whole, and the rows that changed."""
    blocks: list[Block] = [Line(f"{report['model']}: {leak_words(report)}", "bold")]
    columns = [
        (one["column"], one["status"], one["source"] or None, one["rows"], one["changed"], one["why"])
        for one in report["columns"]
    ]
    blocks += [Table(("column", "status", "source", "rows", "changed", "why"), columns)]
    if report["left_whole"]:
        names = ", ".join(report["left_whole"])
        blocks.append(Line(f"left whole, because they do not say when their rows were known: {names}", "dim"))
    return blocks
