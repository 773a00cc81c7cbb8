"""Prometheus' Alertmanager: every alert rings there until it is over here, and an incident is one alert that pages.

What is told as POST /api/v2/alerts:

    SeatrialIncident{project, model, failure, severity="page"}   from the page until the incident is over
    SeatrialAlert{project, model, alarm, level, severity="ticket", owner}     each alert of its own

Labels are the same each time, so that telling again changes nothing; they fit rules that let a page inhibit the
tickets of its model. Times are the machine's: an Alertmanager knows no replayed ones. An alert that is not told again
within a day ends there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seatrial.core.clock import from_us, iso, machine_us
from seatrial.core.identity import canonical_json
from seatrial.monitoring.alerting.telling import described, going_on, told_of
from seatrial.monitoring.routes.addresses import Allowed, post
from seatrial.stores.metadata import MetadataStore

if TYPE_CHECKING:
    from seatrial.monitoring.alerting.alerts import Alert

HOLD_US = 86_400_000_000
PATH = "/api/v2/alerts"


def send(address: str, message: Mapping[str, Any], allowed: Allowed, seconds: float) -> str:
    """Tell what the message is about; why that failed, or an empty text."""
    return put(address, of_message(message), allowed, seconds)


def put(address: str, alerts: Sequence[Mapping[str, Any]], allowed: Allowed, seconds: float) -> str:
    """Post alerts as an Alertmanager takes them."""
    base = address.partition("+")[2].rstrip("/")
    return post(f"{base}{PATH}", canonical_json(list(alerts)), allowed, seconds)


def of_message(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The alerts that a message opens or ends."""
    since_us = message.get("sent_us") or machine_us()
    over = message["event"] == "resolved"
    listed = message.get("alerts") or [message["alert"]]
    project = message.get("project", "")
    found = [_single(project, one, since_us, over or bool(one.get("resolved_at"))) for one in listed]
    if message.get("page") or message.get("over"):
        about = message.get("failures", ())
        found.insert(0, _incident(project, message["alert"], message.get("incident", ""), about, since_us, over))
    return found


def ringing(metadata: MetadataStore, alerts: Sequence[Alert], project: str = "") -> list[dict[str, Any]]:
    """What rings now of these alerts, as far as it was told, and as over what is muted or ended within an incident that
    goes on. An incident is over there while all of it that could page is muted."""
    found = []
    for model in dict.fromkeys(one.model for one in alerts):
        mine = [one for one in alerts if one.model == model]
        told = told_of(metadata, model)
        still = going_on(told, mine)
        shown = [
            one for one in mine if one.id in told.opened and (one.state != "resolved" or told.opened[one.id] in still)
        ]
        for incident in still:
            high = [one for one in shown if told.opened[one.id] == incident and one.severity == "high"]
            lead = min(high, key=_is_over)  # the oldest that rings and is not muted, where there is one
            page = told.pages[incident]
            alert = described(lead, "opened", 0)
            found.append(_incident(project, alert, incident, page.failures, page.at_us, _is_over(lead)))
        found += [_single(project, described(one, "opened", 0), told.last_us, _is_over(one)) for one in shown]
    return found


def _is_over(one: Alert) -> bool:
    return one.state == "resolved" or bool(one.muted_until)


def _incident(
    project: str, alert: Mapping[str, Any], incident: str, failures: Sequence[str], since_us: int, over: bool
) -> dict[str, Any]:
    """failures: the label that keeps two incidents of a model apart; none in an incident of a version without it."""
    labels = _labels("SeatrialIncident", project, alert) | {"severity": "page"}
    labels |= {"failure": " and ".join(failures)} if failures else {}
    return _as_told(labels, alert, since_us, over, {"incident": incident})


def _single(project: str, alert: Mapping[str, Any], since_us: int, over: bool) -> dict[str, Any]:
    labels = _labels("SeatrialAlert", project, alert) | {"alarm": alert["alarm"]}
    labels |= {"level": alert["severity"], "severity": "ticket"}
    return _as_told(labels, alert, since_us, over, {})


def _labels(name: str, project: str, alert: Mapping[str, Any]) -> dict[str, str]:
    """What keeps the alerts of two projects, and of two models, apart."""
    return {"alertname": name, "model": alert["model"]} | ({"project": project} if project else {})


def _as_told(
    labels: dict[str, str], alert: Mapping[str, Any], since_us: int, over: bool, more: dict[str, str]
) -> dict[str, Any]:
    now_us = machine_us()
    annotations = {
        "summary": alert["headline"],
        "description": alert["words"],
        "action": alert["action"],
        # tools make a link of a runbook_url, so only an address is one
        "runbook_url" if "://" in alert["runbook"] else "runbook": alert["runbook"],
        "explain": alert.get("explain", ""),
        "timeline": alert.get("timeline", ""),
        "window": alert["window"],
        "alert": alert["id"],
    }
    starts_us = min(since_us, now_us)  # a clock that was put back must not make it start after it ends
    return {
        "labels": labels | ({"owner": alert["owner"]} if alert["owner"] else {}),
        "annotations": {name: text for name, text in (annotations | more).items() if text},
        "startsAt": iso(from_us(starts_us)),
        "endsAt": iso(from_us(now_us if over else now_us + HOLD_US)),
    }
