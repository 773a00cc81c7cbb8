"""Commands on trainings, and how their answers look: reproduce."""

from __future__ import annotations

from typing import Any

import click

from seatrial.cli import talk
from seatrial.cli.door import Invocation
from seatrial.cli.render import Block, Line, Plain, Style, Table
from seatrial.cli.verbs import verb

MOST_SHOWN = 12
STATISTICALLY_SAME = "statistically-same"


@verb("reproduce")
@click.argument("name")
@click.option(
    "--allow",
    type=click.Choice([STATISTICALLY_SAME]),
    help="End with 0 also when the metrics moved by less than their spread over the folds.",
)
@click.option("--current", is_flag=True, help="Train from the project as it is now, to see what its changes change.")
@click.pass_obj
def reproduce(call: Invocation, name: str, allow: str | None, current: bool) -> None:
    """NAME is a run or a release (an id, or the start of one), a model, MODEL@ALIAS or MODEL:VERSION. It is trained
    again from its snapshots, definitions, parameters, seed, threads and cut-off as they were recorded; no version is
    made. Ends with 0 when the model is identical (the same ONNX form) or equivalent (on the rows kept with the run),
    else with 1. Packages and machine that differ are named, and how the project has changed since."""
    from seatrial.reproduce import not_reproduced

    with call.project() as project:
        with talk.Progress() as progress:
            done = project.reproduce(
                name, current=current, allow=["statistically same"] if allow else [], progress=progress
            )
        call.answer(done, reproduced)
    if not done.reproduced:
        raise not_reproduced(done)


def reproduced(done: Plain) -> list[Block]:
    """The verdict, the ladder, and what differs."""
    style: Style = "green" if done["reproduced"] else "red"
    mark = "✓" if done["reproduced"] else "✗"
    of = f" (release {done['release']})" if done["release"] else ""
    blocks: list[Block] = [
        Line(f"{mark} {done['model']}, {done['run']}{of}: {done['verdict']}.", style),
        Line(f"  Trained again in {done['seconds']:.1f} s from {done['trained_from']}; no version was made.", "dim"),
        Line(),
    ]
    marks = {True: "✓", False: "✗", None: "·"}
    blocks += [Line(f"  {marks[one['reached']]} {one['rung']}{_after(one['words'])}") for one in done["rungs"]]
    if done["because"]:
        blocks += [Line(), Line(done["because"])]
    blocks += [
        Line(),
        *differences("Otherwise than when it was recorded", done["inputs"], "All inputs are as recorded."),
    ]
    if done["trained_from"] == "what was recorded":
        same = "The project's sources and definitions are still those of the run."
        blocks += [Line(), *differences("The project has changed since", done["project"], same)]
    moved = [one for one in done["metrics"] if one["recorded"] != one["again"]]
    if moved:
        rows: list[list[Any]] = [[one["metric"], one["recorded"], one["again"], one["spread"]] for one in moved]
        blocks += [Line(), Table(("metric", "recorded", "again", "spread over folds"), rows)]
    return blocks + [Line(f"note: {note}", "dim") for note in done["notes"]]


def differences(title: str, found: list[Plain], none: str) -> list[Block]:
    """A row for each difference, with the first details below."""
    if not found:
        return [Line(none)]
    rows = [[one["kind"], one["name"], one["before"], one["after"]] for one in found[:MOST_SHOWN]]
    blocks: list[Block] = [Line(title, "bold"), Table(("input", "name", "was", "is"), rows)]
    for one in found[:MOST_SHOWN]:
        blocks += [Line(f"  {one['name']}: {detail}", "dim") for detail in one["detail"][:MOST_SHOWN]]
    more = len(found) - MOST_SHOWN
    return blocks + ([Line(f"{more} more: --json", "dim")] if more > 0 else [])


def _after(words: str) -> str:
    return f": {words}" if words else ""
