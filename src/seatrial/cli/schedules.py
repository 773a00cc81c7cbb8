"""What runs by itself: schedules and their runs, and how loops are paused and resumed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from seatrial.cli.door import Invocation, as_start, as_time
from seatrial.cli.nouns import NOUNS
from seatrial.cli.render import Block, Line, Plain, Style, Table
from seatrial.cli.verbs import until_told_to_stop, verb

if TYPE_CHECKING:
    from collections.abc import Sequence

MARKS = {"done": "✓", "running": "▶", "skipped": "·", "refused": "✗", "failed": "✗", "timed out": "✗"}
GOOD = ("done", "running", "skipped")


@NOUNS["schedules"].command("list")
@click.pass_obj
def schedules_list(call: Invocation) -> None:
    """List what is declared: what runs when, next in its own zone, and how the last run ended."""
    with call.project() as project:
        call.answer(project.schedules(), listed)


@NOUNS["schedules"].command("show")
@click.argument("name")
@click.pass_obj
def schedules_show(call: Invocation, name: str) -> None:
    """Show one schedule."""
    with call.project() as project:
        call.answer(project.schedule_show(name), shown)


@NOUNS["schedules"].command("run")
@click.argument("name")
@click.option(
    "--slot", callback=as_time, metavar="TIME", help="The schedule's last instant up to then is meant (default: now)."
)
@click.option("--again", is_flag=True, help="Also when that instant was run already.")
@click.pass_obj
def schedules_run(call: Invocation, name: str, slot: datetime | None, again: bool) -> None:
    """Run the schedule NAME for its last instant, unless that was done: made for cron, Airflow and other schedulers,
    which may call it as often as they like. Ends with 0 when the run ended well now or had before, with 1 when it did
    not, with 5 while another run of it is under way, with 4 while it is paused."""
    from seatrial.verbs.scheduled import failed

    with call.project() as project, until_told_to_stop() as stopped:
        ran = project.schedule_run(name, slot=slot, again=again, stopped=stopped)
        call.answer(ran, came)
    error = failed(ran)
    if error is not None:
        raise error


@NOUNS["schedules"].command("history")
@click.argument("name", required=False)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="So many of the newest runs.")
@click.pass_obj
def schedules_history(call: Invocation, name: str | None, limit: int) -> None:
    """List runs, all or those of the schedule NAME, newest last: how each ended, and what it took."""
    with call.project() as project:
        call.answer(project.schedule_history(name, limit=limit), ran)


@verb("pause")
@click.argument("name")
@click.option("--reason", required=True, metavar="TEXT", help="Why, for whoever wonders later.")
@click.option("--until", callback=as_start, metavar="TIME", help="When it goes on by itself (default: `resume`).")
@click.pass_obj
def pause(call: Invocation, name: str, reason: str, until: datetime | None) -> None:
    """NAME is a schedule, a model or deployment (everything of it that acts by itself), or a kind of loop: schedules,
    monitoring, materializing, batches, retraining, rollouts, alerts, shipping. What is under way is not broken off, and
    what a person asks for by name (deploy, promote, rollback) goes on working."""
    with call.project() as project:
        call.answer(project.pause(name, reason=reason, until=until), paused)


@verb("resume")
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT")
@click.pass_obj
def resume(call: Invocation, name: str, reason: str) -> None:
    """NAME as it was paused. What was missed is caught up with as each schedule says: one run for all, or none."""
    with call.project() as project:
        call.answer(project.resume(name, reason=reason), resumed)


def listed(things: Sequence[Plain]) -> list[Block]:
    """Schedules, and whether anybody runs them."""
    if not things:
        return [
            Line("No schedule is declared: nothing runs by itself."),
            Line('Next: Schedule("monitor", "MODEL", every="1h") in project.py'),
        ]
    rows = [(one["name"], one["timing"], next_words(one), last_words(one["last"])) for one in things]
    blocks: list[Block] = [Table(("schedule", "when", "next", "last"), rows)]
    return [*blocks, *held(things), *runner(things)]


def held(things: Sequence[Plain]) -> list[Block]:
    """A line for each pause."""
    pauses = {one["paused"]["name"]: one["paused"] for one in things if one["paused"]}
    return [Line(f"‖ {name} is {words(pause)}", "bold") for name, pause in pauses.items()]


def runner(things: Sequence[Plain]) -> list[Block]:
    """Who runs schedules now; nobody is worth a word."""
    by = things[0]["run_by"]
    if by:
        return [Line(f"Run by {', '.join(by)}.", "dim")]
    return [Line("No `seatrial up` is running: nothing of this runs by itself now.", "bold"), Line("Next: seatrial up")]


def by_itself(model: Plain) -> list[Block]:
    """What runs by itself for a model, on its card of `status`: next and last run, and what stands still."""
    blocks: list[Block] = []
    for number, one in enumerate(model.get("schedules") or []):
        last = one["last"]
        style: Style = "" if last is None or last["state"] in GOOD else "red"
        told = f", last {last_words(last)}" if last else ", never run"
        blocks.append(
            Line(f"  {'' if number else 'by itself':<12}  {one['name']}: next {next_words(one)}{told}", style)
        )
        if last is not None and last["state"] not in GOOD:
            blocks.append(Line(f"                {last['words']}", style))
    if blocks and not model["schedules"][0]["run_by"]:
        blocks.append(Line("                but no `seatrial up` is running", "bold"))
    blocks += [Line(f"  paused        {one['name']}, {words(one)}", "bold") for one in model.get("paused") or []]
    return blocks


def next_words(one: Plain) -> str:
    """The next instant on the clocks of the schedule's zone."""
    if one["paused"]:
        return "paused"
    if one["due"]:
        return "due now"
    local = one["next_local"]
    return f"{_clock(local)} {'UTC' if local.endswith('+00:00') else local[19:]}"


def _clock(text: str) -> str:
    """Date and time of an ISO 8601 text, with seconds where there are any."""
    return f"{text[:10]} {text[11:16] if text[17:19] == '00' else text[11:19]}"


def last_words(job: Plain | None) -> str:
    """How the last run ended."""
    if job is None:
        return "never"
    return f"{MARKS.get(job['state'], '✗')} {job['state']}, {_clock(job['slot'])} UTC"


def shown(one: Plain) -> list[Block]:
    """One schedule on a card."""
    last = one["last"]
    card = {
        "runs": " ".join(one["command"]),
        "when": one["timing"],
        "next": next_words(one),
        "missed": "one run for all" if one["catch_up"] == "once" else "left out",
        "timeout": one["timeout"],
        "retries": str(one["retries"]),
        "last": last_words(last),
        "": last["words"] if last else "",
    }
    blocks: list[Block] = [Line(one["name"], "bold")]
    blocks += [Line(f"  {name:<9}  {value}") for name, value in card.items() if value]
    return [*blocks, *held([one]), *runner([one])]


def ran(jobs: Sequence[Plain]) -> list[Block]:
    """Runs in a table, and the words of those that did not end well."""
    if not jobs:
        return [Line("Nothing was run yet.")]
    rows = [
        (
            job["schedule"],
            f"{_clock(job['slot'])} UTC",
            f"{MARKS.get(job['state'], '✗')} {job['state']}",
            str(job["attempt"]),
            "" if job["seconds"] is None else f"{job['seconds']:.1f}",
            "" if job["cpu_seconds"] is None else f"{job['cpu_seconds']:.1f}",
            job["words"],
        )
        for job in jobs
    ]
    return [Table(("schedule", "for", "ended", "attempt", "seconds", "cpu s", "words"), rows)]


def came(thing: Plain) -> list[Block]:
    """What came of `schedules run`."""
    job = thing["job"]
    if not thing["ran"]:
        before = "a later one was run already," if thing["later"] else "run already"
        return [Line(f"{job['schedule']}: {before} for {job['slot']}, {job['state']} ({job['id']}).")]
    style: Style = "green" if job["state"] in GOOD else "red"
    took = f" in {job['seconds']:.1f} s" if job["seconds"] is not None else ""
    blocks: list[Block] = [
        Line(f"{MARKS.get(job['state'], '✗')} {job['schedule']}: {job['state']}{took}, for {job['slot']}.", style)
    ]
    blocks += [Line(f"  {job['words']}")] if job["words"] else []
    return [*blocks, Line(f"  Kept as {job['id']}")]


def cost(thing: Plain) -> list[Block]:
    """What things take: value, money where there is a price, and what the figure rests on."""
    price, currency = thing["cpu_hour"], thing["currency"]
    rows = []
    for one in thing["figures"]:
        if one["value"] is None:
            rows.append((one["of"], "not measured yet", "", one["words"]))
            continue
        took = f"{one['value']:.3g} s" if one["unit"] == "CPU seconds" else _bytes(one["value"])
        money = "" if one["money"] is None else f"{one['money']:.2g} {currency}".strip()
        dates = sorted({str(one[name])[:10] for name in ("since", "until") if one[name]})
        count = f"{one['measurements']:,} measurement{'' if one['measurements'] == 1 else 's'}"
        rows.append((one["of"], took, money, f"{count}, {' to '.join(dates)}; {one['words']}"))
    told = f"An hour of one core is {price:g} {currency}".strip() + ", as seatrial.toml says."
    none = 'No price is set: [cost] cpu_hour = 0.04, currency = "EUR" in seatrial.toml.'
    heads = ("what", "takes", "money", "how it is known") if price else ("what", "takes", "how it is known")
    table = Table(heads, rows if price else [(of, took, known) for of, took, _, known in rows])
    return [table, Line(told if price else none, "dim")]


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"


def words(pause: Plain) -> str:
    """Who paused it, since when and why."""
    until = f", until {pause['until']}" if pause["until"] else ""
    return f"paused by {pause['by']} since {pause['since']}{until}: {pause['reason']}"


def paused(pause: Plain) -> list[Block]:
    """A loop that stands still now."""
    return [Line(f"‖ {pause['name']} is {words(pause)}", "bold"), Line(f"Next: seatrial resume {pause['name']}")]


def resumed(pause: Plain) -> list[Block]:
    """A loop that goes on."""
    return [Line(f"▶ {pause['name']} goes on. It was {words(pause)}", "green")]
