"""Telling: of which alerts is somebody told now, in how many messages, and is anybody woken?

Alerts that open together are one message. The first alert of high severity opens an incident of its failure (the model
is wrong, its data are broken, or nothing comes) and is its page, the only one: what opens of the same failure until
none of the incident's alerts of high severity rings any more joins it, and is told in digests, like what wakes nobody.
Another failure is another incident. When one is over, one message says so. Muted alerts are told when the mute ends and
they still ring. What is over before its message has left is marked so in it.

What was told are events on the model's alerts; a message is left in the outbox in the same transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seatrial.core.clock import from_us, iso, machine_us
from seatrial.core.identity import new_id
from seatrial.core.inert import inert
from seatrial.core.records import Record
from seatrial.monitoring.alerting import rules
from seatrial.monitoring.alerting.mutes import muted_until, mutes
from seatrial.stores.metadata import MetadataStore, Transaction

if TYPE_CHECKING:
    from seatrial.monitoring.alerting.alerts import Alert

TOPIC = "webhook"
DEAD = "undelivered"
"""The topic of messages that were given up."""
FORMAT = 1
INCIDENT = "incident"
TOLD = "alerts.told"
DIGEST_US = 600_000_000
"""Between two messages on a model that wake nobody."""
MOST_LISTED = 50
ROUTES = ("webhook:", "route:")
SEVERITIES = ("low", "medium", "high")


@dataclass(frozen=True)
class Page:
    """What opened an incident. at_us: machine time. failures: which ones it is about; empty in a page of a version that
    did not say."""

    at_us: int
    failures: tuple[str, ...] = ()


@dataclass
class Told:
    """What was told so far of a model's alerts.

    opened: alert -> its incident (empty: a ticket). over: alerts whose end was told. last_us: machine time of the last
    message. pages: incident -> its page, oldest first.
    """

    opened: dict[str, str] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    last_us: int = 0
    pages: dict[str, Page] = field(default_factory=dict)


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
            told.pages[event.body["incident"]] = Page(event.recorded_at_us, tuple(event.body.get("failures", ())))
    return told


def targets(on_call: str) -> list[str]:
    """Where a model's messages go: the routes in its `on_call`, such as "route:ops, route:mail"."""
    return [one for one in (part.strip() for part in on_call.split(",")) if one.startswith(ROUTES)]


def failure_of(alert: Alert) -> str:
    """Which failure an alert tells of: "silence", "data" (hard rules of quality) or "model"."""
    if alert.kind == "silence":
        return "silence"
    return "data" if alert.alarm == rules.NAME else "model"


def going_on(told: Told, alerts: Sequence[Alert]) -> list[str]:
    """The incidents that go on, oldest first: an alert of high severity that belongs to it still rings."""
    ringing = {told.opened.get(one.id) for one in alerts if one.severity == "high" and one.state != "resolved"}
    return [one for one in told.pages if one in ringing]


def _still(told: Told, alerts: Sequence[Alert], new: Sequence[Alert]) -> list[str]:
    """The incidents that go on, also because what is new wakes somebody for the same failure while the last alert of
    it that did ends: a failure that one alarm hands over to another is one incident."""
    going = {*going_on(told, alerts)}
    high = (one for one in alerts if one.severity == "high" and one.id in told.opened and one.id not in told.over)
    of_high = {told.opened[one.id] for one in high}
    ending = [one for one in told.pages if one in of_high - going]
    going |= {_joined(told, alerts, ending, one) for one in new if one.severity == "high"}
    return [one for one in told.pages if one in going]


def _joined(told: Told, alerts: Sequence[Alert], incidents: Sequence[str], new: Alert) -> str:
    """Which of some incidents an alert joins: the newest of its failure; empty: none."""

    def failures(incident: str) -> Collection[str]:
        high = {failure_of(one) for one in alerts if one.severity == "high" and told.opened.get(one.id) == incident}
        return told.pages[incident].failures or high

    return next((one for one in reversed(incidents) if failure_of(new) in failures(one)), "")


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
    still = _still(told, alerts, new)
    _marked(metadata, transaction, alerts)
    over = [
        one
        for one in alerts
        if one.state == "resolved"
        and one.id not in told.over
        and one.id in told.opened
        and told.opened[one.id] not in still
    ]
    for incident in dict.fromkeys(told.opened[one.id] for one in over):
        together = [one for one in over if told.opened[one.id] == incident]
        _left(metadata, transaction, model, "resolved", together, incident, False, actor, at_us, told)
    new.sort(key=lambda one: -SEVERITIES.index(one.severity))  # stable: the oldest of the worst leads
    joins = {one.id: _joined(told, alerts, still, one) for one in new}
    opened = [one for one in new if not joins[one.id]]
    if opened:
        page, incident = opened[0].severity == "high", ""
        if page:
            record = Record(new_id(INCIDENT), INCIDENT, model, tuple(one.id for one in opened), {}, FORMAT)
            transaction.add(record)
            incident = record.id
        _left(metadata, transaction, model, "opened", opened, incident, page, actor, at_us, told)
    for incident in dict.fromkeys(one for one in joins.values() if one):
        together = [one for one in new if joins[one.id] == incident]
        _left(metadata, transaction, model, "joined", together, incident, False, actor, at_us, told)


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
    failures = sorted({failure_of(one) for one in alerts if one.severity == "high"}) if page else []
    about = told.pages[incident].failures if incident in told.pages else failures
    left = []
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
            "failures": list(about),
            "over": event == "resolved" and incident in told.pages,
            "at": iso(from_us(at_us)),
            "sent_us": now_us,
            "alert": described(mine[0], event, at_us),
            "alerts": [described(one, event, at_us) for one in mine[:MOST_LISTED]],
            "count": len(mine),
        }
        if event == "resolved" or page:
            transaction.enqueue(TOPIC, message)
            left.append(message["id"])
        else:
            left.append(_digest(metadata, transaction, message, told.last_us, now_us))
    body = {"event": event, "alerts": [one.id for one in alerts], "incident": incident, "page": page}
    body |= {"targets": routes, "messages": left} | ({"failures": failures} if page else {})
    transaction.event(TOLD, f"alerts/{model}", actor=actor, at_us=at_us, body=body)


def _marked(metadata: MetadataStore, transaction: Transaction, alerts: Sequence[Alert]) -> None:
    """Mark in the messages that were not tried yet what is over by now."""
    ended = {one.id: one.resolved_at for one in alerts if one.state == "resolved"}
    for seq, waiting in metadata.pending(TOPIC):
        if waiting.get("attempts") or waiting["event"] == "resolved":
            continue
        listed = [
            one | ({"resolved_at": ended[one["id"]]} if one["id"] in ended else {}) for one in waiting.get("alerts", ())
        ]
        if listed != waiting.get("alerts", []):
            lead = next(one for one in listed if one["id"] == waiting["alert"]["id"])
            transaction.done(TOPIC, seq)
            more = {"alert": lead, "alerts": listed, "order": waiting.get("order", seq)}
            transaction.enqueue(TOPIC, waiting | more)


def _digest(
    metadata: MetadataStore, transaction: Transaction, message: dict[str, Any], last_us: int, now_us: int
) -> str:
    """Leave a message that wakes nobody: with one of its kind that was not tried yet, else a while after the last.
    Returns the id of the one that holds it."""
    alike = ("target", "model", "event", "incident")
    for seq, waiting in metadata.pending(TOPIC):
        if not waiting.get("attempts") and all(waiting.get(name) == message[name] for name in alike):
            listed = [*waiting["alerts"], *message["alerts"]][:MOST_LISTED]
            more = {"alerts": listed, "count": waiting["count"] + message["count"]}
            transaction.done(TOPIC, seq)
            transaction.enqueue(TOPIC, waiting | more | {"order": waiting.get("order", seq)})
            return str(waiting["id"])
    due_us = last_us + DIGEST_US if 0 < now_us - last_us < DIGEST_US else now_us
    transaction.enqueue(TOPIC, message | {"not_before_us": due_us})
    return str(message["id"])


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
    listed = message.get("alerts") or [alert]
    if count == len(listed) and all(one.get("resolved_at") for one in listed):
        what = f"{what}, over already"
    whose = f"{alert['model']} of {message['project']}" if message.get("project") else alert["model"]
    return _line(f"[{kind}] {whose}: {what}")


def lines(message: Mapping[str, Any]) -> list[str]:
    """What is under the title: each alarm, what to do, whose it is, and the commands that look closer."""
    alert = message["alert"]
    listed = message.get("alerts") or [alert]
    found = [f"- {one['alarm']} ({one['severity']}{_since(one)}): {one['words'] or one['headline']}" for one in listed]
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


def _since(alert: Mapping[str, Any]) -> str:
    return f", over since {alert['resolved_at']}" if alert.get("resolved_at") else ""


def _line(text: str) -> str:
    return inert(" ".join(str(text).split()))
