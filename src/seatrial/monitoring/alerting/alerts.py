"""Alerts: which alarms are ringing, who looks at them, and how did they end?

An alert is a frozen record of what was found when its alarm first fired. Its state is a fold of events: opened, seen
(the alarm still fired at a later look), acknowledged, resolved. While an alert is open or
acknowledged its alarm opens no other. It is resolved by a person or when its alarm is quiet again; too little data
is not quiet. What a person resolved stays so until its alarm was quiet once, or fires on a window that does not overlap
the one it was last seen in. A report on an older window than the alert was last seen in changes nothing.

Besides the alarms of reports there are silences (`alerting.cadence`): something that was expected did not come.
Who is told of all this, and how, is `alerting.telling` and `monitoring.routes`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from seatrial.core.clock import from_us, iso, parse_time, to_us
from seatrial.core.errors import Conflict, UsageError
from seatrial.core.identity import new_id
from seatrial.core.records import Event, Record
from seatrial.core.windows import Window, parse_window
from seatrial.monitoring.alerting import rules
from seatrial.monitoring.alerting.mutes import muted_until, mutes
from seatrial.monitoring.alerting.telling import tell, told_of
from seatrial.monitoring.definition import PERFORMANCE
from seatrial.monitoring.report import AlarmResult, Report, Severity
from seatrial.monitoring.watched import POLICY
from seatrial.stores.metadata import MetadataStore, Transaction

KIND = "alert"
FORMAT = 1
CAME = "it is not missed any more"

Kind = Literal["", "alarm", "silence"]
"""Empty: an alert of a version that did not say."""

State = Literal["open", "acknowledged", "resolved"]


class UnknownAlert(UsageError):
    """There is no alert with this id."""

    code = "alert.unknown"


class AlertOver(Conflict):
    """The alert is resolved already, so nothing more can be said about it."""

    code = "alert.over"


class Happened(msgspec.Struct, frozen=True):
    """One event of an alert. kind: opened, seen, acknowledged or resolved; quiet: so was its alarm after a person had
    resolved it; undelivered: a message on it was given up."""

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
    kind: of an alarm of a report, or a silence. example: a prediction to `explain`. incident: which one it belongs
    to, once it was told; a page opens one. worst: the slice that was most off when performance was lost.
    muted_until: nobody is told of it until then.
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
    kind: Kind = ""
    example: str = ""
    incident: str = ""
    muted_until: str = ""
    worst: str = ""


@dataclass(frozen=True)
class Silence:
    """Something that was expected and did not come. name: such as "no labels"; words: a sentence; window: since when
    nothing came, and until when it was looked for; evidence: numbers."""

    model: str
    name: str
    severity: Severity
    words: str
    window: Window
    action: str
    evidence: dict[str, float | None]
    owner: str = ""
    on_call: str = ""
    runbook: str = ""


def settle(metadata: MetadataStore, report: Report, *, actor: str, at_us: int, example: str = "") -> list[Alert]:
    """Open, continue or resolve the alerts of the report's alarms, and leave messages on them, in one transaction.

    at_us: domain time. example: a prediction of the window to look at first. An alert whose alarm is not declared any
    more is resolved.
    Returns the model's alerts that are open or acknowledged now, and those resolved by this call, oldest first.
    """
    ended: set[str] = set()
    with metadata.transaction() as transaction:
        now = {one.id: one for one in alerts(metadata, report.model)}
        changed = set()
        looked = [*report.alarms, rules.of_rules(report)]
        for alarm in looked:
            change = _settle(metadata, transaction, report, alarm, now, actor, at_us, example)
            if change is not None:
                changed.add(change[0])
                ended |= {change[0]} if change[1] == "resolved" else set()
        declared = {alarm.name for alarm in looked}
        for one in list(now.values()):
            if one.state != "resolved" and one.alarm not in declared and one.kind != "silence":
                _resolved(transaction, one, actor, at_us, "the alarm is not declared any more", report.window)
                changed.add(one.id)
                ended.add(one.id)
        now |= _read(metadata, changed)
        tell(metadata, transaction, report.model, list(now.values()), actor=actor, at_us=at_us)
        told = told_of(metadata, report.model).opened
    shown = [one for one in now.values() if one.state != "resolved" or one.id in ended]
    return [msgspec.structs.replace(one, incident=told.get(one.id, "")) for one in shown]


def settle_silences(
    metadata: MetadataStore,
    models: Iterable[str],
    silences: Sequence[Silence],
    *,
    actor: str,
    at_us: int,
    undecided: Collection[tuple[str, str]] = (),
) -> list[Alert]:
    """Open an alert for each silence that has none, and resolve those of `models` that are over.

    undecided: (model, name) of what nobody can say whether it is missed; an alert on it stays as it is.
    Returns the silences' alerts that are open or acknowledged now.
    """
    found = []
    for model in dict.fromkeys(models):
        missed = {one.name: one for one in silences if one.model == model}
        with metadata.transaction() as transaction:
            before = alerts(metadata, model)
            ringing = {one.alarm: one for one in before if one.kind == "silence" and one.state != "resolved"}
            for name, alert in ringing.items():
                ahead = to_us(parse_time(alert.opened_at)) > at_us  # the clock was put back: nothing is concluded
                if name not in missed and (model, name) not in undecided and not ahead:
                    _resolved(transaction, alert, actor, at_us, CAME, None)
            for name, silence in missed.items():
                if name not in ringing and not _dismissed(metadata, transaction, silence):
                    _silent(transaction, silence, actor, at_us)
            after = alerts(metadata, model)
            tell(metadata, transaction, model, after, actor=actor, at_us=at_us)
            told = told_of(metadata, model).opened
        silent = [one for one in after if one.kind == "silence" and one.state != "resolved"]
        found += [msgspec.structs.replace(one, incident=told.get(one.id, "")) for one in silent]
    return found


def alerts(metadata: MetadataStore, model: str | None = None) -> list[Alert]:
    """Every alert, or those of one model, oldest first."""
    records = [one for one in metadata.records(KIND) if model is None or one.body["model"] == model]
    told = {one: told_of(metadata, one).opened for one in {record.body["model"] for record in records}}
    return [
        _folded(record, metadata.events(subject=record.id), told[record.body["model"]].get(record.id, ""))
        for record in records
    ]


def with_mutes(metadata: MetadataStore, alerts: Sequence[Alert], at_us: int) -> list[Alert]:
    """The alerts with the end of what mutes them at an instant."""
    silent = {model: mutes(metadata, at_us, model) for model in {one.model for one in alerts}}
    return [msgspec.structs.replace(one, muted_until=muted_until(silent[one.model], one.alarm)) for one in alerts]


def alert(metadata: MetadataStore, id: str) -> Alert:
    """One alert. Raises UnknownAlert."""
    record = metadata.record(id)
    if record is None or record.kind != KIND:
        raise UnknownAlert(
            f"there is no alert '{id}'.", state="Nothing was changed.", next="See `seatrial alerts list`.", id=id
        )
    told = told_of(metadata, record.body["model"]).opened
    return _folded(record, metadata.events(subject=id), told.get(id, ""))


def acknowledge(metadata: MetadataStore, id: str, *, actor: str, at_us: int, reason: str = "") -> Alert:
    """`actor` looks at it. Raises UnknownAlert, AlertOver."""
    with metadata.transaction() as transaction:
        _require_unresolved(alert(metadata, id))
        transaction.event("alert.acknowledged", id, actor=actor, at_us=at_us, body={"reason": reason})
    return alert(metadata, id)


def resolve(metadata: MetadataStore, id: str, *, actor: str, at_us: int, reason: str = "") -> Alert:
    """It is over, says `actor`. Another alert is opened when the alarm was quiet once and fires again, or fires on a
    window that does not overlap the one in which this alert was last seen.

    Raises UnknownAlert, AlertOver.
    """
    with metadata.transaction() as transaction:
        now = alert(metadata, id)
        _require_unresolved(now)
        _resolved(transaction, now, actor, at_us, reason, None)
        tell(metadata, transaction, now.model, alerts(metadata, now.model), actor=actor, at_us=at_us)
    return alert(metadata, id)


# Settling


def _settle(
    metadata: MetadataStore,
    transaction: Transaction,
    report: Report,
    alarm: AlarmResult,
    now: Mapping[str, Alert],
    actor: str,
    at_us: int,
    example: str,
) -> tuple[str, Literal["opened", "seen", "resolved"]] | None:
    """The alert that changed, and how."""
    if alarm.state == "not_enough_data":
        return None
    head = transaction.head(KIND, f"{report.model}/{alarm.name}")
    current = now[head.record_id] if head else None
    if current is not None and _end_us(alarm.window) <= _last_us(metadata, current):
        return None
    ringing = current is not None and current.state != "resolved"
    if current is not None and _is_held(metadata, current):
        if alarm.state == "quiet":
            transaction.event("alert.quiet", current.id, actor=actor, at_us=at_us, body={"window": alarm.window})
            return None
        if parse_window(alarm.window).start_us < _last_us(metadata, current):
            return None
    if alarm.state == "fired" and not ringing:
        generation = head.generation if head else 0
        return _opened(transaction, report, alarm, actor, at_us, generation, example), "opened"
    if current is None or not ringing:
        return None
    if alarm.state == "fired":
        body = {"window": alarm.window, "evidence": _evidence(alarm), "report": report.id}
        transaction.event("alert.seen", current.id, actor=actor, at_us=at_us, body=body)
        return current.id, "seen"
    _resolved(transaction, current, actor, at_us, "the alarm is quiet again", alarm.window)
    return current.id, "resolved"


def _read(metadata: MetadataStore, ids: Iterable[str]) -> dict[str, Alert]:
    """These alerts as they are now, oldest first, without their incidents."""
    records = [record for record in map(metadata.record, sorted(ids)) if record is not None]
    return {record.id: _folded(record, metadata.events(subject=record.id), "") for record in records}


def _opened(
    transaction: Transaction, report: Report, alarm: AlarmResult, actor: str, at_us: int, generation: int, example: str
) -> str:
    name = f"{report.model}/{alarm.name}"
    fired = [one.name for one in (*report.alarms, rules.of_rules(report)) if one.state == "fired"]
    alone = report.verdict == "act" and fired == [alarm.name]
    body = {
        "model": report.model,
        "alarm": alarm.name,
        "severity": alarm.severity,
        "headline": report.headline if alone or alarm.metric == rules.METRIC else alarm.evidence,
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
        "kind": "alarm",
        "example": example,
        "worst": _worst(report, alarm),
    }
    record = Record(new_id(KIND), KIND, name, (report.id,) if report.id else (), body, FORMAT)
    transaction.add(record)
    transaction.event("alert.opened", record.id, actor=actor, at_us=at_us, body={"window": alarm.window})
    transaction.move(KIND, name, record.id, expected=generation)
    return record.id


def _worst(report: Report, alarm: AlarmResult) -> str:
    """Where the model is most off, when the alarm is on how right it is."""
    of_performance = alarm.metric in PERFORMANCE or (alarm.metric.startswith(POLICY) and alarm.severity == "high")
    if report.slices is None or not of_performance:
        return ""
    return report.slices.off_words(share=report.task != "regression")


def _dismissed(metadata: MetadataStore, transaction: Transaction, silence: Silence) -> bool:
    """Whether a person said that this very silence is over; nothing came since."""
    head = transaction.head(KIND, f"{silence.model}/{silence.name}")
    last = alert(metadata, head.record_id) if head else None
    return last is not None and last.reason != CAME and parse_window(last.window).start_us == silence.window.start_us


def _silent(transaction: Transaction, silence: Silence, actor: str, at_us: int) -> None:
    name = f"{silence.model}/{silence.name}"
    body = {
        "model": silence.model,
        "alarm": silence.name,
        "severity": silence.severity,
        "headline": silence.words,
        "words": silence.words,
        "evidence": silence.evidence,
        "action": silence.action,
        "window": str(silence.window),
        "release": "",
        "report": "",
        "owner": silence.owner,
        "on_call": silence.on_call,
        "runbook": silence.runbook,
        "opened_at": iso(from_us(at_us)),
        "kind": "silence",
    }
    record = Record(new_id(KIND), KIND, name, (), body, FORMAT)
    transaction.add(record)
    transaction.event("alert.opened", record.id, actor=actor, at_us=at_us, body={"window": body["window"]})
    transaction.move(KIND, name, record.id, expected=None)


def _resolved(transaction: Transaction, now: Alert, actor: str, at_us: int, reason: str, window: str | None) -> None:
    body = {"reason": reason} if window is None else {"reason": reason, "window": window}
    transaction.event("alert.resolved", now.id, actor=actor, at_us=at_us, body=body)


def _evidence(alarm: AlarmResult) -> dict[str, float | None]:
    if alarm.metric.startswith(POLICY):  # it watches series, and its words have their numbers
        return {}
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


def _is_held(metadata: MetadataStore, current: Alert) -> bool:
    """Whether a person resolved it, and its alarm was not quiet since; only a look says in which window it was over."""
    last = [event for event in metadata.events(subject=current.id) if event.kind != "alert.undelivered"][-1]
    return last.kind == "alert.resolved" and "window" not in last.body


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


def _folded(record: Record, events: list[Event], incident: str) -> Alert:
    body = record.body
    changes: dict[str, Any] = {"state": "open", "seen": 1, "last_seen_at": body["opened_at"]}
    history = []
    for event in events:
        at, kind = iso(from_us(event.at_us)), event.kind.removeprefix("alert.")
        reason = event.body.get("reason", "")
        value = event.body.get("evidence", {}).get("value")
        history.append(
            Happened(at, kind, event.actor, reason, body["evidence"].get("value") if kind == "opened" else value)
        )
        if kind == "seen":
            changes |= {"seen": changes["seen"] + 1, "last_seen_at": at}
        elif kind == "acknowledged":
            changes |= {"state": kind, "acknowledged_at": at, "acknowledged_by": event.actor, "reason": reason}
        elif kind == "resolved":
            changes |= {"state": kind, "resolved_at": at, "resolved_by": event.actor, "reason": reason}
    return msgspec.convert(body | changes | {"id": record.id, "history": history, "incident": incident}, Alert)
