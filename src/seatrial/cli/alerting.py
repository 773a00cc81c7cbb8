"""Alerts on the command line: what rings, who looks at it, what shall be quiet, and what happened around it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seatrial.cli.door import Invocation, as_time
from seatrial.cli.nouns import NOUNS
from seatrial.cli.pages import write_page
from seatrial.cli.render import Block, Line, Plain, Style, Table
from seatrial.cli.verbs import verb
from seatrial.core.errors import GateRefused, counted

if TYPE_CHECKING:
    from seatrial.monitoring.alerting.alerts import Alert
    from seatrial.monitoring.alerting.mutes import Mute

RULES = "data broken"
SEVERITIES: dict[str, Style] = {"high": "red", "medium": "bold", "low": ""}
LEVEL = click.Choice(list(SEVERITIES))


class AlarmsFired(GateRefused):
    """`monitor --fail-on` or `alerts check --fail-on` saw an alarm of that severity or a higher one, or a hard rule of
    data quality that failed."""

    code = "monitor.alarms_fired"


def refuse_fired(fired: Sequence[tuple[str, str]], fail_on: str | None, state: str) -> None:
    """Raise AlarmsFired if any alarm (its name, its severity) is at least as severe; no level: none is."""
    order = list(SEVERITIES)
    severe = [name for name, severity in fired if fail_on and order.index(severity) <= order.index(fail_on)]
    if severe:
        many = counted(len(severe), "alarm")
        raise AlarmsFired(f"{many} of severity {fail_on} or higher fired: {', '.join(severe)}.", state=state)


@NOUNS["alerts"].command("list")
@click.argument("model", required=False)
@click.option("--every", is_flag=True, help="Resolved ones too.")
@click.pass_obj
def alerts_list(call: Invocation, model: str | None, every: bool) -> None:
    """List alerts that are open or acknowledged, all or those of MODEL, and what is muted."""
    with call.project() as project:
        silent = [] if call.json else project.alerts_mutes(model)
        call.answer(project.alerts(model, every=every), lambda found: [*listing(found), *muted(silent)])


@NOUNS["alerts"].command("show")
@click.argument("id")
@click.pass_obj
def alerts_show(call: Invocation, id: str) -> None:
    """Show one alert: evidence, what to do, what became of it."""
    with call.project() as project:
        call.answer(project.alert_show(id), details)


@NOUNS["alerts"].command("acknowledge")
@click.argument("id")
@click.option("--reason", default="", metavar="TEXT")
@click.pass_obj
def alerts_acknowledge(call: Invocation, id: str, reason: str) -> None:
    """Say that somebody looks at it. ID is an alert, or a model: then all of its open alerts are meant."""
    with call.project() as project:
        meant = [one.id for one in project.alerts() if one.model == id and one.state == "open"] or [id]
        call.answer([project.alert_acknowledge(one, reason) for one in meant], listing)


@NOUNS["alerts"].command("resolve")
@click.argument("id")
@click.option("--reason", default="", metavar="TEXT")
@click.pass_obj
def alerts_resolve(call: Invocation, id: str, reason: str) -> None:
    """Say that it is over."""
    with call.project() as project:
        call.answer([project.alert_resolve(id, reason)], listing)


@NOUNS["alerts"].command("mute")
@click.argument("name")
@click.option("--for", "lasting", metavar="DURATION", help="For so long, such as 4h.")
@click.option("--until", callback=as_time, metavar="TIME", help="Until then; ISO 8601 with a zone.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for whoever wonders at the silence.")
@click.pass_obj
def alerts_mute(call: Invocation, name: str, lasting: str | None, until: datetime | None, reason: str) -> None:
    """Keep alerts of NAME, a model or an alarm (its name, or an alert of it), but tell nobody of them until the mute
    ends. What still rings then is told then."""
    with call.project() as project:
        done = project.alerts_mute(name, reason=reason, until=until, lasting=lasting)
        call.answer(done, lambda _: muted([done]))


@NOUNS["alerts"].command("unmute")
@click.argument("name")
@click.pass_obj
def alerts_unmute(call: Invocation, name: str) -> None:
    """End the mutes of NAME, as it was muted."""
    with call.project() as project:
        ended = project.alerts_unmute(name)
        call.answer(ended, lambda _: [Line(f"{_of(one)} is not muted any more") for one in ended])


@NOUNS["alerts"].command("check")
@click.option("--fail-on", type=LEVEL, help="End with 3 when the alert of what stays away is that severe.")
@click.pass_obj
def alerts_check(call: Invocation, fail_on: str | None) -> None:
    """Look whether everything that should come still comes (predictions, labels, reports, views), send what waits, and
    send the heartbeat. Made for a scheduler; every five minutes is not too often."""
    with call.project() as project:
        done = project.alerts_check()
        call.answer(done, checked)
    refuse_fired([(one.alarm, one.severity) for one in done.silent], fail_on, "Their alerts are kept.")


@NOUNS["alerts"].command("undelivered")
@click.pass_obj
def alerts_undelivered(call: Invocation) -> None:
    """List messages that did not arrive: those given up after their last attempt, those that wait for another,
    and those that are held until their time."""
    with call.project() as project:
        call.answer(project.alerts_undelivered(), undelivered)


@NOUNS["alerts"].command("resend")
@click.argument("id", nargs=-1)
@click.pass_obj
def alerts_resend(call: Invocation, id: tuple[str, ...]) -> None:
    """Try undelivered messages again, at once: those named, or all of them."""
    with call.project() as project:
        call.answer(project.alerts_resend(id), undelivered)


@verb("incident")
@click.argument("alert")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page as well.")
@click.pass_obj
def incident(call: Invocation, alert: str, html: Path | None) -> None:
    """ALERT is an alert or an incident, the start of its id, or a model: the worst that is open. Alerts, messages,
    deployments, rollouts, approvals, retrainings, data, labels, views and reports around it, from the audit log."""
    with call.project() as project:
        found = project.incident(alert)
        if html is not None:
            from seatrial.monitoring.pages.incident import html as page

            write_page(html, page(found))
        call.answer(found, timeline)


# What a person reads


def listing(things: list[Plain]) -> list[Block]:
    """Alerts: since when, how severe, where it stands; below that what was found, and whose it is."""
    if not things:
        return [Line("no open alert")]
    blocks: list[Block] = []
    for one in things:
        style: Style = "green" if one["state"] == "resolved" else SEVERITIES[one["severity"]]
        when = one["opened_at"][:16].replace("T", " ")
        blocks.append(Line(f"{when}  {one['model']}  {one['severity']}  {_state(one)}  {one['id']}", style, hang=2))
        whose = f" (owner {one['owner']})" if one["owner"] else ""
        blocks.append(Line(f"  {one['alarm']}: {one['words']}{whose}", hang=4))
    return blocks


def opened(found: Sequence[Alert]) -> list[Block]:
    """The alerts that a report opened, and who is told of each."""
    return [
        Line(
            f"Opened {one.id} ({one.alarm}, {one.severity}); "
            + ("muted" if one.muted_until else f"on call: {one.on_call}" if one.on_call else "nobody is on call for it")
        )
        for one in found
    ]


def details(one: Plain) -> list[Block]:
    """One alert from top to bottom: what, since when, what to do, who did what."""
    facts = {
        "model": one["model"],
        "alarm": f"{one['alarm']} ({one['severity']})",
        "found": one["words"],
        "worst": one["worst"],
        "window": one["window"],
        "numbers": _numbers(one),
        "seen": f"{counted(one['seen'], 'time')}, last {one['last_seen_at']}",
        "release": one["release"],
        "owner": one["owner"],
        "on call": one["on_call"],
        "runbook": one["runbook"],
        "incident": one["incident"],
    }
    state = _state(one)
    blocks: list[Block] = [
        Line(f"{one['id']}: {state}", "green" if state == "resolved" else SEVERITIES[one["severity"]]),
        Line(one["headline"], "bold", hang=2),
        *([Line(f"What to do: {one['action']}", hang=12)] if one["action"] else []),
        Line(),
        *(Line(f"  {name:<9} {value}", hang=12) for name, value in facts.items() if value),
        Line(),
    ]
    for happened in one["history"]:
        why = f": {happened['reason']}" if happened["reason"] else ""
        blocks.append(Line(f"  {happened['at'][:19]}  {happened['kind']} by {happened['actor']}{why}", hang=23))
    more = [f"seatrial incident {one['id']}"]
    more += [f"seatrial explain {one['example']}"] if one["example"] else []
    more += [f"seatrial alerts acknowledge {one['id']}"] if one["state"] == "open" else []
    next = [Line(f"{'      ' if place else 'Next: '}{text}") for place, text in enumerate(more)]
    return [*blocks, Line(), *next]


def timeline(thing: Plain) -> list[Block]:
    """An incident: what rang, then day by day what happened."""
    what = f"incident {thing['id']}" if thing["id"] else f"alert {thing['alert']}"
    style: Style = "red" if thing["state"] == "open" else "green"
    blocks: list[Block] = [
        Line(f"{thing['state'].upper()}: {thing['headline']}", style, hang=2),
        Line(f"{what} of '{thing['model']}', {thing['since'][:10]} to {thing['until'][:10]}", "dim", hang=2),
    ]
    blocks += [Line(f"the newest report: {thing['newest']}", hang=2)] if thing["newest"] else []
    facts = [(name, thing[key]) for name, key in (("owner", "owner"), ("on call", "on_call"), ("runbook", "runbook"))]
    told = [f"{name} {value}" for name, value in facts if value]
    blocks += [Line("; ".join(told), "dim")] if told else []
    blocks += [Line(), *listing(thing["alerts"])]
    day = ""
    for one in thing["moments"]:
        if one["at"][:10] != day:
            day = one["at"][:10]
            blocks += [Line(), Line(day, "bold")]
        mark = ">" if one["id"] == thing["alert"] else " "
        who = f"  ({one['actor']})" if one["actor"] else ""
        tone: Style = {"bad": "red", "good": "green"}.get(one["tone"], "")  # type: ignore[assignment]
        blocks.append(Line(f"{mark} {one['at'][11:16]}  {one['kind']:<11} {one['words']}{who}", tone, hang=21))
    next = [Line(f"{'      ' if place else 'Next: '}{text}") for place, text in enumerate(thing["next"][:2])]
    return [*blocks, Line(), *next]


def checked(done: Plain) -> list[Block]:
    """What keeps coming and what does not, then what was sent."""
    signs: dict[str, tuple[str, Style]] = {
        "missed": ("✗", "red"),
        "on time": ("✓", "green"),
        "not expected": ("-", ""),
        "from the future": ("?", ""),
    }
    blocks: list[Block] = []
    for one in done["cadences"]:
        sign, style = signs[one["state"]]
        blocks.append(Line(f"{sign} {one['words']}", style, hang=2))
    for alert in done["silent"]:
        blocks.append(Line(f"  {alert['id']} ({alert['severity']}, {alert['state']}): {alert['action']}", hang=4))
    blocks += [Line(f"✗ route '{name}': {why}", "red", hang=2) for name, why in done["routes"].items()]
    waiting = f", {done['waiting']} wait (see `seatrial alerts undelivered`)" if done["waiting"] else ""
    blocks.append(Line(f"messages sent: {done['sent']}{waiting}; heartbeat: {done['heartbeat']}"))
    return blocks


def muted(mutes: Sequence[Mute]) -> list[Block]:
    """Mutes, a line each."""
    return [Line(f"muted: {_of(one)} until {one.until} by {one.actor}: {one.reason}", hang=7) for one in mutes]


def undelivered(messages: list[Plain]) -> list[Block]:
    """Messages that did not arrive, and why."""
    if not messages:
        return [Line("✓ every message arrived", "green")]
    rows = [
        [
            one["id"],
            one["target"],
            one["title"],
            one["attempts"],
            one["failure"] or "none: not tried yet",
            "GIVEN UP"
            if one["given_up"]
            else f"{'next' if one['failure'] else 'held until'} {one['next_at'][:19]}"
            if one["next_at"]
            else "waits",
        ]
        for one in messages
    ]
    table = Table(["message", "route", "about", "attempts", "last failure", ""], rows)
    return [table, *([Line("Next: seatrial alerts resend")] if any(one["failure"] for one in messages) else [])]


def _numbers(one: Plain) -> str:
    """The numbers of an alert with their meaning, where "value" does not say it."""
    found = {name: value for name, value in one["evidence"].items() if value is not None}
    value = found.pop("value", None)
    if value is not None and one["kind"] == "silence":
        return f"{value:g} hours since the last"
    if value is not None and one["alarm"] == RULES:
        return f"{counted(int(value), 'hard rule')} failed, of {found['rows']:,g} rows"
    if value is not None and not any(
        found.values()
    ):  # of the policy: it watches series, and its words have their numbers
        return ""
    told = found if value is None else {"value": value, **found}
    return ", ".join(f"{name} {number:g}" for name, number in told.items())


def _state(one: Plain) -> str:
    return f"{one['state']}, muted until {one['muted_until'][:16]}" if one["muted_until"] else str(one["state"])


def _of(one: Mute) -> str:
    return f"'{one.alarm}' of '{one.model}'" if one.alarm else f"'{one.model}'"
