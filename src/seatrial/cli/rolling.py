"""How a rollout looks on a terminal: where it stands, and what came of a look at it."""

from __future__ import annotations

from collections.abc import Sequence
from time import sleep
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.cli.render import Block, Line, Plain, Style, Table, plain, shown
from seatrial.core.clock import monotonic
from seatrial.core.errors import SeatrialError

if TYPE_CHECKING:
    from seatrial.cli.door import Invocation
    from seatrial.project import Project
    from seatrial.verbs.rolling import Moved

MARK = {"crossed": "✗", "fine": "✓", "open": "·", "not measured": "·"}
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
        Line(f"  Steps       {_strip(done['strategy'], done['steps'], 0)}"),
        Line(f"  This one    until {done['step_ends']} at least, and {done['min_rows']:,} answers of the new release"),
        Line("  Who moves   `seatrial deployments advance` alone: it judges the step, and takes the next one or goes"),
        Line(f"              back. While nobody runs it the new release will {stays}, even if it does harm."),
        Line(f"Next: seatrial deployments advance {name} --watch"),
    ]


def status(thing: Plain) -> list[Block]:
    """Where a rollout stands; without one, what to do to begin it."""
    rollout, analysis = thing["rollout"], thing["analysis"]
    if rollout is None or analysis is None:
        blocks: list[Block] = [Line(f"{thing['deployment']}: no rollout is under way.", "bold")]
        return blocks + _looks(thing["history"])
    steps = _strip(rollout["strategy"], rollout["steps"], rollout["step"])
    kind = {"ab_test": "A/B test"}.get(rollout["strategy"], rollout["strategy"])
    return [
        Line(f"{thing['deployment']}: {kind} of {rollout['new']} against {rollout['live']}", "bold"),
        Line(f"  Steps     {steps}, this one since {rollout['since']}"),
        *_evidence(analysis),
        Line(f"Next: seatrial deployments advance {thing['deployment']}"),
        *_looks(thing["history"]),
    ]


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


def watch(call: Invocation, project: Project, name: str | None, every: str) -> None:
    """Look at a rollout until it is over or somebody says stop: a line for each look."""
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
    percents[present] = f"[{percents[present]}]"
    return " → ".join(percents if strategy == "canary" else [*percents, "100 %"])


def _evidence(analysis: Plain) -> list[Block]:
    rows, observed = analysis["rows"], analysis["observed"]
    hidden = analysis["wanted"] == 0
    seen = "no answers yet" if observed is None else f"{observed:.2%} of {rows['live'] + rows['new']:,} answers"
    sure = f", {analysis['split']:,.0f}:1 against the wanted one" if analysis["split"] > 10 else ""
    blocks: list[Block] = [
        Line(f"  Shadow    {rows['new']:,} rows scored beside {rows['live']:,} answers, for nobody to see")
        if hidden
        else Line(f"  Split     {analysis['wanted']:.2%} wanted, {seen}{sure}"),
        Line(
            f"  Enough    {rows['new']:,} of {analysis['needed']:,} answers; the step ends {analysis['ends']} or later"
        ),
    ]
    if analysis["labels"]:
        labels = analysis["labels"]
        gain = "" if labels["gain"] is None else f", the loss is lower by {_with_interval(labels, 'gain')} a day"
        blocks.append(Line(f"  Labels    {labels['state']}: {labels['days']} whole days{gain}"))
    blocks.append(Line(f"  Verdict   {analysis['verdict']}: {analysis['why']}", COLOUR[analysis["verdict"]]))
    if analysis["guardrails"]:
        rows_ = [
            (
                MARK[one["state"]],
                one["name"],
                shown(one["live"]),
                shown(one["new"]),
                None if one["difference"] is None else _with_interval(one, "difference"),
                f"{one['margin']:g}",
                one["state"],
            )
            for one in analysis["guardrails"]
        ]
        blocks.append(Table(("", "guardrail", "live", "new", "difference (over all looks)", "borne", "state"), rows_))
    return blocks


def _with_interval(thing: dict[str, Any], name: str) -> str:
    return f"{thing[name]:+.3g} [{thing['low']:+.3g}, {thing['high']:+.3g}]"


def _looks(history: list[Plain]) -> list[Block]:
    if not history:
        return []
    return [
        Line(),
        Table(("at", "verdict", "why"), [(one["as_of"], one["verdict"], one["why"]) for one in history[-10:]]),
    ]
