"""Rendering of a rehearsal: is the budget met, when would the alarms have come, and what is found how soon?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.cli.render import Block, Cell, Line, Style, Table

if TYPE_CHECKING:
    from seatrial.monitoring.policy.rehearsal import Incident, Rehearsal

MOST = 20


def lines(one: Rehearsal) -> list[Block]:
    """One rehearsal."""
    if not one.windows:
        return [Line("NOTHING TO REHEARSE ON", "bold"), *(Line(note) for note in one.notes)]
    word = "WITHIN THE BUDGET" if one.within else "OVER THE BUDGET"
    colour: Style = "red" if not one.within else "bold" if one.earlier else "green"
    windows = f"{one.windows:,} window{'' if one.windows == 1 else 's'}"
    began = f"{_alarms(one.raised)} began, {one.a_month:.1f} a month"
    blocks: list[Block] = [
        Line(f"{word}: {began}; {one.budget:g} a month are allowed", colour),
        *([Line(_earlier(one), colour)] if one.earlier else []),
        Line(f"KS p < 0.05 for each input would have begun {_alarms(one.usual)}, {one.usual_a_month:,.0f} a month"),
        Line(),
        Line(f"{one.model}, {one.from_[:16]} to {one.until[:16]}, {windows} of {one.every}, "
             f"{one.series} series, of {one.season} the season is known", "dim"),
    ]  # fmt: skip
    if one.alarms:
        rows: list[list[Cell]] = [
            [each.at[:16].replace("T", " "), each.subject, each.words] for each in one.alarms[:MOST]
        ]
        blocks += [Line(), Table(("raised at", "about", ""), rows)]
        rest = one.raised - len(rows)
        blocks += [Line(f"and {rest} more", "dim")] if rest > 0 else []
        blocks.append(Line("Whether an alarm of the past was false only you know."))
    if one.incidents:
        table: list[list[Cell]] = [_incident(each) for each in one.incidents]
        blocks += [Line(), Table(("planted", "found", "windows until then", "95 of 100"), table)]
    if one.thresholds:
        blocks += [Line(), Line(f"With these thresholds {one.proposed} of them remain:")]
        blocks += [Line(f"  {text}") for text in one.snippet.splitlines()]
        blocks.append(
            Line(
                f"Made from the first two thirds alone, they let {one.unseen[0]} through in the last, where the budget "
                f"has {one.unseen[1]:.1f}.",
                "dim",
            )
        )
    elif one.kept and not one.within:
        blocks += [Line(), Line("No thresholds are proposed: what is left is within the budget.")]
    elif one.within:
        blocks += [Line(), Line("The thresholds can stay as they are.")]
    else:
        blocks += [Line(), Line("No thresholds were found that meet the budget: declare a larger one.", "red")]
    if one.kept:
        told = (
            f"{_alarms(one.kept)} of the error, or of alerts that are open: no threshold is proposed to silence them."
        )
        blocks.append(Line(told))
    return [*blocks, *(Line(note, "dim") for note in one.notes)]


def _alarms(count: int) -> str:
    return f"{count:,} alarm{'' if count == 1 else 's'}"


def _earlier(one: Rehearsal) -> str:
    told = ", ".join(f"{each.subject} since {each.at[:16].replace('T', ' ')}" for each in one.earlier[:3])
    more = f" and {len(one.earlier) - 3} more" if len(one.earlier) > 3 else ""
    return f"{_alarms(len(one.earlier))} that began before still rang: {told}{more}"


def _incident(one: Incident) -> list[Cell]:
    if not one.planted:
        return [one.words, "nowhere to plant it: in alarm already", None, None]
    late = f"more than {one.horizon}"
    return [
        one.words,
        f"{one.found} of {one.planted}",
        late if one.median is None else f"{one.median:.0f}",
        late if one.p95 is None else f"{one.p95:.0f}",
    ]
