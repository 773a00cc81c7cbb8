"""Commands on the quality of features, and how their answers look: leaks, verify, stats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seatrial.cli import talk
from seatrial.cli.door import BadCommandLine, Invocation, as_start, as_window
from seatrial.cli.nouns import NOUNS
from seatrial.cli.pages import write_page
from seatrial.cli.render import Block, Line, Plain, Table, leak_words, listing
from seatrial.core.errors import counted

if TYPE_CHECKING:
    from datetime import datetime

    from seatrial.core.windows import Window

MOST_SHOWN = 5


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


@NOUNS["features"].command("stats")
@click.argument("view", required=False)
@click.option("--start", callback=as_start, metavar="TIME", help="Events from it on; a date is its midnight UTC.")
@click.option("--end", callback=as_start, metavar="TIME", help="Events before it.")
@click.option("--by", metavar="DURATION", help='Also for each piece of this length, such as "1d".')
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page as well.")
@click.pass_obj
def features_stats(
    call: Invocation,
    view: str | None,
    start: datetime | None,
    end: datetime | None,
    by: str | None,
    html: Path | None,
) -> None:
    """Describe the values of VIEW at its events from --start to --end: nulls, moments, quartiles, histogram.

    What was described is kept by its content. Without --start and --end, what was kept is listed, of VIEW or of all."""
    from seatrial.core.clock import iso, to_us
    from seatrial.core.windows import Window

    if start is None and end is None:
        if by or html:
            raise BadCommandLine("--by and --html describe a stretch of time.", expected="Give --start and --end too.")
        with call.project() as project:
            kept = project.feature_stats_kept(view)
            call.answer(kept, lambda things: listing(things, next="seatrial features stats VIEW --start --end"))
        return
    if start is not None and end is not None and start >= end:
        raise BadCommandLine(
            f"--end {iso(end)} is not after --start {iso(start)}.", expected="A stretch of time ends after it starts."
        )
    if view is None or start is None or end is None:
        raise BadCommandLine(
            "statistics are asked for without a view, or without a stretch of time.",
            expected="VIEW, --start and --end are needed.",
        )
    with call.project() as project:
        with talk.Progress() as progress:
            found = project.feature_stats(view, Window(to_us(start), to_us(end)), by=by, progress=progress)
        if html is not None:
            from seatrial.monitoring.pages.feature import html as page

            write_page(html, page(found))
        call.answer(found, stats)


def stats(found: Plain) -> list[Block]:
    """A row per feature; with pieces of time, a row for each of them as well."""
    words = f"{found['view']}, {found['start']} to {found['end']}: {found['rows']:,} events"
    blocks: list[Block] = [Line(words, "bold"), Line(f"kept as {found['id']}", "dim")]
    names = ("count", "null_rate", "distinct_count", "mean", "std", "min", "p25", "p50", "p75", "max")
    numbers = [one for one in found["features"] if one["kind"] == "number"]
    texts = [one for one in found["features"] if one["kind"] == "text"]
    if numbers:
        rows: list[list[Any]] = [[one["feature"], *(one["whole"][name] for name in names)] for one in numbers]
        blocks.append(Table(("feature", *(name.removesuffix("_count") for name in names)), rows))
    if texts:
        rows = [
            [
                one["feature"],
                *(one["whole"][name] for name in names[:3]),
                ", ".join(f"{value} {count:,}" for value, count in one["whole"]["most"][:5]),
            ]
            for one in texts
        ]
        blocks += [Line(), Table(("feature", "count", "null_rate", "distinct", "most frequent"), rows)]
    times = [one for one in found["features"] if one["kind"] == "time"]
    if times:
        rows = [[one["feature"], *(one["whole"][name] for name in (*names[:3], "min", "max"))] for one in times]
        blocks += [Line(), Table(("feature", "count", "null_rate", "distinct", "first", "last"), rows)]
    if found["by"] and numbers:
        pieces = [list(same) for same in zip(*(one["buckets"] for one in numbers), strict=True)]
        rows = [[same[0]["start"], same[0]["count"], *(piece["mean"] for piece in same)] for same in pieces]
        head = (f"means of {found['by']} from", "count", *(one["feature"] for one in numbers))
        blocks += [Line(), Table(head, rows)]
    return blocks


def skew(report: Plain) -> list[Block]:
    """The features that differ, each with its classes; then examples."""
    of = f" of {report['predictions']:,}" if report["rows"] != report["predictions"] else ""
    blocks: list[Block] = [
        Line(f"{report['model']}, {report['window']}: {report['rows']:,}{of} predictions joined again", "bold")
    ]
    blocks += [Line(f"note: {note}", "dim") for note in report["notes"]]
    if report["batch"]:
        left = f"{counted(report['batch'], 'prediction')} of a batch, whose features were joined offline"
        blocks.append(Line(f"left out: {left}", "dim"))
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
    blocks += [Line(f"{equal} other features are equal, bit by bit.", "dim")] if equal else []
    examples = [_example(one, example) for one in wrong[:MOST_SHOWN] for example in one["examples"][:1]]
    columns = ("feature", "prediction", "at", "key", "logged", "recomputed", "logged event", "recomputed event")
    blocks += [Line(), Table(columns, examples)]
    return blocks + ([Line("More examples: --json", "dim")] if len(wrong) > MOST_SHOWN else [])


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
