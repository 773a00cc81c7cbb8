"""Commands on the quality of features, and how their answers look: leaks, verify, stats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from seatrial.cli import talk
from seatrial.cli.door import Invocation, as_window
from seatrial.cli.nouns import NOUNS
from seatrial.cli.render import Block, Line, Plain, Table, leak_words

if TYPE_CHECKING:
    from seatrial.core.windows import Window


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


@NOUNS["features"].command("verify")
@click.argument("model", required=False)
@click.option("--window", callback=as_window, metavar="START/END", help="Predictions of it (default: the last 7 days).")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Only so many of them, chosen by the seed.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the sample.")
@click.option(
    "--fail-above",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="End with 3 when a feature differs in more than this share (default: report only).",
)
@click.pass_obj
def features_verify(
    call: Invocation,
    model: str | None,
    window: Window | None,
    sample: int | None,
    seed: int,
    fail_above: float | None,
) -> None:
    """Compare the features that predictions were made from with the offline join as of the same instants.

    Differences are counted by feature and called `missing online`, `materialized late` or `different value`."""
    from seatrial.features.skew import refusal

    with call.project() as project:
        with talk.Progress() as progress:
            report = project.feature_verify(model, window=window, sample=sample, seed=seed, progress=progress)
        call.answer(report, skew)
    if fail_above is not None and report.share > fail_above:
        raise refusal(report, fail_above)


def skew(report: Plain) -> list[Block]:
    """The features that differ, each with its classes; then examples."""
    of = f" of {report['predictions']:,}" if report["rows"] != report["predictions"] else ""
    blocks: list[Block] = [
        Line(f"{report['model']}, {report['window']}: {report['rows']:,}{of} predictions joined again", "bold")
    ]
    blocks += [Line(f"note: {note}", "dim") for note in report["notes"]]
    wrong = [one for one in report["features"] if one["mismatches"]]
    if not report["rows"]:
        return [*blocks, Line("There is nothing to compare.")]
    if not wrong:
        return [*blocks, Line(f"✓ All {len(report['features'])} features are what the join says, bit by bit.", "green")]
    blocks.append(Line(f"✗ {report['mismatched']:,} predictions have a feature that differs.", "red"))
    kinds = list(dict.fromkeys(kind for one in wrong for kind in one["classes"]))
    rows: list[list[Any]] = [
        [one["feature"], one["mismatches"], f"{one['share']:.1%}", *(one["classes"].get(kind) for kind in kinds)]
        for one in wrong
    ]
    blocks.append(Table(("feature", "mismatches", "share", *kinds), rows))
    equal = len(report["features"]) - len(wrong)
    blocks += [Line(f"{equal} other features are equal, bit by bit.", "dim"), Line()]
    examples = [[_example(one, example) for example in one["examples"][:1]] for one in wrong]
    columns = ("feature", "prediction", "at", "key", "logged", "recomputed", "logged event", "recomputed event")
    return [*blocks, Table(columns, [row for few in examples for row in few])]


def _example(one: Plain, example: Plain) -> list[Any]:
    key = ", ".join(f"{name} {value}" for name, value in example["key"].items())
    values = [example[name] for name in ("logged", "recomputed")]
    return [one["feature"], example["prediction_id"], example["at"], key, *values] + [
        example[name] or None for name in ("logged_event", "recomputed_event")
    ]


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
