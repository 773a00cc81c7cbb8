"""Commands on trainings, and how their answers look: reproduce, runs list, show, compare, extract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from seatrial.cli import streams, talk
from seatrial.cli.door import BadCommandLine, Invocation
from seatrial.cli.nouns import NOUNS
from seatrial.cli.pages import write_page
from seatrial.cli.render import Block, Line, Plain, Style, Table, shown
from seatrial.cli.verbs import verb
from seatrial.verbs.run_page import ranked_trials, tuning_words

MOST_SHOWN = 12
BEST_SHOWN = 5
STATISTICALLY_SAME = "statistically-same"


@verb("reproduce")
@click.argument("name")
@click.option(
    "--allow",
    type=click.Choice([STATISTICALLY_SAME]),
    help="End with 0 also when the metrics moved by less than their spread over the folds.",
)
@click.option("--current", is_flag=True, help="Train from the project as it is now, to see what its changes change.")
@click.option("--rebuild-env", is_flag=True, help="Install exactly the run's packages, and train there.")
@click.pass_obj
def reproduce(call: Invocation, name: str, allow: str | None, current: bool, rebuild_env: bool) -> None:
    """NAME is a run or a release (an id, or the start of one), a model, MODEL@ALIAS or MODEL:VERSION. It is trained
    again from its snapshots, definitions, parameters, seed, threads and cut-off as they were recorded; no version is
    made. Ends with 0 when the model is identical (the same ONNX form) or equivalent (on the rows kept with the run),
    else with 1. Packages and machine that differ are named, and how the project has changed since."""
    from seatrial.verbs.reproduce import not_reproduced

    with call.project() as project:
        with talk.Progress() as progress:
            done = project.reproduce(
                name,
                current=current,
                rebuild_env=rebuild_env,
                allow=["statistically same"] if allow else [],
                progress=progress,
            )
        call.answer(done, reproduced)
    if not done.reproduced:
        raise not_reproduced(done)


@verb("check")
@click.pass_obj
def check(call: Invocation) -> None:
    """For pull requests: needs no data, no server and no store. Loads the definitions, makes each estimator with its
    parameters, tries request-time functions on made-up numbers, looks names up. Ends with 1 when something is wrong.
    What needs rows: `seatrial validate`, and `seatrial train --sample`."""
    from seatrial.verbs.check import wrong

    with call.project() as project:
        found = project.check()
    call.answer(found, checked)
    if any(one.passed is False for one in found):
        raise wrong(found)


@NOUNS["runs"].command("list")
@click.argument("model", required=False)
@click.pass_obj
def runs_list(call: Invocation, model: str | None) -> None:
    """List trainings, all or those of MODEL, oldest first."""
    from seatrial.cli import render

    with call.project() as project:
        call.answer(project.runs(model), lambda things: render.listing(things, next="seatrial train"))


@NOUNS["runs"].command("show")
@click.argument("id")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page as well.")
@click.pass_obj
def runs_show(call: Invocation, id: str, html: Path | None) -> None:
    """Show one training: data, split, parameters, metrics, gates. The whole record: --json."""
    from seatrial.cli import render

    with call.project() as project:
        found = project.run_show(id)
        if html is not None:
            write_page(html, project.run_page(id))
        call.answer(found, lambda thing: _with_tuning(render.run(thing), thing))


@NOUNS["runs"].command("compare")
@click.argument("a", required=False)
@click.argument("b", required=False)
@click.option("--model", metavar="MODEL", help="Without A and B: of this model.")
@click.option("--base", metavar="BRANCH", help="Compare with the newest run trained from a commit that BRANCH has.")
@click.option("--markdown", is_flag=True, help="As a comment for a pull request.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page as well.")
@click.pass_obj
def runs_compare(
    call: Invocation,
    a: str | None,
    b: str | None,
    model: str | None,
    base: str | None,
    markdown: bool,
    html: Path | None,
) -> None:
    """Say what is different in B: metrics, gates, data, code, parameters, environment. A and B are runs or releases, as
    `reproduce` takes them; without them, the two newest runs. With --base, A is found and B is the newest run."""
    from seatrial.verbs.runs import markdown as comment

    if base is not None and b is not None:
        raise BadCommandLine("--base names what is compared with; two runs were given as well.")
    with call.project() as project:
        found = project.run_compare(a, b, model=model, base=base)
    if html is not None:
        from seatrial.verbs.run_page import compared_html

        write_page(html, compared_html(found))
    if markdown and not call.json:
        with streams.answering():
            click.echo(comment(found), nl=False)
        return
    call.answer(found, compared)


@NOUNS["runs"].command("extract")
@click.argument("run")
@click.option("--to", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER")
@click.pass_obj
def runs_extract(call: Invocation, run: str, folder: Path) -> None:
    """Write a project into FOLDER that trains RUN again: its definitions as they were, over the rows that it read."""
    from seatrial.cli import render

    with call.project() as project:
        files = project.run_extract(run, folder)
    call.answer({"folder": str(folder), "files": files}, render.exported)


def checked(found: list[Plain]) -> list[Block]:
    """A block for each definition, with what was looked at; then the whole in one line."""
    blocks: list[Block] = []
    for what in dict.fromkeys(one["what"] for one in found):
        blocks.append(Line(what, "bold"))
        for one in found:
            if one["what"] != what:
                continue
            mark, style = _MARKS[one["passed"]]
            blocks.append(Line(f"  {mark} {one['check']}: {one['found']}", style))
            blocks += [Line(f"      {one['next']}")] if one["next"] else []
    failed = sum(one["passed"] is False for one in found)
    if failed:
        return [*blocks, Line(), Line(f"✗ {failed} of {len(found)} checks failed.", "red")]
    return [*blocks, Line(), Line("✓ The definitions are in order.", "green"), Line("Next: seatrial validate")]


_MARKS: dict[bool | None, tuple[str, Style]] = {True: ("✓", ""), False: ("✗", "red"), None: ("·", "dim")}


def _with_tuning(blocks: list[Block], thing: Plain) -> list[Block]:
    """What is shown of a run, and before its last lines how its parameters were found."""
    return [*blocks[:-2], *tuning(thing["tuning"]), *blocks[-2:]] if "tuning" in thing else blocks


def tuning(record: Plain) -> list[Block]:
    """The best trials of a tuning, and which parameters mattered."""
    ranked = ranked_trials(record)
    names = list(record["best"]["params"])
    rows = [
        [
            one["number"],
            one["value"],
            one["state"],
            one["folds"],
            one["seconds"],
            *(one["params"].get(n) for n in names),
        ]
        for one in ranked[:BEST_SHOWN]
    ]
    head = ("trial", record["metric"], "", "folds", "seconds", *names)
    blocks: list[Block] = [Line(), Line(tuning_words(record)), Table(head, rows)]
    more = len(ranked) - BEST_SHOWN
    blocks += [Line(f"{more} more trials: --json, or --html FILE", "dim")] if more > 0 else []
    weights = record.get("importance") or {}
    if weights:
        blocks.append(Line(f"What mattered: {', '.join(f'{n} {share:.0%}' for n, share in weights.items())}"))
    return blocks


def compared(found: Plain) -> list[Block]:
    """The metrics side by side, gates that decide otherwise, and what was different."""
    a, b = found["a"], found["b"]
    of = f", newest on {found['base']}" if found["base"] else ""
    blocks: list[Block] = [Line(f"{found['model']}: {a['run']}{of} -> {b['run']}", "bold"), Line()]
    ranged = [one for one in found["metrics"] if one["interval_a"] and one["interval_b"]]
    spread = any(one["spread"] is not None and one not in ranged for one in found["metrics"])
    rows: list[list[Any]] = [
        [
            one["metric"],
            one["a"],
            one["b"],
            _change(one),
            *((_between(one["interval_a"]), _between(one["interval_b"])) if ranged else ()),
            *((one["spread"],) if spread else ()),
            _word(one),
        ]
        for one in found["metrics"]
    ]
    head = ["metric", "base", "this", "change", *(("interval of base", "interval of this") if ranged else ())]
    blocks.append(Table((*head, *(("spread over folds",) if spread else ()), ""), rows))
    gates = [one for one in found["gates"] if one["a"] != one["b"] or one["b"] is False]
    if gates:
        rows = [[one["a"], one["b"], one["gate"], one["reason"]] for one in gates]
        blocks += [Line(), Table(("base", "this", "gate", "reason"), rows)]
    same = "Data, code, parameters and environment are the same."
    return [*blocks, Line(), *differences("What was different", found["differences"], same)]


def _change(one: Plain) -> float | None:
    return None if one["a"] is None or one["b"] is None else one["b"] - one["a"]


def _between(interval: list[float] | None) -> str | None:
    return None if interval is None else f"{shown(interval[0])} to {shown(interval[1])}"


def _word(one: Plain) -> str:
    if one["better"] is None:
        return ""
    return ("better" if one["better"] else "worse") + ("" if one["notable"] is not False else ", within chance")


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
