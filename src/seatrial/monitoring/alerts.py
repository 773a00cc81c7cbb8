"""Alerts: which alarms are ringing, who looks at them, and who was told?

An alert is a frozen record of what was found when its alarm first fired. Its state is a fold of events: opened, seen
(the alarm still fired at a later look), acknowledged, resolved. While an alert is open or
acknowledged its alarm opens no other. It is resolved by a person or when its alarm is quiet again; too little data
is not quiet. A report on an older window than the alert was last seen in changes nothing.

Opened and resolved alerts are left in the outbox for the model's on_call; `deliver` sends them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from seatrial.core.clock import from_us, iso, monotonic
from seatrial.core.errors import Conflict, UsageError
from seatrial.core.identity import canonical_json, new_id
from seatrial.core.records import Event, Record
from seatrial.core.windows import parse_window
from seatrial.monitoring.report import AlarmResult, Report, Severity
from seatrial.stores.metadata import MetadataStore, Transaction

KIND = "alert"
FORMAT = 1
TOPIC = "webhook"
WEBHOOK = "webhook:"

State = Literal["open", "acknowledged", "resolved"]


class UnknownAlert(UsageError):
    """There is no alert with this id."""

    code = "alert.unknown"


class AlertOver(Conflict):
    """The alert is resolved already, so nothing more can be said about it."""

    code = "alert.over"


class Happened(msgspec.Struct, frozen=True):
    """One event of an alert. kind: opened, seen, acknowledged or resolved."""

    at: str
    kind: str
    actor: str
    reason: str = ""
    value: float | None = None


class Alert(msgspec.Struct, frozen=True):
    """One alert and what has become of it.

    alarm: the alarm's name; evidence: its numbers when it fired (value, threshold, rows, labelled, and of a
    performance alarm mean_score and observed), words: the same as a sentence. window: what was looked at; release:
    what answered most of it; report: the id of the report. seen: how often it was found firing, the first included.
    Times are of the domain, ISO 8601 in UTC.
    """

    id: str
    model: str
    alarm: str
    state: State
    severity: Severity
    headline: str
    words: str
    evidence: dict[str, float | None]
    action: str
    window: str
    release: str
    report: str
    opened_at: str
    owner: str = ""
    on_call: str = ""
    runbook: str = ""
    seen: int = 1
    last_seen_at: str = ""
    acknowledged_at: str = ""
    acknowledged_by: str = ""
    resolved_at: str = ""
    resolved_by: str = ""
    reason: str = ""
    history: tuple[Happened, ...] = ()


@dataclass(frozen=True)
class Delivery:
    """What one call of `deliver` did. failures: why messages still wait, by target, without any address."""

    sent: int
    pending: int
    failures: dict[str, str]


def settle(metadata: MetadataStore, report: Report, *, actor: str, at_us: int) -> list[Alert]:
    """Open, continue or resolve the alerts of the report's alarms, in one transaction.

    at_us: domain time. Returns the model's alerts that are open or acknowledged now, and those resolved by this call,
    oldest first. An alert whose alarm is not declared any more is resolved.
    """
    touched: set[str] = set()
    with metadata.transaction() as transaction:
        for alarm in report.alarms:
            touched |= _settle(metadata, transaction, report, alarm, actor, at_us)
        declared = {alarm.name for alarm in report.alarms}
        for alert in alerts(metadata, report.model):
            if alert.state != "resolved" and alert.alarm not in declared:
                _resolved(transaction, alert, actor, at_us, "the alarm is not declared any more", report.window)
                touched.add(alert.id)
    return [alert for alert in alerts(metadata, report.model) if alert.state != "resolved" or alert.id in touched]


def alerts(metadata: MetadataStore, model: str | None = None) -> list[Alert]:
    """Every alert, or those of one model, oldest first."""
    return [
        _folded(record, metadata.events(subject=record.id))
        for record in metadata.records(KIND)
        if model is None or record.body["model"] == model
    ]


def alert(metadata: MetadataStore, id: str) -> Alert:
    """One alert. Raises UnknownAlert."""
    record = metadata.record(id)
    if record is None or record.kind != KIND:
        raise UnknownAlert(
            f"there is no alert '{id}'.", state="Nothing was changed.", next="See `seatrial alerts list`.", id=id
        )
    return _folded(record, metadata.events(subject=id))


def acknowledge(metadata: MetadataStore, id: str, *, actor: str, at_us: int, reason: str = "") -> Alert:
    """`actor` looks at it. Raises UnknownAlert, AlertOver."""
    with metadata.transaction() as transaction:
        _require_unresolved(alert(metadata, id))
        transaction.event("alert.acknowledged", id, actor=actor, at_us=at_us, body={"reason": reason})
    return alert(metadata, id)


def resolve(metadata: MetadataStore, id: str, *, actor: str, at_us: int, reason: str = "") -> Alert:
    """It is over, says `actor`. When the alarm fires on a later window, another alert is opened.

    Raises UnknownAlert, AlertOver.
    """
    with metadata.transaction() as transaction:
        now = alert(metadata, id)
        _require_unresolved(now)
        _resolved(transaction, now, actor, at_us, reason, None)
    return alert(metadata, id)


def deliver(metadata: MetadataStore, urls: Mapping[str, str], timeout: float = 5.0) -> Delivery:
    """Send what waits, to each target in order, as JSON by POST. Never raises for what a target does.

    urls: name -> address (http or https), for the target "webhook:NAME".
    timeout: seconds for all messages of one target together, from the name look-up to the answer's first line. What a
        target did not take with a 2xx answer waits for the next call, and so does what comes after it; redirects are
        not followed. A message may arrive twice when an answer is lost: its `id` and `event` tell.
    """
    waiting: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for seq, message in metadata.pending(TOPIC):
        waiting.setdefault(str(message.get("target", "")), []).append((seq, message))
    sent, failures = 0, {}
    for target, messages in waiting.items():
        address = urls.get(target.removeprefix(WEBHOOK)) or urls.get(target)
        if address is None:
            failures[target] = "no address is set for it"
            continue
        deadline = monotonic() + timeout
        for seq, message in messages:
            failure = _post(address, canonical_json(message), deadline - monotonic())
            if failure:
                failures[target] = failure
                break
            metadata.done(TOPIC, seq)
            sent += 1
    return Delivery(sent, sum(map(len, waiting.values())) - sent, failures)


# Settling


def _settle(
    metadata: MetadataStore, transaction: Transaction, report: Report, alarm: AlarmResult, actor: str, at_us: int
) -> set[str]:
    """The ids of the alerts that were opened or resolved."""
    if alarm.state == "not_enough_data":
        return set()
    head = transaction.head(KIND, f"{report.model}/{alarm.name}")
    current = alert(metadata, head.record_id) if head else None
    if current is not None and _end_us(alarm.window) <= _last_us(metadata, current):
        return set()
    ringing = current is not None and current.state != "resolved"
    if alarm.state == "fired" and not ringing:
        return {_opened(transaction, report, alarm, actor, at_us, head.generation if head else 0)}
    if current is None or not ringing:
        return set()
    if alarm.state == "fired":
        body = {"window": alarm.window, "evidence": _evidence(alarm), "report": report.id}
        transaction.event("alert.seen", current.id, actor=actor, at_us=at_us, body=body)
        return set()
    _resolved(transaction, current, actor, at_us, "the alarm is quiet again", alarm.window)
    return {current.id}


def _opened(
    transaction: Transaction, report: Report, alarm: AlarmResult, actor: str, at_us: int, generation: int
) -> str:
    name = f"{report.model}/{alarm.name}"
    alone = report.verdict == "act" and [one.name for one in report.alarms if one.state == "fired"] == [alarm.name]
    broken = any(not check.passed for check in report.quality)
    body = {
        "model": report.model,
        "alarm": alarm.name,
        "severity": alarm.severity,
        "headline": report.headline if alone and not broken else alarm.evidence,
        "words": alarm.evidence,
        "evidence": _evidence(alarm),
        "action": alarm.action,
        "window": alarm.window,
        "release": next(iter(report.releases), ""),
        "report": report.id,
        "owner": report.owner,
        "on_call": report.on_call,
        "runbook": report.runbook,
        "opened_at": iso(from_us(at_us)),
    }
    record = Record(new_id(KIND), KIND, name, (report.id,) if report.id else (), body, FORMAT)
    transaction.add(record)
    transaction.event("alert.opened", record.id, actor=actor, at_us=at_us, body={"window": alarm.window})
    transaction.move(KIND, name, record.id, expected=generation)
    _route(transaction, record.id, body, "opened", at_us)
    return record.id


def _resolved(transaction: Transaction, now: Alert, actor: str, at_us: int, reason: str, window: str | None) -> None:
    body = {"reason": reason} if window is None else {"reason": reason, "window": window}
    transaction.event("alert.resolved", now.id, actor=actor, at_us=at_us, body=body)
    plain = msgspec.to_builtins(now)
    _route(transaction, now.id, plain | {"reason": reason}, "resolved", at_us)


def _route(transaction: Transaction, id: str, body: Mapping[str, Any], event: str, at_us: int) -> None:
    """Leave a message for whoever is on call; without a webhook there is nobody to send it to."""
    if not body["on_call"].startswith(WEBHOOK):
        return
    told = ("model", "alarm", "severity", "headline", "words", "evidence", "action", "window", "release", "owner")
    message = {"id": id, "event": event, "at": iso(from_us(at_us)), "runbook": body["runbook"]}
    message |= {name: body[name] for name in told} | {"reason": body.get("reason", "")}
    transaction.enqueue(TOPIC, {"format": FORMAT, "target": body["on_call"], "event": event, "alert": message})


def _evidence(alarm: AlarmResult) -> dict[str, float | None]:
    numbers: dict[str, float | None] = {
        "value": alarm.value,
        "threshold": alarm.threshold,
        "rows": alarm.rows,
        "labelled": alarm.labelled,
    }
    if alarm.means is not None:
        numbers |= {"mean_score": alarm.means[0], "observed": alarm.means[1]}
    return numbers


def _last_us(metadata: MetadataStore, current: Alert) -> int:
    """The end of the newest window that this alert was found in, or found over by a look."""
    windows = [event.body.get("window") for event in metadata.events(subject=current.id)]
    return max(_end_us(window) for window in [current.window, *windows] if window)


def _end_us(window: str) -> int:
    return parse_window(window).end_us


def _require_unresolved(now: Alert) -> None:
    if now.state == "resolved":
        raise AlertOver(
            f"alert '{now.id}' was resolved at {now.resolved_at} by {now.resolved_by}.",
            state="Nothing was changed.",
            next="See `seatrial alerts list` for those that are open.",
            id=now.id,
        )


def _folded(record: Record, events: list[Event]) -> Alert:
    body = record.body
    changes: dict[str, Any] = {"state": "open", "seen": 1, "last_seen_at": body["opened_at"]}
    history = []
    for event in events:
        at, kind = iso(from_us(event.at_us)), event.kind.removeprefix("alert.")
        reason = event.body.get("reason", "")
        value = event.body.get("evidence", {}).get("value")
        history.append(
            Happened(at, kind, event.actor, reason, body["evidence"]["value"] if kind == "opened" else value)
        )
        if kind == "seen":
            changes |= {"seen": changes["seen"] + 1, "last_seen_at": at}
        elif kind == "acknowledged":
            changes |= {"state": kind, "acknowledged_at": at, "acknowledged_by": event.actor, "reason": reason}
        elif kind == "resolved":
            changes |= {"state": kind, "resolved_at": at, "resolved_by": event.actor, "reason": reason}
    return msgspec.convert(body | changes | {"id": record.id, "history": history}, Alert)


# Delivery


def _post(address: str, body: bytes, seconds: float) -> str:
    """Post once; why it failed, or an empty text. No address, which may hold a secret, is ever part of the reason."""
    parts = _address(address)
    if parts is None:
        return "its address is no http or https address"
    if seconds <= 0:
        return "its time was used up by the messages before"
    post = _Post(parts, body, seconds)
    # a thread of its own: neither a name look-up that hangs nor an answer that trickles in ends by a socket's timeout
    worker = threading.Thread(target=post.run, name="webhook", daemon=True)
    worker.start()
    worker.join(seconds)
    if worker.is_alive():
        post.abort()
        return "no answer in time"
    return post.failure


class _Post:
    """One request in a thread; `failure` is set when it ends."""

    def __init__(self, parts: SplitResult, body: bytes, seconds: float) -> None:
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=seconds)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._body = body
        self.failure = "no answer"

    def run(self) -> None:
        try:
            headers = {"Content-Type": "application/json", "User-Agent": "seatrial"}
            self._connection.request("POST", self._path, self._body, headers)
            status = self._connection.getresponse().status
            redirected = ", and redirects are not followed" if 300 <= status < 400 else ""
            self.failure = "" if 200 <= status < 300 else f"it answered {status}{redirected}"
        except (OSError, HTTPException, ValueError) as error:
            # the kind only: words of the driver may repeat the address
            self.failure = f"it could not be reached ({type(error).__name__})"
        finally:
            self._connection.close()

    def abort(self) -> None:
        """Let the thread end: what it waits for on the socket fails at once."""
        sock = self._connection.sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(2)


def _address(address: str) -> SplitResult | None:
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if good else None
