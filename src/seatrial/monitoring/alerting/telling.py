"""Telling: of which alerts is somebody told now, in how many messages, and is anybody woken?

Alerts that open together are one message. A model's first alert of high severity opens an incident and is its page,
the only one: what opens until none of the incident's alerts of high severity rings any more joins it, and is told in
digests, like alerts that wake nobody. When it is over, one message says so. Muted alerts are told when the mute ends
and they still ring.

What was told are events on the model's alerts; a message is left in the outbox in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seatrial.core.clock import from_us, iso, machine_us
from seatrial.core.identity import new_id
from seatrial.core.inert import inert
from seatrial.core.records import Record
from seatrial.monitoring.alerting.mutes import muted_until, mutes
from seatrial.stores.metadata import MetadataStore, Transaction

if TYPE_CHECKING:
    from seatrial.monitoring.alerting.alerts import Alert

TOPIC = "webhook"
FORMAT = 1
INCIDENT = "incident"
TOLD = "alerts.told"
DIGEST_US = 600_000_000
"""Between two messages on a model that wake nobody."""
MOST_LISTED = 50
ROUTES = ("webhook:", "route:")
SEVERITIES = ("low", "medium", "high")


@dataclass
class Told:
    """What was told so far of a model's alerts.

    opened: alert -> its incident (empty: a ticket). over: alerts whose end was told. last_us: machine time of the last
    message. incident: the newest one; since_us: machine time of its page.
    """

    opened: dict[str, str] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    last_us: int = 0
    incident: str = ""
    since_us: int = 0


def told_of(metadata: MetadataStore, model: str) -> Told:
    """What was told of the model's alerts, from the audit log."""
    told = Told()
    for event in metadata.events(subject=f"alerts/{model}", kind=TOLD):
        told.last_us = event.recorded_at_us
        if event.body["event"] == "resolved":
            told.over.update(event.body["alerts"])
            continue
        told.opened |= dict.fromkeys(event.body["alerts"], event.body["incident"])
        if event.body["page"]:
            told.incident, told.since_us = event.body["incident"], event.recorded_at_us
    return told


def targets(on_call: str) -> list[str]:
    """Where a model's messages go: the routes in its `on_call`, such as "route:ops, route:mail"."""
    return [one for one in (part.strip() for part in on_call.split(",")) if one.startswith(ROUTES)]


def is_open(told: Told, alerts: Sequence[Alert]) -> bool:
    """Whether the newest incident goes on: an alert of high severity that belongs to it still rings."""
    return bool(told.incident) and any(
        one.severity == "high" and one.state != "resolved" and told.opened.get(one.id) == told.incident
        for one in alerts
    )


def tell(
    metadata: MetadataStore,
    transaction: Transaction,
    model: str,
    alerts: Sequence[Alert],
    *,
    actor: str,
    at_us: int,
) -> None:
    """Leave a message on what opened and on what is over, if there is any; `alerts`: all of the model's."""
    told = told_of(metadata, model)
    silent = mutes(metadata, at_us, model)
    new = [
        one
        for one in alerts
        if one.kind and one.state != "resolved" and one.id not in told.opened and not muted_until(silent, one.alarm)
    ]
    going_on = is_open(told, alerts)
    over = [
        one
        for one in alerts
        if one.state == "resolved"
        and one.id not in told.over
        and one.id in told.opened
        and not (going_on and told.opened[one.id] == told.incident)
    ]
    for incident in dict.fromkeys(told.opened[one.id] for one in over):
        together = [one for one in over if told.opened[one.id] == incident]
        _left(metadata, transaction, model, "resolved", together, incident, False, actor, at_us, told)
    if not new:
        return
    new.sort(key=lambda one: -SEVERITIES.index(one.severity))  # stable: the oldest of the worst leads
    page = not going_on and new[0].severity == "high"
    incident = told.incident if going_on else ""
    if page:
        record = Record(new_id(INCIDENT), INCIDENT, model, tuple(one.id for one in new), {}, FORMAT)
        transaction.add(record)
        incident = record.id
    event = "joined" if going_on else "opened"
    _left(metadata, transaction, model, event, new, incident, page, actor, at_us, told)


def _left(
    metadata: MetadataStore,
    transaction: Transaction,
    model: str,
    event: str,
    alerts: Sequence[Alert],
    incident: str,
    page: bool,
    actor: str,
    at_us: int,
    told: Told,
) -> None:
    """Note that these alerts are told, and leave the message for each of their routes."""
    now_us = machine_us()
    routes = list(dict.fromkeys(target for one in alerts for target in targets(one.on_call)))
    body = {"event": event, "alerts": [one.id for one in alerts], "incident": incident, "page": page}
    transaction.event(TOLD, f"alerts/{model}", actor=actor, at_us=at_us, body=body | {"targets": routes})
    for target in routes:
        mine = [one for one in alerts if target in targets(one.on_call)]
        message = {
            "format": FORMAT,
            "id": new_id("msg"),
            "target": target,
            "event": event,
            "model": model,
            "page": page,
            "incident": incident,
            "over": event == "resolved" and incident == told.incident,
            "at": iso(from_us(at_us)),
            "sent_us": now_us,
            "alert": described(mine[0], event, at_us),
            "alerts": [described(one, event, at_us) for one in mine[:MOST_LISTED]],
            "count": len(mine),
        }
        if event == "resolved" or page:
            transaction.enqueue(TOPIC, message)
        else:
            _digest(metadata, transaction, message, told.last_us, now_us)


def _digest(
    metadata: MetadataStore, transaction: Transaction, message: dict[str, Any], last_us: int, now_us: int
) -> None:
    """Leave a message that wakes nobody: with one of its kind that was not tried yet, else a while after the last."""
    alike = ("target", "model", "event", "incident")
    for seq, waiting in metadata.pending(TOPIC):
        if not waiting.get("attempts") and all(waiting.get(name) == message[name] for name in alike):
            listed = [*waiting["alerts"], *message["alerts"]][:MOST_LISTED]
            more = {"alerts": listed, "count": waiting["count"] + message["count"]}
            transaction.done(TOPIC, seq)
            transaction.enqueue(TOPIC, waiting | more | {"order": waiting.get("order", seq)})
            return
    due_us = last_us + DIGEST_US if 0 < now_us - last_us < DIGEST_US else now_us
    transaction.enqueue(TOPIC, message | {"not_before_us": due_us})


def described(alert: Alert, event: str, at_us: int) -> dict[str, Any]:
    """One alert as a message holds it."""
    names = ("model", "alarm", "severity", "headline", "words", "evidence", "action", "window", "release", "owner")
    told = {name: getattr(alert, name) for name in names}
    return {"id": alert.id, "event": event, "at": iso(from_us(at_us)), "runbook": alert.runbook, **told} | {
        "opened_at": alert.opened_at,
        "reason": alert.reason if event == "resolved" else "",
        "worst": alert.worst,
        "explain": f"seatrial explain {alert.example}" if alert.example else "",
        "timeline": f"seatrial incident {alert.id}",
    }


# The words of a message, for people


def title(message: Mapping[str, Any]) -> str:
    """One line: how urgent, which model, what."""
    alert, count = message["alert"], message.get("count", 1)
    kind = "over" if message["event"] == "resolved" else "page" if message.get("page") else "ticket"
    what = alert["headline"] or alert["alarm"]
    if message["event"] == "joined":
        what = f"{count} more {'alarm' if count == 1 else 'alarms'} in the same incident"
    elif message["event"] == "resolved":
        what = f"{alert['alarm']}: {alert.get('reason') or 'resolved'}"
    return _line(f"[{kind}] {alert['model']}: {what}")


def lines(message: Mapping[str, Any]) -> list[str]:
    """What is under the title: each alarm, what to do, whose it is, and the commands that look closer."""
    alert = message["alert"]
    listed = message.get("alerts") or [alert]
    found = [f"- {one['alarm']} ({one['severity']}): {one['words'] or one['headline']}" for one in listed]
    rest = message.get("count", len(listed)) - len(listed)
    found += [f"- and {rest} more"] if rest > 0 else []
    found += [_capital(f"{alert['worst']}.")] if message["event"] != "resolved" and alert.get("worst") else []
    if message["event"] != "resolved" and alert["action"]:
        found.append(f"What to do: {alert['action']}")
    found += [f"Runbook: {alert['runbook']}"] if alert["runbook"] else []
    found += [f"Owner: {alert['owner']}"] if alert["owner"] else []
    found += [f"One prediction of it: {alert['explain']}"] if alert.get("explain") else []
    found.append(f"What happened around it: {alert.get('timeline') or 'seatrial incident ' + alert['id']}")
    if message["event"] != "resolved":
        found.append(f"You look at it: seatrial alerts acknowledge {alert['id']}")
    found.append(f"Window {alert['window']}, told at {alert['at']}")
    return [_line(one) for one in found]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _line(text: str) -> str:
    return inert(" ".join(str(text).split()))
