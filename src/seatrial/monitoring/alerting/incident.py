"""Incidents: what happened around an alert, one line after the other?

Nothing is measured again: every line is an event of the audit log on the model, its deployments, releases, proposals,
data, labels, views or alerts. Of what comes regularly (labels, views, quiet reports) a run of three or more without
anything else in between is one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Literal

import msgspec

from seatrial.core.clock import from_us, iso, parse_time, to_us
from seatrial.core.errors import counted
from seatrial.core.records import Event
from seatrial.core.windows import DAY_US, Window, parse_window
from seatrial.monitoring.alerting.alerts import Alert
from seatrial.monitoring.alerting.telling import DEAD, SEVERITIES, TOLD, TOPIC, going_on, told_of
from seatrial.stores.metadata import MetadataStore

if TYPE_CHECKING:
    from seatrial.monitoring.rows.sample import Sample

FORMAT = 1
RUN = 3

Kind = Literal[
    "alert",
    "message",
    "mute",
    "deployment",
    "approval",
    "retraining",
    "release",
    "data",
    "labels",
    "features",
    "report",
]


class Moment(msgspec.Struct, frozen=True):
    """One thing that happened. at: domain time, ISO 8601 in UTC. id: what it is about. tone: "bad", "good" or empty.
    event: its number in the audit log, the first one's where several are one line."""

    at: str
    kind: Kind
    words: str
    actor: str = ""
    id: str = ""
    tone: str = ""
    event: int = 0


class Incident(msgspec.Struct, frozen=True):
    """An alert, those that belong to the same incident, and what happened around them.

    id: of the incident; empty for an alert that woke nobody. state: "open" while an alert of it rings. headline,
    action, owner, on_call, runbook: of the worst that rings. alerts: oldest first. since, until: what the timeline
    covers: from a week before the first alert, or the start of the window it looked at, to a day after the end.
    newest: what the newest report in it says. next: commands, the first one first.
    """

    format: int
    id: str
    model: str
    alert: str
    state: Literal["open", "over"]
    headline: str
    since: str
    until: str
    owner: str
    on_call: str
    runbook: str
    alerts: list[Alert]
    moments: list[Moment]
    next: list[str]
    newest: str = ""
    action: str = ""


def incident(
    metadata: MetadataStore,
    alerts: Sequence[Alert],
    asked: Alert,
    *,
    now_us: int,
    deployments: Sequence[str] = (),
    sources: Sequence[str] = (),
    views: Sequence[str] = (),
) -> Incident:
    """The timeline around an alert.

    alerts: all of its model. deployments, sources, views: those of the model, by name.
    """
    together = [one for one in alerts if one.id == asked.id or (asked.incident and one.incident == asked.incident)]
    ringing = any(one.state != "resolved" for one in together)
    ringing = ringing or asked.incident in going_on(told_of(metadata, asked.model), alerts)
    first_us = min(_us(one.opened_at) for one in together)
    looked_us = [parse_window(one.window).start_us for one in together if one.kind != "silence"]
    last_us = now_us if ringing else max(_us(one.resolved_at or one.opened_at) for one in together) + DAY_US
    since_us = max(min([first_us - 7 * DAY_US, *looked_us]), first_us - 60 * DAY_US, 0)
    span = Window(since_us, max(last_us, first_us) + 1)
    worst = sorted(together, key=lambda one: (one.state == "resolved", -SEVERITIES.index(one.severity)))
    lead = worst[0]  # of those that ring still, the oldest of the worst
    around = _Around(metadata, asked.model, span, list(alerts), deployments, sources, views)
    moments = around.moments()
    reported = [one for one in moments if one.kind == "report"]
    return Incident(
        format=FORMAT,
        id=asked.incident,
        model=asked.model,
        alert=asked.id,
        state="open" if ringing else "over",
        headline=lead.headline or lead.words,
        since=iso(from_us(span.start_us)),
        until=iso(from_us(span.end_us - 1)),
        owner=lead.owner,
        on_call=lead.on_call,
        runbook=lead.runbook,
        alerts=together,
        moments=moments,
        next=_next(lead, together, reported[-1].id if reported else ""),
        newest=f"{reported[-1].words} ({reported[-1].id})" if reported else "",
        action=lead.action,
    )


def worst_prediction(sample: Sample) -> str:
    """The id of the prediction to look at first: the one furthest from its label, else the newest; empty: none."""
    import numpy as np

    if not sample.rows.num_rows:
        return ""
    off = np.abs(sample.scores() - sample.label_values())
    place = int(np.nanargmax(off)) if np.isfinite(off).any() else sample.rows.num_rows - 1
    return str(sample.rows["prediction_id"][place].as_py())


def _next(lead: Alert, together: Sequence[Alert], report: str) -> list[str]:
    found = [f"seatrial explain {lead.example}"] if lead.example else []
    found += [f"seatrial alerts acknowledge {one.id}" for one in together if one.state == "open"][:1]
    found.append(f"seatrial alerts show {lead.id}")
    return [*found, f"seatrial reports show {report or lead.model} --html report.html"]


class _Around:
    """Reads the events of a window, kind by kind."""

    def __init__(
        self,
        metadata: MetadataStore,
        model: str,
        span: Window,
        alerts: Sequence[Alert],
        deployments: Sequence[str],
        sources: Sequence[str],
        views: Sequence[str],
    ) -> None:
        self._metadata = metadata
        self._model = model
        self._span = span
        self._alerts = {one.id: one for one in alerts}
        self._deployments, self._sources, self._views = deployments, sources, views

    def moments(self) -> list[Moment]:
        parts = (
            self._alarms(),
            self._messages(),
            self._mutes(),
            self._traffic(),
            self._releases(),
            self._proposals(),
            self._data(),
            self._labels(),
            self._features(),
            self._reports(),
        )
        found = sorted((moment for part in parts for moment in part), key=lambda one: (one.at, one.event))
        return list(_without_runs(list(_without_repeats(found))))

    def _events(self, **of: str) -> Iterator[Event]:
        for event in self._metadata.events(**of):  # type: ignore[arg-type]
            if self._span.start_us <= event.at_us < self._span.end_us:
                yield event

    def _alarms(self) -> Iterator[Moment]:
        for alert in self._alerts.values():
            for event in self._events(subject=alert.id):
                what, why = event.kind.removeprefix("alert."), event.body.get("reason") or ""
                because = f": {why}" if why else ""
                if what == "opened":
                    words = f"{alert.alarm} ({alert.severity}): {alert.words}"
                    yield _moment(event, "alert", words, alert.id, "bad" if alert.severity == "high" else "")
                elif what == "acknowledged":
                    yield _moment(event, "alert", f"acknowledged {alert.alarm}{because}", alert.id)
                elif what == "resolved":
                    yield _moment(event, "alert", f"resolved {alert.alarm}{because}", alert.id, "good")
                elif what == "undelivered":
                    words = f"a message to {event.body['target']} was given up: {event.body['failure']}"
                    yield _moment(event, "message", words, alert.id, "bad")

    def _messages(self) -> Iterator[Moment]:
        waiting = {message.get("id") for _, message in self._metadata.pending(TOPIC)}
        given_up = {message.get("id") for _, message in self._metadata.pending(DEAD)}
        for event in self._events(subject=f"alerts/{self._model}", kind=TOLD):
            to = ", ".join(event.body["targets"])
            what = "page" if event.body["page"] else "end" if event.body["event"] == "resolved" else "ticket"
            on = counted(len(event.body["alerts"]), "alert")
            words = f"{what} for {to} on {on}" if to else f"{what} on {on}, for nobody: no route is named in on_call"
            if left := set(event.body.get("messages", ())):  # an event of a version before does not say which
                words += ", waits" if left & waiting else ", given up" if left & given_up else ", sent"
            yield _moment(event, "message", words, event.body["incident"], "bad" if event.body["page"] else "")

    def _mutes(self) -> Iterator[Moment]:
        for record in self._metadata.records("mute", self._model):
            what = f"'{record.body['alarm']}'" if record.body["alarm"] else f"every alarm of '{self._model}'"
            until = iso(from_us(record.body["until_us"]))
            for event in self._events(subject=record.id):
                muted = f"muted {what} until {until}: {record.body['reason']}"
                ended = event.kind == "alerts.unmuted"
                yield _moment(event, "mute", f"ended the mute of {what}" if ended else muted, record.id)

    def _traffic(self) -> Iterator[Moment]:
        for name in self._deployments:
            for event in self._events(subject=f"deployment/{name}"):
                why = f": {event.body['reason']}" if event.body.get("reason") else ""
                if event.kind == "rollout.judged":
                    if event.body["verdict"] != "hold":
                        words = f"rollout of '{name}': {event.body['verdict']}, {event.body['why']}"
                        yield _moment(event, "deployment", words, event.body["analysis"])
                    continue
                arms = " and ".join(self._named(arm["release"]) for arm in event.body.get("arms", []))
                verb = {"deploy": "deployed", "rollback": "rolled back to"}.get(
                    event.kind, event.kind.replace(".", " ")
                )
                words = f"'{name}' {verb} {arms}{why}".strip()
                tone = "bad" if event.kind == "rollback" else ""
                yield _moment(event, "deployment", words, event.body.get("record", ""), tone)

    def _releases(self) -> Iterator[Moment]:
        for record in self._metadata.records("release", self._model):
            named = self._named(record.id)
            for event in self._events(subject=record.id):
                if event.kind in ("release.approved", "release.rejected"):
                    words = f"{event.kind.removeprefix('release.')} {named}: {event.body['reason']}"
                    yield _moment(event, "approval", words, record.id)
                elif event.kind == "release.packed":
                    yield _moment(event, "release", f"packed {named}", record.id)

    def _proposals(self) -> Iterator[Moment]:
        for record in self._metadata.records("proposal", self._model):
            for event in self._events(subject=record.id):
                what = event.kind.removeprefix("proposal.").replace("_", " ")
                told = event.body.get("reason") or event.body.get("words") or ""
                yield _moment(event, "retraining", f"retraining {what}{f': {told}' if told else ''}", record.id)

    def _data(self) -> Iterator[Moment]:
        before: dict[str, Event] = {}
        for event in self._metadata.events(kind="snapshot.taken"):
            source = event.body["source"]
            last, before[source] = before.get(source), event
            inside = self._span.start_us <= event.at_us < self._span.end_us
            if not inside or source not in self._sources or (last is not None and last.subject == event.subject):
                continue
            notes = [note["words"] for note in event.body.get("notes", []) if note["severity"] == "warn"]
            notes += [f"{one['name']} failed" for one in event.body.get("expectations", []) if not one["passed"]]
            changed = "; ".join(notes[:3]) + (f"; and {len(notes) - 3} more" if len(notes) > 3 else "")
            words = f"new rows of '{source}'" + (f": {changed}" if changed else "")
            yield _moment(event, "data", words, event.subject, "bad" if notes else "")

    def _labels(self) -> Iterator[Moment]:
        for event in self._events(subject=f"model/{self._model}", kind="labels.told"):
            yield _moment(event, "labels", f"{counted(event.body.get('rows', 0), 'label')} told", "")

    def _features(self) -> Iterator[Moment]:
        for view in self._views:
            for event in self._events(subject=f"view/{view}", kind="features.materialized"):
                trouble = event.body.get("problem") or ""
                words = f"view '{view}' materialized, {counted(event.body.get('written', 0), 'row')} changed"
                yield _moment(event, "features", (trouble and f"view '{view}': {trouble}") or words, f"view/{view}")

    def _reports(self) -> Iterator[Moment]:
        for event in self._events(kind="report.made"):
            record = self._metadata.record(event.subject) if "model" not in event.body else None
            if self._model == (event.body.get("model") or (record.name if record else "")):
                words = f"{event.body['verdict']}: {event.body['headline']}"
                tone = "bad" if event.body["verdict"] == "act" else ""
                yield _moment(event, "report", words, event.subject, tone)

    def _named(self, release: str) -> str:
        record = self._metadata.record(release)
        return f"version {record.body['version']} ({release})" if record else release


def _without_repeats(found: Sequence[Moment]) -> Iterator[Moment]:
    """The moments, with one in the place of reports beside each other that found harm and say the same; its id is the
    newest one's."""

    def same(one: Moment) -> tuple[str, int]:
        return (one.words, 0) if one.kind == "report" and one.tone else ("", one.event)

    for _, run in groupby(found, key=same):
        first, *more = run
        if not more:
            yield first
            continue
        words = f"{first.words} ({counted(len(more) + 1, 'time')} until {more[-1].at[:16].replace('T', ' ')})"
        yield msgspec.structs.replace(first, words=words, id=more[-1].id)


def _without_runs(found: Sequence[Moment]) -> Iterator[Moment]:
    """The moments, with one in the place of a run of what comes regularly."""

    def regular(one: Moment) -> str:
        return one.kind if one.kind in ("labels", "features") or (one.kind == "report" and not one.tone) else ""

    for kind, run in groupby(found, key=regular):
        moments = list(run)
        if not kind or len(moments) < RUN:
            yield from moments
            continue
        first, last = moments[0], moments[-1]
        words = f"{len(moments)} times until {last.at[:16].replace('T', ' ')}, the last: {last.words}"
        yield Moment(first.at, first.kind, words, first.actor, last.id, "", first.event)


def _moment(event: Event, kind: Kind, words: str, id: str, tone: str = "") -> Moment:
    return Moment(iso(from_us(event.at_us)), kind, " ".join(words.split()), event.actor, id, tone, event.seq)


def _us(at: str) -> int:
    return to_us(parse_time(at))
