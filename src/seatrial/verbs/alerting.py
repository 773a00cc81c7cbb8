"""Alerting: who is told of what rings, who has seen it, what shall be quiet, and what came of the messages."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from seatrial.core.clock import iso, monotonic, parse_time, to_us
from seatrial.core.errors import UsageError, did_you_mean, listed
from seatrial.core.windows import Window, duration_us
from seatrial.verbs.answering import Answering

if TYPE_CHECKING:
    from seatrial.core.records import Record
    from seatrial.export.gauges import Watched
    from seatrial.monitoring.alerting.alerts import Alert, Silence
    from seatrial.monitoring.alerting.cadence import Cadence
    from seatrial.monitoring.alerting.incident import Incident
    from seatrial.monitoring.alerting.mutes import Mute
    from seatrial.monitoring.report import Report
    from seatrial.monitoring.routes.addresses import Allowed
    from seatrial.monitoring.routes.delivery import Delivery, Undelivered
    from seatrial.monitoring.rows.sample import Sample
    from seatrial.training.model import Model
    from seatrial.verbs.results import AlertsLine, ModelStatus, ReportLine


ACTIONS = {
    "predictions": "See whether the service answers (`seatrial status`, its page /ready), and whether anybody asks it.",
    "labels": "See whether what tells labels still runs; until they come, nobody knows how right the model is.",
    "report": "Run `seatrial monitor {model}`, and see why its schedule did not.",
}
MATERIALIZE = "Run `seatrial materialize`, and see why its schedule did not; until then features grow old."


class AlertsNotDelivered(UserWarning):
    """A route did not take an alert; it waits for the next attempt, or was given up."""


class HeartbeatNotSent(UserWarning):
    """The heartbeat was not taken, so an outside system will say that seatrial is dead."""


class GaugesNotWritten(UserWarning):
    """The folder of the textfile collector took no gauges; those in it grow old, which the rules notice."""


class Checked(msgspec.Struct, frozen=True):
    """What `alerts check` found and did.

    cadences: of each model, what should keep coming. silent: the open alerts on what did not. sent, waiting: messages.
    heartbeat: "sent", "not set", or why it was not taken. textfile: the file of gauges; empty when none is set.
    routes: what is wrong with those that are declared or named by an on_call, by name, without any address; an
        on_call that names no route at all is one of them.
    """

    at: str
    cadences: list[Cadence]
    silent: list[Alert]
    sent: int
    waiting: int
    heartbeat: str
    textfile: str
    routes: dict[str, str] = {}


class Alerting(Answering):
    """The verbs about alerts."""

    def alerts(self, model: str | None = None, *, every: bool = False) -> list[Alert]:
        """Alerts that are open or acknowledged; with `every`, resolved ones too. Oldest first."""
        from seatrial.monitoring.alerting.alerts import alerts, with_mutes

        found = self._of_model(model, alerts(self.metadata, model))
        found = [alert for alert in found if every or alert.state != "resolved"]
        return with_mutes(self.metadata, found, self.now_us)

    def alert_show(self, id: str) -> Alert:
        """One alert with its evidence and what happened to it."""
        from seatrial.monitoring.alerting.alerts import alert, with_mutes

        found = alert(self.metadata, self.resolved(id, "alert").id)
        return with_mutes(self.metadata, [found], self.now_us)[0]

    def alert_acknowledge(self, id: str, reason: str = "") -> Alert:
        """Say that somebody looks at it."""
        from seatrial.monitoring.alerting.alerts import acknowledge

        record = self.resolved(id, "alert")
        return acknowledge(self.metadata, record.id, actor=self.actor, at_us=self.now_us, reason=reason)

    def alert_resolve(self, id: str, reason: str = "") -> Alert:
        """Say that it is over."""
        from seatrial.monitoring.alerting.alerts import resolve

        record = self.resolved(id, "alert")
        alert = resolve(self.metadata, record.id, actor=self.actor, at_us=self.now_us, reason=reason)
        self._deliver()
        return alert

    def alerts_mute(self, name: str, *, reason: str, until: datetime | None = None, lasting: str | None = None) -> Mute:
        """Keep alerts, but tell nobody of them, until a time or for a while. What still rings then is told then.

        name: a model, an alert (its alarm is meant), or an alarm's name. lasting: such as "4h". Raises BadMute.
        """
        from seatrial.monitoring.alerting.mutes import BadMute, mute

        if (until is None) == (lasting is None):
            lacks = "needs an end" if reason.strip() else "needs an end and a reason"
            raise BadMute(
                f"a mute {lacks}." if until is None else "a mute has one end, and two were given.",
                expected="Either until a time or for a while is expected.",
                next=f'For example `seatrial alerts mute {name} --for 4h --reason "the feed is being moved"`.',
            )
        model, alarm = self._alarm_named(name)
        until_us = to_us(until) if until is not None else self.now_us + duration_us(lasting or "")
        facts = {"actor": self.actor, "at_us": self.now_us}
        return mute(self.metadata, model, alarm, until_us=until_us, reason=reason, **facts)  # type: ignore[arg-type]

    def alerts_unmute(self, name: str) -> list[Mute]:
        """End the mutes of a model or an alarm, named as for `alerts_mute`. What still rings is told next."""
        from seatrial.monitoring.alerting.mutes import unmute

        model, alarm = self._alarm_named(name)
        return unmute(self.metadata, model, alarm, actor=self.actor, at_us=self.now_us)

    def alerts_mutes(self, model: str | None = None) -> list[Mute]:
        """The mutes that hold now, oldest first."""
        from seatrial.monitoring.alerting.mutes import mutes

        return mutes(self.metadata, self.now_us, model)

    def incident(self, id: str) -> Incident:
        """What happened around an alert. id: of the alert or its incident, the start of one, or a model: the worst of
        its alerts that are not resolved, else its newest."""
        from seatrial.governance.lineage import resolve
        from seatrial.monitoring.alerting.alerts import alert, alerts, with_mutes
        from seatrial.monitoring.alerting.incident import incident
        from seatrial.monitoring.alerting.telling import SEVERITIES
        from seatrial.retraining.proposal import ENDED, newest
        from seatrial.verbs.feeds import views_of

        of_model = sorted(
            alerts(self.metadata, id),
            key=lambda one: -1 if one.state == "resolved" else SEVERITIES.index(one.severity),
        )  # stable: of the worst that ring the newest is last
        if not of_model:
            self._refuse_without(id, "alert")
        record = resolve(self.metadata, of_model[-1].id if of_model else id)
        if record.kind == "incident":
            record = self.record(record.inputs[0])
        asked = with_mutes(self.metadata, [alert(self.metadata, record.id)], self.now_us)[0]
        every = with_mutes(self.metadata, alerts(self.metadata, asked.model), self.now_us)
        model = self._models().get(asked.model)
        views = views_of(self, model) if model else []
        sources = [self.definitions.views[view].source.name for view in views]
        sources += [model.labels.name] if model else []
        found = incident(
            self.metadata,
            every,
            asked,
            now_us=self.now_us,
            deployments=self._deployments_of(asked.model),
            sources=sources,
            views=views,
        )
        proposal = newest(self.metadata, asked.model)
        if proposal is None or proposal.state in ENDED:
            return found
        return msgspec.structs.replace(found, next=[*found.next, f"seatrial proposals show {proposal.id}"])

    def alerts_undelivered(self) -> list[Undelivered]:
        """Messages that were given up after their last attempt, then those that were tried in vain and wait, then those
        that were not tried yet, such as digests until their time."""
        from seatrial.monitoring.routes.delivery import held, undelivered

        return undelivered(self.metadata) + held(self.metadata)

    def alerts_resend(self, ids: Sequence[str] = ()) -> list[Undelivered]:
        """Try undelivered messages again, at once: these (an id or its start), or all; what did not arrive again."""
        from seatrial.monitoring.routes.delivery import resend, undelivered

        if ids and not any(one.id.startswith(tuple(ids)) for one in undelivered(self.metadata)):
            raise UsageError(
                f"no undelivered message is named {listed(ids)}.",
                state="Nothing was sent.",
                next="See `seatrial alerts undelivered`.",
            )
        resend(self.metadata, ids)
        self._deliver(asked=True)
        return undelivered(self.metadata)

    def _alarm_named(self, name: str) -> tuple[str, str]:
        """The model and the alarm (empty: all of it) that a person means."""
        from seatrial.monitoring.alerting.alerts import alerts

        models = {*self._models(), *(one.model for one in alerts(self.metadata))}
        if name in models:
            return name, ""
        if name.startswith("alert_"):
            one = self.alert_show(name)
            return one.model, one.alarm
        known = {(one.model, one.alarm) for one in alerts(self.metadata)}
        known |= {(one, alarm.name) for one, it in self.definitions.monitors.items() for alarm in it.every_alarm}
        meant = {one for one in known if name in (one[1], f"{one[0]}/{one[1]}")}
        if len(meant) == 1:
            return next(iter(meant))
        several = f" Several models have it: write {listed(sorted(f'{m}/{a}' for m, a in meant))}." if meant else ""
        names = [*models, *(alarm for _, alarm in known)]
        raise UsageError(
            f"'{name}' is {'not clear' if meant else 'no model, no alert and no alarm'}.",
            expected=f"Models are {listed(sorted(models))}. {did_you_mean(name, names)}".strip() + several,
            state="Nothing was changed.",
            next="See `seatrial alerts list`.",
        )

    # Silence

    def status(self) -> list[ModelStatus]:
        """See `Nouns`; with what should have come and did not, the alerts and the newest report."""
        return [
            msgspec.structs.replace(
                one,
                silent=[it.words for it in self._cadences(model) if it.state == "missed"],
                alerts=self._alerts_line(one.model),
                report=self._report_line(one.model),
            )
            for one, model in zip(super().status(), self._models().values(), strict=True)
        ]

    def _alerts_line(self, model: str) -> AlertsLine | None:
        from seatrial.monitoring.alerting.telling import SEVERITIES
        from seatrial.verbs.results import AlertsLine

        found = self.alerts(model)
        if not found:
            return None
        counts = {s: sum(one.severity == s for one in found) for s in ("high", "medium", "low")}
        worst = max(found, key=lambda one: (SEVERITIES.index(one.severity), one.opened_at))
        unseen = sum(one.state == "open" for one in found)
        return AlertsLine(**counts, unseen=unseen, worst=worst.id, words=worst.words)

    def reports(self, model: str | None = None) -> list[ReportLine]:
        """Every kept report in short, oldest first; of one model or of all."""
        return [_in_short(record) for record in self._of_model(model, self.metadata.records("report", model))]

    def _report_line(self, model: str) -> ReportLine | None:
        return next(map(_in_short, self.metadata.records("report", model, newest=1)), None)

    def alerts_check(self) -> Checked:
        """Look whether everything that should come still comes, send what waits, and say that seatrial is alive.

        For a scheduler, every few minutes: no report is made. A silence opens an alert, which is resolved when what was
        missed comes again.
        """
        self._compact_log()  # where nothing else does, nobody would know what is usual
        found = self._every_cadence()
        rung = {one.model for one in self.alerts() if one.kind == "silence"}
        silent = self._settle_silences([*self._models(), *rung], found)
        done = self._deliver()
        textfile = self._write_gauges(found)
        heartbeat = self._beat()
        routes, now = self._route_problems(), iso(self.clock.now())
        return Checked(now, found, silent, done.sent, done.pending, heartbeat, textfile, routes)

    def _every_cadence(self) -> list[Cadence]:
        return [it for model in self._models().values() for it in self._cadences(model)]

    def _compact_log(self) -> None:
        """Turn closed segments of the log into Parquet, which is read many times faster. Another one may be at it."""
        from seatrial.stores.prediction_log import LogBusy

        with suppress(LogBusy, OSError):
            self.log.compact()

    def _cadences(self, model: Model) -> list[Cadence]:
        from seatrial.verbs.feeds import cadences

        return cadences(self, model)

    def _settle_silences(self, models: Sequence[str], found: Sequence[Cadence]) -> list[Alert]:
        from seatrial.monitoring.alerting.alerts import settle_silences

        silences = [self._silence(one) for one in found if one.state == "missed"]
        undecided = {(one.model, one.alarm) for one in found if one.state in ("not expected", "from the future")}
        facts = {"actor": self.actor, "at_us": self.now_us}
        return settle_silences(self.metadata, models, silences, undecided=undecided, **facts)  # type: ignore[arg-type]

    def _silence(self, one: Cadence) -> Silence:
        from seatrial.monitoring.alerting.alerts import Silence

        model = self._model(one.model)
        since_us = to_us(parse_time(one.last_at))
        action = ACTIONS.get(one.what, MATERIALIZE).format(model=one.model)
        return Silence(
            model=one.model,
            name=one.alarm,
            severity="high" if one.what == "predictions" else "medium",
            words=one.words,
            window=Window(since_us, max(self.now_us, since_us + 1)),
            action=action,
            evidence={"value": round((self.now_us - since_us) / 3.6e9, 2)},
            owner=model.owner,
            on_call=model.on_call,
            runbook=model.runbook,
        )

    def _beat(self) -> str:
        """Tell whoever waits for it that seatrial is alive: "sent", "not set", or why it was not taken."""
        from seatrial.monitoring.routes.addresses import post
        from seatrial.monitoring.routes.delivery import TIMEOUT, expanded

        declared = self.settings.alerts.heartbeat
        if not declared:
            return "not set"
        address = expanded(declared, os.environ, self.folder)
        why = post(address, b"{}", self._allowed, TIMEOUT) if address else "its variable or file is not set"
        if why:
            warnings.warn(f"the heartbeat was not taken: {why}.", HeartbeatNotSent, stacklevel=3)
        return why or "sent"

    def _gauges(self, found: Sequence[Cadence]) -> str:
        """The gauges of monitoring, as Prometheus reads them. found: how things keep coming, of the models shown."""
        from seatrial.core.clock import machine_us
        from seatrial.export.gauges import text
        from seatrial.monitoring.routes.delivery import undelivered

        watched = [self._watched_model(name, found) for name in self._models()]
        waiting = len(undelivered(self.metadata))
        return text(self.name, watched, heartbeat=machine_us() / 1e6, undelivered=waiting)

    def _watched_model(self, model: str, found: Sequence[Cadence]) -> Watched:
        from seatrial.export.gauges import Watched

        open_alerts = self.alerts(model)
        reports = self.metadata.records("report", model, newest=1)
        last = reports[0].body if reports else {}
        columns = last.get("drift", {}).get("columns", [])
        performance = last.get("performance", {})
        usual_hours = (last.get("arrival") or {}).get("usual_hours")
        mine = {one.what: one for one in found if one.model == model}
        return Watched(
            model,
            alerts={s: sum(one.severity == s for one in open_alerts) for s in ("low", "medium", "high")},
            muted=sum(bool(one.muted_until) for one in open_alerts),
            incident=any(one.severity == "high" and one.incident for one in open_alerts),
            reported_at=_seconds(last.get("as_of", "")),
            verdict=last.get("verdict", ""),
            drifted=sum(one["drifted"] for one in columns) / len(columns) if columns else None,
            labelled=performance["labelled"] / performance["rows"] if performance.get("rows") else None,
            label_delay=usual_hours * 3600 if usual_hours is not None else None,
            labels_at=_seconds(mine["labels"].last_at) if "labels" in mine else None,
            predicted_at=_seconds(mine["predictions"].last_at) if "predictions" in mine else None,
            missed={what: one.state == "missed" for what, one in mine.items()},
        )

    def _write_gauges(self, found: Sequence[Cadence] | None = None) -> str:
        """Write the gauges where [alerts] textfile says; the file, or an empty text. found: how things keep coming, of
        every model, when that was looked at just now."""
        from seatrial.export.gauges import write

        folder = self.settings.alerts.textfile
        if not folder:
            return ""
        if found is None:
            found = self._every_cadence()
        try:
            return str(write(self.folder / folder, self.name, self._gauges(found)))
        except OSError as error:
            warnings.warn(f"the gauges were not written to {folder}: {error.strerror}.", GaugesNotWritten, stacklevel=3)
            return ""

    # Telling

    def _settle_alerts(self, report: Report, sample: Sample, silent: Sequence[Cadence]) -> list[Alert]:
        """Bring the alerts to what a report and its model's silences say, and send what there is to tell."""
        from seatrial.monitoring.alerting.alerts import settle
        from seatrial.monitoring.alerting.incident import worst_prediction

        example = worst_prediction(sample) if any(one.state == "fired" for one in report.alarms) else ""
        alerts = settle(self.metadata, report, actor=self.actor, at_us=self.now_us, example=example)
        self._settle_silences([report.model], [one for one in silent if one.what != "report"])  # it was made just now
        self._deliver()
        self._write_gauges()
        self._beat()
        return alerts

    def _deliver(self, *, asked: bool = False) -> Delivery:
        """Send what waits for the routes, and say who was not reached; nothing while `alerts` is paused, unless a
        person has asked for it."""
        from seatrial.monitoring.routes.delivery import WHOLE, Delivery, deliver, refresh, waiting
        from seatrial.stores.pauses import ALERTS, paused

        if not asked and paused(self.metadata, [ALERTS], self.now_us):
            return Delivery(0, waiting(self.metadata), {})
        urls, allowed = self.alert_routes, self._allowed
        ends = monotonic() + WHOLE
        done = deliver(self.metadata, urls, whole=WHOLE, allowed=allowed, project=self.name, actor=self.actor)
        failures = dict(done.failures)
        if any(address.casefold().startswith("alertmanager+") for address in urls.values()):
            failures |= refresh(
                self.metadata,
                self.alerts(every=True),
                urls,
                allowed=allowed,
                project=self.name,
                whole=ends - monotonic(),
                skip=done.failures,
            )
        for target, why in failures.items():
            warnings.warn(
                f"the alerts for '{target}' were not delivered: {why}. They are kept; the next `seatrial monitor` or "
                "`seatrial alerts check` sends them again. See `seatrial alerts undelivered`.",
                AlertsNotDelivered,
                stacklevel=3,
            )
        return done

    @property
    def _allowed(self) -> Allowed:
        from seatrial.monitoring.routes.addresses import Allowed

        return Allowed.parse(self.settings.alerts.internal)

    def _route_problems(self) -> dict[str, str]:
        from seatrial.monitoring.alerting.telling import targets
        from seatrial.monitoring.routes.delivery import address_of, problem

        urls = self.alert_routes
        found = dict.fromkeys({*self.settings.webhooks, *self.settings.routes}, "its variable or file is not set")
        found = {name: problem(urls[name], self._allowed) if name in urls else why for name, why in found.items()}
        for model in self._models().values():
            for target in targets(model.on_call):
                if address_of(urls, target) is None:
                    found.setdefault(target.partition(":")[2], f"'{model.name}' names it, and it has no address")
            if model.on_call and not targets(model.on_call):
                why = f"'{model.name}' has it as on_call, which is not \"route:NAME\", so nobody is told"
                found[model.on_call] = found.get(model.on_call) or why
        return {name: why for name, why in sorted(found.items()) if why}

    def _is_reachable(self, on_call: str) -> bool:
        """Whether every route that an `on_call` names has an address here."""
        from seatrial.monitoring.alerting.telling import targets
        from seatrial.monitoring.routes.delivery import address_of

        return all(address_of(self.alert_routes, target) for target in targets(on_call))


def _in_short(report: Record) -> ReportLine:
    from seatrial.verbs.results import ReportLine

    body = report.body
    return ReportLine(report.id, body["verdict"], body["headline"], body["window"], body["model"], body["as_of"])


def _seconds(at: str) -> float | None:
    return parse_time(at).timestamp() if at else None


def with_silences(report: Report, found: Sequence[Cadence]) -> Report:
    """The report with what did not come among its findings."""
    words = [one.words[:1].upper() + one.words[1:] for one in found if one.state == "missed" and one.what != "report"]
    return msgspec.structs.replace(report, findings=[*report.findings, *words])
