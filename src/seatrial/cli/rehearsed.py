"""Rendering of a rehearsal: is the budget met, when would the alarms have come, and what is found how soon?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.cli.render import Block, Cell, Line, Style, Table
from seatrial.core.errors import counted

if TYPE_CHECKING:
    from seatrial.monitoring.policy.rehearsal import Incident, Rehearsal

MOST = 20


def lines(one: Rehearsal) -> list[Block]:
    """One rehearsal."""
    if not one.windows:
        return [Line("NOTHING TO REHEARSE ON", "bold"), *(Line(note) for note in one.notes)]
    word = "WITHIN THE BUDGET" if one.within else "OVER THE BUDGET"
    blind = _blind(one)
    colour: Style = "red" if not one.within else "bold" if one.earlier or blind else "green"
    windows = counted(one.windows, "window")
    usual = counted(one.usual, "alarm")
    began = f"{counted(one.raised, 'alarm')} began, {one.a_month:.1f} a month"
    blocks: list[Block] = [
        Line(f"{word}: {began}; the budget is {one.budget:g} a month", colour),
        *([Line(_earlier(one), colour, hang=2)] if one.earlier else []),
        *([Line(blind, "red", hang=2)] if blind else []),
        Line(f"KS p < 0.05 for each input would have begun {usual}, {one.usual_a_month:,.0f} a month"),
        Line(),
        Line(f"{one.model}, {_minute(one.from_)} to {_minute(one.until)}, {windows} of {one.every}, "
             f"{one.series} series, of {one.season} the season is known", "dim", hang=2),
    ]  # fmt: skip
    if one.alarms:
        rows: list[list[Cell]] = [[_minute(each.at), each.subject, each.words] for each in one.alarms[:MOST]]
        blocks += [Line(), Table(("raised at", "about", "what it says"), rows)]
        rest = one.raised - len(rows)
        blocks += [Line(f"and {rest} more", "dim")] if rest > 0 else []
        blocks.append(Line("Whether an alarm of the past was false only you know."))
    if one.incidents:
        table: list[list[Cell]] = [_incident(each) for each in one.incidents]
        blocks += [Line(), Table(("planted", "found", "half of them within", "95 % within"), table)]
    if one.thresholds:
        blocks += [Line(), Line(f"With these thresholds {_remain(one.proposed)}:")]
        blocks += [Line(f"  {text}") for text in one.snippet.splitlines()]
        blocks.append(
            Line(
                f"Made from the first two thirds alone, they let {one.unseen[0]} through in the last, where the budget "
                f"has {one.unseen[1]:.1f}.",
                "dim",
                hang=2,
            )
        )
    elif one.kept and not one.within:
        blocks += [Line(), Line("No thresholds are proposed: what is left is within the budget.")]
    elif one.within:
        blocks += [] if blind else [Line(), Line("The thresholds can stay as they are.")]
    else:
        blocks += [Line(), Line("No thresholds were found that meet the budget: declare a larger one.", "red")]
    if one.kept:
        kept = counted(one.kept, "alarm")
        told = f"{kept} of the error, or of alerts that are open: no threshold is proposed to silence them."
        blocks.append(Line(told, hang=2))
    return [*blocks, *(Line(note, "dim") for note in one.notes)]


def _remain(count: int) -> str:
    return "none of them remains" if not count else f"{count:,} of them remain{'s' if count == 1 else ''}"


def _earlier(one: Rehearsal) -> str:
    told = ", ".join(f"{each.subject} since {_minute(each.at)}" for each in one.earlier[:3])
    more = f" and {len(one.earlier) - 3} more" if len(one.earlier) > 3 else ""
    return f"{counted(len(one.earlier), 'alarm')} that began before still rang: {told}{more}"


def _incident(one: Incident) -> list[Cell]:
    if not one.planted:
        return [one.words, "nowhere: in alarm already", None, None]
    return [one.words, f"{one.found} of {one.planted}", _within(one.median, one.horizon), _within(one.p95, one.horizon)]


def _within(windows: float | None, horizon: int) -> str:
    return f"more than {horizon} windows" if windows is None else counted(round(windows), "window")


def _blind(one: Rehearsal) -> str:
    """What to know when an alarm could hardly have come: nothing of what was planted was found."""
    planted = sum(each.planted for each in one.incidents)
    if not planted or any(each.found for each in one.incidents):
        return ""
    return (
        f"It may be quiet because it sees nothing: none of {planted:,} planted incidents was found. Only windows with "
        f"30 values are judged; longer ones than {one.every} have more (`every=` of the Monitor)."
    )


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")
