"""How a rollout looks on a terminal: where it stands, and what came of a look at it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from shutil import get_terminal_size as terminal
from time import sleep
from typing import TYPE_CHECKING

import msgspec

from seatrial.cli.render import Block, Line, Plain, Style, Table, plain, shown
from seatrial.core.clock import monotonic
from seatrial.core.errors import SeatrialError
from seatrial.core.gain import by_how_much
from seatrial.core.windows import hours_text

if TYPE_CHECKING:
    from seatrial.cli.door import Invocation
    from seatrial.project import Project
    from seatrial.verbs.rolling import Moved

MARK = {"crossed": "✗", "fine": "✓", "open": "·", "not measured": "·"}
BAR = 24
COLOUR: dict[str, Style] = {"advance": "green", "hold": "", "roll back": "red", "keep the live release": ""}


def begun(done: Plain) -> list[Block]:
    """A rollout has begun: who has which share, what the first step needs, and that nothing moves by itself."""
    name, share = done["deployment"], done["share"]
    takes = f"takes {share:g} % of the traffic" if share else "scores in the shadow"
    stays = f"stay at {share:g} %" if share else "stay in the shadow"
    return [
        Line(f"✓ {name}: version {done['version']} {takes} ({done['live']}).", "green"),
        Line(f"  Live        {done['previous']}, with the {'rest' if share else 'answers'}"),
        Line(f"  Generation  {done['generation']}, {done['strategy'].replace('_', '-')}"),
        *callers(done),
        Line(f"  Steps       {_strip(done['strategy'], done['steps'], 0)}"),
        Line(f"  This one    until {done['step_ends']} at least, and {done['min_rows']:,} answers of the new release"),
        Line("  Who moves   `seatrial deployments advance` alone: it judges the step, and takes the next one or goes"),
        Line(f"              back. While nobody runs it the new release will {stays}, even if it does harm."),
        Line(f"Next: seatrial deployments advance {name} --watch"),
    ]


def callers(done: Plain) -> list[Block]:
    """What is different for callers, where anything is."""
    from seatrial.deployment.requests import RequestChange

    if not done.get("requests"):
        return []
    first, *more = msgspec.convert(done["requests"], RequestChange).words
    return [Line(f"  Callers     {first}", "bold"), *(Line(f"              {one}", "bold") for one in more)]


def status(thing: Plain) -> list[Block]:
    """Where a rollout stands; without one, what to do to begin it."""
    rollout, analysis = thing["rollout"], thing["analysis"]
    if rollout is None or analysis is None:
        blocks: list[Block] = [Line(f"{thing['deployment']}: no rollout is under way.", "bold")]
        if thing.get("live"):
            blocks.append(Line(f"  Live      {thing['live']}, as of {thing['as_of']}"))
        if thing.get("ended"):
            blocks += _paragraph(ended_words(thing["ended"]), max(terminal().columns, 60), "", "The last")
        return blocks + _looks(thing["history"])
    steps = _strip(rollout["strategy"], rollout["steps"], rollout["step"])
    kind = {"ab_test": "A/B test"}.get(rollout["strategy"], rollout["strategy"])
    return [
        Line(f"{thing['deployment']}: {kind} of {rollout['new']} against {rollout['live']}", "bold"),
        Line(f"  Steps     {steps}"),
        Line(f"  Since     {rollout['since']}"),
        Line(f"  Left      {left(analysis)}"),
        *_evidence(analysis),
        Line(f"Next: seatrial deployments advance {thing['deployment']}"),
        *_looks([one for one in thing["history"] if one.get("rollout", "") in ("", rollout.get("started", ""))]),
    ]


def ended_words(ended: Plain) -> str:
    """How the last rollout ended, in one sentence."""
    because = f": {ended['because']}" if ended["because"] else ""
    return (
        f"{ended['release']} {'was ' if ended['how'] == 'rolled back' else ''}{ended['how']} at {ended['at']}{because}"
    )


def left(analysis: Plain) -> str:
    """How much longer the step lasts at the least."""
    from seatrial.core.clock import parse_time, to_us
    from seatrial.core.windows import duration_text

    minutes = (to_us(parse_time(analysis["ends"])) - to_us(parse_time(analysis["as_of"]))) // 60_000_000
    if minutes <= 0:
        return f"its shortest time was over {analysis['ends']}"
    return f"{duration_text(minutes * 60_000_000)} more at the least, until {analysis['ends']}"


def moved(thing: Plain) -> list[Block]:
    """What the evidence said, and what was done."""
    analysis = thing["analysis"]
    done = {
        "advance": f"the new release has {thing['share']:g} % of the traffic now",
        "hold": "nothing was changed; the new release "
        + (f"keeps {thing['share']:g} %" if thing["share"] else "stays in the shadow"),
        "roll back": f"{thing['live']} has all of the traffic again",
        "keep the live release": f"{thing['live']} has all of the traffic again",
    }[analysis["verdict"]]
    return [
        Line(f"{thing['deployment']}: {analysis['verdict']}; {done}.", COLOUR[analysis["verdict"]]),
        *_evidence(analysis),
        Line(f"  Kept as   {thing['look']}"),
    ]


def watch(call: Invocation, project: Project, name: str | None, every: str) -> Moved | None:
    """Look at a rollout until it is over or somebody says stop: a line for each look. The last one."""
    from seatrial.cli import streams, talk
    from seatrial.cli.verbs import until_told_to_stop

    def told(look: Moved | SeatrialError) -> None:
        if isinstance(look, SeatrialError):
            talk.say(f"No look: {look.found} The next one is in {every}.")
            return
        with streams.answering():
            print(msgspec.json.encode(look).decode() if call.json else line(plain(look)))

    with until_told_to_stop() as stopped:

        def wait(seconds: float) -> bool:
            until = monotonic() + seconds
            while not stopped() and (left := until - monotonic()) > 0:
                sleep(min(left, 0.25))
            return not stopped()

        talk.release()
        last = project.deployment_watch(name, every=every, told=told, wait=wait)
    if last is None or stopped():
        talk.say("Stopped; the rollout stays as it is until somebody advances it.")
    return last


def line(look: Plain) -> str:
    """One look in one line."""
    analysis = look["analysis"]
    return (
        f"{analysis['as_of']}  {look['deployment']}  {analysis['verdict']}, "
        f"{look['share']:g} % now: {' '.join(analysis['why'].split())}"
    )


def _strip(strategy: str, steps: Sequence[float], present: int) -> str:
    """The steps of a rollout, the present one in brackets."""
    percents = [f"{step:g} %" if step else "in the shadow" for step in steps]
    percents = [f"✓ {one}" if place < present else one for place, one in enumerate(percents)]
    percents[present] = f"[{percents[present]}]"
    return " → ".join(percents if strategy == "canary" else [*percents, "100 %"])


def _evidence(analysis: Plain) -> list[Block]:
    rows, observed = analysis["rows"], analysis["observed"]
    width = max(terminal((120, 24)).columns, 40)
    blocks: list[Block] = []
    if analysis["wanted"] == 0:
        words = f"{rows['new']:,} rows scored beside {rows['live']:,} answers, for nobody to see"
        blocks.append(Line(f"  Shadow    {words}"))
    else:
        seen = "no answers yet" if observed is None else f"{observed:.2%} of {rows['live'] + rows['new']:,} answers"
        sure = f", {analysis['split']:,.0f}:1 against the wanted one" if analysis["split"] > 10 else ""
        bar = split_bar(observed or 0.0, analysis["wanted"], BAR)
        blocks += [Line(f"  Split     {bar} {analysis['wanted']:.2%} wanted (┃)"), Line(f"            {seen}{sure}")]
    full = split_bar(min(rows["new"] / analysis["needed"], 1.0), None, BAR)
    enough = "not enough data (" if rows["new"] < analysis["needed"] else "("
    blocks.append(Line(f"  Enough    {full} {enough}{rows['new']:,} of {analysis['needed']:,} answers)"))
    blocks += _decision(analysis)
    blocks += _paragraph(f"{analysis['verdict']}: {analysis['why']}", width, COLOUR[analysis["verdict"]])
    return blocks + guardrails(analysis["guardrails"], width)


def _decision(analysis: Plain) -> list[Block]:
    """What labels or a metric say so far."""
    blocks: list[Block] = []
    if analysis["labels"]:
        labels = analysis["labels"]
        gain = ""
        if labels["gain"] is not None:
            gain = f", the loss is {_gained(labels, 'lower', 'higher')}"
        blocks.append(Line(f"  Labels    {labels['state']}: {labels['days']} whole days{gain}"))
        if labels["ripening"]:
            waits = hours_text(labels["ripe_hours"])
            blocks.append(Line(f"            {labels['ripening']} more wait {waits} for their labels"))
    metric = analysis.get("metric")
    if metric:
        gain = "" if metric["gain"] is None else f", {_gained(metric, 'better', 'worse')}"
        borne = "" if metric["margin"] is None else f"; {metric['margin']:g} worse is borne"
        blocks.append(
            Line(f"  Metric    {metric['name']}, {metric['state']}: {metric['days']} whole days{gain}{borne}")
        )
        without = ", ".join(
            f"{metric['missing'][arm]:,} of {metric['requests'][arm]:,} {arm}" for arm in ("live", "new")
        )
        blocks.append(Line(f"            requests without a value: {without}"))
        others = {"answered by both": metric["mixed"], "of no request of this step": metric["stray"]}
        said = [f"{count:,} {what}" for what, count in others.items() if count]
        if said:
            blocks.append(Line(f"            left out: {', '.join(said)}"))
        if metric["warning"]:
            blocks.append(Line(f"            note: {metric['warning']}", "bold"))
    return blocks


def _paragraph(words: str, width: int, style: Style, title: str = "Verdict") -> list[Block]:
    """The verdict, broken to the terminal's width."""
    lines = textwrap.wrap(words, max(width - 12, 28)) or [""]
    return [Line(f"  {title if not place else '':<10}{one}", style) for place, one in enumerate(lines)]


def split_bar(share: float, wanted: float | None, width: int) -> str:
    """A share as a bar, with a mark where it was wanted."""
    cells = ["█" if (place + 0.5) / width <= share else "░" for place in range(width)]
    if share > 0 and cells[0] == "░":
        cells[0] = "▏"
    if wanted is not None:
        cells[min(int(wanted * width), width - 1)] = "┃"
    return "".join(cells)


def guardrails(figures: Sequence[Plain], width: int) -> list[Block]:
    """Each guardrail with its interval on a line from twice the margin below none to twice above; a narrow terminal
    has the line below the words."""
    if not figures:
        return []
    wide = width >= 100
    room = 29 if wide else min(29, width - 8)
    blocks: list[Block] = [Line()]
    head = f"  {'guardrail':<12}  {'live':>8}  {'new':>8}  {'difference (over all looks)':<28}"
    blocks.append(
        Line((head + "  better     0     worse  ┃ borne") if wide else "  difference (over all looks), ┃ borne", "dim")
    )
    for one in figures:
        none = one["difference"] is None
        interval = "not measured" if none else _with_interval(one, "difference")
        picture = "" if none else drawn(one, room)
        style: Style = "red" if one["state"] == "crossed" else ""
        if wide:
            numbers = f"{shown(one['live']) or '-':>8}  {shown(one['new']) or '-':>8}"
            words = f"{MARK[one['state']]} {one['name']:<12}  {numbers}  {interval:<28}  {picture}"
            blocks.append(Line(f"{words}  {one['margin']:g} {one['state']}", style))
        else:
            blocks.append(
                Line(f"{MARK[one['state']]} {one['name']}: {one['state']}, {one['margin']:g} is borne", style)
            )
            blocks += [] if none else [Line(f"    {interval}", style), Line(f"    {picture}", style)]
    return blocks


def drawn(figure: Plain, width: int) -> str:
    """An interval on a line: ┊ no difference, ┃ the margin, ● what was seen; an arrow where it goes on."""
    reach: float = 2 * figure["margin"]

    def place(value: float) -> int:
        return round((min(max(value, -reach), reach) + reach) / (2 * reach) * (width - 1))

    cells = [" "] * width
    low, high = place(figure["low"]), place(figure["high"])
    for cell in range(low, high + 1):
        cells[cell] = "─"
    cells[low] = "◂" if figure["low"] < -reach else "├"
    cells[high] = "▸" if figure["high"] > reach else "┤"
    for value, mark in ((0.0, "┊"), (figure["margin"], "┃"), (-figure["margin"], "┃")):
        if value >= 0 or figure["name"] == "mean_score":
            cells[place(value)] = mark if cells[place(value)] == " " or mark == "┃" else "┼"
    if -reach <= figure["difference"] <= reach:
        cells[place(figure["difference"])] = "●"
    return "".join(cells)


def _gained(thing: Plain, gained: str, lost: str) -> str:
    """By how much the new release gains or loses, so that the number has the direction of the word."""
    worse, by, low, high = by_how_much(thing["gain"], thing["low"], thing["high"])
    words = _with_interval({"by": by, "low": low, "high": high}, "by")
    return f"{lost if worse else gained} by {words} a {thing['unit']}"


def _with_interval(thing: Plain, name: str) -> str:
    if thing["low"] is None or thing["high"] is None:
        return f"{thing[name]:+.3g} [not bounded yet]"
    return f"{thing[name]:+.3g} [{thing['low']:+.3g}, {thing['high']:+.3g}]"


def _looks(history: list[Plain]) -> list[Block]:
    """The looks that decided; of those in a row that came to the same, the last, and how many there were."""
    if not history:
        return []
    rows: list[tuple[str, ...]] = []
    several = len({one.get("release") for one in history}) > 1
    for (verdict, release), group in groupby(history, key=lambda one: (str(one["verdict"]), one.get("release"))):
        alike = list(group)
        times = f" ×{len(alike)}" if len(alike) > 1 else ""
        about = (str(release),) if several else ()
        rows.append((alike[-1]["as_of"], *about, f"{verdict}{times}", alike[-1]["why"]))
    return [Line(), Table(("at", *(("of",) if several else ()), "verdict", "why"), rows[-10:])]
